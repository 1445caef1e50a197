//! A client came: which local service it is for, the way there, and the pair.

use alloc::vec::Vec;

use super::{Agent, Asked, Conn, State, conn_state};
use crate::conns::Ended;
use crate::http::head::{self, Body, Finder, Found};
use crate::http::reply::{Reply, SWITCHING, Status};
use crate::machine::{Close, ConnId, DialFailure, Output};
use crate::note::{Note, Target};
use crate::pair::Side;
use crate::reach::Reach;
use crate::time::Now;

impl Agent {
    /// The first octets of a client. The next connection is opened at once.
    pub(super) fn taken(&mut self, on: ConnId, bytes: &[u8], now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        self.link(upstream).prove(now);
        if self.upstream(upstream).stream.is_some() {
            self.enter(on, State::Head(Finder::default()), Some(now.mono + self.config.head_timeout));
        } else {
            self.meet(on, Asked::http(bytes), now);
        }
        if self.config.once {
            self.handle_drain(now);
        } else {
            self.fill(upstream, now);
        }
    }

    /// Looks at the head of a client's request; how many octets it consumed. Only a connector's request is answered
    /// here. Whatever else is in it, even nonsense, is for the HTTP service to judge, untouched.
    pub(super) fn read_head(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let limits = self.config.head;
        let Some(State::Head(finder)) = conn_state(&mut self.conns, on) else { return 0 };
        match finder.find(bytes, &limits) {
            Found::Partial => 0,
            Found::Complete(len) if asks_for_stream(&bytes[..len]) => {
                self.meet(on, Asked::Stream { parked: bytes.len() > len }, now);
                len
            }
            Found::Complete(_) | Found::Refused(_) => {
                self.meet(on, Asked::http(bytes), now);
                0
            }
        }
    }

    /// Connects to a local service; not before now, since services drop idle connections.
    pub(super) fn meet(&mut self, on: ConnId, asked: Asked, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        let services = self.upstream(upstream);
        let stream = services.stream.as_ref().filter(|_| asked.is_stream());
        let Some(place) = stream.or(services.service.as_ref()).cloned() else {
            const WHY: &str = "the hidden server has no HTTP service";
            self.conns.note(Note::Dropped { on, from: None, why: WHY });
            return self.refuse(on, WHY, asked, now);
        };
        self.conns.say(Output::Read { on, wanted: false });
        let local = self.conns.insert(Conn { upstream, state: State::Over }, None);
        let (reach, output) = Reach::begin(local, &place, None);
        let due = Some(now.mono + self.config.local_dial);
        self.enter(local, State::Local { relay: on, asked, reach }, due);
        self.enter(on, State::Meeting { local }, None);
        self.conns.say(output);
    }

    /// The local service is there: the two meet. Octets of the client that are parked go first.
    pub(super) fn pair(&mut self, local: ConnId, now: Now) {
        let Some((upstream, relay, asked)) = self.local(local) else { return };
        if asked.is_stream() {
            self.conns.send(relay, SWITCHING.to_vec());
        }
        self.conns.say(Output::UserTimeout { on: relay, after: None });
        self.conns.say(Output::Read { on: relay, wanted: true });
        self.enter(local, State::Paired, None);
        self.enter(relay, State::Paired, None);
        let head_queued = asked != Asked::Stream { parked: false } && self.conns.has_ended(relay);
        self.conns.pair(local, relay, head_queued, now);
        self.conns.note(Note::Served { relay, local, upstream, stream: asked.is_stream() });
    }

    /// The local service can't be reached at any address: the client is told.
    pub(super) fn no_service(&mut self, local: ConnId, why: DialFailure, now: Now) {
        let Some((upstream, relay, asked)) = self.local(local) else { return };
        self.close(local, Close::Abort, now);
        let what = if asked.is_stream() { Target::Stream(upstream) } else { Target::Service(upstream) };
        self.conns.note(Note::DialFailed { on: local, what, why, again: None });
        self.refuse(relay, "the hidden server's local service cannot be reached", asked, now);
    }

    /// Answers a client that there is nobody to answer it.
    fn refuse(&mut self, relay: ConnId, diagnostic: &'static str, asked: Asked, now: Now) {
        let Some(upstream) = self.conns.state(relay).map(|conn| conn.upstream) else { return };
        let reply = Reply {
            status: Status::BadGateway502,
            diagnostic,
            permanent: false,
            retry_after: None,
            close: true,
            head_request: asked == Asked::Http { is_head: true },
            challenge: None,
        };
        let mut text = Vec::new();
        reply.write(self.link(upstream).wall(now), &mut text);
        self.conns.send(relay, text);
        self.close(relay, Close::Linger, now);
    }

    /// The client went away before it met the local service.
    pub(super) fn client_gone(&mut self, on: ConnId, how: Close, now: Now) {
        let local = match conn_state(&mut self.conns, on) {
            Some(&mut State::Meeting { local }) => Some(local),
            _ => None,
        };
        self.conns.note(Note::Dropped { on, from: None, why: "the client went away before it was served" });
        self.close(on, how, now);
        if let Some(local) = local {
            self.close(local, Close::Abort, now);
        }
    }

    fn local(&mut self, local: ConnId) -> Option<(u16, ConnId, Asked)> {
        match self.conns.state(local)? {
            &mut Conn { upstream, state: State::Local { relay, asked, .. } } => {
                Some((upstream, relay, asked))
            }
            _ => None,
        }
    }

    pub(super) fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { hidden, client, pair, over }) = ended else { return };
        let Some(&mut Conn { upstream, .. }) = self.conns.any_state(hidden) else { return };
        self.conns.note(Note::PairEnded {
            hidden,
            client,
            id: self.upstream(upstream).id,
            from_client: pair.octets_from(Side::Client),
            from_hidden: pair.octets_from(Side::Hidden),
            after: now.mono.since(pair.began()),
            why: over.why,
        });
    }
}

impl Asked {
    fn http(bytes: &[u8]) -> Self {
        Self::Http { is_head: bytes.starts_with(b"HEAD ") }
    }

    const fn is_stream(self) -> bool {
        matches!(self, Self::Stream { .. })
    }
}

/// Whether this head is a connector's. With a body, what is behind the head would not be the stream.
fn asks_for_stream(octets: &[u8]) -> bool {
    let Ok(head) = head::parse(octets) else { return false };
    let offers = head.upgrade.unwrap_or_default();
    head.body == Body::None && offers.split(',').any(|it| it.trim().eq_ignore_ascii_case("octet-stream"))
}
