//! The `--config` file: long options, one per line.

use std::path::Path;

use super::{CONFIG, Kind, Origin, Spec, Value, did_you_mean};
use crate::failure::Failure;
use crate::files::{self, FileKind};

/// Reads the file. Returns [`Failure::Usage`] with file and line for an unknown or repeated option.
pub(super) fn read(spec: &Spec, path: &Path) -> Result<Vec<Value>, Failure> {
    let file = path.display().to_string();
    let text = files::read_text(path, FileKind::CONFIG)?
        .map_err(|line| Failure::Usage(format!("{file}:{line}: not UTF-8")))?;
    let mut values: Vec<Value> = Vec::new();
    for (place, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let value = read_line(spec, line).and_then(|(long, text)| {
            let before = values.iter().find(|value| value.long == long && !is_repeatable(spec, long));
            match before {
                Some(before) => Err(format!("'{long}' is already given in line {}", before.place)),
                None => Ok(Value { long, place, text, origin: Origin::File(file.clone()) }),
            }
        });
        values.push(value.map_err(|why| Failure::Usage(format!("{file}:{place}: {why}")))?);
    }
    Ok(values)
}

fn read_line(spec: &Spec, line: &str) -> Result<(&'static str, String), String> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let known = || spec.options.iter().filter(|opt| opt.long != CONFIG.long);
    let Some(opt) = known().find(|opt| opt.long == word) else {
        let meant = did_you_mean(word, known().map(|opt| opt.long));
        let meant = meant.map(|meant| format!(", did you mean '{meant}'?")).unwrap_or_default();
        return Err(format!("unknown word '{word}'{meant}"));
    };
    match (opt.kind, rest.is_empty()) {
        (Kind::Flag, false) => Err(format!("'{word}' takes no value")),
        (Kind::One | Kind::Many, true) => Err(format!("'{word}' needs a value: {}", opt.hint)),
        _ => Ok((opt.long, rest.to_owned())),
    }
}

fn is_repeatable(spec: &Spec, long: &str) -> bool {
    spec.options.iter().any(|opt| opt.long == long && opt.kind == Kind::Many)
}
