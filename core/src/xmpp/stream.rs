//! Parses the XML stream of a server: from bytes to header, stanzas and end. The result does not depend on how the
//! bytes are cut.
//!
//! The parser enforces XMPP's restricted XML (RFC 6120 §11): no document types, comments, processing instructions or
//! entity definitions, only UTF-8. The limits are enforced here: a part of the stream is buffered until the framer
//! finds its end, and then parsed at once. So nothing unbounded reaches the parser, and none of its own limits is
//! ever reached.
//!
//! * Anybody can send a stanza that is too long or nested too deep, so it must not affect others: it is skipped, and
//!   only its first tag is kept ([`Part::Excess`]). In what is skipped, only the framing is checked.
//! * XML that is not well-formed or not allowed in XMPP is the server's fault, and ends the stream (RFC 6120 §4.9.3).
//!   XML allows one thing that the parser does not: a reference of more than eight digits, such as `&#0000000065;`.
//!   It ends the stream as well, since nothing after it can be parsed. Servers never write such a reference, whatever
//!   their clients send, since they serialise what they have parsed.

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

/// The maximum length of a stanza or a header, in bytes on the wire. 16 KiB of attributes take about 230 kB in
/// memory.
pub const STANZA_BYTES_MAX: usize = 16 * 1024;
/// The maximum depth of elements, including the stream's own.
pub const DEPTH_MAX: usize = 32;

/// A complete part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The stream's header.
    Header(Element),
    /// A child of the stream element.
    Stanza(Element),
    /// A stanza of more than [`STANZA_BYTES_MAX`] bytes, or deeper than [`DEPTH_MAX`], which is skipped. Has the
    /// element without its contents; `None` if even its first tag exceeds the limit.
    Excess(Option<Element>),
    /// The end of the stream. Nothing after it is read.
    End,
}

/// The reader of one stream.
pub struct Stream {
    parser: Parser,
    framer: StanzaFramer,
    reading: Reading,
    /// The bytes of the current header or stanza.
    frame: Vec<u8>,
}

/// What is being read.
///
/// ```text
/// Header ─complete─▶ Between ─first byte of an element─▶ Stanza ─complete─▶ Between
/// Stanza ─too long or too deep─▶ Excess ─its end─▶ Between
/// Stanza ─the end of the stream─▶ Ended
/// any ─invalid XML─▶ Failed
/// ```
#[derive(Clone, Copy, Debug)]
enum Reading {
    Header,
    /// White space between stanzas.
    Between,
    /// A stanza, or the end of the stream.
    Stanza {
        /// The length of the first tag, once it is complete.
        tag: Option<usize>,
    },
    /// The rest of a stanza that is skipped.
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
    /// A reader that waits for the header.
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

    /// The next part, parsed from the front of `bytes`, which is shortened by what was consumed. `None` when all
    /// bytes were consumed and more are needed.
    ///
    /// # Errors
    ///
    /// The condition to end the stream with. Every later call returns the same.
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
                // Keep-alives (RFC 6120 §4.6.1) are not buffered.
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
            // A stream without contents.
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

    /// Skips the rest of the stanza. The parser gets its first tag, with an end tag.
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

    /// Parses the buffer, which is complete: a stanza, or the first or the last tag of the stream.
    fn parse(&mut self) -> Result<Part, StreamCondition> {
        let mut frame = core::mem::take(&mut self.frame);
        let mut bytes = &frame[..];
        let mut open = Vec::new();
        let mut whole = None;
        loop {
            match self.parser.parse(&mut bytes, false) {
                Ok(Some(event)) => whole = whole.or(grow(&mut open, event)),
                // The end of the document, which `false` above postpones.
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

/// Handles an event of the parser. `open` are the open elements except the stream's.
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

/// Hides the contents, which may be secret.
impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Stream");
        shown.field("reading", &self.reading).field("frame", &self.frame.len()).finish_non_exhaustive()
    }
}

/// The header of a component's stream, which begins everything sent on it.
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
pub(crate) const FOOTER: &[u8] = b"</stream:stream>";

/// A stream error, and the end of the stream.
#[must_use]
pub(super) fn error(condition: StreamCondition) -> Vec<u8> {
    let condition = Element::new(super::condition::STREAMS, condition.name());
    let mut out = Vec::from(*b"<stream:error>");
    condition.write("", &mut out);
    out.extend_from_slice(b"</stream:error>");
    out.extend_from_slice(FOOTER);
    out
}
