//! Failures, and the pace of what follows.

use super::*;

/// How long it takes from one dial to the next, for as long as an hour, with a relay that deals with each dial so.
fn pauses(mut rig: Rig<Agent>, mut deal: impl FnMut(&mut Rig<Agent>, ConnId)) -> Vec<Span> {
    let (mut pauses, mut last) = (Vec::new(), None);
    let end = rig.now.mono + Span::from_secs(3_600);
    while rig.now.mono < end {
        let dialled = dials(&rig.news());
        if dialled.is_empty() {
            rig.wait_for_deadline();
        }
        for (on, _) in dialled {
            pauses.extend(last.map(|last| rig.now.mono.since(last)));
            last = Some(rig.now.mono);
            assert!(pauses.len() < 5_000, "a storm");
            deal(&mut rig, on);
        }
    }
    pauses
}

/// Each pause is in the range that doubles from `first` to a minute.
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
    let pauses = pauses(agent(), |rig, on| {
        rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
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
    let pauses = pauses(agent(), |rig, on| refuse(rig, on, REFUSED));
    assert_grows(&pauses, Span::from_secs(4));
    assert!((60..=95).contains(&pauses.len()), "{} attempts", pauses.len());
}

#[test]
fn a_relay_that_accepts_and_then_ends_everything_is_not_stormed() {
    let pauses = pauses(agent(), |rig, on| {
        accept(rig, on);
        rig.tell(|agent, now| agent.handle_end(on, End::Clean, now));
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
        |rig, on| {
            accept(rig, on);
            if let Some(older) = waiting.replace(on) {
                rig.tell(|agent, now| agent.handle_end(older, End::Clean, now));
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
            let mut rig = Rig::new(Agent::new(config, seeds, beginning()));
            let (on, _) = one(&rig.news());
            rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
            rig.wait_for_deadline()
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
        let (mut rig, pool) = pool_of(agent());
        rig.wait(waited);
        for on in pool {
            rig.tell(|agent, now| agent.handle_end(on, End::Reset, now));
        }
        let mut dialled = dials(&rig.news());
        if let Some((on, _)) = dialled.pop() {
            // The relay is not up again yet.
            rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
        }
        assert!(dialled.is_empty(), "one tries, not all");
        assert!(rig.wait_for_deadline() <= Span::from_millis(750));
        let (on, _) = one(&rig.news());
        accept(&mut rig, on);
        assert_eq!(dials(&rig.news()).len(), 3);
    }
}

#[test]
fn a_young_end_is_a_failure_and_an_old_one_is_not() {
    for (waited, failed) in [(30, true), (59, true), (60, false), (120, false)] {
        let mut rig = agent_with(|config| config.upstreams[0].plain = true);
        let (on, _) = one(&rig.news());
        accept(&mut rig, on);
        rig.wait(Span::from_secs(waited));
        rig.news();
        rig.tell(|agent, now| agent.handle_end(on, End::Clean, now));
        let news = rig.news();
        let why = RelayLoss::Ended(End::Clean);
        let lost = |note: &Note| match note {
            Note::RelayLost { why: it, again, .. } => *it == why && (*again != Span::ZERO) == failed,
            _ => false,
        };
        assert!(notes(&news).iter().any(lost), "{news:?}");
        assert_eq!(dials(&news).is_empty(), failed, "after {waited} s");
    }
}

#[test]
fn a_lasting_success_makes_the_next_failure_the_first() {
    let mut rig = agent_with(|config| config.upstreams[0].pool = 1);
    for _ in 0..8 {
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Unreachable, now));
        rig.wait_for_deadline();
    }
    let (on, _) = one(&rig.news());
    accept(&mut rig, on);
    rig.wait(Span::from_secs(10));
    rig.tell(|agent, now| agent.handle_end(on, End::Reset, now));
    assert!(rig.wait_for_deadline() <= Span::from_millis(750));
}

#[test]
fn retry_after_is_honoured_within_reason() {
    for (asked, least, most) in [(30, 30, 38), (1, 0, 2), (600, 60, 75), (4_000_000_000_u64, 60, 75)] {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let mut rig = agent();
            let (on, _) = one(&rig.news());
            let answer = format!("HTTP/1.1 {status}\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n");
            refuse(&mut rig, on, answer.as_bytes());
            let pause = rig.wait_for_deadline();
            assert!(pause >= Span::from_secs(least), "{status} {asked}: {pause:?}");
            assert!(pause <= Span::from_secs(most.max(6)), "{status} {asked}: {pause:?}");
        }
    }
}

#[test]
fn a_refusal_that_is_cut_off_behind_its_status_line_is_one() {
    let mut rig = agent();
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_connected(on, now));
    assert_eq!(rig.hears(on, b"HTTP/1.1 403\r\n"), 0);
    rig.tell(|agent, now| agent.handle_end(on, End::Clean, now));
    let refused = |note: &Note| matches!(note, Note::RelayLost { why: RelayLoss::Refused(403), .. });
    assert!(notes(&rig.news()).iter().any(refused));
}

#[test]
fn what_is_no_http_is_garbled() {
    let mut rig = agent();
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_connected(on, now));
    assert_eq!(rig.hears(on, b"SSH-2.0-OpenSSH_9.6\r\n"), 0);
    let garbled = |note: &Note| matches!(note, Note::RelayLost { why: RelayLoss::Garbled, .. });
    assert!(notes(&rig.news()).iter().any(garbled));
    assert!(rig.wait_for_deadline() >= Span::from_secs(4));
}
