//! Escaping of text from peers or files, before it is shown or logged.
//!
//! Unprintable characters become escapes such as `\n` or `\u{202e}`: control characters, line separators, bidirectional
//! controls (Unicode Standard Annex #9), zero-width and combining characters, private and unassigned ones. Truncated
//! text ends in [`CUT`].

use std::fmt::{self, Write as _};
use std::io;

/// The mark at the end of truncated text.
pub const CUT: &str = "[...]";

/// Limit of a value in a log line, in characters.
const VALUE_MAX: usize = 200;
/// Limit of a long value in a log line, in characters: a problem of a CA is shown whole.
const LONG_MAX: usize = 2_500;
/// Limit of a peer's text in a message, in characters.
const TEXT_MAX: usize = 500;
/// Limit of a line on the console, in characters. A path is shorter (PATH_MAX).
const LINE_MAX: usize = 5_000;

/// A value in a log line: quoted, printable ASCII unchanged, everything else escaped, at most 200 characters.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

/// A long value in a log line: as [`Escaped`], at most 2,500 characters.
#[derive(Clone, Copy, Debug)]
pub struct EscapedLong<'a>(pub &'a str);

/// A peer's text in a message: printable characters unchanged, at most 500.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

/// A line on the console that already contains escapes: printable characters unchanged, at most 5,000.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(pub &'a str);

/// Writes text into `out` like [`Line`], without a limit.
#[derive(Debug)]
pub struct LineWriter<W>(pub W);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        value(f, self.0, VALUE_MAX)
    }
}

impl fmt::Display for EscapedLong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        value(f, self.0, LONG_MAX)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, TEXT_MAX, |c| c != '\\' && is_printable(c))
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, LINE_MAX, is_printable)
    }
}

impl<W: io::Write> fmt::Write for LineWriter<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c| !is_printable(c)) {
            let (plain, odd) = rest.split_at(at);
            let mut chars = odd.chars();
            let escape = chars.next().map(char::escape_default);
            self.0.write_all(plain.as_bytes()).map_err(|_| fmt::Error)?;
            for c in escape.into_iter().flatten() {
                self.0.write_all(c.encode_utf8(&mut [0; 4]).as_bytes()).map_err(|_| fmt::Error)?;
            }
            rest = chars.as_str();
        }
        self.0.write_all(rest.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// Whether a character is visible and does not affect the text around it.
fn is_printable(c: char) -> bool {
    // The standard library has the tables: it escapes unprintable and combining characters.
    match c {
        ' '..='~' => true,
        c => c.escape_debug().next() == Some(c),
    }
}

fn value(f: &mut fmt::Formatter<'_>, text: &str, max: usize) -> fmt::Result {
    f.write_char('"')?;
    write(f, text, max, |c| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~'))?;
    f.write_char('"')
}

fn write(f: &mut fmt::Formatter<'_>, text: &str, max: usize, as_it_is: fn(char) -> bool) -> fmt::Result {
    let mut chars = text.chars();
    for c in chars.by_ref().take(max) {
        if as_it_is(c) { f.write_char(c)? } else { write!(f, "{}", c.escape_default())? }
    }
    if chars.next().is_some() { f.write_str(CUT) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_escaped_everywhere() {
        let ranges = [
            ('\0', '\x1f'),             // controls
            ('\x7f', '\u{a0}'),         // controls, no-break space
            ('\u{ad}', '\u{ad}'),       // soft hyphen
            ('\u{61c}', '\u{61c}'),     // Arabic letter mark
            ('\u{200b}', '\u{200f}'),   // without width, left-to-right and right-to-left marks
            ('\u{2028}', '\u{202e}'),   // line separators, bidirectional controls
            ('\u{2060}', '\u{2069}'),   // without width, bidirectional isolates
            ('\u{300}', '\u{36f}'),     // combining marks
            ('\u{e000}', '\u{f8ff}'),   // private use
            ('\u{fe00}', '\u{fe0f}'),   // variation selectors
            ('\u{feff}', '\u{feff}'),   // byte order mark
            ('\u{e0001}', '\u{e007f}'), // tags
        ];
        for c in ranges.into_iter().flat_map(|(first, last)| first..=last) {
            let text = format!("a{c}b");
            let escaped = format!("a{}b", c.escape_default());
            let mut written = Vec::new();
            write!(LineWriter(&mut written), "{text}").unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), escaped);
            assert_eq!(Line(&text).to_string(), escaped);
            assert_eq!(Shown(&text).to_string(), escaped);
            assert_eq!(Escaped(&text).to_string(), format!("\"{escaped}\""));
        }
    }

    #[test]
    fn what_prints_is_left_for_people_and_escaped_for_programs() {
        let text = "Größe 'ä' \"λ\" 漢字 → ½";
        assert_eq!(Shown(text).to_string(), text);
        assert_eq!(Line(text).to_string(), text);
        assert_eq!(Escaped("ä\"\\").to_string(), r#""\u{e4}\"\\""#);
        assert_eq!(Shown("\\n").to_string(), "\\\\n", "an escape cannot be forged");
        assert_eq!(Line("\\n").to_string(), "\\n");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        for (max, shown) in [
            (VALUE_MAX, (|text| Escaped(text).to_string()) as fn(&str) -> String),
            (LONG_MAX, |text| EscapedLong(text).to_string()),
            (TEXT_MAX, |text| Shown(text).to_string()),
            (LINE_MAX, |text| Line(text).to_string()),
        ] {
            let text = "ä".repeat(max);
            assert!(!shown(&text).contains(CUT));
            assert!(shown(&(text + "b")).trim_end_matches('"').ends_with(CUT));
        }
    }
}
