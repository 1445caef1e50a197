//! A hidden server registers with a token over a challenge of the relay.

use data_encoding::HEXLOWER;
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::token::{Challenge, Key};

use crate::world::{WALL, World};
use crate::{ID, OK, OTHER, STRANGER, both, bound_connect, config, key_of, plain_connect, world, world_with};

const NONCE: &str = "0123456789abcdef";
const NOT_AUTHORIZED: &str = "not authorized";

fn challenged_connect(id: Id, key: &Key, challenge: &Challenge, nonce: &str) -> String {
    let token = HEXLOWER.encode(&key.over_challenge(challenge, nonce.as_bytes()));
    format!("CONNECT uuid:{id}?response={token}&nonce={nonce}&challenge={challenge} HTTP/1.1\r\n\r\n")
}

impl World {
    /// A challenge, by a registration that is refused.
    fn get_challenge(&mut self) -> Challenge {
        let on = self.client_sends(format!("CONNECT uuid:{ID} HTTP/1.1\r\n\r\n"));
        self.assert_refused(on, "407 Proxy Authentication Required", "no response parameter");
        self.challenge(on).expect("a challenge")
    }

    fn registers(&mut self, challenge: &Challenge, nonce: &str) -> ConnId {
        self.client_sends(challenged_connect(ID, &key_of(ID), challenge, nonce))
    }

    fn assert_accepted(&self, on: ConnId) -> Challenge {
        let next = self.challenge(on).expect("a challenge");
        assert_eq!(self.got(on), format!("HTTP/1.1 200 OK\r\nRendezvous-Challenge: {next}\r\n\r\n"));
        assert!(self.is_open(on));
        next
    }
}

#[test]
fn a_token_over_a_challenge_is_accepted_and_the_200_brings_the_next_challenge() {
    let mut world = world();
    let mut challenge = world.get_challenge();
    for _ in 0..3 {
        let on = world.registers(&challenge, NONCE);
        let next = world.assert_accepted(on);
        assert_ne!(next, challenge);
        challenge = next;
    }
}

#[test]
fn several_connections_may_use_one_challenge_each_with_a_nonce_of_its_own() {
    let mut world = world();
    let challenge = world.get_challenge();
    for nonce in [NONCE, "fedcba9876543210"] {
        let on = world.registers(&challenge, nonce);
        world.assert_accepted(on);
        let again = world.registers(&challenge, nonce);
        world.assert_refused(again, "401 Unauthorized", NOT_AUTHORIZED);
    }
}

#[test]
fn a_token_over_a_challenge_is_good_once_for_as_long_as_the_challenge_lives() {
    let mut world = world();
    let challenge = world.get_challenge();
    let first = world.registers(&challenge, NONCE);
    world.assert_accepted(first);
    for _ in 0..13 {
        let again = world.registers(&challenge, NONCE);
        world.assert_refused(again, "401 Unauthorized", NOT_AUTHORIZED);
        world.wait_secs(10);
    }
}

#[test]
fn a_challenge_lives_for_one_to_two_minutes() {
    for age in 0..120 {
        let mut world = world();
        world.wait_secs(age);
        let challenge = world.get_challenge();
        world.wait_secs(59);
        let on = world.registers(&challenge, NONCE);
        world.assert_accepted(on);
        world.wait_secs(61);
        let on = world.registers(&challenge, "fedcba9876543210");
        world.assert_refused(on, "401 Unauthorized", NOT_AUTHORIZED);
    }
}

#[test]
fn a_wall_clock_that_is_set_ends_no_challenge() {
    let mut world = world();
    let challenge = world.get_challenge();
    for (wall, nonce) in [(0, NONCE), (WALL * 4, "fedcba9876543210")] {
        world.now.wall = wall;
        let on = world.registers(&challenge, nonce);
        world.assert_accepted(on);
        let again = world.registers(&challenge, nonce);
        world.assert_refused(again, "401 Unauthorized", NOT_AUTHORIZED);
    }
}

#[test]
fn a_challenge_that_the_relay_did_not_make_gets_the_same_401_and_counts_as_no_guess() {
    // A relay with another seed, as the same one is after a restart.
    let mut other = rendezvous_core::token::ChallengeKey::new([8; 32]);
    let mut world = world();
    let ours = world.get_challenge();
    let mut flipped = ours.as_bytes().to_vec();
    flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
    let shorter = &ours.as_bytes()[..42];
    for challenge in [
        other.issue(world.now.mono),
        Challenge::parse(&flipped).expect("a challenge"),
        Challenge::parse(shorter).expect("a challenge"),
        Challenge::parse(&[b'A'; 64]).expect("a challenge"),
    ] {
        for _ in 0..30 {
            let on = world.registers(&challenge, NONCE);
            world.assert_refused(on, "401 Unauthorized", NOT_AUTHORIZED);
            let on = world.client_sends(challenged_connect(STRANGER, &key_of(STRANGER), &challenge, NONCE));
            world.assert_refused(on, "401 Unauthorized", NOT_AUTHORIZED);
        }
    }
    let plain = world.client_sends(plain_connect(ID, WALL));
    assert_eq!(world.got(plain), OK, "the address has no failure");
}

#[test]
fn a_wrong_token_over_a_good_challenge_and_one_of_an_unknown_id_get_one_and_the_same_answer() {
    let answers: Vec<String> = [
        |challenge: &Challenge| challenged_connect(STRANGER, &key_of(STRANGER), challenge, NONCE),
        |challenge: &Challenge| challenged_connect(ID, &key_of(OTHER), challenge, NONCE),
        |challenge: &Challenge| challenged_connect(ID, &Key::dummy(), challenge, NONCE),
        |challenge: &Challenge| {
            challenged_connect(ID, &key_of(ID), challenge, NONCE).replace(NONCE, "fedcba9876543210")
        },
    ]
    .iter()
    .map(|head| {
        let mut world = world();
        let challenge = world.get_challenge();
        let on = world.client_sends(head(&challenge));
        world.assert_refused(on, "401 Unauthorized", NOT_AUTHORIZED);
        world.got(on)
    })
    .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn no_token_of_one_kind_is_accepted_as_one_of_another() {
    let mut world = world();
    let challenge = world.get_challenge();
    let over = HEXLOWER.encode(&key_of(ID).over_challenge(&challenge, NONCE.as_bytes()));
    let bound = HEXLOWER.encode(&key_of(ID).bound(key_of(ID).step(WALL), NONCE.as_bytes()));
    for query in [
        // A token over a challenge, sent as if it were bound to the time.
        format!("response={over}&nonce={NONCE}"),
        format!("response={over}&nonce={challenge}"),
        // A token bound to the time, sent as if it were over a challenge.
        format!("response={bound}&nonce={NONCE}&challenge={challenge}"),
        // Nonce and challenge exchanged.
        format!("response={over}&nonce={challenge}&challenge={NONCE}"),
    ] {
        let on = world.client_sends(format!("CONNECT uuid:{ID}?{query} HTTP/1.1\r\n\r\n"));
        world.assert_refused(on, "401 Unauthorized", NOT_AUTHORIZED);
    }
}

#[test]
fn a_malformed_challenge_is_400() {
    let token = "00112233445566778899aabbccddeeff";
    for query in [
        format!("response={token}&nonce={NONCE}&challenge="),
        format!("response={token}&nonce={NONCE}&challenge=short"),
        format!("response={token}&nonce={NONCE}&challenge={}", "c".repeat(65)),
        format!("response={token}&nonce={NONCE}&challenge={}=", "c".repeat(20)),
        format!("response={token}&nonce={NONCE}&challenge={0}&challenge={0}", "c".repeat(20)),
        format!("response={token}&challenge={}", "c".repeat(20)),
        format!("response=12345678&challenge={}", "c".repeat(20)),
    ] {
        let mut world = world();
        let on = world.client_sends(format!("CONNECT uuid:{ID}?{query} HTTP/1.1\r\n\r\n"));
        world.assert_refused(on, "400 Bad Request", "malformed response, nonce or challenge");
    }
}

#[test]
fn a_bound_token_gets_a_challenge_if_it_asks_for_one_and_a_plain_one_never() {
    let asking = |head: String| head.replace("\r\n\r\n", "\r\nRendezvous-Challenge: next\r\n\r\n");
    let mut world = world();
    let on = world.client_sends(asking(bound_connect(ID, WALL, NONCE)));
    let challenge = world.assert_accepted(on);
    let on = world.registers(&challenge, NONCE);
    world.assert_accepted(on);
    let on = world.client_sends(asking(plain_connect(ID, WALL)));
    assert_eq!(world.got(on), OK);
}

#[test]
fn tokens_of_both_kinds_share_the_memory_of_an_id() {
    let mut world = world_with(|config| config.tokens_per_id_max = 3);
    let challenge = world.get_challenge();
    let over = world.registers(&challenge, NONCE);
    world.assert_accepted(over);
    for nonce in [NONCE, "fedcba9876543210"] {
        let bound = world.client_sends(bound_connect(ID, WALL, nonce));
        assert_eq!(world.got(bound), OK);
    }
    let full = world.registers(&challenge, "fedcba9876543210");
    assert!(world.got(full).starts_with("HTTP/1.1 503 "), "{}", world.got(full));
    let full = world.client_sends(bound_connect(ID, WALL, "fedcba9876543211"));
    assert!(world.got(full).starts_with("HTTP/1.1 503 "), "{}", world.got(full));
    world.wait_secs(61);
    let challenge = world.get_challenge();
    let on = world.registers(&challenge, "fedcba9876543212");
    world.assert_accepted(on);
}

#[test]
fn what_is_remembered_of_a_secret_ends_with_it() {
    let mut world = World::new(config(), both());
    let challenge = world.get_challenge();
    let on = world.registers(&challenge, NONCE);
    world.assert_accepted(on);
    let mut ids = both();
    ids[0].key = key_of(STRANGER);
    world.enrol(ids);
    let old = world.registers(&challenge, "fedcba9876543210");
    world.assert_refused(old, "401 Unauthorized", NOT_AUTHORIZED);
    let new = world.client_sends(challenged_connect(ID, &key_of(STRANGER), &challenge, NONCE));
    world.assert_accepted(new);
}
