//! Requests to a CA and its responses, without connections.

use alloc::string::String;
use alloc::vec::Vec;

use super::dates::RetryAfter;
use super::url::{URL_MAX, Url};
use crate::dialer::DialError;
use crate::http::date::parse_date;

/// The most alternate chains that are read from `Link` fields.
pub const ALTERNATES_MAX: usize = 8;
/// The longest nonce that is accepted.
const NONCE_MAX: usize = 512;

/// A request to the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number that the response has.
    pub id: u32,
    /// The method.
    pub method: Method,
    /// The URL, with the host and the port of the directory.
    pub url: Url,
    /// The body of a POST, `application/jose+json`; empty otherwise.
    pub body: String,
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// For the directory and renewal information.
    Get,
    /// For a nonce.
    Head,
    /// For everything else.
    Post,
}

impl Method {
    /// As it is written in a request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        }
    }
}

/// A response of the CA, reduced to the fields that a client reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// `Date`, in seconds since 1970.
    pub date: Option<u64>,
    /// `Retry-After`.
    pub retry_after: Option<RetryAfter>,
    /// `Replay-Nonce`; `None` if it is missing or malformed (RFC 8555 §6.5.1).
    pub nonce: Option<String>,
    /// `Location`.
    pub location: Option<String>,
    /// The targets of `Link` fields whose relation is `alternate` (RFC 8555 §7.4.2), at most [`ALTERNATES_MAX`].
    pub alternates: Vec<String>,
    /// The targets of other `Link` fields, without `index`, `up` and `next`. They are shown to the operator.
    pub links: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Reads the fields of a response. A field that is repeated counts once, the first one; `Link` may be repeated.
    #[must_use]
    pub fn read<'a>(
        status: u16,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: Vec<u8>,
    ) -> Self {
        let mut response = Self { status, body, ..Self::default() };
        for (name, value) in fields {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("Date") {
                response.date = response.date.or_else(|| parse_date(value));
            } else if is("Retry-After") {
                response.retry_after = response.retry_after.or_else(|| RetryAfter::parse(value));
            } else if is("Replay-Nonce") {
                response.nonce = response.nonce.or_else(|| nonce(value));
            } else if is("Location") {
                response.location = response.location.or_else(|| short(value));
            } else if is("Link") {
                response.link(value);
            }
        }
        response
    }

    /// Reads a `Link` field (RFC 8288 §3).
    fn link(&mut self, value: &[u8]) {
        let Ok(mut rest) = core::str::from_utf8(value) else { return };
        while let Some((_, target)) = rest.split_once('<') {
            let Some((target, parameters)) = target.split_once('>') else { return };
            // Links with a comma or an angle bracket in a quoted parameter are not supported; CAs send none.
            let end = parameters.find(",").unwrap_or(parameters.len());
            let (parameters, behind) = parameters.split_at(end);
            rest = behind;
            let relation = parameters.split(';').find_map(|it| {
                let (name, value) = it.split_once('=')?;
                name.trim().eq_ignore_ascii_case("rel").then(|| value.trim().trim_matches('"'))
            });
            let Some(relation) = relation.filter(|_| target.len() <= URL_MAX) else { continue };
            let has = |it: &str| relation.split(' ').any(|one| one.eq_ignore_ascii_case(it));
            let list = if has("alternate") {
                &mut self.alternates
            } else if has("index") || has("up") || has("next") {
                continue;
            } else {
                &mut self.links
            };
            if list.len() < ALTERNATES_MAX {
                list.push(target.into());
            }
        }
    }
}

fn short(value: &[u8]) -> Option<String> {
    core::str::from_utf8(value).ok().filter(|it| it.len() <= URL_MAX).map(String::from)
}

fn nonce(value: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(value).ok()?;
    let is_nonce = (1..=NONCE_MAX).contains(&text.len())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'));
    is_nonce.then(|| text.into())
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// The CA could not be reached.
    Unreachable(DialError),
    /// The connection ended before the response was complete.
    Ended,
    /// The response did not come in time.
    TimedOut,
    /// It is no HTTP/1.x response.
    Malformed,
    /// Its head or its body is over the limit.
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_whatever_their_case_and_links_by_their_relation() {
        let fields: [(&str, &[u8]); 9] = [
            ("replay-nonce", b"abc-_1"),
            ("Replay-Nonce", b"other"),
            ("LOCATION", b"https://ca.example/acct/1"),
            ("Retry-After", b"7"),
            ("Date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Link", b"<https://ca.example/dir>;rel=\"index\", <https://ca.example/c/1>; rel=\"alternate\""),
            ("link", b"<https://ca.example/c/2>;title=\"x\";rel=alternate"),
            ("Link", b"<https://ca.example/terms>;rel=\"terms-of-service\""),
            ("Link", b"<https://broken"),
        ];
        let response = Response::read(200, fields, Vec::new());
        assert_eq!(response.nonce.as_deref(), Some("abc-_1"));
        assert_eq!(response.location.as_deref(), Some("https://ca.example/acct/1"));
        assert_eq!(response.retry_after, Some(RetryAfter::Seconds(7)));
        assert_eq!(response.date, Some(784_111_777));
        assert_eq!(response.alternates, ["https://ca.example/c/1", "https://ca.example/c/2"]);
        assert_eq!(response.links, ["https://ca.example/terms"]);
    }

    #[test]
    fn a_nonce_with_other_characters_is_none() {
        for wrong in [&b""[..], b"a b", b"a=", b"\xff", &[b'a'; NONCE_MAX + 1]] {
            assert_eq!(Response::read(200, [("Replay-Nonce", wrong)], Vec::new()).nonce, None);
        }
    }
}
