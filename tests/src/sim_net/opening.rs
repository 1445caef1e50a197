//! How connections are established: SYNs, listeners, backlogs.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use rendezvous_core::time::Span;

use super::tcp::{Ep, Link, Opening, Tcp};
use super::world::{Fate, ProcessId, What, World};

impl World {
    /// Starts to connect.
    ///
    /// # Errors
    /// No descriptor, or no route.
    pub fn connect(&mut self, who: ProcessId, to: SocketAddr) -> Result<Ep, ErrorKind> {
        if self.fates.get(&to) == Some(&Fate::Unreachable) {
            return Err(ErrorKind::HostUnreachable);
        }
        if self.residents[who.0].descriptors >= self.residents[who.0].descriptors_max {
            return Err(ErrorKind::Other);
        }
        self.residents[who.0].descriptors += 1;
        let ep = Ep(self.ends.len());
        let least = self.faults.latency_min.0.max(1);
        let latency = Span(self.rng.between(least, self.faults.latency_max.0.max(least)));
        let room_max = self.faults.room_max.max(1) as u64;
        let mut room = || usize::try_from(1 + (room_max >> 8) + self.rng.length(room_max)).unwrap_or(1);
        let (receive_room, send_room) = (room(), room());
        self.links.push(Link {
            to,
            latency,
            receive_room,
            send_room,
            lost: false,
            tries: 0,
            verdict: Opening::Begun,
        });
        self.ends.push(Tcp::new(Some(who), self.now));
        self.ends.push(Tcp::new(None, self.now));
        self.at(self.now + latency, What::Syn(ep));
        self.event(|log| {
            let _ = write!(log, "{who:?} connect {ep:?} to {to}");
        });
        Ok(ep)
    }

    /// The local address of a connection, dialled or accepted.
    #[must_use]
    pub fn local_address(&self, who: ProcessId, ep: Ep) -> SocketAddr {
        // The even end dialled.
        if ep.0.is_multiple_of(2) { self.address_of(who, ep.peer()) } else { self.links[ep.0 / 2].to }
    }

    /// The remote address that a connection appears to have.
    #[must_use]
    pub fn address_of(&self, who: ProcessId, ep: Ep) -> SocketAddr {
        let number = u8::try_from(who.0 % 250).unwrap_or(0);
        let host = self.residents[who.0].host.unwrap_or(number);
        let port = u16::try_from(1024 + ep.0 % 60_000).unwrap_or(u16::MAX);
        SocketAddr::from((Ipv4Addr::new(10, 9, 0, host + 1), port))
    }

    /// Accepts a connection from a listener's backlog; `None` if it is empty.
    pub fn accept(&mut self, at: SocketAddr) -> Option<Ep> {
        let listening = self.listening.get_mut(&at)?;
        let who = listening.who;
        let ep = listening.backlog.pop_front()?;
        self.ends[ep.0].owner = Some(who);
        self.residents[who.0].descriptors += 1;
        self.event(|log| {
            let _ = write!(log, "{who:?} accept {ep:?}");
        });
        if self.ends[ep.0].is_readable() {
            self.wake(ep);
        }
        Some(ep)
    }

    pub(super) fn syn(&mut self, ep: Ep) {
        if self.ends[ep.0].closed {
            return;
        }
        let link = &mut self.links[ep.0 / 2];
        let to = link.to;
        let back = self.now + link.latency;
        link.tries += 1;
        let tries = link.tries;
        if self.fates.contains_key(&to) {
            return;
        }
        let Some(listening) = self.listening.get_mut(&to).filter(|listening| listening.open) else {
            link.verdict = Opening::Failed(ErrorKind::ConnectionRefused);
            return self.at(back, What::Opened(ep));
        };
        if listening.backlog.len() >= listening.backlog_max {
            // The SYN is dropped and sent again after 1, 3, 7… seconds.
            if tries < 6 {
                self.at(self.now + Span::from_secs(1 << (tries - 1)), What::Syn(ep));
            } else {
                link.verdict = Opening::Failed(ErrorKind::TimedOut);
                self.at(back, What::Opened(ep));
            }
            return;
        }
        listening.backlog.push_back(ep.peer());
        let who = listening.who;
        if !listening.muted {
            listening.told = false;
            self.schedule(who);
        }
        self.links[ep.0 / 2].verdict = Opening::Up;
        self.ends[ep.peer().0].opening = Opening::Up;
        self.at(back, What::Opened(ep));
    }
}
