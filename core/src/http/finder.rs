//! Where a head ends: looked for octet by octet, once, however the octets arrive.

use super::refusal::Refusal;
use super::request_line::RequestLine;
use super::syntax::{is_blank, is_tchar};

/// The most fields in a head; more are refused with 431.
pub const FIELDS_MAX: usize = 100;

/// How much of a head is read before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest head, with its last empty line, in octets. Passed: 431.
    pub head_octets_max: u32,
    /// The longest request line, with its CRLF, in octets; RFC 9112 §3 asks for 8000 at least. Passed: 414.
    pub line_octets_max: u32,
}

impl Default for Limits {
    /// 16 KiB and 8 KiB.
    fn default() -> Self {
        Self { head_octets_max: 16 << 10, line_octets_max: 8 << 10 }
    }
}

/// What [`Finder::find`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No end yet, and nothing wrong so far.
    Partial,
    /// The head is complete: this many octets, an empty line in front included.
    Complete(usize),
    /// There is no need to wait for the rest.
    Refused(Refusal),
}

/// Finds the end of a head in octets that come in pieces; looks at each octet once, so that a peer which sends one at
/// a time costs no more than one that sends them all.
///
/// The verdict does not depend on the pieces: the first fault in the order of the octets decides, and what can be
/// refused before the end is: an octet that cannot begin a request, a bare LF or CR, a control octet, a folded field,
/// a malformed request line, and whatever passes a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finder {
    scanned: u32,
    /// Where the line begins that is being scanned.
    line: u32,
    /// How many lines are complete, an empty one in front not counted.
    lines: u32,
}

impl Finder {
    /// A finder for field lines without a first line before them, as trailers are (RFC 9112 §7.1.2). They end with the
    /// first empty line, which may be all there is.
    pub(super) const fn for_trailers() -> Self {
        Self { scanned: 0, line: 0, lines: 1 }
    }

    /// Goes on where the last call stopped. `bytes` is everything that was received and not consumed, from the first
    /// octet on: what it held in the last call, and what came since.
    ///
    /// After any other answer than [`Found::Partial`] it begins anew with the next call.
    pub fn find(&mut self, bytes: &[u8], limits: &Limits) -> Found {
        self.find_after(bytes, limits, |line| RequestLine::parse(line).map(|_| ()))
    }

    /// [`find`](Self::find) for a head whose first line has another form.
    pub(super) fn find_after(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        check_first_line: impl Fn(&[u8]) -> Result<(), Refusal>,
    ) -> Found {
        debug_assert!(bytes.len() >= self.scanned as usize, "octets consumed in the middle of a head");
        let found = match self.scan(bytes, limits, check_first_line) {
            Ok(None) => return Found::Partial,
            Ok(Some(len)) => Found::Complete(len),
            Err(refusal) => Found::Refused(refusal),
        };
        *self = Self::default();
        found
    }

    fn scan(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        check_first_line: impl Fn(&[u8]) -> Result<(), Refusal>,
    ) -> Result<Option<usize>, Refusal> {
        let mut before = self.scanned.checked_sub(1).and_then(|at| bytes.get(at as usize)).copied();
        while let Some(&octet) = bytes.get(self.scanned as usize) {
            self.check(octet, before)?;
            before = Some(octet);
            self.scanned += 1;
            if octet == b'\n' && self.end_line(bytes, &check_first_line)? {
                return Ok(Some(self.scanned as usize));
            }
            if self.lines == 0 && self.scanned - self.line >= limits.line_octets_max {
                return Err(Refusal::LineTooLong);
            }
            if self.scanned >= limits.head_octets_max {
                return Err(Refusal::HeadTooLarge);
            }
        }
        Ok(None)
    }

    /// Whether `octet` may follow `before` at this place.
    fn check(&self, octet: u8, before: Option<u8>) -> Result<(), Refusal> {
        match octet {
            b'\n' if before == Some(b'\r') => Ok(()),
            b'\n' => Err(Refusal::BareLineFeed),
            _ if before == Some(b'\r') => Err(Refusal::BareCarriageReturn),
            b'\r' if self.lines == 0 && self.line > 0 && self.scanned == self.line => {
                Err(Refusal::BlankLines)
            }
            b'\r' => Ok(()),
            _ if self.scanned == self.line => self.check_line_start(octet),
            b'\t' => Ok(()),
            _ if octet.is_ascii_control() => Err(Refusal::Control),
            _ => Ok(()),
        }
    }

    fn check_line_start(&self, octet: u8) -> Result<(), Refusal> {
        match octet {
            _ if self.lines as usize > FIELDS_MAX => Err(Refusal::TooManyFields),
            _ if is_tchar(octet) => Ok(()),
            _ if self.lines == 0 => Err(Refusal::NotHttp),
            _ if is_blank(octet) => Err(Refusal::Folded),
            _ => Err(Refusal::FieldName),
        }
    }

    /// A line has ended; whether the head has.
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
