//! `rendezvous dtcp`: our two ends with each other, and each of them with a peer written from the text of the seed, over
//! a real XMPP server.

use std::io::{Read, Write};
use std::process::{ChildStdin, ChildStdout, Command};
use std::thread;

use crate::harness::{Case, case};
use crate::hidden::noise;
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::prosody::{Prosody, SECRET};
use crate::world::rendezvous;

const SERVER: &[Peer] = &[Peer::Prosody];
const BOTH: &[Peer] = &[Peer::Prosody, Peer::Slixmpp];
const WITH_TLS: &[Peer] = &[Peer::Prosody, Peer::Slixmpp, Peer::Openssl];

pub(crate) const CASES: &[Case] = &[
    case("ours_meet_whichever_can_be_reached", SERVER, ours_meet_whichever_can_be_reached),
    case("ours_agree_on_tls", SERVER, ours_agree_on_tls),
    case("a_peer_opens_to_ours", BOTH, a_peer_opens_to_ours),
    case("ours_opens_to_a_peer", BOTH, ours_opens_to_a_peer),
    case("ours_and_a_peer_speak_tls", WITH_TLS, ours_and_a_peer_speak_tls),
    case("a_requestor_that_is_asked_too_early_answers_later", BOTH, a_requestor_that_is_asked_too_early),
    case("wrong_lines_are_forgiven", BOTH, wrong_lines_are_forgiven),
    case("any_key_will_do_that_a_line_can_carry", BOTH, any_key_will_do),
    case("ours_give_up_where_neither_is_reached", SERVER, ours_give_up_where_neither_is_reached),
    case("a_give_up_counts_with_an_id_and_without", BOTH, a_give_up_counts_with_an_id_and_without),
    case("a_peer_hears_that_we_gave_up", BOTH, a_peer_hears_that_we_gave_up),
    case("who_offers_nothing_to_nobody_is_refused_with_503", BOTH, who_offers_nothing_is_refused),
    case("a_peer_that_knows_no_dtcp_says_501", BOTH, a_peer_that_knows_no_dtcp),
    case("who_is_not_there_is_said_in_one_line", SERVER, who_is_not_there),
    case("who_is_not_wanted_is_refused_with_403", SERVER, who_is_not_wanted),
    case("what_is_established_outlives_the_server", SERVER, what_is_established_outlives_the_server),
    case("a_server_that_wants_us_not_is_said_in_one_line", SERVER, a_server_that_wants_us_not),
    case("who_accepts_waits_for_the_server", SERVER, who_accepts_waits_for_the_server),
    case("sigterm_gives_up", SERVER, sigterm_gives_up),
];

/// Our JIDs, each behind a component of its own, and the peer's: an account, and behind a component.
const OPENER: &str = "opener@a.localhost/home";
const ACCEPTER: &str = "accepter@b.localhost/home";
const ACCOUNT: &str = "alice@localhost/peer";
const COMPONENT: &str = "peer@c.localhost/home";

const REACHABLE: &[&str] = &["--listen", "127.0.0.1:0"];
const HIDDEN: &[&str] = &[];
/// Says where it is, and is not there.
const LOST: &[&str] = &["--listen", "127.0.0.1:0", "--host", "127.0.0.1:1"];

const UP: &str = "event=xmpp-up";
const ESTABLISHED: &str = "event=dtcp-established";

/// A program at one end of the stream.
struct End {
    program: Program,
    to: ChildStdin,
    from: ChildStdout,
}

impl End {
    fn start(name: &str, command: &mut Command) -> Self {
        let (program, to, from) = Program::start_piped(name, command);
        Self { program, to, from }
    }

    /// Says this and ends; hears everything.
    fn talk(self, said: Vec<u8>) -> thread::JoinHandle<(Program, Vec<u8>)> {
        let Self { program, mut to, mut from } = self;
        let writer = thread::spawn(move || to.write_all(&said).expect("it takes octets"));
        thread::spawn(move || {
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).expect("its output ends");
            writer.join().expect("what was said is written");
            (program, heard)
        })
    }

    /// It fails, and says in its last line why.
    fn fails(mut self, why: &str) {
        assert_eq!(self.program.exit().code(), Some(1));
        self.program.says(why);
    }
}

fn server() -> Prosody {
    Prosody::start(&["a.localhost", "b.localhost", "c.localhost"])
}

fn open_to(server: &Prosody, to: &str, options: &[&str]) -> Command {
    let mut open = rendezvous();
    open.args(["dtcp", "open"]).args(server.options("a.localhost")).args(["--as", OPENER, "--to", to]);
    open.args(["--allow", "loopback", "--log", "debug"]).args(options);
    open
}

fn open(server: &Prosody, to: &str, options: &[&str]) -> End {
    End::start("open", &mut open_to(server, to, options))
}

fn accept_from(server: &Prosody, options: &[&str]) -> Command {
    let mut accept = rendezvous();
    accept.args(["dtcp", "accept"]).args(server.options("b.localhost")).args(["--as", ACCEPTER]);
    accept.args(["--allow", "loopback", "--log", "debug"]).args(options);
    accept
}

fn accept(server: &Prosody, options: &[&str]) -> End {
    let end = End::start("accept", &mut accept_from(server, options));
    end.program.says(UP);
    end
}

/// The peer of another hand, as an account or behind a component.
fn peer(server: &Prosody, role: &str, jid: &str, options: &[&str]) -> End {
    let mut peer = Peer::Slixmpp.command();
    peer.arg(script("dtcp_peer.py")).args([role, "--jid", jid]);
    if jid == COMPONENT {
        peer.args(["--server", &server.components.to_string(), "--secret", SECRET]);
    } else {
        peer.args(["--server", &server.clients.to_string(), "--password", "alicepw"]);
    }
    let end = End::start("peer", peer.args(options));
    end.program.says("ready ");
    end
}

/// Both say something, much of it, at once; both hear it, and end well.
fn exchange(one: End, other: End, octets: usize) {
    for end in [&one, &other] {
        end.program.says("established");
    }
    let said = [noise(1, octets), noise(2, octets + 1)];
    let [one, other] = [one.talk(said[0].clone()), other.talk(said[1].clone())];
    let (mut one, heard) = one.join().expect("it talks");
    assert!(heard == said[1], "what was said arrives as it was: {} octets", heard.len());
    let (mut other, heard) = other.join().expect("it talks");
    assert!(heard == said[0], "what was said arrives as it was: {} octets", heard.len());
    for end in [&mut one, &mut other] {
        assert!(end.exit().success(), "it ended in order");
    }
}

const MUCH: usize = 3_000_000;

fn ours_meet_whichever_can_be_reached() {
    let server = server();
    for [opener, accepter] in
        [[REACHABLE, HIDDEN], [HIDDEN, REACHABLE], [REACHABLE, REACHABLE], [LOST, REACHABLE]]
    {
        let accepter = accept(&server, accepter);
        let opener = open(&server, ACCEPTER, opener);
        for end in [&opener, &accepter] {
            end.program.says(ESTABLISHED);
            end.program.says("tls=yes");
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
            end.program.says(&format!("{ESTABLISHED} "));
            end.program.says(&format!("tls={secure}"));
        }
        exchange(opener, accepter, 100_000);
    }
    let accepter = accept(&server, &[HIDDEN, &["--tls", "require"]].concat());
    open(&server, ACCEPTER, &tls("off")).fails("503");
    accepter.program.says("event=dtcp-failed");
}

fn a_peer_opens_to_ours() {
    let server = server();
    for [theirs, ours] in [[REACHABLE, HIDDEN], [HIDDEN, REACHABLE], [REACHABLE, REACHABLE]] {
        for jid in [ACCOUNT, COMPONENT] {
            let accepter = accept(&server, ours);
            let opener = peer(&server, "open", jid, &[theirs, &["--to", ACCEPTER]].concat());
            opener.program.says("established tls=no");
            accepter.program.says(ESTABLISHED);
            exchange(opener, accepter, MUCH);
        }
    }
}

fn ours_opens_to_a_peer() {
    let server = server();
    for [theirs, ours] in [[REACHABLE, HIDDEN], [HIDDEN, REACHABLE], [REACHABLE, REACHABLE]] {
        let accepter = peer(&server, "accept", ACCOUNT, theirs);
        let opener = open(&server, ACCOUNT, ours);
        accepter.program.says("established tls=no");
        opener.program.says(ESTABLISHED);
        exchange(opener, accepter, MUCH);
    }
}

/// A certificate and its key, in one file.
fn certificate(server: &Prosody) -> String {
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
    let certificate = std::fs::read(format!("{file}.crt")).expect("openssl wrote it");
    let mut all = std::fs::File::options().append(true).open(file).expect("openssl wrote it");
    all.write_all(&certificate).expect("a file can be written");
    file.to_owned()
}

/// The peer has no half-close in TLS, so it has its say first.
fn ours_and_a_peer_speak_tls() {
    let server = server();
    let certificate = certificate(&server);
    let theirs = |reach: &[&'static str], tls| {
        [reach, &["--tls", tls, "--cert"]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (their_reach, our_reach) in [(REACHABLE, HIDDEN), (HIDDEN, REACHABLE)] {
        for (their_tls, our_tls) in [("prefer", "require"), ("require", "prefer")] {
            let mut options = theirs(their_reach, their_tls);
            options.push(certificate.clone());
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let accepter = peer(&server, "accept", ACCOUNT, &options);
            let mut opener = open(&server, ACCOUNT, &[our_reach, &["--tls", our_tls]].concat());
            accepter.program.says("established tls=yes");
            opener.program.says("tls=yes");
            let talk = accepter.talk(noise(3, 50_000));
            let mut heard = vec![0; 50_000];
            opener.from.read_exact(&mut heard).expect("what was said arrives");
            assert!(heard == noise(3, 50_000));
            opener.to.write_all(b"bye").expect("it takes octets");
            drop(opener.to);
            let (mut accepter, heard) = talk.join().expect("it talks");
            assert_eq!(heard, b"bye");
            assert!(accepter.exit().success() && opener.program.exit().success());
        }
    }
    // In clear where one side has none.
    let accepter = peer(&server, "accept", ACCOUNT, REACHABLE);
    let opener = open(&server, ACCOUNT, &["--tls", "prefer"]);
    opener.program.says("tls=no");
    exchange(opener, accepter, 1000);
    let accepter = peer(&server, "accept", ACCOUNT, REACHABLE);
    open(&server, ACCOUNT, &["--tls", "require"]).fails("503");
    accepter.program.says("they-gave-up id=");
}

fn a_requestor_that_is_asked_too_early() {
    let server = server();
    let accepter = peer(&server, "accept", ACCOUNT, &["--late"]);
    let opener = open(&server, ACCOUNT, REACHABLE);
    opener.program.says(ESTABLISHED);
    exchange(opener, accepter, 1000);
}

fn wrong_lines_are_forgiven() {
    let server = server();
    let accepter = accept(&server, REACHABLE);
    let opener = peer(&server, "open", ACCOUNT, &["--nonsense", "--to", ACCEPTER]);
    opener.program.says("established");
    exchange(opener, accepter, 1000);
}

fn any_key_will_do() {
    let server = server();
    for key in ["k", " a:b<&\"'ü> ", &"x".repeat(255)] {
        let accepter = accept(&server, REACHABLE);
        let opener = peer(&server, "open", ACCOUNT, &["--to", ACCEPTER, "--key", key]);
        opener.program.says("established");
        exchange(opener, accepter, 1000);
    }
    for key in ["two\nlines", &"x".repeat(256)] {
        let accepter = accept(&server, REACHABLE);
        let opener = peer(&server, "open", ACCOUNT, &["--to", ACCEPTER, "--key", key]);
        opener.program.says("refused code=400 condition=bad-request");
        accepter.program.says("event=dtcp-declined");
    }
}

fn ours_give_up_where_neither_is_reached() {
    let server = server();
    let accepter = accept(&server, LOST);
    open(&server, ACCEPTER, LOST).fails("503, neither side could reach the other");
    accepter.program.says("event=dtcp-failed");
    // Who accepts goes on, and the next gets through.
    let opener = open(&server, ACCEPTER, REACHABLE);
    exchange(opener, accepter, 1000);
}

/// In a moment, not at the deadline of a minute.
fn a_give_up_counts_with_an_id_and_without() {
    let server = server();
    for (jid, how) in [(ACCOUNT, "id"), (ACCOUNT, "empty-id"), (COMPONENT, "no-id"), (COMPONENT, "id")] {
        let options = ["--listen", "127.0.0.1:0", "--host", "127.0.0.1:1", "--give-up", how];
        let accepter = peer(&server, "accept", jid, &options);
        open(&server, jid, LOST).fails("503, neither side could reach the other");
        accepter.program.says("gave-up");
        let accepter = accept(&server, LOST);
        let opener = peer(&server, "open", jid, &[&options[..], &["--to", ACCEPTER]].concat());
        opener.program.says("gave-up");
        accepter.program.says("event=dtcp-failed");
    }
}

fn a_peer_hears_that_we_gave_up() {
    let server = server();
    let mut accepter = peer(&server, "accept", ACCOUNT, LOST);
    open(&server, ACCOUNT, HIDDEN).fails("503, neither side could reach the other");
    accepter.program.says("they-gave-up id=");
    accepter.program.says("failed");
    assert_eq!(accepter.program.exit().code(), Some(1));
}

fn who_offers_nothing_is_refused() {
    let server = server();
    let accepter = accept(&server, HIDDEN);
    open(&server, ACCEPTER, HIDDEN).fails("it was refused with 503 service-unavailable");
    let opener = peer(&server, "open", ACCOUNT, &["--to", ACCEPTER]);
    opener.program.says("refused code=503 condition=service-unavailable");
    accepter.program.says("event=dtcp-declined");
}

fn a_peer_that_knows_no_dtcp() {
    let server = server();
    let _deaf = peer(&server, "deaf", ACCOUNT, &[]);
    open(&server, ACCOUNT, REACHABLE).fails("it was refused with 501 feature-not-implemented");
}

fn who_is_not_there() {
    let server = server();
    open(&server, ACCOUNT, REACHABLE).fails("it was refused with 503 service-unavailable");
    open(&server, "joe@elsewhere.example/x", REACHABLE).fails("it was refused with ");
}

fn who_is_not_wanted() {
    let server = server();
    let accepter = accept(&server, &["--from", "opener@c.localhost", "--listen", "127.0.0.1:0"]);
    open(&server, ACCEPTER, REACHABLE).fails("it was refused with 403 forbidden");
    accepter.program.says("event=dtcp-declined");
    // Two with one name push each other out.
    drop(accepter);
    let accepter = accept(&server, &["--from", "a.localhost", "--listen", "127.0.0.1:0"]);
    exchange(open(&server, ACCEPTER, HIDDEN), accepter, 1000);
}

fn what_is_established_outlives_the_server() {
    let mut server = server();
    let accepter = accept(&server, REACHABLE);
    let opener = open(&server, ACCEPTER, HIDDEN);
    for end in [&opener, &accepter] {
        end.program.says(ESTABLISHED);
    }
    server.kill();
    for end in [&opener, &accepter] {
        end.program.says("event=xmpp-down");
    }
    exchange(opener, accepter, MUCH);
}

fn a_server_that_wants_us_not() {
    let mut server = server();
    let wrong = server.file("wrong");
    std::fs::copy(server.secret_file(), &wrong).expect("a file can be copied");
    std::fs::write(&wrong, "another").expect("a file can be written");
    let wrong = wrong.to_str().expect("a path of ours");
    let of = |mut command: Command, what: &str, value: &str| {
        let args: Vec<_> = command.get_args().map(std::ffi::OsStr::to_os_string).collect();
        let at = args.iter().position(|arg| arg == what).expect("it is given") + 1;
        let mut changed = rendezvous();
        changed.args(&args[..at]).arg(value).args(&args[at + 1..]);
        command = changed;
        End::start("refused", &mut command)
    };
    for command in
        [|server: &Prosody| open_to(server, ACCEPTER, HIDDEN), |server: &Prosody| accept_from(server, HIDDEN)]
    {
        of(command(&server), "--secret-file", wrong).fails("not-authorized");
    }
    let mut unknown = rendezvous();
    let args: Vec<_> = server.options("d.localhost");
    unknown.args(["dtcp", "accept"]).args(args).args(["--as", "x@d.localhost/y"]);
    End::start("unknown", &mut unknown).fails("host-unknown");
    server.kill();
    open(&server, ACCEPTER, HIDDEN).fails("is of no use");
}

fn who_accepts_waits_for_the_server() {
    let mut server = server();
    server.kill();
    let accepter = End::start("accept", &mut accept_from(&server, REACHABLE));
    accepter.program.says("event=xmpp-down");
    server.start_again();
    accepter.program.says(UP);
    exchange(open(&server, ACCEPTER, HIDDEN), accepter, 1000);
}

fn sigterm_gives_up() {
    let server = server();
    let mut accepter = accept(&server, REACHABLE);
    accepter.program.signal("TERM");
    assert!(accepter.program.exit().success());
}
