//! As much of JSON (RFC 8259) as the relay's status needs: quoting, and reading what another relay wrote.

use std::fmt::Write as _;

/// Nothing of ours is nested deeper.
const DEPTH_MAX: usize = 8;

/// What was read. Numbers are whole and not negative, as all of ours are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object: names and values in the order in which they came.
    Map(Vec<(String, Value)>),
}

/// A string with its quotes, in ASCII.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(quoted, "\\u{unit:04x}");
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

impl Value {
    /// Reads a document; `None` for anything that is none, or has other numbers or more depth than ours have.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.skip_blanks();
        reader.rest.is_empty().then_some(value)
    }

    /// The value of that name in an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(pairs) = self else { return None };
        pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The number of that name in an object.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        if let Some(Self::Number(number)) = self.get(name) { Some(*number) } else { None }
    }

    /// The string of that name in an object.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        if let Some(Self::Text(text)) = self.get(name) { Some(text) } else { None }
    }

    /// The elements of the array of that name in an object; none where there is no such array.
    #[must_use]
    pub fn list(&self, name: &str) -> &[Self] {
        if let Some(Self::List(values)) = self.get(name) { values } else { &[] }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    /// Whether this comes next; then it is behind us.
    fn take(&mut self, what: &str) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        for (word, value) in
            [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))]
        {
            if self.take(word) {
                return Some(value);
            }
        }
        if self.take("[") {
            let values = self.items("]", |reader| reader.value(depth + 1))?;
            return Some(Value::List(values));
        }
        if self.take("{") {
            let pairs = self.items("}", |reader| {
                let name = reader.string()?;
                Some((name, if reader.take(":") { reader.value(depth + 1)? } else { return None }))
            })?;
            return Some(Value::Map(pairs));
        }
        if self.rest.starts_with('"') { self.string().map(Value::Text) } else { self.digits() }
    }

    /// What is between an opening bracket and `end`, with commas.
    fn items<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        if self.take(end) {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(end) {
                return Some(items);
            }
            if !self.take(",") {
                return None;
            }
        }
    }

    fn digits(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().ok().map(Value::Number)
    }

    fn string(&mut self) -> Option<String> {
        if !self.take("\"") {
            return None;
        }
        let mut units = Vec::new();
        loop {
            let c = self.next()?;
            let c = match c {
                '"' => return String::from_utf16(&units).ok(),
                '\\' => match self.next()? {
                    c @ ('"' | '\\' | '/') => c,
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let (unit, rest) = self.rest.split_at_checked(4)?;
                        // `from_str_radix` would take a sign.
                        if !unit.bytes().all(|it| it.is_ascii_hexdigit()) {
                            return None;
                        }
                        units.push(u16::from_str_radix(unit, 16).ok()?);
                        self.rest = rest;
                        continue;
                    }
                    _ => return None,
                },
                c if c < ' ' => return None,
                c => c,
            };
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }
}
