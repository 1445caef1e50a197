//! A relay of a group: only the server name `LABEL.DOMAIN` with the ID's first label brings agents and clients together.

use rendezvous_core::engine::Transport;
use rendezvous_core::event::Event;
use rendezvous_core::http::instance::Instance;
use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::proxy_header::{Version, write};
use rendezvous_core::registry::Enrolment;

use crate::hello::{hello, hello_with};
use crate::world::World;
use crate::{ID, OK, OTHER, bound_connect, config, credential, enrolled, get};

const TLS: u16 = 1;
const PROXIED: u16 = 2;
const CLIENT: &str = "198.51.100.7:40000";
const SERVER: &str =
    "one of several relays: the server name (SNI) must be the first label of the ID under the relay's domain";
const ELSEWHERE: &str = "one of several relays: a hidden server is reached only at its own host name, \
                         LABEL.DOMAIN, not by user name or parameter";

fn group_of(ids: Vec<Enrolment>) -> World {
    let mut config = config();
    config.group = true;
    config.listeners.push(Transport::Proxied);
    config.proxies = vec!["10.0.0.0/24".parse().expect("a prefix")];
    World::new(config, ids)
}

fn group() -> World {
    group_of(vec![enrolled(ID, &["home", "alias"]), enrolled(OTHER, &["other"])])
}

impl World {
    /// A connection after TLS with this server name.
    fn named(&mut self, name: &str) -> ConnId {
        let on = self.open_on(TLS, CLIENT);
        self.write(on, hello(name));
        assert!(self.wire(on).securing, "the relay terminates TLS");
        self.wire_mut(on).unread.clear();
        self.secured(on);
        on
    }

    fn asks(&mut self, name: &str, text: &str) -> ConnId {
        let on = self.named(name);
        self.write(on, text);
        on
    }
}

fn get_at(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn an_agent_and_a_client_that_send_the_first_label_meet() {
    let mut world = group();
    let hidden = world.named("HOME.hidden.example");
    let connect = bound_connect(ID, world.now.wall, "0123456789abcdef");
    world.write(hidden, connect);
    world.expect(hidden, OK);
    let client = world.asks("home.hidden.example", &get_at("home.hidden.example"));
    assert_eq!(world.peer(client), Some(hidden));
}

/// The load balancer gives a name to another relay before the agent has renewed its connections.
#[test]
fn a_client_is_held_for_a_hidden_server_that_has_never_been_here_or_has_left() {
    let mut world = group();
    let ask = get_at("home.hidden.example");
    for nonce in ["0123456789abcdef", "0123456789abcdeg"] {
        // Long after the start, and long after the hidden server has left.
        world.wait_secs(3_600);
        let client = world.asks("home.hidden.example", &ask);
        assert_eq!(world.got(client), "", "it is held");
        let hidden = world.named("home.hidden.example");
        let connect = bound_connect(ID, world.now.wall, nonce);
        world.write(hidden, connect);
        assert_eq!(world.peer(client), Some(hidden));
        world.end(hidden, End::Clean);
        world.end(client, End::Clean);
    }
    world.wait_secs(3_600);
    let client = world.asks("home.hidden.example", &ask);
    world.wait_secs(60);
    assert!(world.got(client).starts_with("HTTP/1.1 404 "), "not for ever: {}", world.got(client));
}

#[test]
fn a_token_is_not_accepted_under_another_server_name() {
    let mut world = group();
    let id_as_name = format!("{ID}.hidden.example");
    let names =
        ["hidden.example", "alias.hidden.example", "other.hidden.example", &id_as_name, "home.example"];
    for (place, name) in names.into_iter().enumerate() {
        let nonce = format!("0123456789abcde{place}");
        let connect = bound_connect(ID, world.now.wall, &nonce);
        let on = world.asks(name, &connect);
        world.assert_refused(on, "421 Misdirected Request", SERVER);
    }
    // Without TLS, and without a ClientHello that names a host, there is no server name.
    let connect = bound_connect(ID, world.now.wall, "0123456789abcdef");
    let on = world.client_sends(connect);
    world.assert_refused(on, "421 Misdirected Request", SERVER);
}

#[test]
fn a_wrong_token_gets_the_same_answer_whatever_the_server_name() {
    let mut world = group();
    for name in ["home.hidden.example", "other.hidden.example", "hidden.example"] {
        let on = world.asks(name, &format!("CONNECT uuid:{ID}?response=00000000 HTTP/1.1\r\n\r\n"));
        world.assert_refused(on, "401 Unauthorized", "not authorized");
    }
}

#[test]
fn a_client_that_names_the_hidden_server_in_another_way_is_told_why_it_is_refused() {
    let mut world = group();
    for (name, text) in [
        ("hidden.example", get(ID)),
        ("hidden.example", get_at("hidden.example")),
        ("hidden.example", format!("GET /?rendezvous={ID} HTTP/1.1\r\nHost: hidden.example\r\n\r\n")),
        ("other.hidden.example", get_at("home.hidden.example")),
        ("alias.hidden.example", get_at("alias.hidden.example")),
        ("home.hidden.example", get(OTHER)),
    ] {
        let on = world.asks(name, &text);
        world.assert_refused(on, "421 Misdirected Request", ELSEWHERE);
    }
}

#[test]
fn a_user_name_of_the_same_hidden_server_is_accepted_under_its_name() {
    let mut world = group();
    let hidden = world.named("home.hidden.example");
    let connect = bound_connect(ID, world.now.wall, "0123456789abcdef");
    world.write(hidden, connect);
    world.expect(hidden, OK);
    let text = format!("GET / HTTP/1.1\r\nHost: relay\r\n{}\r\n", credential(ID));
    let client = world.asks("home.hidden.example", &text);
    assert_eq!(world.peer(client), Some(hidden));
}

#[test]
fn an_end_to_end_client_is_handed_over_only_under_the_first_label() {
    let sealed = Enrolment { end_to_end: true, ..enrolled(ID, &["home", "alias"]) };
    let mut world = group_of(vec![sealed]);
    // An agent is known by its application protocol.
    let name = b"rendezvous-agent";
    let alpn = [&[0, 16, 0, 19, 0, 17, 16], &name[..]].concat();
    let hidden = world.open_on(TLS, CLIENT);
    world.write(hidden, hello_with("home.hidden.example", &alpn));
    assert!(world.wire(hidden).securing, "the relay terminates the agent's TLS");
    world.wire_mut(hidden).unread.clear();
    world.secured(hidden);
    let connect = bound_connect(ID, world.now.wall, "0123456789abcdef").replace(" HTTP", "&raw=1 HTTP");
    world.write(hidden, connect);
    world.expect(hidden, OK);
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello("alias.hidden.example"));
    assert_eq!(world.peer(client), None);
    let client = world.open_on(TLS, CLIENT);
    world.write(client, hello("home.hidden.example"));
    assert_eq!(world.peer(client), Some(hidden));
}

#[test]
fn the_200_has_the_instance_if_the_agent_asks_for_it() {
    let mut world = group();
    let hidden = world.named("home.hidden.example");
    let connect = bound_connect(ID, world.now.wall, "0123456789abcdef");
    world.write(hidden, connect.replace("\r\n\r\n", "\r\nRendezvous-Relay: ?\r\n\r\n"));
    let instance = Instance::of_seed(&[7; 32]);
    assert_eq!(world.take(hidden), format!("HTTP/1.1 200 OK\r\nRendezvous-Relay: {instance}\r\n\r\n"));
}

#[test]
fn a_client_hello_that_comes_with_the_proxy_header_is_read() {
    let mut world = group();
    for _ in 0..2 {
        let on = world.open_on(PROXIED, "10.0.0.1:5000");
        let mut bytes = Vec::new();
        write(Version::V2, Some(CLIENT.parse().expect("an address")), &mut bytes);
        bytes.extend_from_slice(&hello("home.hidden.example"));
        world.write(on, bytes);
        assert!(world.wire(on).securing);
    }
}

/// `LOCAL`, as HAProxy sends it.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[test]
fn health_checks_are_neither_events_nor_counted_nor_limited() {
    let mut config = config();
    config.listeners.push(Transport::Proxied);
    config.proxies = vec!["10.0.0.0/24".parse().expect("a prefix")];
    config.connections_per_address_max = 2;
    config.denied = vec!["10.0.0.1".parse().expect("a prefix")];
    let mut world = World::new(config, vec![enrolled(ID, &["home"])]);
    world.take_events();
    let all: Vec<_> = (0..20)
        .map(|_| {
            let on = world.open_on(PROXIED, "10.0.0.1:5000");
            world.write(on, LOCAL);
            on
        })
        .collect();
    assert!(all.iter().all(|on| world.is_open(*on)), "not limited");
    for (place, on) in all.into_iter().enumerate() {
        world.end(on, if place % 2 == 0 { End::Reset } else { End::Clean });
    }
    let bare = world.open_on(PROXIED, "10.0.0.1:5001");
    world.end(bare, End::Reset);
    let late = world.open_on(PROXIED, "10.0.0.1:5002");
    world.write(late, LOCAL);
    world.wait_secs(20);
    assert_eq!(world.closing(late), Some(Close::Abort));
    let events: Vec<Event> = world.take_events();
    assert!(events.is_empty(), "{events:?}");
}
