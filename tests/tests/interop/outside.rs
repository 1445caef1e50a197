//! `rendezvous check --domain`: how a domain looks from outside.

use std::path::Path;

use crate::harness::{Case, case};
use crate::pebble::{DOMAIN, NEEDED, Pebble, Special, free_port};
use crate::program::run;
use crate::world::{World, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("check_shows_a_domain_with_a_certificate_of_a_ca", NEEDED, a_domain_with_a_certificate),
    case("check_shows_what_keeps_a_ca_from_issuing", NEEDED, what_keeps_a_ca_from_issuing),
    case("check_needs_a_ticket_or_a_domain", &[], what_cannot_be_checked),
];

/// The lines of a check, and whether it passed.
struct Checked {
    passed: bool,
    text: String,
}

impl Checked {
    /// Whether a line has this step, this word, and this text.
    fn has(&self, step: &str, word: &str, text: &str) -> bool {
        self.text.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(step) && words.next() == Some(word) && line.contains(text)
        })
    }

    fn expect(&self, lines: &[(&str, &str, &str)]) {
        for (step, word, text) in lines {
            assert!(self.has(step, word, text), "no {step} {word} '{text}' in:\n{}", self.text);
        }
    }
}

/// `check --domain` with the CA's name server.
fn check(pebble: &Pebble, port: u16, options: &[&str]) -> Checked {
    let mut check = rendezvous();
    check.args(["check", "--domain", DOMAIN, "--acme", "--port", &port.to_string()]);
    check.args(["--resolver", &format!("127.0.0.1:{}", pebble.dns), "--ca"]).arg(pebble.root()).args(options);
    let output = run(&mut check);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Checked { passed: output.status.success(), text }
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

fn a_domain_with_a_certificate() {
    let pebble = Pebble::start(Special::default());
    let world = World::new();
    world.enrol("home", &["--label", "home"]);
    let relay = pebble.relay(&world, &[]);
    relay.program.expect_lines("event=certificate-installed", 2);
    let (state, port) = (world.state(), pebble.validated);
    let checked = check(&pebble, port, &["--label", "home", "--state", shown(&state)]);
    assert!(checked.passed, "{}", checked.text);
    checked.expect(&[
        ("dns", "info", "relay.example.com is 127.0.0.1, and 127.0.0.1 cannot be reached from the Internet"),
        ("caa", "ok", "relay.example.com has no CAA record: any CA may issue"),
        ("port", "info", &format!("port {port}: a CA's validators use only port 443, which is not checked")),
        ("port", "ok", &format!("127.0.0.1:{port} accepts connections")),
        ("validation", "ok", "answers validators of relay.example.com"),
        ("certificate", "ok", "for relay.example.com, issued by 'Pebble Intermediate CA"),
        ("certificate", "ok", "2 certificates up to 'Pebble Root CA"),
        ("expiry", "ok", "days left, until 20"),
        ("stored", "ok", "relay.example.com.pem is served for relay.example.com"),
        ("stored", "ok", "home.relay.example.com.pem is served for home.relay.example.com"),
    ]);
    // A relay without ACME, as a load balancer or another program would be.
    let other = World::new();
    let other = other.relay(&["--domain", DOMAIN]);
    let checked = check(&pebble, other.tls.port(), &["--state", shown(&state)]);
    assert!(!checked.passed, "{}", checked.text);
    checked.expect(&[
        ("dns", "ok", "*.relay.example.com is 127.0.0.1"),
        ("validation", "FAILED", "does not answer a CA's validators (TLS-ALPN-01)"),
        ("certificate", "FAILED", "it is self-signed, so the CA has not issued one yet"),
        ("stored", "FAILED", "but another certificate is served"),
    ]);
    assert!(checked.text.contains(&other.pin), "the foreign certificate is named: {}", checked.text);
}

fn what_keeps_a_ca_from_issuing() {
    let pebble = Pebble::start(Special::default());
    let closed = free_port();
    pebble.set_names(
        "add-caa",
        r#"{"host":"example.com.","policies":[{"tag":"issue","value":"other.example"}]}"#,
    );
    pebble.set_names("add-aaaa", r#"{"host":"relay.example.com.","addresses":["::1"]}"#);
    pebble.set_names("set-servfail", r#"{"host":"broken.relay.example.com"}"#);
    let checked = check(&pebble, closed, &["--label", "broken"]);
    assert!(!checked.passed, "{}", checked.text);
    checked.expect(&[
        ("caa", "FAILED", "the CAA records of example.com allow only 'other.example'"),
        ("port", "FAILED", &format!("[::1]:{closed}: ")),
        ("port", "FAILED", "Remove the AAAA record"),
        ("port", "FAILED", &format!("127.0.0.1:{closed}: connection refused: forward port {closed}")),
        ("dns", "FAILED", "broken.relay.example.com"),
    ]);
    let checked = check(&pebble, closed, &["--issuer", "other.example"]);
    checked.expect(&[("caa", "ok", "allow other.example")]);
}

fn what_cannot_be_checked() {
    for (options, lines) in [
        (&[][..], "--ticket FILE or --domain DOMAIN is missing"),
        (&["--acme"], "--acme needs --domain DOMAIN"),
        (&["--domain", "*.example.com"], "--domain: '*.example.com' is not a host name"),
        (&["--domain", "example.com", "--resolver", "x"], "--resolver: 'x' is not ADDR"),
        (&["--domain", "example.com", "--cert", "/no/such/file"], "/no/such/file"),
    ] {
        let output = run(rendezvous().arg("check").args(options));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(lines), "{options:?}: {text}");
    }
}
