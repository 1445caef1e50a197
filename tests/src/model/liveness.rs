//! Liveness of a process's connections: progress at once, within a number of turns, or by a deadline.

use rendezvous_core::machine::{Close, ConnId};
use rendezvous_core::time::Span;

use super::contract_checker::{ContractChecker, Seen};
use crate::sim_net::{Attention, Ep, ProcessId, World};

/// How long a connection that neither waits nor moves bytes may be idle: the longest deadline, and the time to close.
const IDLE_MAX: Span = Span::from_secs(62);
/// How long closing may take.
const CLOSING_MAX: Span = Span::from_secs(32);
/// How long a reset may take after its peer has everything.
const RESET_MAX: Span = Span::from_millis(100);
/// A ready connection with useful work is served within this many turns, independent of the others.
const TURNS_MAX: u64 = 4;

/// Checks that everything that could make progress has: called when all processes sleep. `is_relay`: deadlines are
/// checked too. `short`: a connection may lack a buffer.
///
/// # Panics
/// A connection has missed its progress or its deadline.
pub fn check_rest<M>(
    world: &World,
    who: ProcessId,
    watched: &ContractChecker<M>,
    is_relay: bool,
    short: bool,
) {
    for seen in watched.seen.iter().flatten() {
        check_deadline(world, seen, is_relay);
        let Some(ep) = world.watched(who, seen.id) else { continue };
        check_reset(world, watched, seen, ep);
        if let Some(liveness) = liveness(world, who, watched, seen, ep, short) {
            panic!("{liveness}: {seen:?} {:?}", seen.peer.and_then(|peer| state(watched, peer)));
        }
    }
}

/// Checks fairness: every ready connection was served within some turns. One slow reader stops only its own sender, and
/// one fast peer does not starve the others.
///
/// # Panics
/// A connection was not served.
pub fn check_turn<M>(world: &mut World, who: ProcessId, watched: &ContractChecker<M>, short: bool) {
    let neglected = world.neglected(who, TURNS_MAX, |world, ep, on| {
        let Some(seen) = state(watched, on) else { return Attention::NotNow };
        if liveness(world, who, watched, seen, ep, short).is_some() {
            Attention::Owed
        } else if world.readable(ep) > 0 || (world.has_end(ep) && !seen.ended) {
            Attention::NotNow
        } else {
            Attention::Done
        }
    });
    if let Some(on) = neglected {
        panic!("ready for {TURNS_MAX} turns, and not served: {:?}", state(watched, on));
    }
}

fn check_deadline(world: &World, seen: &Seen, is_relay: bool) {
    let idle = world.now().since(seen.since);
    if seen.closing.is_some() {
        assert!(idle <= CLOSING_MAX, "closes for ever: {seen:?}");
    } else if is_relay && !seen.waits && seen.peer.is_none() {
        assert!(idle <= IDLE_MAX, "no deadline ends it: {seen:?}");
    }
}

/// Without TLS a truncation is a reset, which comes when the peer has everything.
fn check_reset<M>(world: &World, watched: &ContractChecker<M>, seen: &Seen, ep: Ep) {
    if seen.closing != Some(Close::Truncate) || !watched.in_clear || world.is_dead(ep) {
        return;
    }
    let is_taken = world.moved(ep).1 == seen.owed && world.unacknowledged(ep) == 0;
    let since = world.received_at(ep).max(seen.since);
    let is_late = world.now().since(since) > RESET_MAX;
    assert!(!(is_taken && is_late), "the peer has everything, and nobody resets: {seen:?}");
}

/// What has to be done about a connection now, if anything.
fn liveness<M>(
    world: &World,
    who: ProcessId,
    watched: &ContractChecker<M>,
    seen: &Seen,
    ep: Ep,
    short: bool,
) -> Option<&'static str> {
    if world.ignores_input(ep) {
        return None;
    }
    if seen.queued > 0 && seen.closing.is_none() && !seen.write_failed && world.could_send(ep) {
        return Some("bytes are queued, there is room, and nobody sends");
    }
    let readable = world.readable(ep) > 0;
    match (seen.closing, seen.peer) {
        (Some(Close::Linger | Close::Truncate), _) if readable => {
            Some("bytes of a closing connection are unread, and nobody reads")
        }
        (Some(Close::Linger | Close::Truncate), _) => None,
        (Some(Close::Abort), _) => Some("aborted, and still there"),
        (None, _) if seen.ended => None,
        (None, None) if !seen.wanted && watched.in_clear && !readable && world.moved(ep).0 == seen.taken => {
            world.has_end(ep).then_some("an end that nobody looked for")
        }
        (None, _) if !seen.wanted || short => None,
        (None, None) if readable => Some("bytes are unread, and nobody reads"),
        (None, None) => world.has_end(ep).then_some("an end that nobody saw"),
        // The machine decides when they continue.
        (None, Some(_)) if seen.held > 0 => None,
        (None, Some(peer)) if !takes(world, who, watched, peer) => None,
        // It may wait for tokens.
        (None, Some(peer)) if !is_stopped(world, watched, seen, peer, ep) => None,
        (None, Some(_)) if readable => Some("bytes are unread, the other side is free, nobody reads"),
        (None, Some(_)) => world.has_end(ep).then_some("an end that nobody passes on"),
    }
}

/// Whether nothing moves although the rate, if there is one, permits it.
fn is_stopped<M>(world: &World, watched: &ContractChecker<M>, seen: &Seen, peer: ConnId, ep: Ep) -> bool {
    let Some(stream) = seen.stream.filter(|stream| watched.rates.limits(*stream)) else { return true };
    let since = state(watched, peer).map_or(seen.since, |peer| peer.since.max(seen.since));
    watched.rates.is_stopped(stream, since.max(world.received_at(ep)), world.now())
}

/// Whether a side of a pair accepts bytes now.
fn takes<M>(world: &World, who: ProcessId, watched: &ContractChecker<M>, on: ConnId) -> bool {
    let Some(seen) = state(watched, on) else { return false };
    // TLS may have queued bytes that the machine does not know of.
    let taken = |ep| !watched.in_clear && !world.could_send(ep);
    let ignores_input = world.watched(who, on).is_none_or(|ep| world.ignores_input(ep) || taken(ep));
    seen.queued == 0 && !seen.write_failed && !seen.end_crossed && !ignores_input
}

fn state<M>(watched: &ContractChecker<M>, on: ConnId) -> Option<&Seen> {
    watched.seen.get(on.index as usize)?.as_ref().filter(|seen| seen.id == on)
}
