//! Message bodies: where each ends (RFC 9112 §6 and §7.1). Nothing of a body is kept, and data is skipped unseen.

#[cfg(feature = "trace")]
use alloc::vec::Vec;

use super::super::fields::{self, Fields};
use super::super::head::{self, Finder, Found, Limits, Refusal};

/// The longest chunk line, without its CRLF: the size and the extensions. No sender needs more, and a line is overhead
/// that a recipient has to read for each chunk.
const CHUNK_LINE_MAX: u16 = 256;
/// The most digits of a chunk size: more than 16 exceed 64 bits.
const CHUNK_DIGITS_MAX: u16 = 16;

/// The most bytes that are skipped at once. What adds up such lengths does not overflow.
pub(super) const SKIP_MAX: u64 = 1 << 62;

/// A body that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// That many more bytes, at least one.
    Length(u64),
    /// Chunks, and the trailers behind them.
    Chunked(Chunked),
}

/// What [`Body::next`] finds at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not enough bytes to decide.
    More,
    /// The next bytes belong to the body. `is_complete`: the body ends with them.
    Skip { bytes: u64, is_complete: bool },
    /// The chunks or the trailers are malformed.
    Refused(Refusal),
}

impl Body {
    /// The body that a head announces; `None` for an empty one, which needs no following.
    pub(super) const fn announced(body: head::Body) -> Option<Self> {
        match body {
            head::Body::None | head::Body::Length(0) => None,
            head::Body::Length(bytes) => Some(Self::Length(bytes)),
            head::Body::Chunked => Some(Self::CHUNKED),
        }
    }

    /// Chunks, from the first one on.
    pub(super) const CHUNKED: Self = Self::Chunked(Chunked::Size { value: 0, digits: 0 });

    /// Goes on where the last call stopped: `bytes` begins behind everything that was skipped. `check_trailers` judges
    /// the trailer fields.
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        check_trailers: impl Fn(&Fields<'_, '_>) -> Result<(), Refusal>,
    ) -> Progress {
        match self {
            &mut Self::Length(bytes) if bytes <= SKIP_MAX => Progress::Skip { bytes, is_complete: true },
            Self::Length(bytes) => {
                *bytes -= SKIP_MAX;
                Progress::Skip { bytes: SKIP_MAX, is_complete: false }
            }
            Self::Chunked(chunked) => chunked.next(bytes, limits, check_trailers),
        }
    }

    /// Appends bytes of the body, with `x` in the place of each byte that is not framing: of a chunk line the size
    /// stays, of trailers the names. The body ends, and is malformed, where it was.
    #[cfg(feature = "trace")]
    pub(super) fn redact(self, bytes: &[u8], out: &mut Vec<u8>) {
        let Self::Chunked(mut place) = self else {
            return out.extend(bytes.iter().map(|_| b'x'));
        };
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            match place {
                Chunked::Data(len) => {
                    let data = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
                    out.extend(core::iter::repeat_n(b'x', data));
                    rest = &rest[data..];
                    place = match len - data as u64 {
                        0 => Chunked::DataEnd,
                        len => Chunked::Data(len),
                    };
                    continue;
                }
                Chunked::Trailers(_) => return redact_trailers(rest, out),
                Chunked::Extension { .. } if byte.is_ascii_alphanumeric() => out.push(b'x'),
                _ => out.push(byte),
            }
            match place.after(byte) {
                Ok(next) => place = next,
                Err(_) => return out.extend(behind.iter().map(|_| b'x')),
            }
            rest = behind;
        }
    }
}

/// Values of trailer fields become `x`; what makes them malformed stays.
#[cfg(feature = "trace")]
fn redact_trailers(bytes: &[u8], out: &mut Vec<u8>) {
    let mut in_value = false;
    out.extend(bytes.iter().map(|&byte| match byte {
        b'\n' => {
            in_value = false;
            byte
        }
        b':' if !in_value => {
            in_value = true;
            byte
        }
        _ if in_value && byte.is_ascii_graphic() => b'x',
        _ => byte,
    }));
}

/// The place in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the size at the front of a chunk line.
    Size { value: u64, digits: u16 },
    /// In the extensions of a chunk line, `len` bytes of which have passed.
    Extension { value: u64, len: u16 },
    /// Before the LF of a chunk line.
    SizeEnd { value: u64 },
    /// That many bytes before the end of the data.
    Data(u64),
    /// Before the CR behind the data.
    DataEnd,
    /// Before the LF behind the data.
    DataEndLf,
    /// At the front of the trailers, or of the empty line where there are none.
    Trailers(Finder),
}

impl Chunked {
    fn next(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        check_trailers: impl Fn(&Fields<'_, '_>) -> Result<(), Refusal>,
    ) -> Progress {
        let skip = |bytes: usize| Progress::Skip { bytes: bytes as u64, is_complete: false };
        let mut at = 0;
        loop {
            match self {
                &mut Self::Data(len) => {
                    let skipped = len.min(SKIP_MAX);
                    *self = if len == skipped { Self::DataEnd } else { Self::Data(len - skipped) };
                    let end = skipped + at as u64;
                    match usize::try_from(end) {
                        Ok(end) if end < bytes.len() => at = end,
                        _ => return Progress::Skip { bytes: end, is_complete: false },
                    }
                }
                // Trailers are judged as a whole, and so they have to begin at the front.
                Self::Trailers(_) if at > 0 => return skip(at),
                Self::Trailers(finder) => return trailers(finder, bytes, limits, check_trailers),
                _ => {}
            }
            let Some(&byte) = bytes.get(at) else {
                return if at > 0 { skip(at) } else { Progress::More };
            };
            match self.after(byte) {
                Ok(next) => *self = next,
                // What is before the fault passes. The next call begins with the fault.
                Err(_) if at > 0 => return skip(at),
                Err(refusal) => return Progress::Refused(refusal),
            }
            at += 1;
        }
    }

    /// The place behind `byte`, which is no data and no trailer.
    fn after(self, byte: u8) -> Result<Self, Refusal> {
        const WRONG: Refusal = Refusal::Chunk;
        match (self, byte) {
            (Self::Size { digits: 1.., value }, b'\r') => Ok(Self::SizeEnd { value }),
            (Self::Size { digits: 1.., value }, b';') => Ok(Self::Extension { value, len: 1 }),
            (Self::Size { value, digits }, _) if digits < CHUNK_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).ok_or(WRONG)?;
                // 16 digits fill 64 bits exactly.
                Ok(Self::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (Self::Extension { value, .. }, b'\r') => Ok(Self::SizeEnd { value }),
            (Self::Extension { value, len }, _)
                if len < CHUNK_LINE_MAX - CHUNK_DIGITS_MAX
                    && (super::is_tchar(byte) || matches!(byte, b'=' | b';')) =>
            {
                Ok(Self::Extension { value, len: len + 1 })
            }
            (Self::SizeEnd { value: 0 }, b'\n') => Ok(Self::Trailers(Finder::for_trailers())),
            (Self::SizeEnd { value }, b'\n') => Ok(Self::Data(value)),
            (Self::DataEnd, b'\r') => Ok(Self::DataEndLf),
            (Self::DataEndLf, b'\n') => Ok(Self::Size { value: 0, digits: 0 }),
            _ => Err(WRONG),
        }
    }
}

fn trailers(
    finder: &mut Finder,
    bytes: &[u8],
    limits: &Limits,
    check: impl Fn(&Fields<'_, '_>) -> Result<(), Refusal>,
) -> Progress {
    let len = match finder.find(bytes, limits) {
        Found::Partial => return Progress::More,
        Found::Refused(refusal) => return Progress::Refused(refusal),
        Found::Complete(len) => len,
    };
    let mut room = fields::room();
    let judged = Fields::parse(bytes.get(..len).unwrap_or_default(), &mut room);
    match judged.and_then(|fields| check(&fields)) {
        Ok(()) => Progress::Skip { bytes: len as u64, is_complete: true },
        Err(refusal) => Progress::Refused(refusal),
    }
}
