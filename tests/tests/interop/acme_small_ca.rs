//! Certificates from a small CA of our own: what Pebble does not do, and kills between any two requests, on real files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::harness::{Case, case};
use crate::pebble::DOMAIN;
use crate::peers::Peer;
use crate::program::{PATIENCE, run};
use crate::small_ca::{Behaviour, Moment, Refusal, RetryAfter, SmallCa};
use crate::wire::Below;
use crate::world::{Relay, World, lines, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("a_certificate_comes_from_a_ca_that_behaves_as_real_ones_do", &[Peer::Curl], a_certificate_comes),
    case("a_pause_that_the_ca_asks_for_holds_across_a_restart", &[], a_pause_holds),
    case("a_relay_that_is_killed_at_a_request_finishes_the_same_order", &[], killed_at_requests),
    case("an_agent_and_its_relay_that_are_killed_finish_the_same_order", &[], agent_and_relay_killed),
    case("a_second_relay_on_one_state_folder_ends_and_says_why", &[], two_relays_on_one_folder),
    case("a_challenge_that_the_ca_refuses_as_posted_before_is_awaited", &[], a_challenge_posted_twice),
    case(
        "a_refused_replacement_is_ordered_without_it_from_a_valid_authorization",
        &[],
        a_refused_replacement,
    ),
    case("a_deactivated_account_is_reported_and_left_alone_for_a_day", &[], a_deactivated_account),
    case("an_agent_gets_its_own_certificate_while_its_relay_has_acme_too", &[], agent_and_relay_with_acme),
    case("files_that_were_cut_are_set_aside_and_made_again", &[], files_that_were_cut),
    case("a_key_that_was_cut_before_the_download_leads_to_another_order", &[], a_pending_key_that_was_cut),
];

const INSTALLED: &str = "event=certificate-installed";
const FAILED: &str = "event=certificate-failed";

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
    assert_eq!(relay.program.lines(FAILED), 0);
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
        first.program.expect_line(FAILED);
        let line = first.program.lines_with(FAILED).concat();
        let pause =
            line.split_once("retry_in=").and_then(|(_, rest)| rest.split('s').next()?.parse::<u64>().ok());
        assert!(pause.is_some_and(|it| (7_100..=7_200).contains(&it)), "{line}");
        let is_whole = line.contains("the small CA says") && line.contains("to the last word");
        assert!(is_whole, "the CA's problem is shown whole: {line}");
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
    // The first one is newOrder: its response is lost, and the CA returns the same order again.
    let some = [(3, Moment::Received), (6, Moment::Answered), (9, Moment::Received)];
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
    assert!(is_all || killed[0] == "POST new-order", "{killed:?}");
}

/// The number of requests of this kind.
fn count(ca: &SmallCa, request: &str) -> usize {
    ca.requests().iter().filter(|it| *it == request).count()
}

fn a_challenge_posted_twice() {
    let ca = SmallCa::start();
    let world = World::new();
    ca.withhold_results(true);
    ca.hold(5, Moment::Answered);
    let mut first = relay(&ca, &world, &[]);
    assert!(ca.await_hold(|| false));
    assert_eq!(ca.requests().last().map(String::as_str), Some("POST challenge"), "{:?}", ca.requests());
    first.program.kill();
    ca.release();
    let again = relay(&ca, &world, &[]);
    again.program.expect_line("reason=\"taken up again\"");
    let until = Instant::now() + PATIENCE;
    while count(&ca, "POST challenge") < 2 {
        assert!(Instant::now() < until, "{:?}", ca.requests());
        thread::sleep(Duration::from_millis(20));
    }
    ca.withhold_results(false);
    again.program.expect_line(INSTALLED);
    assert_eq!((ca.orders(), ca.challenge_posts()), (1, 2), "the second was refused: {:?}", ca.requests());
    assert_eq!((count(&ca, "POST challenge"), again.program.lines(FAILED)), (2, 0));
}

fn a_refused_replacement() {
    let ca = SmallCa::start_with(Behaviour {
        reuses_authorizations: true,
        lifetime: Some(60),
        refuses_replacements: true,
    });
    let world = World::new();
    let relay = relay(&ca, &world, &[]);
    // A renewal comes after a tenth of the lifetime at the earliest.
    relay.program.expect_lines(INSTALLED, 2);
    assert_eq!((ca.orders(), count(&ca, "POST challenge")), (2, 1), "{:?}", ca.requests());
    assert_eq!(count(&ca, "POST new-order"), 3, "one was refused: {:?}", ca.requests());
    assert_eq!(relay.program.lines(FAILED), 0);
}

fn a_deactivated_account() {
    let ca = SmallCa::start();
    let world = World::new();
    let relay = relay(&ca, &world, &[]);
    relay.program.expect_line(INSTALLED);
    ca.deactivate();
    world.enrol("late", &["--label", "late"]);
    relay.program.expect_line(FAILED);
    let line = relay.program.lines_with(FAILED).concat();
    assert!(
        line.contains("step=\"the account\"") && line.contains("the small CA says unauthorized"),
        "{line}"
    );
    let pause =
        line.split_once("retry_in=").and_then(|(_, rest)| rest.split('s').next()?.parse::<u64>().ok());
    assert!(pause.is_some_and(|it| it > 70_000), "{line}");
    let answer = relay.ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.line.starts_with("HTTP/1.1 "), "the relay serves: {}", answer.line);
}

/// The validators' split ClientHellos for the agent's name go through the relay, which answers those for its own.
fn agent_and_relay_with_acme() {
    let ca = SmallCa::start();
    let world = World::new();
    let home = world.enrol("home", &["--label", "home", "--end-to-end"]);
    let name = format!("home.{DOMAIN}");
    let relay = relay(&ca, &world, &["--acme-keep-key"]);
    relay.program.expect_line(INSTALLED);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let state = world.folder.0.join("agent").display().to_string();
    let own = ["--to", "127.0.0.1:9", "--end-to-end", "--name", &name, "--state", &state];
    let of_ca = ca.options();
    let options: Vec<&str> = own.into_iter().chain(of_ca.iter().map(String::as_str)).collect();
    let agent = start_agent(&ticket, &options);
    agent.expect_line(
        "event=acme-port reason=\"the CA's validators use only port 443, and the relay is at https://",
    );
    agent.expect_line(INSTALLED);
    assert_eq!((ca.orders(), ca.accounts()), (2, 2), "{:?}", ca.requests());
    assert_eq!(ca.validations(), [3, 3]);
    assert_eq!(agent.lines("event=acme-port"), 1);
    assert_eq!(relay.program.lines(FAILED) + agent.lines(FAILED), 0);
}

/// Keeps the first half of a file.
fn cut(path: &Path) {
    let bytes = fs::read(path).expect("the file");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("the file can be written");
}

fn files_that_were_cut() {
    let ca = SmallCa::start();
    let world = World::new();
    let mut relay_program = relay(&ca, &world, &[]);
    relay_program.program.expect_line(INSTALLED);
    // The relay stores that the order is over just after it logs it.
    let since = Instant::now();
    while fs::read_to_string(file(&world, "state.json")).is_ok_and(|it| it.contains(r#""order":{"#)) {
        assert!(since.elapsed() < PATIENCE, "the order is not over");
        thread::sleep(Duration::from_millis(20));
    }
    // The certificate is ordered again, and the self-signed one serves until then.
    for (cut_file, installed, accounts) in [(format!("{DOMAIN}.pem"), 1, 1), ("account.pem".to_owned(), 0, 1)]
    {
        relay_program.program.kill();
        let path = file(&world, &cut_file);
        cut(&path);
        relay_program = relay(&ca, &world, &[]);
        relay_program.program.expect_line(&format!("event=acme-file file=\"{}\"", path.display()));
        let line = relay_program.program.lines_with("event=acme-file").concat();
        assert!(line.contains(&format!("outcome=\"it is now {}.bad\"", path.display())), "{line}");
        let missing = relay_program.program.lines("event=certificate-missing");
        assert_eq!(missing, installed, "without its certificate only");
        relay_program.program.expect_exactly(INSTALLED, installed);
        if installed > 0 {
            assert!(line.contains("reason=\"it is cut off in the middle\""), "{line}");
        }
        assert_eq!(ca.accounts(), accounts);
    }
    // The new key of the account is used for the next order.
    world.enrol("late", &["--label", "late"]);
    relay_program.program.expect_line(INSTALLED);
    assert_eq!((ca.accounts(), ca.orders()), (2, 3), "{:?}", ca.requests());
}

fn a_pending_key_that_was_cut() {
    let ca = SmallCa::start();
    let world = World::new();
    let first = relay(&ca, &world, &[]);
    first.program.expect_line(INSTALLED);
    let last = ca.requests().iter().position(|it| it == "POST certificate").expect("a download") + 1;
    let ca = SmallCa::start();
    let world = World::new();
    ca.hold(last, Moment::Received);
    let mut first = relay(&ca, &world, &[]);
    assert!(ca.await_hold(|| false));
    first.program.kill();
    ca.release();
    cut(&file(&world, &format!("{DOMAIN}.key")));
    let mut second = relay(&ca, &world, &[]);
    second.program.expect_line("the key that it was requested with is missing");
    second.program.kill();
    // The changed contact allows one attempt at once.
    let third = relay(&ca, &world, &["--acme-contact", "a@example.com"]);
    third.program.expect_line(INSTALLED);
    assert_eq!((ca.orders(), ca.accounts()), (2, 1), "{:?}", ca.requests());
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
