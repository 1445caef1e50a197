//! The body of a 407, which is skipped exactly.

use super::FieldList;
use crate::http::follower::{Body, Progress};
use crate::http::head::{self, Limits};

/// The longest body that is skipped, in bytes; the connection is closed instead of reading a longer one.
const SKIP_MAX: u64 = 256 * 1024;

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// There is none.
    Empty,
    /// It can be skipped.
    Skip(Skip),
    /// The connection ends behind it, or it is too long.
    UntilClose,
}

/// A body that is being skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skip {
    body: Body,
    /// The next bytes that belong to the body.
    next: u64,
    /// Whether they are its last.
    is_last: bool,
    /// Bytes until the limit.
    room: u64,
}

impl BodyEnd {
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
        let body = if values("Transfer-Encoding").next().is_some() {
            let is_chunked = values("Transfer-Encoding").all(|value| value.eq_ignore_ascii_case("chunked"));
            is_chunked.then_some(head::Body::Chunked)
        } else {
            let mut lengths = values("Content-Length").map(|value| value.parse::<u64>().ok());
            match (lengths.next(), lengths.next()) {
                (Some(Some(len)), None) if len <= SKIP_MAX => Some(head::Body::Length(len)),
                _ => None,
            }
        };
        let Some(body) = body else { return Self::UntilClose };
        let skip = |body| Self::Skip(Skip { body, next: 0, is_last: false, room: SKIP_MAX });
        Body::announced(body).map_or(Self::Empty, skip)
    }
}

/// The body is malformed or too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unskippable;

impl Skip {
    /// Skips bytes. Returns how many belong to the body, and whether it is over.
    pub(super) fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<(usize, bool), Unskippable> {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let skipped = usize::try_from(self.next).unwrap_or(usize::MAX).min(rest.len());
            self.next -= skipped as u64;
            used += skipped;
            if self.next > 0 || self.is_last {
                return Ok((used, self.next == 0));
            }
            match self.body.next(rest.get(skipped..).unwrap_or_default(), limits, |_| Ok(())) {
                Progress::More => return Ok((used, false)),
                Progress::Skip { bytes, is_complete } => {
                    self.room = self.room.checked_sub(bytes).ok_or(Unskippable)?;
                    (self.next, self.is_last) = (bytes, is_complete);
                }
                Progress::Refused(_) => return Err(Unskippable),
            }
        }
    }
}
