//! Hang-ups, resets, and the bytes before them.

use rendezvous_core::event::Event;
use rendezvous_core::machine::End;
use rendezvous_core::time::Span;
use tests::actors::{Actor as _, Behaviour, Ending};
use tests::run::Run;
use tests::sim_net::Faults;

use crate::{CALM, client, finish, in_seconds, scene};

/// The client has ended its side: the answer's last bytes and its end come as one hang-up.
#[test]
fn bytes_before_a_hang_up_are_read() {
    for seed in 0..20 {
        let mut run = scene(seed, CALM, 50_000, Ending::Close, None);
        let client = client(&mut run, Behaviour::plain(20), None);
        run.wait(Span::from_secs(60));
        assert_eq!(client.borrow().peer_end(), Some(End::Clean), "seed {seed}");
        let answer = &run.ledger.flows()[1];
        assert!(answer.done && answer.received == answer.sent, "seed {seed}");
        finish(run);
    }
}

#[test]
fn bytes_before_a_reset_arrive_and_the_reset_is_not_a_clean_end() {
    let mut bytes = 0;
    for seed in 0..40 {
        let faults = Faults { spurious: 100, ..CALM };
        let mut run = scene(seed, faults, 5_000, Ending::Reset, None);
        let client = client(&mut run, Behaviour::plain(100_000), None);
        run.wait(Span::from_secs(60));
        // Before the first byte of an answer the client gets the relay's own 502, which ends cleanly.
        if client.borrow().met {
            assert_eq!(client.borrow().peer_end(), Some(End::Reset), "seed {seed}");
        }
        bytes += run.ledger.flows().get(1).map_or(0, |answer| answer.received);
        finish(run);
    }
    assert!(bytes > 10_000, "{bytes}");
}

/// The first write after the peer's close succeeds, the second fails with a broken pipe. Neither is the end of the
/// bytes that the peer sent.
#[test]
fn writing_to_a_closed_peer_loses_none_of_its_bytes() {
    for seed in 0..40 {
        let mut run = scene(seed, CALM, 2_000, Ending::Close, None);
        let drops = Behaviour { send_most: 100, send_rest: Span::from_millis(3), ..Behaviour::plain(20_000) };
        let client = client(&mut run, Behaviour { ending: Ending::AfterPeer, ..drops }, None);
        run.wait(Span::from_secs(60));
        assert!(client.borrow().is_done(), "seed {seed}");
        finish(run);
    }
}

/// A hidden server that resets after an answer of at most 60,000 bytes, and a client that reads at most 1,000 bytes at
/// a time and then pauses. Returns what the client received, and how much of it the relay counted as moved; `None` if
/// the relay answered the client itself. Returns also how long the client's connection outlived the pair.
fn cut_answer(seed: u64, read_rest: Span) -> (Option<(u64, u64)>, Span) {
    const HEAD: u64 = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\nX-Answer: 00000000\r\n\r\n"
        .len() as u64;
    let faults = Faults { room_max: 20_000, ..CALM };
    let mut run = scene(seed, faults, 60_000, Ending::Reset, None);
    let slow = Behaviour { read_most: 1_000, read_rest, ..Behaviour::plain(20) };
    let client = client(&mut run, slow, None);
    let ended = |run: &Run| {
        let events = &run.relay.as_ref().expect("there is a relay").events;
        events.iter().find_map(|event| match event {
            Event::PairEnded { from_hidden, .. } => Some(*from_hidden),
            _ => None,
        })
    };
    run.until_or(in_seconds(&run, 200), |run| ended(run).is_some());
    let cut_at = run.now();
    run.until_or(in_seconds(&run, 200), |_| client.borrow().is_done());
    let outlived = run.now().since(cut_at);
    // Before the first byte of an answer the client gets the relay's own 502.
    let answer = client.borrow().met.then(|| {
        assert_eq!(client.borrow().peer_end(), Some(End::Reset), "seed {seed}");
        // The request may have been handed over again before. The last answer is the one that arrived.
        let answer = run.ledger.flows().last().expect("there is an answer");
        (answer.received + HEAD, ended(&run).expect("the pair has ended"))
    });
    finish(run);
    (answer, outlived)
}

/// Bytes accepted by the kernel are not delivered yet: an immediate reset would overtake them.
#[test]
fn our_reset_comes_after_bytes_accepted_by_the_kernel() {
    let mut bytes = 0;
    for seed in 0..40 {
        let (answer, outlived) = cut_answer(seed, Span::from_millis(2));
        if let Some((received, moved)) = answer {
            assert_eq!(received, moved, "seed {seed}, {outlived:?}");
            bytes += received;
        }
    }
    assert!(bytes > 100_000, "{bytes}");
}

/// A client that does not read its queue within the five seconds after a pair's end is reset. Then some of the moved
/// bytes do not arrive.
#[test]
fn our_reset_overtakes_bytes_only_after_five_seconds() {
    let mut late = 0;
    for seed in 0..40 {
        let (Some((received, moved)), outlived) = cut_answer(seed, Span::from_millis(600)) else { continue };
        assert!(received <= moved, "seed {seed}");
        if received < moved {
            assert!(outlived >= Span::from_secs(5), "seed {seed}: {outlived:?}");
            late += 1;
        }
    }
    assert!(late > 0, "the case happens");
}

/// A NAT loses the connection without an error. The waiting connection is dead within the bound of the keepalive.
#[test]
fn a_connection_lost_by_a_nat_is_detected() {
    for ending in [Ending::Lost, Ending::AfterPeer] {
        let mut run = scene(8, CALM, 100, Ending::AfterPeer, None);
        let patient = Behaviour { ending, patience: Span::from_secs(90), ..Behaviour::plain(50) };
        let client = client(&mut run, patient, None);
        run.wait(Span::from_secs(80));
        let Some(relay) = &run.relay else { panic!("there is a relay") };
        let pairs = relay.event_loop.machine().inner().machine().pairs();
        assert_eq!(pairs == 0, ending == Ending::Lost, "{ending:?}");
        drop(client);
        finish(run);
    }
}
