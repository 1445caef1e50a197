//! The stream proxy of December 2002, one behaviour a test; the modules are the state tables of XMPP.md §6, and what
//! lies between them.

mod claims;
mod ends;
mod initiator;
mod iqs;
mod limits;
mod matching;
mod meaning;
mod proxy;
mod random;
mod target;
mod together;
mod world;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/rig.rs"]
mod rig;

use std::net::SocketAddr;

use rendezvous_core::bytestream::name::{IqId, Jid, StreamId};
use rendezvous_core::bytestream::proxy::{Config, Proxy, Report};
use rendezvous_core::bytestream::stanza::{Condition, Query, Stanza};
use rendezvous_core::machine::{Close, ConnId, Listener, Machine, Output};

use rig::{Did, Rig, asked};

const TARGET: &str = "target@example.org/home";
const INITIATOR: &str = "initiator@example.net/work";
const THIRD: &str = "third@example.com/x";

fn jid(text: &str) -> Jid {
    Jid::new(text).expect("a JID")
}

fn sid(text: &str) -> StreamId {
    StreamId::new(text).expect("a stream id")
}

fn iq(text: &str) -> IqId {
    IqId::new(text).expect("an id")
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn stanza(peer: &str, id: &str, query: Query) -> Stanza {
    Stanza { peer: jid(peer), id: iq(id), query }
}

fn claim(stream: &str, endpoint: &str) -> Query {
    Query::Claim { sid: Some(sid(stream)), endpoint: Some(at(endpoint)) }
}

fn error(peer: &str, id: &str, condition: Condition) -> Stanza {
    stanza(peer, id, Query::Error(condition))
}

fn clear(peer: &str, id: &str) -> Stanza {
    stanza(peer, id, Query::CLEAR)
}

/// The proxy listens on 10.0.0.1:4000.
fn config() -> Config {
    let mut config = Config::new(jid(ends::PROXY));
    config.rules.listeners = vec![at("10.0.0.1:4000")];
    config
}

fn proxy() -> Rig<Proxy> {
    Rig::new(Proxy::new(config()))
}

fn proxy_with(change: impl FnOnce(&mut Config)) -> Rig<Proxy> {
    let mut config = config();
    change(&mut config);
    Rig::new(Proxy::new(config))
}

impl Rig<Proxy> {
    fn accept(&mut self, from: &str) -> ConnId {
        self.tell(|proxy, now| proxy.handle_open(Listener(0), at(from), now))
    }

    fn hear(&mut self, stanza: Stanza) {
        self.tell(|proxy, now| proxy.handle_stanza(stanza, now));
    }

    /// What the proxy says since the last call.
    fn said(&mut self) -> Vec<Stanza> {
        std::iter::from_fn(|| self.machine.poll_stanza()).collect()
    }

    fn reports(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.machine.poll_report()).collect()
    }

    /// A claim from this JID, with this id, on the stream `s`.
    fn claims(&mut self, who: &str, id: &str, endpoint: &str) {
        self.hear(stanza(who, id, claim("s", endpoint)));
    }

    /// The target's socket, claimed.
    fn claimed(&mut self) -> ConnId {
        let on = self.accept("10.0.0.2:1001");
        self.claims(TARGET, "t", "10.0.0.1:1001");
        assert_eq!(self.machine.claimed(), 1);
        on
    }

    /// Both sockets, joined and told.
    fn paired(&mut self) -> (ConnId, ConnId) {
        let first = self.claimed();
        let second = self.accept("10.0.0.3:1002");
        self.claims(INITIATOR, "i", "10.0.0.1:1002");
        assert_eq!(self.said(), [clear(TARGET, "t"), clear(INITIATOR, "i")]);
        assert_eq!(self.machine.pairs(), 1);
        self.news();
        self.reports();
        (first, second)
    }

    #[track_caller]
    fn assert_closed(&mut self, on: ConnId, how: Close) {
        let news = self.news();
        assert!(asked(&news, Output::Close { on, how }), "{news:?}");
    }

    #[track_caller]
    fn assert_not_closed(&mut self) {
        let news = self.news();
        assert!(!news.iter().any(|did| matches!(did, Did::Asked(Output::Close { .. }))), "{news:?}");
    }
}
