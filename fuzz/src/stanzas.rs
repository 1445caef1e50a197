//! The stream proxy's stanzas: XML to values and back, and two machines that receive them.

use std::net::SocketAddr;

use rendezvous_core::bytestream::entity::{self, Entity};
use rendezvous_core::bytestream::proxy::{self, Proxy};
use rendezvous_core::bytestream::stanza::{Query, Stanza};
use rendezvous_core::bytestream::xmpp::{NAMESPACE, read, write};
use rendezvous_core::component_host::IqHandler;
use rendezvous_core::machine::{Listener, Machine, Output};
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::xmpp::iq::{Iq, Kind};
use rendezvous_core::xmpp::jid::Jid;
use rendezvous_core::xmpp::stream::{Part, Stream};

const HEADER: &[u8] = b"<stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' id='1' from='p.org'>";
const PROXY: &str = "p.org";
const ENTITY: &str = "e@p.org/x";

/// The bytes are what a server sends after its header.
pub(crate) fn run(bytes: &[u8]) {
    let now = Now { mono: Time(1), wall: 1 };
    let (mut proxy, mut entity) = (proxy(now), entity(now));
    for iq in iqs(bytes) {
        if let Some(stanza) = read(&iq, NAMESPACE) {
            check_again(&stanza);
        }
        deliver(&mut proxy, &iq, now);
        deliver(&mut entity, &iq, now);
    }
    let later = Now { mono: now.mono + Span::from_secs(120), wall: 121 };
    settle(&mut proxy, later);
    settle(&mut entity, later);
    assert_eq!(proxy.claimed(), 0, "a claim for ever");
    assert_eq!(entity.sessions(), 0, "a session for ever");
}

fn iqs(bytes: &[u8]) -> Vec<Iq> {
    let mut stream = Stream::new();
    let text = [HEADER, bytes].concat();
    let mut rest = &text[..];
    let mut iqs = Vec::new();
    while let Ok(Some(part)) = stream.read(&mut rest) {
        match part {
            Part::Stanza(stanza) => iqs.extend(Iq::read(&stanza)),
            Part::Header(_) | Part::Excess(_) => {}
            Part::End => break,
        }
    }
    iqs
}

/// What was parsed and written parses to the same.
fn check_again(stanza: &Stanza) {
    let query = match stanza.query.clone() {
        Query::Offer { sid, connections, malformed: _ } => Query::Offer { sid, connections, malformed: 0 },
        // A claim without an endpoint cannot be written.
        Query::Claim { endpoint: None, .. } => return,
        query => query,
    };
    let stanza = Stanza { query, ..stanza.clone() };
    let written = write(&stanza, &jid(PROXY), NAMESPACE);
    let mut text = Vec::new();
    // As the peer would have sent it.
    Iq { from: written.to, to: written.from, ..written }.write(&mut text);
    let again = iqs(&text);
    assert_eq!(again.len(), 1, "one stanza: {}", String::from_utf8_lossy(&text));
    assert_eq!(read(&again[0], NAMESPACE), Some(stanza));
}

fn deliver<M: IqHandler>(machine: &mut M, iq: &Iq, now: Now) {
    machine.handle_iq(iq.clone(), now);
    let sent = settle(machine, now);
    assert!(sent.len() <= 2, "an IQ has an answer or two: {sent:?}");
    if !iq.is_request() {
        let answers = sent.iter().filter(|it| !it.is_request() && it.to == iq.from && it.id == iq.id);
        assert_eq!(answers.count(), 0, "an answer was answered");
    }
}

fn settle<M: IqHandler>(machine: &mut M, now: Now) -> Vec<Iq> {
    machine.handle_timeout(now);
    let mut text = Vec::new();
    loop {
        match machine.poll_output(&mut text) {
            Output::Idle { .. } => break,
            // All dials fail.
            Output::Dial { on, .. } => {
                machine.handle_dial_failed(on, rendezvous_core::machine::DialFailure::Refused, now);
            }
            Output::Close { on, .. } => machine.handle_closed(on, now),
            _ => {}
        }
    }
    let sent: Vec<Iq> = std::iter::from_fn(|| machine.poll_iq()).collect();
    let mut requests = sent.iter().filter(|iq| iq.is_request());
    assert!(requests.all(|iq| iq.id.is_some()), "a request without an id");
    assert!(sent.iter().all(|iq| !matches!(iq.kind, Kind::Get)), "nobody asks for anything");
    sent
}

fn proxy(now: Now) -> Proxy {
    let mut config = proxy::Config::new(jid(PROXY));
    config.rules.listeners = vec![address("10.0.0.1:4000")];
    let mut proxy = Proxy::new(config);
    for port in 1_000..1_004 {
        proxy.handle_open(Listener(0), SocketAddr::new(address("10.0.0.2:1").ip(), port), now);
    }
    settle(&mut proxy, now);
    proxy
}

fn entity(now: Now) -> Entity {
    let mut config = entity::Config::new(jid(ENTITY));
    config.service = Some(address("10.0.0.3:22"));
    let mut entity = Entity::new(config, [7; 32]);
    settle(&mut entity, now);
    entity
}

fn jid(text: &str) -> Jid {
    Jid::parse(text).expect("a JID")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
