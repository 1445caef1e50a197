//! A hidden server made of common programs: openssl and oathtool.

use std::io::{Read, Write as _};

use crate::curl::{curl, text};
use crate::harness::{Case, case};
use crate::hidden::read_head;
use crate::peers::Peer;
use crate::program::{Program, run};
use crate::wire::Below;
use crate::world::{Enrolled, World, lines};

pub(crate) const CASES: &[Case] = &[
    case("openssl_s_client_is_a_hidden_server", NEEDS, || s_client("-tls1_3")),
    case("openssl_s_client_is_a_hidden_server_on_tls_1_2", NEEDS, || s_client("-tls1_2")),
    case("oathtool_and_token_agree", &[Peer::Oathtool], oathtool_and_token_agree),
    case("openssl_verifies_the_relay_by_its_own_certificate", &[Peer::Openssl], openssl_verifies_the_relay),
];

const NEEDS: &[Peer] = &[Peer::Openssl, Peer::Oathtool, Peer::Curl];

/// The output of oathtool for an ID that is enrolled with the defaults.
fn oathtool(of: &Enrolled) -> String {
    let mut oathtool = Peer::Oathtool.command();
    // The secret goes over stdin, not into the arguments.
    oathtool.args(["--totp=sha256", "--digits=8", "--base32", "-"]);
    text(&crate::program::run_with(&mut oathtool, of.secret.as_bytes())).trim().to_owned()
}

fn s_client(version: &str) {
    let world = World::new();
    let home = world.enrol("home", &["--tokens", "any"]);
    let relay = world.relay(&[]);
    let mut openssl = Peer::Openssl.command();
    openssl.args([
        "s_client",
        "-quiet",
        version,
        "-verify_return_error",
        "-servername",
        "localhost",
        "-CAfile",
    ]);
    openssl.arg(world.certificate()).args(["-connect", &relay.tls.to_string()]);
    let (hidden, mut to, mut from) = Program::start_piped("s_client", &mut openssl);
    to.write_all(
        format!("CONNECT uuid:{}?response={} HTTP/1.1\r\n\r\n", home.id, oathtool(&home)).as_bytes(),
    )
    .expect("s_client reads");
    assert_eq!(String::from_utf8_lossy(&read_head(&mut from)), "HTTP/1.1 200 OK\r\n\r\n");
    relay.program.expect_line(lines::WAITING);

    let client = std::thread::spawn({
        let mut curl = curl(&world, &home, "--digest");
        curl.arg(format!("{}/by-hand", relay.url(Below::Tls13)));
        move || curl.output().expect("curl runs")
    });
    let head = String::from_utf8(read_head(&mut from)).expect("a head of ASCII");
    assert!(head.starts_with("GET /by-hand HTTP/1.1\r\n") && !head.contains("uthorization"), "{head}");
    to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nby hand\n")
        .expect("s_client reads");
    assert_eq!(text(&client.join().expect("curl runs")), "by hand\n");
    // curl's EOF is forwarded to s_client, which then ends.
    from.read_to_end(&mut Vec::new()).expect("s_client ends");
    drop(hidden);
}

fn oathtool_and_token_agree() {
    let world = World::new();
    let home = world.enrol("home", &["--tokens", "any"]);
    let relay = world.relay(&[]);
    // A time step may end between the two calls: then the second attempt agrees.
    let agree = || world.plain_token(&relay, &home) == oathtool(&home);
    assert!(agree() || agree());
}

fn openssl_verifies_the_relay() {
    let world = World::new();
    let relay = world.relay(&[]);
    for name in [["-verify_hostname", "localhost"], ["-verify_ip", "127.0.0.1"]] {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut openssl = Peer::Openssl.command();
            openssl.args(["s_client", "-brief", "-verify_return_error", version]).args(name);
            openssl.arg("-CAfile").arg(world.certificate()).args(["-connect", &relay.tls.to_string()]);
            let output = run(&mut openssl);
            assert!(
                String::from_utf8_lossy(&output.stderr).contains("Verification: OK"),
                "{name:?} {version}"
            );
        }
    }
}
