//! Many simultaneous clients of one hidden server whose agent is far from the relay, in a simulated world.

use std::cell::RefCell;
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous_core::agent::{self, POOL, Upstream};
use rendezvous_core::engine::{self, Transport};
use rendezvous_core::event::Event;
use rendezvous_core::time::Span;

use crate::actors::{Actor, Behaviour, Client, Hidden, Style};
use crate::plan::{address, id};
use crate::rng::Rng;
use crate::run::{Run, SIZES, relay_address, upstream};
use crate::secured::Secured;
use crate::sim_net::Faults;

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Burst {
    /// The statuses of the refused clients.
    pub refusals: Vec<u16>,
    /// How long the slowest client waited for its complete response.
    pub slowest: Span,
    /// Connections that the agent lost.
    pub lost: usize,
    /// Connections that wait two minutes later.
    pub waiting: u32,
}

/// Starts all clients at the same moment. Each round trip, including that of the agent to its service, takes
/// `round_trip`. The agent's pool has the default size and grows up to `pool_max`.
///
/// # Panics
/// An invariant is violated.
#[must_use]
pub fn run(clients: usize, round_trip: Span, pool_max: u16, secured: &Secured) -> Burst {
    let mut run = Run::new(1, Faults::path(round_trip));
    let config = engine::Config { listeners: vec![Transport::Tls], ..engine::Config::default() };
    run.start_relay(config, SIZES, secured.server(true), &[id(0)]);
    let at = address(2, id(0));
    run.add(Hidden::new(at, id(0), Style::Service, Rng::new(1)).holding(Behaviour::plain(100)), Some(at));
    let upstream = Upstream { pool_max, service: Some(at.into()), ..upstream(id(0), true, POOL) };
    let config = agent::Config { upstreams: vec![upstream], ..agent::Config::default() };
    run.start_agent(config, Sizes::for_peer(), secured.peer(true), 1);
    run.wait(Span::from_secs(60));
    let begins = run.now();
    let all: Vec<_> = (0..clients as u64)
        .map(|number| {
            // If all came in the same microsecond, they would not fit into the backlog of the relay's listener.
            let begins = begins + Span(100 * number);
            let client = Client::new(relay_address(), id(0), begins, Behaviour::plain(100));
            let client = Rc::new(RefCell::new(client.secured(secured.client(true))));
            run.add(Rc::clone(&client), None);
            client
        })
        .collect();
    let are_done =
        run.until_or(begins + Span::from_secs(30), |_| all.iter().all(|client| client.borrow().is_done()));
    assert!(are_done, "a client waits for ever");
    let slowest = run.now().since(begins);
    let refusals = all.iter().flat_map(|client| client.borrow().refusals.clone()).collect();
    run.wait(Span::from_secs(120));
    let agent = &run.agents[0];
    let lost = agent.events.iter().filter(|event| matches!(event, Event::RelayLost { .. })).count();
    let waiting = agent.event_loop.machine().inner().waiting(0);
    run.leave();
    Burst { refusals, slowest, lost, waiting }
}
