//! All connections and programs of the load, and the one loop that serves them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use tests::rng::Rng;

use crate::Failure;
use crate::client::{self, Client, Common, Fate, Role};
use crate::conn::{self, Conn};
use crate::ground::{self, Agent, Folder, Relay};
use crate::ledger::{ByteLedger, CLIENT, HIDDEN, Plan};

/// Identities whose waiting connections belong to the load itself.
const OWN: usize = 48;
/// Real agents that keep running, and those that are killed in turn.
const STEADY: usize = 2;
const MORTAL: usize = 6;
/// Maximum number of hidden servers whose CONNECT is not answered yet.
const ASKING_MAX: usize = 128;
/// Pairs that last from the beginning to the end: slow ones, and fast ones.
const SLOW: (usize, u64) = (24, 4 << 10);
const FAST: (usize, u64) = (4, 1 << 20);
/// The longest wait of a turn of the loop.
const TICK: Duration = Duration::from_millis(10);
/// The local service of the real agents.
const SERVICE: Token = Token(usize::MAX);

/// All connections, and the programs that run.
pub(crate) struct Clients {
    poll: Poll,
    parties: Vec<Option<Client>>,
    free: Vec<usize>,
    /// The paced connections.
    paced: Vec<usize>,
    service: TcpListener,
    tls: Arc<ClientConfig>,
    rng: Rng,
    pub(crate) common: Common,
    agents: Vec<Agent>,
    /// The killed agent, and since when it is dead.
    dead: Option<(usize, Instant)>,
    next_victim: usize,
    // Last, so that it is dropped after everything that uses it.
    pub(crate) relay: Relay,
    folder: Folder,
    scratch: Vec<u8>,
}

/// Numbers of connections by kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    pub(crate) waiting: usize,
    pub(crate) asking: usize,
    /// Both kinds, of each identity.
    of: [usize; OWN],
}

impl Clients {
    pub(crate) fn new(binary: &Path, seed: u64) -> Result<Self, Failure> {
        let folder = Folder::new()?;
        let identities = ground::enrol(&folder, OWN + STEADY + MORTAL)?;
        let relay = Relay::start(binary, &folder)?;
        let mut service = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let poll = Poll::new()?;
        poll.registry().register(&mut service, SERVICE, Interest::READABLE)?;
        Ok(Self {
            poll,
            parties: Vec::new(),
            free: Vec::new(),
            paced: Vec::new(),
            service,
            tls: conn::client_config()?,
            rng: Rng::new(seed),
            common: Common { seed, ledger: ByteLedger::default(), identities, stopping: false },
            agents: Vec::new(),
            dead: None,
            next_victim: 0,
            relay,
            folder,
            scratch: vec![0; 64 << 10],
        })
    }

    /// Starts the real agents.
    pub(crate) fn start_agents(&mut self) -> Result<(), Failure> {
        let service = self.service.local_addr()?;
        for identity in OWN..OWN + STEADY + MORTAL {
            let ticket = self.relay.ticket(&self.folder, &self.common.identities[identity])?;
            // They are treated as killed until they have connected.
            self.common.ledger.killed(identity);
            self.agents.push(Agent::start(&self.relay, ticket, service, identity)?);
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts { connections: 0, waiting: 0, asking: 0, of: [0; OWN] };
        for client in self.parties.iter().flatten() {
            // A connection from an agent is not one of the relay's.
            counts.connections += u64::from(client.identity.is_some());
            let waits = matches!(client.role, Role::Waiting);
            let asks = matches!(client.role, Role::Asking { .. });
            counts.waiting += usize::from(waits);
            counts.asking += usize::from(asks);
            if let Some(identity) = client.identity.filter(|_| waits || asks) {
                counts.of[identity] += 1;
            }
        }
        counts
    }

    /// Waits for events, at most a tick, and serves them, and then the paced connections.
    pub(crate) fn turn(&mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(TICK)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            if event.token() == SERVICE { self.accept()? } else { self.serve(event.token().0) }
        }
        for at in 0..self.paced.len() {
            self.serve(self.paced[at]);
        }
        let parties = &self.parties;
        self.paced.retain(|at| parties[*at].is_some());
        Ok(())
    }

    fn serve(&mut self, at: usize) {
        // An event of a closed connection may find no connection, or another one, which tolerates it.
        let Some(client) = self.parties.get_mut(at).and_then(Option::as_mut) else { return };
        match client.turn(&mut self.common, &mut self.scratch) {
            Fate::Stays => {
                let is_paced = |it: &Client| match &it.role {
                    Role::Moving(traffic) => {
                        self.common.ledger.plan(traffic.pair).is_some_and(|plan| plan.pace.is_some())
                    }
                    _ => false,
                };
                if is_paced(client) && !self.paced.contains(&at) {
                    self.paced.push(at);
                }
            }
            fate => self.remove(at, fate),
        }
    }

    fn remove(&mut self, at: usize, fate: Fate) {
        let Some(client) = self.parties[at].take() else { return };
        self.free.push(at);
        client.over(&mut self.common);
        if fate == Fate::Resets {
            client.conn.reset();
        }
    }

    fn add(&mut self, mut client: Client) -> Result<(), Failure> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.parties.push(None);
            self.parties.len() - 1
        });
        client.conn.register(self.poll.registry(), Token(at))?;
        self.parties[at] = Some(client);
        Ok(())
    }

    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            match self.service.accept() {
                Ok((socket, _)) => {
                    let role = Role::Hearing { head: Vec::new() };
                    self.add(Client { conn: Conn::accepted(socket), role, identity: None })?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The agent was killed in between.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Connects to the relay from anywhere in 127.0.0.0/8, every other time with TLS.
    fn connect(&mut self) -> Result<Conn, Failure> {
        let [a, b, c, _, _, _, _, in_tls] = self.rng.next_u64().to_le_bytes();
        let from = Ipv4Addr::new(127, a % 250 + 1, b, c % 250 + 1);
        if in_tls % 2 == 0 {
            Conn::connect(from, self.relay.tls, Some(&self.tls))
        } else {
            Conn::connect(from, self.relay.clear, None)
        }
    }

    /// Opens waiting connections up to this number, a few at a time.
    pub(crate) fn fill_up(&mut self, wanted: usize) -> Result<Counts, Failure> {
        let mut counts = self.counts();
        let missing = wanted.saturating_sub(counts.waiting + counts.asking);
        for _ in 0..missing.min(ASKING_MAX.saturating_sub(counts.asking)) {
            // The identity with the fewest.
            let identity = (0..OWN).min_by_key(|identity| counts.of[*identity]).unwrap_or(0);
            counts.of[identity] += 1;
            let mut conn = self.connect()?;
            conn.emit(self.common.identities[identity].connect()?.as_bytes())?;
            self.add(Client { conn, role: Role::Asking { answer: Vec::new() }, identity: Some(identity) })?;
        }
        Ok(counts)
    }

    /// Ends one waiting connection, cleanly or not.
    pub(crate) fn one_leaves(&mut self) {
        let start = self.rng.below(self.parties.len() as u64) as usize;
        let waits = |at: &usize| matches!(&self.parties[*at], Some(Client { role: Role::Waiting, .. }));
        let Some(at) = (start..self.parties.len()).find(waits) else { return };
        let fate = if self.rng.below(2) == 0 { Fate::Closes } else { Fate::Resets };
        if let Some(identity) = self.parties[at].as_ref().and_then(|client| client.identity) {
            self.common.ledger.left(identity);
        }
        self.remove(at, fate);
    }

    /// Starts a client with this plan.
    pub(crate) fn call(&mut self, plan: Plan) -> Result<(), Failure> {
        let pair = self.common.ledger.open(plan);
        let conn = self.connect()?;
        self.add(client::client(conn, pair, &self.common)?)
    }

    /// Starts the pairs that last, with hidden servers that are never killed.
    pub(crate) fn call_for_long(&mut self) -> Result<(), Failure> {
        for (count, pace) in [SLOW, FAST] {
            for number in 0..count {
                // Every fourth one through a real agent.
                let identity = if number % 4 == 0 { OWN + number / 4 % STEADY } else { number };
                let lengths = [u64::MAX; 2];
                self.call(Plan { identity, lengths, pace: Some(pace), breaks: None, at_once: false })?;
            }
        }
        Ok(())
    }

    /// Starts an ordinary client.
    pub(crate) fn call_any(&mut self) -> Result<(), Failure> {
        let rng = &mut self.rng;
        let identity = rng.below((OWN + STEADY + MORTAL) as u64) as usize;
        let lengths = [rng.length(1 << 20), rng.length(1 << 20)];
        let breaker = if rng.below(2) == 0 { CLIENT } else { HIDDEN };
        let breaks = (rng.below(8) == 0).then(|| (breaker, rng.below(lengths[breaker] + 1)));
        let at_once = rng.below(2) == 0;
        // A quarter are slow, up to a minute.
        let pace = (rng.below(4) == 0).then_some(16 << 10);
        self.call(Plan { identity, lengths, pace, breaks, at_once })
    }

    /// Kills an agent. The one killed before starts again.
    pub(crate) fn kill_agent(&mut self) -> Result<(), Failure> {
        self.revive()?;
        let victim = STEADY + self.next_victim % MORTAL;
        self.next_victim += 1;
        let agent = &mut self.agents[victim];
        agent.kill()?;
        self.common.ledger.killed(agent.identity);
        self.dead = Some((victim, Instant::now()));
        Ok(())
    }

    /// Starts the dead agent again, after a second.
    pub(crate) fn revive_in_time(&mut self) -> Result<(), Failure> {
        match self.dead {
            Some((_, since)) if since.elapsed() > Duration::from_secs(1) => self.revive(),
            _ => Ok(()),
        }
    }

    fn revive(&mut self) -> Result<(), Failure> {
        match self.dead.take() {
            Some((agent, _)) => self.agents[agent].start_again(&self.relay),
            None => Ok(()),
        }
    }

    /// Everything except the relay leaves.
    pub(crate) fn leave(&mut self) {
        self.agents.clear();
        for at in 0..self.parties.len() {
            self.remove(at, Fate::Closes);
        }
        self.paced.clear();
    }
}
