//! Response heads, as far as the framing of the response needs them (RFC 9112 §4, §6.3 and §9.3).

use super::super::fields::{self, Fields};
use super::super::head::{self, Finder, Limits, Refusal, Version, split_line};
use super::super::response;
use super::super::syntax::decimal;

/// A complete response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    /// Its length in bytes.
    pub(super) len: usize,
    /// The status, 100 to 999.
    pub(super) status: u16,
    /// The framing that its fields give. The status and the request's method can exclude a body.
    pub(super) framing: Framing,
    /// Whether the connection may carry another exchange, as far as the server decides.
    pub(super) persists: bool,
}

/// How the end of a response's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By a length or by chunks.
    Delimited(head::Body),
    /// The body ends with the connection.
    UntilEnd,
    /// The fields are contradictory, or recipients interpret them in different ways.
    Ambiguous,
}

/// Finds and parses the head at the front of `bytes`. `Ok(None)`: more bytes are needed.
///
/// # Errors
///
/// It is not certainly the head of an HTTP/1.x response, or it exceeds `limits`.
pub(super) fn read(
    bytes: &[u8],
    finder: &mut Finder,
    limits: &Limits,
) -> Result<Option<ResponseHead>, Refusal> {
    if !b"HTTP/".iter().zip(bytes).all(|(expected, byte)| expected == byte) {
        return Err(Refusal::NotHttp);
    }
    let Some(len) = finder.find_end(bytes, limits, |line| status_line(line).map(|_| ()))? else {
        return Ok(None);
    };
    let (line, lines) = bytes.get(..len).and_then(split_line).ok_or(Refusal::Incomplete)?;
    let (version, status) = status_line(line)?;
    let mut room = fields::room();
    let fields = Fields::parse(lines, &mut room)?;
    let head =
        ResponseHead { len, status, framing: framing(version, &fields), persists: fields.persist(version) };
    Ok(Some(head))
}

/// Whether `bytes` begins with the status line of a 101, even if the rest is malformed.
pub(super) fn begins_as_101(bytes: &[u8]) -> bool {
    let rest = bytes.strip_prefix(b"HTTP/1.1 101").unwrap_or_default();
    matches!(rest, [b' ' | b'\r' | b'\n', ..])
}

fn status_line(line: &[u8]) -> Result<(Version, u16), Refusal> {
    let status = response::status(line).ok_or(Refusal::RequestLine)?;
    let version = if line.starts_with(b"HTTP/1.1") { Version::Http11 } else { Version::Http10 };
    Ok((version, status))
}

fn framing(version: Version, fields: &Fields<'_, '_>) -> Framing {
    let length = fields.only("Content-Length", Refusal::ContentLength);
    let coding = fields.only("Transfer-Encoding", Refusal::TransferEncoding);
    match (length, coding) {
        (Ok(None), Ok(None)) => Framing::UntilEnd,
        (Ok(Some(length)), Ok(None)) => match decimal(length) {
            Some(bytes) => Framing::Delimited(head::Body::Length(bytes)),
            None => Framing::Ambiguous,
        },
        (Ok(None), Ok(Some(coding)))
            if version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") =>
        {
            Framing::Delimited(head::Body::Chunked)
        }
        _ => Framing::Ambiguous,
    }
}
