//! Tokens over challenges of the relay, and the time by our own clock.

use rendezvous_core::token::Challenge;

use super::*;

fn challenge(text: &str) -> Challenge {
    Challenge::parse(format!("challenge-{text:-<10}").as_bytes()).unwrap()
}

/// A response with a challenge.
fn answer(status: &str, text: &str) -> Vec<u8> {
    let challenge = challenge(text);
    format!("HTTP/1.1 {status}\r\nRendezvous-Challenge: {challenge}\r\nContent-Length: 0\r\n\r\n")
        .into_bytes()
}

/// What a token is bound to.
#[derive(Debug, PartialEq, Eq)]
enum Bound {
    /// A time: the token is right when a clock shows `WALL` plus this many minutes.
    Time,
    Challenge(Challenge),
}

/// The relay is reached. Returns what the token that it receives is bound to.
fn registers(harness: &mut Harness<Agent>, on: ConnId) -> Bound {
    harness.call(|agent, now| agent.handle_connected(on, now));
    let text = sent(&harness.actions(), on);
    let target = text.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    match registration(target).unwrap().token {
        Token::Plain(_) => panic!("a plain token"),
        Token::Bound { response, nonce } => {
            // Bound to our own clock, whatever the relay sends.
            assert!(key().check_bound(harness.now.wall, nonce, &response).is_some(), "{text}");
            Bound::Time
        }
        Token::Challenged { response, nonce, challenge } => {
            assert!(key().check_over_challenge(&challenge, nonce, &response), "{text}");
            Bound::Challenge(challenge)
        }
    }
}

/// The only dial to the relay among the news.
fn next(harness: &mut Harness<Agent>) -> ConnId {
    one(&harness.actions()).0
}

fn receive(harness: &mut Harness<Agent>, on: ConnId, answer: &[u8]) {
    assert_eq!(harness.receive(on, answer), answer.len());
}

#[test]
fn a_refusal_with_a_challenge_is_answered_at_once() {
    for status in ["401 Unauthorized", "429 Too Many Requests"] {
        let mut harness = agent();
        let on = next(&mut harness);
        assert_eq!(registers(&mut harness, on), Bound::Time);
        receive(&mut harness, on, &answer(status, "one"));
        let actions = harness.actions();
        let lost = Event::RelayLost { on, upstream: 0, why: RelayLoss::Challenged, again: Span::ZERO };
        assert!(events(&actions).contains(&lost), "{actions:?}");
        let (on, _) = one(&actions);
        assert_eq!(registers(&mut harness, on), Bound::Challenge(challenge("one")));
        receive(&mut harness, on, &answer("200 OK", "two"));
        assert_eq!(harness.machine.waiting(0), 1);
        for (on, _) in dials(&harness.actions()) {
            assert_eq!(registers(&mut harness, on), Bound::Challenge(challenge("two")));
        }
    }
}

#[test]
fn no_token_is_made_for_a_time_that_the_relay_names() {
    // The clock of the relay is wrong. `registers` checks each token.
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    for day in 0..50_u64 {
        let mut dialled = dials(&harness.actions());
        if dialled.is_empty() {
            harness.wait_for_deadline();
            dialled = dials(&harness.actions());
        }
        for (on, _) in dialled {
            assert_eq!(registers(&mut harness, on), Bound::Time);
            let status = if day % 2 == 0 { "401 Unauthorized" } else { "200 OK" };
            harness.receive(on, &dated(status, WALL + 86_400 * day));
            harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
        }
    }
}

#[test]
fn a_refusal_of_a_token_over_its_challenge_backs_off() {
    let mut harness = agent();
    let on = next(&mut harness);
    registers(&mut harness, on);
    receive(&mut harness, on, &answer("401 Unauthorized", "one"));
    for text in ["two", "three", "four"] {
        let on = next(&mut harness);
        registers(&mut harness, on);
        receive(&mut harness, on, &answer("401 Unauthorized", text));
        assert!(dials(&harness.actions()).is_empty());
        assert!(harness.wait_for_deadline() >= Span::from_secs(4));
    }
}

#[test]
fn a_relay_that_was_restarted_gets_a_token_over_its_new_challenge_at_once() {
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    let on = next(&mut harness);
    registers(&mut harness, on);
    receive(&mut harness, on, &answer("200 OK", "old"));
    harness.wait(Span::from_secs(20));
    harness.actions();
    harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
    assert!(harness.wait_for_deadline() <= Span::from_millis(750));
    let on = next(&mut harness);
    assert_eq!(registers(&mut harness, on), Bound::Challenge(challenge("old")));
    receive(&mut harness, on, &answer("401 Unauthorized", "new"));
    let on = next(&mut harness);
    assert_eq!(registers(&mut harness, on), Bound::Challenge(challenge("new")));
    receive(&mut harness, on, &answer("200 OK", "newer"));
    assert_eq!(harness.machine.waiting(0), 1);
}

#[test]
fn a_relay_that_is_upgraded_ten_times_in_a_row_has_its_agent_back_within_a_second() {
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    let mut on = next(&mut harness);
    registers(&mut harness, on);
    receive(&mut harness, on, &answer("200 OK", "0"));
    for process in 1..=10 {
        // A client is served, which resets the backoff.
        on = replaced(&mut harness, on);
        registers(&mut harness, on);
        receive(&mut harness, on, &answer("200 OK", &format!("{process}-old")));
        harness.wait(Span::from_millis(3_500));
        harness.actions();
        let ended = harness.now.mono;
        harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
        for status in ["401 Unauthorized", "200 OK"] {
            let mut dialled = dials(&harness.actions());
            while dialled.is_empty() {
                harness.wait_for_deadline();
                dialled = dials(&harness.actions());
            }
            on = dialled[0].0;
            registers(&mut harness, on);
            receive(&mut harness, on, &answer(status, &format!("{process}-new")));
        }
        let absent = harness.now.mono.since(ended);
        assert!(absent <= Span::from_secs(1), "absent for {absent:?} at process {process}");
    }
}

/// A rendezvous that ends cleanly, with a response.
fn serve(harness: &mut Harness<Agent>, on: ConnId) {
    harness.receive(on, GET);
    let local = dials(&harness.actions()).into_iter().find(|(_, to)| *to == service()).unwrap().0;
    harness.call(|agent, now| agent.handle_connected(local, now));
    harness.call(|agent, now| agent.handle_moved(local, 10, 0, now));
    for end in [local, on] {
        harness.call(|agent, now| agent.handle_end(end, End::Clean, now));
    }
}

/// The next connection to the relay, after one was taken and the local service was reached.
fn replaced(harness: &mut Harness<Agent>, on: ConnId) -> ConnId {
    harness.receive(on, GET);
    let dials = dials(&harness.actions());
    let local = dials.iter().find(|(_, to)| *to == service()).unwrap().0;
    harness.call(|agent, now| agent.handle_connected(local, now));
    harness.call(|agent, now| agent.handle_moved(local, 10, 0, now));
    dials.into_iter().find(|(_, to)| *to == relay()).unwrap().0
}

#[test]
fn with_a_right_clock_there_is_one_round_trip_whatever_the_age_of_the_challenge() {
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    let mut on = next(&mut harness);
    assert_eq!(registers(&mut harness, on), Bound::Time);
    for (n, waited) in [(1, 0), (2, 49), (3, 51), (4, 3_600), (5, 1)] {
        receive(&mut harness, on, &answer("200 OK", &n.to_string()));
        harness.wait(Span::from_secs(waited));
        on = replaced(&mut harness, on);
        let expected = if waited < 50 { Bound::Challenge(challenge(&n.to_string())) } else { Bound::Time };
        assert_eq!(registers(&mut harness, on), expected, "after {waited} s");
    }
}

#[test]
fn with_a_wrong_clock_a_challenge_is_asked_for_again_when_the_last_is_old() {
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    let on = next(&mut harness);
    assert_eq!(registers(&mut harness, on), Bound::Time);
    receive(&mut harness, on, &answer("401 Unauthorized", "one"));
    let mut on = next(&mut harness);
    registers(&mut harness, on);
    for _ in 0..10 {
        receive(&mut harness, on, &answer("200 OK", "two"));
        harness.wait(Span::from_secs(3_600));
        let stale = replaced(&mut harness, on);
        assert_eq!(registers(&mut harness, stale), Bound::Challenge(challenge("two")));
        receive(&mut harness, stale, &answer("401 Unauthorized", "three"));
        on = next(&mut harness);
        assert_eq!(registers(&mut harness, on), Bound::Challenge(challenge("three")));
    }
}

#[test]
fn a_clock_that_was_set_is_tried_again() {
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    let on = next(&mut harness);
    registers(&mut harness, on);
    receive(&mut harness, on, &answer("401 Unauthorized", "one"));
    let on = next(&mut harness);
    registers(&mut harness, on);
    receive(&mut harness, on, &answer("200 OK", "two"));
    harness.wait(Span::from_secs(3_600));
    harness.now.wall += 100_000;
    let on = replaced(&mut harness, on);
    assert_eq!(registers(&mut harness, on), Bound::Time);
}

#[test]
fn an_older_relay_gets_tokens_of_our_own_time_alone() {
    let mut harness = agent();
    let on = next(&mut harness);
    registers(&mut harness, on);
    receive(&mut harness, on, &answer("200 OK", "one"));
    let pool = dials(&harness.actions());
    // The relay is replaced by an older one, which takes the parameter for one that it does not know.
    for (other, _) in &pool {
        registers(&mut harness, *other);
        receive(&mut harness, *other, REFUSED);
    }
    harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
    harness.wait_for_deadline();
    let on = next(&mut harness);
    assert_eq!(registers(&mut harness, on), Bound::Time);
    receive(&mut harness, on, OK);
    for (on, _) in dials(&harness.actions()) {
        assert_eq!(registers(&mut harness, on), Bound::Time);
    }
}

#[test]
fn a_plain_token_is_not_repeated_for_a_challenge() {
    let mut harness = agent_with(|config| config.upstreams[0].plain = true);
    let on = next(&mut harness);
    refuse(&mut harness, on, &answer("401 Unauthorized", "one"));
    assert!(dials(&harness.actions()).is_empty());
    assert!(harness.wait_for_deadline() >= Span::from_secs(4));
}

/// How many connections a relay gets in a minute if it handles each as `deal` does.
fn connections(pool: u16, mut deal: impl FnMut(&mut Harness<Agent>, ConnId, u32)) -> u32 {
    let mut harness = agent_with(|config| config.upstreams[0].pool = pool);
    let mut count = 0;
    let end = harness.now.mono + Span::from_secs(60);
    while harness.now.mono < end {
        let dialled = dials(&harness.actions());
        if dialled.is_empty() {
            harness.wait_for_deadline();
        }
        for (on, to) in dialled {
            if to == relay() {
                count += 1;
                assert!(count < 5_000, "a storm");
                harness.call(|agent, now| agent.handle_connected(on, now));
                deal(&mut harness, on, count);
            } else {
                harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
            }
        }
    }
    count
}

#[test]
fn a_relay_that_alternates_between_401_and_200_is_not_stormed() {
    let count = connections(4, |harness, on, count| {
        let text = count.to_string();
        if count % 2 == 0 {
            receive(harness, on, &answer("401 Unauthorized", &text));
        } else {
            receive(harness, on, &answer("200 OK", &text));
            harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
        }
    });
    assert!(count < 60, "{count}");
    // A relay that brings a client each time, which leaves at once.
    let count = connections(4, |harness, on, count| {
        let text = count.to_string();
        if count % 2 == 0 {
            receive(harness, on, &answer("401 Unauthorized", &text));
        } else {
            receive(harness, on, &answer("200 OK", &text));
            harness.receive(on, b"G");
            harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
        }
    });
    assert!(count < 240, "{count}");
}

#[test]
fn a_relay_that_refuses_every_challenge_is_not_stormed() {
    let count = connections(4, |harness, on, count| {
        receive(harness, on, &answer("401 Unauthorized", &count.to_string()));
    });
    assert!(count < 15, "{count}");
}

#[test]
fn a_relay_that_brings_clients_which_go_at_once_is_not_stormed() {
    for (pool, kind) in [(1, &b"G"[..]), (4, b"G"), (100, b"G"), (4, GET), (4, UPGRADE)] {
        for how in [End::Clean, End::Truncated, End::Reset] {
            let count = connections(pool, |harness, on, _| {
                harness.receive(on, OK);
                harness.receive(on, kind);
                harness.call(|agent, now| agent.handle_end(on, how, now));
            });
            // A pool of a hundred is opened before anything is known.
            assert!(count < 200 + u32::from(pool), "{count} with a pool of {pool}");
        }
    }
}

#[test]
fn clients_that_are_answered_are_never_slowed_down() {
    let (mut harness, _) = pool_of(agent_with(|config| config.upstreams[0].pool = 1));
    let mut on = ConnId { index: 0, generation: 0 };
    for n in 0..500 {
        for (dialled, to) in dials(&harness.actions()) {
            if to == relay() {
                accept(&mut harness, dialled);
                on = dialled;
            }
        }
        if n > 0 {
            assert_eq!(harness.machine.waiting(0), 1, "{n}");
        }
        if on.generation > 0 {
            serve_and_see(&mut harness, on);
        }
    }
}

/// A short rendezvous; the next connection is dialled before it is over.
fn serve_and_see(harness: &mut Harness<Agent>, on: ConnId) {
    let before = harness.now;
    serve(harness, on);
    assert_eq!(harness.now, before);
}

#[test]
fn after_a_port_scan_the_pool_is_back_within_seconds() {
    let (mut harness, mut waiting) = pool_of(agent());
    let (mut scanned, mut last) = (0, harness.now.mono);
    while scanned < 1_000 {
        for on in std::mem::take(&mut waiting) {
            harness.receive(on, b"G");
            harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
            scanned += 1;
        }
        let mut dialled = dials(&harness.actions());
        if dialled.is_empty() {
            harness.wait_for_deadline();
            assert!(harness.now.mono.since(last) <= Span::from_secs(5), "it was away for longer");
            dialled = dials(&harness.actions());
        }
        for (on, _) in dialled.into_iter().filter(|(_, to)| *to == relay()) {
            accept(&mut harness, on);
            waiting.push(on);
            last = harness.now.mono;
        }
    }
    let over = harness.now.mono;
    while harness.machine.waiting(0) < 4 {
        for (on, _) in dials(&harness.actions()).into_iter().filter(|(_, to)| *to == relay()) {
            accept(&mut harness, on);
        }
        if harness.machine.waiting(0) < 4 {
            harness.wait(Span::from_millis(100));
        }
        assert!(harness.now.mono.since(over) <= Span::from_secs(12), "{} wait", harness.machine.waiting(0));
    }
}
