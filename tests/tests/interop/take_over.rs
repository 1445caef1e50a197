//! A new process takes over from a running relay without dropping connections.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rendezvous::take_over::{Message, NAME};

use crate::harness::{Case, case};
use crate::hidden::{Raw, noise, page, page_text, read_head};
use crate::program::{PATIENCE, Program, run};
use crate::wire::{Answer, Below, Wire};
use crate::world::{Enrolled, Relay, World, basic, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("no_request_is_lost_and_a_transfer_is_whole", &[], no_request_is_lost),
    case("connections_in_the_accept_queue_are_served", &[], connections_in_the_queue),
    case("a_token_is_accepted_by_one_of_both_processes", &[], a_token_is_accepted_once),
    case("the_old_process_continues_if_the_new_one_ends_at_any_step", &[], the_new_one_ends),
    case("an_unknown_version_is_refused_on_both_sides", &[], an_unknown_version),
    case("one_process_takes_over_at_a_time", &[], one_at_a_time),
    case("three_generations_are_shown_and_their_traffic_is_added", &[], three_generations),
    case("the_old_process_is_idle_with_an_idle_pair", &[], the_old_process_is_idle),
    case("the_drain_time_limits_pairs_of_the_old_process", &[], the_drain_time),
    case("without_a_running_relay_there_is_nothing_to_take_over", &[], nothing_to_take_over),
    case("a_signal_starts_the_new_process_and_a_failed_one_changes_nothing", &[], a_signal),
];

const TAKEN_OVER: &str = "event=taken-over";
const FAILED: &str = "event=take-over-failed";

fn get(of: &Enrolled) -> String {
    format!("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&of.id))
}

/// The same relay, as a process that takes over.
fn take_over(world: &World, options: &[&str]) -> Relay {
    let options = [&["--take-over"], options].concat();
    World::ready(Program::start("new relay", &mut world.serve(["127.0.0.1:0", "127.0.0.1:0"], &options)))
}

fn status(world: &World) -> String {
    let output = run(rendezvous().args(["status", "--json", "--state"]).arg(world.state()));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn status_until(world: &World, what: &str, is: impl Fn(&str) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = status(world);
        if is(&text) {
            return;
        }
        assert!(Instant::now() < until, "never {what}: {text}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A pair whose client has read the first bytes of a response.
struct Transfer {
    client: Wire,
    hidden: TcpStream,
    sent: usize,
    bytes: Vec<u8>,
}

impl Transfer {
    fn begin(relay: &Relay, of: &Enrolled, service: &Raw, below: Below) -> Self {
        let bytes = noise(7, 2 << 20);
        let mut client = relay.open(below);
        client.send(get(of).as_bytes());
        let mut hidden = service.accept();
        read_head(&mut hidden);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        hidden.write_all(head.as_bytes()).expect("the pair lives");
        hidden.write_all(&bytes[..1000]).expect("the pair lives");
        assert_eq!(Answer::read_head(&mut client).status(), 200);
        let mut first = vec![0; 1000];
        client.read_exact(&mut first).expect("the first bytes");
        assert!(first == bytes[..1000]);
        Self { client, hidden, sent: 1000, bytes }
    }

    fn finish(mut self) {
        let rest = self.bytes[self.sent..].to_vec();
        let (mut hidden, expected) = (self.hidden, rest.clone());
        let writer = thread::spawn(move || hidden.write_all(&rest).expect("the pair lives"));
        let mut got = vec![0; expected.len()];
        self.client.read_exact(&mut got).expect("the transfer is whole");
        assert!(got == expected);
        writer.join().expect("it sends all");
    }
}

fn no_request_is_lost() {
    let world = World::new();
    let (home, other) = (world.enrol("home", &[]), world.enrol("other", &[]));
    let mut old = world.relay(&[]);
    let _agent = world.agent(&old, &home, Below::Tls13, &["--to", &page().to_string()]);
    let service = Raw::start();
    let _other = world.agent(&old, &other, Below::Tls13, &["--to", &service.address.to_string()]);
    let transfer = Transfer::begin(&old, &other, &service, Below::Tls13);
    let (tls, clear) = (old.tls, old.clear);
    let is_over = AtomicBool::new(false);
    let new = thread::scope(|scope| {
        let ask = |below: Below| {
            let address = if below == Below::Clear { clear } else { tls };
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) || count == 0 {
                let mut wire = Wire::open(below, address);
                wire.send(get(&home).as_bytes());
                assert_eq!(Answer::read(&mut wire).text(), page_text("GET", "/x", b""));
                count += 1;
            }
        };
        let clients = [Below::Clear, Below::Tls13, Below::Clear].map(|below| scope.spawn(move || ask(below)));
        let new = take_over(&world, &[]);
        old.program.expect_line(TAKEN_OVER);
        assert_eq!((new.tls, new.clear), (tls, clear));
        // The agent is at the new process.
        new.program.expect_line(lines::WAITING);
        new.program.expect_line(lines::PAIRED);
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("each request is answered");
        }
        new
    });
    transfer.finish();
    assert!(old.program.exit().success());
    assert_eq!(old.program.lines(FAILED), 0);
    assert!(status(&world).contains(&format!("\"pid\":{}", new.program.pid())));
}

fn connections_in_the_queue() {
    let (world, mut old, home, _agent) = World::with_service(page());
    old.program.signal("STOP");
    let queued: Vec<Wire> = (0..40)
        .map(|_| {
            let mut wire = Wire::open(Below::Clear, old.clear);
            wire.send(get(&home).as_bytes());
            wire
        })
        .collect();
    let new = Program::start("new relay", &mut world.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--take-over"]));
    new.expect_line("event=certificate");
    old.program.signal("CONT");
    new.expect_line(lines::READY);
    for mut wire in queued {
        assert_eq!(Answer::read(&mut wire).status(), 200);
    }
    assert!(old.program.exit().success());
}

fn a_token_is_accepted_once() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut old = world.relay(&[]);
    let connect = |token: &str| format!("CONNECT uuid:{}?{token} HTTP/1.1\r\n\r\n", home.id);
    let used = connect(&world.token(&old, &home));
    let mut waiting = old.open(Below::Clear);
    waiting.send(used.as_bytes());
    assert_eq!(read_head(&mut waiting), b"HTTP/1.1 200 OK\r\n\r\n");
    // Accepted by the old process, which gets its token after the take-over.
    let fresh = connect(&world.token(&old, &home));
    let (first, second) = fresh.split_at(20);
    let mut late = old.open(Below::Clear);
    late.send(first.as_bytes());
    status_until(&world, "a head", |text| text.contains("\"heads\":1"));
    let new = take_over(&world, &[]);
    assert_eq!(waiting.rest(), b"", "it is released");
    late.send(second.as_bytes());
    let answer = Answer::read(&mut late);
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
    assert_eq!(new.ask(&used).status(), 401);
    let mut hidden = new.open(Below::Clear);
    hidden.send(fresh.as_bytes());
    assert_eq!(read_head(&mut hidden), b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(new.ask(&fresh).status(), 401);
    drop(late);
    assert!(old.program.exit().success());
}

/// A process that takes over, played by the test.
struct Impostor(UnixStream);

impl Impostor {
    fn connect(world: &World) -> Self {
        let socket = UnixStream::connect(world.state().join(NAME)).expect("the relay listens there");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self(socket)
    }

    fn send(&mut self, message: &Message) {
        self.0.write_all(&message.bytes()).expect("the relay receives");
    }

    /// Reads messages up to the first of this kind. Their descriptors are closed by the kernel.
    fn expect(&mut self, kind: u16) -> Vec<u8> {
        loop {
            let mut header = [0; 8];
            self.0.read_exact(&mut header).expect("a header");
            let mut body = vec![0; u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize];
            self.0.read_exact(&mut body).expect("a body");
            if u16::from_be_bytes([header[2], header[3]]) == kind {
                return body;
            }
        }
    }
}

/// What an impostor does before it ends.
type Play = fn(&mut Impostor);

const SOCKETS: u16 = 2;
const COMMIT: u16 = 6;
const REFUSED: u16 = 9;

fn hello() -> Message {
    Message::Hello { program: "0.0.0".to_owned() }
}

fn the_new_one_ends() {
    let world = World::new();
    let (home, other) = (world.enrol("home", &[]), world.enrol("other", &[]));
    let old = world.relay(&[]);
    let _agent = world.agent(&old, &home, Below::Tls13, &["--to", &page().to_string()]);
    let steps: [(&str, Play); 4] = [
        ("it has connected", |_| {}),
        ("it has the sockets", |impostor| {
            impostor.send(&hello());
            impostor.expect(SOCKETS);
        }),
        ("it was ready", |impostor| {
            impostor.send(&hello());
            impostor.expect(SOCKETS);
            impostor.send(&Message::Ready);
        }),
        ("it has everything", |impostor| {
            impostor.send(&hello());
            impostor.expect(SOCKETS);
            impostor.send(&Message::Ready);
            impostor.expect(COMMIT);
        }),
    ];
    for (place, (step, play)) in steps.into_iter().enumerate() {
        let mut impostor = Impostor::connect(&world);
        play(&mut impostor);
        if step == "it has everything" {
            let token = world.token(&old, &other);
            let connect = format!("CONNECT uuid:{}?{token} HTTP/1.1\r\n\r\n", other.id);
            // No registration is accepted, and none by the listeners: a connection waits in the queue.
            let mut queued = old.open(Below::Clear);
            queued.send(connect.as_bytes());
            drop(impostor);
            old.program.expect_lines(FAILED, place);
            assert_eq!(read_head(&mut queued), b"HTTP/1.1 200 OK\r\n\r\n");
        } else {
            drop(impostor);
            old.program.expect_lines(FAILED, place);
        }
        assert_eq!(old.ask(get(&home)).text(), page_text("GET", "/x", b""), "{step}");
        let _hidden = world.waiting(&old, &other, Below::Clear);
    }
    assert!(status(&world).contains("\"stopping\":false"));
    // And then one succeeds.
    let new = take_over(&world, &[]);
    old.program.expect_line(TAKEN_OVER);
    assert_eq!(new.ask(get(&home)).status(), 200);
}

fn an_unknown_version() {
    let (world, old, home, _agent) = World::with_service(page());
    let mut impostor = Impostor::connect(&world);
    let mut newer = hello().bytes();
    newer[1] = 9;
    impostor.0.write_all(&newer).expect("the relay receives");
    let why = String::from_utf8(impostor.expect(REFUSED)).expect("text");
    assert!(why.contains("version 9 of the take-over, this one version 1: restart"), "{why}");
    old.program.expect_line("event=take-over-refused reason=\"the other process has version 9");
    assert_eq!(old.ask(get(&home)).status(), 200);
    // The running relay has another version.
    let other = World::new();
    fs::create_dir(other.state()).expect("a folder can be made");
    fs::set_permissions(other.state(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("its mode");
    let listener = UnixListener::bind(other.state().join(NAME)).expect("the folder is empty");
    let running = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the new process connects");
        let mut sockets = Message::Sockets { labels: Vec::new(), is_last: true }.bytes();
        sockets[1] = 2;
        let _ = socket.write_all(&sockets);
        let mut all = Vec::new();
        let _ = socket.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    });
    let output = run(&mut other.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--take-over"]));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("cannot take over: the other process has version 2 of the take-over"),
        "{complaint}"
    );
    let told = running.join().expect("it ends");
    assert!(told.contains("has version 2 of the take-over, this one version 1"), "{told}");
}

fn one_at_a_time() {
    let (world, old, home, _agent) = World::with_service(page());
    let mut first = Impostor::connect(&world);
    first.send(&hello());
    first.expect(SOCKETS);
    let second = run(&mut world.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--take-over"]));
    let complaint = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("refuses: another process is taking over: try again"), "{complaint}");
    drop(first);
    old.program.expect_line(FAILED);
    let starts = || {
        let mut serve = world.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--take-over"]);
        Program::start("one of three", &mut serve)
    };
    let mut three = [starts(), starts(), starts()];
    old.program.expect_line(TAKEN_OVER);
    let is_up = |program: &Program| {
        program.pick("its fate", |line| {
            let is_up = line.contains(lines::READY);
            (is_up || line.contains("cannot take over")).then_some(is_up)
        })
    };
    // One after the other may have succeeded, each from the one before.
    assert!(three.iter().any(is_up));
    let mut wire = Wire::open(Below::Clear, old.clear);
    wire.send(get(&home).as_bytes());
    assert_eq!(Answer::read(&mut wire).status(), 200);
    for program in &mut three {
        program.kill();
    }
}

fn three_generations() {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut first = world.relay(&[]);
    let _agent = world.agent(&first, &home, Below::Tls13, &["--to", &service.address.to_string()]);
    let transfers = (
        Transfer::begin(&first, &home, &service, Below::Tls13),
        first.program.expect_lines(lines::WAITING, 2),
    );
    let mut second = take_over(&world, &[]);
    second.program.expect_line(lines::WAITING);
    let next = Transfer::begin(&second, &home, &service, Below::Clear);
    let third = take_over(&world, &[]);
    let pids = [first.program.pid(), second.program.pid()];
    status_until(&world, "both older processes", |text| {
        pids.iter().all(|pid| text.contains(&format!("{{\"pid\":{pid},\"started\":")))
            && text.matches("\"pairs\":1}").count() == 2
    });
    third.program.expect_line(lines::WAITING);
    Transfer::begin(&third, &home, &service, Below::Clear).finish();
    transfers.0.finish();
    assert!(first.program.exit().success());
    next.finish();
    assert!(second.program.exit().success());
    third.program.expect_lines("event=older-process-ended", 2);
    let usage = run(rendezvous().args(["usage", "--json", "--state"]).arg(world.state()));
    let usage = String::from_utf8_lossy(&usage.stdout).into_owned();
    // Three times a head and 2 MiB.
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 << 20).len();
    let total = 3 * (head + (2 << 20));
    let sum = usage.split("\"months\":").nth(1).map_or(0, |months| {
        let counts = months.split("\"from_hidden\":").skip(1);
        counts.filter_map(|rest| rest.split(',').next()?.parse::<usize>().ok()).sum()
    });
    assert_eq!(sum, total, "{usage}");
}

/// The processor time of a process, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let behind = stat.rsplit_once(") ").expect("a name").1;
    let number = |place: usize| behind.split(' ').nth(place).and_then(|it| it.parse::<u64>().ok());
    number(11).zip(number(12)).map(|(user, system)| user + system).expect("two numbers")
}

fn the_old_process_is_idle() {
    let service = Raw::start();
    let world = World::new();
    let (home, other) = (world.enrol("home", &[]), world.enrol("other", &[]));
    let metrics = ["--metrics", "127.0.0.1:0"];
    let mut old = world.relay(&metrics);
    let _agent = world.agent(&old, &home, Below::Tls13, &["--to", &page().to_string()]);
    let _other = world.agent(&old, &other, Below::Tls13, &["--to", &service.address.to_string()]);
    let transfer = Transfer::begin(&old, &other, &service, Below::Tls13);
    let new = take_over(&world, &metrics);
    new.program.expect_line(lines::WAITING);
    new.program.expect_line("event=listening kind=metrics");
    let before = cpu_ticks(old.program.pid());
    let start = Instant::now();
    // Edges of the listeners, which both processes had.
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(new.ask(get(&home)).status(), 200);
    }
    let used = cpu_ticks(old.program.pid()) - before;
    assert!(used <= 5, "{used} ticks of 10 ms in {:?}", start.elapsed());
    transfer.finish();
    assert!(old.program.exit().success());
}

fn the_drain_time() {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut old = world.relay(&["--drain", "1"]);
    let _agent = world.agent(&old, &home, Below::Tls13, &["--to", &service.address.to_string()]);
    let mut transfer = Transfer::begin(&old, &home, &service, Below::Clear);
    let _new = take_over(&world, &["--drain", "1"]);
    let (_, end) = transfer.client.rest_and_end();
    assert!(end.is_err(), "it is reset");
    assert!(old.program.exit().success());
}

fn nothing_to_take_over() {
    let world = World::new();
    world.enrol("home", &[]);
    let output = run(&mut world.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--take-over"]));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("cannot take over: no relay that can hand over runs"), "{complaint}");
}

fn a_signal() {
    let (world, mut old, home, _agent) = World::with_service(page());
    let ids = world.state().join("ids");
    let mode = |mode| fs::set_permissions(&ids, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o644).expect("its mode can be set");
    old.program.signal("USR2");
    old.program.expect_line("event=take-over-failed reason=\"the new process has ended: exit status: 1");
    assert_eq!(old.ask(get(&home)).status(), 200);
    mode(0o600).expect("its mode can be set");
    let kept = fs::read_to_string(&ids).expect("the file of IDs");
    fs::write(&ids, format!("{kept}other otpauth:\n")).expect("it can be written");
    old.program.signal("USR2");
    old.program.expect_lines("event=take-over-failed", 2);
    old.program.expect_line("cannot take over: ");
    assert_eq!(old.ask(get(&home)).status(), 200);
    fs::write(&ids, kept).expect("it can be written");
    old.program.signal("USR2");
    let pid = old
        .program
        .pick("its successor", |line| line.split_once("event=taken-over pid=")?.1.parse::<u32>().ok());
    let mut wire = Wire::open(Below::Clear, old.clear);
    wire.send(get(&home).as_bytes());
    assert_eq!(Answer::read(&mut wire).status(), 200);
    status_until(&world, "the new process", |text| text.contains(&format!("\"pid\":{pid},")));
    let ended = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
    assert!(ended.is_ok_and(|status| status.success()), "it runs");
    // Both write to the same log.
    assert!(old.program.exit().success());
}
