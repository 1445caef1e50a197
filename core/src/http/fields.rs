//! The fields of a head, looked up by name.

use httparse::{EMPTY_HEADER, Header};

use super::finder::FIELDS_MAX;
use super::refusal::Refusal;
use super::request_line::Version;
use super::syntax::trim;

/// Storage for the fields of one head.
pub(super) type Room<'a> = [Header<'a>; FIELDS_MAX];

/// Empty storage.
pub(super) const fn room<'a>() -> Room<'a> {
    [EMPTY_HEADER; FIELDS_MAX]
}

/// The fields of a head in their order. Names are compared case-insensitively.
pub(crate) struct Fields<'r, 'a>(&'r [Header<'a>]);

impl<'r, 'a> Fields<'r, 'a> {
    /// Parses the field lines and the empty line after them. The finder has checked that they end in CRLF and are not
    /// folded.
    pub(super) fn parse(lines: &'a [u8], room: &'r mut Room<'a>) -> Result<Self, Refusal> {
        match httparse::parse_headers(lines, room) {
            // The finder found the same end; another length would be a bug.
            Ok(httparse::Status::Complete((len, fields))) if len == lines.len() => Ok(Self(fields)),
            Ok(_) => Err(Refusal::Incomplete),
            Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooManyFields),
            Err(httparse::Error::HeaderName) => Err(Refusal::FieldName),
            Err(_) => Err(Refusal::FieldValue),
        }
    }

    /// The values of all fields of that name, without surrounding whitespace.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of the only field of that name.
    ///
    /// # Errors
    ///
    /// `repeated` if there are more.
    pub(super) fn only(&self, name: &str, repeated: Refusal) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() { Err(repeated) } else { Ok(value) }
    }

    /// Whether there is a field of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Whether the lists in all fields of that name contain `token`, case-insensitively (RFC 9110 §5.6.1).
    pub(super) fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|item| trim(item).eq_ignore_ascii_case(token.as_bytes()))
    }
    /// Whether the connection may carry another exchange after a message with these fields (RFC 9112 §9.3).
    pub(super) fn persist(&self, version: Version) -> bool {
        !self.lists("Connection", "close")
            && (version == Version::Http11 || self.lists("Connection", "keep-alive"))
    }

    /// The names and values of all fields, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().map(|field| (field.name, field.value))
    }

    /// The names of all fields, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|field| field.name)
    }
}
