//! The status document and its socket.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use common::Folder;
use common::cli::run;
use rendezvous::event_loop::Stats;
use rendezvous::ids::Stamp;
use rendezvous::logging::Names;
use rendezvous::pin::Pin;
use rendezvous::state::State;
use rendezvous::status::document::{Document, OlderProcess};
use rendezvous::status::{Counters, DOCUMENT_MAX, Report, Resources, socket};
use rendezvous_core::engine::{Connections, Counts, IdSnapshot, RefusalReason, Snapshot};
use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::http::reply::Status;
use rendezvous_core::id::Id;
use rendezvous_core::machine::{ConnId, TlsFailure};
use rendezvous_core::time::Span;

const ON: ConnId = ConnId { index: 0, generation: 1 };

fn id(number: u128, waiting: u32) -> IdSnapshot {
    IdSnapshot {
        id: Id(number),
        waiting,
        held: 0,
        pairs: 0,
        pairs_ended: u64::MAX,
        from_client: u64::MAX,
        from_hidden: u64::MAX,
        seen: Some(Span::from_secs(9)),
    }
}

fn document(ids: Vec<IdSnapshot>, names: BTreeMap<Id, String>, counters: &Counters) -> String {
    let connections = Connections { waiting: 2, paired: 4, ..Connections::default() };
    let snapshot = Snapshot {
        connections,
        connections_max: 100,
        draining: false,
        counts: Counts::default(),
        tokens: 0,
        ids,
    };
    let resources = Resources { descriptors_max: Some(1024), ..Resources::default() };
    let (stats, names) = (Stats::default(), &Names(names));
    let (pin, ids_stamp) = (Pin([0; 32]), Stamp::default());
    Report {
        uptime: Span::from_secs(61),
        snapshot,
        stats,
        resources,
        counters,
        names,
        ids_stamp,
        pin,
        changes_keys: false,
        certificates: Vec::new(),
        usage: None,
        wall: 0,
        older: vec![OlderProcess { pid: 7, started: 8, connections: 9, pairs: 10 }],
    }
    .json()
}

fn refused(status: Status, why: &'static str) -> Event {
    Event::Refused { on: ON, from: None, id: None, status, why }
}

#[test]
fn refusals_are_counted_by_status_and_reason() {
    let mut counters = Counters::default();
    for event in [
        refused(Status::NotFound404, "nobody"),
        refused(Status::NotFound404, "nobody"),
        refused(Status::Unavailable503, "full"),
        Event::Dropped { on: ON, from: None, upstream: None, why: "no request came" },
        Event::TlsFailed { on: ON, from: None, upstream: None, why: TlsFailure::Protocol },
        Event::WaitingEnded { on: ON, id: Id(1), why: WaitingEnd::Replaced, after: Span::ZERO },
        Event::Challenged { on: ON, from: None },
        Event::HandOverFailed { hidden: ON, client: ON, id: Id(1), retried: true },
        Event::Held { on: ON, id: Id(1) },
    ] {
        counters.count(&event);
    }
    let status = Document::parse(&document(Vec::new(), BTreeMap::new(), &counters)).expect("JSON");
    let refused: Vec<_> = status.refused.iter().map(|of| (of.status, of.why.as_str(), of.count)).collect();
    assert_eq!(refused, [(404, "nobody", 2), (503, "full", 1)]);
    let by_reason: Vec<_> = counters.refusals().filter(|(_, count)| *count > 0).collect();
    assert_eq!(by_reason, [(RefusalReason::NotFound, 2), (RefusalReason::Limit, 1)]);
    assert_eq!(counters.tls_failed(), 1);
    assert_eq!(status.dropped.iter().map(|of| of.count).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(status.waiting_ended[0].why, "replaced");
    assert_eq!((status.challenged, status.hand_overs_failed), (1, 1));
    assert_eq!((status.connections.now, status.connections.max), (6, 100));
    assert_eq!((status.descriptors.now, status.descriptors.max), (None, Some(1024)));
    assert_eq!(status.uptime, 61);
    let older = status.older.unwrap_or_default();
    assert_eq!(
        older.iter().map(|of| (of.pid, of.started, of.connections, of.pairs)).collect::<Vec<_>>(),
        [(7, 8, 9, 10)]
    );
}

#[test]
fn the_document_of_a_relay_that_knows_no_take_over_is_read() {
    let text = document(Vec::new(), BTreeMap::new(), &Counters::default());
    let start = text.find(",\"older\":").expect("the field");
    let end = start + text[start..].find(']').expect("its end") + 1;
    let old = format!("{}{}", &text[..start], &text[end..]);
    assert!(Document::parse(&old).expect("JSON").older.is_none());
}

#[test]
fn ids_have_their_names_and_whoever_is_busy_comes_first() {
    let names =
        BTreeMap::from([(Id(1), "z".to_owned()), (Id(2), "a\"\u{1b}".to_owned()), (Id(3), "b".to_owned())]);
    let ids = vec![id(1, 1), id(2, 0), id(3, 0), id(4, 0)];
    let status = Document::parse(&document(ids, names, &Counters::default())).expect("JSON");
    let names: Vec<_> = status.ids.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, ["z", "?", "a\"\u{1b}", "b"]);
    let first = &status.ids[0];
    assert_eq!((first.waiting, first.seen), (1, Some(9)));
    assert_eq!(first.id, "00000000-0000-0000-0000-000000000001");
    assert_eq!(status.ids_left_out, 0);
}

#[test]
fn a_long_list_is_cut_where_the_document_would_be_too_long() {
    let ids: Vec<_> = (0..5_000).map(|number| id(number, u32::from(number == 4_999))).collect();
    let names = (0..5_000).map(|number| (Id(number), format!("{number:064}"))).collect();
    let document = document(ids, names, &Counters::default());
    assert!(document.len() <= DOCUMENT_MAX, "{}", document.len());
    assert!(document.len() > DOCUMENT_MAX - 1_000, "{}", document.len());
    let status = Document::parse(&document).expect("JSON");
    assert_eq!(status.ids.len() as u64 + status.ids_left_out, 5_000);
    assert_eq!(status.ids[0].waiting, 1, "a busy one is not left out");
}

#[test]
fn the_socket_is_its_owners_and_whoever_connects_gets_the_document_and_the_end() {
    let folder = Folder::new();
    let state = State::open(folder.file("state").to_str()).unwrap();
    let listener = socket::open(&state).unwrap().expect("a socket");
    let path = state.file(socket::NAME);
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let mut caller = UnixStream::connect(&path).unwrap();
    let document = "x".repeat(DOCUMENT_MAX);
    // The document is written while nothing reads it.
    socket::answer(listener.accept().unwrap().0, &document);
    let mut text = String::new();
    caller.read_to_string(&mut text).unwrap();
    assert!(text == document, "{} bytes", text.len());
}

#[test]
fn a_living_relay_is_an_error_and_a_dead_ones_socket_is_replaced() {
    let folder = Folder::new();
    let state = State::open(folder.file("state").to_str()).unwrap();
    let first = socket::open(&state).unwrap().expect("a socket");
    let error = socket::open(&state).unwrap_err().to_string();
    assert!(error.contains("another relay runs") && error.contains("status.sock"), "{error}");
    drop(first);
    assert!(state.file(socket::NAME).exists(), "a dead relay leaves its socket");
    let error = socket::ask(state.folder()).unwrap_err().to_string();
    assert!(error.contains("no relay runs with the state folder"), "{error}");
    assert!(socket::open(&state).unwrap().is_some());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let state = State::open(folder.file("state").to_str()).unwrap();
    fs::write(state.file(socket::NAME), "somebody's").unwrap();
    assert!(socket::open(&state).unwrap().is_none());
    assert_eq!(fs::read_to_string(state.file(socket::NAME)).unwrap(), "somebody's");
}

#[test]
fn a_folder_with_a_long_name_has_a_socket_too() {
    let folder = Folder::new();
    let state = State::open(folder.file(&"long".repeat(40)).to_str()).unwrap();
    let listener = socket::open(&state).unwrap().expect("a socket");
    assert!(socket::open(&state).is_err(), "it is found alive");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| socket::ask(state.folder()));
        // The connection that checks whether the relay is alive is in the backlog, too.
        while !asked.is_finished() {
            match listener.accept() {
                Ok((caller, _)) => socket::answer(caller, "{}\n"),
                Err(_) => std::thread::yield_now(),
            }
        }
        assert_eq!(asked.join().unwrap(), Ok("{}\n".to_owned()));
    });
}

#[test]
fn without_a_relay_commands_that_ask_it_say_so_in_one_line_and_exit_1() {
    let folder = Folder::new();
    let asking: [&[&str]; 5] = [
        &["status"],
        &["status", "--connections"],
        &["status", "--ready"],
        &["status", "--watch"],
        &["kick", "home"],
    ];
    for args in asking {
        let done = run(&folder, args);
        assert_eq!((done.code, done.out.as_str()), (1, ""));
        let expected = format!("rendezvous: {}: no relay runs with the state folder ", args[0]);
        assert!(done.err.starts_with(&expected) && done.err.lines().count() == 1, "{}", done.err);
    }
    assert_eq!(run(&folder, &["status", "extra"]).code, 2);
}

#[test]
fn an_answer_that_is_cut_is_no_answer() {
    let folder = Folder::new();
    let state = State::open(folder.file("state").to_str()).unwrap();
    let listener = UnixListener::bind(state.file(socket::NAME)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (caller, _) = listener.accept().unwrap();
            socket::answer(mio::net::UnixStream::from_std(caller), "{\"version\":");
        });
        let done = run(&folder, &["status", "--json"]);
        assert_eq!((done.code, done.out.as_str()), (1, ""));
        assert!(done.err.contains("incomplete"), "{}", done.err);
    });
}
