//! Reads one response as a whole, with its body: for a program that sends requests itself.

use alloc::string::String;
use alloc::vec::Vec;

use super::super::fields::{self, Fields};
use super::super::head::{self, Finder, Limits, Refusal, split_line};
use super::body::Chunked;
use super::response_head::{self, Framing};

/// A complete response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WholeResponse {
    /// The status, 200 to 999.
    pub(crate) status: u16,
    /// Names and values of the fields, in their order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// The body, without chunks and trailers.
    pub(crate) body: Vec<u8>,
}

/// Why a response cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is no HTTP/1.x response, or its length is ambiguous.
    Malformed,
    /// Its head or its body is over the limit.
    TooLarge,
    /// The connection ended before it was complete.
    Ended,
}

impl From<Refusal> for Unreadable {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LineTooLong | Refusal::HeadTooLarge | Refusal::TooManyFields => Self::TooLarge,
            _ => Self::Malformed,
        }
    }
}

/// Reads one response. Interim responses in front of it are skipped.
#[derive(Clone, Debug)]
pub(crate) struct ResponseReader {
    limits: Limits,
    body_max: usize,
    /// The request was a HEAD: there is no body.
    is_head: bool,
    part: Part,
}

#[derive(Clone, Debug)]
enum Part {
    Head(Finder),
    Body(WholeResponse, Body),
}

/// What is left of the body.
#[derive(Clone, Copy, Debug)]
enum Body {
    Length(usize),
    Chunks(Chunked),
    UntilEnd,
}

impl ResponseReader {
    /// `limits` are those of the head and of trailers; a body has at most `body_max` bytes.
    pub(crate) fn new(limits: Limits, body_max: usize, is_head: bool) -> Self {
        Self { limits, body_max, is_head, part: Part::Head(Finder::default()) }
    }

    /// Reads bytes from the front, and counts into `used` how many; those that are not used are offered again, with what
    /// follows. `Ok(Some)`: the response is complete, and nothing more is to be read.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        used: &mut usize,
    ) -> Result<Option<WholeResponse>, Unreadable> {
        loop {
            let rest = bytes.get(*used..).unwrap_or_default();
            match &mut self.part {
                Part::Head(finder) => {
                    let Some(head) = response_head::read(rest, finder, &self.limits)? else {
                        return Ok(None);
                    };
                    *used += head.len;
                    if head.status < 200 {
                        // A connection that goes on with something else was never asked for.
                        if head.status == 101 {
                            return Err(Unreadable::Malformed);
                        }
                        continue;
                    }
                    let fields = fields_of(rest.get(..head.len).unwrap_or_default())?;
                    let response = WholeResponse { status: head.status, fields, body: Vec::new() };
                    let has_none = self.is_head || matches!(head.status, 204 | 304);
                    let body = match head.framing {
                        _ if has_none => return Ok(Some(response)),
                        Framing::Delimited(head::Body::None | head::Body::Length(0)) => {
                            return Ok(Some(response));
                        }
                        Framing::Delimited(head::Body::Length(len)) => {
                            let len = usize::try_from(len).unwrap_or(usize::MAX);
                            if len > self.body_max {
                                return Err(Unreadable::TooLarge);
                            }
                            Body::Length(len)
                        }
                        Framing::Delimited(head::Body::Chunked) => Body::Chunks(Chunked::BEGIN),
                        Framing::UntilEnd => Body::UntilEnd,
                        Framing::Ambiguous => return Err(Unreadable::Malformed),
                    };
                    self.part = Part::Body(response, body);
                }
                Part::Body(response, body) => {
                    let is_complete =
                        body.read(rest, used, &mut response.body, self.body_max, &self.limits)?;
                    if !is_complete {
                        return Ok(None);
                    }
                    return Ok(Some(core::mem::take(response)));
                }
            }
        }
    }

    /// The connection has ended; `is_clean`: no byte is missing. A response without a length is complete then.
    pub(crate) fn end(&mut self, is_clean: bool) -> Result<WholeResponse, Unreadable> {
        match &mut self.part {
            Part::Body(response, Body::UntilEnd) if is_clean => Ok(core::mem::take(response)),
            Part::Head(_) | Part::Body(..) => Err(Unreadable::Ended),
        }
    }
}

impl Body {
    /// Whether the body is complete.
    fn read(
        &mut self,
        bytes: &[u8],
        used: &mut usize,
        out: &mut Vec<u8>,
        max: usize,
        limits: &Limits,
    ) -> Result<bool, Unreadable> {
        let mut rest = bytes;
        let take = |rest: &mut &[u8], len: usize, out: &mut Vec<u8>| {
            let (data, behind) = rest.split_at(len.min(rest.len()));
            if out.len() + data.len() > max {
                return Err(Unreadable::TooLarge);
            }
            out.extend_from_slice(data);
            *rest = behind;
            Ok(data.len())
        };
        let result = loop {
            match self {
                Self::Length(left) => {
                    *left -= take(&mut rest, *left, out)?;
                    break Ok(*left == 0);
                }
                Self::UntilEnd => {
                    take(&mut rest, usize::MAX, out)?;
                    break Ok(false);
                }
                Self::Chunks(Chunked::Data(left)) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX);
                    *left -= take(&mut rest, len, out)? as u64;
                    if *left > 0 {
                        break Ok(false);
                    }
                    *self = Self::Chunks(Chunked::DataEnd);
                }
                Self::Chunks(Chunked::Trailers(finder)) => match finder.find_trailers_end(rest, limits) {
                    Ok(None) => break Ok(false),
                    Ok(Some(len)) => {
                        rest = rest.get(len..).unwrap_or_default();
                        break Ok(true);
                    }
                    Err(refusal) => break Err(refusal.into()),
                },
                Self::Chunks(chunked) => {
                    let Some((&byte, behind)) = rest.split_first() else { break Ok(false) };
                    *chunked = chunked.after(byte)?;
                    rest = behind;
                }
            }
        };
        *used += bytes.len() - rest.len();
        result
    }
}

fn fields_of(head: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Unreadable> {
    let (_, lines) = split_line(head).ok_or(Unreadable::Malformed)?;
    let mut room = fields::room();
    let fields = Fields::parse(lines, &mut room)?;
    Ok(fields.iter().map(|(name, value)| (name.into(), value.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` as a whole and byte by byte, which is the same; then the end.
    fn read(bytes: &[u8], is_head: bool) -> Result<WholeResponse, Unreadable> {
        let reader = || ResponseReader::new(Limits::default(), 100, is_head);
        let mut whole = reader();
        let at_once = match whole.read(bytes, &mut 0) {
            Ok(Some(response)) => Ok(response),
            Ok(None) => whole.end(true),
            Err(why) => Err(why),
        };
        let mut slow = reader();
        let (mut used, mut result) = (0, None);
        for end in 0..=bytes.len() {
            let mut step = 0;
            match slow.read(&bytes[used..end], &mut step) {
                Ok(None) => used += step,
                Ok(Some(response)) => {
                    result = Some(Ok(response));
                    break;
                }
                Err(why) => {
                    result = Some(Err(why));
                    break;
                }
            }
        }
        assert_eq!(result.unwrap_or_else(|| slow.end(true)), at_once);
        at_once
    }

    fn body(bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
        read(bytes, false).map(|it| it.body)
    }

    #[test]
    fn a_body_ends_by_its_length_its_chunks_or_the_connection() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd"), Ok(b"abc".into()));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Ok(b"".into()));
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nA: b\r\n\r\nrest";
        assert_eq!(body(chunks), Ok(b"abcde".into()));
        assert_eq!(body(b"HTTP/1.0 200 OK\r\n\r\nabc"), Ok(b"abc".into()));
        assert_eq!(
            body(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\nA: b\r\n\r\nx"),
            Ok(b"".into())
        );
        let head = read(b"HTTP/1.1 200 OK\r\nReplay-Nonce: n\r\nContent-Length: 9\r\n\r\n", true)
            .expect("a response");
        assert_eq!((head.status, head.fields[0].0.as_str()), (200, "Replay-Nonce"));
    }

    #[test]
    fn what_is_too_long_cut_or_ambiguous_is_no_response() {
        use Unreadable::{Ended, Malformed, TooLarge};
        let long = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), [b'x'; 101].to_vec()].concat();
        assert_eq!(body(&long), Err(TooLarge));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n"), Err(TooLarge));
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        let endless = [chunks.to_vec(), [b'x'; 101].to_vec()].concat();
        assert_eq!(body(&endless), Err(TooLarge));
        assert_eq!(
            body(&[b"HTTP/1.1 200 OK\r\nA: ".to_vec(), [b'x'; 20_000].to_vec()].concat()),
            Err(TooLarge)
        );
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), Err(Ended));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nA"), Err(Ended));
        assert_eq!(body(b""), Err(Ended));
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
            Err(Malformed)
        );
        assert_eq!(body(b"HTTP/1.1 101 Switching\r\n\r\n"), Err(Malformed));
        assert_eq!(body(b"SSH-2.0-x\r\n"), Err(Malformed));
        let mut reader = ResponseReader::new(Limits::default(), 100, false);
        assert_eq!(reader.read(b"HTTP/1.1 200 OK\r\n\r\nab", &mut 0), Ok(None));
        assert_eq!(reader.end(false), Err(Ended), "without close_notify");
    }
}
