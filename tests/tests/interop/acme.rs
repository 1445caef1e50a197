//! Certificates by ACME from Pebble. Its validators come to the port that its configuration names.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::pebble::{DOMAIN, MAC_KEY, NEEDED, Pebble, Special};
use crate::peers::Peer;
use crate::program::{PATIENCE, Program, run};
use crate::wire::Below;
use crate::world::{World, lines, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("a_relay_gets_certificates_for_its_domain_and_its_labels", NEEDED, a_relay_gets_certificates),
    case("half_of_the_nonces_refused_is_no_failure", NEEDED, half_of_the_nonces_refused),
    case("a_relay_that_is_killed_takes_its_order_up_again", NEEDED, a_relay_that_is_killed),
    case("a_relay_that_is_killed_at_a_request_to_pebble_gets_its_certificate", NEEDED, killed_at_requests),
    case("an_external_account_is_bound", NEEDED, an_external_account_is_bound),
    case("validators_that_take_their_time_are_awaited", NEEDED, validators_that_take_their_time),
    case("a_name_that_does_not_resolve_is_reported", NEEDED, a_name_that_does_not_resolve),
    case("a_ca_that_has_forgotten_the_account_gets_another", NEEDED, a_forgotten_account),
    case("the_key_of_an_account_is_replaced", NEEDED, the_key_of_an_account),
    case(
        "a_validation_that_fails_harms_no_connection_and_is_not_repeated_at_once",
        NEEDED,
        a_validation_that_fails,
    ),
    case("a_certificate_is_renewed_and_keeps_its_key_if_asked", NEEDED, a_certificate_is_renewed),
    case("a_relay_gets_a_certificate_by_http_and_redirects_other_requests", NEEDED, by_http),
    case("an_agent_gets_its_own_certificate_through_the_relay", NEEDED, an_agent_gets_its_own),
    case("what_cannot_work_is_refused_at_the_start", &[], what_cannot_work),
    case("id_add_prints_the_agents_line_with_acme_for_an_end_to_end_label", &[], the_agents_line),
];

const INSTALLED: &str = "event=certificate-installed";
const FAILED: &str = "event=certificate-failed";
const ORDERED: &str = "event=certificate-order";

fn installed(program: &Program, name: &str) {
    program.expect_line(&format!("{INSTALLED} name=\"{name}\" "));
}

fn status(world: &World) -> String {
    let output = run(rendezvous().args(["status", "--json", "--state"]).arg(world.state()));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn a_relay_gets_certificates() {
    let pebble = Pebble::start(Special::default());
    let world = World::new();
    let home = world.enrol("home", &["--label", "home"]);
    world.enrol("sealed", &["--label", "sealed", "--end-to-end"]);
    let relay = pebble.relay(&world, &[]);
    relay.program.expect_line("event=certificate-missing name=\"relay.example.com\"");
    relay.program.expect_line("event=acme-port");
    relay.program.expect_line("event=acme-pins count=2");
    installed(&relay.program, DOMAIN);
    installed(&relay.program, "home.relay.example.com");
    assert!(pebble.open(&relay, DOMAIN).is_ok());
    // Answered by the hidden server.
    let service = page();
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &service.to_string()]);
    assert!(pebble.open(&relay, "home.relay.example.com").is_ok());
    assert!(
        pebble.open(&relay, "other.relay.example.com").is_err(),
        "no certificate for whatever is asked for"
    );
    // One that is enrolled while the relay runs.
    world.enrol("late", &["--label", "late"]);
    installed(&relay.program, "late.relay.example.com");
    assert!(pebble.open(&relay, "late.relay.example.com").is_ok());
    let text = status(&world);
    assert!(text.contains(r#""name":"late.relay.example.com","state":"valid""#), "{text}");
    assert!(!text.contains("sealed.relay.example.com"), "{text}");
    // A new ticket does not pin a key that changes.
    let ticket = fs::read_to_string(world.folder.0.join("late.made")).expect("the ticket");
    assert!(ticket.contains("ca system") && !ticket.contains("pin "), "{ticket}");
    // At the next start everything is there.
    let mut relay = relay;
    relay.program.kill();
    let again = pebble.relay(&world, &[]);
    assert!(pebble.open(&again, "late.relay.example.com").is_ok());
    assert_eq!(pebble.orders(), 3, "nothing is ordered twice");
    assert_eq!(again.program.lines(INSTALLED), 0);
    assert_eq!(again.program.lines("event=acme-pins"), 0, "there is a certificate of the CA");
}

fn half_of_the_nonces_refused() {
    let pebble = Pebble::start(Special { nonces_refused: 50, ..Special::default() });
    let world = World::new();
    let relay = pebble.relay(&world, &[]);
    installed(&relay.program, DOMAIN);
    assert_eq!(pebble.orders(), 1);
    assert_eq!(relay.program.lines("event=certificate-failed"), 0);
}

fn a_relay_that_is_killed() {
    let pebble = Pebble::start(Special::default());
    let world = World::new();
    let mut relay = pebble.relay(&world, &[]);
    pebble.program.expect_line("set VALID by completed challenge");
    relay.program.kill();
    let mut relay = pebble.relay(&world, &[]);
    relay.program.expect_line("reason=\"taken up again\"");
    pebble.program.expect_line("Issued certificate serial");
    relay.program.kill();
    let second = relay;
    let relay = pebble.relay(&world, &[]);
    // On a busy machine the second one may have installed it before it was killed.
    let since = Instant::now();
    while second.program.lines(INSTALLED) + relay.program.lines(INSTALLED) == 0 {
        assert!(since.elapsed() < PATIENCE, "no certificate");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(pebble.open(&relay, DOMAIN).is_ok());
    assert_eq!(pebble.orders(), 1, "one order was taken up again and again");
    assert_eq!(pebble.program.lines("accounts in memory"), 1);
}

/// Two requests; all of them with RENDEZVOUS_KILLS=all, which takes minutes.
fn killed_at_requests() {
    let is_all = env::var("RENDEZVOUS_KILLS").is_ok_and(|it| it == "all");
    let numbers = if is_all { 1..40 } else { 7..9 };
    let count = numbers.take_while(|number| killed_at(*number)).count();
    assert!(count >= if is_all { 10 } else { 2 }, "{count} requests");
}

/// Kills the relay when Pebble receives the request with this number. Returns whether there is such a request.
fn killed_at(number: usize) -> bool {
    const REQUEST: &str = "-> calling handler()";
    let pebble = Pebble::start(Special::default());
    let world = World::new();
    let mut first = pebble.relay(&world, &[]);
    let until = Instant::now() + PATIENCE;
    while pebble.program.lines(REQUEST) < number {
        assert!(Instant::now() < until, "at request {number}");
        if first.program.lines(INSTALLED) > 0 {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    first.program.kill();
    // A changed contact allows one attempt at once, so that the test does not wait for the pause.
    let mut again = pebble.relay(&world, &["--acme-contact", "a@example.com"]);
    let until = Instant::now() + PATIENCE;
    while first.program.lines(INSTALLED) + again.program.lines(INSTALLED) == 0 {
        assert!(Instant::now() < until, "killed at request {number}");
        if again.program.lines(FAILED) > 0 {
            // Pebble's validators came while no relay was running.
            again.program.kill();
            again = pebble.relay(&world, &["--acme-contact", "b@example.com"]);
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(pebble.open(&again, DOMAIN).is_ok(), "killed at request {number}");
    // Pebble makes a second order if the response to the first one is lost, or if its validation failed.
    assert!((1..=2).contains(&pebble.orders()), "killed at request {number}: {} orders", pebble.orders());
    assert_eq!(pebble.program.lines("accounts in memory"), 1, "killed at request {number}");
    true
}

/// Up to two seconds; with RENDEZVOUS_SLOW=all until an order was pending for a minute.
fn validators_that_take_their_time() {
    let is_slow = env::var("RENDEZVOUS_SLOW").is_ok_and(|it| it == "all");
    let (delay, least) = if is_slow { (120, Duration::from_secs(60)) } else { (2, Duration::ZERO) };
    loop {
        let pebble = Pebble::start(Special { delay: Some(delay), ..Special::default() });
        let world = World::new();
        let relay = pebble.relay(&world, &[]);
        pebble.program.expect_line("Added order");
        let since = Instant::now();
        let patience = PATIENCE + Duration::from_secs(u64::from(delay));
        while relay.program.lines(INSTALLED) == 0 {
            assert!(since.elapsed() < patience, "no certificate after {delay} s");
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!((pebble.orders(), relay.program.lines(FAILED)), (1, 0));
        eprintln!("the order was pending for {} s", since.elapsed().as_secs());
        if since.elapsed() >= least {
            break;
        }
    }
}

fn a_name_that_does_not_resolve() {
    let pebble = Pebble::start(Special::default());
    let host = format!(r#"{{"host":"{DOMAIN}"}}"#);
    pebble.set_names("set-servfail", &host);
    let world = World::new();
    let mut relay = pebble.relay(&world, &[]);
    relay.program.expect_line(FAILED);
    let line = relay.program.lines_with(FAILED).concat();
    assert!(line.contains("Could not resolve"), "the CA's problem is shown: {line}");
    pebble.set_names("clear-servfail", &host);
    relay.program.kill();
    // The changed contact allows one attempt at once.
    let relay = pebble.relay(&world, &["--acme-contact", "a@example.com"]);
    installed(&relay.program, DOMAIN);
}

fn a_forgotten_account() {
    let mut pebble = Pebble::start(Special::default());
    let world = World::new();
    let relay = pebble.relay(&world, &[]);
    installed(&relay.program, DOMAIN);
    let old_root = fs::read(pebble.root()).expect("a root");
    pebble.restart();
    world.enrol("late", &["--label", "late"]);
    relay.program.expect_line("accountDoesNotExist");
    installed(&relay.program, "late.relay.example.com");
    assert_eq!((pebble.orders(), pebble.program.lines("accounts in memory")), (1, 1));
    assert!(pebble.open(&relay, "late.relay.example.com").is_ok());
    assert_ne!(fs::read(pebble.root()).expect("a root"), old_root, "it is another Pebble");
    assert_eq!(relay.program.lines(INSTALLED), 2, "the other certificate stays");
}

fn the_key_of_an_account() {
    let pebble = Pebble::start(Special::default());
    let world = World::new();
    let mut relay = pebble.relay(&world, &[]);
    installed(&relay.program, DOMAIN);
    relay.program.kill();
    let mut folders = fs::read_dir(world.state().join("acme")).expect("a folder");
    let folder = folders.next().expect("a CA's folder").expect("readable").path();
    let [key, next] = ["account.pem", "account-next.pem"].map(|name| folder.join(name));
    assert!(run(rendezvous().arg("key").arg(&next)).status.success(), "a new key");
    let (old, new) = (fs::read(&key).expect("a key"), fs::read(&next).expect("a key"));
    let relay = pebble.relay(&world, &[]);
    relay.program.expect_line("event=acme-account-key-replaced");
    assert!(old != new && !next.exists());
    // The account is the same, with the new key.
    world.enrol("late", &["--label", "late"]);
    installed(&relay.program, "late.relay.example.com");
    assert_eq!(pebble.program.lines("accounts in memory"), 1);
    let of = |pem: &[u8]| String::from_utf8_lossy(pem).lines().map(str::trim).collect::<String>();
    assert_eq!(of(&fs::read(&key).expect("a key")), of(&new));
}

fn an_external_account_is_bound() {
    let pebble = Pebble::start(Special { external_account: true, ..Special::default() });
    let key = pebble.write("mac", &format!("{MAC_KEY}\n"));
    let world = World::new();
    let mut without = pebble.relay(&world, &[]);
    without.program.expect_line("the CA binds accounts to external accounts (EAB)");
    assert_eq!(pebble.orders(), 0);
    without.program.kill();
    let key = key.to_str().expect("a path of ours");
    let relay = pebble.relay(&world, &["--acme-eab-kid", "kid-1", "--acme-eab-key-file", key]);
    installed(&relay.program, DOMAIN);
}

fn a_validation_that_fails() {
    let pebble = Pebble::start(Special { validates_nowhere: true, ..Special::default() });
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut relay = pebble.relay(&world, &[]);
    let service = page();
    let agent = world.agent(&relay, &home, Below::Tls13, &["--to", &service.to_string()]);
    relay.program.expect_line("event=certificate-failed name=\"relay.example.com\"");
    let line = relay.program.lines_with("event=certificate-failed").concat();
    assert!(
        line.contains("unauthorized: Failed to connect to 127.0.0.1:"),
        "the CA's problem is shown: {line}"
    );
    assert!(line.contains("hint=\"the CA's validators connect to port 443 and no other: "), "{line}");
    assert!(line.contains("; rendezvous check --domain relay.example.com --acme\""), "{line}");
    assert_eq!(agent.lines(lines::RELAY_LOST), 0);
    assert_eq!(relay.program.lines(lines::WAITING_ENDED), 0);
    let text = status(&world);
    assert!(text.contains(r#""name":"relay.example.com","state":"failing""#), "{text}");
    let orders = pebble.orders();
    // A restart does not repeat it. If the failure was not on the disk yet, the same order is taken up again.
    relay.program.kill();
    let _again = pebble.relay(&world, &[]);
    let since = Instant::now();
    while !status(&world).contains(r#""state":"failing""#) {
        assert!(since.elapsed() < PATIENCE, "{}", status(&world));
    }
    assert_eq!(pebble.orders(), orders);
}

fn a_certificate_is_renewed() {
    let pebble = Pebble::start(Special { validity: Some(24), ..Special::default() });
    let world = World::new();
    let relay = pebble.relay(&world, &["--acme-keep-key"]);
    relay.program.expect_lines(INSTALLED, 2);
    // The pin of the self-signed certificate is that of the CA's, too.
    let pinned =
        run(Peer::Curl.command().args(["-sS", "-k", "--pinnedpubkey", &relay.pin, &relay.url(Below::Tls13)]));
    assert!(pinned.status.success(), "the key is kept");
    assert!(pebble.open(&relay, DOMAIN).is_ok());
    assert!(status(&world).contains(&relay.pin));
}

fn by_http() {
    let pebble = Pebble::start(Special { validates_nowhere: true, ..Special::default() });
    let world = World::new();
    let http = format!("127.0.0.1:{}", pebble.http);
    // The order is taken up again, and its challenge is answered again.
    let mut relay = pebble.relay(&world, &["--acme-http", &http]);
    pebble.program.expect_line("set VALID by completed challenge");
    relay.program.kill();
    let relay = pebble.relay(&world, &["--acme-http", &http]);
    installed(&relay.program, DOMAIN);
    assert!(pebble.open(&relay, DOMAIN).is_ok());
    assert_eq!((pebble.orders(), relay.program.lines("event=certificate-failed")), (1, 0));
    // Strangers: silent ones, one without a host, one that sends a byte at a time.
    let open = || TcpStream::connect(http.as_str()).expect("it listens");
    let silent: Vec<TcpStream> = (0..300).map(|_| open()).collect();
    let ask = |request: &[u8]| {
        let mut stream = open();
        for byte in request.chunks(1) {
            stream.write_all(byte).expect("it reads");
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a response and an end");
        answer
    };
    let answer = ask(b"GET /a?b HTTP/1.1\r\nHost: relay.example.com:80\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(answer.contains("\r\nLocation: https://relay.example.com/a?b\r\n"), "{answer}");
    let answer = ask(b"GET / HTTP/1.1\r\nHost: <evil>\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("evil"), "{answer}");
    drop(silent);
    assert!(pebble.open(&relay, DOMAIN).is_ok());
}

fn an_agent_gets_its_own() {
    let pebble = Pebble::start(Special::default());
    let world = World::new();
    let home = world.enrol("home", &["--label", "home", "--end-to-end"]);
    let relay = pebble.relay(&world, &[]);
    let service = page();
    let name = "home.relay.example.com";
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    // The ticket has the pin of the self-signed certificate, which the relay shows to who names no domain.
    let state = world.folder.0.join("agent");
    let options = pebble.options();
    let address = service.to_string();
    let own = [
        "--to",
        &address,
        "--end-to-end",
        "--name",
        name,
        "--state",
        state.to_str().expect("a path of ours"),
    ];
    let options: Vec<&str> = own.into_iter().chain(options.iter().map(String::as_str)).collect();
    let mut agent = start_agent(&ticket, &options);
    agent.expect_line(lines::WAITING);
    installed(&agent, name);
    assert!(pebble.open(&relay, name).is_ok());
    installed(&relay.program, DOMAIN);
    assert_eq!(relay.program.lines(&format!("{ORDERED} name=\"{name}\"")), 0, "the relay has no key for it");
    let orders = pebble.orders();
    agent.kill();
    let again = start_agent(&ticket, &options);
    again.expect_line(lines::WAITING);
    assert!(pebble.open(&relay, name).is_ok());
    assert_eq!(pebble.orders(), orders);
}

fn what_cannot_work() {
    let world = World::new();
    for (options, lines) in [
        (&["--acme"][..], "--acme needs --acme-agree-tos"),
        (&["--acme", "--acme-agree-tos"], "--acme needs --domain"),
        (
            &["--acme", "--acme-agree-tos", "--domain", "localhost"],
            "no CA issues certificates for --domain localhost",
        ),
        (&["--acme-agree-tos"], "--acme-agree-tos needs --acme"),
        (&["--acme-http", "127.0.0.1:0"], "--acme-http needs --acme"),
        (
            &["--acme", "--acme-agree-tos", "--acme-directory", "http://x/"],
            "--acme-directory: 'http://x/' is not an https://",
        ),
        (&["--acme", "--acme-agree-tos", "--acme-eab-kid", "x"], "need each other"),
    ] {
        let output = run(&mut world.serve(["127.0.0.1:0", "127.0.0.1:0"], options));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {text}");
        assert!(text.contains(lines), "{options:?}: {text}");
    }
}

fn the_agents_line() {
    let world = World::new();
    let add = |name: &str, relay: &str, options: &[&str]| {
        let out = world.folder.0.join(format!("{name}.ticket"));
        let mut add = rendezvous();
        add.args(["id", "add", name, "--relay", relay, "--state"]).arg(world.state()).arg("--out").arg(out);
        let output = run(add.args(options));
        assert!(output.status.success(), "id add {name}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let end_to_end = ["--label", "sealed", "--end-to-end"];
    let text = add("sealed", "https://relay.example.com", &end_to_end);
    let line = "--to 127.0.0.1:8080 --end-to-end --name sealed.relay.example.com --acme --acme-agree-tos\n";
    assert!(text.contains(line), "{text}");
    for (name, relay, options) in [
        ("plain", "https://relay.example.com", &["--label", "plain"][..]),
        ("local", "https://localhost:8443", &["--label", "local", "--end-to-end"]),
        ("address", "https://192.0.2.1", &["--label", "address", "--end-to-end"]),
        ("none", "https://relay.example.com", &["--end-to-end"]),
    ] {
        let text = add(name, relay, options);
        assert!(!text.contains("--acme"), "{name}: {text}");
    }
}
