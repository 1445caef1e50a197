//! The operator disables IDs, denies addresses, limits clients, and ends connections while the relay runs.

use rendezvous_core::engine::{Kick, Transport};
use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::machine::{Close, ConnId};
use rendezvous_core::pair::EndReason;
use rendezvous_core::prefix::Prefix;
use rendezvous_core::proxy_header::{Version, write};
use rendezvous_core::registry::{Access, ClientLimits, Enrolment};

use crate::world::World;
use crate::{ANSWER, ID, OK, OTHER, both, bound_connect, config, enrolled, get, world, world_with};

const DISABLED: &str = "the relay's operator has disabled this hidden server";
const DENIED: &str = "the relay admits no clients from this address to this hidden server";
const QUOTA: &str = "the hidden server's transfer quota of this month is used up";
const NONCE: &str = "0123456789abcdef";

fn prefixes(list: &[&str]) -> Vec<Prefix> {
    list.iter().map(|text| text.parse().expect("a prefix")).collect()
}

/// ID's enrolment after this change, and that of the other one.
fn with(change: impl FnOnce(&mut Enrolment)) -> Vec<Enrolment> {
    let mut home = enrolled(ID, &["home"]);
    change(&mut home);
    vec![home, enrolled(OTHER, &[])]
}

fn limited(allow: &[&str], deny: &[&str]) -> Vec<Enrolment> {
    with(|home| {
        home.clients = ClientLimits { allow: prefixes(allow), deny: prefixes(deny), pairs_max: None };
    })
}

impl World {
    fn client_from(&mut self, from: &str) -> ConnId {
        let client = self.open_from(from);
        self.write(client, get(ID));
        client
    }

    fn pair_ends(&mut self) -> Vec<EndReason> {
        let ends = self.take_events().into_iter();
        ends.filter_map(|event| if let Event::PairEnded { why, .. } = event { Some(why) } else { None })
            .collect()
    }
}

#[test]
fn a_disabled_id_is_ended_and_refused_until_it_is_enabled() {
    let mut world = world();
    let other = world.register(OTHER);
    let (hidden, client) = world.pair(ID);
    let waiting = world.register(ID);
    world.take_events();
    world.enrol(with(|home| home.access = Access::Disabled));
    assert_eq!(world.closing(waiting), Some(Close::Linger));
    assert_eq!([hidden, client].map(|on| world.closing(on)), [Some(Close::Abort); 2]);
    assert!(world.is_open(other));
    let events = world.take_events();
    assert!(events.iter().any(|event| matches!(
        event,
        Event::WaitingEnded { on, why: WaitingEnd::Operator, .. } if *on == waiting
    )));
    assert!(
        events.iter().any(|event| matches!(event, Event::PairEnded { why: EndReason::Operator, .. })),
        "{events:?}"
    );
    let refused = world.client_sends(bound_connect(ID, world.now.wall, NONCE));
    world.assert_refused(refused, "403 Forbidden", DISABLED);
    let client = world.client_sends(get(ID));
    world.assert_refused(client, "403 Forbidden", DISABLED);
    world.enrol(both());
    let again = world.client_sends(bound_connect(ID, world.now.wall, "another-nonce-of-it"));
    assert_eq!(world.take(again), OK);
    let client = world.client_sends(get(ID));
    assert_eq!(world.peer(client), Some(again));
}

#[test]
fn only_the_owner_of_a_secret_learns_that_an_id_is_disabled_for_hidden_servers() {
    let mut world = World::new(config(), with(|home| home.access = Access::Disabled));
    let guessed = world.client_sends(format!("CONNECT uuid:{ID}?response=00000000 HTTP/1.1\r\n\r\n"));
    world.assert_refused(guessed, "401 Unauthorized", "not authorized");
}

#[test]
fn a_client_held_for_an_id_that_is_disabled_is_answered() {
    let mut world = world();
    let (_hidden, _client) = world.pair(ID);
    let held = world.client_sends(get(ID));
    world.enrol(with(|home| home.access = Access::Disabled));
    world.assert_refused(held, "403 Forbidden", DISABLED);
}

#[test]
fn a_used_quota_ends_pairs_and_refuses_clients_but_keeps_the_hidden_server() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    let waiting = world.register(ID);
    world.take_events();
    world.enrol(with(|home| home.access = Access::QuotaUsed));
    assert_eq!([hidden, client].map(|on| world.closing(on)), [Some(Close::Abort); 2]);
    assert_eq!(world.pair_ends(), [EndReason::Operator]);
    assert!(world.is_open(waiting));
    let client = world.client_sends(get(ID));
    let answer =
        world.answer("503 Service Unavailable", "Retry-After: 3600\r\nConnection: close\r\n", false, QUOTA);
    assert_eq!(world.got(client), answer);
    world.enrol(both());
    let client = world.client_sends(get(ID));
    assert_eq!(world.peer(client), Some(waiting));
}

#[test]
fn clients_of_an_id_are_admitted_by_address_and_denied_wins() {
    let mut world = World::new(config(), limited(&["192.0.2.0/24", "2001:db8::/32"], &["192.0.2.66"]));
    for (from, is_admitted) in [
        ("192.0.2.1:1", true),
        ("192.0.2.66:1", false),
        ("198.51.100.1:1", false),
        ("[2001:db8::1]:1", true),
        ("[2001:db9::1]:1", false),
        ("[::ffff:192.0.2.1]:1", true),
        ("[::ffff:192.0.2.66]:1", false),
    ] {
        let hidden = world.register(ID);
        let client = world.client_from(from);
        if is_admitted {
            assert_eq!(world.peer(client), Some(hidden), "{from}");
            world.write(hidden, ANSWER);
        } else {
            world.assert_refused(client, "403 Forbidden", DENIED);
        }
    }
}

#[test]
fn the_pairs_of_a_client_that_is_no_longer_admitted_end_and_no_others() {
    let mut world = world();
    world.register(ID);
    let staying = world.client_from("192.0.2.1:1");
    world.register(ID);
    let leaving = world.client_from("198.51.100.1:1");
    world.take_events();
    world.enrol(limited(&[], &["198.51.100.0/24"]));
    assert!(world.is_open(staying));
    assert_eq!(world.closing(leaving), Some(Close::Abort));
    assert_eq!(world.pair_ends(), [EndReason::Operator]);
}

#[test]
fn the_lower_limit_of_pairs_counts() {
    for (own, of_relay, pairs) in [(Some(2), 10, 2), (Some(9), 3, 3), (None, 2, 2)] {
        let mut world = world_with(|config| config.pairs_per_id_max = of_relay);
        world.enrol(with(|home| home.clients.pairs_max = own));
        for place in 0..6 {
            world.register(ID);
            let client = world.client_from(&format!("192.0.2.{place}:1"));
            let is_paired = world.peer(client).is_some();
            assert_eq!(is_paired, place < pairs, "{own:?} {of_relay}: {place}");
        }
    }
}

#[test]
fn a_raised_limit_of_pairs_serves_held_clients_at_once() {
    for of_relay in [false, true] {
        let mut world = world_with(|config| config.pairs_per_id_max = if of_relay { 2 } else { 10 });
        world.enrol(with(|home| home.clients.pairs_max = (!of_relay).then_some(2)));
        world.pair(ID);
        let clients = ["192.0.2.1:1", "198.51.100.1:1"].map(|from| world.client_from(from));
        let servers = [world.register(ID), world.register(ID)];
        assert_eq!(clients.map(|client| world.peer(client)), [Some(servers[0]), None]);
        if of_relay {
            world.configure(config());
        } else {
            world.enrol(with(|home| home.clients.pairs_max = Some(3)));
        }
        assert_eq!(world.peer(clients[1]), Some(servers[1]), "of the relay: {of_relay}");
    }
}

#[test]
fn a_denied_address_is_dropped_when_it_connects_and_when_it_is_denied() {
    let mut world = world();
    let (_, client) = world.pair(ID);
    let other = world.open_from("203.0.113.9:1");
    let mut denying = config();
    denying.denied = prefixes(&["192.0.2.0/24"]);
    world.configure(denying);
    assert_eq!(world.closing(client), Some(Close::Abort));
    assert!(world.is_open(other));
    let on = world.open_from("192.0.2.200:1");
    assert_eq!(world.closing(on), Some(Close::Abort));
    let on = world.open_from("[::ffff:192.0.2.200]:1");
    assert_eq!(world.closing(on), Some(Close::Abort));
    world.configure(config());
    let on = world.open_from("192.0.2.200:1");
    assert!(world.is_open(on));
}

#[test]
fn behind_a_balancer_the_address_in_the_header_is_the_denied_one() {
    let mut world = world_with(|config| {
        config.listeners.push(Transport::Proxied);
        config.proxies = prefixes(&["10.0.0.0/24"]);
        config.denied = prefixes(&["198.51.100.0/24", "10.0.0.1"]);
    });
    for (source, is_denied) in [("198.51.100.7:1", true), ("203.0.113.7:1", false)] {
        let on = world.open_on(2, "10.0.0.1:5000");
        let mut header = Vec::new();
        write(Version::V2, Some(source.parse().expect("an address")), &mut header);
        world.write(on, header);
        assert_eq!(world.closing(on), is_denied.then_some(Close::Abort), "{source}");
    }
}

#[test]
fn a_kick_ends_one_connection_with_the_other_half_of_its_pair() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    let (_, other) = world.pair(OTHER);
    world.take_events();
    assert_eq!(world.kick(Kick::Conn(client)), 2);
    assert_eq!([hidden, client].map(|on| world.closing(on)), [Some(Close::Abort); 2]);
    assert_eq!(world.pair_ends(), [EndReason::Operator]);
    assert!(world.is_open(other));
    assert_eq!(world.kick(Kick::Conn(client)), 0, "it has ended");
    assert_eq!(world.kick(Kick::Conn(ConnId { index: 77, generation: 1 })), 0);
}

#[test]
fn a_kick_of_an_id_ends_all_that_is_its() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    let held = world.client_sends(get(ID));
    let other = world.register(OTHER);
    assert_eq!(world.kick(Kick::Id(ID)), 3);
    assert_eq!([hidden, client, held].map(|on| world.closing(on)), [Some(Close::Abort); 3]);
    assert!(world.is_open(other));
    let waiting = world.register(ID);
    assert_eq!(world.kick(Kick::Id(ID)), 1);
    assert!(!world.is_open(waiting));
}

#[test]
fn a_kick_of_addresses_ends_every_state() {
    let mut world = world();
    let fresh = world.open_from("198.51.100.1:1");
    let securing = world.open_on(1, "198.51.100.2:1");
    let begun = world.open_from("198.51.100.3:1");
    world.write(begun, "GET / HT");
    world.register(ID);
    let client = world.client_from("198.51.100.4:1");
    let other = world.open();
    assert_eq!(world.kick(Kick::From("198.51.100.0/24".parse().expect("a prefix"))), 5);
    for on in [fresh, securing, begun, client] {
        assert_eq!(world.closing(on), Some(Close::Abort));
    }
    assert!(world.is_open(other));
}
