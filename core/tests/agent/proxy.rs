//! The relay reports each client's address, and the agent passes it to the local service.

use rendezvous_core::proxy_header::{Version, write};

use super::*;

const CLIENT: &str = "198.51.100.7:40000";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn sending(version: Version) -> Harness<Agent> {
    agent_with(|config| config.send_proxy = Some(version))
}

fn with_stream(version: Version) -> Harness<Agent> {
    agent_with(|config| {
        config.send_proxy = Some(version);
        config.upstreams[0].stream = Some(ssh().into());
    })
}

fn header(version: Version, source: Option<&str>) -> Vec<u8> {
    let mut header = Vec::new();
    write(version, source.map(|it| it.parse().unwrap()), &mut header);
    header
}

/// Hands over bytes, of which the agent consumes `used`. Returns the local service, once it is reached.
fn offer(harness: &mut Harness<Agent>, on: ConnId, bytes: &[u8], used: usize) -> (ConnId, SocketAddr) {
    harness.actions();
    assert_eq!(harness.receive(on, bytes), used);
    reached(harness)
}

fn reached(harness: &mut Harness<Agent>) -> (ConnId, SocketAddr) {
    let found =
        dials(&harness.actions()).into_iter().find(|(_, to)| *to != relay()).expect("no service dialled");
    harness.call(|agent, now| agent.handle_connected(found.0, now));
    found
}

/// What the local service receives before it is paired; nothing is sent after the pair.
fn before_the_pair(actions: &[Done], local: ConnId) -> Vec<u8> {
    let is_pair = |did: &Done| matches!(did, Done::Asked(Output::Pair { hidden, .. }) if *hidden == local);
    let pair = actions.iter().position(is_pair).unwrap_or_else(|| panic!("no pair: {actions:?}"));
    let got = |actions: &[Done]| {
        let texts = actions.iter().filter_map(|did| match did {
            Done::Sent(to, text) if *to == local => Some(text.clone()),
            _ => None,
        });
        texts.collect::<Vec<_>>().concat()
    };
    assert!(got(&actions[pair..]).is_empty());
    got(&actions[..pair])
}

#[test]
fn it_asks_in_its_connect_and_not_otherwise() {
    for (mut harness, asks) in [(sending(Version::V1), true), (sending(Version::V2), true), (agent(), false)]
    {
        let (on, _) = one(&harness.actions());
        harness.call(|agent, now| agent.handle_connected(on, now));
        let text = sent(&harness.actions(), on);
        let asking = " HTTP/1.1\r\nHost: relay\r\nRendezvous-Challenge: next\r\nPROXY-Protocol: v2\r\n\r\n";
        let end =
            if asks { asking } else { " HTTP/1.1\r\nHost: relay\r\nRendezvous-Challenge: next\r\n\r\n" };
        assert!(text.ends_with(end), "{text}");
    }
}

#[test]
fn the_service_is_told_in_the_version_that_was_asked_for() {
    for version in [Version::V1, Version::V2] {
        for source in [Some(CLIENT), Some("[2001:db8::7]:40000"), None] {
            let came = header(Version::V2, source);
            let (mut harness, pool) = pool_of(sending(version));
            let bytes = [&came, GET].concat();
            let (local, to) = offer(&mut harness, pool[0], &bytes, came.len());
            assert_eq!(to, service());
            assert_eq!(
                before_the_pair(&harness.actions(), local),
                header(version, source),
                "{version:?} {source:?}"
            );
        }
    }
}

#[test]
fn the_header_may_come_in_pieces_and_a_request_later() {
    let came = header(Version::V2, Some(CLIENT));
    for cut in 1..=came.len() {
        let (mut harness, pool) = pool_of(sending(Version::V1));
        harness.actions();
        let used = harness.receive(pool[0], &came[..cut]);
        assert_eq!(used, if cut == came.len() { cut } else { 0 });
        assert!(dials(&harness.actions()).iter().all(|(_, to)| *to == relay()), "{cut}");
        let rest = [&came[used..], GET].concat();
        let (local, _) = offer(&mut harness, pool[0], &rest, came.len() - used);
        assert_eq!(
            before_the_pair(&harness.actions(), local),
            b"PROXY TCP4 198.51.100.7 0.0.0.0 40000 0\r\n"
        );
    }
}

#[test]
fn a_relay_that_sends_no_header_is_an_unknown_client() {
    let nothing = [(Version::V1, b"PROXY UNKNOWN\r\n".to_vec()), (Version::V2, header(Version::V2, None))];
    for (version, told) in nothing {
        let (mut harness, pool) = pool_of(sending(version));
        let (local, _) = offer(&mut harness, pool[0], GET, 0);
        assert_eq!(before_the_pair(&harness.actions(), local), told);
    }
}

/// The relay sends version 2; a line of version 1 is sent by the client itself.
#[test]
fn a_client_cannot_say_itself_who_it_is() {
    let forged = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\n\r\n";
    let (mut harness, pool) = pool_of(sending(Version::V1));
    let (local, _) = offer(&mut harness, pool[0], forged, 0);
    assert_eq!(before_the_pair(&harness.actions(), local), b"PROXY UNKNOWN\r\n");
    // After the relay's header, another one of version 2 belongs to the request.
    let came = header(Version::V2, Some(CLIENT));
    let again = [&came[..], &header(Version::V2, Some("10.0.0.1:1"))].concat();
    let (mut harness, pool) = pool_of(sending(Version::V1));
    let (local, _) = offer(&mut harness, pool[0], &again, came.len());
    assert_eq!(before_the_pair(&harness.actions(), local), header(Version::V1, Some(CLIENT)));
}

#[test]
fn a_stream_service_is_told_as_well() {
    let came = header(Version::V2, Some(CLIENT));
    for behind in [b"".as_slice(), b"SSH-2.0-x\r\n"] {
        let (mut harness, pool) = pool_of(with_stream(Version::V1));
        let bytes = [&came, UPGRADE, behind].concat();
        let (local, to) = offer(&mut harness, pool[0], &bytes, came.len() + UPGRADE.len());
        assert_eq!(to, ssh());
        let actions = harness.actions();
        assert_eq!(before_the_pair(&actions, local), header(Version::V1, Some(CLIENT)));
        assert!(sent(&actions, pool[0]).starts_with("HTTP/1.1 101 "));
        assert!(events(&actions).contains(&Event::Served {
            relay: pool[0],
            local,
            upstream: 0,
            stream: true
        }));
    }
}

#[test]
fn a_client_that_has_ended_its_side_is_ended_behind_the_header() {
    let came = header(Version::V2, Some(CLIENT));
    let (mut harness, pool) = pool_of(with_stream(Version::V2));
    harness.receive(pool[0], &[&came, UPGRADE].concat());
    harness.call(|agent, now| agent.handle_end(pool[0], End::Clean, now));
    let (local, _) = reached(&mut harness);
    assert!(!asked(&harness.actions(), Output::CloseWrite { on: local }), "the header is queued");
    harness.call(|agent, now| agent.handle_flushed(local, now));
    assert!(asked(&harness.actions(), Output::CloseWrite { on: local }));
}

#[test]
fn a_header_that_is_none_ends_the_client() {
    let too_long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    let unknown = [SIGNATURE, &[0x31, 0x11, 0, 0]].concat();
    let cases =
        [(too_long, "PROXY header too long"), (unknown, "PROXY header of an unknown version or command")];
    for (bytes, why) in cases {
        let (mut harness, pool) = pool_of(sending(Version::V2));
        harness.receive(pool[0], &bytes);
        let actions = harness.actions();
        assert!(
            events(&actions).contains(&Event::Dropped { on: pool[0], from: None, upstream: Some(0), why }),
            "{actions:?}"
        );
        assert!(asked(&actions, Output::Close { on: pool[0], how: Close::Abort }));
        assert!(dials(&actions).iter().all(|(_, to)| *to == relay()));
    }
}

#[test]
fn a_header_that_never_ends_ends_the_client_after_ten_seconds() {
    let (mut harness, pool) = pool_of(agent_with(|config| {
        config.send_proxy = Some(Version::V2);
        config.upstreams[0].pool = 1;
    }));
    harness.receive(pool[0], SIGNATURE);
    let (next, _) = one(&harness.actions());
    accept(&mut harness, next);
    harness.wait(Span::from_secs(10));
    let why = "the relay's PROXY header did not arrive in time";
    let actions = harness.actions();
    assert!(
        events(&actions).contains(&Event::Dropped { on: pool[0], from: None, upstream: Some(0), why }),
        "{actions:?}"
    );
    assert!(asked(&actions, Output::Close { on: pool[0], how: Close::Abort }));
    assert!(dials(&actions).is_empty());
}

#[test]
fn the_relay_may_go_away_within_the_header() {
    for (how, close) in [(End::Clean, Close::Linger), (End::Reset, Close::Abort)] {
        let (mut harness, pool) = pool_of(sending(Version::V2));
        harness.receive(pool[0], &SIGNATURE[..5]);
        harness.actions();
        harness.call(|agent, now| agent.handle_end(pool[0], how, now));
        let actions = harness.actions();
        assert!(asked(&actions, Output::Close { on: pool[0], how: close }));
        let why = "the client went away before it was served";
        assert!(events(&actions).contains(&Event::Dropped {
            on: pool[0],
            from: None,
            upstream: Some(0),
            why
        }));
    }
}

#[test]
fn without_it_a_header_is_the_client_s() {
    let (mut harness, pool) = pool_of(agent());
    let (local, _) = offer(&mut harness, pool[0], &[&header(Version::V2, Some(CLIENT)), GET].concat(), 0);
    assert_eq!(before_the_pair(&harness.actions(), local), b"");
}
