//! A relay on blocking sockets and threads, with nothing but the core and std.
//!
//! ```sh
//! cargo run -p rendezvous-core --example blocking_relay -- 127.0.0.1:8080 6ba7b810-9dad-41d1-80b4-00c04fd430c8 SECRET
//! curl --digest -u 6ba7b810-9dad-41d1-80b4-00c04fd430c8: http://127.0.0.1:8080/
//! ```
//!
//! It listens in clear, and takes plain tokens (SHA-1, 6 digits, 30 s) made with the bytes of SECRET. Each connection has a thread
//! that reads; everything else happens under one lock. So a client that does not read stops this relay until the write
//! times out: a real driver writes without blocking.

#![allow(clippy::disallowed_methods, reason = "a driver reads the clocks")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use rendezvous_core::engine::{Config, Transport};
use rendezvous_core::machine::PASS_ALL;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::token::{Algorithm, Key};
use rendezvous_core::{Close, ConnId, End, Engine, Id, Listener, Machine, Now, Output, Time};

/// A connection reads no more while so many bytes are kept for it.
const KEPT_MAX: usize = 64 * 1024;

struct Conn {
    socket: Arc<TcpStream>,
    /// The machine wants to be offered bytes.
    wanted: bool,
    /// Received, and neither consumed nor moved.
    kept: Vec<u8>,
    /// `kept` is to be offered.
    fresh: bool,
    end: Option<End>,
    end_reported: bool,
    last_reported: bool,
    /// The other half of the pair.
    peer: Option<ConnId>,
    /// How many bytes may move before the next are offered; `None`: all.
    gate: Option<u64>,
    closing: bool,
}

enum Event {
    Flushed(ConnId),
    WriteFailed(ConnId),
    Closed(ConnId),
}

struct Relay {
    machine: Engine,
    conns: BTreeMap<ConnId, Conn>,
    /// What outputs caused: delivered once the machine is idle.
    events: VecDeque<Event>,
    /// When the machine wants `handle_timeout`.
    until: Option<Time>,
    start: Instant,
}

type Shared = Arc<(Mutex<Relay>, Condvar)>;

/// Serves the connections of a listener until it fails.
pub fn serve(listener: &TcpListener, ids: Vec<Enrolment>) -> io::Result<()> {
    let start = Instant::now();
    let mut seed = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let config = Config { listeners: vec![Transport::Plain], ..Config::default() };
    let mut machine = Engine::new(config, seed, now(start));
    machine.handle_ids(ids, now(start));
    let relay = Relay { machine, conns: BTreeMap::new(), events: VecDeque::new(), until: None, start };
    let shared: Shared = Arc::new((Mutex::new(relay), Condvar::new()));
    let timer = Arc::clone(&shared);
    thread::spawn(move || keep_deadlines(&timer));
    loop {
        let (socket, from) = listener.accept()?;
        socket.set_write_timeout(Some(Duration::from_secs(5)))?;
        let socket = Arc::new(socket);
        let on = update(&shared, |relay, now| {
            let on = relay.machine.handle_open(Listener(0), from, now);
            relay.conns.insert(on, Conn::new(Arc::clone(&socket)));
            on
        });
        let shared = Arc::clone(&shared);
        thread::spawn(move || read(&shared, on, &socket));
    }
}

fn now(start: Instant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Now { mono: Time(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)), wall }
}

/// Calls the machine, carries out what it asks for, and wakes the threads that wait for it.
fn update<R>(shared: &Shared, call: impl FnOnce(&mut Relay, Now) -> R) -> R {
    let mut relay = shared.0.lock().unwrap();
    let now = now(relay.start);
    let result = call(&mut relay, now);
    relay.run(now);
    shared.1.notify_all();
    result
}

fn keep_deadlines(shared: &Shared) {
    loop {
        let relay = shared.0.lock().unwrap();
        let wait = relay.until.map_or(u64::MAX, |until| until.since(now(relay.start).mono).0);
        let wait = Duration::from_micros(wait.clamp(1_000, 1_000_000));
        drop(shared.1.wait_timeout(relay, wait).unwrap());
        update(shared, |relay, now| relay.machine.handle_timeout(now));
    }
}

fn read(shared: &Shared, on: ConnId, mut socket: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let waits = |relay: &mut Relay| relay.conns.get(&on).is_some_and(|conn| !conn.may_read());
        let relay = shared.1.wait_while(shared.0.lock().unwrap(), waits).unwrap();
        if !relay.conns.contains_key(&on) {
            return;
        }
        drop(relay);
        let result = socket.read(&mut buffer);
        let end = match result {
            Ok(0) => Some(End::Clean),
            Ok(_) => None,
            Err(_) => Some(End::Reset),
        };
        update(shared, |relay, _| {
            let Some(conn) = relay.conns.get_mut(&on) else { return };
            conn.kept.extend_from_slice(&buffer[..result.unwrap_or(0)]);
            (conn.fresh, conn.end) = (true, end);
        });
        if end.is_some() {
            return;
        }
    }
}

impl Conn {
    fn new(socket: Arc<TcpStream>) -> Self {
        Self {
            socket,
            wanted: true,
            kept: Vec::new(),
            fresh: false,
            end: None,
            end_reported: false,
            last_reported: false,
            peer: None,
            gate: None,
            closing: false,
        }
    }

    fn may_read(&self) -> bool {
        self.closing || self.wanted && self.kept.len() < KEPT_MAX
    }
}

impl Relay {
    /// Drains the outputs after every call, until nothing is left to do.
    fn run(&mut self, now: Now) {
        loop {
            let mut text = Vec::new();
            match self.machine.poll_output(&mut text) {
                Output::Idle { until, .. } => self.until = until,
                output => {
                    self.perform(output, &text, now);
                    continue;
                }
            }
            match self.events.pop_front() {
                Some(Event::Flushed(on)) => self.machine.handle_flushed(on, now),
                Some(Event::WriteFailed(on)) => self.machine.handle_write_failed(on, now),
                Some(Event::Closed(on)) => self.machine.handle_closed(on, now),
                None => {
                    let all: Vec<ConnId> = self.conns.keys().copied().collect();
                    if !all.into_iter().any(|on| self.step(on, now)) {
                        return;
                    }
                }
            }
        }
    }

    /// One step with what a connection received: moved to its peer, offered to the machine, or reported. False if there is none.
    fn step(&mut self, on: ConnId, now: Now) -> bool {
        let Some(conn) = self.conns.get_mut(&on) else { return false };
        if conn.closing {
            let dropped = std::mem::take(&mut conn.kept).len();
            let is_over = conn.end.is_some();
            if is_over {
                self.finish(on);
            } else if dropped > 0 {
                self.machine.handle_moved(on, u32::try_from(dropped).unwrap(), 0, now);
            }
            return is_over || dropped > 0;
        }
        if !conn.wanted {
            return false;
        }
        if let (Some(peer), false, false) = (conn.peer, conn.gate == Some(0), conn.kept.is_empty()) {
            let passes = conn.gate.map_or(usize::MAX, |gate| usize::try_from(gate).unwrap_or(usize::MAX));
            let moved: Vec<u8> = conn.kept.drain(..passes.min(conn.kept.len())).collect();
            conn.gate = conn.gate.map(|gate| gate - moved.len() as u64);
            conn.fresh = true;
            self.write(peer, &moved);
            self.machine.handle_moved(on, u32::try_from(moved.len()).unwrap(), 0, now);
            return true;
        }
        if std::mem::take(&mut conn.fresh) && !conn.kept.is_empty() {
            conn.last_reported = false;
            let used = self.machine.handle_bytes(on, &conn.kept, now);
            conn.kept.drain(..used);
            return true;
        }
        let Some(end) = conn.end else { return false };
        if conn.peer.is_some() && !conn.kept.is_empty() {
            let is_new = !std::mem::replace(&mut conn.last_reported, true);
            if is_new {
                self.machine.handle_last_bytes(on, now);
            }
            return is_new;
        }
        let is_new = !std::mem::replace(&mut conn.end_reported, true);
        if is_new {
            self.machine.handle_end(on, end, now);
        }
        is_new
    }

    fn write(&mut self, on: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get(&on) else { return };
        let is_written = (&*conn.socket).write_all(bytes).is_ok();
        self.events.push_back(if is_written { Event::Flushed(on) } else { Event::WriteFailed(on) });
    }

    fn perform(&mut self, output: Output, text: &[u8], now: Now) {
        match output {
            Output::Send { to, .. } => self.write(to, text),
            Output::Read { on, wanted } => {
                if let Some(conn) = self.conns.get_mut(&on) {
                    (conn.wanted, conn.fresh) = (wanted, wanted);
                }
            }
            Output::Pair { hidden, client } => {
                for (on, peer) in [(hidden, client), (client, hidden)] {
                    if let Some(conn) = self.conns.get_mut(&on) {
                        (conn.peer, conn.gate) = (Some(peer), None);
                    }
                }
            }
            Output::Gate { on } => {
                if let Some(conn) = self.conns.get_mut(&on) {
                    (conn.gate, conn.fresh, conn.last_reported) = (Some(0), true, false);
                }
            }
            Output::Pass { from, bytes } => {
                if let Some(conn) = self.conns.get_mut(&from) {
                    conn.gate = conn.gate.map(|gate| gate.saturating_add(bytes)).filter(|it| *it != PASS_ALL);
                }
            }
            Output::CheckAck { on } => self.machine.handle_acked(on, None, now),
            Output::CloseWrite { on } => {
                if let Some(conn) = self.conns.get(&on) {
                    let _ = conn.socket.shutdown(Shutdown::Write);
                }
            }
            Output::Close { on, how } => self.close(on, how),
            Output::Note(note) => eprintln!("{note:?}"),
            Output::UserTimeout { .. } | Output::Idle { .. } => {}
            Output::StartTls { .. }
            | Output::Resolve { .. }
            | Output::Dial { .. }
            | Output::LocalAddress { .. } => unreachable!("a relay in clear does not ask for it"),
        }
    }

    fn close(&mut self, on: ConnId, how: Close) {
        let Some(conn) = self.conns.get_mut(&on) else { return };
        conn.closing = true;
        let _ = conn.socket.shutdown(Shutdown::Write);
        if let Some(peer) = conn.peer.take().and_then(|peer| self.conns.get_mut(&peer)) {
            (peer.peer, peer.gate, peer.fresh) = (None, None, true);
        }
        // `Linger` ends with the peer's end. The others should reset the connection, which std cannot do.
        if how != Close::Linger {
            self.finish(on);
        }
    }

    fn finish(&mut self, on: ConnId) {
        if let Some(conn) = self.conns.remove(&on) {
            let _ = conn.socket.shutdown(Shutdown::Both);
            self.events.push_back(Event::Closed(on));
        }
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, id, secret] = arguments.as_slice() else {
        panic!("usage: blocking_relay ADDR:PORT ID SECRET")
    };
    let id = Id::parse(id.as_bytes()).expect("ID is a UUID");
    let key =
        Key::new(secret.clone().into_bytes(), Algorithm::Sha1, 6, 30).expect("SECRET has 1 to 256 bytes");
    serve(&TcpListener::bind(address)?, vec![Enrolment { id, key, labels: Vec::new(), plain_tokens: true }])
}
