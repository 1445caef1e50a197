//! Benchmarks of those parts of the core that every connection, or every piece of a stream, uses.
//!
//! ```text
//! cargo bench -p tests --bench core                    times: median, minimum and maximum of 15 rounds
//! cargo bench -p tests --bench core -- --callgrind     instructions, by valgrind: the same on a noisy machine
//! cargo bench -p tests --bench core -- --write         the same, written into instructions.txt
//! ```
//!
//! With `--callgrind` each count is compared with the one in `instructions.txt`. The exit code is 1 if one is more than
//! 5 % above: then either find the cause, or explain it and `--write`. Times are never judged. Instructions are those
//! of one operation: the difference of two runs, one with twice as many operations, so that setup and teardown do not
//! count. Another compiler, or another version of a dependency, changes them a little.

#![allow(clippy::disallowed_methods, reason = "what is measured is time")]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

use rendezvous_core::engine::{Config, Engine, Transport};
use rendezvous_core::http::head::{Finder, Found, Limits};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{ConnId, End, Listener, Machine, Output, Secured};
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::token::{Algorithm, Key};

const ID: Id = Id(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
/// Sun, 06 Nov 1994 08:49:37 GMT.
const WALL: u64 = 784_111_777;
const ROUNDS: usize = 15;
/// The file of the baseline.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// How far a count may exceed the baseline.
const TOLERANCE: f64 = 0.05;

/// A measured part: `work` prepares this many operations, and performs them.
struct Part {
    name: &'static str,
    /// Operations of a round; a fiftieth of them under valgrind.
    operations: usize,
    ready: fn(usize) -> Box<dyn FnMut(usize)>,
}

const PARTS: [Part; 4] = [
    Part { name: "head-parse", operations: 50_000, ready: heads },
    Part { name: "token-check", operations: 20_000, ready: tokens },
    Part { name: "engine-rendezvous", operations: 5_000, ready: rendezvous },
    Part { name: "engine-moved", operations: 500_000, ready: moved },
];

fn main() -> ExitCode {
    // cargo passes `--bench` to every benchmark.
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => {
            times();
            Ok(true)
        }
        ["--callgrind"] => instructions(false),
        ["--write"] => instructions(true),
        ["--work", name, most, count] => work(name, most, count).map(|()| true),
        _ => Err(format!("{args:?} is nothing that can be asked for; see the head of tests/benches/core.rs")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("core: {why}");
            ExitCode::FAILURE
        }
    }
}

fn times() {
    println!("{:20} {:>12} {:>25}", "ns for one", "median", "least – most");
    for part in &PARTS {
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| time(part)).collect();
        rounds.sort_by(f64::total_cmp);
        let range = format!("{:.1} – {:.1}", rounds[0], rounds[ROUNDS - 1]);
        println!("{:20} {:>12.1} {range:>25}", part.name, rounds[ROUNDS / 2]);
    }
}

fn time(part: &Part) -> f64 {
    let mut work = (part.ready)(part.operations);
    let clock = Instant::now();
    work(part.operations);
    clock.elapsed().as_secs_f64() * 1e9 / part.operations as f64
}

/// Counts, and compares with or writes the baseline. Returns whether all counts are within their bounds.
fn instructions(write: bool) -> Result<bool, String> {
    let kept = fs::read_to_string(BASELINE).unwrap_or_default();
    let mut text = String::from("# Instructions of one operation, by callgrind: see core.rs.\n");
    let mut good = true;
    println!("{:20} {:>12} {:>12} {:>8}", "instructions for one", "now", "kept", "change");
    for part in &PARTS {
        let now = count(part)?;
        let _ = writeln!(text, "{} {now}", part.name);
        let before = kept.lines().find_map(|line| line.strip_prefix(part.name)?.strip_prefix(' '));
        let Some(before) = before.and_then(|number| number.parse::<u64>().ok()) else {
            println!("{:20} {now:>12} {:>12}", part.name, "–");
            good &= write;
            continue;
        };
        let change = now as f64 / before as f64 - 1.0;
        let verdict = if change > TOLERANCE { "  too many" } else { "" };
        println!("{:20} {now:>12} {before:>12} {:>+7.1}%{verdict}", part.name, change * 100.0);
        good &= write || change <= TOLERANCE;
    }
    if write {
        fs::write(BASELINE, text).map_err(|error| format!("{BASELINE}: {error}"))?;
    }
    Ok(good)
}

fn count(part: &Part) -> Result<u64, String> {
    let few = part.operations / 50;
    let [once, twice] = [few, 2 * few].map(|count| collected(part.name, 2 * few, count));
    Ok((twice? - once?).div_ceil(few as u64))
}

/// All instructions of a run of this program that prepares `most` operations and performs `count`.
fn collected(name: &str, most: usize, count: usize) -> Result<u64, String> {
    let here = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(here);
    valgrind.args(["--work", name, &most.to_string(), &count.to_string()]);
    let output = valgrind.output().map_err(|error| format!("valgrind: {error}; apt-get install valgrind"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().find_map(|line| line.split_once("Collected :"));
    let number = line.and_then(|(_, number)| number.trim().parse().ok());
    number.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind: {}\n{stderr}", output.status))
}

/// The part that runs under valgrind.
fn work(name: &str, most: &str, count: &str) -> Result<(), String> {
    let part = PARTS.iter().find(|part| part.name == name).ok_or("no such part")?;
    let number = |text: &str| text.parse::<usize>().map_err(|error| error.to_string());
    (part.ready)(number(most)?)(number(count)?);
    Ok(())
}

// ---- the parts ----

/// A browser's request.
fn request() -> String {
    format!(
        "GET /path/to/page?with=query HTTP/1.1\r\nHost: relay.example.com:8443\r\nUser-Agent: Mozilla/5.0 (X11; \
         Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,application/xhtml+xml,\
         application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, \
         br\r\nConnection: keep-alive\r\nAuthorization: Digest username=\"{ID}\", realm=\"rendezvous\", \
         nonce=\"00000000000000000000000000000000\", uri=\"/path/to/page?with=query\", \
         response=\"00000000000000000000000000000000\", qop=auth, nc=00000001, cnonce=\"0000000000000000\"\r\n\
         Upgrade-Insecure-Requests: 1\r\nPriority: u=1\r\n\r\n"
    )
}

/// Finds a head, parses it, and writes it without its credentials.
fn heads(_: usize) -> Box<dyn FnMut(usize)> {
    let request = request();
    let mut out = Vec::with_capacity(2 * request.len());
    Box::new(move |count| {
        for _ in 0..count {
            let bytes = black_box(request.as_bytes());
            let found = Finder::default().find(bytes, &Limits::default());
            let Found::Complete(whole) = found else { panic!("{found:?}") };
            let head = whole.parse().expect("a good head");
            out.clear();
            head.without_authorization(&mut out);
            black_box(&out);
        }
    })
}

fn key() -> Key {
    Key::new(vec![0x5a; 32], Algorithm::Sha256, Key::DIGITS, Key::PERIOD_SECS).expect("a good key")
}

/// Verifies a bound token, in all three steps.
fn tokens(_: usize) -> Box<dyn FnMut(usize)> {
    let (key, nonce) = (key(), b"nonce-of-benchmark-000000");
    let token = key.bound(key.step(WALL), nonce);
    Box::new(move |count| {
        for _ in 0..count {
            assert!(black_box(&key).check_bound(WALL, black_box(nonce), black_box(&token)).is_some());
        }
    })
}

/// A relay's engine, and the state that a loop keeps for it.
struct Relay {
    engine: Engine,
    now: Now,
    text: Vec<u8>,
    due: VecDeque<Due>,
    paired: bool,
    open: usize,
}

/// The loop's pending calls into the engine.
enum Due {
    Flushed(ConnId),
    Secured(ConnId),
    Closed(ConnId),
    End(ConnId),
}

impl Relay {
    fn new() -> Self {
        let now = Now { mono: Time(60_000_000), wall: WALL };
        let config = Config { listeners: vec![Transport::Tls], ..Config::default() };
        let mut engine = Engine::new(config, [7; 32], now);
        engine.handle_ids(vec![Enrolment::new(ID, key())], now);
        let (text, due) = (Vec::with_capacity(4096), VecDeque::with_capacity(16));
        let mut relay = Self { engine, now, text, due, paired: false, open: 0 };
        relay.run();
        relay
    }

    /// Applies all outputs. The peers end when they are told to.
    fn run(&mut self) {
        loop {
            self.text.clear();
            match self.engine.poll_output(&mut self.text) {
                Output::Send { to, .. } => self.due.push_back(Due::Flushed(to)),
                Output::StartTls { on, .. } => self.due.push_back(Due::Secured(on)),
                Output::CloseWrite { on } => self.due.push_back(Due::End(on)),
                Output::Close { on, .. } => self.due.push_back(Due::Closed(on)),
                Output::Pair { .. } => self.paired = true,
                Output::Idle { .. } => match self.due.pop_front() {
                    Some(due) => self.pay(&due),
                    None => return,
                },
                _ => {}
            }
        }
    }

    fn pay(&mut self, due: &Due) {
        match *due {
            Due::Flushed(on) => self.engine.handle_flushed(on, self.now),
            Due::Secured(on) => self.engine.handle_secured(on, Secured::default(), self.now),
            Due::End(on) => self.engine.handle_end(on, End::Clean, self.now),
            Due::Closed(on) => {
                self.open -= 1;
                self.engine.handle_closed(on, self.now);
            }
        }
    }

    fn open(&mut self) -> ConnId {
        let from = ([192, 0, 2, 1], 1000).into();
        let on = self.engine.handle_open(Listener(0), from, self.now);
        self.open += 1;
        self.run();
        on
    }

    fn client_sends(&mut self, on: ConnId, bytes: &str) {
        let used = self.engine.handle_bytes(on, bytes.as_bytes(), self.now);
        assert_eq!(used, bytes.len());
        self.run();
    }

    /// A hidden server with this CONNECT, and a client.
    fn pair(&mut self, connect: &str, request: &str) -> [ConnId; 2] {
        self.now.mono = self.now.mono + Span::from_millis(1);
        let hidden = self.open();
        self.client_sends(hidden, connect);
        let client = self.open();
        self.client_sends(client, "GET / HTTP/1.1\r\nHost: relay.example.com\r\n\r\n");
        self.client_sends(client, request);
        assert!(std::mem::take(&mut self.paired), "no pair");
        [hidden, client]
    }

    fn moves(&mut self, from: ConnId, bytes: u32) {
        self.engine.handle_moved(from, bytes, bytes, self.now);
        self.run();
    }
}

fn connect(number: usize) -> String {
    let nonce = format!("nonce-of-benchmark-{number:08}");
    let token = key().bound(key().step(WALL), nonce.as_bytes());
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CONNECT uuid:{ID}?response={token}&nonce={nonce} HTTP/1.1\r\n\r\n")
}

/// A hidden server connects, a client connects, is challenged, gets a response, and both leave.
fn rendezvous(most: usize) -> Box<dyn FnMut(usize)> {
    let (mut relay, request) = (Relay::new(), request());
    let mut connects = (0..most).map(connect).collect::<Vec<_>>().into_iter();
    Box::new(move |count| {
        for connect in connects.by_ref().take(count) {
            let [hidden, client] = relay.pair(&connect, &request);
            relay.moves(hidden, 1024);
            relay.engine.handle_flushed(client, relay.now);
            relay.run();
            relay.engine.handle_end(client, End::Clean, relay.now);
            relay.run();
            assert_eq!(relay.open, 0, "somebody has not left");
        }
    })
}

/// A piece of a stream moves, and is sent.
fn moved(_: usize) -> Box<dyn FnMut(usize)> {
    let mut relay = Relay::new();
    let [hidden, client] = relay.pair(&connect(0), &request());
    Box::new(move |count| {
        for _ in 0..count {
            relay.now.mono = relay.now.mono + Span(10);
            relay.moves(hidden, 65_536);
            relay.engine.handle_flushed(client, relay.now);
            relay.run();
        }
    })
}
