//! One agent with the default pool under high demand refuses no client.

use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;

use crate::curl::{curl, text};
use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::peers::Peer;
use crate::program::run;
use crate::wire::{Answer, Below};
use crate::world::{World, basic, lines, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("60_requests_in_a_row_are_all_answered", &[Peer::Curl], || answers_all(60, 1)),
    case("60_requests_at_20_abreast_are_all_answered", &[Peer::Curl], || answers_all(60, 20)),
    case("150_clients_at_once_are_all_answered_by_an_agent_100_ms_away", &[Peer::Python], || {
        answers_burst(150, 100);
    }),
    case("60_clients_at_once_are_all_answered_by_an_agent_200_ms_away", &[Peer::Python], || {
        answers_burst(60, 200);
    }),
];

fn answers_all(requests: u32, abreast: usize) {
    let (world, relay, home, agent) = World::with_service(page());
    let next = Mutex::new(0..requests);
    let outputs = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..abreast {
            scope.spawn(|| {
                loop {
                    let Some(n) = next.lock().expect("nobody panics").next() else { break };
                    let target = format!("/{n}");
                    let mut curl = curl(&world, &home, "--digest");
                    let output = run_quietly(curl.arg(format!("{}{target}", relay.url(Below::Tls13))));
                    outputs.lock().expect("nobody panics").push((target, output));
                }
            });
        }
    });
    let outputs = outputs.into_inner().expect("nobody panics");
    let answered = outputs.iter().filter(|(target, output)| *output == page_text("GET", target, b"")).count();
    let others: Vec<_> =
        outputs.iter().filter(|(target, output)| *output != page_text("GET", target, b"")).collect();
    assert_eq!(answered, requests as usize, "the others: {others:?}");
    // One more, after the burst.
    let after = run(curl(&world, &home, "--digest").arg(format!("{}/after", relay.url(Below::Tls13))));
    assert_eq!(text(&after), page_text("GET", "/after", b""));
    drop(agent);
}

/// The program's standard output, or its errors.
fn run_quietly(curl: &mut std::process::Command) -> String {
    let output = curl.output().expect("curl runs");
    let of = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&of).into_owned()
}

/// Many simultaneous clients, and an agent whose path to the relay has this round-trip time, in milliseconds.
fn answers_burst(clients: usize, round_trip: u32) {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let (_line, ticket) = world.far_ticket(&relay, &home, round_trip);
    let agent = start_agent(&ticket, &["--to", &page().to_string()]);
    agent.expect_lines(lines::WAITING, 4);
    let get = format!("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id));
    let start = Barrier::new(clients);
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut wire = relay.open(Below::Clear);
                start.wait();
                let begun = Instant::now();
                wire.send(get.as_bytes());
                let status = Answer::read(&mut wire).status();
                answers.lock().expect("nobody panics").push((begun.elapsed(), status));
            });
        }
    });
    let mut answers = answers.into_inner().expect("nobody panics");
    answers.sort_unstable();
    let refused: Vec<_> = answers.iter().filter(|(_, status)| *status != 200).collect();
    assert!(refused.is_empty(), "{} of {clients} are refused: {refused:?}", refused.len());
    println!("{clients} clients, {round_trip} ms: the slowest took {:?}", answers.last().map(|it| it.0));
}
