//! Two directions of an HTTP connection before a [`Follower`]: delivers bytes in pieces, follows its instructions, and
//! records where each part begins.

use std::fmt;

use rendezvous_core::http::follower::{Follower, Mode, Step};
use rendezvous_core::http::head::{Limits, Refusal};

/// The sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The client.
    Client,
    /// The hidden server.
    Hidden,
}

/// How bytes are delivered. The result must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// As they are given.
    Whole,
    /// In pieces of this many bytes, at least one. The follower is told of skipped bytes as they pass.
    Of(usize),
}

/// A part of a direction, at this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it begins.
    pub at: u64,
    /// What it is.
    pub what: What,
}

/// The kinds of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A request or response head of that many bytes.
    Head(u64),
    /// That many bytes that were skipped. Neighbours are merged.
    Skipped(u64),
    /// From here on everything passes.
    Opaque,
    /// The follower refuses what begins here.
    Refused(Refusal),
    /// It was held when the conversation ended.
    Held,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Head(len) => write!(f, "{}: head of {len}", self.at),
            What::Skipped(len) => write!(f, "{}: {len} skipped", self.at),
            What::Opaque => write!(f, "{}: opaque", self.at),
            What::Refused(refusal) => write!(f, "{}: refused, {}", self.at, refusal.why()),
            What::Held => write!(f, "{}: held", self.at),
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    /// Bytes that have arrived and not passed.
    bytes: Vec<u8>,
    /// How many bytes have passed.
    passed: u64,
    /// How many of the following bytes are skipped.
    skipping: u64,
    found: Vec<Found>,
    is_opaque: bool,
    is_refused: bool,
    is_held: bool,
}

impl Direction {
    fn find(&mut self, what: What) {
        let found = Found { at: self.passed, what };
        match (self.found.last_mut(), what) {
            (Some(Found { at, what: What::Skipped(before) }), What::Skipped(len))
                if *at + *before == self.passed =>
            {
                *before = before.saturating_add(len);
            }
            _ => self.found.push(found),
        }
    }

    fn pass(&mut self, len: usize) {
        self.bytes.drain(..len);
        self.passed += len as u64;
    }

    /// Passes the available skipped bytes, and returns their number.
    fn pass_skipped(&mut self) -> u64 {
        let len = usize::try_from(self.skipping).unwrap_or(usize::MAX).min(self.bytes.len());
        // A body may be longer than every buffer: its bytes count as they arrive.
        if len > 0 {
            self.find(What::Skipped(len as u64));
        }
        self.pass(len);
        self.skipping -= len as u64;
        len as u64
    }

    fn open(&mut self) {
        if !self.is_opaque {
            self.find(What::Opaque);
            self.is_opaque = true;
        }
        self.pass(self.bytes.len());
    }
}

/// The two directions of one connection.
#[derive(Debug)]
pub struct Exchanges {
    /// The follower, for inspection.
    pub follower: Follower,
    limits: Limits,
    client: Direction,
    hidden: Direction,
    /// How many requests and responses have been passed.
    requests: u32,
    responses: u32,
}

impl Exchanges {
    /// A connection without any bytes so far.
    #[must_use]
    pub fn new(limits: Limits, mode: Mode) -> Self {
        Self {
            follower: Follower::new(limits, mode),
            limits,
            client: Direction::default(),
            hidden: Direction::default(),
            requests: 0,
            responses: 0,
        }
    }

    /// Delivers bytes, and passes what may pass.
    ///
    /// # Panics
    /// The follower contradicts itself.
    pub fn deliver(&mut self, from: From, bytes: &[u8], pieces: Pieces) {
        let len = match pieces {
            Pieces::Whole => bytes.len().max(1),
            Pieces::Of(len) => len.max(1),
        };
        for piece in bytes.chunks(len) {
            let direction = match from {
                From::Client => &mut self.client,
                From::Hidden => &mut self.hidden,
            };
            direction.bytes.extend_from_slice(piece);
            let passed = direction.pass_skipped();
            // Otherwise the next call tells the follower that they have passed.
            if pieces != Pieces::Whole {
                match from {
                    From::Client => self.follower.client_passed(passed),
                    From::Hidden => self.follower.hidden_passed(passed),
                }
            }
            self.drive();
        }
    }

    /// What was found in the bytes of one side.
    #[must_use]
    pub fn found(&self, from: From) -> Vec<Found> {
        let direction = match from {
            From::Client => &self.client,
            From::Hidden => &self.hidden,
        };
        let mut found = direction.found.clone();
        if direction.is_held {
            found.push(Found { at: direction.passed, what: What::Held });
        }
        found
    }

    /// One step of the hidden server follows all possible steps of the client. So the result does not depend on the
    /// pieces in which the bytes come.
    fn drive(&mut self) {
        loop {
            while self.step_client() {}
            if !self.step_hidden() {
                break;
            }
        }
        assert!(
            !self.follower.is_between_exchanges() || self.requests == self.responses,
            "{} requests and {} responses, and between exchanges",
            self.requests,
            self.responses
        );
        assert!(!self.follower.is_over() || self.follower.will_close());
    }

    /// Returns whether something has changed.
    fn step_client(&mut self) -> bool {
        if self.client.skipping > 0 || self.client.is_refused {
            return false;
        }
        self.client.is_held = false;
        let step = self.follower.on_client(&self.client.bytes);
        match step {
            Step::More => {
                assert!(
                    self.client.bytes.len() < self.limits.head_bytes_max as usize,
                    "more than a head kept"
                );
                false
            }
            Step::Request { len, head } => {
                assert!(len <= self.limits.head_bytes_max as usize);
                let again = self.follower.clone().on_client(&self.client.bytes);
                assert_eq!(step, again, "a head that is kept back is found again");
                self.follower.request_passed(&head);
                assert!(!self.follower.is_between_exchanges());
                self.requests += 1;
                self.client.find(What::Head(len as u64));
                self.client.pass(len);
                true
            }
            Step::Skip(len) => {
                assert!(len > 0 && !self.client.bytes.is_empty());
                self.client.skipping = len;
                self.client.pass_skipped();
                self.client.skipping == 0
            }
            Step::Opaque => {
                assert!(self.follower.is_opaque());
                let changes = !self.client.is_opaque;
                self.client.open();
                changes
            }
            Step::Hold => {
                self.client.is_held = true;
                false
            }
            Step::Refused(refusal) => {
                assert!(!refusal.why().is_empty());
                self.client.find(What::Refused(refusal));
                self.client.is_refused = true;
                false
            }
            Step::Response { .. } => panic!("a response of a client"),
        }
    }

    /// Returns whether something has changed.
    fn step_hidden(&mut self) -> bool {
        if self.hidden.skipping > 0 {
            return false;
        }
        self.hidden.is_held = false;
        match self.follower.on_hidden(&self.hidden.bytes) {
            Step::More => {
                assert!(
                    self.hidden.bytes.len() < self.limits.head_bytes_max as usize,
                    "more than a head kept"
                );
                false
            }
            Step::Response { len } => {
                assert!(len <= self.limits.head_bytes_max as usize && len <= self.hidden.bytes.len());
                self.responses += 1;
                assert!(self.responses <= self.requests, "a response without a request");
                self.hidden.find(What::Head(len as u64));
                self.hidden.pass(len);
                true
            }
            Step::Skip(len) => {
                assert!(len > 0 && !self.hidden.bytes.is_empty());
                self.hidden.skipping = len;
                self.hidden.pass_skipped();
                self.hidden.skipping == 0
            }
            Step::Opaque => {
                let changes = !self.hidden.is_opaque;
                self.hidden.open();
                changes
            }
            Step::Hold => {
                assert!(!self.hidden.bytes.is_empty() && self.follower.will_close());
                self.hidden.is_held = true;
                false
            }
            Step::Request { .. } | Step::Refused(_) => {
                panic!("the hidden server's bytes are judged as a client's")
            }
        }
    }
}
