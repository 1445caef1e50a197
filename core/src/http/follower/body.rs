//! Message bodies: where each ends (RFC 9112 §6 and §7.1). No bytes are kept, and data is skipped without parsing.

#[cfg(feature = "trace")]
use alloc::vec::Vec;

use super::super::fields::{self, Fields};
use super::super::head::{self, Finder, Limits, Refusal};

/// The maximum length of a chunk line without its CRLF: size and extensions. No sender needs more, and a recipient
/// has to parse each line.
const CHUNK_LINE_MAX: u16 = 256;
/// The maximum number of digits of a chunk size: more than 16 exceed 64 bits.
const CHUNK_DIGITS_MAX: u16 = 16;

/// The maximum number of bytes that are skipped at once, so that sums of such lengths do not overflow.
pub(super) const SKIP_MAX: u64 = 1 << 62;

/// A body that is being transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// This many more bytes, at least one.
    Length(u64),
    /// Chunks, and the trailers after them.
    Chunked(Chunked),
}

/// The result of [`Body::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed.
    More,
    /// The next `bytes` bytes belong to the body. `is_complete`: they are its last.
    Skip { bytes: u64, is_complete: bool },
    /// The chunks or the trailers are malformed.
    Refused(Refusal),
}

impl Body {
    /// The body that a head announces; `None` for an empty one.
    pub(crate) const fn announced(body: head::Body) -> Option<Self> {
        match body {
            head::Body::None | head::Body::Length(0) => None,
            head::Body::Length(bytes) => Some(Self::Length(bytes)),
            head::Body::Chunked => Some(Self::CHUNKED),
        }
    }

    /// A chunked body, before its first chunk.
    pub(super) const CHUNKED: Self = Self::Chunked(Chunked::BEGIN);

    /// Continues where the last call stopped: `bytes` begins after everything that was skipped. `check_trailers`
    /// checks the trailer fields.
    pub(crate) fn next(
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

    /// Appends bytes of the body, with `x` in place of each byte that is not framing. The size in a chunk line and
    /// the names of trailers are kept, so that the end of the body and its errors stay where they were.
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

/// Replaces the values of trailer fields by `x`, and keeps what makes them malformed.
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

/// The position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// In the size at the beginning of a chunk line.
    Size { value: u64, digits: u16 },
    /// In the extensions of a chunk line, `len` bytes of which have passed.
    Extension { value: u64, len: u16 },
    /// Before the LF of a chunk line.
    SizeEnd { value: u64 },
    /// This many bytes before the end of the data.
    Data(u64),
    /// Before the CR after the data.
    DataEnd,
    /// Before the LF after the data.
    DataEndLf,
    /// At the beginning of the trailers, or of the empty line if there are none.
    Trailers(Finder),
}

impl Chunked {
    /// In front of the first chunk.
    pub(super) const BEGIN: Self = Self::Size { value: 0, digits: 0 };

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
                // Trailers are checked as a whole, so they must be at the front of the bytes.
                Self::Trailers(_) if at > 0 => return skip(at),
                Self::Trailers(finder) => return trailers(finder, bytes, limits, check_trailers),
                _ => {}
            }
            let Some(&byte) = bytes.get(at) else {
                return if at > 0 { skip(at) } else { Progress::More };
            };
            match self.after(byte) {
                Ok(next) => *self = next,
                // The bytes before the error are forwarded first. The next call begins with the error.
                Err(_) if at > 0 => return skip(at),
                Err(refusal) => return Progress::Refused(refusal),
            }
            at += 1;
        }
    }

    /// The position after `byte`, which is neither data nor in a trailer.
    pub(super) fn after(self, byte: u8) -> Result<Self, Refusal> {
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
    let len = match finder.find_trailers_end(bytes, limits) {
        Ok(None) => return Progress::More,
        Ok(Some(len)) => len,
        Err(refusal) => return Progress::Refused(refusal),
    };
    let mut room = fields::room();
    let judged = Fields::parse(bytes.get(..len).unwrap_or_default(), &mut room);
    match judged.and_then(|fields| check(&fields)) {
        Ok(()) => Progress::Skip { bytes: len as u64, is_complete: true },
        Err(refusal) => Progress::Refused(refusal),
    }
}
