//! A hostile relay: it has the key that the ticket pins, or the ticket has http://.

use rendezvous_core::engine::{self, Engine, Transport};
use rendezvous_core::machine::Listener;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::{Now, Time};
use rendezvous_core::token::{Challenge, ChallengeKey};

use super::*;

/// The real relay, and how many connections it had.
struct Real(Harness<Engine>, u32);

impl Real {
    fn new(seed: u8) -> Self {
        let config = engine::Config { listeners: vec![Transport::Plain], ..engine::Config::default() };
        let mut harness = Harness::new(Engine::new(config, [seed; 32], beginning()));
        let home = Enrolment { plain_tokens: true, ..Enrolment::new(ID, key()) };
        harness.call(|engine, now| engine.handle_ids(vec![home], now));
        Self(harness, 0)
    }

    /// Its response to a CONNECT at this time. Each comes from another address.
    fn answers(&mut self, connect: &str, now: Now) -> String {
        self.0.now = now;
        self.1 += 1;
        let from = SocketAddr::new(std::net::Ipv4Addr::from(self.1).into(), 1);
        let on = self.0.call(|engine, now| engine.handle_open(Listener(0), from, now));
        self.0.receive(on, connect.as_bytes());
        sent(&self.0.actions(), on)
    }

    /// A challenge of its own.
    fn challenge(&mut self, now: Now) -> Challenge {
        let answer = self.answers(&format!("CONNECT uuid:{ID} HTTP/1.1\r\n\r\n"), now);
        let line = answer.split("\r\n").find_map(|line| line.strip_prefix("Rendezvous-Challenge: ")).unwrap();
        Challenge::parse(line.as_bytes()).unwrap()
    }
}

/// What a relay received in a minute if it handles the `n`th connection as `deal` does, and when.
fn collect(mut deal: impl FnMut(&mut Harness<Agent>, ConnId, u64)) -> Vec<(String, Now)> {
    let mut harness = agent();
    let mut collected = Vec::new();
    let end = harness.now.mono + Span::from_secs(60);
    let mut queue = Vec::new();
    while harness.now.mono < end {
        queue.extend(dials(&harness.actions()).into_iter().filter(|(_, to)| *to == relay()));
        let Some((on, _)) = queue.pop() else {
            harness.wait_for_deadline();
            continue;
        };
        harness.call(|agent, now| agent.handle_connected(on, now));
        let actions = harness.actions();
        let text = sent(&actions, on);
        queue.extend(dials(&actions).into_iter().filter(|(_, to)| *to == relay()));
        if !text.is_empty() {
            collected.push((text, harness.now));
        }
        let n = collected.len() as u64;
        assert!(n < 5_000, "a storm");
        deal(&mut harness, on, n);
    }
    assert!(collected.len() > 3, "{}", collected.len());
    collected
}

fn later(now: Now, secs: u64) -> Now {
    Now { mono: Time(now.mono.0 + secs * 1_000_000), wall: now.wall + secs }
}

fn taken_and_gone(harness: &mut Harness<Agent>, on: ConnId, answer: &[u8]) {
    harness.receive(on, answer);
    harness.receive(on, b"G");
    harness.call(|agent, now| agent.handle_end(on, End::Truncated, now));
}

/// 401 and 200 in turns, each with another time in the far future, and with a challenge of the hostile relay's own.
fn by_turns(challenges: bool) -> Vec<(String, Now)> {
    let mut own = ChallengeKey::new([6; 32]);
    collect(move |harness, on, n| {
        let status = if n % 2 == 1 { "401 Unauthorized" } else { "200 OK" };
        let mut answer = format!("HTTP/1.1 {status}\r\n").into_bytes();
        answer.extend_from_slice(b"Date: ");
        write_date(WALL + 3_600 * n, &mut answer);
        if challenges {
            answer.extend_from_slice(
                format!("\r\nRendezvous-Challenge: {}", own.issue(harness.now.mono)).as_bytes(),
            );
        }
        answer.extend_from_slice(b"\r\n\r\n");
        if n % 2 == 1 {
            harness.receive(on, &answer);
        } else {
            taken_and_gone(harness, on, &answer);
        }
    })
}

#[test]
fn no_token_that_a_hostile_relay_collected_is_accepted_a_minute_later_or_ever_after() {
    for challenges in [false, true] {
        for (connect, at) in by_turns(challenges) {
            let mut real = Real::new(1);
            for secs in [60, 61, 90, 202, 3_600, 3_630, 7_200, 86_400, 25 * 3_600] {
                let answer = real.answers(&connect, later(at, secs));
                assert!(answer.starts_with("HTTP/1.1 401 "), "after {secs} s: {connect}{answer}");
            }
        }
    }
}

#[test]
fn a_token_over_a_challenge_of_a_hostile_relay_is_accepted_at_no_time() {
    let collected = by_turns(true);
    let over_challenge: Vec<_> = collected.iter().filter(|(text, _)| text.contains("&challenge=")).collect();
    assert!(over_challenge.len() > 3, "{}", over_challenge.len());
    for (connect, at) in over_challenge {
        let mut real = Real::new(1);
        for secs in 0..180 {
            let answer = real.answers(connect, later(*at, secs));
            assert!(answer.starts_with("HTTP/1.1 401 "), "after {secs} s: {connect}{answer}");
        }
    }
}

#[test]
fn a_challenge_that_a_relay_in_between_passes_on_is_good_for_one_connection_while_it_lives() {
    let mut real = Real::new(1);
    let mut fetched = None;
    let collected = collect(|harness, on, n| {
        let challenge = *fetched.get_or_insert_with(|| real.challenge(harness.now));
        let challenge = format!("Rendezvous-Challenge: {challenge}\r\nContent-Length: 0\r\n\r\n");
        if n == 1 {
            harness.receive(on, format!("HTTP/1.1 401 Unauthorized\r\n{challenge}").as_bytes());
        } else {
            taken_and_gone(harness, on, b"HTTP/1.1 200 OK\r\n\r\n");
        }
    });
    let (connect, at) = collected.iter().find(|(text, _)| text.contains("&challenge=")).expect("one");
    assert!(real.answers(connect, later(*at, 1)).starts_with("HTTP/1.1 200 "));
    for secs in 2..200 {
        let answer = real.answers(connect, later(*at, secs));
        assert!(answer.starts_with("HTTP/1.1 401 "), "after {secs} s: {answer}");
    }
    // The relay's key is lost with its process.
    let mut restarted = Real::new(2);
    assert!(restarted.answers(connect, later(*at, 1)).starts_with("HTTP/1.1 401 "));
}
