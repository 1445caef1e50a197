//! `rendezvous dtcp`: our two ends with each other, and each of them with an independent implementation of the XEP,
//! over a real XMPP server.

pub(crate) mod ends;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::harness::{Case, case};
use crate::hidden::noise;
use crate::peers::Peer;
use crate::program::run;
use crate::world::{Folder, rendezvous};
use crate::xmpp_server::XmppServer;

use ends::{
    ACCEPTER, ACCOUNT, COMPONENT, ESTABLISHED, End, HIDDEN, LOST, MUCH, OPENER, REACHABLE, UP, accept,
    accept_from, exchange, open, open_to, peer, server,
};

const SERVER: &[Peer] = &[Peer::Prosody];
const BOTH: &[Peer] = &[Peer::Prosody, Peer::Slixmpp];
const WITH_TLS: &[Peer] = &[Peer::Prosody, Peer::Slixmpp, Peer::Openssl];

pub(crate) const CASES: &[Case] = &[
    case("ours_connect_if_either_can_be_reached", SERVER, ours_connect_if_either_can_be_reached),
    case("ours_agree_on_tls", SERVER, ours_agree_on_tls),
    case("a_peer_opens_to_ours", BOTH, a_peer_opens_to_ours),
    case("ours_opens_to_a_peer", BOTH, ours_opens_to_a_peer),
    case("ours_and_a_peer_speak_tls", WITH_TLS, ours_and_a_peer_speak_tls),
    case(
        "a_requestor_that_gets_its_key_too_early_answers_later",
        BOTH,
        a_requestor_that_gets_its_key_too_early,
    ),
    case("wrong_lines_are_tolerated", BOTH, wrong_lines_are_tolerated),
    case("every_key_that_fits_a_line_is_accepted", BOTH, every_key_is_accepted),
    case("ours_give_up_if_neither_can_be_reached", SERVER, ours_give_up_if_neither_can_be_reached),
    case("tls_off_against_require_is_named", SERVER, tls_off_against_require_is_named),
    case("a_give_up_counts_with_an_id_and_without", BOTH, a_give_up_counts_with_an_id_and_without),
    case("a_peer_is_sent_our_give_up", BOTH, a_peer_is_sent_our_give_up),
    case("an_offer_without_hosts_is_refused_with_503", BOTH, an_offer_without_hosts),
    case("a_peer_without_dtcp_answers_501", BOTH, a_peer_without_dtcp),
    case("an_absent_peer_is_reported_in_one_line", SERVER, an_absent_peer),
    case("a_peer_that_is_not_allowed_is_refused_with_403", SERVER, a_peer_that_is_not_allowed),
    case("established_streams_outlive_the_server", SERVER, established_streams_outlive_the_server),
    case("a_server_that_refuses_us_is_reported_in_one_line", SERVER, a_server_that_refuses_us),
    case("the_accepting_end_waits_for_the_server", SERVER, the_accepting_end_waits_for_the_server),
    case("sigterm_gives_up", SERVER, sigterm_gives_up),
    case("wrong_arguments_are_reported_in_one_line", &[], wrong_arguments),
];

fn ours_connect_if_either_can_be_reached() {
    let server = server();
    for [opener, accepter] in
        [[REACHABLE, HIDDEN], [HIDDEN, REACHABLE], [REACHABLE, REACHABLE], [LOST, REACHABLE]]
    {
        let accepter = accept(&server, accepter);
        let opener = open(&server, ACCEPTER, opener);
        for end in [&opener, &accepter] {
            end.program.expect_line(ESTABLISHED);
            end.program.expect_line("tls=yes");
        }
        exchange(opener, accepter, MUCH);
    }
}

fn ours_agree_on_tls() {
    let server = server();
    let tls = |tls| [REACHABLE, &["--tls", tls]].concat();
    for (opener, accepter, secure) in [
        ("off", "off", "no"),
        ("off", "prefer", "no"),
        ("prefer", "off", "no"),
        ("prefer", "require", "yes"),
        ("require", "prefer", "yes"),
        ("require", "require", "yes"),
    ] {
        let accepter = accept(&server, &tls(accepter));
        let opener = open(&server, ACCEPTER, &tls(opener));
        for end in [&opener, &accepter] {
            end.program.expect_line(&format!("{ESTABLISHED} "));
            end.program.expect_line(&format!("tls={secure}"));
        }
        exchange(opener, accepter, 100_000);
    }
    let accepter = accept(&server, &[HIDDEN, &["--tls", "require"]].concat());
    open(&server, ACCEPTER, &tls("off")).fails("503");
    accepter.program.expect_line("event=dtcp-failed");
}

fn a_peer_opens_to_ours() {
    let server = server();
    for [theirs, ours] in [[REACHABLE, HIDDEN], [HIDDEN, REACHABLE], [REACHABLE, REACHABLE]] {
        for jid in [ACCOUNT, COMPONENT] {
            let accepter = accept(&server, ours);
            let opener = peer(&server, "open", jid, &[theirs, &["--to", ACCEPTER]].concat());
            opener.program.expect_line("established tls=no");
            accepter.program.expect_line(ESTABLISHED);
            exchange(opener, accepter, MUCH);
        }
    }
}

fn ours_opens_to_a_peer() {
    let server = server();
    for [theirs, ours] in [[REACHABLE, HIDDEN], [HIDDEN, REACHABLE], [REACHABLE, REACHABLE]] {
        let accepter = peer(&server, "accept", ACCOUNT, theirs);
        let opener = open(&server, ACCOUNT, ours);
        accepter.program.expect_line("established tls=no");
        opener.program.expect_line(ESTABLISHED);
        exchange(opener, accepter, MUCH);
    }
}

/// A certificate and its key, in one file.
fn certificate(server: &XmppServer) -> String {
    let file = server.file("peer.pem");
    let file = file.to_str().expect("a path of ours");
    let mut make = Peer::Openssl.command();
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=x",
    ]);
    assert!(run(make.args(["-keyout", file, "-out", &format!("{file}.crt")])).status.success());
    let certificate = fs::read(format!("{file}.crt")).expect("openssl wrote it");
    let mut all = fs::File::options().append(true).open(file).expect("openssl wrote it");
    all.write_all(&certificate).expect("a file can be written");
    file.to_owned()
}

/// The peer has no half-close in TLS, so it sends first.
fn ours_and_a_peer_speak_tls() {
    let server = server();
    let certificate = certificate(&server);
    let theirs = |relay_client: &[&'static str], tls| {
        [relay_client, &["--tls", tls, "--cert"]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (their_reach, our_reach) in [(REACHABLE, HIDDEN), (HIDDEN, REACHABLE)] {
        for (their_tls, our_tls) in [("prefer", "require"), ("require", "prefer")] {
            let mut options = theirs(their_reach, their_tls);
            options.push(certificate.clone());
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let accepter = peer(&server, "accept", ACCOUNT, &options);
            let mut opener = open(&server, ACCOUNT, &[our_reach, &["--tls", our_tls]].concat());
            accepter.program.expect_line("established tls=yes");
            opener.program.expect_line("tls=yes");
            let exchange = accepter.exchange(noise(3, 50_000));
            let mut heard = vec![0; 50_000];
            opener.from.read_exact(&mut heard).expect("what was said arrives");
            assert!(heard == noise(3, 50_000));
            opener.to.write_all(b"bye").expect("can write");
            drop(opener.to);
            let (mut accepter, heard) = exchange.join().expect("it talks");
            assert_eq!(heard, b"bye");
            assert!(accepter.exit().success() && opener.program.exit().success());
        }
    }
    // Without TLS if one side does not support it.
    let accepter = peer(&server, "accept", ACCOUNT, REACHABLE);
    let opener = open(&server, ACCOUNT, &["--tls", "prefer"]);
    opener.program.expect_line("tls=no");
    exchange(opener, accepter, 1000);
    let accepter = peer(&server, "accept", ACCOUNT, REACHABLE);
    open(&server, ACCOUNT, &["--tls", "require"]).fails("503");
    accepter.program.expect_line("they-gave-up id=");
}

fn a_requestor_that_gets_its_key_too_early() {
    let server = server();
    let accepter = peer(&server, "accept", ACCOUNT, &["--late"]);
    let opener = open(&server, ACCOUNT, REACHABLE);
    opener.program.expect_line(ESTABLISHED);
    exchange(opener, accepter, 1000);
}

fn wrong_lines_are_tolerated() {
    let server = server();
    let accepter = accept(&server, REACHABLE);
    let opener = peer(&server, "open", ACCOUNT, &["--nonsense", "--to", ACCEPTER]);
    opener.program.expect_line("established");
    exchange(opener, accepter, 1000);
}

fn every_key_is_accepted() {
    let server = server();
    for key in ["k", " a:b<&\"'ü> ", &"x".repeat(255)] {
        let accepter = accept(&server, REACHABLE);
        let opener = peer(&server, "open", ACCOUNT, &["--to", ACCEPTER, "--key", key]);
        opener.program.expect_line("established");
        exchange(opener, accepter, 1000);
    }
    for key in ["two\nlines", &"x".repeat(256)] {
        let accepter = accept(&server, REACHABLE);
        let opener = peer(&server, "open", ACCOUNT, &["--to", ACCEPTER, "--key", key]);
        opener.program.expect_line("refused code=400 condition=bad-request");
        accepter.program.expect_line("event=dtcp-declined");
    }
}

fn ours_give_up_if_neither_can_be_reached() {
    let server = server();
    let accepter = accept(&server, LOST);
    open(&server, ACCEPTER, LOST).fails("503, neither side could reach the other");
    accepter.program.expect_line("event=dtcp-failed");
    // The accepting end continues, and serves the next one.
    let opener = open(&server, ACCEPTER, REACHABLE);
    exchange(opener, accepter, 1000);
}

/// Both directions of dialling, and both sides requiring TLS.
fn tls_off_against_require_is_named() {
    let server = server();
    for (ours, theirs) in [("require", "off"), ("off", "require")] {
        for (opens, accepts) in [(HIDDEN, REACHABLE), (REACHABLE, HIDDEN)] {
            let _accepter = accept(&server, &[accepts, &["--tls", theirs]].concat());
            open(&server, ACCEPTER, &[opens, &["--tls", ours]].concat()).fails("TLS");
        }
    }
}

/// The failure is immediate, not at the deadline of a minute.
fn a_give_up_counts_with_an_id_and_without() {
    let server = server();
    for (jid, how) in [(ACCOUNT, "id"), (ACCOUNT, "empty-id"), (COMPONENT, "no-id"), (COMPONENT, "id")] {
        let options = ["--listen", "127.0.0.1:0", "--host", "127.0.0.1:1", "--give-up", how];
        let accepter = peer(&server, "accept", jid, &options);
        open(&server, jid, LOST).fails("503, neither side could reach the other");
        accepter.program.expect_line("gave-up");
        let accepter = accept(&server, LOST);
        let opener = peer(&server, "open", jid, &[&options[..], &["--to", ACCEPTER]].concat());
        opener.program.expect_line("gave-up");
        accepter.program.expect_line("event=dtcp-failed");
    }
}

fn a_peer_is_sent_our_give_up() {
    let server = server();
    let mut accepter = peer(&server, "accept", ACCOUNT, LOST);
    open(&server, ACCOUNT, HIDDEN).fails("503, neither side could reach the other");
    accepter.program.expect_line("they-gave-up id=");
    accepter.program.expect_line("failed");
    assert_eq!(accepter.program.exit().code(), Some(1));
}

fn an_offer_without_hosts() {
    let server = server();
    let accepter = accept(&server, HIDDEN);
    open(&server, ACCEPTER, HIDDEN).fails("the peer refused with 503 service-unavailable");
    let opener = peer(&server, "open", ACCOUNT, &["--to", ACCEPTER]);
    opener.program.expect_line("refused code=503 condition=service-unavailable");
    accepter.program.expect_line("event=dtcp-declined");
}

fn a_peer_without_dtcp() {
    let server = server();
    let _deaf = peer(&server, "deaf", ACCOUNT, &[]);
    open(&server, ACCOUNT, REACHABLE).fails("the peer refused with 501 feature-not-implemented");
}

fn an_absent_peer() {
    let server = server();
    open(&server, ACCOUNT, REACHABLE).fails("the peer refused with 503 service-unavailable");
    open(&server, "joe@elsewhere.example/x", REACHABLE).fails("the peer refused with ");
}

fn a_peer_that_is_not_allowed() {
    let server = server();
    let accepter = accept(&server, &["--from", "opener@c.localhost", "--listen", "127.0.0.1:0"]);
    open(&server, ACCEPTER, REACHABLE).fails("the peer refused with 403 forbidden");
    accepter.program.expect_line("event=dtcp-declined");
    // Two components with one name disconnect each other.
    drop(accepter);
    let accepter = accept(&server, &["--from", "a.localhost", "--listen", "127.0.0.1:0"]);
    exchange(open(&server, ACCEPTER, HIDDEN), accepter, 1000);
}

fn established_streams_outlive_the_server() {
    let mut server = server();
    let accepter = accept(&server, REACHABLE);
    let opener = open(&server, ACCEPTER, HIDDEN);
    for end in [&opener, &accepter] {
        end.program.expect_line(ESTABLISHED);
    }
    server.kill();
    for end in [&opener, &accepter] {
        end.program.expect_line("event=xmpp-down");
    }
    exchange(opener, accepter, MUCH);
}

fn a_server_that_refuses_us() {
    let mut server = server();
    let wrong = server.file("wrong");
    fs::copy(server.secret_file(), &wrong).expect("a file can be copied");
    fs::write(&wrong, "another").expect("a file can be written");
    let wrong = wrong.to_str().expect("a path of ours");
    let of = |mut command: Command, what: &str, value: &str| {
        let args: Vec<_> = command.get_args().map(std::ffi::OsStr::to_os_string).collect();
        let at = args.iter().position(|arg| arg == what).expect("it is given") + 1;
        let mut changed = rendezvous();
        changed.args(&args[..at]).arg(value).args(&args[at + 1..]);
        command = changed;
        End::start("refused", &mut command)
    };
    for command in [
        |server: &XmppServer| open_to(server, ACCEPTER, HIDDEN),
        |server: &XmppServer| accept_from(server, HIDDEN),
    ] {
        of(command(&server), "--secret-file", wrong).fails("not-authorized");
    }
    let mut unknown = rendezvous();
    let args: Vec<_> = server.options("d.localhost");
    unknown.args(["dtcp", "accept"]).args(args).args(["--as", "x@d.localhost/y"]);
    End::start("unknown", &mut unknown).fails("host-unknown");
    server.kill();
    open(&server, ACCEPTER, HIDDEN).fails("cannot use the XMPP server");
}

fn the_accepting_end_waits_for_the_server() {
    let mut server = server();
    server.kill();
    let accepter = End::start("accept", &mut accept_from(&server, REACHABLE));
    accepter.program.expect_line("event=xmpp-down");
    server.start_again();
    accepter.program.expect_line(UP);
    exchange(open(&server, ACCEPTER, HIDDEN), accepter, 1000);
}

fn sigterm_gives_up() {
    let server = server();
    let mut accepter = accept(&server, REACHABLE);
    accepter.program.signal("TERM");
    assert!(accepter.program.exit().success());
}

/// Every error is found before anything is dialled.
fn wrong_arguments() {
    let folder = Folder::new();
    let secret = folder.write("secret", "s3cret\n");
    let secret = secret.to_str().expect("a path of ours");
    let server = ["--xmpp", "127.0.0.1:1", "--component", "a.localhost", "--secret-file", secret];
    let open = [&["open"], &server[..], &["--as", OPENER, "--to", ACCEPTER]].concat();
    for (args, expect_line) in [
        (&["opn"][..], "did you mean 'dtcp open'?"),
        (&["accept"], "--xmpp HOST:PORT is missing"),
        (&[&["open"], &server[..], &["--as", OPENER]].concat(), "--to JID is missing"),
        (&[&["accept"], &server[..], &["--as", ACCEPTER]].concat(), "is not in the component's domain"),
        (&[&["accept"], &server[..], &["--as", "@"]].concat(), "'@' is not a JID"),
        (&[&open[..], &["--tls", "maybe"]].concat(), "'maybe' is not one of off, prefer, require"),
        (&[&open[..], &["--allow", "all"]].concat(), "'all' is not one of loopback"),
        (&[&open[..], &["--host", "192.0.2.1:1"]].concat(), "has no effect without --listen"),
        (&[&open[..], &["--listen", "0.0.0.0:0"]].concat(), "add --host HOST:PORT"),
        (
            &[&open[..], REACHABLE, &["--host", "a:1"].repeat(4)].concat(),
            "--host may be given three times at most",
        ),
    ] {
        let output = run(rendezvous().arg("dtcp").args(args));
        let lines = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), lines.lines().count()), (Some(2), 1), "{args:?}: {lines}");
        assert!(lines.contains(expect_line), "{lines}");
    }
    fs::set_permissions(secret, fs::Permissions::from_mode(0o644)).expect("its mode can be set");
    let output = run(rendezvous().arg("dtcp").args(&open));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"));
    for args in [&["dtcp"][..], &["dtcp", "--help"], &["dtcp", "open", "--help"]] {
        assert!(run(rendezvous().args(args)).status.success());
    }
}
