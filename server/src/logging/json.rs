//! Log lines as JSON objects (`--log-format json`).
//!
//! The events of this program are texts of the form `key=value`. Each becomes an object with the same keys; a line of
//! another form becomes the value of `message`.

use std::fmt::Write as _;

/// Appends one object and a line feed.
pub(super) fn write_line(time: &str, level: &str, text: &str, out: &mut String) {
    let _ = write!(out, "{{\"time\":\"{time}\",\"level\":\"{level}\"");
    match pairs(text) {
        Some(pairs) => {
            for (key, value) in pairs {
                out.push(',');
                write_string(key, out);
                out.push(':');
                match value {
                    Value::Bare(value) if is_number(value) => out.push_str(value),
                    Value::Bare(value) => write_string(value, out),
                    Value::Quoted(value) => write_string(&value, out),
                }
            }
        }
        None => {
            out.push_str(",\"message\":");
            write_string(text, out);
        }
    }
    out.push_str("}\n");
}

/// A value of an event.
enum Value<'a> {
    Bare(&'a str),
    /// Without quotes and escapes.
    Quoted(String),
}

/// The keys and values of an event; `None` if the text is not one, or has a key twice.
fn pairs(text: &str) -> Option<Vec<(&str, Value<'_>)>> {
    let mut pairs: Vec<(&str, Value<'_>)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=')?;
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_key || matches!(key, "time" | "level") || pairs.iter().any(|(known, _)| *known == key) {
            return None;
        }
        let (value, behind) = if let Some(quoted) = behind.strip_prefix('"') {
            let (value, behind) = unquote(quoted)?;
            (Value::Quoted(value), behind)
        } else {
            let end = behind.find(' ').unwrap_or(behind.len());
            (Value::Bare(&behind[..end]), &behind[end..])
        };
        pairs.push((key, value));
        rest = match behind.strip_prefix(' ') {
            Some(rest) => rest,
            None if behind.is_empty() => behind,
            None => return None,
        };
    }
    (!pairs.is_empty()).then_some(pairs)
}

/// Reads up to the closing quote. Returns the text without escapes, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                '0' => value.push('\0'),
                'u' => {
                    let (start, _) = chars.next().filter(|(_, c)| *c == '{')?;
                    let end = start + text[start..].find('}')?;
                    let code = u32::from_str_radix(&text[start + 1..end], 16).ok()?;
                    value.push(char::from_u32(code)?);
                    while chars.next()?.0 < end {}
                }
                c @ ('\\' | '"' | '\'') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

/// Whether a value is a number that all readers of JSON keep as it is.
fn is_number(value: &str) -> bool {
    let is_short = (1..=15).contains(&value.len());
    is_short && value.bytes().all(|byte| byte.is_ascii_digit()) && (value == "0" || !value.starts_with('0'))
}

/// Appends a string with its quotes. Everything but printable ASCII is escaped.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::Escaped;

    fn line(text: &str) -> String {
        let mut out = String::new();
        write_line("T", "info", text, &mut out);
        out
    }

    #[test]
    fn an_event_is_an_object_with_its_keys() {
        assert_eq!(
            line(
                r#"event=refused conn=3.7 peer=[2001:db8::1]:4000 status=401 reason="not \"it\"" duration=1.5s"#
            ),
            concat!(
                r#"{"time":"T","level":"info","event":"refused","conn":"3.7","peer":"[2001:db8::1]:4000","#,
                r#""status":401,"reason":"not \"it\"","duration":"1.5s"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_is_no_event_is_a_message() {
        for text in [
            "hello \"you\"",
            "a=b c",
            "a=b  c=d",
            "a=\"b",
            "a=\"b\"c",
            "=a",
            "a=1 a=2",
            "level=x",
            "a=\"\\q\"",
        ] {
            let mut expected = String::new();
            write_string(text, &mut expected);
            assert_eq!(line(text), format!("{{\"time\":\"T\",\"level\":\"info\",\"message\":{expected}}}\n"));
        }
    }

    #[test]
    fn any_text_in_a_value_is_that_text_and_nothing_else() {
        for text in ["", "\" peer=9.9.9.9 \"", "a\\", "ä\u{1f600}\n\r\t\0", "}{", "\u{202e}'"] {
            let mut expected = String::new();
            write_string(text, &mut expected);
            let line = line(&format!("event=x reason={} bytes=7", Escaped(text)));
            assert_eq!(
                line,
                format!(
                    "{{\"time\":\"T\",\"level\":\"info\",\"event\":\"x\",\"reason\":{expected},\"bytes\":7}}\n"
                )
            );
        }
    }

    #[test]
    fn only_numbers_that_stay_exact_are_numbers() {
        let numbers = ["0", "7", "999999999999999"];
        assert!(numbers.iter().all(|number| is_number(number)));
        assert!(!["", "01", "1.5", "-1", "1e5", "9999999999999999"].iter().any(|number| is_number(number)));
    }
}
