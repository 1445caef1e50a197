//! The backoff after failures.

use super::*;

/// The delays between dials of a relay that handles each dial in this way, for up to an hour.
fn pauses(mut harness: Harness<Agent>, mut deal: impl FnMut(&mut Harness<Agent>, ConnId)) -> Vec<Span> {
    let (mut pauses, mut last) = (Vec::new(), None);
    let end = harness.now.mono + Span::from_secs(3_600);
    while harness.now.mono < end {
        let dialled = dials(&harness.actions());
        if dialled.is_empty() {
            harness.wait_for_deadline();
        }
        for (on, _) in dialled {
            pauses.extend(last.map(|last| harness.now.mono.since(last)));
            last = Some(harness.now.mono);
            assert!(pauses.len() < 5_000, "a storm");
            deal(&mut harness, on);
        }
    }
    pauses
}

/// Each delay is in the range that doubles from `first` to a minute.
fn assert_grows(pauses: &[Span], first: Span) {
    let mut least = first.0;
    for pause in pauses {
        let most = (least + least / 2).min(60_000_000);
        assert!((most / 3 * 2..=most + 1).contains(&pause.0), "{pause:?} is not in {most} and two thirds");
        least = (least * 2).min(40_000_000);
    }
}

#[test]
fn an_unreachable_relay_is_tried_within_two_seconds_for_a_minute_and_then_ever_more_seldom() {
    let pauses = pauses(agent(), |harness, on| {
        harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
    });
    assert_grows(&pauses[..2], Span::from_millis(500));
    let mut outage = Span::ZERO;
    let in_first_minute = pauses.iter().take_while(|pause| {
        outage = outage + **pause;
        outage < Span::from_secs(45)
    });
    assert!(in_first_minute.max().is_some_and(|longest| *longest < Span::from_secs(2)), "{pauses:?}");
    assert!(pauses.last().is_some_and(|last| *last >= Span::from_secs(40)), "{pauses:?}");
    assert!((90..=150).contains(&pauses.len()), "{} attempts", pauses.len());
}

#[test]
fn a_refusing_relay_is_tried_more_slowly() {
    let pauses = pauses(agent(), |harness, on| refuse(harness, on, REFUSED));
    assert_grows(&pauses, Span::from_secs(4));
    assert!((60..=95).contains(&pauses.len()), "{} attempts", pauses.len());
}

#[test]
fn a_replaced_ticket_is_tried_at_once_with_its_own_secret() {
    let mut harness = agent();
    for _ in 0..5 {
        let (on, _) = one(&harness.actions());
        refuse(&mut harness, on, REFUSED);
        harness.actions();
        harness.wait_for_deadline();
    }
    let (on, _) = one(&harness.actions());
    refuse(&mut harness, on, REFUSED);
    assert!(dials(&harness.actions()).is_empty(), "it backs off");
    let secret = Key::new(b"another secret, as long".to_vec(), Algorithm::Sha256, 8, 30).unwrap();
    harness.call(|agent, now| agent.handle_ticket(0, key(), now));
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_ticket(0, secret, now));
    harness.call(|agent, now| agent.handle_connected(on, now));
    let text = sent(&harness.actions(), on);
    assert!(text.starts_with("CONNECT ") && !is_valid(&text, harness.now.wall), "{text}");
    assert_eq!(harness.receive(on, OK), OK.len());
    assert_eq!(dials(&harness.actions()).len(), 3, "the relay serves it: the rest of the pool");
}

#[test]
fn a_relay_that_accepts_and_then_ends_everything_is_not_stormed() {
    let pauses = pauses(agent(), |harness, on| {
        accept(harness, on);
        harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
    });
    assert!(pauses.len() < 400, "{} attempts", pauses.len());
}

#[test]
fn two_agents_that_push_each_other_out_do_not_storm() {
    let mut waiting = None;
    let pauses = pauses(
        agent_with(|config| {
            config.upstreams[0].plain = true;
            config.upstreams.push(config.upstreams[0].clone());
        }),
        |harness, on| {
            accept(harness, on);
            if let Some(older) = waiting.replace(on) {
                harness.call(|agent, now| agent.handle_end(older, End::Clean, now));
            }
        },
    );
    assert!(pauses.len() < 1_200, "{} attempts", pauses.len());
}

#[test]
fn agents_that_lost_the_same_relay_do_not_come_back_in_the_same_moment() {
    let mut pauses: Vec<Span> = (0..50)
        .map(|seed| {
            let config = Config { upstreams: vec![upstream()], ..Config::default() };
            let seeds = Seeds { nonces: [7; 32], jitter: [seed; 32] };
            let mut harness = Harness::new(Agent::new(config, seeds, beginning()));
            let (on, _) = one(&harness.actions());
            harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
            harness.wait_for_deadline()
        })
        .collect();
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 45);
    assert!(pauses[0] >= Span::from_millis(500) && pauses[pauses.len() - 1] <= Span::from_millis(750));
}

#[test]
fn a_restarted_relay_has_its_agent_back_within_a_second_and_the_pool_at_once_after_it() {
    for waited in [Span::from_secs(20), Span::from_secs(7_200)] {
        let (mut harness, pool) = pool_of(agent());
        harness.wait(waited);
        for on in pool {
            harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
        }
        let mut dialled = dials(&harness.actions());
        if let Some((on, _)) = dialled.pop() {
            // The relay is not up again yet.
            harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
        }
        assert!(dialled.is_empty(), "one tries, not all");
        assert!(harness.wait_for_deadline() <= Span::from_millis(750));
        let (on, _) = one(&harness.actions());
        accept(&mut harness, on);
        assert_eq!(dials(&harness.actions()).len(), 3);
    }
}

#[test]
fn a_young_reset_is_a_failure_and_an_old_one_is_not() {
    for (waited, failed) in [(30, true), (59, true), (60, false), (120, false)] {
        let mut harness = agent_with(|config| config.upstreams[0].plain = true);
        let (on, _) = one(&harness.actions());
        accept(&mut harness, on);
        harness.wait(Span::from_secs(waited));
        harness.actions();
        harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
        let actions = harness.actions();
        let why = RelayLoss::Ended(End::Reset);
        let lost = |event: &Event| match event {
            Event::RelayLost { why: it, again, .. } => *it == why && (*again != Span::ZERO) == failed,
            _ => false,
        };
        assert!(events(&actions).iter().any(lost), "{actions:?}");
        assert_eq!(dials(&actions).is_empty(), failed, "after {waited} s");
    }
}

/// The losses in these actions.
fn losses(actions: &[Done]) -> Vec<RelayLoss> {
    let loss = |event| match event {
        Event::RelayLost { why, .. } => Some(why),
        _ => None,
    };
    events(actions).into_iter().filter_map(loss).collect()
}

#[test]
fn a_relay_that_releases_young_connections_in_order_has_its_agent_back_at_once() {
    let (mut harness, pool) = pool_of(agent());
    harness.wait(Span::from_secs(2));
    let mut seen = Vec::new();
    let mut next = Vec::new();
    for on in pool {
        harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
        let actions = harness.actions();
        seen.extend(losses(&actions));
        for (on, _) in dials(&actions) {
            assert_eq!(next.len(), 0, "one attempt while the others end");
            next.push(on);
        }
        harness.wait(Span::from_millis(500));
    }
    assert_eq!(seen[0], RelayLoss::Ended(End::Clean), "one is reported");
    assert_eq!(seen[1..], [RelayLoss::Released; 3]);
    // The process that has taken over accepts it, and gets the whole pool.
    accept(&mut harness, next[0]);
    assert_eq!(dials(&harness.actions()).len(), 3);
}

#[test]
fn a_relay_that_ends_each_connection_at_once_is_tried_at_once_every_ten_seconds_only() {
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    let (mut next, _) = one(&harness.actions());
    let (mut at_once, mut attempts, start) = (0, 0, harness.now.mono);
    while harness.now.mono.since(start) < Span::from_secs(100) {
        attempts += 1;
        accept(&mut harness, next);
        harness.wait(Span::from_millis(10));
        harness.call(|agent, now| agent.handle_end(next, End::Clean, now));
        let mut dialled = dials(&harness.actions());
        if dialled.is_empty() {
            harness.wait_for_deadline();
            dialled = dials(&harness.actions());
        } else {
            at_once += 1;
        }
        next = dialled[0].0;
    }
    assert!((2..=11).contains(&at_once) && attempts <= 2 * at_once + 10, "{at_once} of {attempts} at once");
}

#[test]
fn a_lasting_success_makes_the_next_failure_the_first() {
    let mut harness = agent_with(|config| config.upstreams[0].pool = 1);
    for _ in 0..8 {
        let (on, _) = one(&harness.actions());
        harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Unreachable, now));
        harness.wait_for_deadline();
    }
    let (on, _) = one(&harness.actions());
    accept(&mut harness, on);
    harness.wait(Span::from_secs(10));
    harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
    assert!(harness.wait_for_deadline() <= Span::from_millis(750));
}

#[test]
fn retry_after_is_honoured_within_reason() {
    for (asked, least, most) in [(30, 30, 38), (1, 0, 2), (600, 60, 75), (4_000_000_000_u64, 60, 75)] {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let mut harness = agent();
            let (on, _) = one(&harness.actions());
            let answer = format!("HTTP/1.1 {status}\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n");
            refuse(&mut harness, on, answer.as_bytes());
            let pause = harness.wait_for_deadline();
            assert!(pause >= Span::from_secs(least), "{status} {asked}: {pause:?}");
            assert!(pause <= Span::from_secs(most.max(6)), "{status} {asked}: {pause:?}");
        }
    }
}

#[test]
fn a_refusal_that_is_cut_off_behind_its_status_line_is_one() {
    let mut harness = agent();
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    assert_eq!(harness.receive(on, b"HTTP/1.1 403\r\n"), 0);
    harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
    let refused = |event: &Event| matches!(event, Event::RelayLost { why: RelayLoss::Refused(403), .. });
    assert!(events(&harness.actions()).iter().any(refused));
}

#[test]
fn what_is_no_http_is_garbled() {
    let mut harness = agent();
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    assert_eq!(harness.receive(on, b"SSH-2.0-OpenSSH_9.6\r\n"), 0);
    let garbled = |event: &Event| matches!(event, Event::RelayLost { why: RelayLoss::NotHttp, .. });
    assert!(events(&harness.actions()).iter().any(garbled));
    assert!(harness.wait_for_deadline() >= Span::from_secs(4));
}
