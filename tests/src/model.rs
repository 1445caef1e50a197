//! What must hold, whatever happens: the books of all octets ([`Ledger`]), and what is checked of a process whenever
//! everybody sleeps ([`check_rest`]).

use rendezvous_core::id::Id;
use rendezvous_core::machine::{Close, ConnId};
use rendezvous_core::time::Span;

use self::witness::Seen;
pub use self::witness::Watched;
use crate::sim_net::{Ep, Who, World};

mod witness;

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
}

/// The books: what every sender sent, and what of it came out where.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    flows: Vec<Flow>,
    /// Clean ends that were seen.
    pub clean: u64,
    /// Octets that came out.
    pub octets: u64,
}

/// The octet at this position of a flow: another one for neighbours and for other flows.
#[must_use]
pub const fn octet(flow: usize, at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9).wrapping_add((flow as u64).wrapping_mul(0x85eb_ca6b));
    (mixed >> 13) as u8 ^ at as u8
}

impl Ledger {
    /// A client's flow, or one that answers it.
    pub fn begin(&mut self, id: Id, answers: Option<usize>) -> usize {
        self.flows.push(Flow { id, answers, sent: 0, ended: false, received: 0, met: 0, done: false });
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
    }

    /// The sender ends in order.
    pub fn end(&mut self, flow: usize) {
        self.flows[flow].ended = true;
    }

    /// A hidden server of this ID got a client's head. False if another one has the client by now: a head that was on
    /// its way to a waiting connection that ended goes to the next, and may arrive all the same.
    pub fn met(&mut self, flow: usize, by: Id) -> bool {
        let flow = self.flows.get_mut(flow).expect("a head that nobody sent");
        assert_eq!(flow.answers, None, "a hidden server got an answer for a request");
        assert_eq!(flow.id, by, "a client met the hidden server of another ID");
        // A request without a body may be repeated, with the client's end behind it.
        flow.done = false;
        flow.met += 1;
        assert!(flow.met <= 3, "handed over too often");
        flow.received == 0
    }

    /// A client got an answer's head.
    pub fn answered(&mut self, by: usize, client: usize) {
        let flow = self.flows.get_mut(by).expect("an answer that nobody gave");
        assert_eq!(flow.answers, Some(client), "a client got the answer of another");
        flow.met += 1;
        assert_eq!(flow.met, 1, "an answer came twice");
    }

    /// These octets came out.
    pub fn received(&mut self, flow: usize, octets: &[u8]) {
        self.octets += octets.len() as u64;
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

/// How long a connection that neither waits nor moves octets may do nothing: the longest deadline, and the time to
/// close.
const IDLE_MAX: Span = Span::from_secs(62);
/// How long a closing one may take.
const CLOSING_MAX: Span = Span::from_secs(32);

/// Whether everything that could go on has gone on: checked when everybody sleeps. `is_relay`: deadlines are checked
/// too. `short`: there may be no buffer for who needs one.
///
/// # Panics
/// It has not.
pub fn check_rest<M>(world: &World, who: Who, watched: &Watched<M>, is_relay: bool, short: bool) {
    assert!(!world.has_untold(who), "{who:?}: somebody is in the backlog, and nobody accepts");
    for seen in watched.seen.iter().flatten() {
        check_deadline(world, seen, is_relay);
        if let Some(ep) = world.watched(who, seen.id)
            && !world.is_deaf(ep)
        {
            check_stuck(world, who, watched, seen, ep, short);
        }
    }
}

fn check_deadline(world: &World, seen: &Seen, is_relay: bool) {
    let idle = world.now().since(seen.since);
    if seen.closing.is_some() {
        assert!(idle <= CLOSING_MAX, "closes for ever: {seen:?}");
    } else if is_relay && !seen.waits && seen.mate.is_none() {
        assert!(idle <= IDLE_MAX, "no deadline ends it: {seen:?}");
    }
}

fn check_stuck<M>(world: &World, who: Who, watched: &Watched<M>, seen: &Seen, ep: Ep, short: bool) {
    if seen.queued > 0 && seen.closing.is_none() && !seen.write_failed && world.could_send(ep) {
        panic!("octets are queued, there is room, and nobody sends: {seen:?}");
    }
    let readable = world.readable(ep) > 0;
    match (seen.closing, seen.mate) {
        (Some(Close::Linger | Close::Truncate), _) => {
            assert!(!readable, "octets of a closing connection are unread, and nobody reads: {seen:?}");
        }
        (Some(Close::Abort), _) => panic!("aborted, and still there: {seen:?}"),
        (None, _) if !seen.wanted || short => {}
        (None, None) => {
            assert!(!readable || seen.ended, "octets are unread, and nobody reads: {seen:?}");
            assert!(!world.has_end(ep) || seen.ended, "an end that nobody saw: {seen:?}");
        }
        (None, Some(mate)) => {
            let Some(mate) = state(watched, mate) else { return };
            let open = mate.queued == 0 && !mate.write_failed && !mate.end_crossed;
            // In TLS there may be octets in front of it that the machine never hears of.
            let taken = |ep| !watched.in_clear && !world.could_send(ep);
            let deaf = world.watched(who, mate.id).is_none_or(|ep| world.is_deaf(ep) || taken(ep));
            if open && !deaf && !seen.ended {
                assert!(
                    !readable,
                    "octets are unread, the other side is free, nobody reads: {seen:?} {mate:?}"
                );
                assert!(!world.has_end(ep), "an end that nobody passes on: {seen:?} {mate:?}");
            }
        }
    }
}

fn state<M>(watched: &Watched<M>, on: ConnId) -> Option<&Seen> {
    watched.seen.get(on.index as usize)?.as_ref().filter(|seen| seen.id == on)
}
