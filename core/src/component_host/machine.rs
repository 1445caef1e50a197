//! The [`Machine`] interface of a component host: maps connection ids to the inner machine's.

use super::{
    Close, ComponentHost, ConnId, DialFailure, End, Flight, IqHandler, Loss, Machine, Now, Output,
    SocketAddr, Span, State, Time, Vec,
};
use crate::account::Owners;
use crate::machine::{Listener, Secured, TlsFailure};

/// The id of a connection in the inner machine; `None` if it is the one to the server.
fn inward(on: ConnId) -> Option<ConnId> {
    on.index.checked_sub(1).map(|index| ConnId { index, ..on })
}

/// The outer id of a connection of the inner machine.
fn outward(on: ConnId) -> ConnId {
    let index = on.index.checked_add(1).unwrap_or_else(|| unreachable!("2³² connections"));
    ConnId { index, ..on }
}

impl<M: IqHandler> Machine for ComponentHost<M> {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        self.now = now;
        outward(self.inner.handle_open(on, from, now))
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.now = now;
        if let Some(on) = inward(on) {
            return self.inner.handle_resolved(on, addresses, now);
        }
        self.resolved(on, addresses, now);
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_found(on, addresses, now),
            None => self.resolved(on, addresses, now),
        }
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_connected(on, now),
            None => self.connected(on, now),
        }
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_dial_failed(on, why, now),
            None => self.unreachable(on, why, now),
        }
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_secured(on, tls, now),
            None => debug_assert!(false, "there is no TLS to the server"),
        }
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_tls_failed(on, why, now),
            None => debug_assert!(false, "there is no TLS to the server"),
        }
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_bytes(on, bytes, now),
            None => {
                self.read(on, bytes, now);
                bytes.len()
            }
        }
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        self.now = now;
        match inward(from) {
            Some(from) => self.inner.handle_moved(from, read, queued, now),
            None => {
                let none = self.conns.moved(from, read, queued, now);
                debug_assert!(none.is_none(), "the server is no pair's");
            }
        }
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_flushed(on, now),
            None => self.flight = Flight::Idle,
        }
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        self.now = now;
        if let Some(on) = inward(on) {
            self.inner.handle_acked(on, age, now);
        }
    }

    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        self.now = now;
        if let Some(on) = inward(on) {
            self.inner.handle_local_address(on, local, now);
        }
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_end(on, how, now),
            None => self.lose(on, Loss::Ended(how), Close::Abort, now),
        }
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        self.now = now;
        // The reason why the server ended the connection may still be readable; otherwise its end is.
        if let Some(on) = inward(on) {
            self.inner.handle_write_failed(on, now);
        }
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_stalled(on, now),
            None => self.lose(on, Loss::Ended(End::Reset), Close::Abort, now),
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        inward(on).map_or_else(Owners::default, |on| self.inner.owners(on))
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        self.now = now;
        match inward(on) {
            Some(on) => self.inner.handle_closed(on, now),
            None => drop(self.conns.forget(on)),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        while let Some(on) = self.conns.expired(now) {
            self.expire(on, now);
        }
        if self.conns.len() == 0 && self.wake.is_some_and(|wake| wake <= now.mono) {
            self.begin(now);
        }
        self.inner.handle_timeout(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let theirs = match self.inner.poll_output(text) {
            Output::Idle { until, why } => (until, why),
            output => return output.map_ids(outward),
        };
        // Before the outputs below, because dropped IQs are reported there.
        self.forward();
        let ours = match self.conns.poll(text, State::why) {
            Output::Idle { until, why } => (until, why),
            output => return output,
        };
        // There is no next connection before the last one is closed.
        let wake = self.wake.filter(|_| self.conns.len() == 0);
        let (until, why) = earlier(earlier(theirs, ours), (wake, "the next attempt to reach the server"));
        Output::Idle { until, why }
    }
}

fn earlier(
    one: (Option<Time>, &'static str),
    other: (Option<Time>, &'static str),
) -> (Option<Time>, &'static str) {
    match (one.0, other.0) {
        (Some(a), Some(b)) if b < a => other,
        (None, Some(_)) => other,
        _ => one,
    }
}
