//! The client's side of XEP-0114, Jabber Component Protocol, on one connection: header, handshake, stanzas.
//!
//! | in state | header | `<handshake/>` | stanza | `<stream:error/>`, end, invalid |
//! |---|---|---|---|---|
//! | `Header` | with an id: sends the handshake; → `Handshake` | ignored | ignored | ended |
//! | `Handshake` | – | → `Up` | ignored | ended |
//! | `Up` | – | ignored | an IQ is passed on, all others are ignored | ended |
//!
//! A stanza that exceeds the limits ([`Part::Excess`]) is skipped. If its first tag shows an IQ that needs an answer,
//! it gets a 406.
//!
//! The timeouts are those of [`component_host`](crate::component_host).

use alloc::vec::Vec;
use core::fmt;

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::condition::{Condition, StreamCondition};
use super::element::Element;
use super::iq::{COMPONENT, Iq};
use super::stream::{self, DEPTH_MAX, Part, STANZA_BYTES_MAX, STREAM, Stream};
use crate::conn::{DialFailure, End};
use crate::opaque::Opaque;

/// The secret that component and server share. It is zeroed on drop, and hidden from `Debug`.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why there is no connection to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It cannot be reached.
    Unreachable(DialFailure),
    /// It timed out, or does not read.
    TimedOut,
    /// It ended the stream with this error.
    Refused(StreamCondition),
    /// It ended the stream cleanly.
    Closed,
    /// It ended the connection within the stream.
    Ended(End),
    /// Its stream was invalid, and was ended with this error.
    Malformed(StreamCondition),
}

/// An action in response to received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Say(Opaque<Vec<u8>>),
    /// The server has accepted us: IQs may be sent.
    Up,
    /// An IQ was received.
    Iq(Iq),
    /// A stanza is skipped. Has the answer, if it was a request.
    Excess(Option<Iq>),
    /// The connection has ended: send `say`, and close.
    Close {
        /// The reason.
        why: Loss,
        /// The end of our stream.
        say: Vec<u8>,
    },
}

/// One connection to a server.
#[derive(Debug)]
pub struct Component {
    stream: Stream,
    state: State,
    secret: Secret,
}

/// `Header` ─id─▶ `Handshake` ─`<handshake/>`─▶ `Up`; any ─error or end─▶ `Ended`. See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Handshake,
    Up,
    Ended,
}

impl Secret {
    /// A secret, as in the server's configuration.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The handshake for a stream's id (XEP-0114 §3).
    fn handshake(&self, id: &str) -> Vec<u8> {
        let digest = Sha1::new().chain_update(id).chain_update(&*self.0).finalize();
        let text = data_encoding::HEXLOWER.encode(&digest);
        let mut out = Vec::new();
        Element::new(COMPONENT, "handshake").with_text(&text).write(COMPONENT, &mut out);
        out
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Component {
    /// The connection is established; `name` is the component's domain. Also returns the bytes to send first.
    #[must_use]
    pub fn begin(name: &str, secret: Secret) -> (Self, Vec<u8>) {
        let it = Self { stream: Stream::new(), state: State::Header, secret };
        (it, stream::header(COMPONENT, name))
    }

    /// Whether the server has accepted us.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Reads from the front of `bytes`, and shortens it by what was consumed. `None` when all bytes were.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Option<Action> {
        while self.state != State::Ended {
            let action = match self.stream.read(bytes) {
                Ok(None) => return None,
                Ok(Some(Part::Header(header))) => self.header(&header),
                Ok(Some(Part::Stanza(stanza))) => self.stanza(&stanza),
                Ok(Some(Part::Excess(start))) => self.excess(start.as_ref()),
                Ok(Some(Part::End)) => Some(self.over(Loss::Closed, stream::FOOTER.to_vec())),
                Err(condition) => Some(self.over(Loss::Malformed(condition), stream::error(condition))),
            };
            if action.is_some() {
                return action;
            }
        }
        *bytes = &[];
        None
    }

    fn header(&mut self, header: &Element) -> Option<Action> {
        self.state = State::Handshake;
        // A header without an id precedes an error (docs/dtcp.md §7.1).
        let id = header.attribute("id").filter(|id| !id.is_empty())?;
        Some(Action::Say(Opaque(self.secret.handshake(id))))
    }

    fn stanza(&mut self, stanza: &Element) -> Option<Action> {
        if stanza.is(STREAM, "error") {
            let condition = StreamCondition::read(stanza);
            return Some(self.over(Loss::Refused(condition), stream::FOOTER.to_vec()));
        }
        match self.state {
            // Prosody answers a wrong namespace with a handshake of type 'error'.
            State::Handshake if stanza.is(COMPONENT, "handshake") && stanza.attribute("type").is_none() => {
                self.state = State::Up;
                Some(Action::Up)
            }
            State::Up => Iq::read(stanza).map(Action::Iq),
            State::Header | State::Handshake | State::Ended => None,
        }
    }

    fn excess(&self, start: Option<&Element>) -> Option<Action> {
        if self.state != State::Up {
            return None;
        }
        let most =
            alloc::format!("More than {STANZA_BYTES_MAX} bytes, or more than {DEPTH_MAX} nested elements");
        let refuse = |iq: Iq| iq.refusal(Condition::PolicyViolation, &most);
        Some(Action::Excess(start.and_then(Iq::read).and_then(refuse)))
    }

    fn over(&mut self, why: Loss, say: Vec<u8>) -> Action {
        self.state = State::Ended;
        Action::Close { why, say }
    }
}
