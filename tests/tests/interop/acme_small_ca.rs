//! Certificates from a small CA of our own: what Pebble does not do, and kills between any two requests, on real files.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::harness::{Case, case};
use crate::pebble::DOMAIN;
use crate::peers::Peer;
use crate::program::{PATIENCE, run};
use crate::small_ca::{Moment, Refusal, RetryAfter, SmallCa};
use crate::wire::Below;
use crate::world::{Relay, World, lines, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("a_certificate_comes_from_a_ca_that_behaves_as_real_ones_do", &[Peer::Curl], a_certificate_comes),
    case("a_pause_that_the_ca_asks_for_holds_across_a_restart", &[], a_pause_holds),
    case("a_relay_that_is_killed_at_a_request_finishes_the_same_order", &[], killed_at_requests),
    case("an_agent_and_its_relay_that_are_killed_finish_the_same_order", &[], agent_and_relay_killed),
    case("a_second_relay_on_one_state_folder_ends_and_says_why", &[], two_relays_on_one_folder),
];

const INSTALLED: &str = "event=certificate-installed";

/// `rendezvous serve --acme` where the CA's validators come.
fn relay(ca: &SmallCa, world: &World, more: &[&str]) -> Relay {
    let options = ca.options();
    let options: Vec<&str> = ["--domain", DOMAIN]
        .into_iter()
        .chain(options.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    world.relay_at([&format!("127.0.0.1:{}", ca.validated()), "127.0.0.1:0"], &options)
}

/// A file of the relay's client.
fn file(world: &World, name: &str) -> PathBuf {
    let mut folders = fs::read_dir(world.state().join("acme")).expect("a folder");
    folders.next().expect("a CA's folder").expect("readable").path().join(name)
}

fn status(world: &World) -> String {
    let output = run(rendezvous().args(["status", "--json", "--state"]).arg(world.state()));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn a_certificate_comes() {
    let ca = SmallCa::start();
    let world = World::new();
    let relay = relay(&ca, &world, &[]);
    relay.program.expect_line(INSTALLED);
    assert_eq!((ca.orders(), ca.accounts(), ca.challenge_posts()), (1, 1, 1));
    assert_eq!(ca.validations(), [3], "three validators at once, with split ClientHellos");
    assert_eq!(relay.program.lines("event=certificate-failed"), 0);
    // The whole chain is served: both intermediates.
    let stored = fs::read_to_string(file(&world, &format!("{DOMAIN}.pem"))).expect("a certificate");
    assert_eq!(stored.matches("BEGIN CERTIFICATE").count(), 3);
    // A client that knows only the root verifies it.
    let port = relay.tls.port();
    let mut curl = Peer::Curl.command();
    curl.args(["-sS", "--cacert"]).arg(ca.root());
    curl.args(["--resolve", &format!("{DOMAIN}:{port}:127.0.0.1"), &format!("https://{DOMAIN}:{port}/")]);
    let output = run(&mut curl);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn a_pause_holds() {
    for (code, retry_after) in [(503, RetryAfter::Date(7_200)), (429, RetryAfter::Seconds(7_200))] {
        let ca = SmallCa::start();
        ca.refuse(Some(Refusal { kind: "new-order", status: code, retry_after }));
        let world = World::new();
        let mut first = relay(&ca, &world, &[]);
        first.program.expect_line("event=certificate-failed");
        let line = first.program.lines_with("event=certificate-failed").concat();
        let pause =
            line.split_once("retry_in=").and_then(|(_, rest)| rest.split('s').next()?.parse::<u64>().ok());
        assert!(pause.is_some_and(|it| (7_100..=7_200).contains(&it)), "{line}");
        assert!(line.contains("the small CA says"), "the CA's problem is shown: {line}");
        // What is logged is on disk.
        first.program.kill();
        let requests = ca.requests().len();
        ca.refuse(None);
        let again = relay(&ca, &world, &[]);
        // The relay has planned before it is ready, and has nothing to do.
        let text = status(&world);
        assert!(text.contains("the small CA says"), "{text}");
        assert_eq!(ca.requests().len(), requests, "{:?}", ca.requests());
        drop(again);
    }
}

/// Kills the relay at the request with this number. Returns the request, or `None` if there is none.
fn killed_at(number: usize, moment: Moment) -> Option<String> {
    let ca = SmallCa::start();
    let world = World::new();
    ca.hold(number, moment);
    let mut first = relay(&ca, &world, &[]);
    if !ca.await_hold(|| first.program.lines(INSTALLED) > 0 && ca.requests().len() < number) {
        return None;
    }
    first.program.kill();
    ca.release();
    let request = ca.requests().get(number - 1).cloned().unwrap_or_default();
    let way = format!("killed at request {number}, {request}, {moment:?}");
    // The changed contact allows one attempt at once, so that the test does not wait for the pause.
    let again = relay(&ca, &world, &["--acme-contact", "a@example.com"]);
    // At the last request the first relay may have installed it before it was killed.
    let installed = || first.program.lines(INSTALLED) + again.program.lines(INSTALLED);
    let valid = format!(r#""name":"{DOMAIN}","state":"valid""#);
    let until = Instant::now() + PATIENCE;
    while installed() == 0 || !status(&world).contains(&valid) {
        assert!(Instant::now() < until, "{way}: {:?}", ca.requests());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((ca.orders(), ca.accounts()), (1, 1), "{way}: {:?}", ca.requests());
    assert!(ca.challenge_posts() <= 2, "{way}: {:?}", ca.requests());
    assert_eq!(ca.validations(), [3], "{way}");
    Some(request)
}

/// A few requests; all of them with RENDEZVOUS_KILLS=all, which takes minutes.
fn killed_at_requests() {
    let is_all = env::var("RENDEZVOUS_KILLS").is_ok_and(|it| it == "all");
    let some = [(4, Moment::Answered), (6, Moment::Answered), (9, Moment::Received)];
    let all = (1..40).flat_map(|number| [(number, Moment::Received), (number, Moment::Answered)]);
    let chosen: Vec<_> = if is_all { all.collect() } else { some.to_vec() };
    let mut killed = Vec::new();
    for (number, moment) in chosen {
        match killed_at(number, moment) {
            Some(request) => killed.push(request),
            None => break,
        }
    }
    let last = killed.last().map(String::as_str);
    assert!(!is_all || killed.len() >= 20 && last == Some("POST certificate"), "{killed:?}");
    assert!(killed.len() >= 3, "{killed:?}");
}

fn two_relays_on_one_folder() {
    let ca = SmallCa::start();
    let world = World::new();
    let first = relay(&ca, &world, &[]);
    first.program.expect_line(INSTALLED);
    let orders = ca.orders();
    let options = ca.options();
    let mut second = world.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--domain", DOMAIN]);
    let output = run(second.args(&options));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(&world.state().display().to_string()), "the folder is named: {text}");
    assert_eq!(ca.orders(), orders);
}

/// The relay has no certificate of the CA. The validators' split ClientHellos reach the agent through it.
fn agent_and_relay_killed() {
    let ca = SmallCa::start();
    let world = World::new();
    let home = world.enrol("home", &["--label", "home", "--end-to-end"]);
    let name = format!("home.{DOMAIN}");
    let at = [format!("127.0.0.1:{}", ca.validated()), "127.0.0.1:0".to_owned()];
    let serve = || world.relay_at([&at[0], &at[1]], &["--domain", DOMAIN]);
    let mut relay = serve();
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let state = world.folder.0.join("agent").display().to_string();
    let own = ["--to", "127.0.0.1:9", "--end-to-end", "--name", &name, "--state", &state];
    let of_ca = ca.options();
    let options: Vec<&str> = own.into_iter().chain(of_ca.iter().map(String::as_str)).collect();
    // The POST of the challenge: the validators come when it is released.
    ca.hold(5, Moment::Answered);
    let mut agent = start_agent(&ticket, &options);
    assert!(ca.await_hold(|| false));
    assert_eq!(ca.requests().last().map(String::as_str), Some("POST challenge"), "{:?}", ca.requests());
    agent.kill();
    relay.program.kill();
    let _relay = serve();
    let agent = start_agent(&ticket, &options);
    agent.expect_line("reason=\"taken up again\"");
    agent.expect_line(lines::WAITING);
    ca.release();
    agent.expect_line(INSTALLED);
    assert_eq!((ca.orders(), ca.accounts()), (1, 1), "{:?}", ca.requests());
    assert_eq!(ca.validations(), [3]);
}
