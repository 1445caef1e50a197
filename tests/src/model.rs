//! Invariants of every run: the ledger of all bytes ([`ByteLedger`]), the contract between a machine and its loop
//! ([`ContractChecker`]), the progress of all connections ([`check_rest`], [`check_turn`]), and what the operator has set
//! ([`Compliance`], [`Rates`]).

use std::collections::BTreeSet;

use rendezvous_core::id::Id;
use rendezvous_core::time::{Span, Time};

pub use self::contract_checker::ContractChecker;
pub use self::liveness::{check_rest, check_turn};
pub use self::rates::Rates;
pub use self::steering::{Compliance, Settings, Steering, is_meant, with_peers};

mod contract_checker;
mod liveness;
mod rates;
mod steering;

/// Sent bytes and ends must come out within this time if both sides are connected and no others move between them. It
/// exceeds every pause of an actor and the time that the relay gives a side that is cut.
const STUCK_MAX: Span = Span::from_secs(20);

/// One direction between a client and a hidden server, after the heads.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The ID that the client requested.
    pub id: Id,
    /// The client's flow that it answers; `None` for a client's own.
    pub answers: Option<usize>,
    /// Bytes that went in.
    pub sent: u64,
    /// Its sender ended cleanly after the last byte.
    pub ended: bool,
    /// Bytes that came out.
    pub received: u64,
    /// How often a hidden server got the head before it.
    pub met: u32,
    /// A clean end came out.
    pub done: bool,
    /// Its sender has left without a clean end: bytes in transit need not come out.
    pub sender_left: bool,
    /// Its receiver has left, or reads nothing.
    pub receiver_left: bool,
    /// When its bytes, or its end, last went in or came out.
    pub moved: Time,
}

/// What every sender sent, and what of it came out where.
#[derive(Clone, Debug, Default)]
pub struct ByteLedger {
    flows: Vec<Flow>,
    /// Clean ends that came out.
    pub clean: u64,
    /// Bytes that came out.
    pub bytes: u64,
    /// A limit of bytes that come out: a check that a test makes fail.
    pub bytes_max: Option<u64>,
    /// The current time.
    pub now: Time,
    /// Bound registrations that hidden servers have sent.
    registrations: Vec<(Id, String)>,
    /// Those of them that were accepted.
    accepted: BTreeSet<usize>,
    /// Earlier ones may be accepted again: the relay that knew them has lost its memory.
    forgotten: usize,
}

/// The byte at this position of a flow. Neighbours, and other flows, have different bytes.
#[must_use]
pub const fn byte(flow: usize, at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9).wrapping_add((flow as u64).wrapping_mul(0x85eb_ca6b));
    (mixed >> 13) as u8 ^ at as u8
}

impl ByteLedger {
    /// Registers a client's flow, or one that answers it.
    pub fn begin(&mut self, id: Id, answers: Option<usize>) -> usize {
        let moved = self.now;
        let (sent, received, met) = (0, 0, 0);
        let (ended, done) = (false, false);
        let (sender_left, receiver_left) = (false, false);
        let flow = Flow { id, answers, sent, ended, received, met, done, sender_left, receiver_left, moved };
        self.flows.push(flow);
        self.flows.len() - 1
    }

    /// All flows.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Records a bound registration that is about to be sent. Returns its number.
    pub fn registers(&mut self, id: Id, text: &str) -> usize {
        let known = self.registrations.iter().rposition(|(_, other)| other == text);
        known.unwrap_or_else(|| {
            self.registrations.push((id, text.to_owned()));
            self.registrations.len() - 1
        })
    }

    /// One of the last registrations of an ID, for a peer that has copied it.
    pub fn copied(&self, id: Id, back: usize) -> Option<&str> {
        let of_id = self.registrations.iter().rev().filter(|(of, _)| *of == id);
        of_id.map(|(_, text)| text.as_str()).nth(back)
    }

    /// Records that a registration was accepted.
    ///
    /// # Panics
    /// It was accepted before.
    pub fn accepted(&mut self, registration: usize) {
        let is_new = self.accepted.insert(registration);
        assert!(is_new || registration < self.forgotten, "a token was accepted twice");
    }

    /// A relay has lost its memory of tokens.
    pub fn forget_tokens(&mut self) {
        self.forgotten = self.registrations.len();
    }

    /// Records that bytes went in.
    pub fn sent(&mut self, flow: usize, bytes: u64) {
        let flow = &mut self.flows[flow];
        assert!(!flow.ended, "the actor sends after its end");
        flow.sent += bytes;
        if bytes > 0 {
            flow.moved = self.now;
        }
    }

    /// Records that the sender ended cleanly.
    pub fn end(&mut self, flow: usize) {
        let flow = &mut self.flows[flow];
        if !std::mem::replace(&mut flow.ended, true) {
            flow.moved = self.now;
        }
    }

    /// Records that the sender has left. A sender that ended cleanly may leave.
    pub fn sender_left(&mut self, flow: usize) {
        let flow = &mut self.flows[flow];
        flow.sender_left |= !flow.ended;
    }

    /// Records that the receiver has left, or does not read.
    pub fn receiver_left(&mut self, flow: usize) {
        self.flows[flow].receiver_left = true;
    }

    /// Records that all receivers have left.
    pub fn all_left(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.receiver_left = true);
    }

    /// Checks that sent bytes come out while both sides are connected. Call it only when every connection can get a
    /// buffer. `wire`: when bytes last moved that do not show in the ledger, such as part of a record.
    ///
    /// # Panics
    /// A flow is stuck.
    pub fn check_rest(&mut self, now: Time, wire: Time) {
        self.now = now;
        for (number, flow) in self.flows.iter_mut().enumerate() {
            let is_through = flow.received == flow.sent && (flow.done || !flow.ended);
            if flow.sender_left || flow.receiver_left || flow.met == 0 || is_through {
                continue;
            }
            flow.moved = flow.moved.max(wire);
            assert!(now.since(flow.moved) <= STUCK_MAX, "flow {number}: it is stuck: {flow:?}");
        }
    }

    /// Records that a hidden server of this ID got a client's head. Returns false if another one serves the client
    /// already: a head in transit to a waiting connection that ended is given to the next one, and may still arrive.
    pub fn met(&mut self, flow: usize, by: Id) -> bool {
        let flow = self.flows.get_mut(flow).expect("a head that nobody sent");
        assert_eq!(flow.answers, None, "a hidden server got an answer for a request");
        assert_eq!(flow.id, by, "a client met the hidden server of another ID");
        flow.met += 1;
        assert!(flow.met <= 3, "handed over too often");
        if flow.received > 0 {
            // This one resets the connection and receives nothing. Whether the flow can move still depends on the one
            // that has received its bytes.
            return false;
        }
        // A request may be repeated, followed by the client's end.
        flow.done = false;
        flow.receiver_left = false;
        flow.moved = self.now;
        true
    }

    /// Records that a client got a response head.
    pub fn answered(&mut self, by: usize, client: usize) {
        let flow = self.flows.get_mut(by).expect("an answer that nobody gave");
        assert_eq!(flow.answers, Some(client), "a client got the answer of another");
        flow.moved = self.now;
        flow.met += 1;
        assert_eq!(flow.met, 1, "an answer came twice");
    }

    /// Records bytes that came out.
    pub fn received(&mut self, flow: usize, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        assert!(self.bytes_max.is_none_or(|most| self.bytes <= most), "more bytes than the test allows");
        let state = &mut self.flows[flow];
        for &got in bytes {
            assert_eq!(
                got,
                byte(flow, state.received),
                "flow {flow} at {}: not what was sent",
                state.received
            );
            state.received += 1;
        }
        state.moved = self.now;
        assert!(!state.done, "flow {flow}: bytes after the end");
        assert!(state.received <= state.sent, "flow {flow}: more than was sent");
    }

    /// Records a clean end that came out.
    pub fn ended(&mut self, flow: usize) {
        let state = &mut self.flows[flow];
        assert!(state.ended, "flow {flow}: a clean end that its sender did not send");
        assert_eq!(state.received, state.sent, "flow {flow}: a clean end before the last byte");
        assert!(!std::mem::replace(&mut state.done, true), "two ends");
        self.clean += 1;
    }
}
