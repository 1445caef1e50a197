//! Attackers that use up a relay's memory, beside honest clients, in a simulated world.

use std::cell::RefCell;
use std::rc::Rc;

use rendezvous::buffer::{SMALL, Sizes};
use rendezvous_core::engine::{self, Transport};
use rendezvous_core::machine::End;
use rendezvous_core::time::{Span, Time};

use crate::actors::{Actor, Behaviour, Client, Greedy, Hidden, Style};
use crate::plan::id;
use crate::rng::Rng;
use crate::run::{Run, relay_address};
use crate::secured::Secured;
use crate::sim_net::Faults;

/// The longest time that an honest client waits for its complete response, however many attackers there are: the time
/// after which an attacker without progress loses its memory, and the latency of a request.
pub const WAIT_MAX: Span = Span::from_millis(1_200);
/// All attackers connect within this time.
const GATHERING: Span = Span::from_secs(1);
/// Number of honest clients.
const ROUNDS: u64 = 6;
/// The address of honest clients.
const HONEST: u8 = 249;

/// Kinds of attackers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They request a large response and read nothing of it.
    SlowReader,
    /// They request a large response and read ten bytes of it per second.
    DripReader,
    /// They send most of a head.
    HalfHead,
    /// They send most of a ClientHello.
    HalfHello,
    /// They send request after request, and read no response.
    Pipeliner,
}

impl Kind {
    /// The kinds without TLS.
    pub const IN_CLEAR: [Self; 4] = [Self::SlowReader, Self::DripReader, Self::HalfHead, Self::Pipeliner];
}

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub struct Siege {
    /// The longest time that an honest client waited.
    pub waited: Span,
    /// Connections that lost their memory.
    pub stalled: u64,
    /// The most bytes that were charged when an honest client came.
    pub bytes: usize,
}

/// Runs attackers of these kinds, from this many addresses, and honest clients of another hidden server: from an
/// address of their own, and from the attackers' first one. `ceiling` is the relay's memory limit.
///
/// # Panics
/// An honest client is not answered in time, or another invariant is violated.
#[must_use]
pub fn lay(kinds: &[Kind], attackers: u64, addresses: u8, ceiling: usize) -> Siege {
    let tls = kinds.contains(&Kind::HalfHello);
    let secured = Secured::new();
    let faults = Faults { latency_max: Span::from_millis(3), room_max: 32_768, ..Faults::default() };
    let mut run = Run::new(attackers, faults);
    let config = engine::Config {
        listeners: vec![if tls { Transport::Tls } else { Transport::Plain }],
        connections_per_address_max: 0,
        ..engine::Config::default()
    };
    let sizes = Sizes { head: SMALL, bulk: 64 * 1024, ceiling };
    run.start_relay(config, sizes, secured.server(tls), &[id(0), id(1)]);
    for (number, bytes) in [(0, 150_000), (1, 3_000)] {
        let style = Style::Modern { pool: 24 };
        let hidden = Hidden::new(relay_address(), id(number), style, Rng::new(number));
        run.add(hidden.holding(Behaviour::plain(bytes)).secured(secured.client(tls)), None);
    }
    run.wait(Span::from_secs(1));
    for number in 0..attackers {
        let begins = run.now() + Span(number * GATHERING.0 / attackers);
        let place = 200 + (number % u64::from(addresses)) as u8;
        let turn = number / u64::from(addresses) % kinds.len() as u64;
        let actor = match kinds[turn as usize] {
            Kind::SlowReader => run.add(reader(begins, 0, Span::ZERO), None),
            Kind::DripReader => run.add(reader(begins, 10, Span::from_secs(1)), None),
            Kind::HalfHead => {
                let text = format!("GET / HTTP/1.1\r\nHost: relay\r\nX: {}", "x".repeat(15_000));
                run.add(Greedy::new(relay_address(), begins, text.into_bytes(), false), None)
            }
            Kind::HalfHello => run.add(Greedy::new(relay_address(), begins, half_hello(), false), None),
            Kind::Pipeliner => {
                let text = "GET / HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(400);
                run.add(Greedy::new(relay_address(), begins, text.into_bytes(), true), None)
            }
        };
        let who = run.who(actor);
        run.world.borrow_mut().place(who, place);
    }
    let mut siege = Siege { waited: Span::ZERO, stalled: 0, bytes: 0 };
    run.wait(Span(GATHERING.0 / 2));
    for round in 0..ROUNDS {
        let begins = run.now();
        let place = if round % 2 == 0 { HONEST } else { 200 };
        let client = Client::new(relay_address(), id(1), begins, Behaviour::plain(100));
        let client = Rc::new(RefCell::new(client.secured(secured.client(tls))));
        let actor = run.add(Rc::clone(&client), None);
        let who = run.who(actor);
        run.world.borrow_mut().place(who, place);
        siege.bytes = siege.bytes.max(bytes(&run));
        let in_time = run.until_or(begins + WAIT_MAX, |_| client.borrow().is_done());
        let client = client.borrow();
        assert!(
            in_time,
            "{kinds:?}, {attackers} of {addresses}: client {round} waits, {:?}",
            client.refusals
        );
        assert!(client.met, "{kinds:?}, {attackers} of {addresses}: client {round} {:?}", client.refusals);
        assert_eq!(client.peer_end(), Some(End::Clean), "{kinds:?}: client {round}");
        siege.waited = siege.waited.max(run.now().since(begins));
        run.wait(Span::from_millis(150));
    }
    // Small handshakes and heads that have just begun are not dropped, so they and one queue may exceed the limit.
    let most = ceiling + ceiling / 16 + SMALL;
    assert!(siege.bytes <= most, "{kinds:?}: {} bytes, more than {most}", siege.bytes);
    siege.stalled = run.relay.as_ref().map_or(0, |relay| relay.event_loop.machine().stalled);
    run.leave();
    siege
}

fn bytes(run: &Run) -> usize {
    run.relay.as_ref().map_or(0, |relay| relay.event_loop.buffer_bytes())
}

/// A client of the first hidden server that reads this much of its response at a time, and then pauses.
fn reader(begins: Time, read_most: usize, read_rest: Span) -> Client {
    let behaviour =
        Behaviour { read_most, read_rest, patience: Span::from_secs(600), ..Behaviour::plain(100) };
    Client::new(relay_address(), id(0), begins, behaviour)
}

/// A ClientHello of 16,000 bytes that is never completed.
fn half_hello() -> Vec<u8> {
    let mut hello = vec![22, 3, 1, 0x3e, 0x84, 1, 0, 0x3e, 0x80, 3, 3];
    hello.resize(15_900, 7);
    hello
}
