//! The outline of XML, octet by octet: where tags begin and end, and how deep elements nest. Nothing is kept.
//!
//! What is between `<` and `>` is the parser's to judge; here it is looked at only as far as it takes to find the end.

use super::condition::StreamCondition;

/// Where the next octet stands, and in how many elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    place: Place,
    depth: usize,
}

/// What an octet was the last of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A start tag.
    Opened,
    /// An element; [`Outline::depth`] is without it.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between tags.
    Text,
    /// Behind `<`.
    Markup,
    /// In `<?xml … ?>`.
    Declaration,
    /// In a start tag…
    StartTag,
    /// …in a value there, which this octet ends…
    Value(u8),
    /// …and behind `/`.
    Empty,
    /// In an end tag.
    EndTag,
    /// Behind `<!`, and so many octets of `[CDATA[`.
    Bang(usize),
    /// In a CDATA section, behind so many octets of `]]>`.
    Section(usize),
}

const SECTION: &[u8] = b"[CDATA[";

impl Outline {
    /// The beginning of a stream.
    pub(super) const fn new() -> Self {
        Self { place: Place::Text, depth: 0 }
    }

    /// How many elements have begun and not ended.
    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// Reads one octet.
    ///
    /// # Errors
    ///
    /// What the stream is to be ended with: this is no XML, or none that XMPP has.
    pub(super) fn read(&mut self, octet: u8) -> Result<Option<Mark>, StreamCondition> {
        self.place = match (self.place, octet) {
            (Place::Text, b'<') => Place::Markup,
            (Place::Text, _) => self.text(octet)?,
            (Place::Markup, _) => self.markup(octet)?,
            (Place::Declaration, b'>') => Place::Text,
            (Place::StartTag, b'>') => {
                self.place = Place::Text;
                return Ok(Some(Mark::Opened));
            }
            (Place::StartTag, b'/') => Place::Empty,
            (Place::StartTag, b'\'' | b'"') => Place::Value(octet),
            (Place::Value(quote), _) if octet == quote => Place::StartTag,
            (Place::Empty | Place::EndTag, b'>') => {
                self.place = Place::Text;
                self.depth = self.depth.checked_sub(1).ok_or(StreamCondition::NotWellFormed)?;
                return Ok(Some(Mark::Closed));
            }
            (Place::StartTag | Place::Value(_) | Place::EndTag, b'<') | (Place::Empty, _) => {
                return Err(StreamCondition::NotWellFormed);
            }
            (place @ (Place::Declaration | Place::StartTag | Place::Value(_) | Place::EndTag), _) => place,
            (Place::Bang(met), _) => self.bang(met, octet)?,
            (Place::Section(met), b']') => Place::Section((met + 1).min(2)),
            (Place::Section(2), b'>') => Place::Text,
            (Place::Section(_), _) => Place::Section(0),
        };
        Ok(None)
    }

    /// Outside of stanzas there is white space alone.
    const fn text(&self, octet: u8) -> Result<Place, StreamCondition> {
        match (octet, self.depth) {
            (b' ' | b'\t' | b'\r' | b'\n', _) | (_, 2..) => Ok(Place::Text),
            (_, 0) => Err(StreamCondition::NotWellFormed),
            (_, 1) => Err(StreamCondition::BadFormat),
        }
    }

    fn markup(&mut self, octet: u8) -> Result<Place, StreamCondition> {
        match octet {
            b'/' => Ok(Place::EndTag),
            b'!' => Ok(Place::Bang(0)),
            b'?' if self.depth == 0 => Ok(Place::Declaration),
            b'?' => Err(StreamCondition::RestrictedXml),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':' | 0x80.. => {
                self.depth += 1;
                Ok(Place::StartTag)
            }
            _ => Err(StreamCondition::NotWellFormed),
        }
    }

    /// Of all that begins so XMPP has CDATA sections alone.
    fn bang(&self, met: usize, octet: u8) -> Result<Place, StreamCondition> {
        match (SECTION.get(met), met + 1 == SECTION.len()) {
            (Some(wanted), false) if *wanted == octet => Ok(Place::Bang(met + 1)),
            (Some(wanted), true) if *wanted == octet => self.text(octet).and(Ok(Place::Section(0))),
            _ if met == 0 => Err(StreamCondition::RestrictedXml),
            _ => Err(StreamCondition::NotWellFormed),
        }
    }
}
