//! A relay on blocking sockets, with nothing but the core and std.
//!
//! ```sh
//! cargo run -p rendezvous-core --example blocking_relay -- 127.0.0.1:8080 6ba7b810-9dad-41d1-80b4-00c04fd430c8 SECRET
//! curl --digest -u 6ba7b810-9dad-41d1-80b4-00c04fd430c8: http://127.0.0.1:8080/
//! ```
//!
//! It listens in clear, and takes plain tokens (SHA-1, 6 digits, 30 s) made with the bytes of SECRET. One thread owns the
//! machine and writes; each connection has a thread that reads. A client that does not read stops this relay until the
//! write times out: a real driver writes without blocking.

#![allow(clippy::disallowed_methods, reason = "a driver reads the clocks")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, mem, thread};

use rendezvous_core::engine::{Config, Transport};
use rendezvous_core::machine::PASS_ALL;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::token::{Algorithm, Key};
use rendezvous_core::{Close, ConnId, End, Engine, Id, Listener, Machine, Now, Output, Time};

enum Input {
    Accepted(TcpStream),
    Received(ConnId, Vec<u8>, Option<End>),
}

struct Conn {
    socket: TcpStream,
    /// Each permit lets the reading thread read once.
    permits: Sender<()>,
    is_reading: bool,
    /// Whether the machine is offered bytes.
    wanted: bool,
    /// Bytes that were received, and neither consumed nor moved. Offered if `fresh`.
    kept: Vec<u8>,
    fresh: bool,
    end: Option<End>,
    /// Whether the last bytes before the end, and the end, were reported.
    reported: (bool, bool),
    /// The other half of the pair, and how many bytes move to it before the next are offered (`None`: all).
    peer: Option<ConnId>,
    gate: Option<u64>,
    closing: bool,
}

type Handle = fn(&mut Engine, ConnId, Now);

struct Relay {
    machine: Engine,
    conns: BTreeMap<ConnId, Conn>,
    /// Events caused by outputs. They are reported once the machine is idle.
    caused: VecDeque<(Handle, ConnId)>,
    until: Option<Time>,
}

/// Serves the connections of a listener.
pub fn serve(listener: TcpListener, ids: Vec<Enrolment>) -> io::Result<()> {
    let start = Instant::now();
    let now = || {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Now { mono: Time(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)), wall }
    };
    let mut seed = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let config = Config { listeners: vec![Transport::Plain], ..Config::default() };
    let machine = Engine::new(config, seed, now());
    let mut relay = Relay { machine, conns: BTreeMap::new(), caused: VecDeque::new(), until: None };
    relay.machine.handle_ids(ids, now());
    let (inputs, inbox) = sync_channel(64);
    let accepted = inputs.clone();
    thread::spawn(move || {
        listener.incoming().flatten().try_for_each(|it| accepted.send(Input::Accepted(it)))
    });
    loop {
        relay.run(now());
        let wait = relay.until.map_or(60_000_000, |until| until.since(now().mono).0);
        match inbox.recv_timeout(Duration::from_micros(wait)) {
            Ok(Input::Accepted(socket)) => {
                if let Err(error) = relay.accept(socket, &inputs, now()) {
                    eprintln!("cannot serve a connection: {error}");
                }
            }
            Ok(Input::Received(on, bytes, end)) => {
                if let Some(conn) = relay.conns.get_mut(&on) {
                    conn.kept.extend(bytes);
                    (conn.is_reading, conn.fresh, conn.end) = (false, true, end);
                }
            }
            Err(_) => relay.machine.handle_timeout(now()),
        }
    }
}

fn read(on: ConnId, mut socket: TcpStream, permits: &Receiver<()>, inputs: &SyncSender<Input>) {
    while permits.recv().is_ok() {
        let mut bytes = vec![0; 16 * 1024];
        let (len, end) = match socket.read(&mut bytes) {
            Ok(0) => (0, Some(End::Clean)),
            Ok(len) => (len, None),
            Err(_) => (0, Some(End::Reset)),
        };
        bytes.truncate(len);
        if inputs.send(Input::Received(on, bytes, end)).is_err() {
            return;
        }
    }
}

impl Relay {
    fn accept(&mut self, socket: TcpStream, inputs: &SyncSender<Input>, now: Now) -> io::Result<()> {
        socket.set_write_timeout(Some(Duration::from_secs(5)))?;
        let (reader, from) = (socket.try_clone()?, socket.peer_addr()?);
        let (permits, permitted) = channel();
        let on = self.machine.handle_open(Listener(0), from, now);
        let inputs = inputs.clone();
        thread::spawn(move || read(on, reader, &permitted, &inputs));
        let conn = Conn {
            socket,
            permits,
            is_reading: false,
            wanted: true,
            kept: Vec::new(),
            fresh: false,
            end: None,
            reported: (false, false),
            peer: None,
            gate: None,
            closing: false,
        };
        self.conns.insert(on, conn);
        Ok(())
    }

    /// Drains the outputs after every call, until nothing is left to do. Then lets the threads read.
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
            if let Some((handle, on)) = self.caused.pop_front() {
                handle(&mut self.machine, on, now);
                continue;
            }
            let all: Vec<ConnId> = self.conns.keys().copied().collect();
            if !all.into_iter().any(|on| self.step(on, now)) {
                break;
            }
        }
        for conn in self.conns.values_mut().filter(|conn| !conn.is_reading && conn.end.is_none()) {
            if conn.closing || conn.wanted && conn.kept.len() < 64 * 1024 {
                conn.is_reading = conn.permits.send(()).is_ok();
            }
        }
    }

    /// Moves, offers or reports what a connection received. False if there is nothing to do.
    fn step(&mut self, on: ConnId, now: Now) -> bool {
        let Some(conn) = self.conns.get_mut(&on) else { return false };
        if conn.closing {
            let discarded = u32::try_from(mem::take(&mut conn.kept).len()).unwrap();
            let is_over = conn.end.is_some();
            if is_over {
                self.finish(on);
            } else if discarded > 0 {
                self.machine.handle_moved(on, discarded, 0, now);
            }
            return is_over || discarded > 0;
        }
        if !conn.wanted {
            return false;
        }
        if let Some(peer) = conn.peer.filter(|_| conn.gate != Some(0) && !conn.kept.is_empty()) {
            let passes = conn.gate.map_or(usize::MAX, |gate| usize::try_from(gate).unwrap_or(usize::MAX));
            let moved: Vec<u8> = conn.kept.drain(..passes.min(conn.kept.len())).collect();
            conn.gate = conn.gate.map(|gate| gate - moved.len() as u64);
            conn.fresh = true;
            self.write(peer, &moved);
            self.machine.handle_moved(on, u32::try_from(moved.len()).unwrap(), 0, now);
        } else if mem::take(&mut conn.fresh) && !conn.kept.is_empty() {
            conn.reported.0 = false;
            let used = self.machine.handle_bytes(on, &conn.kept, now);
            conn.kept.drain(..used);
        } else if let (Some(_), Some(_), false, false) =
            (conn.end, conn.peer, conn.kept.is_empty(), conn.reported.0)
        {
            conn.reported.0 = true;
            self.machine.handle_last_bytes(on, now);
        } else if let Some(end) = conn.end.filter(|_| conn.peer.is_none() || conn.kept.is_empty())
            && !mem::replace(&mut conn.reported.1, true)
        {
            self.machine.handle_end(on, end, now);
        } else {
            return false;
        }
        true
    }

    fn write(&mut self, on: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(&on) else { return };
        let is_written = conn.socket.write_all(bytes).is_ok();
        self.caused
            .push_back((if is_written { Engine::handle_flushed } else { Engine::handle_write_failed }, on));
    }

    fn perform(&mut self, output: Output, text: &[u8], now: Now) {
        match output {
            Output::Send { to, .. } => self.write(to, text),
            Output::CheckAck { on } => self.machine.handle_acked(on, None, now),
            Output::Event(event) => eprintln!("{event:?}"),
            Output::Pair { hidden, client } => {
                self.change(hidden, |conn| (conn.peer, conn.gate) = (Some(client), None));
                self.change(client, |conn| (conn.peer, conn.gate) = (Some(hidden), None));
            }
            Output::Read { on, wanted } => {
                self.change(on, |conn| (conn.wanted, conn.fresh) = (wanted, wanted));
            }
            Output::Gate { on } => {
                self.change(on, |conn| (conn.gate, conn.fresh, conn.reported.0) = (Some(0), true, false));
            }
            Output::Pass { from, bytes } => self.change(from, |conn| {
                conn.gate = conn.gate.map(|gate| gate.saturating_add(bytes)).filter(|gate| *gate != PASS_ALL);
            }),
            Output::CloseWrite { on } => self.change(on, |conn| drop(conn.socket.shutdown(Shutdown::Write))),
            Output::Close { on, how } => self.close(on, how),
            // The rest is for TLS and for machines that dial, or not possible with std.
            _ => {}
        }
    }

    fn change(&mut self, on: ConnId, change: impl FnOnce(&mut Conn)) {
        self.conns.get_mut(&on).map(change).unwrap_or_default();
    }

    fn close(&mut self, on: ConnId, how: Close) {
        let Some(conn) = self.conns.get_mut(&on) else { return };
        conn.closing = true;
        let _ = conn.socket.shutdown(Shutdown::Write);
        if let Some(peer) = conn.peer.take() {
            self.change(peer, |conn| (conn.peer, conn.gate, conn.fresh) = (None, None, true));
        }
        // `Linger` waits for the peer's end. The others should reset the connection, which std cannot do.
        if how != Close::Linger {
            self.finish(on);
        }
    }

    fn finish(&mut self, on: ConnId) {
        if let Some(conn) = self.conns.remove(&on) {
            let _ = conn.socket.shutdown(Shutdown::Both);
            self.caused.push_back((Engine::handle_closed, on));
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
    serve(TcpListener::bind(address)?, vec![Enrolment { plain_tokens: true, ..Enrolment::new(id, key) }])
}
