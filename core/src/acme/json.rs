//! JSON as far as ACME needs it: values by name, everything else skipped.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use miniserde::json::{self, Number, Value};

/// The longest JSON text of a CA that is read.
pub(super) const JSON_MAX: usize = 64 << 10;

/// A JSON value. Look-ups of missing values, and of values of another type, return `None`.
#[derive(Debug)]
pub(super) struct Json(Value);

/// A value in a [`Json`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a>(&'a Value);

impl Json {
    /// Reads a text of a CA. `None` if it is no JSON, or longer than [`JSON_MAX`].
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > JSON_MAX { None } else { Self::parse_any(bytes) }
    }

    /// Reads a text of our own, of any length.
    pub(super) fn parse_any(bytes: &[u8]) -> Option<Self> {
        json::from_str(core::str::from_utf8(bytes).ok()?).ok().map(Self)
    }

    pub(super) const fn root(&self) -> Part<'_> {
        Part(&self.0)
    }

    pub(super) fn get(&self, name: &str) -> Option<Part<'_>> {
        self.root().get(name)
    }

    pub(super) fn str(&self, name: &str) -> Option<&str> {
        self.root().str(name)
    }
}

impl<'a> Part<'a> {
    pub(super) fn get(self, name: &str) -> Option<Self> {
        match self.0 {
            Value::Object(object) => object.get(name).map(Part),
            _ => None,
        }
    }

    pub(super) const fn as_str(self) -> Option<&'a str> {
        match self.0 {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub(super) fn str(self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_str()
    }

    pub(super) const fn as_number(self) -> Option<u64> {
        match self.0 {
            Value::Number(Number::U64(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn number(self, name: &str) -> Option<u64> {
        self.get(name)?.as_number()
    }

    pub(super) fn is_true(self, name: &str) -> bool {
        matches!(self.get(name), Some(Part(Value::Bool(true))))
    }

    /// The names of an object's members; nothing if it is none.
    pub(super) fn names(self) -> impl Iterator<Item = &'a str> {
        let object = match self.0 {
            Value::Object(object) => Some(object),
            _ => None,
        };
        object.into_iter().flat_map(|object| object.keys().map(String::as_str))
    }

    /// The elements of an array; nothing if it is none.
    pub(super) fn items(self) -> impl Iterator<Item = Part<'a>> {
        let items = match self.0 {
            Value::Array(array) => array.as_slice(),
            _ => &[],
        };
        items.iter().map(Part)
    }

    /// The elements of an array of that name; nothing if there is none.
    pub(super) fn list(self, name: &str) -> impl Iterator<Item = Part<'a>> {
        self.get(name).into_iter().flat_map(Part::items)
    }
}

/// Appends a JSON string.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            it if it < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(it));
            }
            it => out.push(it),
        }
    }
    out.push('"');
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::new();
    quote(text, &mut out);
    out
}

/// The elements with commas between them.
pub(super) fn join(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn what_is_quoted_reads_as_it_was() {
        let text = "a\"b\\c\n\u{1}\u{7f}ü/\u{2028}";
        let json = Json::parse(format!("{{\"x\":{}}}", quoted(text)).as_bytes());
        assert_eq!(json.as_ref().and_then(|it| it.str("x")), Some(text));
    }

    #[test]
    fn deep_nesting_exhausts_nothing() {
        let deep = [b'['].repeat(JSON_MAX);
        assert!(Json::parse(&deep).is_none());
        let half = JSON_MAX / 2;
        let closed = [[b'['].repeat(half), [b']'].repeat(half)].concat();
        assert!(Json::parse(&closed).is_some_and(|it| it.root().items().count() == 1));
        assert!(Json::parse(&[closed, b" ".to_vec()].concat()).is_none(), "over the limit");
    }
}
