//! The XML stream that a server sends: bytes in, header, stanzas and end out. However the bytes are cut, the same
//! stanzas come out.
//!
//! XMPP's restricted XML (RFC 6120 §11) is the parser's: no document types, comments, processing instructions or
//! entities of the sender's, UTF-8 alone. The bounds are ours: a piece of the stream is kept as bytes until its
//! outline says that it is whole, and then parsed at once. What has no bound in the parser never
//! gets there, and no limit of the parser's own is ever met.
//!
//! * A stanza that is too long or nests too deep is anybody's to send, so that it costs nobody but itself: it is
//!   skipped to its end with nothing kept of it but its first tag ([`Part::Excess`]). In what is skipped the outline
//!   alone is checked.
//! * XML that is not well-formed or not XMPP's is the server's fault, and the end of the stream (RFC 6120 §4.9.3).
//!   There is one thing that XML would have and the parser does not: a reference of more than eight digits, such as
//!   `&#0000000065;`. It ends the stream as well, since nothing behind it can be read; but no server writes one, whatever
//!   its clients say, as it writes what it has read in its own words.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use rxml::error::EndOrError;
use rxml::{AttrMap, Event, Namespace, Options, Parse, Parser, QName, WithOptions};

use super::condition::StreamCondition;
use super::element::Element;
use super::stanza_framer::{StanzaFramer, TagEnd};

/// The namespace of the stream's own elements (RFC 6120 §4.8.1).
pub const STREAM: &str = "http://etherx.jabber.org/streams";

/// The longest stanza, or header, in bytes as they were sent. Sixteen KiB of nothing but attributes take about
/// 230 kB in memory.
pub const STANZA_BYTES_MAX: usize = 16 * 1024;
/// How deep elements nest, the stream's own included.
pub const DEPTH_MAX: usize = 32;

/// Something whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The stream's header.
    Header(Element),
    /// A child of the stream's.
    Stanza(Element),
    /// A stanza of more than [`STANZA_BYTES_MAX`] bytes, or deeper than [`DEPTH_MAX`], which is skipped: without what
    /// is in it; `None` if not even its first tag has an end within the limit.
    Excess(Option<Element>),
    /// The stream's end. Nothing is read behind it.
    End,
}

/// The reader of one stream.
pub struct Stream {
    parser: Parser,
    framer: StanzaFramer,
    reading: Reading,
    /// What was read of the header or the stanza.
    frame: Vec<u8>,
}

/// What is read.
///
/// ```text
/// Header ─whole─▶ Between ─first byte of an element─▶ Stanza ─whole─▶ Between
/// Stanza ─too long or too deep─▶ Excess ─its end─▶ Between
/// Stanza ─the end of the stream─▶ Ended
/// any ─not XMPP's XML─▶ Over
/// ```
#[derive(Clone, Copy, Debug)]
enum Reading {
    Header,
    /// White space, between stanzas.
    Between,
    /// A stanza, or the end of the stream.
    Stanza {
        /// How long the first tag is, once it is whole.
        tag: Option<usize>,
    },
    /// The rest of a stanza.
    Excess,
    Ended,
    Failed(StreamCondition),
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// A reader that awaits the header.
    #[must_use]
    pub fn new() -> Self {
        let options = Options { max_token_length: STANZA_BYTES_MAX + 1, ..Options::default() };
        Self {
            parser: Parser::with_options(options),
            framer: StanzaFramer::new(),
            reading: Reading::Header,
            frame: Vec::new(),
        }
    }

    /// The next part, read from the front of `bytes`, which is shortened by what was taken; `None` when all of them
    /// were, and more are needed.
    ///
    /// # Errors
    ///
    /// What the stream is to be ended with; the same again on every later call.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Part>, StreamCondition> {
        if let Reading::Failed(condition) = self.reading {
            return Err(condition);
        }
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            match self.take(*byte) {
                Ok(None) => {}
                Ok(part) => return Ok(part),
                Err(condition) => {
                    self.reading = Reading::Failed(condition);
                    return Err(condition);
                }
            }
        }
        Ok(None)
    }

    fn take(&mut self, byte: u8) -> Result<Option<Part>, StreamCondition> {
        match self.reading {
            Reading::Ended => Ok(None),
            Reading::Failed(condition) => Err(condition),
            Reading::Header => self.take_of_header(byte),
            Reading::Between => {
                self.framer.read(byte)?;
                // Keep-alives (RFC 6120 §4.6.1) are not kept.
                if byte == b'<' {
                    self.frame.push(byte);
                    self.reading = Reading::Stanza { tag: None };
                }
                Ok(None)
            }
            Reading::Stanza { tag } => self.take_of_stanza(byte, tag),
            Reading::Excess => {
                if self.framer.read(byte)? == Some(TagEnd::Closed) && self.framer.depth() == 1 {
                    self.reading = Reading::Between;
                }
                Ok(None)
            }
        }
    }

    fn take_of_header(&mut self, byte: u8) -> Result<Option<Part>, StreamCondition> {
        if self.frame.len() == STANZA_BYTES_MAX {
            return Err(StreamCondition::PolicyViolation);
        }
        self.frame.push(byte);
        match self.framer.read(byte)? {
            None => Ok(None),
            Some(TagEnd::Opened) => {
                self.reading = Reading::Between;
                self.parse_header().map(Some)
            }
            // A stream without anything in it.
            Some(TagEnd::Closed) => Err(StreamCondition::BadFormat),
        }
    }

    fn take_of_stanza(&mut self, byte: u8, tag: Option<usize>) -> Result<Option<Part>, StreamCondition> {
        let is_inside = self.framer.depth() > 1;
        let mark = self.framer.read(byte)?;
        let is_whole = mark == Some(TagEnd::Closed) && self.framer.depth() <= 1;
        if self.frame.len() == STANZA_BYTES_MAX || self.framer.depth() > DEPTH_MAX {
            if !is_inside {
                return Err(StreamCondition::PolicyViolation);
            }
            self.reading = if is_whole { Reading::Between } else { Reading::Excess };
            return self.excess(tag).map(Some);
        }
        self.frame.push(byte);
        if is_whole {
            self.reading = if self.framer.depth() == 0 { Reading::Ended } else { Reading::Between };
            return self.parse().map(Some);
        }
        if mark == Some(TagEnd::Opened) && tag.is_none() {
            self.reading = Reading::Stanza { tag: Some(self.frame.len()) };
        }
        Ok(None)
    }

    /// The stanza is not read any more. The parser is shown its first tag, with an end.
    fn excess(&mut self, tag: Option<usize>) -> Result<Part, StreamCondition> {
        let Some(len) = tag else {
            self.frame = Vec::new();
            return Ok(Part::Excess(None));
        };
        self.frame.truncate(len);
        let is_name = |byte: &&u8| !byte.is_ascii_whitespace() && **byte != b'>';
        let name: Vec<u8> = self.frame[1..].iter().take_while(is_name).copied().collect();
        self.frame.extend_from_slice(b"</");
        self.frame.extend(name);
        self.frame.push(b'>');
        match self.parse()? {
            Part::Stanza(element) => Ok(Part::Excess(Some(element))),
            Part::Header(_) | Part::Excess(_) | Part::End => Err(StreamCondition::NotWellFormed),
        }
    }

    fn parse_header(&mut self) -> Result<Part, StreamCondition> {
        match self.parse()? {
            Part::Header(header) if header.is(STREAM, "stream") => Ok(Part::Header(header)),
            Part::Header(_) => Err(StreamCondition::InvalidNamespace),
            Part::Stanza(_) | Part::Excess(_) | Part::End => Err(StreamCondition::NotWellFormed),
        }
    }

    /// Parses what was kept, which is whole: a stanza, or the first or the last tag of the stream.
    fn parse(&mut self) -> Result<Part, StreamCondition> {
        let mut frame = core::mem::take(&mut self.frame);
        let mut bytes = &frame[..];
        let mut open = Vec::new();
        let mut whole = None;
        loop {
            match self.parser.parse(&mut bytes, false) {
                Ok(Some(event)) => whole = whole.or(grow(&mut open, event)),
                // The end of the document, which `false` above leaves for later.
                Ok(None) | Err(EndOrError::NeedMoreData) => break,
                Err(EndOrError::Error(rxml::Error::RestrictedXml(_))) => {
                    return Err(StreamCondition::RestrictedXml);
                }
                Err(EndOrError::Error(_)) => return Err(StreamCondition::NotWellFormed),
            }
        }
        frame.clear();
        self.frame = frame;
        let part = whole.or_else(|| open.pop().map(Part::Header));
        part.filter(|_| open.is_empty()).ok_or(StreamCondition::NotWellFormed)
    }
}

/// What comes of an event, where `open` are the elements that are open and not the stream's.
fn grow(open: &mut Vec<Element>, event: Event) -> Option<Part> {
    match event {
        Event::XmlDeclaration(..) => None,
        Event::StartElement(_, name, attributes) => {
            open.push(element(name, attributes));
            None
        }
        Event::Text(_, text) => {
            if let Some(element) = open.last_mut() {
                element.add_text(&text);
            }
            None
        }
        Event::EndElement(_) => match (open.pop(), open.last_mut()) {
            (None, _) => Some(Part::End),
            (Some(element), None) => Some(Part::Stanza(element)),
            (Some(element), Some(parent)) => {
                parent.add_child(element);
                None
            }
        },
    }
}

fn element((namespace, name): QName, attributes: AttrMap) -> Element {
    let mut element = Element::of(namespace, name.to_string());
    for ((namespace, name), value) in attributes {
        if namespace == *Namespace::none() {
            element.add_attribute(name.to_string(), value);
        }
    }
    element
}

/// What was read may hold secrets.
impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Stream");
        shown.field("reading", &self.reading).field("frame", &self.frame.len()).finish_non_exhaustive()
    }
}

/// The header of a stream to a component's host, and the beginning of everything else that is sent on it.
#[must_use]
pub(super) fn header(namespace: &str, to: &str) -> Vec<u8> {
    let mut out = Vec::from(*b"<?xml version='1.0'?><stream:stream");
    for (name, value) in [("xmlns", namespace), ("xmlns:stream", STREAM), ("to", to)] {
        super::element::write_attribute(name, value, &mut out);
    }
    out.push(b'>');
    out
}

/// The end of a stream.
pub(super) const FOOTER: &[u8] = b"</stream:stream>";

/// A stream error, and the end.
#[must_use]
pub(super) fn error(condition: StreamCondition) -> Vec<u8> {
    let condition = Element::new(super::condition::STREAMS, condition.name());
    let mut out = Vec::from(*b"<stream:error>");
    condition.write("", &mut out);
    out.extend_from_slice(b"</stream:error>");
    out.extend_from_slice(FOOTER);
    out
}
