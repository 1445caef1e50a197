//! Request lines (RFC 9112 §3) and HTTP versions.

use super::refusal::Refusal;
use super::syntax::{Authority, is_target_byte, is_tchar};

/// A version of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The method of a hidden server.
pub(super) const CONNECT: &str = "CONNECT";

/// `method SP target SP version` (RFC 9112 §3).
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) version: Version,
}

impl<'a> RequestLine<'a> {
    /// Parses a line without its CRLF. The form of the target is checked here, so that an error is found before the
    /// rest of the head arrives.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let line = core::str::from_utf8(line).map_err(|_| Refusal::RequestLine)?;
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::RequestLine);
        };
        let is_made_of = |text: &str, fits: fn(u8) -> bool| !text.is_empty() && text.bytes().all(fits);
        if !is_made_of(method, is_tchar) || !is_made_of(target, is_target_byte) {
            return Err(Refusal::RequestLine);
        }
        let line = Self { method, target, version: parse_version(version)? };
        if line.is_connect() {
            return if line.version == Version::Http10 { Err(Refusal::Version) } else { Ok(line) };
        }
        line.authority()?;
        Ok(line)
    }

    pub(super) fn is_connect(&self) -> bool {
        self.method == CONNECT
    }

    /// The authority of a client's target and the default port of its scheme, if the target is an absolute URI.
    ///
    /// # Errors
    ///
    /// The target has no form that a client may use (RFC 9112 §3.2).
    pub(super) fn authority(&self) -> Result<Option<(&'a str, Option<u16>)>, Refusal> {
        if self.target.starts_with('/') || self.target == "*" && self.method == "OPTIONS" {
            return Ok(None);
        }
        let (scheme, rest) = self.target.split_once("://").ok_or(Refusal::TargetForm)?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let is_place = Authority::parse(authority).is_some_and(|it| !it.host.is_empty());
        if !is_scheme(scheme) || !is_place {
            return Err(Refusal::TargetForm);
        }
        let port = match () {
            () if ["http", "ws"].iter().any(|it| it.eq_ignore_ascii_case(scheme)) => Some(80),
            () if ["https", "wss"].iter().any(|it| it.eq_ignore_ascii_case(scheme)) => Some(443),
            () => None,
        };
        Ok(Some((authority, port)))
    }
}

fn parse_version(text: &str) -> Result<Version, Refusal> {
    match text.as_bytes() {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::Version)
        }
        _ => Err(Refusal::RequestLine),
    }
}

/// Whether a text is a URI scheme (RFC 3986 §3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'-' | b'.'))
}
