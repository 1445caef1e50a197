//! Records the corpus: a machine with its own seeds and secrets runs every case inside a recorder. The recorder itself
//! checks at every output that its shadow machine does the same.

use std::panic::catch_unwind;

use rendezvous_core::agent::{Agent, Seeds};
use rendezvous_core::engine::Engine;
use rendezvous_core::machine::{ConnId, Listener, Machine, Output};
use rendezvous_core::time::{Now, Time};
use rendezvous_core::trace::{Identity, Input, Recorder, Replay, Setup, Step, Trace};

use crate::{cases, each_case};

/// The seed that no trace may contain.
const SEED: [u8; 32] = [0x5e; 32];

/// A machine inside a recorder.
enum Recorded {
    Relay(Box<Recorder<Engine>>),
    Agent(Box<Recorder<Agent>>),
}

impl Recorded {
    /// The machine of a trace, at its start.
    fn start(trace: &Trace) -> Self {
        let now = trace.steps[0].now;
        match &trace.setup {
            Setup::Relay(config) => {
                Self::Relay(Box::new(Recorder::relay((**config).clone(), SEED, now, true)))
            }
            Setup::Agent { config, jitter } => {
                let seeds = Seeds { nonces: SEED, jitter: *jitter };
                Self::Agent(Box::new(Recorder::agent((**config).clone(), seeds, now, true)))
            }
        }
    }

    fn machine(&mut self) -> &mut dyn Machine {
        match self {
            Self::Relay(relay) => &mut **relay,
            Self::Agent(agent) => &mut **agent,
        }
    }

    fn take_text(&mut self) -> String {
        match self {
            Self::Relay(relay) => relay.take_text(),
            Self::Agent(agent) => agent.take_text(),
        }
    }

    /// Takes all outputs of the machine. Returns the bytes to send.
    fn drain(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while !matches!(self.machine().poll_output(&mut sent), Output::Idle { .. }) {}
        sent
    }

    fn call(&mut self, trace: &Trace, event: &Input, bytes: &[u8], now: Now) {
        let machine = self.machine();
        match *event {
            Input::Open { on, from } => drop(machine.handle_open(on, from, now)),
            Input::Found { on, ref addresses } => machine.handle_found(on, addresses, now),
            Input::Resolved { on, ref addresses } => machine.handle_resolved(on, addresses, now),
            Input::Connected { on } => machine.handle_connected(on, now),
            Input::DialFailed { on, why } => machine.handle_dial_failed(on, why, now),
            Input::Secured { on, ref tls } => machine.handle_secured(on, tls.clone(), now),
            Input::TlsFailed { on, why } => machine.handle_tls_failed(on, why, now),
            Input::In { on, .. } => drop(machine.handle_bytes(on, bytes, now)),
            Input::LastBytes { on } => machine.handle_last_bytes(on, now),
            Input::Moved { on, read, queued } => machine.handle_moved(on, read, queued, now),
            Input::Flushed { on } => machine.handle_flushed(on, now),
            Input::RoundTrip { on, round_trip } => machine.handle_round_trip(on, round_trip, now),
            Input::Acked { on, age } => machine.handle_acked(on, age, now),
            Input::End { on, how } => machine.handle_end(on, how, now),
            Input::WriteFailed { on } => machine.handle_write_failed(on, now),
            Input::Stalled { on } => machine.handle_stalled(on, now),
            Input::Closed { on } => machine.handle_closed(on, now),
            Input::Timeout => machine.handle_timeout(now),
            Input::Start => unreachable!("it has started"),
            Input::KeysRemoved { ref keys } => {
                let Self::Agent(agent) = self else { unreachable!("not of a relay") };
                agent.handle_removed_keys(keys, now);
            }
            Input::PathChanged => {
                let Self::Agent(agent) = self else { unreachable!("not of a relay") };
                agent.handle_path_changed(now);
            }
            Input::Ticket { upstream, ref name } => {
                let is_it = |identity: &&Identity| identity.name == *name;
                let key = trace.identities.iter().find(is_it).expect("a name").enrolment.key.clone();
                let Self::Agent(agent) = self else { unreachable!("not of a relay") };
                agent.handle_ticket(upstream, key, now);
            }
            Input::Verified { on, ticket, verdict } => {
                let Self::Agent(agent) = self else { unreachable!("not of a relay") };
                let _ = agent.take_checks();
                agent.handle_verified(on, ticket, verdict, now);
            }
            Input::Drain => match self {
                Self::Relay(relay) => relay.handle_drain(now),
                Self::Agent(agent) => agent.handle_drain(now),
            },
            Input::Ids { ref names } => {
                let known = |name: &String| {
                    let is_it = |identity: &&Identity| identity.name == *name;
                    trace.identities.iter().find(is_it).expect("a name").enrolment.clone()
                };
                let Self::Relay(relay) = self else { unreachable!("not of an agent") };
                relay.handle_ids(names.iter().map(known).collect(), now);
            }
            Input::Config { ref config } => {
                let Self::Relay(relay) = self else { unreachable!("not of an agent") };
                relay.handle_config((**config).clone(), now);
            }
            Input::TakeOver { step } => {
                let Self::Relay(relay) = self else { unreachable!("not of an agent") };
                relay.handle_take_over(step, now);
            }
            Input::Kick { ref what } => {
                let Self::Relay(relay) = self else { unreachable!("not of an agent") };
                relay.handle_kick(what, now);
            }
        }
    }
}

/// The key that an agent offers for a direct connection, if it does.
fn offered_key(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (_, behind) = text.split_once("\r\nDTCP-Key: ")?;
    behind.split("\r\n").next().map(str::to_owned)
}

/// The bytes of a trace's offer, with the machine's own key instead of the trace's.
fn with_own_key(bytes: Vec<u8>, keys: Option<&(String, String)>) -> Vec<u8> {
    match (String::from_utf8(bytes), keys) {
        (Ok(text), Some((theirs, own))) => text.replace(theirs, own).into_bytes(),
        (Ok(text), None) => text.into_bytes(),
        (Err(error), _) => error.into_bytes(),
    }
}

/// Feeds a trace to a recorder. Returns the recorded text, and what the machine itself sent.
fn record(trace: &Trace) -> (String, String) {
    let mut machine = Recorded::start(trace);
    let mut sent = machine.drain();
    let mut keys = None;
    for played in Replay::new(trace).skip(1) {
        let step = played.step;
        let bytes = with_own_key(trace.bytes(step), keys.as_ref());
        machine.call(trace, &step.event, &bytes, step.now);
        let said = machine.drain();
        let theirs = played.actions.iter().flatten().find_map(|action| offered_key(&action.bytes));
        keys = keys.or(theirs.zip(offered_key(&said)));
        sent.extend(said);
    }
    (machine.take_text(), String::from_utf8_lossy(&sent).into_owned())
}

#[test]
fn a_recorded_case_replays_and_contains_no_secret() {
    each_case(|_, _, trace| {
        let (text, sent) = record(trace);
        let again = Trace::parse(&text).map_err(|error| format!(" recorded: {error}\n{text}"))?;
        if again.to_string().lines().count() < text.lines().count() {
            return Err(format!(" written out again it is shorter:\n{text}"));
        }
        if let Some(it) = Replay::new(&again).find_map(|played| played.difference()) {
            return Err(format!(" recorded, it differs: {it:?}\n{text}"));
        }
        let mut forbidden = vec!["5e".repeat(8)];
        forbidden.extend(tokens_of_relay(trace));
        if matches!(trace.setup, Setup::Agent { .. }) {
            forbidden.extend(tokens_of_agent(&sent));
            forbidden.extend(offered_key(sent.as_bytes()));
            forbidden.extend(trace.steps.iter().flat_map(|step| unread(&trace.bytes(step))));
        }
        match forbidden.iter().find(|it| text.contains(it.as_str())) {
            Some(found) => Err(format!(" recorded, it holds {found}:\n{text}")),
            None => Ok(()),
        }
    });
}

/// The secrets of a trace, and the tokens that a relay accepted.
fn tokens_of_relay(trace: &Trace) -> Vec<String> {
    let mut tokens = Vec::new();
    for identity in &trace.identities {
        let key = &identity.enrolment.key;
        tokens.push(base32(key.secret()));
        for step in trace.steps.iter().map(|step| key.step(step.now.wall)) {
            for step in step - 2..=step + 2 {
                let digits = key.plain(step);
                tokens.push(format!("={}", String::from_utf8_lossy(digits.as_bytes())));
                let bound = key.bound(step, b"nonce-of-sixteen");
                tokens.push(bound.iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
    }
    tokens
}

/// The tokens that an agent sent, with their nonces: it makes both. The challenges come from the relay.
fn tokens_of_agent(sent: &str) -> Vec<String> {
    let targets = sent.lines().filter_map(|line| line.strip_prefix("CONNECT ")?.split([' ', '?']).nth(1));
    let parameters = targets.flat_map(|query| query.split('&'));
    parameters.filter(|it| !it.starts_with("challenge=")).map(str::to_owned).collect()
}

/// The parts of an agent's input that it does not interpret: reason phrases, values of fields, a client's query.
fn unread(bytes: &[u8]) -> Vec<String> {
    const READ: [&str; 11] = [
        "Host",
        "Connection",
        "Upgrade",
        "Content-Length",
        "Transfer-Encoding",
        "Date",
        "Retry-After",
        "Rendezvous-Challenge",
        "Rendezvous-Pool",
        "DTCP-Host",
        "DTCP-Fingerprint",
    ];
    let text = String::from_utf8_lossy(bytes);
    let mut parts = Vec::new();
    for line in text.lines() {
        if let Some(status) = line.strip_prefix("HTTP/1.1 ") {
            parts.extend(status.split_once(' ').map(|(_, phrase)| phrase.to_owned()).filter(|it| it != "OK"));
            continue;
        }
        match line.split_once(": ") {
            Some((name, value)) if !READ.iter().any(|it| it.eq_ignore_ascii_case(name)) => {
                parts.push(value.to_owned())
            }
            Some(_) => {}
            None => {
                parts.extend(line.split_once('?').and_then(|(_, it)| it.split(' ').next()).map(str::to_owned))
            }
        }
    }
    parts
}

/// RFC 4648 §6, without padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let letter = |bits: &[u8]| {
        let value = bits.iter().fold(0, |value, bit| value << 1 | bit) << (5 - bits.len());
        char::from(LETTERS[usize::from(value)])
    };
    bits.chunks(5).map(letter).collect()
}

/// Damaged heads cause the same actions, whatever the damage.
#[test]
fn damaged_heads_cause_the_same_actions() {
    const DAMAGES: usize = 400;
    const SHOWN_MAX: usize = 10;
    let mut rng = Rng(1);
    let mut complaints = Vec::new();
    for (_, _, trace) in &cases() {
        for (place, step) in trace.steps.iter().enumerate() {
            let bytes = trace.bytes(step);
            let Input::In { on, .. } = step.event else { continue };
            let is_agent = matches!(trace.setup, Setup::Agent { .. });
            if is_agent && trace.steps[..place].iter().any(|before| leaves_bytes(trace, before, on)) {
                continue;
            }
            for _ in 0..DAMAGES {
                let damaged = rng.damage(&bytes);
                let offer = || {
                    if is_agent {
                        offer_to_agent(trace, place, &damaged)
                    } else {
                        offer_to_relay(trace, &damaged)
                    }
                };
                if complaints.len() < SHOWN_MAX && catch_unwind(offer).is_err() {
                    complaints.push(damaged.escape_ascii().to_string());
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Whether bytes of this connection are kept after a step: the next offer would have to begin with them.
fn leaves_bytes(trace: &Trace, step: &Step, of: ConnId) -> bool {
    let took = step.outcomes.iter().find_map(|outcome| outcome.text.strip_prefix("took "));
    matches!(step.event, Input::In { on, .. } if on == of)
        && took.and_then(|took| took.parse().ok()).unwrap_or(0) < trace.bytes(step).len()
}

/// A new relay gets these bytes as the first of a connection; its recorder checks the rest.
fn offer_to_relay(trace: &Trace, bytes: &[u8]) {
    let [start, ids, ..] = &*trace.steps else { return };
    let mut relay = Recorded::start(trace);
    relay.drain();
    relay.call(trace, &ids.event, &[], ids.now);
    relay.drain();
    let from = "192.0.2.1:40000".parse().expect("an address");
    let now = Now { mono: Time(1_000), ..start.now };
    let on = relay.machine().handle_open(Listener(0), from, now);
    relay.drain();
    offer(&mut relay, on, bytes, now);
}

/// A new agent replays a trace up to this step, and gets these bytes instead.
fn offer_to_agent(trace: &Trace, place: usize, bytes: &[u8]) {
    let Input::In { on, .. } = trace.steps[place].event else { return };
    let mut agent = Recorded::start(trace);
    agent.drain();
    for step in &trace.steps[1..place] {
        agent.call(trace, &step.event, &trace.bytes(step), step.now);
        agent.drain();
    }
    offer(&mut agent, on, bytes, trace.steps[place].now);
}

/// Offers it in two pieces, and continues with the kept bytes.
fn offer(to: &mut Recorded, on: ConnId, bytes: &[u8], now: Now) {
    let mut used = 0;
    for end in [bytes.len() / 2, bytes.len()] {
        used += to.machine().handle_bytes(on, &bytes[used..end], now);
        to.drain();
        to.machine().handle_flushed(on, now);
        to.drain();
    }
    let _ = to.machine().handle_bytes(on, &bytes[used..], now);
    to.drain();
}

/// Deterministic random numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
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
            b"HTTP/1.1 ",
            b"100",
            b"401",
            b"Date: Sat, 21 Nov 2026 12:00:00 GMT\r\n",
            b"Date:",
            b"Retry-After: 77\r\n",
            b"Connection: upgrade\r\n",
            b"Upgrade: octet-stream\r\n",
        ];
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let part = PARTS[self.below(PARTS.len())];
            let end = (at + self.below(4)).min(bytes.len());
            match self.below(4) {
                0 => drop(bytes.drain(at..end)),
                1 => bytes.truncate(at.max(8)),
                _ => drop(bytes.splice(at..end, part.iter().copied())),
            }
        }
        bytes
    }
}
