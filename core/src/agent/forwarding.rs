//! Forwarding fields in every request of a client: both halves of the pair with the HTTP service are gated.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Agent, State, conn_state};
use crate::conns::Ended;
use crate::http::accept::Form;
use crate::http::follower::{Follower, Mode, Step};
use crate::http::forwarded::{self, Origin};
use crate::http::head::{Limits, Refusal};
use crate::http::reply::Status;
use crate::machine::{Close, ConnId, Output, PASS_ALL};
use crate::note::Note;
use crate::pair::{Flow, Over, Side, Why};
use crate::time::Now;

/// What is known of the exchanges of a pair. The connection to the relay holds it.
#[derive(Clone, Debug)]
pub(super) struct Forwarding {
    follower: Follower,
    /// What the fields say; `None`: no fields are written.
    origin: Option<Origin>,
    /// The host that each request must name.
    host: Option<String>,
    /// How many bytes of the service were let pass and have not moved.
    unmoved: u64,
    /// The client's bytes wait for the service's answer.
    waits: bool,
    /// A part of a head is held: the rest has to come in time.
    is_partial: bool,
    /// Why the client's next request is not forwarded. Whatever else the client sends is dropped.
    refused: Option<Unforwarded>,
}

/// The answer to a request that is not forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unforwarded {
    pub(super) status: Status,
    pub(super) why: &'static str,
}

impl Unforwarded {
    pub(super) const LATE: Self =
        Self { status: Status::Timeout408, why: "the head of the request did not arrive in time" };

    pub(super) const fn no_service(why: &'static str) -> Self {
        Self { status: Status::BadGateway502, why }
    }

    /// The agent is out of something for now.
    pub(super) const fn unavailable(why: &'static str) -> Self {
        Self { status: Status::Unavailable503, why }
    }

    pub(super) const fn refused(refusal: Refusal) -> Self {
        Self { status: refusal.status(), why: refusal.why() }
    }
}

/// The answer to a request for another host than the one that the client's TLS is for: a browser repeats it on a
/// connection of its own (RFC 9110 §15.5.20).
const MISDIRECTED: Unforwarded = Unforwarded {
    status: Status::Misdirected421,
    why: "the request is for another host than the TLS connection",
};

/// What the bytes of one half lead to.
#[derive(Default)]
struct Outcome {
    /// How many bytes at the front are replaced by `text`.
    consumed: usize,
    /// What is sent to the service in their place.
    text: Vec<u8>,
    /// How many bytes behind those pass; 0: none.
    pass: u64,
}

impl Forwarding {
    pub(super) fn new(limits: Limits, origin: Option<Origin>, host: Option<String>) -> Self {
        Self {
            follower: Follower::new(limits, Mode::Strict),
            origin,
            host,
            unmoved: 0,
            waits: false,
            is_partial: false,
            refused: None,
        }
    }

    fn on_client_bytes(&mut self, bytes: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        self.waits = false;
        self.is_partial = false;
        loop {
            if self.refused.is_some() {
                outcome.consumed = bytes.len();
                return outcome;
            }
            let rest = bytes.get(outcome.consumed..).unwrap_or_default();
            match self.follower.on_client(rest) {
                Step::Request { head, .. }
                    if self.host.as_ref().is_some_and(|host| !head.names_host(host)) =>
                {
                    self.refused = Some(MISDIRECTED);
                }
                Step::Request { len, head } => {
                    match &self.origin {
                        Some(origin) => {
                            let written = forwarded::write(&head, origin, &mut outcome.text);
                            self.follower.request_passed(&written);
                        }
                        None => {
                            head.as_it_came(&mut outcome.text);
                            self.follower.request_passed(&head);
                        }
                    }
                    outcome.consumed += len;
                }
                Step::Skip(bytes) => {
                    outcome.pass = bytes;
                    return outcome;
                }
                Step::More | Step::Response { .. } => {
                    self.is_partial = !rest.is_empty();
                    return outcome;
                }
                Step::Hold => {
                    self.waits = true;
                    return outcome;
                }
                Step::Opaque => {
                    outcome.pass = PASS_ALL;
                    return outcome;
                }
                Step::Refused(refusal) => self.refused = Some(Unforwarded::refused(refusal)),
            }
        }
    }

    /// How many bytes of the service pass.
    fn on_service_bytes(&mut self, bytes: &[u8]) -> u64 {
        let mut pass = 0_u64;
        while let Some(rest) =
            usize::try_from(pass).ok().and_then(|at| bytes.get(at..)).filter(|it| !it.is_empty())
        {
            match self.follower.on_hidden(rest) {
                Step::Response { len } => pass += len as u64,
                Step::Skip(bytes) => pass += bytes,
                Step::Opaque => return PASS_ALL,
                // What answers no request ends the connection.
                Step::More | Step::Hold | Step::Request { .. } | Step::Refused(_) => break,
            }
        }
        self.unmoved += pass;
        pass
    }
}

impl Agent {
    /// For traces: a copy of what follows the exchanges of the pair of `on`, and which side `on` is.
    pub(crate) fn follower(&mut self, on: ConnId) -> Option<(Follower, Side)> {
        let (mate, side) = self.conns.mate(on)?;
        let relay = if side == Side::Client { on } else { mate };
        forwarding(self, relay).map(|it| (it.follower.clone(), side))
    }

    /// Gates a new pair of a client and the HTTP service, if its requests are to get forwarding fields.
    pub(super) fn gate(&mut self, local: ConnId, relay: ConnId) {
        let Some(conn) = self.conns.state(relay) else { return };
        let upstream = conn.upstream;
        if !self.follows(relay) || self.conns.mate(relay).is_none() {
            return;
        }
        let is_https = self.upstream(upstream).relay.tls || self.is_sealed(relay);
        let client = self.conns.from(relay).map(|from| from.ip());
        let origin = self.forwards(relay).then_some(Origin { client, is_https });
        let host = self.name_of(relay);
        let forwarding = Forwarding::new(self.config.head, origin, host);
        if let Some(state) = conn_state(&mut self.conns, relay) {
            *state = State::Paired(Some(Box::new(forwarding)));
        }
        for on in [relay, local] {
            self.conns.say(Output::Gate { on });
        }
    }

    /// Bytes of a gated half; how many were consumed.
    pub(super) fn read_gated(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        match self.conns.mate(on) {
            Some((local, Side::Client)) => self.read_client(on, local, bytes, now),
            Some((relay, Side::Hidden)) => {
                self.read_service(on, relay, bytes, now);
                0
            }
            None => 0,
        }
    }

    fn read_client(&mut self, relay: ConnId, local: ConnId, bytes: &[u8], now: Now) -> usize {
        let Some(forwarding) = forwarding(self, relay) else { return 0 };
        let was_partial = forwarding.is_partial;
        let Outcome { consumed, text, pass } = forwarding.on_client_bytes(bytes);
        let is_partial = forwarding.is_partial;
        let sent = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.conns.send(local, text);
        if consumed > 0 {
            let consumed = u32::try_from(consumed).unwrap_or(u32::MAX);
            let ended = self.conns.moved(relay, consumed, sent, now);
            self.pair_over(ended, now);
        }
        if pass > 0 {
            self.conns.say(Output::Pass { from: relay, bytes: pass });
        }
        if !is_partial {
            self.conns.set_due(relay, None);
        } else if !was_partial || consumed > 0 {
            self.conns.set_due(relay, Some(now.mono + self.config.head_timeout));
        }
        self.conclude(relay, now);
        consumed
    }

    fn read_service(&mut self, local: ConnId, relay: ConnId, bytes: &[u8], now: Now) {
        let Some(forwarding) = forwarding(self, relay) else { return };
        let pass = forwarding.on_service_bytes(bytes);
        if pass == 0 {
            return;
        }
        let waits = core::mem::take(&mut forwarding.waits);
        let is_opaque = forwarding.follower.is_opaque();
        self.conns.say(Output::Pass { from: local, bytes: pass });
        if is_opaque {
            self.conns.say(Output::Pass { from: relay, bytes: PASS_ALL });
            self.conns.set_due(relay, None);
            if let Some(state) = conn_state(&mut self.conns, relay) {
                *state = State::Paired(None);
            }
        } else if waits {
            self.offer_again(relay);
        }
        self.conclude(relay, now);
    }

    /// Bytes of a gated half were let pass and have moved.
    pub(super) fn moved_gated(&mut self, from: ConnId, read: u32, now: Now) {
        let Some((relay, Side::Hidden)) = self.conns.mate(from) else { return };
        let Some(forwarding) = forwarding(self, relay) else { return };
        forwarding.unmoved = forwarding.unmoved.saturating_sub(u64::from(read));
        if forwarding.unmoved == 0 {
            forwarding.follower.hidden_passed(u64::MAX);
            self.conclude(relay, now);
        }
    }

    /// No more bytes come behind those that are held of a gated half.
    pub(super) fn last_gated(&mut self, on: ConnId, now: Now) {
        match self.conns.mate(on) {
            Some((_, Side::Client)) => {
                let Some(forwarding) = forwarding(self, on) else { return };
                if !forwarding.waits {
                    self.refuse_next(on, Unforwarded::refused(Refusal::Incomplete), now);
                }
            }
            // Part of a response head, or a farewell that answers no request: the client judges it.
            Some((_, Side::Hidden)) => self.conns.say(Output::Pass { from: on, bytes: PASS_ALL }),
            None => {}
        }
    }

    /// The rest of a head did not come in time. Whether there is such a head.
    pub(super) fn expire_gated(&mut self, relay: ConnId, now: Now) -> bool {
        let is_late = forwarding(self, relay).is_some_and(|it| it.is_partial);
        if is_late {
            self.refuse_next(relay, Unforwarded::LATE, now);
        }
        is_late
    }

    /// What the client sends next is not forwarded: it is dropped, and answered in its turn.
    fn refuse_next(&mut self, relay: ConnId, why: Unforwarded, now: Now) {
        let Some(forwarding) = forwarding(self, relay) else { return };
        forwarding.refused.get_or_insert(why);
        self.offer_again(relay);
        self.conclude(relay, now);
    }

    /// Has what is held of the client offered again.
    fn offer_again(&mut self, relay: ConnId) {
        let is_read =
            self.conns.pair_of(relay).is_some_and(|pair| pair.flow_from(Side::Client) != Flow::Dead);
        if is_read {
            self.conns.say(Output::Read { on: relay, wanted: true });
        }
    }

    /// Ends the pair if no request will be answered any more, or if the turn of the one that is not forwarded has come.
    fn conclude(&mut self, relay: ConnId, now: Now) {
        let Some(forwarding) = forwarding(self, relay) else { return };
        let (follower, refused) = (&forwarding.follower, forwarding.refused);
        if forwarding.unmoved > 0 {
            return;
        }
        let in_request = follower.is_in_request();
        let over = match refused {
            Some(refused) if follower.is_answerable() => {
                let from = self.conns.from(relay);
                let upstream = self.conns.any_state(relay).map(|conn| conn.upstream);
                self.conns.note(Note::Dropped { on: relay, from, upstream, why: refused.why });
                self.send_reply(relay, refused, false, Form::Json, now);
                // A service must not take a part of a request for the whole.
                let hidden = if in_request { Close::Truncate } else { Close::Linger };
                Over { hidden, client: Close::Linger, why: Why::Done }
            }
            _ if follower.is_over() => Over { hidden: Close::Linger, client: Close::Linger, why: Why::Done },
            _ => return,
        };
        let ended: Option<Ended> = self.conns.end_pair(relay, over, now);
        self.pair_over(ended, now);
    }
}

/// What is known of the exchanges of the client on `relay`; `None` where no fields are written.
impl Agent {
    /// Whether the requests of this client are forwarded one by one, and all of them are answered completely.
    pub(super) fn is_answered(&mut self, relay: ConnId) -> bool {
        match self.conns.any_state(relay).map(|conn| &conn.state) {
            Some(State::Paired(Some(forwarding))) => forwarding.follower.is_complete(),
            _ => false,
        }
    }
}

fn forwarding(agent: &mut Agent, relay: ConnId) -> Option<&mut Forwarding> {
    match conn_state(&mut agent.conns, relay) {
        Some(State::Paired(Some(forwarding))) => Some(forwarding),
        _ => None,
    }
}
