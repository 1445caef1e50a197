//! `rendezvous proxy` and `rendezvous stream` over a real XMPP server, with independent peers as either end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{ChildStdin, ChildStdout, Command};
use std::thread;

use crate::harness::{Case, case};
use crate::hidden::{Raw, noise, sha256};
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::world::{Folder, rendezvous};
use crate::xmpp_server::{ACCOUNTS, XmppServer};

const NEEDS: &[Peer] = &[Peer::Prosody];
const WITH_SLIXMPP: &[Peer] = &[Peer::Prosody, Peer::Slixmpp];

pub(crate) const CASES: &[Case] = &[
    case("direct", NEEDS, direct),
    case("by_proxy", NEEDS, by_proxy),
    case("the_proxy_is_used_if_the_first_connection_is_unreachable", NEEDS, first_unreachable),
    case("a1_nothing_to_offer_and_the_roles_are_changed", NEEDS, a1_with_role_reversal),
    case("a2_nothing_reachable_and_the_roles_are_changed", NEEDS, a2_with_role_reversal),
    case("a4_a_nat_that_rewrites_ports_is_reported", NEEDS, a4_behind_a_nat),
    case("a5_an_initiator_that_is_not_allowed_is_refused", NEEDS, a5_not_allowed),
    case("a5_a_target_with_a_stream_refuses_another", NEEDS, a5_busy),
    case("services_of_other_processes_are_used_at_both_ends", NEEDS, services),
    case("bulk_goes_through_the_proxy_both_ways_at_once", NEEDS, bulk),
    case("no_byte_is_lost_when_the_xmpp_server_dies", NEEDS, server_dies),
    case("a_component_with_a_wrong_secret_reports_it", NEEDS, wrong_secret),
    case("sigterm_lets_pairs_finish", NEEDS, sigterm),
    case("a_slixmpp_target_direct_and_by_proxy", WITH_SLIXMPP, slixmpp_target),
    case("a_slixmpp_initiator_direct_and_by_proxy", WITH_SLIXMPP, slixmpp_initiator),
    case("errors_on_the_command_line_are_reported", &[], wrong_options),
];

const OPENS: &str = "joe@a.localhost/home";
const ACCEPTS: &str = "bob@b.localhost/work";
/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// An XMPP server with a stream proxy.
struct Net {
    server: XmppServer,
    proxy: Program,
    /// For `--via`.
    via: String,
}

/// One of our ends, whose stdio the test controls.
struct End {
    program: Program,
    to: ChildStdin,
    from: ChildStdout,
}

impl Net {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(options: &[&str]) -> Self {
        Self::beside(XmppServer::prosody(&["proxy.localhost", "a.localhost", "b.localhost"]), options)
    }

    /// A stream proxy beside this server.
    fn beside(server: XmppServer, options: &[&str]) -> Self {
        let mut command = rendezvous();
        command.arg("proxy").args(server.options("proxy.localhost")).args(["--listen", "127.0.0.1:0"]);
        let proxy = Program::start("proxy", command.args(options));
        let via = proxy.pick("its way", |line| line.split_once(" via=").map(|(_, via)| via.to_owned()));
        proxy.expect_line("event=xmpp-up");
        Self { server, proxy, via }
    }

    fn proxy_at(&self) -> SocketAddr {
        let (_, at) = self.via.split_once('=').expect("JID=ADDR:PORT");
        at.parse().expect("an address")
    }

    fn open(&self, options: &[&str]) -> Command {
        self.open_to(ACCEPTS, options)
    }

    fn open_to(&self, peer: &str, options: &[&str]) -> Command {
        let mut command = rendezvous();
        command.args(["stream", "open"]).args(self.server.options("a.localhost"));
        command.args(["--as", OPENS, "--to", peer, "--direct-allow", "loopback", "--log", "debug"]);
        command.args(options);
        command
    }

    /// An accepting end that has connected to the XMPP server.
    fn accept(&self, options: &[&str]) -> End {
        let end = End::start("accept", &mut self.accepting(options));
        end.program.expect_line("event=xmpp-up");
        end
    }

    fn accepting(&self, options: &[&str]) -> Command {
        let mut command = rendezvous();
        command.args(["stream", "accept"]).args(self.server.options("b.localhost"));
        command.args(["--as", ACCEPTS, "--direct-allow", "loopback", "--log", "debug"]).args(options);
        command
    }

    /// Both ends, while they establish the stream.
    fn both(&self, open: &[&str], accept: &[&str]) -> (End, End) {
        let accept = self.accept(accept);
        (End::start("open", &mut self.open(open)), accept)
    }
}

impl End {
    fn start(name: &str, command: &mut Command) -> Self {
        let (program, to, from) = Program::start_piped(name, command);
        Self { program, to, from }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.to.write_all(bytes).expect("can write");
    }

    fn gets(&mut self, wanted: &[u8]) {
        let mut got = vec![0; wanted.len()];
        self.from.read_exact(&mut got).expect("what was sent arrives");
        assert!(got == wanted, "what was sent arrives as it was");
    }

    /// Ends its side. Returns everything that still arrives, and the exit code.
    fn finish(self) -> (Vec<u8>, Option<i32>) {
        let Self { mut program, to, mut from } = self;
        drop(to);
        let mut rest = Vec::new();
        from.read_to_end(&mut rest).expect("stdout ends");
        (rest, program.exit().code())
    }

    /// Checks that it fails with this message.
    fn fails(self, why: &str) {
        let Self { mut program, to, .. } = self;
        program.expect_line(why);
        assert_eq!(program.exit().code(), Some(1));
        drop(to);
    }
}

/// Sends a word each way, the accepting side first; then each half-closes.
fn check_both_ways(mut open: End, mut accept: End) {
    accept.send(b"SSH-2.0-x\r\n");
    open.gets(b"SSH-2.0-x\r\n");
    open.send(b"a question");
    let End { program, to, from } = open;
    drop(to);
    let mut question = Vec::new();
    accept.from.read_to_end(&mut question).expect("the half-close crosses");
    assert_eq!(question, b"a question");
    accept.send(b"the answer");
    let (rest, code) = accept.finish();
    assert_eq!((rest, code), (Vec::new(), Some(0)));
    let open = End { program, to: null(), from };
    assert_eq!(open.finish(), (b"the answer".to_vec(), Some(0)));
}

/// A standard input to replace one that has ended.
fn null() -> ChildStdin {
    let mut child = Command::new("true").stdin(std::process::Stdio::piped()).spawn().expect("it runs");
    let stdin = child.stdin.take().expect("it is piped");
    child.wait().expect("it ends");
    stdin
}

fn direct() {
    let net = Net::start();
    let (open, accept) = net.both(&["--listen", "127.0.0.1:0", "--via", &net.via], &[]);
    check_both_ways(open, accept);
    assert_eq!(net.proxy.lines("event=paired"), 0, "the proxy had nothing to do");
}

/// Over this server, which has the components of [`Net`].
pub(crate) fn cross_direct_and_by_proxy(server: XmppServer) {
    let net = Net::beside(server, &[]);
    let (open, accept) = net.both(&["--listen", "127.0.0.1:0", "--via", &net.via], &[]);
    check_both_ways(open, accept);
    assert_eq!(net.proxy.lines("event=paired"), 0, "the proxy had nothing to do");
    let (open, accept) = net.both(&["--via", &net.via], &[]);
    check_both_ways(open, accept);
    net.proxy.expect_line("event=paired");
}

fn by_proxy() {
    let net = Net::start();
    let (open, accept) = net.both(&["--via", &net.via], &[]);
    check_both_ways(open, accept);
    net.proxy.expect_line("event=pair-ended");
    net.proxy.expect_exactly("reason=done", 1);
}

fn first_unreachable() {
    let net = Net::start();
    let options = ["--listen", "127.0.0.1:0", "--announce", NOWHERE, "--via", &net.via];
    let (open, accept) = net.both(&options, &[]);
    check_both_ways(open, accept);
    net.proxy.expect_exactly("event=paired", 1);
}

fn a1_with_role_reversal() {
    let net = Net::start();
    let (open, accept) = net.both(&[], &["--listen", "127.0.0.1:0"]);
    check_both_ways(open, accept);
}

fn a2_with_role_reversal() {
    let net = Net::start();
    let (open, accept) = net.both(&["--listen", "127.0.0.1:0", "--announce", NOWHERE], &["--via", &net.via]);
    check_both_ways(open, accept);
    net.proxy.expect_exactly("event=paired", 1);
}

/// A NAT: connections through it come from another port.
fn rewriting_nat(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        for inside in listener.incoming().map_while(Result::ok) {
            let Ok(outside) = TcpStream::connect(to) else { return };
            thread::spawn(move || {
                // No byte is ever relayed, so it is enough to end with the other side.
                let _ = (&outside).read(&mut [0]);
                drop(inside);
            });
        }
    });
    at
}

fn a4_behind_a_nat() {
    let net = Net::start();
    let via = format!("proxy.localhost={}", rewriting_nat(net.proxy_at()));
    let (open, accept) = net.both(&["--via", &via], &[]);
    open.fails("the peer has no socket that matches ours: a NAT may rewrite ports");
    accept.program.expect_line("event=no-stream");
    accept.program.expect_line("a NAT may rewrite ports");
    net.proxy.expect_lines("reason=\"404: no open socket matches", 2);
    // The accepting end survives it.
    check_both_ways(End::start("open", &mut net.open(&["--via", &net.via])), accept);
}

fn a5_not_allowed() {
    let net = Net::start();
    let (open, _accept) = net.both(&["--via", &net.via], &["--allow", "friends.localhost"]);
    open.fails("rendezvous: stream: the peer or a server on the way does not allow us");
}

fn a5_busy() {
    let net = Net::start();
    let (mut open, mut accept) = net.both(&["--via", &net.via], &[]);
    open.send(b"x");
    accept.gets(b"x");
    // One component has one connection, so the second program uses another name.
    let mut second = rendezvous();
    second.args(["stream", "open"]).args(net.server.options("a.localhost"));
    second.args(["--as", "eve@a.localhost/x", "--to", ACCEPTS, "--via", &net.via]);
    End::start("second", &mut second).fails("rendezvous: stream: the peer declined the stream");
    accept.send(b"y");
    open.gets(b"y");
}

fn services() {
    let (near, far) = (Raw::start(), Raw::start());
    let net = Net::start();
    let to = far.address.to_string();
    let accept = Program::start("accept", &mut net.accepting(&["--to", &to]));
    accept.expect_line("event=xmpp-up");
    for _ in 0..2 {
        let service = near.address.to_string();
        let mut open = Program::start("open", &mut net.open(&["--via", &net.via, "--service", &service]));
        let (mut here, mut there) = (near.accept(), far.accept());
        here.write_all(b"ping").expect("can write");
        here.shutdown(Shutdown::Write).expect("it is open");
        let mut got = Vec::new();
        there.read_to_end(&mut got).expect("a clean end");
        there.write_all(&got).expect("can write");
        drop(there);
        let mut back = Vec::new();
        here.read_to_end(&mut back).expect("a clean end");
        assert_eq!(back, b"ping");
        drop(here);
        assert_eq!(open.exit().code(), Some(0));
    }
}

/// Checks that `from` gets what is written to `to`, both ways at once.
fn exchange(open: End, accept: End, bytes: usize, halfway: impl FnOnce() + Send) {
    let (up, down) = (noise(1, bytes), noise(2, bytes));
    let (mut to_open, mut to_accept) = (open.to, accept.to);
    let (mut of_open, mut of_accept) = (open.from, accept.from);
    let (mut up_there, mut down_there) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let (first, second) = up.split_at(bytes / 2);
            to_open.write_all(first).expect("can write");
            halfway();
            to_open.write_all(second).expect("can write");
            drop(to_open);
        });
        scope.spawn(|| {
            to_accept.write_all(&down).expect("can write");
            drop(to_accept);
        });
        scope.spawn(|| of_accept.read_to_end(&mut up_there).expect("a clean end"));
        of_open.read_to_end(&mut down_there).expect("a clean end");
    });
    assert_eq!((up_there.len(), sha256(&up_there)), (bytes, sha256(&up)), "up");
    assert_eq!((down_there.len(), sha256(&down_there)), (bytes, sha256(&down)), "down");
    for mut program in [open.program, accept.program] {
        assert_eq!(program.exit().code(), Some(0));
    }
}

fn bulk() {
    let net = Net::start();
    let (open, accept) = net.both(&["--via", &net.via], &[]);
    exchange(open, accept, bulk_bytes(), || {});
    let bytes = bulk_bytes();
    net.proxy.expect_line(&format!("bytes_in={bytes} bytes_out={bytes}"));
}

/// `BULK` megabytes, or 16.
fn bulk_bytes() -> usize {
    std::env::var("BULK").ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(16) << 20
}

fn server_dies() {
    let mut net = Net::start();
    let (open, accept) = net.both(&["--via", &net.via], &[]);
    let Net { server, proxy, .. } = &mut net;
    exchange(open, accept, bulk_bytes(), || {
        server.kill();
        proxy.expect_line("event=xmpp-down");
        server.start_again();
        proxy.expect_lines("event=xmpp-up", 2);
    });
    // Afterwards it works as before.
    let (open, accept) = net.both(&["--via", &net.via], &[]);
    check_both_ways(open, accept);
}

fn wrong_secret() {
    let server = XmppServer::prosody(&["proxy.localhost"]);
    let folder = Folder::new();
    let secret = folder.write("wrong", "not-it\n");
    let mut command = rendezvous();
    command.args(["proxy", "--xmpp", &server.ports.components.to_string(), "--component", "proxy.localhost"]);
    command.arg("--secret-file").arg(secret).args(["--listen", "127.0.0.1:0"]);
    let proxy = Program::start("proxy", &mut command);
    proxy.expect_line("event=xmpp-down");
    proxy.expect_line("compare --secret-file with the server's component_secret");
    assert_eq!(proxy.lines("not-it"), 0, "no secret in a log");
}

fn sigterm() {
    let mut net = Net::start();
    let (mut open, mut accept) = net.both(&["--via", &net.via], &[]);
    open.send(b"x");
    accept.gets(b"x");
    net.proxy.signal("TERM");
    net.proxy.expect_line("event=stopping");
    assert!(TcpStream::connect(net.proxy_at()).is_err(), "nobody new");
    check_both_ways(open, accept);
    net.proxy.expect_line("event=stopped");
    assert_eq!(net.proxy.exit().code(), Some(0));
}

fn slixmpp(net: &Net, role: &str, account: usize, options: &[&str]) -> (Program, String) {
    let name = ACCOUNTS[account];
    let mut python = Peer::Slixmpp.command();
    python.arg(script("slixmpp_stream.py")).args([role, "--jid", &format!("{name}@localhost/x")]);
    python.args(["--password", &format!("{name}pw"), "--server", &net.server.ports.clients.to_string()]);
    let program = Program::start(role, python.args(options));
    (program, format!("{name}@localhost/x"))
}

/// Checks that bytes written at our end come back from a peer that echoes.
fn echoed(mut end: End, mut peer: Program) {
    let bytes = noise(3, 300_000);
    end.send(&bytes);
    let (back, code) = end.finish();
    assert!(back == bytes, "{} bytes came back", back.len());
    assert_eq!(code, Some(0));
    peer.expect_line("echoed 300000");
    assert_eq!(peer.exit().code(), Some(0));
}

fn slixmpp_target() {
    let net = Net::start();
    for options in [&["--listen", "127.0.0.1:0"][..], &["--via", &net.via]] {
        // In the mail's samples the claim at a proxy has `side` instead of `sid`.
        let (peer, jid) = slixmpp(&net, "target", 0, &["--side"]);
        peer.expect_line("online");
        let open = End::start("open", &mut net.open_to(&jid, options));
        echoed(open, peer);
    }
    net.proxy.expect_exactly("event=paired", 1);
}

fn slixmpp_initiator() {
    let net = Net::start();
    for options in [&["--listen"][..], &["--via", &net.via], &["--side", "--via", &net.via]] {
        let accept = net.accept(&[]);
        let options: Vec<&str> = ["--to", ACCEPTS].iter().chain(options).copied().collect();
        let (peer, _) = slixmpp(&net, "initiator", 1, &options);
        echoed(accept, peer);
    }
    net.proxy.expect_exactly("event=paired", 2);
}

fn wrong_options() {
    let folder = Folder::new();
    let secret = folder.write("secret", "s3cret\n");
    let open_secret = folder.write("open", "s3cret\n");
    std::fs::set_permissions(&open_secret, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("ours");
    let (secret, open_secret) = (secret.to_str().expect("ours"), open_secret.to_str().expect("ours"));
    let known = |file| ["--xmpp", NOWHERE, "--component", "p.localhost", "--secret-file", file];
    let stream = |file, rest: &[&'static str]| -> Vec<String> {
        let words = ["stream", "open"].into_iter().chain(known(file)).chain(rest.iter().copied());
        words.map(str::to_owned).collect()
    };
    let proxy = |file, rest: &[&'static str]| -> Vec<String> {
        ["proxy"].into_iter().chain(known(file)).chain(rest.iter().copied()).map(str::to_owned).collect()
    };
    let me = ["--as", "a@p.localhost/x", "--to", "b@p.localhost/y"];
    let with = |rest: &[&'static str]| [&me[..], rest].concat();
    for (args, code, why) in [
        (vec!["stream".to_owned(), "acept".to_owned()], 2, "did you mean 'stream accept'?"),
        (proxy(secret, &[]), 2, "--listen ADDR:PORT is missing"),
        (proxy(secret, &["--listen", "0.0.0.0:0"]), 2, "--announce ADDR:PORT is missing"),
        (proxy(open_secret, &["--listen", NOWHERE]), 1, "others may open it"),
        (stream(secret, &["--to", "b@p.localhost/y"]), 2, "--as JID is missing"),
        (stream(secret, &["--as", "a@p.localhost/x"]), 2, "--to JID is missing"),
        (stream(secret, &["--as", "a@else/x", "--to", "b@c/d"]), 2, "not in the component's domain"),
        (stream(secret, &with(&["--via", "proxy.localhost"])), 2, "is not JID=ADDR:PORT"),
        (stream(secret, &with(&["--via", "p=0.0.0.0:1"])), 2, "not an address that peers can connect to"),
        (stream(secret, &with(&["--direct-allow", "everything"])), 2, "not one of loopback, link-local"),
        (stream(secret, &with(&["--announce", NOWHERE])), 2, "--announce needs --listen"),
    ] {
        let output = run(rendezvous().args(&args));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
        assert!(complaint.contains(why), "{args:?}: {complaint}");
        assert!(!complaint.contains("s3cret"), "{complaint}");
    }
}
