//! Programs at the ends of a stream: ours and the independent peer.

use std::io::{Read, Write};
use std::process::{ChildStdin, ChildStdout, Command};
use std::thread;

use crate::hidden::noise;
use crate::peers::{Peer, script};
use crate::program::Program;
use crate::world::rendezvous;
use crate::xmpp_server::{SECRET, XmppServer};

/// JIDs of our programs, each behind a component of its own, and of the peer: an account, and behind a component.
pub(crate) const OPENER: &str = "opener@a.localhost/home";
pub(crate) const ACCEPTER: &str = "accepter@b.localhost/home";
pub(crate) const ACCOUNT: &str = "alice@localhost/peer";
pub(crate) const COMPONENT: &str = "peer@c.localhost/home";

pub(crate) const REACHABLE: &[&str] = &["--listen", "127.0.0.1:0"];
pub(crate) const HIDDEN: &[&str] = &[];
/// Announces an address where nothing listens.
pub(crate) const LOST: &[&str] = &["--listen", "127.0.0.1:0", "--host", "127.0.0.1:1"];

pub(crate) const UP: &str = "event=xmpp-up";
pub(crate) const ESTABLISHED: &str = "event=dtcp-established";

/// A program at one end of the stream.
pub(crate) struct End {
    pub(crate) program: Program,
    pub(crate) to: ChildStdin,
    pub(crate) from: ChildStdout,
}

impl End {
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let (program, to, from) = Program::start_piped(name, command);
        Self { program, to, from }
    }

    /// Sends this and ends; reads to the end.
    pub(crate) fn exchange(self, lines: Vec<u8>) -> thread::JoinHandle<(Program, Vec<u8>)> {
        let Self { program, mut to, mut from } = self;
        let writer = thread::spawn(move || to.write_all(&lines).expect("can write"));
        thread::spawn(move || {
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).expect("its output ends");
            writer.join().expect("what was said is written");
            (program, heard)
        })
    }

    /// Checks that it fails with this reason in its last line.
    pub(crate) fn fails(mut self, why: &str) {
        assert_eq!(self.program.exit().code(), Some(1));
        self.program.expect_line(why);
    }
}

pub(crate) fn server() -> XmppServer {
    XmppServer::prosody(&["a.localhost", "b.localhost", "c.localhost"])
}

pub(crate) fn open_to(server: &XmppServer, to: &str, options: &[&str]) -> Command {
    let mut open = rendezvous();
    open.args(["dtcp", "open"]).args(server.options("a.localhost")).args(["--as", OPENER, "--to", to]);
    open.args(["--allow", "loopback", "--log", "debug"]).args(options);
    open
}

pub(crate) fn open(server: &XmppServer, to: &str, options: &[&str]) -> End {
    End::start("open", &mut open_to(server, to, options))
}

pub(crate) fn accept_from(server: &XmppServer, options: &[&str]) -> Command {
    let mut accept = rendezvous();
    accept.args(["dtcp", "accept"]).args(server.options("b.localhost")).args(["--as", ACCEPTER]);
    accept.args(["--allow", "loopback", "--log", "debug"]).args(options);
    accept
}

pub(crate) fn accept(server: &XmppServer, options: &[&str]) -> End {
    let end = End::start("accept", &mut accept_from(server, options));
    end.program.expect_line(UP);
    end
}

/// The independent peer, as an account or behind a component.
pub(crate) fn peer(server: &XmppServer, role: &str, jid: &str, options: &[&str]) -> End {
    let mut peer = Peer::Slixmpp.command();
    peer.arg(script("dtcp_peer.py")).args([role, "--jid", jid]);
    if jid == COMPONENT {
        peer.args(["--server", &server.ports.components.to_string(), "--secret", SECRET]);
    } else {
        peer.args(["--server", &server.ports.clients.to_string(), "--password", "alicepw"]);
    }
    let end = End::start("peer", peer.args(options));
    end.program.expect_line("ready ");
    end
}

/// Both send many bytes at once, receive the other's, and end successfully.
pub(crate) fn exchange(one: End, other: End, bytes: usize) {
    for end in [&one, &other] {
        end.program.expect_line("established");
    }
    let lines = [noise(1, bytes), noise(2, bytes + 1)];
    let [one, other] = [one.exchange(lines[0].clone()), other.exchange(lines[1].clone())];
    let (mut one, heard) = one.join().expect("it talks");
    assert!(heard == lines[1], "what was said arrives as it was: {} bytes", heard.len());
    let (mut other, heard) = other.join().expect("it talks");
    assert!(heard == lines[0], "what was said arrives as it was: {} bytes", heard.len());
    for end in [&mut one, &mut other] {
        assert!(end.exit().success(), "it ended in order");
    }
}

pub(crate) const MUCH: usize = 3_000_000;
