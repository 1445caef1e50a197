//! A connector that uses TLS with the agent inside the stream: nothing that the relay sends outside of that TLS
//! begins the stream, or takes part in the negotiation of a direct connection.

use rendezvous_core::acl::Policy;
use rendezvous_core::connector::{Config, Connector, Outcome, Sealing};
use rendezvous_core::dtcp::{Direct, Fingerprint};
use rendezvous_core::event::{ConnectFailure, Event, NotDirect};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{Close, ConnId, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole};
use rendezvous_core::relay_client::Relay;
use rendezvous_core::time::Span;

#[path = "common/harness.rs"]
mod harness;

use harness::{Done, Harness, address, asked, dials, events, sent};

const SEALED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream+tls\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";
const OUTSIDE: &str = "GET / HTTP/1.1\r\nHost: relay\r\n\
    Authorization: Basic MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDA3Og==\r\n\
    Connection: Upgrade\r\nUpgrade: octet-stream+tls\r\n\r\n";

/// The offer of an endpoint at 10.0.0.`host`.
fn with_offer(head: &str, host: u8) -> String {
    let fingerprint = format!("{host:02x}").repeat(32);
    let fields = format!(
        "DTCP-Key: theirs\r\nDTCP-Host: 10.0.0.{host}:7000\r\nDTCP-Fingerprint: {fingerprint}\r\n\r\n"
    );
    format!("{}{fields}", &head[..head.len() - 2])
}

fn connector(tls: bool, has_direct: bool) -> Harness<Connector> {
    let relay = Relay { place: address(1, 443).into(), tls, host_header: "relay".into() };
    let direct = has_direct.then(|| Direct {
        hosts: vec![address(3, 7_000).into()],
        listener: Some(Listener(1)),
        fingerprint: Fingerprint([1; 32]),
        policy: Policy { private: true, ..Policy::default() },
        timeout: Direct::TRIED,
    });
    let config = Config { direct, sealing: Sealing::EndToEnd, ..Config::new(relay, Id(7)) };
    Harness::new(Connector::with_direct(config, [5; 32]))
}

/// A local connection, and the one to the relay, on which the request was sent.
fn asking(harness: &mut Harness<Connector>, tls: bool) -> (ConnId, ConnId) {
    let local = harness.call(|connector, now| connector.handle_open(Listener(0), address(9, 9), now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Read { on: local, wanted: false }));
    let (on, _) = dials(&actions)[0];
    harness.call(|connector, now| connector.handle_connected(on, now));
    if tls {
        assert!(asked(&harness.actions(), Output::StartTls { on, role: TlsRole::Client { upstream: 0 } }));
        harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
    }
    assert_eq!(
        sent(&harness.actions(), on),
        OUTSIDE,
        "nothing of a direct connection is in sight of the relay"
    );
    (local, on)
}

/// The same, and TLS with the agent has begun.
fn sealing(harness: &mut Harness<Connector>) -> (ConnId, ConnId) {
    let (local, on) = asking(harness, true);
    assert_eq!(harness.receive(on, SEALED.as_bytes()), SEALED.len());
    assert_eq!(
        harness.actions(),
        [Done::Asked(Output::StartTls { on, role: TlsRole::Client { upstream: 1 } })]
    );
    (local, on)
}

/// The same, and the request was sent to the agent.
fn inside(harness: &mut Harness<Connector>) -> (ConnId, ConnId) {
    let (local, on) = sealing(harness);
    harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
    harness.actions();
    (local, on)
}

fn assert_failed(harness: &mut Harness<Connector>, local: ConnId, why: ConnectFailure) {
    let actions = harness.actions();
    assert!(events(&actions).contains(&Event::ConnectFailed { local, why }), "{actions:?}");
    assert!(asked(&actions, Output::Close { on: local, how: Close::Truncate }), "no clean end");
    assert!(!asked(&actions, Output::Read { on: local, wanted: true }), "the local side was read");
    assert!(
        !actions.iter().any(|did| matches!(did, Done::Sent(..) | Done::Asked(Output::Dial { .. }))),
        "{actions:?}"
    );
    assert_eq!(harness.machine.last(), Some(Outcome::Failed(why)));
    assert_eq!((harness.machine.failed(), harness.machine.connections()), (1, 0));
}

#[test]
fn the_stream_begins_with_the_agent_s_answer_inside_of_its_tls() {
    for tls in [true, false] {
        let mut harness = connector(tls, false);
        let (local, on) = asking(&mut harness, tls);
        assert_eq!(harness.receive(on, SEALED.as_bytes()), SEALED.len());
        assert_eq!(
            harness.actions(),
            [Done::Asked(Output::StartTls { on, role: TlsRole::Client { upstream: 1 } })]
        );
        harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
        let request = OUTSIDE.replace("octet-stream+tls", "octet-stream");
        assert_eq!(sent(&harness.actions(), on), request);
        let stream = [SWITCHING, "SSH-2.0-x\r\n"].concat();
        assert_eq!(harness.receive(on, stream.as_bytes()), SWITCHING.len());
        let actions = harness.actions();
        assert!(asked(&actions, Output::Read { on: local, wanted: true }));
        assert!(asked(&actions, Output::Pair { hidden: on, client: local }));
    }
}

#[test]
fn both_answers_come_in_any_pieces() {
    let mut harness = connector(true, false);
    let (local, on) = asking(&mut harness, true);
    let piecemeal = |harness: &mut Harness<Connector>, head: &str| {
        for end in 1..head.len() {
            assert_eq!(harness.receive(on, &head.as_bytes()[..end]), 0);
        }
        assert_eq!(harness.receive(on, head.as_bytes()), head.len());
    };
    piecemeal(&mut harness, SEALED);
    harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    assert_eq!(harness.receive(on, interim.as_bytes()), interim.len());
    piecemeal(&mut harness, SWITCHING);
    assert!(asked(&harness.actions(), Output::Pair { hidden: on, client: local }));
}

/// A relay that removes the upgrade can offer a direct connection of its own. It is ignored.
#[test]
fn a_101_without_tls_begins_no_stream() {
    let websocket = SEALED.replace("octet-stream+tls", "websocket");
    for answer in [SWITCHING, &with_offer(SWITCHING, 6), &websocket, &SEALED.replace("Connection", "X")] {
        let mut harness = connector(true, true);
        let (local, on) = asking(&mut harness, true);
        assert_eq!(harness.receive(on, answer.as_bytes()), answer.len());
        assert_failed(&mut harness, local, ConnectFailure::NotSealed(101));
    }
}

#[test]
fn an_answer_of_something_that_knows_no_sealed_streams_says_so() {
    let unknown = [200, 301, 400, 401, 403, 404, 426, 500, 502].map(|status| (status, true));
    let usual = [421, 503].map(|status| (status, false));
    for (status, is_unknown) in unknown.into_iter().chain(usual) {
        let mut harness = connector(true, false);
        let (local, on) = asking(&mut harness, true);
        let _ = harness.receive(on, format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes());
        let why =
            if is_unknown { ConnectFailure::NotSealed(status) } else { ConnectFailure::Refused(status) };
        assert_failed(&mut harness, local, why);
    }
    let mut harness = connector(true, false);
    let (local, on) = asking(&mut harness, true);
    let _ = harness.receive(on, b"HTTP/1.1 503 X\r\nHidden-Server: offline\r\n\r\n");
    assert_failed(&mut harness, local, ConnectFailure::Offline);
}

/// The relay can write what the agent would send inside: it belongs to the handshake.
#[test]
fn what_follows_the_101_is_left_to_the_handshake() {
    let answer = [SEALED, &with_offer(SWITCHING, 6)].concat();
    let mut harness = connector(true, true);
    let (local, on) = asking(&mut harness, true);
    assert_eq!(harness.receive(on, answer.as_bytes()), SEALED.len());
    assert_eq!(
        harness.actions(),
        [Done::Asked(Output::StartTls { on, role: TlsRole::Client { upstream: 1 } })]
    );
    assert_eq!(harness.receive(on, SWITCHING.as_bytes()), 0);
    assert_eq!((harness.actions(), harness.machine.pairs()), (Vec::new(), 0));
    harness.call(|connector, now| connector.handle_tls_failed(on, TlsFailure::Protocol, now));
    assert_failed(&mut harness, local, ConnectFailure::EndToEnd(TlsFailure::Protocol));
}

#[test]
fn a_key_that_is_not_pinned_gets_no_request() {
    for why in [TlsFailure::Certificate, TlsFailure::Alpn, TlsFailure::Ended] {
        let mut harness = connector(true, true);
        let (local, on) = sealing(&mut harness);
        harness.call(|connector, now| connector.handle_tls_failed(on, why, now));
        assert_failed(&mut harness, local, ConnectFailure::EndToEnd(why));
    }
    let mut harness = connector(true, true);
    let (local, on) = sealing(&mut harness);
    harness.call(|connector, now| connector.handle_end(on, End::Clean, now));
    assert_failed(&mut harness, local, ConnectFailure::EndToEnd(TlsFailure::Ended));
}

/// In TLS 1.3 the client's handshake completes before the agent has checked its key.
#[test]
fn an_end_in_front_of_the_agent_s_answer_says_that_the_key_may_not_be_allowed() {
    for how in [End::Clean, End::Truncated, End::Reset] {
        let mut harness = connector(true, false);
        let (local, on) = inside(&mut harness);
        harness.call(|connector, now| connector.handle_write_failed(on, now));
        assert_eq!(harness.machine.last(), None);
        harness.call(|connector, now| connector.handle_end(on, how, now));
        assert_failed(&mut harness, local, ConnectFailure::NotAllowed(how));
    }
}

#[test]
fn the_agent_s_other_answers_are_the_errors_that_they_are() {
    let answers: [(&[u8], _); 4] = [
        (b"HTTP/1.1 502 X\r\n\r\n", ConnectFailure::Refused(502)),
        (b"HTTP/1.1 404 X\r\n\r\n", ConnectFailure::Refused(404)),
        (SEALED.as_bytes(), ConnectFailure::Refused(101)),
        (b"SSH-2.0-x\r\n", ConnectFailure::NotHttp),
    ];
    for (answer, why) in answers {
        let mut harness = connector(true, false);
        let (local, on) = inside(&mut harness);
        let _ = harness.receive(on, answer);
        assert_failed(&mut harness, local, why);
    }
    let mut harness = connector(true, false);
    let (local, on) = inside(&mut harness);
    assert_eq!(harness.receive(on, b"HTTP/1.1 404 X\r\nConte"), 0);
    harness.call(|connector, now| connector.handle_end(on, End::Clean, now));
    assert_failed(&mut harness, local, ConnectFailure::Refused(404));
}

#[test]
fn each_step_has_its_deadline() {
    let mut harness = connector(true, true);
    let (local, _) = sealing(&mut harness);
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(10));
    assert_failed(&mut harness, local, ConnectFailure::TimedOut);

    let mut harness = connector(true, true);
    let (local, _) = inside(&mut harness);
    harness.wait(Span::from_secs(30));
    assert_failed(&mut harness, local, ConnectFailure::TimedOut);
}

#[test]
fn a_local_side_that_goes_away_takes_the_other_one_along() {
    for enter in [sealing, inside] {
        let mut harness = connector(true, true);
        let (local, on) = enter(&mut harness);
        harness.call(|connector, now| connector.handle_end(local, End::Reset, now));
        assert!(asked(&harness.actions(), Output::Close { on, how: Close::Abort }));
        assert_eq!(harness.machine.last(), Some(Outcome::Abandoned));
        assert_eq!(harness.machine.connections(), 0);
    }
}

/// The relay's own fingerprint and address are in its 101, the agent's are inside: the agent's count.
#[test]
fn a_direct_connection_is_agreed_on_inside_alone() {
    let mut harness = connector(true, true);
    let (local, on) = asking(&mut harness, true);
    let outside = with_offer(SEALED, 6);
    assert_eq!(harness.receive(on, outside.as_bytes()), outside.len());
    assert_eq!(
        harness.actions(),
        [Done::Asked(Output::StartTls { on, role: TlsRole::Client { upstream: 1 } })]
    );
    harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
    let request = sent(&harness.actions(), on);
    assert!(
        request.contains("\r\nUpgrade: octet-stream\r\n") && request.contains("\r\nDTCP-Key: "),
        "{request}"
    );
    let answer = with_offer(SWITCHING, 2);
    assert_eq!(harness.receive(on, answer.as_bytes()), answer.len());
    let [(link, to)] = dials(&harness.actions())[..] else { panic!("one dial") };
    assert_eq!(to, address(2, 7_000), "the agent's address, not the relay's");
    harness.call(|connector, now| connector.handle_connected(link, now));
    assert_eq!(sent(&harness.actions(), link), "starttls\n");
    assert_eq!(harness.receive(link, b"ok\n"), 3);
    let actions = harness.actions();
    assert!(asked(&actions, Output::StartTls { on: link, role: TlsRole::DirectClient }), "{actions:?}");
    // The peer there has the certificate that the relay would have announced.
    let relay = Secured { certificate: Some(Fingerprint([6; 32])), ..Secured::default() };
    harness.call(|connector, now| connector.handle_secured(link, relay, now));
    let actions = harness.actions();
    assert_eq!(sent(&actions, link), "", "it is shown no key");
    assert!(
        actions.iter().any(|did| matches!(did, Done::Asked(Output::Close { on, .. }) if *on == link)),
        "{actions:?}"
    );
    assert!(!asked(&actions, Output::Pair { hidden: link, client: local }));
}

#[test]
fn without_an_offer_inside_the_stream_goes_through_the_relay() {
    let mut harness = connector(true, true);
    let (local, on) = inside(&mut harness);
    assert_eq!(harness.receive(on, SWITCHING.as_bytes()), SWITCHING.len());
    let actions = harness.actions();
    assert!(asked(&actions, Output::Pair { hidden: on, client: local }));
    let why = NotDirect::Unsupported;
    assert!(events(&actions).contains(&Event::Relayed { relay: on, local, upstream: 0, why }));
}
