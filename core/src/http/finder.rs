//! Finds the end of a head in one pass, however the bytes arrive.

use core::fmt;

use super::refusal::Refusal;
use super::request_line::RequestLine;
use super::syntax::{is_blank, is_tchar};

/// The maximum number of fields in a head; more are refused with 431.
pub const FIELDS_MAX: usize = 100;

/// Limits of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum length of a head with its empty line, in bytes. A longer one is refused with 431.
    pub head_bytes_max: u32,
    /// The maximum length of a request line with its CRLF, in bytes. RFC 9112 §3 asks for at least 8000. A longer one
    /// is refused with 414.
    pub line_bytes_max: u32,
}

impl Default for Limits {
    /// 16 KiB and 8 KiB.
    fn default() -> Self {
        Self { head_bytes_max: 16 << 10, line_bytes_max: 8 << 10 }
    }
}

/// The bytes of a complete request head. Only a [`Finder`] makes it, so [`WholeHead::parse`] does not search for the end
/// and check the bytes again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WholeHead<'a>(&'a [u8]);

impl<'a> WholeHead<'a> {
    /// The bytes, including a leading empty line.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for WholeHead<'_> {
    /// Shows the length alone: a head has secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WholeHead({} bytes)", self.0.len())
    }
}

/// The result of [`Finder::find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No end and no error so far.
    Partial,
    /// The head is complete.
    Complete(WholeHead<'a>),
    /// The head is refused, even if it is incomplete.
    Refused(Refusal),
}

/// Finds the end of a head in bytes that arrive in pieces. It scans each byte once, so that a peer which sends single
/// bytes costs no more than one that sends all at once.
///
/// The result does not depend on the pieces: the first error in the order of the bytes decides. These errors are
/// found before the end: a byte that cannot begin a request, a bare LF or CR, a control byte, a folded field, a
/// malformed request line, and an exceeded limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finder {
    scanned: u32,
    /// The offset of the line that is being scanned.
    line: u32,
    /// The number of complete lines, without a leading empty one.
    lines: u32,
}

impl Finder {
    /// A finder for field lines without a first line, such as trailers (RFC 9112 §7.1.2). They end with the first
    /// empty line, which may be all there is.
    pub(super) const fn for_trailers() -> Self {
        Self { scanned: 0, line: 0, lines: 1 }
    }

    /// Continues where the last call stopped. `bytes` is everything that was received and not consumed: the bytes of
    /// the last call, and those received since.
    ///
    /// After any result but [`Found::Partial`] the next call starts again.
    pub fn find<'a>(&mut self, bytes: &'a [u8], limits: &Limits) -> Found<'a> {
        match self.find_end(bytes, limits, |line| RequestLine::parse(line).map(|_| ())) {
            Ok(None) => Found::Partial,
            Ok(Some(len)) => Found::Complete(WholeHead(bytes.get(..len).unwrap_or_default())),
            Err(refusal) => Found::Refused(refusal),
        }
    }

    /// [`find`](Self::find) for field lines, and for a head whose first line has another form. Returns the length of the
    /// head; `None`: no end and no error so far.
    pub(super) fn find_end(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        check_first_line: impl Fn(&[u8]) -> Result<(), Refusal>,
    ) -> Result<Option<usize>, Refusal> {
        debug_assert!(bytes.len() >= self.scanned as usize, "bytes consumed in the middle of a head");
        let end = self.scan(bytes, limits, check_first_line);
        if end != Ok(None) {
            *self = Self::default();
        }
        end
    }

    /// The end of field lines without a first line ([`Finder::for_trailers`]).
    pub(super) fn find_trailers_end(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, Refusal> {
        self.find_end(bytes, limits, |_| Ok(()))
    }

    fn scan(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        check_first_line: impl Fn(&[u8]) -> Result<(), Refusal>,
    ) -> Result<Option<usize>, Refusal> {
        let mut before = self.scanned.checked_sub(1).and_then(|at| bytes.get(at as usize)).copied();
        while let Some(&byte) = bytes.get(self.scanned as usize) {
            self.check(byte, before)?;
            before = Some(byte);
            self.scanned += 1;
            if byte == b'\n' && self.end_line(bytes, &check_first_line)? {
                return Ok(Some(self.scanned as usize));
            }
            if self.lines == 0 && self.scanned - self.line >= limits.line_bytes_max {
                return Err(Refusal::LineTooLong);
            }
            if self.scanned >= limits.head_bytes_max {
                return Err(Refusal::HeadTooLarge);
            }
        }
        Ok(None)
    }

    /// Checks whether `byte` may follow `before` at this position.
    fn check(&self, byte: u8, before: Option<u8>) -> Result<(), Refusal> {
        match byte {
            b'\n' if before == Some(b'\r') => Ok(()),
            b'\n' => Err(Refusal::BareLineFeed),
            _ if before == Some(b'\r') => Err(Refusal::BareCarriageReturn),
            b'\r' if self.lines == 0 && self.line > 0 && self.scanned == self.line => {
                Err(Refusal::BlankLines)
            }
            b'\r' => Ok(()),
            _ if self.scanned == self.line => self.check_line_start(byte),
            b'\t' => Ok(()),
            _ if byte.is_ascii_control() => Err(Refusal::Control),
            _ => Ok(()),
        }
    }

    fn check_line_start(&self, byte: u8) -> Result<(), Refusal> {
        match byte {
            _ if self.lines as usize > FIELDS_MAX => Err(Refusal::TooManyFields),
            _ if is_tchar(byte) => Ok(()),
            _ if self.lines == 0 => Err(Refusal::NotHttp),
            _ if is_blank(byte) => Err(Refusal::Folded),
            _ => Err(Refusal::FieldName),
        }
    }

    /// Handles the end of a line. Returns whether the head is complete.
    fn end_line(
        &mut self,
        bytes: &[u8],
        check_first_line: impl Fn(&[u8]) -> Result<(), Refusal>,
    ) -> Result<bool, Refusal> {
        let line = bytes.get(self.line as usize..self.scanned as usize).unwrap_or_default();
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        self.line = self.scanned;
        if line.is_empty() {
            return Ok(self.lines > 0);
        }
        if self.lines == 0 {
            check_first_line(line)?;
        }
        self.lines += 1;
        Ok(false)
    }
}
