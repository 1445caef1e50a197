//! What must hold, whatever happens: the books of all octets ([`ByteLedger`]), what every machine and its loop do to each
//! other ([`ContractChecker`]), and what a process owes its connections ([`check_rest`], [`check_turn`]).

use rendezvous_core::id::Id;
use rendezvous_core::time::{Span, Time};

pub use self::contract_checker::ContractChecker;
pub use self::liveness::{check_rest, check_turn};

mod contract_checker;
mod liveness;

/// What was sent, and its end, come out within so long, where both sides are there and nothing else moves between them:
/// longer than any rest of an actor, and than what the relay gives a side that is cut.
const STUCK_MAX: Span = Span::from_secs(20);

/// One direction between a client and a hidden server, behind the heads.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Whose client it is.
    pub id: Id,
    /// The client's flow that it answers; `None` for a client's own.
    pub answers: Option<usize>,
    /// Octets that went in.
    pub sent: u64,
    /// Its sender ended in order, behind the last of them.
    pub ended: bool,
    /// Octets that came out.
    pub received: u64,
    /// How often a hidden server got the head in front of it.
    pub met: u32,
    /// A clean end came out.
    pub done: bool,
    /// Its sender has gone away without an end in order: what is on its way need not come out.
    pub sender_left: bool,
    /// Its receiver has gone away, or reads nothing.
    pub receiver_left: bool,
    /// When its octets, or its end, last went in or came out.
    pub moved: Time,
}

/// The books: what every sender sent, and what of it came out where.
#[derive(Clone, Debug, Default)]
pub struct ByteLedger {
    flows: Vec<Flow>,
    /// Clean ends that were seen.
    pub clean: u64,
    /// Octets that came out.
    pub octets: u64,
    /// No more than so many octets may come out: a check that a test makes fail.
    pub octets_max: Option<u64>,
    /// The time.
    pub now: Time,
}

/// The octet at this position of a flow: another one for neighbours and for other flows.
#[must_use]
pub const fn octet(flow: usize, at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9).wrapping_add((flow as u64).wrapping_mul(0x85eb_ca6b));
    (mixed >> 13) as u8 ^ at as u8
}

impl ByteLedger {
    /// A client's flow, or one that answers it.
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

    /// So many octets went in.
    pub fn sent(&mut self, flow: usize, octets: u64) {
        let flow = &mut self.flows[flow];
        assert!(!flow.ended, "the actor sends after its end");
        flow.sent += octets;
        if octets > 0 {
            flow.moved = self.now;
        }
    }

    /// The sender ends in order.
    pub fn end(&mut self, flow: usize) {
        let flow = &mut self.flows[flow];
        if !std::mem::replace(&mut flow.ended, true) {
            flow.moved = self.now;
        }
    }

    /// The sender is gone. One that ended in order may go.
    pub fn sender_left(&mut self, flow: usize) {
        let flow = &mut self.flows[flow];
        flow.sender_left |= !flow.ended;
    }

    /// The receiver is gone, or does not read.
    pub fn receiver_left(&mut self, flow: usize) {
        self.flows[flow].receiver_left = true;
    }

    /// Everybody is gone.
    pub fn all_left(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.receiver_left = true);
    }

    /// Where there is a buffer for everybody, what was sent comes out, as long as both sides are there. `wire`: when
    /// something last moved that does not show, part of a record.
    ///
    /// # Panics
    /// It does not.
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

    /// A hidden server of this ID got a client's head. False if another one has the client by now: a head that was on
    /// its way to a waiting connection that ended goes to the next, and may arrive all the same.
    pub fn met(&mut self, flow: usize, by: Id) -> bool {
        let flow = self.flows.get_mut(flow).expect("a head that nobody sent");
        assert_eq!(flow.answers, None, "a hidden server got an answer for a request");
        assert_eq!(flow.id, by, "a client met the hidden server of another ID");
        // A request without a body may be repeated, with the client's end behind it.
        flow.done = false;
        flow.receiver_left = false;
        flow.moved = self.now;
        flow.met += 1;
        assert!(flow.met <= 3, "handed over too often");
        flow.received == 0
    }

    /// A client got an answer's head.
    pub fn answered(&mut self, by: usize, client: usize) {
        let flow = self.flows.get_mut(by).expect("an answer that nobody gave");
        assert_eq!(flow.answers, Some(client), "a client got the answer of another");
        flow.moved = self.now;
        flow.met += 1;
        assert_eq!(flow.met, 1, "an answer came twice");
    }

    /// These octets came out.
    pub fn received(&mut self, flow: usize, octets: &[u8]) {
        self.octets += octets.len() as u64;
        assert!(self.octets_max.is_none_or(|most| self.octets <= most), "more octets than the test allows");
        let state = &mut self.flows[flow];
        for &got in octets {
            assert_eq!(
                got,
                octet(flow, state.received),
                "flow {flow} at {}: not what was sent",
                state.received
            );
            state.received += 1;
        }
        state.moved = self.now;
        assert!(!state.done, "flow {flow}: octets after the end");
        assert!(state.received <= state.sent, "flow {flow}: more than was sent");
    }

    /// A clean end came out.
    pub fn ended(&mut self, flow: usize) {
        let state = &mut self.flows[flow];
        assert!(state.ended, "flow {flow}: a clean end that its sender did not send");
        assert_eq!(state.received, state.sent, "flow {flow}: a clean end before the last octet");
        assert!(!std::mem::replace(&mut state.done, true), "two ends");
        self.clean += 1;
    }
}
