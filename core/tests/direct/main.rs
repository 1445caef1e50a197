//! A connector and an agent establish a direct connection, or stay on the relay. In both cases each program receives
//! what the other sent: all of it, once, in order, and then the end.

#[path = "../common/harness.rs"]
mod harness;
mod odd;
mod walk;
mod world;

use std::cell::RefCell;

use rendezvous_core::acl::Policy;
use rendezvous_core::event::{ConnectError, ConnectFailure, Event, NotDirect};
use rendezvous_core::machine::{DialFailure, End, TlsFailure};
use rendezvous_core::time::Span;
use world::{BOTH, CLIENT, Input, Rules, SAID, SERVICE, World};

/// The path of the stream, as one side reported it.
fn way(world: &World, side: usize) -> Option<Result<(), NotDirect>> {
    let mut ways = world.events[side].iter().filter_map(|event| match event {
        Event::Direct { .. } => Some(Ok(())),
        Event::Relayed { why, .. } => Some(Err(*why)),
        _ => None,
    });
    let way = ways.next();
    assert_eq!(ways.next(), None, "it went two ways");
    way
}

/// Whether everything arrived, the two agree on the path, and nothing is left over. Returns whether the path was
/// direct.
fn arrived(world: &World) -> bool {
    for side in [CLIENT, SERVICE] {
        let (got, end) = world.got(side);
        assert_eq!(got, SAID[1 - side], "what came to side {side}");
        assert_eq!(end, Some(End::Clean));
        assert_eq!(world.connections(side), 0, "side {side} has connections left");
    }
    let ways = [CLIENT, SERVICE].map(|side| way(world, side).expect("it is noted").is_ok());
    assert_eq!(ways[0], ways[1], "they do not agree");
    ways[0]
}

/// The client's program got a truncated stream, with this event; the service's received no partial stream.
fn refused(world: &World, why: NotDirect) {
    let refused = Event::ConnectFailed { local: world.local(), why: ConnectFailure::NotDirect(why) };
    assert!(world.events[CLIENT].contains(&refused), "{:?}", world.events[CLIENT]);
    assert_ne!(world.got(CLIENT).1, Some(End::Clean), "it may not look like a stream's end");
    assert_eq!((world.got(CLIENT).0, world.got(SERVICE).0), (&b""[..], &b""[..]));
    for side in [CLIENT, SERVICE] {
        assert_eq!(world.connections(side), 0, "side {side} has connections left");
    }
}

const AGENT_ALONE: Rules = Rules { listens: [false, true], ..BOTH };
const CLIENT_ALONE: Rules = Rules { listens: [true, false], ..BOTH };

#[test]
fn the_agent_is_dialled_whatever_comes_first() {
    walk::all(World::new(AGENT_ALONE), &|world| assert!(arrived(world)));
}

#[test]
fn the_client_is_dialled_whatever_comes_first() {
    walk::all(World::new(CLIENT_ALONE), &|world| assert!(arrived(world)));
}

#[test]
fn both_dial_and_one_wins_whatever_comes_first() {
    let worlds = walk::all(World::new(BOTH), &|world| assert!(arrived(world)));
    assert!(worlds > 1_000, "{worlds} worlds are not all");
}

#[test]
fn dials_may_fail_and_patience_may_end_at_any_moment() {
    for listens in [[false, true], [true, false]] {
        let ways = RefCell::new([false; 2]);
        let rules = Rules { listens, dials_fail: true, late: true, ..BOTH };
        walk::all(World::new(rules), &|world| ways.borrow_mut()[usize::from(arrived(world))] = true);
        assert_eq!(ways.take(), [true; 2], "both ways are gone");
    }
}

#[test]
fn patience_may_end_while_both_dial() {
    walk::all(World::new(Rules { late: true, ..BOTH }), &|world| {
        arrived(world);
    });
}

#[test]
fn where_every_dial_fails_the_client_waits_for_the_agent_only_where_that_dials() {
    for listens in [[true; 2], [false, true], [true, false]] {
        // The time does not reveal whether the agent's dials were refused: the client's timeout elapses.
        let late = listens[CLIENT];
        let mut world = World::new(Rules { listens, dials_fail: true, late, ..BOTH });
        while let Some(input) = world.inputs().into_iter().max_by_key(|input| match input {
            Input::Refuse { .. } => 2,
            Input::Late => 0,
            _ => 1,
        }) {
            world.step(input);
        }
        assert!(!arrived(&world));
    }
}

#[test]
fn another_certificate_than_announced_is_refused_and_the_stream_stays_on_the_relay() {
    for (listens, forged) in [([false, true], [false, true]), ([true, false], [true, false])] {
        let rules = Rules { listens, forged, late: true, ..BOTH };
        walk::all(World::new(rules), &|world| assert!(!arrived(world)));
    }
    let world = walk::one(World::new(Rules { forged: [false, true], ..AGENT_ALONE }), 1);
    let why = NotDirect::Failed(ConnectError::Tls(TlsFailure::Certificate));
    assert_eq!(way(&world, CLIENT), Some(Err(why)));
}

/// The dialling endpoint presents a certificate too.
#[test]
fn a_dialling_party_with_another_certificate_is_refused() {
    for (listens, forged) in [([false, true], [true, false]), ([true, false], [false, true])] {
        let rules = Rules { listens, forged, late: true, ..BOTH };
        walk::all(World::new(rules), &|world| assert!(!arrived(world)));
    }
}

#[test]
fn where_a_direct_connection_is_required_nothing_else_will_do() {
    let rules = Rules { required: true, dials_fail: true, ..AGENT_ALONE };
    let ways = RefCell::new([false; 2]);
    walk::all(World::new(rules), &|world| {
        let is_direct = way(world, CLIENT).is_some();
        ways.borrow_mut()[usize::from(is_direct)] = true;
        if is_direct {
            assert!(arrived(world));
        } else {
            refused(world, NotDirect::Failed(ConnectError::Dial(DialFailure::Refused)));
        }
    });
    assert_eq!(ways.take(), [true; 2]);
}

#[test]
fn bytes_are_cut_everywhere() {
    for cut in [1, 2, 7] {
        for listens in [[true; 2], [false, true], [true, false]] {
            for seed in 0..40 {
                let (dials_fail, late) = (seed % 2 == 0, seed % 2 == 0 || seed % 3 == 0);
                let rules = Rules { listens, cut: Some(cut), dials_fail, late, ..BOTH };
                arrived(&walk::one(World::new(rules), seed));
            }
        }
    }
}

#[test]
fn without_an_agent_that_takes_part_no_line_is_said() {
    for required in [false, true] {
        let rules = Rules { required, ..CLIENT_ALONE };
        walk::all(World::with(rules, |_| (), |agent| agent.direct = None), &|world| {
            if required {
                return refused(world, NotDirect::Unsupported);
            }
            for side in [CLIENT, SERVICE] {
                assert_eq!(world.got(side), (SAID[1 - side], Some(End::Clean)));
            }
            assert_eq!(way(world, CLIENT), Some(Err(NotDirect::Unsupported)));
            assert_eq!(way(world, SERVICE), None);
        });
    }
}

#[test]
fn without_a_client_that_takes_part_no_line_is_said() {
    walk::all(World::with(AGENT_ALONE, |connector| connector.direct = None, |_| ()), &|world| {
        for side in [CLIENT, SERVICE] {
            assert_eq!(world.got(side), (SAID[1 - side], Some(End::Clean)));
            assert_eq!(way(world, side), None);
        }
    });
}

#[test]
fn where_neither_can_be_reached_no_line_is_said() {
    let rules = Rules { listens: [false; 2], ..BOTH };
    walk::all(World::new(rules), &|world| {
        for side in [CLIENT, SERVICE] {
            assert_eq!(world.got(side), (SAID[1 - side], Some(End::Clean)));
        }
        assert_eq!(way(world, CLIENT), Some(Err(NotDirect::NoAddress)));
    });
}

#[test]
fn a_client_that_may_be_dialled_by_nobody_stays_on_the_relay() {
    let world =
        World::with(CLIENT_ALONE, |_| (), |agent| agent.direct.as_mut().unwrap().policy = Policy::default());
    walk::all(world, &|world| assert!(!arrived(world)));
}

/// A relay that is killed loses what it has not forwarded, and may look like a peer that has ended cleanly. The
/// connector's decision by then determines the result.
#[test]
fn the_relay_may_break_at_any_moment() {
    for listens in [[false, true], [true, false]] {
        let ways = RefCell::new([false; 2]);
        walk::all(World::new(Rules { listens, breaks: true, ..BOTH }), &|world| {
            let mut world = world.clone();
            world.wait(Span::from_secs(60));
            let world = walk::one(world, 1);
            let is_direct = [CLIENT, SERVICE].map(|side| way(&world, side) == Some(Ok(())));
            assert_eq!(is_direct[0], is_direct[1], "they do not agree");
            ways.borrow_mut()[usize::from(is_direct[0])] = true;
            if is_direct[0] {
                assert!(arrived(&world));
            } else {
                // On a relay in clear, its end looks like a clean one.
                let stayed = way(&world, CLIENT).is_some();
                assert!(stayed || world.got(CLIENT).1 != Some(End::Clean), "that is no stream's end");
                assert_eq!(world.connections(CLIENT) + world.connections(SERVICE), 0);
            }
        });
        assert_eq!(ways.take(), [true; 2], "both ways are gone");
    }
}
