//! One entity; the test plays its peers.

use rendezvous_core::bytestream::entity::{Config, Entity};
use rendezvous_core::bytestream::name::{IqId, StreamId};
use rendezvous_core::bytestream::role::StreamFailure;
use rendezvous_core::bytestream::stanza::{Connection, Query, Stanza};
use rendezvous_core::event::{Event, StreamEvent};
use rendezvous_core::machine::{ConnId, DialFailure, Listener, Machine, Output};
use rendezvous_core::time::Span;

use crate::harness::{Done, Harness, dials};
use crate::{at, jid, sid, stanza};

pub(crate) const ME: &str = "me@example.org/here";
pub(crate) const PEER: &str = "peer@example.net/there";
pub(crate) const PROXY: &str = "proxy.example.com";
pub(crate) const SERVICE: &str = "10.0.0.1:22";

pub(crate) fn connection(who: &str, to: &str) -> Connection {
    Connection { jid: jid(who), to: at(to) }
}

/// It listens on 10.0.0.1:5000, offers that and a proxy with two addresses, connects streams to its service, and
/// dials private addresses.
pub(crate) fn config() -> Config {
    let mut config = Config::new(jid(ME));
    config.rules.listeners = vec![at("10.0.0.1:5000")];
    config.connections = vec![
        connection(ME, "10.0.0.1:5000"),
        connection(PROXY, "10.0.0.9:4000"),
        connection(PROXY, "10.0.1.9:4000"),
    ];
    config.service = Some(at(SERVICE));
    config.dial.private = true;
    config.timeouts.concealed = None;
    config
}

pub(crate) fn entity_with(change: impl FnOnce(&mut Config)) -> Harness<Entity> {
    let mut config = config();
    change(&mut config);
    Harness::new(Entity::new(config, [5; 32]))
}

pub(crate) fn entity() -> Harness<Entity> {
    entity_with(|_| ())
}

/// The contents of an offer.
pub(crate) struct Offer {
    pub(crate) id: IqId,
    pub(crate) sid: StreamId,
    pub(crate) connections: Vec<Connection>,
}

impl Harness<Entity> {
    pub(crate) fn stanzas(&mut self) -> Vec<Stanza> {
        std::iter::from_fn(|| self.machine.poll_stanza()).collect()
    }

    #[track_caller]
    pub(crate) fn one_stanza(&mut self) -> Stanza {
        let mut stanzas = self.stanzas();
        assert_eq!(stanzas.len(), 1, "{stanzas:?}");
        stanzas.remove(0)
    }

    /// The events, except for the dials.
    pub(crate) fn events(&mut self) -> Vec<StreamEvent> {
        let events = std::mem::take(&mut self.xmpp_events).into_iter();
        events
            .filter_map(|event| match event {
                Event::Stream(StreamEvent::Dialled { .. }) => None,
                Event::Stream(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn deliver(&mut self, stanza: Stanza) {
        self.call(|entity, now| entity.handle_stanza(stanza, now));
    }

    pub(crate) fn accept(&mut self, from: &str) -> ConnId {
        self.call(|entity, now| entity.handle_open(Listener(0), at(from), now))
    }

    pub(crate) fn local(&mut self) -> ConnId {
        self.call(|entity, now| entity.handle_open(Listener(1), at("127.0.0.1:9"), now))
    }

    #[track_caller]
    pub(crate) fn one_dial(&mut self) -> (ConnId, String) {
        let dials = dials(&self.actions());
        assert_eq!(dials.len(), 1, "{dials:?}");
        (dials[0].0, dials[0].1.to_string())
    }

    /// The connection is up, from this local address.
    pub(crate) fn connected(&mut self, on: ConnId, local: &str) {
        self.call(|entity, now| entity.handle_connected(on, now));
        self.call(|entity, now| entity.handle_local_address(on, at(local), now));
    }

    pub(crate) fn refused(&mut self, on: ConnId) {
        self.call(|entity, now| entity.handle_dial_failed(on, DialFailure::Refused, now));
    }

    /// PF1: the offer that a stream begins with.
    pub(crate) fn begin(&mut self) -> Offer {
        self.call(|entity, now| entity.handle_begin(jid(PEER), None, now));
        self.offer()
    }

    #[track_caller]
    pub(crate) fn offer(&mut self) -> Offer {
        let Stanza { peer, id, query } = self.one_stanza();
        assert_eq!(peer, jid(PEER));
        let Query::Offer { sid: Some(sid), connections, malformed: 0 } = query else { panic!("{query:?}") };
        Offer { id, sid, connections }
    }

    /// The peer's answer to an offer.
    pub(crate) fn answers(&mut self, offer: &Offer, query: Query) {
        self.deliver(Stanza { peer: jid(PEER), id: offer.id.clone(), query });
    }

    /// PF5.
    pub(crate) fn is_used(&mut self, offer: &Offer, who: &str) {
        let connection = Some(jid(who));
        self.answers(offer, Query::Result { sid: Some(offer.sid.clone()), connection });
    }

    /// PF4.
    pub(crate) fn is_claimed(&mut self, offer: &Offer, endpoint: &str) {
        let query = Query::Claim { sid: Some(offer.sid.clone()), endpoint: Some(at(endpoint)) };
        self.deliver(stanza(PEER, "pf4", query));
    }

    /// PF2 of the peer, with the id `pf2`.
    pub(crate) fn is_offered(&mut self, stream: &str, connections: Vec<Connection>) {
        let query = Query::Offer { sid: Some(sid(stream)), connections, malformed: 0 };
        self.deliver(stanza(PEER, "pf2", query));
    }

    #[track_caller]
    pub(crate) fn assert_failed(&mut self, why: StreamFailure) {
        assert_eq!(self.events(), [StreamEvent::Failed { peer: jid(PEER), why }]);
        assert_eq!((self.machine.sessions(), self.machine.connections()), (0, 0));
        // A stale deadline may wake it once more.
        self.wait(Span::from_secs(60));
        assert_eq!((self.idle, self.events()), (None, vec![]), "nothing is waited for any more");
    }

    #[track_caller]
    pub(crate) fn assert_clear(&mut self, on: ConnId) {
        assert_eq!(self.events(), [StreamEvent::Clear { peer: jid(PEER), on }]);
        assert_eq!(self.machine.sessions(), 0);
    }

    #[track_caller]
    pub(crate) fn assert_waits(&mut self) {
        assert_eq!((self.events(), self.machine.sessions()), (vec![], 1));
    }

    /// Whether the news contain this.
    pub(crate) fn asked(&mut self, output: Output) -> bool {
        self.actions().contains(&Done::Asked(output))
    }
}

/// This many seconds, less one microsecond.
pub(crate) fn just_under(secs: u64) -> Span {
    Span(Span::from_secs(secs).0 - 1)
}
