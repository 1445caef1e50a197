//! The half-close table, walked through completely, against a second copy of it; and its timeouts.

use std::collections::{BTreeMap, VecDeque};

use rendezvous_core::machine::{Close, End};
use rendezvous_core::pair::{Act, EndReason, Flow, Limits, Pair, PairEnd, Side};
use rendezvous_core::time::{Span, Time};

const LIMITS: Limits = Limits {
    half_closed: Span::from_secs(60),
    idle: Some(Span::from_secs(600)),
    check: Span::from_secs(10),
    silent: Span::from_secs(30),
    hand_over: None,
};
const START: Time = Time(1_000_000);
const SIDES: [Side; 2] = [Side::Client, Side::Hidden];

/// An event of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Bytes were received from src, and some of the queue is left.
    Queued,
    /// Bytes were received from src, and all of them are in dst's socket.
    Passed,
    /// Some of the queue was sent, and some is left.
    Progress,
    SrcEnds(End),
    DstEmpties,
    DstFails,
}

const EVENTS: [Event; 8] = [
    Event::Queued,
    Event::Passed,
    Event::Progress,
    Event::SrcEnds(End::Clean),
    Event::SrcEnds(End::Truncated),
    Event::SrcEnds(End::Reset),
    Event::DstEmpties,
    Event::DstFails,
];

/// The effect in a line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stays,
    /// Changes the state without an action.
    Becomes(Flow),
    /// → Shut, and dst's writing side is shut down.
    EndsDst,
    /// → Dead, and src is not read any more.
    StopsSrc,
    /// The pair ends: dst is truncated.
    Cut,
    /// Cannot happen.
    Never,
}

/// The table of docs/protocol.md §4.2: a line for each state (with or without a queue) and event. In `Dead` too a
/// reset or a truncation of src ends the pair, since no other direction could continue.
const fn line(flow: Flow, queued: bool, event: Event) -> Then {
    match (flow, event) {
        (Flow::Open, Event::Queued | Event::Passed | Event::DstEmpties) => Then::Stays,
        (Flow::Open, Event::SrcEnds(End::Clean)) if queued => Then::Becomes(Flow::Draining),
        (Flow::Open, Event::SrcEnds(End::Clean)) => Then::EndsDst,
        (Flow::Open, Event::DstFails) => Then::StopsSrc,

        (Flow::Draining, Event::DstEmpties) => Then::EndsDst,
        (Flow::Draining | Flow::Shut, Event::Queued | Event::Passed) => Then::Never,

        (Flow::Draining | Flow::Shut, Event::DstFails) => Then::Becomes(Flow::Dead),
        (Flow::Draining | Flow::Shut, Event::SrcEnds(End::Clean)) => Then::Stays,
        (Flow::Shut, Event::DstEmpties) => Then::Stays,

        (Flow::Dead, Event::SrcEnds(End::Clean)) => Then::Stays,
        (Flow::Dead, Event::Queued | Event::Passed | Event::DstEmpties | Event::DstFails) => Then::Stays,

        (_, Event::SrcEnds(End::Truncated | End::Reset)) => Then::Cut,
        (_, Event::Progress) if queued => Then::Stays,
        (_, Event::Progress) => Then::Never,
    }
}

/// Both directions, by their src: the client's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    flows: [u8; 2],
    queued: [bool; 2],
}

const FLOWS: [Flow; 4] = [Flow::Open, Flow::Draining, Flow::Shut, Flow::Dead];

fn index(side: Side) -> usize {
    usize::from(side == Side::Hidden)
}

impl Model {
    fn flow(&self, src: Side) -> Flow {
        FLOWS[usize::from(self.flows[index(src)])]
    }

    fn set(&mut self, src: Side, flow: Flow) {
        let at = FLOWS.iter().position(|it| *it == flow).expect("one of the four");
        self.flows[index(src)] = u8::try_from(at).expect("below four");
    }

    /// The expected action; `None` if this cannot happen.
    fn happens(&mut self, src: Side, event: Event) -> Option<Option<Act>> {
        let dst = src.other();
        let then = line(self.flow(src), self.queued[index(src)], event);
        let act = match then {
            Then::Never => return None,
            Then::Stays => None,
            Then::Becomes(flow) => {
                self.set(src, flow);
                None
            }
            Then::EndsDst => {
                self.set(src, Flow::Shut);
                Some(Act::CloseWrite(dst))
            }
            Then::StopsSrc => {
                self.set(src, Flow::Dead);
                Some(Act::StopReading(src))
            }
            Then::Cut => return Some(Some(cut(src, event, self.flow(dst)))),
        };
        match event {
            Event::Queued => self.queued[index(src)] = self.flow(src) != Flow::Dead,
            Event::Passed | Event::DstEmpties | Event::DstFails => self.queued[index(src)] = false,
            Event::Progress | Event::SrcEnds(_) => {}
        }
        Some(self.over().or(act))
    }

    /// A side that accepts nothing any more is reset; the others have had their clean end.
    fn over(&self) -> Option<Act> {
        let to = |dst: Side| self.flow(dst.other());
        let close = |dst| match to(dst) {
            Flow::Shut => Some(Close::Linger),
            Flow::Dead => Some(Close::Abort),
            Flow::Open | Flow::Draining => None,
        };
        let (hidden, client) = (close(Side::Hidden)?, close(Side::Client)?);
        let why = match (hidden, client) {
            (Close::Linger, Close::Linger) => EndReason::Done,
            (Close::Abort, Close::Linger) => EndReason::Reset(Side::Hidden),
            _ => EndReason::Reset(Side::Client),
        };
        Some(Act::PairEnd(PairEnd { hidden, client, why }))
    }
}

/// `towards`: the direction to src. It may still read: what its peer has not ended is truncated for it too.
fn cut(src: Side, event: Event, towards: Flow) -> Act {
    let (own, why) = match event {
        Event::SrcEnds(End::Truncated) if towards == Flow::Open => {
            (Close::Truncate, EndReason::Truncated(src))
        }
        Event::SrcEnds(End::Truncated) => (Close::Linger, EndReason::Truncated(src)),
        _ => (Close::Abort, EndReason::Reset(src)),
    };
    Act::PairEnd(match src {
        Side::Hidden => PairEnd { hidden: own, client: Close::Truncate, why },
        Side::Client => PairEnd { hidden: Close::Truncate, client: own, why },
    })
}

fn happens(pair: &mut Pair, src: Side, event: Event, now: Time) -> Option<Act> {
    match event {
        Event::Queued => pair.on_moved(src, 10, 5, now),
        Event::Passed => pair.on_moved(src, 10, 0, now),
        Event::Progress => pair.on_moved(src, 0, 3, now),
        Event::SrcEnds(how) => pair.on_end(src, how, now),
        Event::DstEmpties => pair.on_flushed(src.other(), now),
        Event::DstFails => pair.on_write_failed(src.other(), now),
    }
}

#[test]
fn every_event_in_every_state_on_both_sides_is_what_the_table_says() {
    let mut seen = BTreeMap::new();
    let mut open = VecDeque::new();
    for head_queued in [false, true] {
        let model = Model { flows: [0, 0], queued: [head_queued, false] };
        open.push_back((model, Pair::new(LIMITS, head_queued, START)));
    }
    let mut checked = 0;
    while let Some((model, pair)) = open.pop_front() {
        if seen.insert(model, ()).is_some() {
            continue;
        }
        for (src, event) in SIDES.into_iter().flat_map(|src| EVENTS.map(|event| (src, event))) {
            let (mut model_then, mut pair_then) = (model, pair);
            let Some(expected) = model_then.happens(src, event) else { continue };
            let act = happens(&mut pair_then, src, event, START);
            assert_eq!(act, expected, "{event:?} of {src:?} in {model:?}");
            checked += 1;
            if matches!(act, Some(Act::PairEnd(_))) {
                continue;
            }
            for side in SIDES {
                assert_eq!(
                    pair_then.flow_from(side),
                    model_then.flow(side),
                    "{event:?} of {src:?} in {model:?}"
                );
            }
            open.push_back((model_then, pair_then));
        }
    }
    let mut flows: Vec<[u8; 2]> = seen.keys().map(|model| model.flows).collect();
    flows.dedup();
    // All that have not ended: four by four, less those in which both are Shut or Dead.
    assert_eq!((flows.len(), checked > 200), (12, true), "{checked} checked");
}

fn at(secs: u64) -> Time {
    START + Span::from_secs(secs)
}

/// A pair whose request has arrived, without unacknowledged bytes.
fn quiet(limits: Limits) -> Pair {
    let mut pair = Pair::new(limits, true, START);
    assert_eq!(pair.on_flushed(Side::Hidden, START), None);
    assert_eq!(pair.on_acked(Side::Hidden, None, START), None);
    pair
}

#[test]
fn an_open_pair_has_no_deadline_but_the_operator_s() {
    assert_eq!(quiet(Limits { idle: None, ..LIMITS }).deadline(), None);
    let mut pair = quiet(LIMITS);
    assert_eq!(pair.deadline(), Some(at(600)));
    assert_eq!(pair.on_timeout(at(599)), None);
    let over = PairEnd { hidden: Close::Truncate, client: Close::Truncate, why: EndReason::Idle };
    assert_eq!(pair.on_timeout(at(600)), Some(Act::PairEnd(over)));
}

#[test]
fn the_half_closed_deadline_runs_from_the_end_and_is_put_off_by_what_moves_in_either_direction() {
    for src in SIDES {
        let mut pair = quiet(LIMITS);
        assert_eq!(pair.on_end(src, End::Clean, at(500)), Some(Act::CloseWrite(src.other())));
        assert_eq!(pair.deadline(), Some(at(560)));
        assert_eq!(pair.on_moved(src.other(), 1, 0, at(520)), None);
        assert_eq!(pair.on_acked(src, None, at(520)), None);
        assert_eq!((pair.deadline(), pair.on_timeout(at(579))), (Some(at(580)), None));
        // A side whose sender has ended has received everything; the other sees a truncated stream.
        let closes = [Close::Linger, Close::Truncate];
        let (hidden, client) =
            if src == Side::Client { (closes[0], closes[1]) } else { (closes[1], closes[0]) };
        let over = PairEnd { hidden, client, why: EndReason::HalfClosed };
        assert_eq!(pair.on_timeout(at(580)), Some(Act::PairEnd(over)));
    }
}

#[test]
fn a_failed_write_is_half_an_end_and_starts_the_deadline() {
    let mut pair = quiet(LIMITS);
    assert_eq!(pair.on_write_failed(Side::Client, at(500)), Some(Act::StopReading(Side::Hidden)));
    assert_eq!(pair.deadline(), Some(at(560)));
}

#[test]
fn what_comes_for_a_side_that_takes_nothing_more_is_counted_and_puts_nothing_off() {
    let mut pair = quiet(LIMITS);
    assert_eq!(pair.on_write_failed(Side::Client, at(500)), Some(Act::StopReading(Side::Hidden)));
    assert_eq!(pair.on_moved(Side::Hidden, 7, 7, at(550)), None);
    assert_eq!((pair.deadline(), pair.bytes_from(Side::Hidden)), (Some(at(560)), 7));
}

#[test]
fn a_queue_is_no_idleness_but_is_looked_after() {
    let mut pair = quiet(LIMITS);
    assert_eq!(pair.on_moved(Side::Hidden, 10, 10, at(1)), None);
    assert_eq!(pair.on_end(Side::Hidden, End::Clean, at(1)), None);
    for secs in [11, 21, 31, 1_031, 100_031] {
        assert_eq!(pair.on_timeout(at(secs)), Some(Act::CheckAck(Side::Client)), "{secs}");
        assert_eq!(pair.on_timeout(at(secs)), None, "asked twice for one answer");
        let age = (secs % 20 == 11).then_some(Span::from_secs(29));
        assert_eq!(pair.on_acked(Side::Client, age, at(secs)), None);
        assert_eq!(pair.deadline(), Some(at(secs + 10)));
    }
    assert_eq!(pair.on_flushed(Side::Client, at(100_040)), Some(Act::CloseWrite(Side::Client)));
}

/// Found by the simulation (seed 60): two programs each had bytes for the other, and neither read, since both had a
/// dead local side. Every probe was acknowledged, so the pair lasted forever.
#[test]
fn a_queue_does_not_stay_the_deadline_of_a_pair_with_a_dead_side() {
    let mut pair = quiet(LIMITS);
    assert_eq!(pair.on_moved(Side::Hidden, 10, 10, at(1)), None);
    assert_eq!(pair.on_end(Side::Hidden, End::Clean, at(1)), None);
    assert_eq!(pair.on_write_failed(Side::Hidden, at(2)), Some(Act::StopReading(Side::Client)));
    for secs in [11, 21, 31, 41, 51, 61] {
        assert_eq!(pair.on_timeout(at(secs)), Some(Act::CheckAck(Side::Client)), "{secs}");
        assert_eq!(pair.on_acked(Side::Client, Some(Span::from_millis(200)), at(secs)), None);
    }
    let over = PairEnd { hidden: Close::Linger, client: Close::Linger, why: EndReason::HalfClosed };
    assert_eq!(
        pair.on_timeout(at(62)),
        Some(Act::PairEnd(over)),
        "what is queued has its sender's end behind it"
    );
}

#[test]
fn who_owes_an_acknowledgement_for_thirty_seconds_is_reset_and_the_other_cut() {
    for side in SIDES {
        let mut pair = quiet(LIMITS);
        assert_eq!(pair.on_moved(side.other(), 1, 0, at(0)), None);
        assert_eq!(pair.on_timeout(at(10)), Some(Act::CheckAck(side)));
        let silent = Some(Span::from_secs(30));
        assert!(pair.is_silent(silent) && !pair.is_silent(None) && !pair.is_silent(Some(Span(29_999_999))));
        let Some(Act::PairEnd(over)) = pair.on_acked(side, silent, at(10)) else { panic!("it is over") };
        let expected = match side {
            Side::Hidden => (Close::Abort, Close::Truncate),
            Side::Client => (Close::Truncate, Close::Abort),
        };
        assert_eq!(
            (over.hidden, over.client, over.why),
            (expected.0, expected.1, EndReason::Unreachable(side))
        );
    }
}

#[test]
fn an_unanswered_question_is_asked_again_at_its_time_and_not_before() {
    let mut pair = Pair::new(LIMITS, true, START);
    for secs in [10, 20, 30] {
        assert_eq!(pair.deadline(), Some(at(secs)));
        assert_eq!(pair.on_timeout(at(secs)), Some(Act::CheckAck(Side::Hidden)));
    }
}

#[test]
fn both_sides_are_asked_each_in_its_turn() {
    let mut pair = quiet(LIMITS);
    assert_eq!(pair.on_moved(Side::Hidden, 1, 0, at(0)), None);
    assert_eq!(pair.on_moved(Side::Client, 1, 0, at(3)), None);
    assert_eq!(pair.on_timeout(at(13)), Some(Act::CheckAck(Side::Client)));
    assert_eq!(pair.on_timeout(at(13)), Some(Act::CheckAck(Side::Hidden)));
    assert_eq!(pair.on_timeout(at(13)), None);
}
