//! Raw clients, and clients whose TLS the agent terminates (docs/protocol.md §10).

use rendezvous_core::agent::EndToEnd;
use rendezvous_core::fingerprint::Fingerprint;
use rendezvous_core::proxy_header::{RawName, Version, write, write_raw};
use rendezvous_core::subject::Subject;

use super::*;
use crate::hello::hello;

const NAME: &str = "home.hidden.example";
const SEALED: &[u8] =
    b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: octet-stream+tls\r\n\r\n";

fn database() -> SocketAddr {
    address(2, 5432)
}

fn tls_service() -> SocketAddr {
    address(2, 443)
}

fn serve_stream(config: &mut Config) {
    (config.upstreams[0].stream, config.upstreams[0].stream_takes_ports) = (Some(ssh().into()), true);
}

fn end_to_end() -> Harness<Agent> {
    agent_with(|config| {
        config.upstreams[0].end_to_end = EndToEnd::Terminate;
        serve_stream(config);
    })
}

fn header(name: &RawName) -> Vec<u8> {
    let mut header = Vec::new();
    write_raw("198.51.100.7:40000".parse().ok(), name, &mut header);
    header
}

fn by_name(name: &str) -> Vec<u8> {
    header(&RawName::Host(name.to_owned()))
}

fn by_port(label: &str) -> Vec<u8> {
    header(&RawName::Port(label.to_owned()))
}

/// A client came with these bytes. Returns the pool's first connection, and the agent's outputs.
fn comes(harness: Harness<Agent>, bytes: &[u8]) -> (Harness<Agent>, ConnId, usize, Vec<Done>) {
    let (mut harness, pool) = pool_of(harness);
    harness.actions();
    let used = harness.receive(pool[0], bytes);
    let actions = harness.actions();
    (harness, pool[0], used, actions)
}

fn starts_tls(actions: &[Done], on: ConnId, role: TlsRole) -> bool {
    asked(actions, Output::StartTls { on, role })
}

fn dial_of(actions: &[Done], to: SocketAddr) -> Option<ConnId> {
    dials(actions).into_iter().find(|(_, at)| *at == to).map(|(on, _)| on)
}

#[test]
fn an_agent_says_that_it_takes_raw_clients_if_it_does() {
    let config_line = |change: fn(&mut Config)| {
        let mut harness = agent_with(change);
        let (on, _) = one(&harness.actions());
        harness.call(|agent, now| agent.handle_connected(on, now));
        sent(&harness.actions(), on).contains("&raw=1 HTTP/1.1\r\n")
    };
    assert!(!config_line(|_| ()));
    assert!(config_line(serve_stream));
    assert!(config_line(|config| config.upstreams[0].ports.push(("db".to_owned(), database().into()))));
    assert!(config_line(|config| config.upstreams[0].end_to_end = EndToEnd::Terminate));
    assert!(config_line(|config| config.upstreams[0].end_to_end = EndToEnd::PassTo(tls_service().into())));
}

#[test]
fn the_agent_terminates_the_tls_of_a_raw_client_and_reads_its_request_inside() {
    let header = by_name(NAME);
    let hello = hello(NAME);
    let (mut harness, on, used, actions) = comes(end_to_end(), &[&header[..], &hello[..30]].concat());
    assert_eq!(used, header.len());
    assert!(!starts_tls(&actions, on, TlsRole::EndToEnd), "the hello is not whole");
    assert_eq!(harness.receive(on, &hello), 0, "the hello belongs to the handshake");
    assert!(starts_tls(&harness.actions(), on, TlsRole::EndToEnd));
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert_eq!(harness.receive(on, format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()), 0);
    assert!(dial_of(&harness.actions(), service()).is_some());
}

#[test]
fn a_client_hello_that_names_another_host_than_the_relay_says_is_refused() {
    for other in ["other.hidden.example", "192.0.2.1"] {
        let (_, on, _, actions) = comes(end_to_end(), &[by_name(NAME), hello(other)].concat());
        assert!(asked(&actions, Output::Close { on, how: Close::Abort }), "{other}");
    }
    let (_, on, _, actions) = comes(end_to_end(), &[&by_name(NAME)[..], GET].concat());
    assert!(asked(&actions, Output::Close { on, how: Close::Abort }), "no TLS at all");
}

#[test]
fn a_header_with_two_names_is_refused() {
    let mut twice = by_name(NAME);
    let extension = twice.split_off(28);
    let len = u16::try_from(12 + 2 * extension.len()).unwrap().to_be_bytes();
    twice[14..16].copy_from_slice(&len);
    let header = [&twice[..], &extension, &extension].concat();
    let (_, on, _, actions) = comes(end_to_end(), &[header, hello(NAME)].concat());
    assert!(asked(&actions, Output::Close { on, how: Close::Abort }));
}

#[test]
fn a_handshake_that_fails_or_takes_too_long_ends_the_connection() {
    let bytes = [by_name(NAME), hello(NAME)].concat();
    let (mut harness, on, _, _) = comes(end_to_end(), &bytes);
    harness.call(|agent, now| agent.handle_tls_failed(on, TlsFailure::Version, now));
    assert!(asked(&harness.actions(), Output::Close { on, how: Close::Linger }), "the alert is on its way");
    let (mut harness, on, _, _) = comes(end_to_end(), &bytes);
    harness.wait(Span::from_secs(10));
    assert!(asked(&harness.actions(), Output::Close { on, how: Close::Abort }));
    let (mut harness, on, _, _) = comes(end_to_end(), &by_name(NAME));
    harness.wait(Span::from_secs(10));
    assert!(asked(&harness.actions(), Output::Close { on, how: Close::Abort }));
}

#[test]
fn an_end_to_end_agent_refuses_what_the_relay_could_read() {
    let mut header = Vec::new();
    write(Version::V2, "198.51.100.7:40000".parse().ok(), &mut header);
    for front in [&header[..], b""] {
        for request in [GET, UPGRADE] {
            let (_, on, _, actions) = comes(end_to_end(), &[front, request].concat());
            assert!(sent(&actions, on).starts_with("HTTP/1.1 403 Forbidden\r\n"), "{actions:?}");
            assert!(dial_of(&actions, service()).is_none() && dial_of(&actions, ssh()).is_none());
        }
    }
    let passes = agent_with(|config| {
        config.upstreams[0].end_to_end = EndToEnd::PassTo(tls_service().into());
    });
    let (_, on, _, actions) = comes(passes, SEALED);
    assert!(sent(&actions, on).starts_with("HTTP/1.1 403 Forbidden\r\n"), "nobody terminates TLS here");
}

#[test]
fn a_connector_goes_on_with_tls_inside_its_stream() {
    let (mut harness, on, used, actions) = comes(end_to_end(), SEALED);
    assert_eq!(used, SEALED.len());
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream+tls\r\n\r\n";
    assert_eq!(sent(&actions, on), switching);
    assert!(starts_tls(&actions, on, TlsRole::EndToEndStream));
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert_eq!(harness.receive(on, UPGRADE), UPGRADE.len());
    let local = dial_of(&harness.actions(), ssh()).expect("the stream service");
    harness.call(|agent, now| agent.handle_connected(local, now));
    assert!(sent(&harness.actions(), on).contains("Upgrade: octet-stream\r\n"));
}

#[test]
fn a_connector_gets_no_page_and_a_browser_no_stream() {
    let (mut harness, on, _, _) = comes(end_to_end(), SEALED);
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    harness.actions();
    harness.receive(on, GET);
    assert!(sent(&harness.actions(), on).starts_with("HTTP/1.1 403 Forbidden\r\n"));

    let (mut harness, on, _, _) = comes(end_to_end(), &[by_name(NAME), hello(NAME)].concat());
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    harness.actions();
    harness.receive(on, UPGRADE);
    let actions = harness.actions();
    assert!(dial_of(&actions, ssh()).is_none());
    assert!(dial_of(&actions, service()).is_some(), "it is a request for the HTTP service");
}

#[test]
fn a_connector_that_sends_no_whole_request_inside_tls_reaches_no_service() {
    let (mut harness, on, _, _) = comes(end_to_end(), SEALED);
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    harness.actions();
    harness.receive(on, &GET[..10]);
    harness.wait(Span::from_secs(10));
    let actions = harness.actions();
    assert!(sent(&actions, on).starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{actions:?}");
    assert!(dial_of(&actions, service()).is_none() && dial_of(&actions, ssh()).is_none());
}

#[test]
fn a_service_that_terminates_tls_itself_gets_the_client_s_bytes_as_they_came() {
    let harness = agent_with(|config| {
        config.upstreams[0].end_to_end = EndToEnd::PassTo(tls_service().into());
    });
    let header = by_name(NAME);
    let (mut harness, on, used, actions) = comes(harness, &[header.clone(), hello(NAME)].concat());
    assert_eq!(used, header.len(), "the hello moves in the pair");
    let local = dial_of(&actions, tls_service()).expect("a dial");
    harness.call(|agent, now| agent.handle_connected(local, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Pair { hidden: local, client: on }));
    assert_eq!(sent(&actions, on), "", "nothing is answered");
}

#[test]
fn a_port_has_its_own_service_or_the_stream_service() {
    let services = || {
        agent_with(|config| {
            config.upstreams[0].ports.push(("db".to_owned(), database().into()));
            serve_stream(config);
        })
    };
    for (label, to) in [("db", database()), ("ssh", ssh())] {
        let header = by_port(label);
        let (mut harness, on, used, actions) = comes(services(), &header);
        assert_eq!(used, header.len());
        let local = dial_of(&actions, to).expect("a dial before a byte of the client");
        harness.call(|agent, now| agent.handle_connected(local, now));
        let actions = harness.actions();
        assert!(asked(&actions, Output::Pair { hidden: local, client: on }));
        assert_eq!(sent(&actions, on), "");
    }
    let harness = agent_with(|config| config.upstreams[0].ports.push(("db".to_owned(), database().into())));
    let (_, on, _, actions) = comes(harness, &by_port("ssh"));
    assert!(asked(&actions, Output::Close { on, how: Close::Abort }), "no service for this port");
}

#[test]
fn a_raw_client_whose_service_is_not_there_is_cut_and_told_nothing() {
    let harness = agent_with(serve_stream);
    let (mut harness, on, _, actions) = comes(harness, &by_port("ssh"));
    let local = dial_of(&actions, ssh()).expect("a dial");
    harness.call(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on, how: Close::Truncate }));
    assert_eq!(sent(&actions, on), "");
}

#[test]
fn an_agent_that_did_not_ask_for_raw_clients_takes_a_header_for_what_it_is() {
    let harness = agent_with(|config| config.forwarded = true);
    let header = by_name(NAME);
    let (_, on, used, actions) = comes(harness, &[&header[..], GET].concat());
    assert_eq!(used, header.len());
    assert!(dial_of(&actions, service()).is_some(), "{on:?}");
}

#[test]
fn other_clients_come_as_before_to_an_agent_that_takes_raw_ones() {
    let harness = agent_with(serve_stream);
    let (_, _, used, actions) = comes(harness, GET);
    assert_eq!(used, 0);
    assert!(dial_of(&actions, service()).is_some());
}

#[test]
fn a_client_of_http_2_goes_to_a_service_that_speaks_it_and_is_not_followed() {
    let bytes = [by_name(NAME), hello(NAME)].concat();
    for is_h2 in [true, false] {
        let harness = agent_with(|config| {
            config.upstreams[0].end_to_end = EndToEnd::Terminate;
            config.upstreams[0].service_h2 = true;
        });
        let (mut harness, on, _, _) = comes(harness, &bytes);
        harness.call(|agent, now| agent.handle_secured(on, Secured { is_h2, ..Secured::default() }, now));
        let local = dial_of(&harness.actions(), service());
        assert_eq!(local.is_some(), is_h2, "a client of HTTP/1.1 sends its request first");
        let Some(local) = local else { continue };
        harness.call(|agent, now| agent.handle_connected(local, now));
        let actions = harness.actions();
        assert!(asked(&actions, Output::Pair { hidden: local, client: on }));
        assert!(!asked(&actions, Output::Gate { on }));
    }
}

#[test]
fn every_request_of_a_client_with_a_certificate_names_its_subject_and_no_other() {
    let with_subject = || {
        let harness = agent_with(|config| {
            config.upstreams[0].end_to_end = EndToEnd::Terminate;
            config.subject = true;
        });
        comes(harness, &[by_name(NAME), hello(NAME)].concat())
    };
    let (mut harness, on, _, _) = with_subject();
    let subject = Subject::new("CN=anna,O=\\C3\\A9t\\C3\\A9");
    harness.call(|agent, now| agent.handle_secured(on, Secured { subject, ..Secured::default() }, now));
    let head = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n");
    let forged = "X-Client-Cert-Subject: CN=root\r\nx_client.cert_SUBJECT: CN=root\r\nClient-Cert: :AA==:\r\n\
                  X-SSL-Client-S-DN: CN=root\r\nConnection: X-Client-Cert-Subject\r\nX-Other: 1\r\n";
    let requests = head("/1", "") + &head("/2", forged) + &head("/3", forged);
    harness.receive(on, requests.as_bytes());
    let local = dial_of(&harness.actions(), service()).expect("a dial");
    harness.call(|agent, now| agent.handle_connected(local, now));
    assert_eq!(harness.receive(on, requests.as_bytes()), requests.len());
    let told = "X-Client-Cert-Subject: CN=anna,O=\\C3\\A9t\\C3\\A9\r\n";
    let other = format!("X-Other: 1\r\n{told}");
    assert_eq!(sent(&harness.actions(), local), head("/1", told) + &head("/2", &other) + &head("/3", &other));

    let (mut harness, on, _, _) = with_subject();
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert!(
        asked(&harness.actions(), Output::Close { on, how: Close::Linger }),
        "no certificate, no service"
    );
}

/// A connector with this key gets the stream service. Returns its connection and that to the service.
fn stream_of(key: u8) -> (Harness<Agent>, ConnId, ConnId) {
    let (mut harness, on, _, _) = comes(end_to_end(), SEALED);
    let key = Some(Fingerprint([key; 32]));
    harness.call(|agent, now| agent.handle_secured(on, Secured { key, ..Secured::default() }, now));
    assert_eq!(harness.receive(on, UPGRADE), UPGRADE.len());
    let local = dial_of(&harness.actions(), ssh()).expect("the stream service");
    (harness, on, local)
}

#[test]
fn what_a_client_has_with_a_key_that_is_removed_ends_at_once() {
    let removed = [Fingerprint([3; 32]), Fingerprint([7; 32])];
    let is_cut = |actions: &[Done], on| asked(actions, Output::Close { on, how: Close::Abort });
    for (key, ends) in [(7, true), (8, false)] {
        let (mut harness, on, local) = stream_of(key);
        harness.call(|agent, now| agent.handle_connected(local, now));
        harness.actions();
        harness.call(|agent, now| agent.handle_removed_keys(&removed, now));
        let actions = harness.actions();
        assert_eq!((is_cut(&actions, on), is_cut(&actions, local)), (ends, ends), "a pair");
    }
    let (mut harness, on, local) = stream_of(7);
    harness.call(|agent, now| agent.handle_removed_keys(&removed, now));
    let actions = harness.actions();
    assert!(is_cut(&actions, on) && is_cut(&actions, local), "on the way to the service");

    let (mut harness, on, _, _) = comes(end_to_end(), SEALED);
    let key = Some(removed[0]);
    harness.call(|agent, now| agent.handle_secured(on, Secured { key, ..Secured::default() }, now));
    harness.actions();
    harness.call(|agent, now| agent.handle_removed_keys(&removed, now));
    assert!(is_cut(&harness.actions(), on), "before its request");
}
