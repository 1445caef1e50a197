//! Raw clients: the relay routes them by the ClientHello or by the port, and reads nothing else (docs/protocol.md §10).

use rendezvous_core::client_hello::Alert;
use rendezvous_core::engine::Transport;
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::pair::EndReason;
use rendezvous_core::proxy_header::{self, Parsed, RawName};
use rendezvous_core::registry::Enrolment;

use crate::hello::hello;
use crate::world::World;
use crate::{GET, ID, OK, OTHER, bound_connect, config, credential, enrolled, get};

const TLS: u16 = 1;
const PORT: u16 = 2;
const PROXIED: u16 = 3;
const CLIENT: &str = "198.51.100.7:40000";
const END_TO_END: &str = "the hidden server is end-to-end: the relay must not read what its clients send";

/// ID is end-to-end, with the label `home` and the port `ssh`; OTHER is not, with the label `open`.
fn world() -> World {
    let mut config = config();
    config.listeners.extend([Transport::Port(0), Transport::Proxied]);
    config.ports.push("ssh".to_owned());
    config.proxies = vec!["10.0.0.0/24".parse().expect("a prefix")];
    World::new(config, list())
}

fn list() -> Vec<Enrolment> {
    let sealed = Enrolment { end_to_end: true, ports: vec![0], ..enrolled(ID, &["home"]) };
    vec![sealed, enrolled(OTHER, &["open"])]
}

impl World {
    fn register_raw(&mut self, id: Id) -> ConnId {
        let nonce = self.fresh_nonce();
        let connect = bound_connect(id, self.now.wall, &nonce).replace(" HTTP", "&raw=1 HTTP");
        let on = self.client_sends(connect);
        self.expect(on, OK);
        on
    }

    /// The name in the PROXY header that a hidden server received, with the client's address, and the bytes after it.
    fn raw(&self, hidden: ConnId) -> (RawName, String, Vec<u8>) {
        let got = &self.wire(hidden).got;
        let Parsed::Complete { len, source } = proxy_header::parse(got) else { panic!("no header: {got:?}") };
        let name = proxy_header::raw_name(&got[..len]).expect("well-formed").expect("a raw client");
        (name, source.expect("an address").to_string(), got[len..].to_vec())
    }

    #[track_caller]
    fn assert_alert(&self, on: ConnId, alert: Alert) {
        assert_eq!(self.wire(on).got, alert.record());
        assert_eq!(self.closing(on), Some(Close::Linger));
        assert!(!self.wire(on).securing, "TLS is not terminated");
    }
}

#[test]
fn a_client_hello_for_an_end_to_end_name_goes_to_its_hidden_server_untouched() {
    let mut world = world();
    let hidden = world.register_raw(ID);
    let client = world.open_on(TLS, CLIENT);
    let hello = hello("HOME.hidden.example.");
    for byte in &hello[..hello.len() - 1] {
        world.write(client, [*byte]);
        assert_eq!(world.peer(client), None);
        assert!(!world.wire(client).securing);
    }
    world.write(client, [&hello[hello.len() - 1..], b"early"].concat());
    assert_eq!(world.peer(client), Some(hidden));
    let name = RawName::Host("home.hidden.example".to_owned());
    assert_eq!(world.raw(hidden), (name, CLIENT.to_owned(), [&hello[..], b"early"].concat()));
    assert!(world.wire(client).got.is_empty(), "the relay answers nothing");
    world.write(hidden, b"server hello");
    assert_eq!(world.got(client), "server hello");
    world.write(client, b"finished");
    assert!(world.raw(hidden).2.ends_with(b"finished"));
}

#[test]
fn an_id_is_a_name_as_well() {
    let mut world = world();
    let hidden = world.register_raw(ID);
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello(&format!("{ID}.hidden.example")));
    assert_eq!(world.peer(client), Some(hidden));
}

#[test]
fn the_relay_terminates_tls_for_all_other_names_and_for_none() {
    let mut world = world();
    for name in
        ["open.hidden.example", "hidden.example", "home.other.example", "nobody.hidden.example", "192.0.2.1"]
    {
        let client = world.open_on(TLS, CLIENT);
        world.write(client, hello(name));
        assert!(world.wire(client).securing, "{name}");
        assert!(world.wire(client).got.is_empty());
    }
    let client = world.open_on(TLS, CLIENT);
    world.write(client, b"GET / HTTP/1.1\r\n");
    assert!(world.wire(client).securing, "the TLS library refuses what is no TLS");
}

#[test]
fn a_hello_that_cannot_be_decided_never_gets_the_relay_s_certificate() {
    let mut world = world();
    let mut twice = hello("home.hidden.example");
    let at = twice.len() - 1;
    twice[at] = b'*';
    for hello in [&twice[..], &[22, 2, 0, 0, 5], &[22, 3, 1, 0, 5, 1, 1, 0, 0, 0]] {
        let client = world.open_on(TLS, CLIENT);
        world.write(client, hello);
        world.assert_alert(client, Alert::DecodeError);
    }
    let slow = world.open_on(TLS, CLIENT);
    world.write(slow, &twice[..20]);
    world.wait_secs(10);
    assert_eq!(world.closing(slow), Some(Close::Abort));
    assert!(!world.wire(slow).securing);
}

#[test]
fn the_deadline_of_the_handshake_begins_with_the_connection() {
    let mut world = world();
    let client = world.open_on(TLS, CLIENT);
    world.wait_secs(9);
    world.write(client, hello("open.hidden.example"));
    assert!(world.wire(client).securing);
    world.wait_secs(1);
    assert_eq!(world.closing(client), Some(Close::Abort));
}

#[test]
fn a_name_that_nobody_serves_gets_an_alert_at_once_or_after_the_wait() {
    let mut world = world();
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello("home.hidden.example"));
    world.assert_alert(client, Alert::UnrecognizedName);

    let hidden = world.register_raw(ID);
    world.end(hidden, End::Reset);
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello("home.hidden.example"));
    assert!(world.is_open(client), "it is held");
    world.wait_secs(5);
    world.assert_alert(client, Alert::UnrecognizedName);
}

#[test]
fn a_held_raw_client_meets_the_next_connection_that_takes_raw_clients() {
    let mut world = world();
    let hidden = world.register_raw(ID);
    world.end(hidden, End::Reset);
    let client = world.open_on(TLS, CLIENT);
    let hello = hello("home.hidden.example");
    world.write(client, &hello);
    let nonce = world.fresh_nonce();
    let connect = bound_connect(ID, world.now.wall, &nonce).replace(" HTTP", "&raw=1 HTTP");
    let hidden = world.client_sends(connect);
    assert_eq!(world.peer(client), Some(hidden));
    let got = world.wire(hidden).got.clone();
    assert!(got.starts_with(OK.as_bytes()) && got.ends_with(&hello));
}

#[test]
fn connections_of_other_agents_get_no_raw_clients() {
    let mut world = world();
    let old = world.register(ID);
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello("home.hidden.example"));
    world.assert_alert(client, Alert::UnrecognizedName);
    let new = world.register_raw(ID);
    let older = world.register(ID);
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello("home.hidden.example"));
    assert_eq!(world.peer(client), Some(new));
    assert!(world.is_open(old) && world.is_open(older));
}

#[test]
fn a_failed_hand_over_is_repeated_with_the_whole_hello() {
    let mut world = world();
    let (second, first) = (world.register_raw(ID), world.register_raw(ID));
    let client = world.open_on(TLS, CLIENT);
    let hello = hello("home.hidden.example");
    world.write(client, &hello);
    assert_eq!(world.peer(client), Some(first));
    world.end(first, End::Reset);
    assert_eq!(world.peer(client), Some(second));
    assert_eq!(world.raw(second).2, hello);
    world.end(second, End::Reset);
    world.assert_alert(client, Alert::UnrecognizedName);
}

#[test]
fn a_client_of_a_port_is_handed_over_before_it_sends_a_byte() {
    let mut world = world();
    let hidden = world.register_raw(ID);
    let client = world.open_on(PORT, CLIENT);
    assert_eq!(world.peer(client), Some(hidden));
    assert_eq!(world.raw(hidden), (RawName::Port("ssh".to_owned()), CLIENT.to_owned(), Vec::new()));
    world.write(hidden, b"SSH-2.0-x\r\n");
    assert_eq!(world.got(client), "SSH-2.0-x\r\n");
}

#[test]
fn a_client_of_a_port_that_nobody_serves_is_reset() {
    let mut world = world();
    let client = world.open_on(PORT, CLIENT);
    assert_eq!(world.closing(client), Some(Close::Abort));
    world.enrol(vec![enrolled(ID, &[])]);
    world.register_raw(ID);
    let client = world.open_on(PORT, CLIENT);
    assert_eq!(world.closing(client), Some(Close::Abort), "the port is nobody's");
    let reasons: Vec<_> = world
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Refused { why, id, .. } => Some((why, id)),
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), 2);
    assert_eq!(reasons[0].1, Some(ID));
}

#[test]
fn a_cut_hidden_server_is_a_reset_for_a_raw_client() {
    let mut world = world();
    let hidden = world.register_raw(ID);
    let client = world.open_on(PORT, CLIENT);
    world.write(hidden, b"part");
    world.end(hidden, End::Truncated);
    assert_eq!(world.closing(client), Some(Close::Truncate), "which is a reset in clear");
    let why = world.take_events().into_iter().find_map(|event| match event {
        Event::PairEnded { why, .. } => Some(why),
        _ => None,
    });
    assert!(matches!(why, Some(EndReason::Truncated(_))));
}

#[test]
fn an_end_to_end_hidden_server_gets_no_client_in_clear() {
    let mut world = world();
    world.register_raw(ID);
    for request in [
        get(ID),
        format!("GET /?rendezvous={ID} HTTP/1.1\r\nHost: relay\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: octet-stream\r\nConnection: Upgrade\r\n{}\r\n",
            credential(ID)
        ),
    ] {
        let client = world.client_sends(&request);
        world.assert_refused(client, "403 Forbidden", END_TO_END);
        assert_eq!(world.peer(client), None);
    }
    // A body would follow the head of a connector in clear.
    let request = format!(
        "POST / HTTP/1.1\r\nHost: relay\r\nUpgrade: octet-stream+tls\r\nConnection: Upgrade\r\nContent-Length: 2\r\n{}\r\nhi",
        credential(ID)
    );
    let client = world.client_sends(request);
    world.assert_refused(client, "403 Forbidden", END_TO_END);
    // The relay terminated TLS for another name, and the request names this one.
    let client = world.client_sends("GET / HTTP/1.1\r\nHost: home.hidden.example\r\n\r\n");
    world.assert_refused(client, "421 Misdirected Request", END_TO_END);
}

#[test]
fn a_later_request_for_an_end_to_end_hidden_server_is_refused_as_the_first_one_is() {
    let mut world = world();
    world.register_raw(ID);
    let open = world.register(OTHER);
    let client = world.client_sends(get(OTHER));
    assert_eq!(world.peer(client), Some(open));
    world.write(open, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    world.take(client);
    world.write(client, get(ID));
    world.assert_refused(client, "403 Forbidden", END_TO_END);
}

#[test]
fn a_sealed_stream_is_passed_on_and_nothing_else_on_its_connection() {
    let mut world = world();
    let hidden = world.register_raw(ID);
    let upgrade = "Connection: Upgrade\r\nUpgrade: octet-stream+tls\r\n";
    let client =
        world.client_sends(format!("GET / HTTP/1.1\r\nHost: relay\r\n{upgrade}{}\r\n", credential(ID)));
    assert_eq!(world.peer(client), Some(hidden));
    assert_eq!(world.take(hidden), format!("GET / HTTP/1.1\r\nHost: relay\r\n{upgrade}\r\n"));
    // The agent does not switch: the next request is in clear.
    world.write(hidden, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    world.take(client);
    world.write(client, get(ID));
    assert_eq!(world.take(hidden), "");
    world.assert_refused(client, "403 Forbidden", END_TO_END);
}

#[test]
fn clients_in_clear_of_other_hidden_servers_may_take_connections_of_new_agents() {
    let mut world = world();
    let hidden = world.register_raw(OTHER);
    let client = world.client_sends(get(OTHER));
    assert_eq!(world.peer(client), Some(hidden));
    assert_eq!(world.take(hidden), GET);
}

#[test]
fn behind_a_balancer_the_hello_comes_after_the_header() {
    let mut world = world();
    let hidden = world.register_raw(ID);
    let client = world.open_on(PROXIED, "10.0.0.1:5000");
    let mut header = Vec::new();
    proxy_header::write(proxy_header::Version::V2, CLIENT.parse().ok(), &mut header);
    let hello = hello("home.hidden.example");
    world.write(client, [&header[..], &hello[..10]].concat());
    world.write(client, &hello[10..]);
    assert_eq!(world.peer(client), Some(hidden));
    assert_eq!(world.raw(hidden).1, CLIENT);
    assert_eq!(world.raw(hidden).2, hello);
}

#[test]
fn a_draining_relay_takes_no_raw_clients() {
    let mut world = world();
    let _ = world.register_raw(ID);
    world.drain();
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello("home.hidden.example"));
    world.assert_alert(client, Alert::UnrecognizedName);
}
