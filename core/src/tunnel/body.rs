//! The body of a 407, which is skipped exactly.

use super::FieldList;

/// The longest body that is skipped, in bytes; the connection is closed instead of reading a longer one.
const SKIP_MAX: u64 = 256 * 1024;
/// The longest line of a chunked body, in bytes.
const LINE_MAX: u8 = 200;

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// It can be skipped.
    Skip(Skip),
    /// The connection ends behind it, or it is too long.
    UntilClose,
}

/// What is left to skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    Bytes(u64),
    /// In a chunked body (RFC 9112 §7.1). `left`: bytes until the limit.
    Chunks {
        at: Chunk,
        left: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the line with a chunk's size. `digits`: the size so far, if it has begun; `in_size`: no extension yet.
    Size {
        size: u64,
        len: u8,
        in_size: bool,
    },
    /// In the bytes of a chunk and the line end behind them.
    Data(u64),
    /// In the trailer section. `len`: bytes of the present line.
    Trailer {
        len: u8,
    },
    Over,
}

impl Body {
    /// Reads the fields that delimit a body.
    pub(super) fn of(head: &[u8], fields: &FieldList) -> Self {
        let values = |name: &'static str| {
            fields
                .iter()
                .filter(move |(it, _)| it.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let lists = |name, token: &str| {
            values(name).flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(token))
        };
        let closes = lists("Connection", "close") || lists("Proxy-Connection", "close");
        let persists = lists("Connection", "keep-alive") || lists("Proxy-Connection", "keep-alive");
        if closes || (head.starts_with(b"HTTP/1.0") && !persists) {
            return Self::UntilClose;
        }
        if values("Transfer-Encoding").next().is_some() {
            let is_chunked = values("Transfer-Encoding").all(|value| value.eq_ignore_ascii_case("chunked"));
            let at = Chunk::Size { size: 0, len: 0, in_size: true };
            return if is_chunked {
                Self::Skip(Skip::Chunks { at, left: SKIP_MAX })
            } else {
                Self::UntilClose
            };
        }
        let mut lengths = values("Content-Length").map(|value| value.parse::<u64>().ok());
        match (lengths.next(), lengths.next()) {
            (Some(Some(len)), None) if len <= SKIP_MAX => Self::Skip(Skip::Bytes(len)),
            _ => Self::UntilClose,
        }
    }
}

/// The body is malformed or too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unskippable;

impl Skip {
    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Bytes(0) | Self::Chunks { at: Chunk::Over, .. })
    }

    /// Skips bytes. Returns how many belong to the body.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, Unskippable> {
        match self {
            Self::Bytes(left) => {
                let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= skipped as u64;
                Ok(skipped)
            }
            Self::Chunks { at, left } => {
                let mut used = 0;
                while *at != Chunk::Over
                    && let Some(byte) = bytes.get(used)
                {
                    used += 1;
                    *left = left.checked_sub(1).ok_or(Unskippable)?;
                    *at = at.next(*byte)?;
                }
                Ok(used)
            }
        }
    }
}

impl Chunk {
    fn next(self, byte: u8) -> Result<Self, Unskippable> {
        Ok(match self {
            Self::Size { len: LINE_MAX, .. } | Self::Trailer { len: LINE_MAX } => return Err(Unskippable),
            Self::Size { len: 0, .. } if byte == b'\n' => return Err(Unskippable),
            Self::Size { size: 0, .. } if byte == b'\n' => Self::Trailer { len: 0 },
            // The line end behind the data belongs to it.
            Self::Size { size, .. } if byte == b'\n' => Self::Data(size.saturating_add(2)),
            Self::Size { size, len, in_size } => match char::from(byte).to_digit(16).filter(|_| in_size) {
                Some(digit) => Self::Size {
                    size: size.checked_mul(16).ok_or(Unskippable)?.saturating_add(u64::from(digit)),
                    len: len + 1,
                    in_size,
                },
                None if len == 0 => return Err(Unskippable),
                None => Self::Size { size, len: len + 1, in_size: false },
            },
            Self::Data(1) => Self::Size { size: 0, len: 0, in_size: true },
            Self::Data(left) => Self::Data(left - 1),
            Self::Trailer { len: 0 | 1 } if byte == b'\n' => Self::Over,
            Self::Trailer { .. } if byte == b'\n' => Self::Trailer { len: 0 },
            Self::Trailer { len: 0 } if byte == b'\r' => Self::Trailer { len: 1 },
            // Two bytes at least: it is not the empty line.
            Self::Trailer { len } => Self::Trailer { len: (len + 1).max(2) },
            Self::Over => Self::Over,
        })
    }
}
