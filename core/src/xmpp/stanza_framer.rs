//! Frames stanzas byte by byte: finds the ends of tags and the depth of elements, without a buffer.
//!
//! The parser checks what is between `<` and `>`; it is scanned here only to find its end.

use super::condition::StreamCondition;

/// The position of the next byte, and the number of open elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct StanzaFramer {
    place: Position,
    depth: usize,
}

/// What ends with a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagEnd {
    /// A start tag.
    Opened,
    /// An element; [`StanzaFramer::depth`] does not count it.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Between tags.
    Text,
    /// After `<`.
    Markup,
    /// In `<?xml … ?>`.
    Declaration,
    /// In a start tag.
    StartTag,
    /// In a value within a start tag, which this quote ends.
    Value(u8),
    /// After `/` within a start tag.
    Empty,
    /// In an end tag.
    EndTag,
    /// After `<!`, and this many bytes of `[CDATA[`.
    Bang(usize),
    /// In a CDATA section, after this many bytes of `]]>`.
    Section(usize),
}

const SECTION: &[u8] = b"[CDATA[";

impl StanzaFramer {
    /// The beginning of a stream.
    pub(super) const fn new() -> Self {
        Self { place: Position::Text, depth: 0 }
    }

    /// The number of open elements.
    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// Scans one byte.
    ///
    /// # Errors
    ///
    /// The condition to end the stream with: this is not XML, or not allowed in XMPP.
    pub(super) fn read(&mut self, byte: u8) -> Result<Option<TagEnd>, StreamCondition> {
        self.place = match (self.place, byte) {
            (Position::Text, b'<') => Position::Markup,
            (Position::Text, _) => self.text(byte)?,
            (Position::Markup, _) => self.markup(byte)?,
            (Position::Declaration, b'>') => Position::Text,
            (Position::StartTag, b'>') => {
                self.place = Position::Text;
                return Ok(Some(TagEnd::Opened));
            }
            (Position::StartTag, b'/') => Position::Empty,
            (Position::StartTag, b'\'' | b'"') => Position::Value(byte),
            (Position::Value(quote), _) if byte == quote => Position::StartTag,
            (Position::Empty | Position::EndTag, b'>') => {
                self.place = Position::Text;
                self.depth = self.depth.checked_sub(1).ok_or(StreamCondition::NotWellFormed)?;
                return Ok(Some(TagEnd::Closed));
            }
            (Position::StartTag | Position::Value(_) | Position::EndTag, b'<') | (Position::Empty, _) => {
                return Err(StreamCondition::NotWellFormed);
            }
            (
                place @ (Position::Declaration | Position::StartTag | Position::Value(_) | Position::EndTag),
                _,
            ) => place,
            (Position::Bang(matched), _) => self.bang(matched, byte)?,
            (Position::Section(matched), b']') => Position::Section((matched + 1).min(2)),
            (Position::Section(2), b'>') => Position::Text,
            (Position::Section(_), _) => Position::Section(0),
        };
        Ok(None)
    }

    /// Outside of stanzas only white space is allowed.
    const fn text(&self, byte: u8) -> Result<Position, StreamCondition> {
        match (byte, self.depth) {
            (b' ' | b'\t' | b'\r' | b'\n', _) | (_, 2..) => Ok(Position::Text),
            (_, 0) => Err(StreamCondition::NotWellFormed),
            (_, 1) => Err(StreamCondition::BadFormat),
        }
    }

    fn markup(&mut self, byte: u8) -> Result<Position, StreamCondition> {
        match byte {
            b'/' => Ok(Position::EndTag),
            b'!' => Ok(Position::Bang(0)),
            b'?' if self.depth == 0 => Ok(Position::Declaration),
            b'?' => Err(StreamCondition::RestrictedXml),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':' | 0x80.. => {
                self.depth += 1;
                Ok(Position::StartTag)
            }
            _ => Err(StreamCondition::NotWellFormed),
        }
    }

    /// Of all constructs that begin so, XMPP has only CDATA sections.
    fn bang(&self, matched: usize, byte: u8) -> Result<Position, StreamCondition> {
        match (SECTION.get(matched), matched + 1 == SECTION.len()) {
            (Some(wanted), false) if *wanted == byte => Ok(Position::Bang(matched + 1)),
            (Some(wanted), true) if *wanted == byte => self.text(byte).and(Ok(Position::Section(0))),
            _ if matched == 0 => Err(StreamCondition::RestrictedXml),
            _ => Err(StreamCondition::NotWellFormed),
        }
    }
}
