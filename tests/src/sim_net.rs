//! [`SimNet`]: a simulated network for the event loop. It has sockets as Linux makes them, all their faults, and a
//! simulated clock.
//!
//! Several loops live in one [`World`], and one thread runs them all. [`Net::wait`] never blocks; it records when its
//! loop is to run again ([`World::next_ready`]). The behaviour is that of edge-triggered epoll on Linux: when the state
//! of a socket changes, the next poll of its loop reports everything that it is ready for, and then nothing until the
//! next change.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use rendezvous::net::{Edge, GENERATION_MASK, Net, Resolved};
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Now, Span};

pub use self::attention::Attention;
use self::pipe::{Pipe, Pipes};
pub use self::tcp::Ep;
use self::world::What;
pub use self::world::{Fate, Faults, ProcessId, WALL, World};

mod attention;
mod opening;
mod pipe;
mod tcp;
mod transfer;
mod world;

/// The world, as shared by all its processes.
pub type Shared = Rc<RefCell<World>>;

/// One process's view of the world.
pub struct SimNet {
    world: Shared,
    who: ProcessId,
    pipes: Pipes,
}

impl SimNet {
    /// The view of the process `who`.
    #[must_use]
    pub fn new(world: Shared, who: ProcessId) -> Self {
        Self { world, who, pipes: Pipes::default() }
    }
}

impl Net for SimNet {
    type Sock = Ep;
    type Pipe = Pipe;

    const BULK_MIN: usize = 64;

    fn now(&mut self) -> Now {
        self.world.borrow().clocks(self.who)
    }

    fn wait(&mut self, edges: &mut Vec<Edge>, at_most: Option<Span>) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let before = edges.len();
        world.residents[self.who.0].turns += 1;
        world.edges(self.who, edges);
        world.rest(self.who, edges.len() > before, at_most);
        Ok(())
    }

    fn accept(&mut self, on: u16) -> io::Result<(Ep, SocketAddr)> {
        self.world.borrow_mut().accept_for(self.who, on)
    }

    fn rearm(&mut self, on: u16) -> io::Result<()> {
        self.world.borrow_mut().rearm(self.who, on);
        Ok(())
    }

    fn stop_listening(&mut self) {
        self.world.borrow_mut().stop_listening(self.who);
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Ep> {
        self.world.borrow_mut().connect(self.who, to).map_err(Into::into)
    }

    fn connected(&mut self, sock: &mut Ep) -> io::Result<bool> {
        self.world.borrow_mut().connected(*sock)
    }

    fn local_address(&mut self, sock: &mut Ep) -> io::Result<SocketAddr> {
        Ok(self.world.borrow().local_address(self.who, *sock))
    }

    fn watch(&mut self, sock: &mut Ep, token: ConnId) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        world.watch(self.who, *sock, token);
        Ok(())
    }

    fn recv(&mut self, sock: &mut Ep, into: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        world.attend(self.who, *sock);
        world.recv(*sock, into)
    }

    fn peek_end(&mut self, sock: &mut Ep) -> io::Result<bool> {
        let mut world = self.world.borrow_mut();
        world.attend(self.who, *sock);
        world.peek_end(*sock)
    }

    fn send(&mut self, sock: &mut Ep, from: &[u8]) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        world.attend(self.who, *sock);
        world.send(*sock, from)
    }

    fn take_pipe(&mut self, _: &Ep, _: &Ep) -> Option<Pipe> {
        self.pipes.take()
    }

    fn give_pipe(&mut self, _: Pipe) {
        self.pipes.give();
    }

    fn splice_in(&mut self, sock: &mut Ep, pipe: &mut Pipe, at_most: usize) -> io::Result<usize> {
        pipe.fill(at_most, |into| self.recv(sock, into))
    }

    fn splice_out(&mut self, pipe: &mut Pipe, sock: &mut Ep) -> io::Result<usize> {
        pipe.empty(|from| self.send(sock, from))
    }

    fn end_write(&mut self, sock: &mut Ep) -> io::Result<()> {
        self.world.borrow_mut().end_write(*sock)
    }

    fn close(&mut self, sock: Ep) {
        self.world.borrow_mut().close(sock);
    }

    fn abort(&mut self, sock: Ep) {
        self.world.borrow_mut().abort(sock);
    }

    fn take_error(&mut self, sock: &mut Ep) -> Option<io::Error> {
        self.world.borrow_mut().ends[sock.0].error.take().map(Into::into)
    }

    fn user_timeout(&mut self, sock: &mut Ep, after: Option<Span>) {
        self.world.borrow_mut().ends[sock.0].user_timeout = after;
    }

    fn last_ack(&mut self, sock: &mut Ep) -> Option<Span> {
        self.world.borrow().last_ack(*sock)
    }

    fn round_trip(&mut self, sock: &mut Ep) -> Option<Span> {
        Some(self.world.borrow().round_trip(*sock))
    }

    fn unacknowledged(&mut self, sock: &mut Ep) -> usize {
        self.world.borrow().unacknowledged(*sock)
    }

    fn resolve(&mut self, on: ConnId, host: &str, port: u16) {
        self.world.borrow_mut().look_up(self.who, on, host, port);
    }

    fn resolved(&mut self) -> Option<Resolved> {
        let (on, addresses) = self.world.borrow_mut().looked_up(self.who)?;
        Some(Resolved { on, addresses, is_complete: true })
    }
}

impl World {
    fn watch(&mut self, who: ProcessId, ep: Ep, token: ConnId) {
        self.ends[ep.0].token = Some(token);
        let watched = &mut self.residents[who.0].watched;
        let index = token.index as usize;
        if watched.len() <= index {
            watched.resize(index + 1, None);
        }
        watched[index] = Some(ep);
        self.wake(ep);
    }

    /// Collects what became ready for a process since its last poll.
    fn edges(&mut self, who: ProcessId, edges: &mut Vec<Edge>) {
        let before = edges.len();
        for ep in std::mem::take(&mut self.residents[who.0].woken) {
            let room = self.room(ep) >= self.links[ep.0 / 2].send_room.div_ceil(3);
            let tcp = &mut self.ends[ep.0];
            tcp.queued = false;
            let (Some(token), false) = (tcp.token, tcp.closed) else { continue };
            let broken = tcp.dead || tcp.error.is_some();
            let (read, write) = match tcp.opening {
                tcp::Opening::Begun => (false, false),
                tcp::Opening::Failed(_) => (true, true),
                tcp::Opening::Up => (tcp.is_readable(), room || broken || tcp.fin_sent),
            };
            if read || write {
                self.attend(who, ep);
                edges.push(Edge::Conn { token: masked(token), read, write });
            }
        }
        for token in std::mem::take(&mut self.residents[who.0].stale) {
            edges.push(Edge::Conn { token: masked(token), read: true, write: true });
        }
        for at in &self.residents[who.0].listeners {
            let Some(listening) = self.listening.get_mut(at) else { continue };
            if !listening.muted && !listening.backlog.is_empty() && !listening.told {
                listening.told = true;
                edges.push(Edge::Listener(listening.number));
            }
        }
        if self.rng.one_of_thousand(self.faults.spurious) {
            self.invent(who, edges);
        }
        for edge in &edges[before..] {
            self.event(|log| {
                let _ = write!(log, "{who:?} {edge:?}");
            });
        }
    }

    /// A spurious edge.
    fn invent(&mut self, who: ProcessId, edges: &mut Vec<Edge>) {
        let at = usize::try_from(self.rng.below(self.ends.len() as u64)).unwrap_or(0);
        if let Some(tcp) = self.ends.get(at)
            && let (Some(token), true) = (tcp.token, tcp.owner == Some(who))
        {
            edges.push(Edge::Conn { token: masked(token), read: true, write: true });
        }
        edges.push(Edge::Listener(0));
    }

    /// A process waits: it runs again at once if there is something to do, else at its timeout.
    fn rest(&mut self, who: ProcessId, news: bool, at_most: Option<Span>) {
        let now = self.now;
        let resident = &mut self.residents[who.0];
        // Its timeout counts from its last turn.
        let awake = resident.turned_at.replace(now) != Some(now);
        if news || awake || at_most == Some(Span::ZERO) {
            resident.wake_at = None;
            return self.schedule(who);
        }
        let Some(at_most) = at_most else { return };
        let mut until = now + Span::from_millis(at_most.as_millis_up());
        if self.rng.one_of_thousand(self.faults.late) {
            until = if self.rng.below(2) == 0 {
                until + Span(self.rng.below(5_000))
            } else {
                now + Span(1 + self.rng.below(at_most.0))
            };
        }
        self.residents[who.0].wake_at = Some(until);
        self.sleep_until(who, until);
    }

    fn accept_for(&mut self, who: ProcessId, on: u16) -> io::Result<(Ep, SocketAddr)> {
        let at = self.residents[who.0].listeners.get(usize::from(on)).copied();
        let at = at.ok_or(ErrorKind::WouldBlock)?;
        let listening = self.listening.get_mut(&at).ok_or(ErrorKind::WouldBlock)?;
        let Some(&ep) = listening.backlog.front() else { return Err(ErrorKind::WouldBlock.into()) };
        let resident = &self.residents[who.0];
        if resident.descriptors >= resident.descriptors_max
            || self.rng.one_of_thousand(self.faults.no_descriptor)
        {
            listening.muted = true;
            self.event(|log| {
                let _ = write!(log, "{who:?} has no descriptor for {ep:?}");
            });
            return Err(io::Error::from_raw_os_error(24));
        }
        let aborted = self.ends[ep.0].dead && self.rng.one_of_thousand(self.faults.aborted);
        let from = self.ends[ep.peer().0].owner.map_or(at, |peer| self.address_of(peer, ep));
        self.accept(at);
        if aborted {
            self.close(ep);
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok((ep, from))
    }

    fn rearm(&mut self, who: ProcessId, on: u16) {
        let at = self.residents[who.0].listeners.get(usize::from(on)).copied();
        if let Some(listening) = at.and_then(|at| self.listening.get_mut(&at)) {
            listening.muted = false;
            listening.told = false;
            if !listening.backlog.is_empty() {
                self.schedule(who);
            }
        }
    }

    fn look_up(&mut self, who: ProcessId, on: ConnId, host: &str, port: u16) {
        let Some(addresses) = self.names.get(host) else { return };
        let with_port = |address: &SocketAddr| SocketAddr::new(address.ip(), port);
        let addresses: Vec<_> = addresses.iter().map(with_port).collect();
        let at = self.now + Span(self.rng.below(3_000_000));
        self.residents[who.0].names.push_back((at, on, addresses));
        self.at(at, What::Named(who));
    }

    fn looked_up(&mut self, who: ProcessId) -> Option<(ConnId, Vec<SocketAddr>)> {
        let now = self.now;
        let names = &mut self.residents[who.0].names;
        let at = names.iter().position(|(at, _, _)| *at <= now)?;
        names.remove(at).map(|(_, on, addresses)| (on, addresses))
    }
}

const fn masked(token: ConnId) -> ConnId {
    ConnId { index: token.index, generation: token.generation & GENERATION_MASK }
}
