//! Bytes, ends and resets between the two ends of a connection, with Linux's semantics.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read};

use rendezvous_core::time::{Span, Time};

use super::tcp::{Ep, Opening, Segment};
use super::world::{What, World};

/// Time until a dead idle path is detected: 25 s and three probes of 5 s.
const KEEPALIVE: Span = Span::from_secs(40);
/// The system's own timeout for unacknowledged bytes.
const RETRIES: Span = Span::from_secs(924);
/// How often a lost connection is checked.
const ALARM: Span = Span::from_secs(1);
/// Maximum delay of the edge after a call that was blocked as a fault, in microseconds.
const DEAF: u64 = 20_000;

impl World {
    /// Receives, as `recv(2)` does.
    ///
    /// # Errors
    /// `WouldBlock`, or why nothing arrives any more, which only the first call reports.
    pub fn recv(&mut self, ep: Ep, into: &mut [u8]) -> io::Result<usize> {
        self.moves += 1;
        if self.blocks(ep) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let short = self.faults.short_recv;
        let tcp = &self.ends[ep.0];
        let n = self.cut(ep, short, into.len().min(tcp.arrived));
        if n == 0 {
            return self.receive_end(ep).map(|()| 0);
        }
        let tcp = &mut self.ends[ep.0];
        tcp.inbox.read_exact(&mut into[..n])?;
        tcp.arrived -= n;
        tcp.received += n as u64;
        self.bytes_at = self.now;
        if tcp.wire.front().is_some_and(|(at, _)| *at <= self.now) {
            // Bytes that waited for room here can now be sent.
            let latency = self.links[ep.0 / 2].latency;
            self.at(self.now + latency, What::Arrive(ep));
        }
        self.event(|log| {
            let _ = write!(log, "{ep:?} recv {n}");
        });
        Ok(n)
    }

    /// Whether `recv(2)` would return EOF, with nothing unread.
    ///
    /// # Errors
    /// As [`World::recv`].
    pub fn peek_end(&mut self, ep: Ep) -> io::Result<bool> {
        let tcp = &self.ends[ep.0];
        if tcp.arrived > 0 {
            return Ok(false);
        }
        self.receive_end(ep).map(|()| true)
    }

    /// With nothing unread: whether the connection has ended.
    fn receive_end(&mut self, ep: Ep) -> io::Result<()> {
        let tcp = &mut self.ends[ep.0];
        match tcp.error.take() {
            Some(error) => Err(error.into()),
            None if tcp.fin || tcp.dead => Ok(()),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends, as `send(2)` does.
    ///
    /// # Errors
    /// `WouldBlock`, or why nothing can be sent any more: first the error that a receive would report too, if no call
    /// has reported it, and then `BrokenPipe`.
    pub fn send(&mut self, ep: Ep, from: &[u8]) -> io::Result<usize> {
        self.moves += 1;
        if let Some(error) = self.ends[ep.0].error.take() {
            return Err(error.into());
        }
        if self.ends[ep.0].dead || self.ends[ep.0].fin_sent {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if self.blocks(ep) {
            self.ends[ep.0].no_room = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let room = self.room(ep).min(from.len());
        if room < from.len() {
            self.ends[ep.0].no_room = true;
        }
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = self.cut(ep, self.faults.short_send, room);
        self.ends[ep.peer().0].inbox.extend(&from[..n]);
        self.ends[ep.0].sent += n as u64;
        self.post(ep.peer(), Segment::Bytes(n));
        self.event(|log| {
            let _ = write!(log, "{ep:?} send {n}");
        });
        Ok(n)
    }

    /// How much could be sent now.
    #[must_use]
    pub fn room(&self, ep: Ep) -> usize {
        self.links[ep.0 / 2].send_room.saturating_sub(self.ends[ep.peer().0].on_the_way())
    }

    /// Whether there is enough room for an edge.
    #[must_use]
    pub fn could_send(&self, ep: Ep) -> bool {
        let tcp = &self.ends[ep.0];
        tcp.opening == Opening::Up
            && (tcp.dead || self.room(ep) >= self.links[ep.0 / 2].send_room.div_ceil(3))
    }

    /// How many bytes can be received now.
    #[must_use]
    pub fn readable(&self, ep: Ep) -> usize {
        self.ends[ep.0].arrived
    }

    /// How many bytes were received and sent so far.
    #[must_use]
    pub fn moved(&self, ep: Ep) -> (u64, u64) {
        (self.ends[ep.0].received, self.ends[ep.0].sent)
    }

    /// Bytes that may never arrive, because this end was reset while they were in transit.
    #[must_use]
    pub fn lost(&self, ep: Ep) -> usize {
        self.ends[ep.0].lost
    }

    /// Whether the connection is reset or timed out.
    #[must_use]
    pub fn is_dead(&self, ep: Ep) -> bool {
        self.ends[ep.0].dead
    }

    /// When the last segment of the other end arrived.
    #[must_use]
    pub fn received_at(&self, ep: Ep) -> Time {
        self.ends[ep.0].heard
    }

    /// Whether the peer's FIN has arrived, or the connection is dead.
    #[must_use]
    pub fn has_end(&self, ep: Ep) -> bool {
        self.ends[ep.0].fin || self.ends[ep.0].dead
    }

    /// Whether the peer's FIN has arrived, after all bytes were received.
    #[must_use]
    pub fn has_fin(&self, ep: Ep) -> bool {
        self.ends[ep.0].fin && self.ends[ep.0].arrived == 0
    }

    /// Whether this end can send: it has neither ended nor died.
    #[must_use]
    pub fn can_send(&self, ep: Ep) -> bool {
        let tcp = &self.ends[ep.0];
        !tcp.fin_sent && !tcp.dead && tcp.error.is_none()
    }

    /// Whether a call was blocked as a fault, and the edge that follows is still to come.
    #[must_use]
    pub fn ignores_input(&self, ep: Ep) -> bool {
        self.ends[ep.0].deaf_until >= self.now
    }

    /// Whether the connection is established.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connected(&mut self, ep: Ep) -> io::Result<bool> {
        match self.ends[ep.0].opening {
            Opening::Begun => Ok(false),
            Opening::Up => Ok(true),
            Opening::Failed(why) => Err(why.into()),
        }
    }

    /// Sends a FIN.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn end_write(&mut self, ep: Ep) -> io::Result<()> {
        if self.ends[ep.0].dead {
            return Err(ErrorKind::NotConnected.into());
        }
        if !std::mem::replace(&mut self.ends[ep.0].fin_sent, true) {
            self.post(ep.peer(), Segment::Fin);
            self.event(|log| {
                let _ = write!(log, "{ep:?} fin");
            });
        }
        Ok(())
    }

    /// Closes. Unread bytes turn it into a reset.
    pub fn close(&mut self, ep: Ep) {
        if self.ends[ep.0].arrived > 0 {
            return self.abort(ep);
        }
        let _ = self.end_write(ep);
        self.event(|log| {
            let _ = write!(log, "{ep:?} close");
        });
        self.release(ep);
    }

    /// Closes with a reset.
    pub fn abort(&mut self, ep: Ep) {
        let peer = ep.peer();
        if !self.ends[ep.0].dead && self.ends[ep.0].opening == Opening::Up {
            self.ends[ep.0].lost = self.ends[peer.0].on_the_way();
            // Bytes that have not been sent are lost, and bytes in transit may be.
            let window_is_shut = self.ends[peer.0].wire.front().is_some_and(|(at, _)| *at <= self.now);
            if window_is_shut || self.rng.below(2) == 0 {
                let tcp = &mut self.ends[peer.0];
                tcp.wire.clear();
                tcp.inbox.truncate(tcp.arrived);
            }
            self.post(peer, Segment::Rst);
        }
        self.event(|log| {
            let _ = write!(log, "{ep:?} abort");
        });
        self.release(ep);
    }

    /// A NAT loses the connection: nothing arrives any more, and no end gets an error.
    pub fn lose(&mut self, ep: Ep) {
        if !std::mem::replace(&mut self.links[ep.0 / 2].lost, true) {
            self.event(|log| {
                let _ = write!(log, "{ep:?} lost");
            });
            self.at(self.now + ALARM, What::Alarm(ep));
            self.at(self.now + ALARM, What::Alarm(ep.peer()));
        }
    }

    /// Whether a NAT has lost it.
    #[must_use]
    pub fn is_lost(&self, ep: Ep) -> bool {
        self.links[ep.0 / 2].lost
    }

    /// Sent bytes that have not arrived at the other end's system.
    #[must_use]
    pub fn unacknowledged(&self, ep: Ep) -> usize {
        if self.ends[ep.0].dead { 0 } else { self.ends[ep.peer().0].on_the_way() }
    }

    /// Time since the last segment of the other end, if bytes are unacknowledged.
    #[must_use]
    pub fn last_ack(&self, ep: Ep) -> Option<Span> {
        if self.unacknowledged(ep) == 0 {
            return None;
        }
        let lost = self.links[ep.0 / 2].lost;
        // A peer with a closed window answers the probes.
        Some(if lost { self.now.since(self.ends[ep.0].heard) } else { Span::from_millis(200) })
    }

    /// The round-trip time.
    #[must_use]
    pub fn round_trip(&self, ep: Ep) -> Span {
        Span(2 * self.links[ep.0 / 2].latency.0)
    }

    fn post(&mut self, to: Ep, segment: Segment) {
        let latency = self.links[to.0 / 2].latency;
        let from = &mut self.ends[to.peer().0];
        from.owed_since = from.owed_since.or(Some(self.now));
        let tcp = &mut self.ends[to.0];
        let due = self.now + latency;
        let at = tcp.wire.back().map_or(due, |(last, _)| due.max(*last));
        tcp.wire.push_back((at, segment));
        self.at(at, What::Arrive(to));
    }

    fn release(&mut self, ep: Ep) {
        let tcp = &mut self.ends[ep.0];
        debug_assert!(!tcp.closed, "closed twice");
        tcp.closed = true;
        tcp.fin_sent = true;
        tcp.inbox.drain(..tcp.arrived);
        tcp.arrived = 0;
        if let Some(who) = tcp.owner {
            self.residents[who.0].descriptors -= 1;
            if self.rng.one_of_thousand(self.faults.stale)
                && let Some(token) = self.ends[ep.0].token
            {
                self.residents[who.0].stale.push(token);
                self.schedule(who);
            }
        }
    }

    /// Whether a call on this end is blocked as a fault. An edge follows.
    fn blocks(&mut self, ep: Ep) -> bool {
        if !self.is_of_process(ep) || !self.rng.one_of_thousand(self.faults.would_block) {
            return false;
        }
        let until = self.now + Span(self.rng.between(1, DEAF));
        let tcp = &mut self.ends[ep.0];
        tcp.deaf_until = tcp.deaf_until.max(until);
        self.at(until, What::Wake(ep));
        true
    }

    fn cut(&mut self, ep: Ep, times: u32, n: usize) -> usize {
        if n > 1 && self.is_of_process(ep) && self.rng.one_of_thousand(times) {
            let most = self.rng.length(n as u64 - 1).max(1);
            return usize::try_from(most).unwrap_or(1);
        }
        n
    }

    fn is_of_process(&self, ep: Ep) -> bool {
        self.ends[ep.0].owner.is_some_and(|who| self.residents[who.0].is_process)
    }

    pub(super) fn arrive(&mut self, ep: Ep) {
        let link = &self.links[ep.0 / 2];
        if link.lost {
            return;
        }
        let receive_room = link.receive_room;
        let mut bounce = false;
        let mut news = false;
        let mut cut = false;
        let now = self.now;
        let tcp = &mut self.ends[ep.0];
        let reset = tcp.wire.iter().any(|(at, segment)| *at <= now && *segment == Segment::Rst);
        while let Some((at, segment)) = tcp.wire.front_mut()
            && *at <= now
        {
            match segment {
                Segment::Bytes(n) if tcp.closed || tcp.dead || cut => {
                    tcp.inbox.drain(tcp.arrived..tcp.arrived + *n);
                    bounce = tcp.closed && !tcp.dead;
                }
                Segment::Bytes(n) => {
                    let taken = (*n).min(receive_room - tcp.arrived);
                    tcp.arrived += taken;
                    news |= taken > 0;
                    *n -= taken;
                    if *n > 0 {
                        if !reset {
                            break;
                        }
                        // A reset waits for no window: the bytes behind this, and a FIN, never arrive.
                        tcp.inbox.drain(tcp.arrived..tcp.arrived + *n);
                        cut = true;
                    }
                }
                Segment::Fin if cut => {}
                Segment::Fin => {
                    tcp.fin = true;
                    news = true;
                }
                Segment::Rst if tcp.dead => {}
                Segment::Rst => {
                    tcp.dead = true;
                    let kind = if tcp.fin { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset };
                    tcp.error = Some(kind);
                    news = true;
                }
            }
            tcp.wire.pop_front();
        }
        if news {
            self.wake(ep);
        }
        self.acknowledge(ep.peer());
        if bounce && !self.ends[ep.peer().0].dead {
            self.ends[ep.0].dead = true;
            self.post(ep.peer(), Segment::Rst);
        }
    }

    /// The other end has received some of what this one sent.
    fn acknowledge(&mut self, ep: Ep) {
        let left = self.ends[ep.peer().0].on_the_way();
        let enough = self.room(ep) >= self.links[ep.0 / 2].send_room.div_ceil(3);
        let tcp = &mut self.ends[ep.0];
        tcp.heard = self.now;
        tcp.owed_since = if left > 0 { Some(self.now) } else { None };
        if tcp.no_room && enough {
            tcp.no_room = false;
            self.wake(ep);
        }
    }

    /// Whether a lost connection has timed out.
    pub(super) fn alarm(&mut self, ep: Ep) {
        let tcp = &mut self.ends[ep.0];
        if tcp.closed || tcp.dead {
            return;
        }
        let patience = tcp.user_timeout.unwrap_or(RETRIES);
        let over = match tcp.owed_since {
            Some(since) => self.now.since(since) >= patience,
            None => self.now.since(tcp.heard) >= KEEPALIVE,
        };
        if over {
            tcp.dead = true;
            tcp.error = Some(ErrorKind::TimedOut);
            self.event(|log| {
                let _ = write!(log, "{ep:?} timed out");
            });
            self.wake(ep);
        } else {
            self.at(self.now + ALARM, What::Alarm(ep));
        }
    }
}
