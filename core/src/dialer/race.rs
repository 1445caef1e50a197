//! Happy Eyeballs (RFC 8305): tries several addresses of a host with a delay between them, until one works.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::address_book::{ADDRESSES_MAX, AddressBook};
use crate::relay_client::Deadlines;
use crate::time::{Span, Time};

/// The default delay before the next address is tried (RFC 8305 §5, Connection Attempt Delay).
pub const ATTEMPT_DELAY: Span = Span::from_millis(250);
/// The maximum delay for an address whose connect time is known: the delay is a multiple of that time.
const KNOWN_DELAY_MAX: Span = Span::from_secs(2);
/// The maximum delay after an address was connected to, while TLS is incomplete or the server does not respond.
const SILENT_DELAY_MAX: Span = Span::from_secs(1);
/// The upper bound of a handshake with a working server, in multiples of the connect time.
const ROUND_TRIPS: u64 = 4;

/// An attempt to reach a host at one of its addresses.
///
/// The caller resolves the name, dials the addresses that [`Race::poll`] returns, and reports the results. The race
/// has neither sockets nor connections; attempts are identified by their address.
#[derive(Clone, Debug)]
pub struct Race {
    deadlines: Deadlines,
    /// The addresses that were not tried yet, in their order.
    left: VecDeque<SocketAddr>,
    /// All addresses.
    known: Vec<SocketAddr>,
    attempts: Vec<Attempt>,
    look_up: LookUp,
    /// When the next address is tried, unless an event changes it.
    next_at: NextAt,
}

/// Whether more addresses may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookUp {
    /// If all addresses have failed, the race waits for more until this time.
    Pending {
        until: Time,
    },
    Ended,
}

/// When the next address is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextAt {
    At(Time),
    /// After the failure of an attempt.
    AfterFailure,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    address: SocketAddr,
    phase: Phase,
    began: Time,
    /// The duration of connecting; zero until it is established.
    connect: Span,
    due: Time,
}

/// `Connecting` ─connected─▶ `Handshaking` ─request sent─▶ `Asking`. The order is that of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Connecting,
    Handshaking,
    Asking,
}

/// The next step of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Dial this address.
    Dial(SocketAddr),
    /// The attempt at this address has timed out: cancel it, and call [`Race::failed`].
    Late(SocketAddr),
    /// Wait for an event, or until this time.
    Wait(Time),
    /// All attempts have failed, and no address is left.
    Lost,
}

impl Race {
    /// A race to a host whose name is being resolved.
    #[must_use]
    pub const fn resolving(deadlines: Deadlines, now: Time) -> Self {
        Self {
            deadlines,
            left: VecDeque::new(),
            known: Vec::new(),
            attempts: Vec::new(),
            look_up: LookUp::Pending { until: Time(now.0.saturating_add(deadlines.dial.0)) },
            next_at: NextAt::At(now),
        }
    }

    /// Adds addresses that the look-up has found; known ones are ignored. If it is complete, there are no more.
    pub fn resolved(&mut self, addresses: &[SocketAddr], is_complete: bool, book: &AddressBook, now: Time) {
        if is_complete {
            self.left.retain(|it| addresses.contains(it));
        }
        for address in addresses {
            if self.known.len() < ADDRESSES_MAX && !self.known.contains(address) {
                self.known.push(*address);
                self.left.push_back(*address);
            }
        }
        let left: Vec<_> = self.left.iter().copied().collect();
        self.left = book.order(&left, now).into();
        if is_complete {
            self.look_up = LookUp::Ended;
        }
    }

    /// The look-up has ended without addresses, or without further ones.
    pub fn unresolved(&mut self) {
        self.look_up = LookUp::Ended;
    }

    /// The next step. Called after each event and at the deadline, until it returns [`Todo::Wait`] or [`Todo::Lost`].
    pub fn poll(&mut self, book: &AddressBook, now: Time) -> Todo {
        if let Some(late) = self.attempts.iter().find(|it| it.due <= now) {
            return Todo::Late(late.address);
        }
        let is_due = self.next_at().is_some_and(|at| at <= now);
        if is_due && let Some(address) = self.left.pop_front() {
            let delay = book
                .connect_time(address)
                .map_or(ATTEMPT_DELAY, |connect| bounded(connect, ATTEMPT_DELAY, KNOWN_DELAY_MAX));
            self.next_at = NextAt::At(now + delay);
            self.attempts.push(Attempt {
                address,
                phase: Phase::Connecting,
                began: now,
                connect: Span::ZERO,
                due: now + self.deadlines.dial,
            });
            return Todo::Dial(address);
        }
        if let LookUp::Pending { until } = self.look_up
            && until <= now
        {
            self.look_up = LookUp::Ended;
        }
        self.due().map_or(Todo::Lost, Todo::Wait)
    }

    /// When [`Race::poll`] must be called at the latest; `None` if the race is lost.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        let late = self.attempts.iter().map(|it| it.due).min();
        let next = self.next_at().filter(|_| !self.left.is_empty());
        let look_up = match self.look_up {
            LookUp::Pending { until } => Some(until),
            LookUp::Ended => None,
        };
        [late, next, look_up].into_iter().flatten().min()
    }

    /// This address is connected to. If there is a handshake, it begins now.
    pub fn connected(&mut self, address: SocketAddr, now: Time) {
        let handshake = self.deadlines.handshake;
        let Some(attempt) = self.attempt(address) else { return };
        if attempt.phase == Phase::Connecting {
            attempt.phase = Phase::Handshaking;
            attempt.connect = now.since(attempt.began);
        }
        attempt.due = now + handshake;
        let connect = attempt.connect;
        self.next_at = NextAt::At(now + bounded(connect, ATTEMPT_DELAY, SILENT_DELAY_MAX));
    }

    /// A request was sent to the server at this address. `is_proved`: TLS has authenticated the server, so that no
    /// other address is tried while the response is awaited.
    pub fn asked(&mut self, address: SocketAddr, is_proved: bool, now: Time) {
        let answer = self.deadlines.answer;
        let Some(attempt) = self.attempt(address) else { return };
        attempt.phase = Phase::Asking;
        attempt.due = now + answer;
        self.next_at = if is_proved { NextAt::AfterFailure } else { NextAt::At(now + SILENT_DELAY_MAX) };
    }

    /// The attempt at this address failed: the next address is tried at once.
    pub fn failed(&mut self, address: SocketAddr, now: Time) {
        self.attempts.retain(|it| it.address != address);
        let furthest = self.attempts.iter().map(|it| it.phase).max();
        self.next_at = match (furthest, self.next_at) {
            (None | Some(Phase::Connecting), _) => NextAt::At(now),
            // An attempt with more progress may still succeed.
            (Some(Phase::Handshaking), NextAt::AfterFailure) => NextAt::At(now + SILENT_DELAY_MAX),
            (Some(Phase::Handshaking | Phase::Asking), next_at) => next_at,
        };
    }

    /// The duration of connecting to this address, if it is connected to.
    #[must_use]
    pub fn connect_time(&self, address: SocketAddr) -> Option<Span> {
        let attempt = self.attempts.iter().find(|it| it.address == address)?;
        (attempt.phase != Phase::Connecting).then_some(attempt.connect)
    }

    fn next_at(&self) -> Option<Time> {
        match self.next_at {
            NextAt::At(at) => Some(at),
            NextAt::AfterFailure => None,
        }
    }

    fn attempt(&mut self, address: SocketAddr) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|it| it.address == address)
    }
}

/// A multiple of the connect time, within bounds.
fn bounded(connect: Span, least: Span, most: Span) -> Span {
    Span(connect.0.saturating_mul(ROUND_TRIPS)).clamp(least, most)
}
