//! The corpus, recorded: a relay with a seed and secrets of its own goes through every case with a recorder around it.
//! That its shadow does what it does, the recorder itself checks at every output.

use std::panic::catch_unwind;

use rendezvous_core::engine::Engine;
use rendezvous_core::machine::{ConnId, Listener, Machine, Output};
use rendezvous_core::time::{Now, Time};
use rendezvous_core::trace::{Event, Identity, Recorder, Replay, Setup, Trace};

use crate::{cases, each_case};

/// Says to a recorder what a trace says; the text that comes of it.
fn record(trace: &Trace) -> String {
    let Setup::Relay(config) = &trace.setup else { return String::new() };
    let mut relay = Recorder::relay((**config).clone(), [0x5e; 32], trace.steps[0].now, true);
    drain(&mut relay);
    for step in &trace.steps[1..] {
        tell(&mut relay, trace, &step.event, &trace.octets(step), step.now);
        drain(&mut relay);
    }
    relay.take_text()
}

fn tell(relay: &mut Recorder<Engine>, trace: &Trace, event: &Event, octets: &[u8], now: Now) {
    match *event {
        Event::Open { on, from } => drop(relay.handle_open(on, from, now)),
        Event::Secured { on } => relay.handle_secured(on, now),
        Event::TlsFailed { on, why } => relay.handle_tls_failed(on, why, now),
        Event::In { on, .. } => drop(relay.handle_bytes(on, octets, now)),
        Event::Moved { on, read, queued } => relay.handle_moved(on, read, queued, now),
        Event::Flushed { on } => relay.handle_flushed(on, now),
        Event::Acked { on, age } => relay.handle_acked(on, age, now),
        Event::End { on, how } => relay.handle_end(on, how, now),
        Event::WriteFailed { on } => relay.handle_write_failed(on, now),
        Event::Closed { on } => relay.handle_closed(on, now),
        Event::Timeout => relay.handle_timeout(now),
        Event::Drain => relay.handle_drain(now),
        Event::Ids { ref names } => {
            let known = |name: &String| {
                let mut identities = trace.identities.iter();
                identities
                    .find(|identity: &&Identity| identity.name == *name)
                    .expect("a name")
                    .enrolment
                    .clone()
            };
            let list = names.iter().map(known);
            relay.handle_ids(list.collect(), now);
        }
        Event::Config { ref config } => relay.handle_config((**config).clone(), now),
        Event::Start | Event::Resolved { .. } | Event::Connected { .. } | Event::DialFailed { .. } => {
            unreachable!("not of a relay")
        }
    }
}

fn drain(relay: &mut Recorder<Engine>) {
    let mut text = Vec::new();
    while !matches!(relay.poll_output(&mut text), Output::Idle { .. }) {}
}

#[test]
fn a_recorded_case_replays_to_itself_and_holds_no_secret() {
    each_case(|_, _, trace| {
        let text = record(trace);
        if text.is_empty() {
            return Ok(());
        }
        let again = Trace::parse(&text).map_err(|error| format!(" recorded: {error}\n{text}"))?;
        if again.to_string().lines().count() < text.lines().count() {
            return Err(format!(" written out again it is shorter:\n{text}"));
        }
        if let Some(it) = Replay::new(&again).find_map(|played| played.difference()) {
            return Err(format!(" recorded, it differs: {it:?}\n{text}"));
        }
        for identity in &trace.identities {
            let key = &identity.enrolment.key;
            let mut forbidden = vec![base32(key.secret())];
            for step in trace.steps.iter().map(|step| key.step(step.now.wall)) {
                for step in step - 2..=step + 2 {
                    let digits = key.plain(step);
                    forbidden.push(format!("={}", String::from_utf8_lossy(digits.as_bytes())));
                    let bound = key.bound(step, b"nonce-of-sixteen");
                    forbidden.push(bound.iter().map(|octet| format!("{octet:02x}")).collect());
                }
            }
            if let Some(found) = forbidden.iter().find(|it| text.contains(it.as_str())) {
                return Err(format!(" recorded, it holds {found}:\n{text}"));
            }
        }
        Ok(())
    });
}

/// RFC 4648 §6, without padding.
fn base32(octets: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: Vec<u8> =
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1)).collect();
    let letter = |bits: &[u8]| {
        let value = bits.iter().fold(0, |value, bit| value << 1 | bit) << (5 - bits.len());
        char::from(LETTERS[usize::from(value)])
    };
    bits.chunks(5).map(letter).collect()
}

/// Heads that were damaged take the path of the damaged one, whatever the damage.
#[test]
fn damaged_heads_take_the_same_path() {
    const DAMAGES: usize = 400;
    const SHOWN_MAX: usize = 10;
    let mut dice = Dice(1);
    let mut complaints = Vec::new();
    for (_, _, trace) in &cases() {
        let Setup::Relay(_) = &trace.setup else { continue };
        for step in trace.steps.iter().filter(|step| matches!(step.event, Event::In { .. })) {
            let octets = trace.octets(step);
            for _ in 0..DAMAGES {
                let damaged = dice.damage(&octets);
                if complaints.len() < SHOWN_MAX && catch_unwind(|| offer_to_relay(trace, &damaged)).is_err() {
                    complaints.push(damaged.escape_ascii().to_string());
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// A relay of its own gets these octets as the first of a connection; its recorder checks the rest.
fn offer_to_relay(trace: &Trace, octets: &[u8]) {
    let Setup::Relay(config) = &trace.setup else { return };
    let [start, ids, ..] = &*trace.steps else { return };
    let mut relay = Recorder::relay((**config).clone(), [1; 32], start.now, true);
    drain(&mut relay);
    tell(&mut relay, trace, &ids.event, &[], ids.now);
    drain(&mut relay);
    let from = "192.0.2.1:40000".parse().expect("an address");
    let now = Now { mono: Time(1_000), ..start.now };
    let on = relay.handle_open(Listener(0), from, now);
    drain(&mut relay);
    offer(&mut relay, on, octets, now);
}

/// Offers it in two pieces, and goes on with what is kept.
fn offer(relay: &mut Recorder<Engine>, on: ConnId, octets: &[u8], now: Now) {
    let mut used = 0;
    for end in [octets.len() / 2, octets.len()] {
        used += relay.handle_bytes(on, &octets[used..end], now);
        drain(relay);
        relay.handle_flushed(on, now);
        drain(relay);
    }
    let _ = relay.handle_bytes(on, &octets[used..], now);
    drain(relay);
}

/// Chance that is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    fn damage(&mut self, octets: &[u8]) -> Vec<u8> {
        const PARTS: &[&[u8]] = &[
            b"\r\n",
            b"\n",
            b" ",
            b":",
            b"=",
            b"\"",
            b"\\",
            b",",
            b"?",
            b"&",
            b"@",
            b"://",
            b"/",
            b"\0",
            b"\x80",
            b"CONNECT",
            b"HEAD",
            b"x",
            b"a",
            b"0",
            b"Authorization: ",
            b"Basic ",
            b"Digest ",
            b"username*=UTF-8''",
            b"userhash=true",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"response=",
            b"nonce=",
            b"rendezvous=",
            b"uuid:",
            b"Host: a\r\n",
            b"Expect: x\r\n",
            b"\t",
            b"-",
            b"%20",
            b"HTTP/1.0",
            b"HTTP/1.1",
            b"http",
            b"6ba7b810-9dad-41d1-80b4-00c04fd430c8",
            b"OPTIONS *",
        ];
        let mut octets = octets.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(octets.len() + 1);
            let part = PARTS[self.below(PARTS.len())];
            let end = (at + self.below(4)).min(octets.len());
            match self.below(4) {
                0 => drop(octets.drain(at..end)),
                1 => octets.truncate(at.max(8)),
                _ => drop(octets.splice(at..end, part.iter().copied())),
            }
        }
        octets
    }
}
