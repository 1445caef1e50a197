//! Tokens over challenges of the relay, and the time by our own clock.

use rendezvous_core::token::Challenge;

use super::*;

fn challenge(text: &str) -> Challenge {
    Challenge::parse(format!("challenge-{text:-<10}").as_bytes()).unwrap()
}

/// An answer that carries a challenge.
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

/// The relay is reached; what the token is bound to that it gets.
fn registers(rig: &mut Rig<Agent>, on: ConnId) -> Bound {
    rig.tell(|agent, now| agent.handle_connected(on, now));
    let text = sent(&rig.news(), on);
    let target = text.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    match registration(target).unwrap().token {
        Token::Plain(_) => panic!("a plain token"),
        Token::Bound { response, nonce } => {
            // By our own clock, whatever the relay sends.
            assert!(key().check_bound(rig.now.wall, nonce, &response).is_some(), "{text}");
            Bound::Time
        }
        Token::Challenged { response, nonce, challenge } => {
            assert!(key().check_over_challenge(&challenge, nonce, &response), "{text}");
            Bound::Challenge(challenge)
        }
    }
}

/// The one dial to the relay among the news.
fn next(rig: &mut Rig<Agent>) -> ConnId {
    one(&rig.news()).0
}

fn hears(rig: &mut Rig<Agent>, on: ConnId, answer: &[u8]) {
    assert_eq!(rig.hears(on, answer), answer.len());
}

#[test]
fn a_refusal_with_a_challenge_is_answered_at_once() {
    for status in ["401 Unauthorized", "429 Too Many Requests"] {
        let mut rig = agent();
        let on = next(&mut rig);
        assert_eq!(registers(&mut rig, on), Bound::Time);
        hears(&mut rig, on, &answer(status, "one"));
        let news = rig.news();
        let lost = Note::RelayLost { on, upstream: 0, why: RelayLoss::Challenged, again: Span::ZERO };
        assert!(notes(&news).contains(&lost), "{news:?}");
        let (on, _) = one(&news);
        assert_eq!(registers(&mut rig, on), Bound::Challenge(challenge("one")));
        hears(&mut rig, on, &answer("200 OK", "two"));
        assert_eq!(rig.machine.waiting(0), 1);
        for (on, _) in dials(&rig.news()) {
            assert_eq!(registers(&mut rig, on), Bound::Challenge(challenge("two")));
        }
    }
}

#[test]
fn no_token_is_made_for_a_time_that_the_relay_names() {
    // A relay that is somewhere else in time, whatever it answers: `registers` judges each token.
    let mut rig = agent_with(|config| config.upstreams[0].pool = 1);
    for day in 0..50_u64 {
        let mut dialled = dials(&rig.news());
        if dialled.is_empty() {
            rig.wait_for_deadline();
            dialled = dials(&rig.news());
        }
        for (on, _) in dialled {
            assert_eq!(registers(&mut rig, on), Bound::Time);
            let status = if day % 2 == 0 { "401 Unauthorized" } else { "200 OK" };
            rig.hears(on, &dated(status, WALL + 86_400 * day));
            rig.tell(|agent, now| agent.handle_end(on, End::Clean, now));
        }
    }
}

#[test]
fn a_refusal_of_a_token_over_its_challenge_backs_off() {
    let mut rig = agent();
    let on = next(&mut rig);
    registers(&mut rig, on);
    hears(&mut rig, on, &answer("401 Unauthorized", "one"));
    for text in ["two", "three", "four"] {
        let on = next(&mut rig);
        registers(&mut rig, on);
        hears(&mut rig, on, &answer("401 Unauthorized", text));
        assert!(dials(&rig.news()).is_empty());
        assert!(rig.wait_for_deadline() >= Span::from_secs(4));
    }
}

#[test]
fn a_relay_that_was_restarted_gets_a_token_over_its_new_challenge_at_once() {
    let mut rig = agent_with(|config| config.upstreams[0].pool = 1);
    let on = next(&mut rig);
    registers(&mut rig, on);
    hears(&mut rig, on, &answer("200 OK", "old"));
    rig.wait(Span::from_secs(20));
    rig.news();
    rig.tell(|agent, now| agent.handle_end(on, End::Reset, now));
    assert!(rig.wait_for_deadline() <= Span::from_millis(750));
    let on = next(&mut rig);
    assert_eq!(registers(&mut rig, on), Bound::Challenge(challenge("old")));
    hears(&mut rig, on, &answer("401 Unauthorized", "new"));
    let on = next(&mut rig);
    assert_eq!(registers(&mut rig, on), Bound::Challenge(challenge("new")));
    hears(&mut rig, on, &answer("200 OK", "newer"));
    assert_eq!(rig.machine.waiting(0), 1);
}

/// A rendezvous that ends in order, with an answer.
fn serve(rig: &mut Rig<Agent>, on: ConnId) {
    rig.hears(on, GET);
    let local = dials(&rig.news()).into_iter().find(|(_, to)| *to == service()).unwrap().0;
    rig.tell(|agent, now| agent.handle_connected(local, now));
    rig.tell(|agent, now| agent.handle_moved(local, 10, 0, now));
    for end in [local, on] {
        rig.tell(|agent, now| agent.handle_end(end, End::Clean, now));
    }
}

/// The next connection to the relay, after one was taken at which the local service is reached.
fn replaced(rig: &mut Rig<Agent>, on: ConnId) -> ConnId {
    rig.hears(on, GET);
    let dials = dials(&rig.news());
    let local = dials.iter().find(|(_, to)| *to == service()).unwrap().0;
    rig.tell(|agent, now| agent.handle_connected(local, now));
    rig.tell(|agent, now| agent.handle_moved(local, 10, 0, now));
    dials.into_iter().find(|(_, to)| *to == relay()).unwrap().0
}

#[test]
fn with_a_right_clock_there_is_one_round_trip_whatever_the_age_of_the_challenge() {
    let mut rig = agent_with(|config| config.upstreams[0].pool = 1);
    let mut on = next(&mut rig);
    assert_eq!(registers(&mut rig, on), Bound::Time);
    for (n, waited) in [(1, 0), (2, 49), (3, 51), (4, 3_600), (5, 1)] {
        hears(&mut rig, on, &answer("200 OK", &n.to_string()));
        rig.wait(Span::from_secs(waited));
        on = replaced(&mut rig, on);
        let expected = if waited < 50 { Bound::Challenge(challenge(&n.to_string())) } else { Bound::Time };
        assert_eq!(registers(&mut rig, on), expected, "after {waited} s");
    }
}

#[test]
fn with_a_wrong_clock_a_challenge_is_asked_for_again_when_the_last_is_old() {
    let mut rig = agent_with(|config| config.upstreams[0].pool = 1);
    let on = next(&mut rig);
    assert_eq!(registers(&mut rig, on), Bound::Time);
    hears(&mut rig, on, &answer("401 Unauthorized", "one"));
    let mut on = next(&mut rig);
    registers(&mut rig, on);
    for _ in 0..10 {
        hears(&mut rig, on, &answer("200 OK", "two"));
        rig.wait(Span::from_secs(3_600));
        let stale = replaced(&mut rig, on);
        assert_eq!(registers(&mut rig, stale), Bound::Challenge(challenge("two")));
        hears(&mut rig, stale, &answer("401 Unauthorized", "three"));
        on = next(&mut rig);
        assert_eq!(registers(&mut rig, on), Bound::Challenge(challenge("three")));
    }
}

#[test]
fn a_clock_that_was_set_is_tried_again() {
    let mut rig = agent_with(|config| config.upstreams[0].pool = 1);
    let on = next(&mut rig);
    registers(&mut rig, on);
    hears(&mut rig, on, &answer("401 Unauthorized", "one"));
    let on = next(&mut rig);
    registers(&mut rig, on);
    hears(&mut rig, on, &answer("200 OK", "two"));
    rig.wait(Span::from_secs(3_600));
    rig.now.wall += 100_000;
    let on = replaced(&mut rig, on);
    assert_eq!(registers(&mut rig, on), Bound::Time);
}

#[test]
fn an_older_relay_gets_tokens_of_our_own_time_alone() {
    let mut rig = agent();
    let on = next(&mut rig);
    registers(&mut rig, on);
    hears(&mut rig, on, &answer("200 OK", "one"));
    let pool = dials(&rig.news());
    // The relay is replaced by an older one, which takes the parameter for one that it does not know.
    for (other, _) in &pool {
        registers(&mut rig, *other);
        hears(&mut rig, *other, REFUSED);
    }
    rig.tell(|agent, now| agent.handle_end(on, End::Reset, now));
    rig.wait_for_deadline();
    let on = next(&mut rig);
    assert_eq!(registers(&mut rig, on), Bound::Time);
    hears(&mut rig, on, OK);
    for (on, _) in dials(&rig.news()) {
        assert_eq!(registers(&mut rig, on), Bound::Time);
    }
}

#[test]
fn a_plain_token_is_not_repeated_for_a_challenge() {
    let mut rig = agent_with(|config| config.upstreams[0].plain = true);
    let on = next(&mut rig);
    refuse(&mut rig, on, &answer("401 Unauthorized", "one"));
    assert!(dials(&rig.news()).is_empty());
    assert!(rig.wait_for_deadline() >= Span::from_secs(4));
}

/// How many connections a relay gets in a minute that deals with each as `deal` does.
fn connections(pool: u16, mut deal: impl FnMut(&mut Rig<Agent>, ConnId, u32)) -> u32 {
    let mut rig = agent_with(|config| config.upstreams[0].pool = pool);
    let mut count = 0;
    let end = rig.now.mono + Span::from_secs(60);
    while rig.now.mono < end {
        let dialled = dials(&rig.news());
        if dialled.is_empty() {
            rig.wait_for_deadline();
        }
        for (on, to) in dialled {
            if to == relay() {
                count += 1;
                assert!(count < 5_000, "a storm");
                rig.tell(|agent, now| agent.handle_connected(on, now));
                deal(&mut rig, on, count);
            } else {
                rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
            }
        }
    }
    count
}

#[test]
fn a_relay_that_alternates_between_401_and_200_is_not_stormed() {
    let count = connections(4, |rig, on, count| {
        let text = count.to_string();
        if count % 2 == 0 {
            hears(rig, on, &answer("401 Unauthorized", &text));
        } else {
            hears(rig, on, &answer("200 OK", &text));
            rig.tell(|agent, now| agent.handle_end(on, End::Clean, now));
        }
    });
    assert!(count < 60, "{count}");
    // And one that brings a client each time, which goes at once.
    let count = connections(4, |rig, on, count| {
        let text = count.to_string();
        if count % 2 == 0 {
            hears(rig, on, &answer("401 Unauthorized", &text));
        } else {
            hears(rig, on, &answer("200 OK", &text));
            rig.hears(on, b"G");
            rig.tell(|agent, now| agent.handle_end(on, End::Clean, now));
        }
    });
    assert!(count < 240, "{count}");
}

#[test]
fn a_relay_that_refuses_every_challenge_is_not_stormed() {
    let count = connections(4, |rig, on, count| {
        hears(rig, on, &answer("401 Unauthorized", &count.to_string()));
    });
    assert!(count < 15, "{count}");
}

#[test]
fn a_relay_that_brings_clients_which_go_at_once_is_not_stormed() {
    for (pool, kind) in [(1, &b"G"[..]), (4, b"G"), (100, b"G"), (4, GET), (4, UPGRADE)] {
        for how in [End::Clean, End::Truncated, End::Reset] {
            let count = connections(pool, |rig, on, _| {
                rig.hears(on, OK);
                rig.hears(on, kind);
                rig.tell(|agent, now| agent.handle_end(on, how, now));
            });
            // A pool of a hundred is opened before anything is known.
            assert!(count < 200 + u32::from(pool), "{count} with a pool of {pool}");
        }
    }
}

#[test]
fn clients_that_are_answered_are_never_slowed_down() {
    let (mut rig, _) = pool_of(agent_with(|config| config.upstreams[0].pool = 1));
    let mut on = ConnId { index: 0, generation: 0 };
    for n in 0..500 {
        for (dialled, to) in dials(&rig.news()) {
            if to == relay() {
                accept(&mut rig, dialled);
                on = dialled;
            }
        }
        if n > 0 {
            assert_eq!(rig.machine.waiting(0), 1, "{n}");
        }
        if on.generation > 0 {
            serve_and_see(&mut rig, on);
        }
    }
}

/// A short rendezvous; the next connection is dialled before it is over.
fn serve_and_see(rig: &mut Rig<Agent>, on: ConnId) {
    let before = rig.now;
    serve(rig, on);
    assert_eq!(rig.now, before);
}

#[test]
fn after_a_port_scan_the_pool_is_back_within_seconds() {
    let (mut rig, mut waiting) = pool_of(agent());
    let (mut scanned, mut last) = (0, rig.now.mono);
    while scanned < 1_000 {
        for on in std::mem::take(&mut waiting) {
            rig.hears(on, b"G");
            rig.tell(|agent, now| agent.handle_end(on, End::Reset, now));
            scanned += 1;
        }
        let mut dialled = dials(&rig.news());
        if dialled.is_empty() {
            rig.wait_for_deadline();
            assert!(rig.now.mono.since(last) <= Span::from_secs(5), "it was away for longer");
            dialled = dials(&rig.news());
        }
        for (on, _) in dialled.into_iter().filter(|(_, to)| *to == relay()) {
            accept(&mut rig, on);
            waiting.push(on);
            last = rig.now.mono;
        }
    }
    let over = rig.now.mono;
    while rig.machine.waiting(0) < 4 {
        for (on, _) in dials(&rig.news()).into_iter().filter(|(_, to)| *to == relay()) {
            accept(&mut rig, on);
        }
        if rig.machine.waiting(0) < 4 {
            rig.wait(Span::from_millis(100));
        }
        assert!(rig.now.mono.since(over) <= Span::from_secs(12), "{} wait", rig.machine.waiting(0));
    }
}
