//! Traps of edge-triggered loops, on this machine's system. The loop's thread is stopped until all events of a test
//! have happened, so that it finds them at once.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use rendezvous_core::event::Event;
use rendezvous_core::time::Span;
use socket2::SockRef;

use crate::bulk::bytes;
use crate::peer::{Ending, Kind, Peer, socket};
use crate::relay::{ACCEPTED, Relay, SIZES, registration, request};

/// Runs `work` while the relay's loop is stopped: it then finds all results at once.
fn behind_its_back<R>(relay: &Relay, work: impl FnOnce() -> R) -> R {
    let (stands, standing) = channel();
    let (go, going) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            relay.ask(move |_| {
                stands.send(()).unwrap();
                let _ = going.recv();
            });
        });
        standing.recv().unwrap();
        let result = work();
        drop(go);
        result
    })
}

#[test]
fn bytes_before_a_reset_arrive_without_a_clean_end() {
    let relay = Relay::start();
    let answer = bytes(1, 50_000);
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let (hidden, client) = relay.pair(Kind::Clear, kind);
        behind_its_back(&relay, || {
            hidden.send(&answer);
            hidden.reset();
        });
        let (got, ending) = client.recv_all();
        assert!(got == answer, "{kind:?}: {} bytes", got.len());
        assert_eq!(ending, if kind == Kind::Clear { Ending::Reset } else { Ending::Cut }, "{kind:?}");
    }
    relay.until_empty();
}

/// Both sides have ended when the loop looks: the system reports a hang-up while the response is unread.
#[test]
fn bytes_before_a_hang_up_arrive() {
    let relay = Relay::start();
    let answer = bytes(2, 50_000);
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let (hidden, client) = relay.pair(Kind::Clear, kind);
        client.end();
        assert_eq!(hidden.recv_all(), (Vec::new(), Ending::Clean));
        behind_its_back(&relay, || {
            hidden.send(&answer);
            drop(hidden);
        });
        assert!(client.recv_all() == (answer.clone(), Ending::Clean), "{kind:?}");
    }
    relay.until_empty();
}

/// The first write succeeds and is answered by a reset; the second fails with a broken pipe.
#[test]
fn writing_to_a_closed_peer_loses_no_byte_that_it_sent() {
    let relay = Relay::start();
    let answer = bytes(3, 50_000);
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let (hidden, client) = relay.pair(Kind::Clear, kind);
        behind_its_back(&relay, || {
            hidden.send(&answer);
            drop(hidden);
            client.send(b"the first");
        });
        let got = thread::scope(|scope| {
            let writing = client.clone();
            scope.spawn(move || while writing.try_send(b"and the next").is_ok() {});
            let mut got = Vec::new();
            while got.len() < answer.len() {
                got.extend(client.recv().unwrap_or_else(|ending| panic!("{ending:?} after {}", got.len())));
            }
            client.sock().shutdown(std::net::Shutdown::Both).unwrap();
            got
        });
        assert!(got == answer, "{kind:?}");
        drop(client);
    }
    relay.until_empty();
}

#[test]
fn who_is_gone_from_the_backlog_stops_nobody_behind_him() {
    let relay = Relay::start();
    let last = behind_its_back(&relay, || {
        for _ in 0..40 {
            let hasty = socket(relay.address(Kind::Clear));
            SockRef::from(&hasty).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
        socket(relay.address(Kind::Clear))
    });
    (&last).write_all(b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    (&last).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    drop(last);
    relay.until_empty();
}

/// If this is set, the process has few descriptors left.
const FEW: &str = "RENDEZVOUS_TEST_FEW_DESCRIPTORS";

/// In a process of its own, because the descriptor limit is per process.
#[test]
fn a_listener_that_had_no_descriptor_accepts_when_there_is_one_and_nobody_knocks() {
    const NAME: &str = "traps::a_listener_that_had_no_descriptor_accepts_when_there_is_one_and_nobody_knocks";
    if std::env::var_os(FEW).is_none() {
        let own = std::env::current_exe().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 64; exec \"$0\" --exact \"$1\" --test-threads 1"]).arg(own).arg(NAME);
        let output = shell.env(FEW, "1").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let relay = Relay::start();
    let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(held.len() < 64, "there is a limit");
    // One for the connecting client, and none to accept it with.
    held.pop();
    let knocks = TcpStream::connect(relay.address(Kind::Clear)).expect("there is a backlog");
    let turns = relay.ask(|event_loop| event_loop.stats().turns);
    relay.until("the loop has gone on", move |event_loop| event_loop.stats().turns > turns + 100);
    assert_eq!(relay.ask(|event_loop| event_loop.connections()), 0, "there is no descriptor for anybody");
    drop(held);
    relay.until("it is accepted", |event_loop| event_loop.connections() == 1);
    drop(knocks);
    relay.until_empty();
}

/// The rest of a millisecond is slept, not spun.
#[test]
fn a_deadline_between_two_milliseconds_is_no_reason_to_spin() {
    let relay = Relay::with(SIZES, |config| config.hold = Span(50_500));
    let client = relay.connect(Kind::Clear);
    client.send(&request("GET"));
    let (told, turns) = channel();
    let (mut held, mut heard) = (None, 0);
    relay.until_noted("nobody came for the client", move |event_loop, events| {
        let turns = event_loop.stats().turns;
        if held.is_none() && events.iter().skip(heard).any(|event| matches!(event, Event::Held { .. })) {
            held = Some(turns);
            heard = events.len();
        }
        let is_over = events.iter().skip(heard).any(|event| matches!(event, Event::Refused { .. }));
        if let (Some(held), true) = (held, is_over) {
            told.send(turns - held).unwrap();
            return true;
        }
        false
    });
    // Its owner wakes it every 2 ms, and the deadline once.
    let turns = turns.recv().unwrap();
    assert!(turns < 60, "{turns} turns in 50 ms");
    assert!(client.recv_all().0.starts_with(b"HTTP/1.1 503 "));
    drop(client);
    relay.until_empty();
}

/// After a CONNECT, bytes that arrive with it are a conflict; bytes after its 200 end it.
#[test]
fn bytes_behind_a_connect_are_judged_by_how_they_are_cut() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let whole = [registration(), b"!".to_vec()].concat();
        for cut in [whole.len(), whole.len() - 2, 1] {
            let whole = [registration(), b"!".to_vec()].concat();
            let hidden = relay.connect(kind);
            behind_its_back(&relay, || whole.chunks(cut).for_each(|piece| hidden.send(piece)));
            let (answer, ending) = hidden.recv_all();
            let is_conflict = answer.starts_with(b"HTTP/1.1 409 ");
            // In TLS each piece is a record, which may be offered separately.
            let is_closed = kind != Kind::Clear && cut == 1 && answer == ACCEPTED;
            assert!(is_conflict || is_closed, "{kind:?} {cut}: {}", String::from_utf8_lossy(&answer));
            assert_eq!(ending, Ending::Clean);
        }
        let hidden: Peer = relay.hidden(kind);
        hidden.send(b"!");
        assert_eq!(hidden.recv_all(), (Vec::new(), Ending::Clean));
    }
    relay.until_empty();
}
