//! Parsing of a command's options. A table ([`Spec`], [`Opt`]) defines them once for `--help`, the command line and the
//! `--config` file.

mod config;
mod suggest;
pub mod value;

use std::path::Path;

use getopts::{Fail, HasArg, Occur, Options};

use crate::failure::Failure;
pub use suggest::did_you_mean;

/// How often an option may be given, and whether it takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No value.
    Flag,
    /// A value; may be given once.
    One,
    /// A value; may be repeated.
    Many,
}

/// An option of a command.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Its name without dashes; also its keyword in a `--config` file.
    pub long: &'static str,
    /// Its letter, if it has one.
    pub short: Option<char>,
    /// The kind of value: `ADDR:PORT`, `SECONDS`. Empty for a flag.
    pub hint: &'static str,
    /// Its text for `--help`, without the default.
    pub help: &'static str,
    /// Its default, in the form of a value ([`Matches::get`] parses it) or as a description. May be empty.
    pub default: &'static str,
    /// How often it may be given, and whether it takes a value.
    pub kind: Kind,
}

impl Opt {
    /// Makes an option without a value.
    pub const fn flag(long: &'static str, help: &'static str) -> Opt {
        Opt { long, short: None, hint: "", help, default: "", kind: Kind::Flag }
    }

    /// Makes an option with a value that may be given once.
    pub const fn one(
        long: &'static str,
        hint: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Opt {
        Opt { long, short: None, hint, help, default, kind: Kind::One }
    }

    /// Makes an option with a value that may be repeated.
    pub const fn many(
        long: &'static str,
        hint: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Opt {
        Opt { long, short: None, hint, help, default, kind: Kind::Many }
    }

    /// Sets the option's letter.
    pub const fn letter(self, letter: char) -> Opt {
        Opt { short: Some(letter), ..self }
    }

    /// Replaces the option's default.
    pub const fn with_default(self, default: &'static str) -> Opt {
        Opt { default, ..self }
    }

    /// Replaces the option's text for `--help`.
    pub const fn explained(self, help: &'static str) -> Opt {
        Opt { help, ..self }
    }
}

/// Joins parts of a table of options. `N` is the number of all of them.
pub const fn joined<const N: usize>(parts: &[&[Opt]]) -> [Opt; N] {
    let mut all = [Opt::flag("", ""); N];
    let (mut count, mut part) = (0, 0);
    while part < parts.len() {
        let mut at = 0;
        while at < parts[part].len() {
            all[count] = parts[part][at];
            count += 1;
            at += 1;
        }
        part += 1;
    }
    assert!(count == N, "N is the number of options");
    all
}

/// `--state DIR`, common to several commands.
pub const STATE: Opt = Opt::one(
    "state",
    "DIR",
    "$STATE_DIRECTORY, else $XDG_STATE_HOME/rendezvous, else ~/.local/state/rendezvous",
    "the folder of ids, relay.crt and relay.key",
);

/// `--config FILE`. A command with this option also reads its options from such a file.
pub const CONFIG: Opt = Opt::one(
    "config",
    "FILE",
    "none",
    "read long options from this file, one per line (listen [::]:443), # comments; the command line overrides it",
);

/// `--log LEVEL`, for long-running commands.
pub const LOG: Opt = Opt::one(
    "log",
    "LEVEL",
    "$RUST_LOG, else info",
    "the log level on stderr: error, warn, info, debug or trace",
);

/// The arguments of a command.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The command's words after `rendezvous`: `serve`, `id add`.
    pub command: &'static str,
    /// Its operands in order: `RELAY`, `ID`. Those in brackets are optional: `[FILE]`.
    pub operands: &'static [&'static str],
    /// What it does, in a sentence or a paragraph.
    pub summary: &'static str,
    /// Its options, without `--help`.
    pub options: &'static [Opt],
    /// Text at the end of `--help`; may be empty.
    pub footer: &'static str,
}

/// Parses `args` (those after the command's name) and the `--config` file, if the command has that option.
///
/// # Errors
///
/// [`Failure::Help`] with the text for `--help`; [`Failure::Usage`] with the option and a suggestion, or with file and
/// line.
pub fn parse(spec: &Spec, args: &[String]) -> Result<Matches, Failure> {
    let parsed = getopts(spec).parse(args).map_err(|fail| refuse(spec, &fail))?;
    if parsed.opt_present("help") {
        return Err(Failure::Help(help(spec)));
    }
    let mut matches = Matches { spec: *spec, values: Vec::new(), free: parsed.free.clone() };
    for opt in spec.options {
        for (place, text) in parsed.opt_strs_pos(opt.long) {
            matches.values.push(Value { long: opt.long, place, text, origin: Origin::CommandLine });
        }
        if opt.kind == Kind::Flag {
            matches.values.extend(parsed.opt_positions(opt.long).into_iter().map(|place| Value {
                long: opt.long,
                place,
                text: String::new(),
                origin: Origin::CommandLine,
            }));
        }
    }
    check_operands(spec, &matches.free)?;
    if spec.options.iter().any(|opt| opt.long == CONFIG.long)
        && let Some(file) = matches.one(CONFIG.long).map(str::to_owned)
    {
        let of_file = config::read(spec, Path::new(&file))?;
        matches.add_file(of_file);
    }
    Ok(matches)
}

/// The given options, from the command line or a `--config` file. Values from the file come before those of the command
/// line; the command line overrides an option that may be given once.
#[derive(Clone, Debug)]
pub struct Matches {
    spec: Spec,
    values: Vec<Value>,
    free: Vec<String>,
}

#[derive(Clone, Debug)]
struct Value {
    long: &'static str,
    /// The index of the argument, or the line of the file.
    place: usize,
    text: String,
    origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    CommandLine,
    File(String),
}

impl Matches {
    /// Whether a flag was given.
    pub fn flag(&self, long: &str) -> bool {
        self.of(long).next().is_some()
    }

    /// The value of an option as text; the last one of a repeated option.
    pub fn one(&self, long: &str) -> Option<&str> {
        self.of(long).last().map(|value| value.text.as_str())
    }

    /// Whether an option's value was given on the command line, where other users can see it.
    pub fn is_on_command_line(&self, long: &str) -> bool {
        self.of(long).last().is_some_and(|value| value.origin == Origin::CommandLine)
    }

    /// The options whose values differ from those in `other`.
    pub fn differing(&self, other: &Matches) -> Vec<&'static str> {
        let names = self.spec.options.iter().map(|opt| opt.long);
        names.filter(|long| self.many(long) != other.many(long)).collect()
    }

    /// All values of an option as text, in order.
    pub fn many(&self, long: &str) -> Vec<&str> {
        self.of(long).map(|value| value.text.as_str()).collect()
    }

    /// All values of several options in the order in which they were given, each with its option's name. For options
    /// that refer to a preceding one (`--ticket A --to B --ticket C`).
    pub fn in_order(&self, longs: &[&str]) -> Vec<(&'static str, &str)> {
        let mut all: Vec<_> = self.values.iter().filter(|value| longs.contains(&value.long)).collect();
        // Places are unique.
        all.sort_unstable_by_key(|value| (value.origin == Origin::CommandLine, value.place));
        all.into_iter().map(|value| (value.long, value.text.as_str())).collect()
    }

    /// The operands in the order of [`Spec::operands`]; optional ones may be missing.
    pub fn operands(&self) -> &[String] {
        &self.free
    }

    /// The value of an option, or its default, parsed by `read` (see [`value`]).
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] with the option, or the file and line, and the error of `read`.
    pub fn get<T>(&self, long: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
        match self.get_if(long, &read)? {
            Some(value) => Ok(value),
            None => {
                let opt = self.spec.options.iter().find(|opt| opt.long == long);
                let text = opt.map_or("", |opt| opt.default);
                read(text).map_err(|why| Failure::Usage(format!("--{long} has no default: {why}")))
            }
        }
    }

    /// The value of an option, parsed by `read`, if it was given.
    ///
    /// # Errors
    ///
    /// As [`Matches::get`].
    pub fn get_if<T>(
        &self,
        long: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        self.of(long).last().map(|value| value.read(&read)).transpose()
    }

    /// All values of an option, parsed by `read`, in order; none if it was not given.
    ///
    /// # Errors
    ///
    /// As [`Matches::get`].
    pub fn get_all<T>(
        &self,
        long: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Failure> {
        self.of(long).map(|value| value.read(&read)).collect()
    }

    fn of(&self, long: &str) -> impl Iterator<Item = &Value> {
        debug_assert!(self.spec.options.iter().any(|opt| opt.long == long), "--{long} is not in the table");
        self.values.iter().filter(move |value| value.long == long)
    }

    /// Inserts the values of a file before those of the command line.
    fn add_file(&mut self, mut of_file: Vec<Value>) {
        of_file.retain(|value| {
            let opt = self.spec.options.iter().find(|opt| opt.long == value.long);
            let repeatable = opt.is_some_and(|opt| opt.kind == Kind::Many);
            repeatable || !self.values.iter().any(|given| given.long == value.long)
        });
        of_file.append(&mut self.values);
        self.values = of_file;
    }
}

impl Value {
    fn read<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
        read(&self.text).map_err(|why| {
            Failure::Usage(match &self.origin {
                Origin::CommandLine => format!("--{}: {why}", self.long),
                Origin::File(file) => format!("{file}:{}: {}: {why}", self.place, self.long),
            })
        })
    }
}

/// The text of `--help`.
fn help(spec: &Spec) -> String {
    let mut brief = format!("Usage: rendezvous {}", spec.command);
    brief.push_str(if spec.options.is_empty() { "" } else { " [OPTIONS]" });
    for operand in spec.operands {
        brief.push(' ');
        brief.push_str(operand);
    }
    let mut text = getopts(spec).usage(&format!("{brief}\n\n{}", spec.summary));
    if !spec.footer.is_empty() {
        text.push_str(&format!("\n{}\n", spec.footer));
    }
    text
}

fn getopts(spec: &Spec) -> Options {
    let mut options = Options::new();
    for opt in spec.options {
        let short = opt.short.map(String::from).unwrap_or_default();
        let mut desc = opt.help.to_owned();
        if opt.kind == Kind::Many {
            desc.push_str("; may be repeated");
        }
        if !opt.default.is_empty() {
            desc.push_str(&format!(" [{}]", opt.default));
        }
        let (has, occur) = match opt.kind {
            Kind::Flag => (HasArg::No, Occur::Multi),
            Kind::One => (HasArg::Yes, Occur::Optional),
            Kind::Many => (HasArg::Yes, Occur::Multi),
        };
        options.opt(&short, opt.long, &desc, opt.hint, has, occur);
    }
    options.optflagmulti("h", "help", "print this help");
    options
}

fn refuse(spec: &Spec, fail: &Fail) -> Failure {
    let dashed =
        |name: &str| if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") };
    let hint = |name: &str| {
        let opt = spec
            .options
            .iter()
            .find(|opt| opt.long == name || opt.short.map(String::from).as_deref() == Some(name));
        opt.map_or("", |opt| opt.hint)
    };
    let what = match fail {
        Fail::ArgumentMissing(name) => format!("{} needs a value: {}", dashed(name), hint(name)),
        Fail::UnrecognizedOption(name) => {
            let known = spec.options.iter().map(|opt| opt.long).chain(["help"]);
            let meant = did_you_mean(name, known).map(|meant| format!(", did you mean --{meant}?"));
            format!("unknown option {}{}", dashed(name), meant.unwrap_or_default())
        }
        Fail::OptionMissing(name) => format!("{} is missing", dashed(name)),
        Fail::OptionDuplicated(name) => format!("{} may be given only once", dashed(name)),
        Fail::UnexpectedArgument(name) => format!("{} takes no value", dashed(name)),
    };
    see_help(spec, &what)
}

fn check_operands(spec: &Spec, free: &[String]) -> Result<(), Failure> {
    if let Some(missing) = spec.operands.get(free.len()).filter(|operand| !operand.starts_with('[')) {
        return Err(see_help(spec, &format!("{missing} is missing")));
    }
    match free.get(spec.operands.len()) {
        Some(extra) => Err(see_help(spec, &format!("unexpected argument '{extra}'"))),
        None => Ok(()),
    }
}

fn see_help(spec: &Spec, what: &str) -> Failure {
    Failure::Usage(format!("{what} (see: rendezvous {} --help)", spec.command))
}
