//! Nothing is refused that should not be: one agent with the default pool under demand.

use std::sync::Mutex;
use std::thread;

use crate::curl::{curl, text};
use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::peers::Peer;
use crate::program::run;
use crate::wire::Below;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[
    case("60_requests_in_a_row_are_all_answered", &[Peer::Curl], || answers_all(60, 1)),
    case("60_requests_at_20_abreast_are_all_answered", &[Peer::Curl], || answers_all(60, 20)),
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
    // And one more, when all is quiet again.
    let after = run(curl(&world, &home, "--digest").arg(format!("{}/after", relay.url(Below::Tls13))));
    assert_eq!(text(&after), page_text("GET", "/after", b""));
    drop(agent);
}

/// What it wrote, or what it complained of.
fn run_quietly(curl: &mut std::process::Command) -> String {
    let output = curl.output().expect("curl runs");
    let of = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&of).into_owned()
}
