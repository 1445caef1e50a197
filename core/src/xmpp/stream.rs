//! The XML stream that a server sends: octets in, header, stanzas and end out.
//!
//! XMPP's restricted XML (RFC 6120 §11) is the parser's: no document types, comments, processing instructions or
//! entities of the sender's, UTF-8 alone. Here are the bounds that it lacks. However the octets are cut, the same
//! stanzas come out.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use rxml::error::EndOrError;
use rxml::{AttrMap, Event, Namespace, Options, Parse, Parser, QName, WithOptions};

use super::condition::StreamCondition;
use super::element::Element;

/// The namespace of the stream's own elements (RFC 6120 §4.8.1).
pub const STREAM: &str = "http://etherx.jabber.org/streams";

/// The longest stanza, or header, in octets as they were sent. Sixteen KiB of nothing but attributes take about
/// 230 kB in memory.
pub const STANZA_OCTETS_MAX: u64 = 16 * 1024;
/// The longest name or attribute value, in octets.
pub const TOKEN_OCTETS_MAX: usize = 1024;
/// How deep elements nest, the stream's own included.
pub const DEPTH_MAX: usize = 32;

/// Something whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The stream's header.
    Header(Element),
    /// A child of the stream's.
    Stanza(Element),
    /// The stream's end. Nothing is read behind it.
    End,
}

/// The reader of one stream.
pub struct Stream {
    parser: Parser,
    /// Elements that are open, the stream's own not among them.
    open: Vec<Element>,
    begun: bool,
    /// Octets that the parser took…
    taken: u64,
    /// …those of them that made an event…
    done: u64,
    /// …and where what is read now began.
    start: u64,
    over: Option<StreamCondition>,
    ended: bool,
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
        let options = Options { max_token_length: TOKEN_OCTETS_MAX, ..Options::default() };
        Self {
            parser: Parser::with_options(options),
            open: Vec::new(),
            begun: false,
            taken: 0,
            done: 0,
            start: 0,
            over: None,
            ended: false,
        }
    }

    /// The next part, read from the front of `octets`, which is shortened by what was taken; `None` when all of them
    /// were, and more are needed.
    ///
    /// # Errors
    ///
    /// What the stream is to be ended with; the same again on every later call.
    pub fn read(&mut self, octets: &mut &[u8]) -> Result<Option<Part>, StreamCondition> {
        match self.over {
            Some(condition) => Err(condition),
            None => self.read_on(octets).inspect_err(|condition| self.over = Some(*condition)),
        }
    }

    fn read_on(&mut self, octets: &mut &[u8]) -> Result<Option<Part>, StreamCondition> {
        while !self.ended {
            let before = octets.len();
            let parsed = self.parser.parse(octets, false);
            self.taken += (before - octets.len()) as u64;
            if self.taken - self.start > STANZA_OCTETS_MAX {
                return Err(StreamCondition::PolicyViolation);
            }
            match parsed {
                Ok(Some(event)) => {
                    self.done += event.metrics().len() as u64;
                    if let Some(part) = self.event(event)? {
                        return Ok(Some(part));
                    }
                }
                // The end of the document, which `false` above leaves for later.
                Ok(None) | Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(rxml::Error::RestrictedXml(_))) => {
                    return Err(StreamCondition::RestrictedXml);
                }
                Err(EndOrError::Error(_)) => return Err(StreamCondition::NotWellFormed),
            }
        }
        *octets = &[];
        Ok(None)
    }

    fn event(&mut self, event: Event) -> Result<Option<Part>, StreamCondition> {
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, name, attributes) if !self.begun => {
                self.begun = true;
                self.start = self.done;
                let header = element(name, attributes);
                let is_stream = header.is(STREAM, "stream");
                if is_stream {
                    Ok(Some(Part::Header(header)))
                } else {
                    Err(StreamCondition::InvalidNamespace)
                }
            }
            Event::StartElement(_, name, attributes) => {
                if self.open.len() + 1 >= DEPTH_MAX {
                    return Err(StreamCondition::PolicyViolation);
                }
                self.open.push(element(name, attributes));
                Ok(None)
            }
            Event::Text(_, text) => match self.open.last_mut() {
                Some(element) => {
                    element.add_text(&text);
                    Ok(None)
                }
                // Keep-alives (RFC 6120 §4.6.1).
                None if text.bytes().all(|octet| octet.is_ascii_whitespace()) => {
                    self.start = self.done;
                    Ok(None)
                }
                None => Err(StreamCondition::BadFormat),
            },
            Event::EndElement(_) => Ok(self.close()),
        }
    }

    /// An element ends: a child of another, a stanza, or the stream.
    fn close(&mut self) -> Option<Part> {
        let Some(element) = self.open.pop() else {
            self.ended = true;
            return Some(Part::End);
        };
        match self.open.last_mut() {
            Some(parent) => {
                parent.add_child(element);
                None
            }
            None => {
                self.start = self.done;
                Some(Part::Stanza(element))
            }
        }
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
        f.debug_struct("Stream").field("taken", &self.taken).field("over", &self.over).finish_non_exhaustive()
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
