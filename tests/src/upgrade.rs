//! Processes of a relay take over from each other under constant requests, in a simulated world.

use std::cell::RefCell;
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous_core::agent::{self, POOL, POOL_MAX, Upstream};
use rendezvous_core::engine::{self, Transport};
use rendezvous_core::event::{Event, RelayLoss};
use rendezvous_core::machine::End;
use rendezvous_core::time::Span;

use crate::actors::{Behaviour, Client, Hidden, Style};
use crate::plan::{address, id};
use crate::rng::Rng;
use crate::run::{Run, Runs, SIZES, relay_address, upstream};
use crate::secured::Secured;
use crate::sim_net::Faults;

/// The interval between two requests.
const EACH: Span = Span::from_millis(50);
/// The interval between two take-overs.
const INTERVAL: Span = Span::from_secs(10);

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Upgrades {
    /// The requests.
    pub requests: usize,
    /// The statuses of the refused ones.
    pub refusals: Vec<u16>,
    /// Those that got no complete response.
    pub lost: usize,
    /// Whether the transfer that lasted all the time is complete.
    pub transferred: bool,
    /// Losses of the agent's connections that it waited after.
    pub backoffs: usize,
    /// Lines of its log about clean ends of waiting connections.
    pub reported: usize,
    /// Calls into the machines of the processes that were taken over from, in an idle minute.
    pub idle_steps: u64,
}

/// Lets `count` processes take over, one after the other.
///
/// # Panics
/// An invariant is violated.
#[must_use]
pub fn run(count: u64, round_trip: Span, is_tls: bool, secured: &Secured) -> Upgrades {
    let mut run = Run::new(3, Faults::path(round_trip));
    let transport = if is_tls { Transport::Tls } else { Transport::Plain };
    let config = engine::Config { listeners: vec![transport], ..engine::Config::default() };
    run.start_relay(config, SIZES, secured.server(is_tls), &[id(0)]);
    let at = address(2, id(0));
    let lasts = Span((count + 1) * INTERVAL.0);
    // The first client reads 100 times in all this time, the others at once.
    let (bytes, most) = (3_200, 32);
    run.add(Hidden::new(at, id(0), Style::Service, Rng::new(1)).holding(Behaviour::plain(bytes)), Some(at));
    let upstream = Upstream { pool_max: POOL_MAX, service: Some(at.into()), ..upstream(id(0), is_tls, POOL) };
    let config = agent::Config { upstreams: vec![upstream], ..agent::Config::default() };
    run.start_agent(config, Sizes::for_peer(), secured.peer(is_tls), 1);
    run.wait(Span::from_secs(5));
    let begins = run.now();
    let slow = Behaviour { read_most: most, read_rest: Span(lasts.0 / 100), ..Behaviour::plain(100) };
    let mut add = |number: u64, behaviour| {
        let client = Client::new(relay_address(), id(0), begins + Span(EACH.0 * number), behaviour);
        let client = Rc::new(RefCell::new(client.secured(secured.client(is_tls))));
        run.add(Rc::clone(&client), None);
        client
    };
    let transfer = add(0, slow);
    let all: Vec<_> = (1..lasts.0 / EACH.0).map(|number| add(number, Behaviour::plain(100))).collect();
    for number in 1..=count {
        run.until(begins + Span(number * INTERVAL.0));
        run.take_over(SIZES, secured.server(is_tls), None);
    }
    run.until_done(begins + lasts + Span::from_secs(60));
    run.wait(Span::from_secs(40));
    let steps = |run: &Run| run.retired.iter().map(Runs::steps).sum::<u64>();
    let before = steps(&run);
    run.wait(Span::from_secs(60));
    let idle_steps = steps(&run) - before;
    let mut losses = run.agents[0].events.iter().filter_map(|event| match event {
        Event::RelayLost { why, again, .. } => Some((*why, *again)),
        _ => None,
    });
    let is_whole = |client: &Rc<RefCell<Client>>| {
        let client = client.borrow();
        client.met && client.peer_end() == Some(End::Clean)
    };
    let result = Upgrades {
        requests: all.len(),
        refusals: all.iter().flat_map(|client| client.borrow().refusals.clone()).collect(),
        lost: all.iter().filter(|client| !is_whole(client)).count(),
        transferred: is_whole(&transfer),
        backoffs: losses.clone().filter(|(_, again)| *again > Span::ZERO).count(),
        reported: losses.by_ref().filter(|(why, _)| *why == RelayLoss::Ended(End::Clean)).count(),
        idle_steps,
    };
    run.leave();
    result
}
