//! A relay that is away for a while, and the agents that come back to it, in a simulated world.

use std::cell::RefCell;
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous_core::agent::{self, Upstream};
use rendezvous_core::engine::{self, Transport};
use rendezvous_core::id::Id;
use rendezvous_core::time::Span;

use crate::actors::{Actor, Behaviour, Client, Hidden, Style};
use crate::plan::{address, id};
use crate::rng::Rng;
use crate::run::{Run, SIZES, relay_address, upstream};
use crate::secured::Secured;
use crate::sim_net::Faults;

/// The agents and their relay.
#[derive(Clone, Copy, Debug)]
pub struct Agents {
    /// How many agents there are, each with an ID of its own.
    pub count: u64,
    /// Connections of each that wait.
    pub pool: u16,
    /// The time of a round trip.
    pub round_trip: Span,
    /// The relay speaks TLS.
    pub is_tls: bool,
}

/// What came of it, counted from the moment when the relay listens again.
#[derive(Clone, Debug)]
pub struct Return {
    /// When the first connection of each agent waits again.
    pub agents_after: Span,
    /// The statuses of the clients that were refused.
    pub refusals: Vec<u16>,
    /// When the last client has its whole answer.
    pub clients_after: Span,
}

/// The relay is killed, and another one listens at its address after `absence`. So many clients, each of another agent,
/// begin in the moment when it does.
///
/// # Panics
/// Something that must hold does not.
#[must_use]
pub fn run(agents: Agents, absence: Span, clients: u64, secured: &Secured) -> Return {
    let mut run = Run::new(1, Faults::path(agents.round_trip));
    let ids: Vec<Id> = (0..agents.count).map(id).collect();
    let start_relay = |run: &mut Run| {
        let transport = if agents.is_tls { Transport::Tls } else { Transport::Plain };
        let config = engine::Config { listeners: vec![transport], ..engine::Config::default() };
        run.start_relay(config, SIZES, secured.server(agents.is_tls), &ids);
    };
    start_relay(&mut run);
    for &id in ids.iter().take(usize::try_from(clients).unwrap_or(usize::MAX)) {
        let at = address(2, id);
        run.add(Hidden::new(at, id, Style::Service, Rng::new(1)).holding(Behaviour::plain(100)), Some(at));
    }
    for ((&id, number), seed) in ids.iter().zip(0..).zip((0..=u8::MAX).cycle()) {
        let service = (number < clients).then(|| address(2, id).into());
        let upstream = Upstream { service, ..upstream(id, agents.is_tls, agents.pool) };
        let config = agent::Config { upstreams: vec![upstream], ..agent::Config::default() };
        run.start_agent(config, Sizes::for_peer(), secured.peer(agents.is_tls), seed);
    }
    run.wait(Span::from_secs(60));
    assert!(all_wait(&run), "an agent does not come at all");
    run.kill_relay();
    run.wait(absence);
    assert!(!all_wait(&run), "nobody is there");
    start_relay(&mut run);
    let returns = run.now();
    let deadline = returns + Span::from_secs(120);
    let all: Vec<_> = (0..clients)
        .map(|number| {
            let client = Client::new(relay_address(), id(number), returns, Behaviour::plain(100));
            let client = Rc::new(RefCell::new(client.secured(secured.client(agents.is_tls))));
            run.add(Rc::clone(&client), None);
            client
        })
        .collect();
    assert!(run.until_or(deadline, |run| all_wait(run)), "an agent does not come back");
    let agents_after = run.now().since(returns);
    let are_done = |_: &mut Run| all.iter().all(|client| client.borrow().is_done());
    assert!(run.until_or(deadline, are_done), "a client waits for ever");
    let clients_after = run.now().since(returns);
    let refusals = all.iter().flat_map(|client| client.borrow().refusals.clone()).collect();
    run.leave();
    Return { agents_after, refusals, clients_after }
}

/// Whether each agent has a connection that waits.
fn all_wait(run: &Run) -> bool {
    run.agents.iter().all(|agent| agent.event_loop.machine().inner().waiting(0) > 0)
}
