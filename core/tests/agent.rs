//! The agent's side: the pool, the back-off, the clock, and whoever comes.

use std::net::SocketAddr;

use rendezvous_core::agent::{Agent, Config, Upstream};
use rendezvous_core::http::date::write_date;
use rendezvous_core::http::target::{Token, registration};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{Close, ConnId, DialFailure, End, Machine, Output, TlsFailure, TlsRole};
use rendezvous_core::note::{Note, RelayLoss, Target};
use rendezvous_core::reach::{Host, Place, Relay};
use rendezvous_core::time::Span;
use rendezvous_core::token::{Algorithm, Key};

#[path = "common/rig.rs"]
mod rig;

use rig::{Did, Rig, WALL, address, asked, beginning, dials, notes, sent};

const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: hidden\r\n\r\n";
const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

fn relay() -> SocketAddr {
    address(1, 80)
}

fn service() -> SocketAddr {
    address(2, 8080)
}

fn ssh() -> SocketAddr {
    address(2, 22)
}

fn key() -> Key {
    Key::new(b"12345678901234567890".to_vec(), Algorithm::Sha256, 8, 30).unwrap()
}

fn upstream() -> Upstream {
    let relay = Relay { place: relay().into(), tls: false, host_header: "relay".into() };
    Upstream { relay, id: ID, key: key(), plain: false, pool: 4, service: service().into(), stream: None }
}

fn agent_with(change: impl FnOnce(&mut Config)) -> Rig<Agent> {
    let mut config = Config { upstreams: vec![upstream()], ..Config::default() };
    change(&mut config);
    Rig::new(Agent::new(config, [7; 32], beginning()))
}

fn agent() -> Rig<Agent> {
    agent_with(|_| ())
}

/// An agent whose pool is full, and the pool.
fn pool_of(mut rig: Rig<Agent>) -> (Rig<Agent>, Vec<ConnId>) {
    let mut pool = Vec::new();
    for _ in 0..2 {
        for (on, _) in dials(&rig.news()) {
            accept(&mut rig, on);
            pool.push(on);
        }
    }
    assert!(dials(&rig.news()).is_empty());
    (rig, pool)
}

/// The relay is reached, and answers with 200.
fn accept(rig: &mut Rig<Agent>, on: ConnId) {
    rig.tell(|agent, now| agent.handle_connected(on, now));
    assert_eq!(rig.hears(on, OK), OK.len());
}

/// The relay is reached, and answers otherwise.
fn refuse(rig: &mut Rig<Agent>, on: ConnId, answer: &[u8]) {
    rig.tell(|agent, now| agent.handle_connected(on, now));
    assert_eq!(rig.hears(on, answer), answer.len());
}

fn one(news: &[Did]) -> (ConnId, SocketAddr) {
    let dials = dials(news);
    assert_eq!(dials.len(), 1, "{news:?}");
    dials[0]
}

/// The token that was sent is one that a relay takes whose clock shows `wall`.
fn is_valid(text: &str, wall: u64) -> bool {
    let target = text.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    let registration = registration(target).unwrap();
    assert_eq!(registration.id, ID);
    match registration.token {
        Token::Plain(digits) => key().check_plain(wall, digits).is_some(),
        Token::Bound { response, nonce } => key().check_bound(wall, nonce, &response).is_some(),
    }
}

fn dated(status: &str, wall: u64) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status}\r\nDate: ").into_bytes();
    write_date(wall, &mut answer);
    answer.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
    answer
}

mod pool {
    use super::*;

    #[test]
    fn one_connection_tries_and_the_pool_follows_when_it_is_accepted() {
        let mut rig = agent();
        let (first, to) = one(&rig.news());
        assert_eq!(to, relay());
        accept(&mut rig, first);
        let news = rig.news();
        assert_eq!(dials(&news).len(), 3);
        let user_timeout = Output::UserTimeout { on: first, after: Some(Span::from_secs(30)) };
        assert!(asked(&news, user_timeout));
        assert!(notes(&news).contains(&Note::Registered { on: first, upstream: 0, waiting: 1 }));
        for (on, _) in dials(&news) {
            accept(&mut rig, on);
        }
        assert_eq!(rig.machine.waiting(0), 4);
        assert!(dials(&rig.news()).is_empty());
    }

    #[test]
    fn each_connection_has_a_token_and_a_nonce_of_its_own() {
        let mut rig = agent();
        let mut texts = Vec::new();
        for _ in 0..2 {
            for (on, _) in dials(&rig.news()) {
                rig.tell(|agent, now| agent.handle_connected(on, now));
                let text = sent(&rig.news(), on);
                assert!(text.ends_with(" HTTP/1.1\r\nHost: relay\r\n\r\n"), "{text}");
                assert!(is_valid(&text, WALL));
                assert!(!texts.contains(&text));
                texts.push(text);
                rig.hears(on, OK);
            }
        }
        assert!(texts.len() >= 2);
    }

    #[test]
    fn the_next_connection_is_opened_at_once_when_one_was_taken() {
        let (mut rig, pool) = pool_of(agent());
        rig.wait(Span::from_secs(3_600));
        assert_eq!(rig.hears(pool[2], GET), 0);
        let dials = dials(&rig.news());
        assert_eq!(dials.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [service(), relay()]);
        assert_eq!(rig.machine.waiting(0), 3);
    }

    #[test]
    fn a_full_pool_waits_for_ever_without_a_deadline() {
        let (mut rig, _) = pool_of(agent());
        rig.wait(Span::from_secs(60));
        assert_eq!(rig.idle, None);
    }

    #[test]
    fn plain_tokens_are_for_a_pool_of_one_and_an_answer_without_a_reason_is_one() {
        let mut rig = agent_with(|config| config.upstreams[0].plain = true);
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_connected(on, now));
        let text = sent(&rig.news(), on);
        assert!(!text.contains("nonce"));
        assert!(is_valid(&text, WALL));
        rig.hears(on, b"HTTP/1.1 200\r\n\r\n");
        assert_eq!(rig.machine.waiting(0), 1);
        assert!(dials(&rig.news()).is_empty());
    }

    #[test]
    fn an_interim_answer_is_no_answer() {
        let mut rig = agent();
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_connected(on, now));
        rig.hears(on, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(rig.machine.waiting(0), 1);
    }

    #[test]
    fn each_upstream_has_a_pool_of_its_own() {
        let mut rig = agent_with(|config| {
            let mut other = upstream();
            other.relay.place = address(3, 80).into();
            config.upstreams.push(other);
        });
        let first = dials(&rig.news());
        assert_eq!(first.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [relay(), address(3, 80)]);
        accept(&mut rig, first[1].0);
        rig.tell(|agent, now| agent.handle_dial_failed(first[0].0, DialFailure::Refused, now));
        assert!(dials(&rig.news()).iter().all(|(_, to)| *to == address(3, 80)));
    }
}

mod reaching {
    use super::*;

    fn named(config: &mut Config) {
        config.upstreams[0].relay = Relay {
            place: Place { host: Host::Name("relay.example".into()), port: 8443 },
            tls: true,
            host_header: "relay.example:8443".into(),
        };
    }

    fn resolve(rig: &mut Rig<Agent>) -> ConnId {
        let news = rig.news();
        let resolve = news.iter().find_map(|did| match did {
            Did::Asked(Output::Resolve { on, host, port: 8443 }) if host == "relay.example" => Some(*on),
            _ => None,
        });
        resolve.unwrap_or_else(|| panic!("no look-up in {news:?}"))
    }

    #[test]
    fn a_name_is_looked_up_dialled_secured_and_only_then_spoken_to() {
        let mut rig = agent_with(named);
        let on = resolve(&mut rig);
        rig.tell(|agent, now| agent.handle_resolved(on, &[address(1, 8443)], now));
        assert_eq!(one(&rig.news()), (on, address(1, 8443)));
        rig.tell(|agent, now| agent.handle_connected(on, now));
        let role = TlsRole::Client { upstream: 0 };
        assert_eq!(rig.news(), [Did::Asked(Output::StartTls { on, role })]);
        rig.tell(|agent, now| agent.handle_secured(on, now));
        assert!(sent(&rig.news(), on).contains("Host: relay.example:8443\r\n"));
    }

    #[test]
    fn the_addresses_are_dialled_in_turn_and_the_one_that_was_reached_goes_first_the_next_time() {
        let mut rig = agent_with(named);
        let on = resolve(&mut rig);
        let all = [address(1, 8443), address(2, 8443), address(3, 8443)];
        rig.tell(|agent, now| agent.handle_resolved(on, &all, now));
        let (on, to) = one(&rig.news());
        assert_eq!(to, all[0]);
        rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
        let (on, to) = one(&rig.news());
        assert_eq!(to, all[1]);
        // No answer at all: the deadline passes.
        assert_eq!(rig.wait_for_deadline(), Span::from_secs(10));
        let news = rig.news();
        assert!(asked(&news, Output::Close { on, how: Close::Abort }));
        let (on, to) = one(&news);
        assert_eq!(to, all[2]);
        rig.tell(|agent, now| agent.handle_connected(on, now));
        rig.tell(|agent, now| agent.handle_secured(on, now));
        rig.hears(on, OK);
        let on = resolve(&mut rig);
        rig.tell(|agent, now| agent.handle_resolved(on, &all, now));
        assert_eq!(one(&rig.news()).1, all[2]);
    }

    #[test]
    fn a_handshake_or_an_answer_that_does_not_come_is_given_up_after_ten_seconds() {
        let mut rig = agent_with(|config| config.upstreams[0].relay.tls = true);
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_connected(on, now));
        assert_eq!(rig.wait_for_deadline(), Span::from_secs(10));
        let silent = |note: &Note| matches!(note, Note::RelayLost { why: RelayLoss::Silent, .. });
        assert!(notes(&rig.news()).iter().any(silent));
        rig.wait_for_deadline();
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_connected(on, now));
        rig.tell(|agent, now| agent.handle_secured(on, now));
        assert_eq!(rig.hears(on, b"HTTP/1.1 20"), 0);
        assert_eq!(rig.wait_for_deadline(), Span::from_secs(10));
        assert!(notes(&rig.news()).iter().any(silent));
    }

    #[test]
    fn a_wrong_certificate_is_said_and_tried_again_slowly() {
        let mut rig = agent_with(|config| config.upstreams[0].relay.tls = true);
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_connected(on, now));
        rig.tell(|agent, now| agent.handle_tls_failed(on, TlsFailure::Certificate, now));
        let notes = notes(&rig.news());
        let [Note::RelayLost { why: RelayLoss::Tls(TlsFailure::Certificate), again, .. }] = notes[..] else {
            panic!("{notes:?}");
        };
        assert!(again >= Span::from_secs(4), "{again:?}");
    }
}

mod clock {
    use super::*;

    #[test]
    fn a_refusal_from_another_time_sets_the_clock_right_and_the_next_try_is_at_once() {
        for theirs in [WALL - 7_200, WALL + 86_400] {
            let mut rig = agent();
            let (on, _) = one(&rig.news());
            refuse(&mut rig, on, &dated("401 Unauthorized", theirs));
            let news = rig.news();
            let seconds = theirs.cast_signed() - WALL.cast_signed();
            assert!(notes(&news).contains(&Note::ClockAdopted { upstream: 0, seconds }));
            let (on, _) = one(&news);
            rig.tell(|agent, now| agent.handle_connected(on, now));
            let text = sent(&rig.news(), on);
            assert!(is_valid(&text, theirs) && !is_valid(&text, WALL));
            rig.hears(on, OK);
            assert_eq!(rig.machine.waiting(0), 1);
        }
    }

    #[test]
    fn a_relay_that_refuses_at_every_time_of_its_own_is_not_stormed() {
        let mut rig = agent();
        let mut theirs = WALL;
        let (on, _) = one(&rig.news());
        theirs += 1_000;
        refuse(&mut rig, on, &dated("401 Unauthorized", theirs));
        let (on, _) = one(&rig.news());
        theirs += 1_000;
        refuse(&mut rig, on, &dated("401 Unauthorized", theirs));
        assert!(dials(&rig.news()).is_empty());
        assert!(rig.wait_for_deadline() >= Span::from_secs(4));
    }

    #[test]
    fn a_refusal_from_our_own_time_changes_nothing() {
        let mut rig = agent();
        let (on, _) = one(&rig.news());
        refuse(&mut rig, on, &dated("401 Unauthorized", WALL + 30));
        let notes = notes(&rig.news());
        let [Note::RelayLost { why: RelayLoss::Refused(401), again, .. }] = notes[..] else {
            panic!("{notes:?}");
        };
        assert!(again >= Span::from_secs(4), "{again:?}");
    }
}

mod backoff {
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
            assert!(
                (most / 3 * 2..=most + 1).contains(&pause.0),
                "{pause:?} is not in {most} and two thirds"
            );
            least = (least * 2).min(40_000_000);
        }
    }

    #[test]
    fn an_unreachable_relay_is_tried_after_half_a_second_and_then_ever_more_seldom() {
        let pauses = pauses(agent(), |rig, on| {
            rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
        });
        assert_grows(&pauses, Span::from_millis(500));
        assert!((60..=100).contains(&pauses.len()), "{} attempts", pauses.len());
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
                let mut rig = Rig::new(Agent::new(config, [seed; 32], beginning()));
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
        for (asked, least, most) in [(30, 30, 38), (1, 0, 2), (4_000_000_000_u64, 600, 750)] {
            for status in ["429 Too Many Requests", "503 Service Unavailable"] {
                let mut rig = agent();
                let (on, _) = one(&rig.news());
                let answer =
                    format!("HTTP/1.1 {status}\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n");
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
}

mod serving {
    use super::*;

    /// A client's octets come on the first waiting connection; that one, and the connection to the local service.
    fn take(rig: &mut Rig<Agent>, on: ConnId, octets: &[u8], used: usize) -> ConnId {
        rig.news();
        assert_eq!(rig.hears(on, octets), used);
        let news = rig.news();
        assert!(asked(&news, Output::Read { on, wanted: false }));
        let local = dials(&news).into_iter().find(|(_, to)| *to != relay());
        local.unwrap_or_else(|| panic!("no service dialled: {news:?}")).0
    }

    #[test]
    fn the_local_service_is_dialled_when_a_client_comes_and_not_before() {
        let (mut rig, pool) = pool_of(agent());
        let local = take(&mut rig, pool[0], b"G", 0);
        assert_eq!(rig.hears(pool[0], GET), 0);
        rig.tell(|agent, now| agent.handle_connected(local, now));
        let news = rig.news();
        assert!(asked(&news, Output::UserTimeout { on: pool[0], after: None }));
        assert!(asked(&news, Output::Pair { hidden: local, client: pool[0] }));
        let served = Note::Served { relay: pool[0], local, upstream: 0, stream: false };
        assert!(notes(&news).contains(&served));
        assert_eq!(rig.machine.pairs(), 1);
    }

    #[test]
    fn octets_behind_the_200_are_the_rendezvous_already() {
        let mut rig = agent();
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_connected(on, now));
        assert_eq!(rig.hears(on, &[OK, GET].concat()), OK.len());
        let dials = dials(&rig.news());
        assert!(dials.iter().any(|(_, to)| *to == service()));
        assert_eq!(dials.iter().filter(|(_, to)| *to == relay()).count(), 4);
    }

    #[test]
    fn a_service_that_is_down_is_a_502() {
        let (mut rig, pool) = pool_of(agent());
        let local = take(&mut rig, pool[0], GET, 0);
        rig.tell(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
        let news = rig.news();
        let text = sent(&news, pool[0]);
        assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n"));
        assert!(text.contains(r#"{"error":{"permanent":false,"diagnostic":"#));
        assert!(asked(&news, Output::Close { on: pool[0], how: Close::Linger }));
        let (what, why) = (Target::Service(0), DialFailure::Refused);
        assert!(notes(&news).contains(&Note::DialFailed { on: local, what, why, again: None }));
        assert!(dials(&news).is_empty(), "the failure is not the relay's");
    }

    #[test]
    fn a_service_that_does_not_answer_is_a_502_after_ten_seconds_and_a_head_request_gets_no_body() {
        let (mut rig, pool) = pool_of(agent_with(|config| config.upstreams[0].pool = 1));
        take(&mut rig, pool[0], b"HEAD / HTTP/1.1\r\nHost: hidden\r\n\r\n", 0);
        rig.wait(Span::from_secs(10));
        let text = sent(&rig.news(), pool[0]);
        assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_service_with_two_addresses_is_reached_at_the_second() {
        let (mut rig, pool) = pool_of(agent_with(|config| {
            config.upstreams[0].service = Place { host: Host::Name("localhost".into()), port: 8080 };
        }));
        rig.hears(pool[0], GET);
        let on = rig.news().iter().find_map(|did| match did {
            Did::Asked(Output::Resolve { on, .. }) => Some(*on),
            _ => None,
        });
        let local = on.unwrap();
        rig.tell(|agent, now| agent.handle_resolved(local, &[address(8, 8080), address(9, 8080)], now));
        let (local, to) = one(&rig.news());
        assert_eq!(to, address(8, 8080));
        rig.tell(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
        let (local, to) = one(&rig.news());
        assert_eq!(to, address(9, 8080));
        rig.tell(|agent, now| agent.handle_connected(local, now));
        assert!(asked(&rig.news(), Output::Pair { hidden: local, client: pool[0] }));
    }

    #[test]
    fn a_client_that_goes_away_takes_the_dial_with_it() {
        let (mut rig, pool) = pool_of(agent());
        let local = take(&mut rig, pool[0], GET, 0);
        rig.tell(|agent, now| agent.handle_end(pool[0], End::Reset, now));
        let news = rig.news();
        assert!(asked(&news, Output::Close { on: local, how: Close::Abort }));
        assert!(asked(&news, Output::Close { on: pool[0], how: Close::Abort }));
    }

    #[test]
    fn a_half_close_of_either_side_is_passed_on() {
        let (mut rig, pool) = pool_of(agent());
        let (client, local) = (pool[0], take(&mut rig, pool[0], GET, 0));
        rig.tell(|agent, now| agent.handle_connected(local, now));
        rig.tell(|agent, now| agent.handle_moved(client, 30, 0, now));
        rig.news();
        rig.tell(|agent, now| agent.handle_end(client, End::Clean, now));
        assert!(asked(&rig.news(), Output::CloseWrite { on: local }));
        rig.tell(|agent, now| agent.handle_moved(local, 100, 0, now));
        rig.tell(|agent, now| agent.handle_end(local, End::Clean, now));
        let news = rig.news();
        assert!(asked(&news, Output::Close { on: client, how: Close::Linger }));
        let ended =
            |note: &Note| matches!(note, Note::PairEnded { id: ID, from_client: 30, from_hidden: 100, .. });
        assert!(notes(&news).iter().any(ended), "{news:?}");
        assert_eq!(rig.machine.pairs(), 0);
    }

    mod stream {
        use super::*;

        fn with_stream(config: &mut Config) {
            config.upstreams[0].stream = Some(ssh().into());
        }

        #[test]
        fn a_connector_is_answered_101_and_taken_to_the_stream_service() {
            let (mut rig, pool) = pool_of(agent_with(with_stream));
            let on = pool[0];
            let octets = [UPGRADE, b"SSH-2.0-x\r\n"].concat();
            rig.hears(on, &octets[..20]);
            assert!(dials(&rig.news()).iter().all(|(_, to)| *to == relay()));
            assert_eq!(rig.hears(on, &octets), UPGRADE.len());
            let (local, to) = one(&rig.news());
            assert_eq!(to, ssh());
            assert_eq!(sent(&rig.news(), on), "");
            rig.tell(|agent, now| agent.handle_connected(local, now));
            let news = rig.news();
            assert!(sent(&news, on).starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
            assert!(asked(&news, Output::Pair { hidden: local, client: on }));
            assert!(notes(&news).contains(&Note::Served { relay: on, local, upstream: 0, stream: true }));
        }

        #[test]
        fn a_stream_service_that_is_down_is_a_502() {
            let (mut rig, pool) = pool_of(agent_with(with_stream));
            let local = take(&mut rig, pool[0], UPGRADE, UPGRADE.len());
            rig.tell(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
            let news = rig.news();
            assert!(sent(&news, pool[0]).starts_with("HTTP/1.1 502 "));
            let (what, why) = (Target::Stream(0), DialFailure::Refused);
            assert!(notes(&news).contains(&Note::DialFailed { on: local, what, why, again: None }));
        }

        #[test]
        fn anything_else_goes_to_the_http_service_untouched() {
            let websocket = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 20_000]].concat();
            let nonsense = b"\x16\x03\x01\0\xee".as_slice();
            for octets in [GET, websocket.as_slice(), &endless, nonsense] {
                let (mut rig, pool) = pool_of(agent_with(with_stream));
                take(&mut rig, pool[0], octets, 0);
            }
        }

        #[test]
        fn a_head_that_never_ends_goes_to_the_http_service_after_ten_seconds() {
            let (mut rig, pool) = pool_of(agent_with(|config| {
                with_stream(config);
                config.upstreams[0].pool = 1;
            }));
            assert_eq!(rig.hears(pool[0], b"GET / HT"), 0);
            let (next, _) = one(&rig.news());
            accept(&mut rig, next);
            rig.wait(Span::from_secs(10));
            assert_eq!(one(&rig.news()).1, service());
        }

        #[test]
        fn without_a_stream_service_a_connector_is_the_http_services() {
            let (mut rig, pool) = pool_of(agent());
            take(&mut rig, pool[0], UPGRADE, 0);
        }
    }
}

mod ending {
    use super::*;

    #[test]
    fn once_means_one_rendezvous_and_no_further_connection() {
        let (mut rig, pool) = pool_of(agent_with(|config| config.once = true));
        assert_eq!(pool.len(), 1);
        rig.hears(pool[0], GET);
        let (local, to) = one(&rig.news());
        assert_eq!(to, service());
        rig.tell(|agent, now| agent.handle_connected(local, now));
        rig.tell(|agent, now| agent.handle_end(local, End::Clean, now));
        assert!(!rig.machine.is_done());
        rig.tell(|agent, now| agent.handle_end(pool[0], End::Clean, now));
        assert!(rig.machine.is_done());
        assert!(dials(&rig.news()).is_empty());
    }

    #[test]
    fn once_is_over_for_all_upstreams_when_one_was_taken() {
        let (mut rig, pool) = pool_of(agent_with(|config| {
            config.once = true;
            config.upstreams.push(upstream());
        }));
        assert_eq!(pool.len(), 2);
        rig.hears(pool[1], GET);
        assert!(asked(&rig.news(), Output::Close { on: pool[0], how: Close::Linger }));
    }

    #[test]
    fn a_drain_closes_what_waits_and_lets_pairs_end() {
        let (mut rig, pool) = pool_of(agent());
        rig.hears(pool[0], GET);
        let local = dials(&rig.news())[0].0;
        rig.tell(|agent, now| agent.handle_connected(local, now));
        rig.tell(Agent::handle_drain);
        let news = rig.news();
        for on in &pool[1..] {
            assert!(asked(&news, Output::Close { on: *on, how: Close::Linger }));
        }
        assert_eq!((rig.machine.connections(), rig.machine.pairs()), (2, 1));
        assert!(!rig.machine.is_done());
        rig.tell(|agent, now| agent.handle_end(local, End::Reset, now));
        assert!(rig.machine.is_done());
        assert!(dials(&rig.news()).is_empty());
    }

    #[test]
    fn a_drain_forgets_the_attempt_that_rests() {
        let mut rig = agent();
        let (on, _) = one(&rig.news());
        rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Name, now));
        assert_eq!(rig.machine.connections(), 0);
        rig.tell(Agent::handle_drain);
        assert!(rig.machine.is_done());
        rig.wait(Span::from_secs(100));
        assert!(dials(&rig.news()).is_empty());
    }
}
