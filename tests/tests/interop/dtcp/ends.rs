//! Programs at the ends of a stream: ours and the independent peer.

use std::io::{Read, Write};
use std::process::{ChildStdin, ChildStdout, Command};
use std::thread;

use crate::hidden::noise;
use crate::peers::{Peer, script};
use crate::program::Program;
use crate::prosody::{Prosody, SECRET};
use crate::world::rendezvous;

/// JIDs of our programs, each behind a component of its own, and of the peer: an account, and behind a component.
pub(super) const OPENER: &str = "opener@a.localhost/home";
pub(super) const ACCEPTER: &str = "accepter@b.localhost/home";
pub(super) const ACCOUNT: &str = "alice@localhost/peer";
pub(super) const COMPONENT: &str = "peer@c.localhost/home";

pub(super) const REACHABLE: &[&str] = &["--listen", "127.0.0.1:0"];
pub(super) const HIDDEN: &[&str] = &[];
/// Announces an address where nothing listens.
pub(super) const LOST: &[&str] = &["--listen", "127.0.0.1:0", "--host", "127.0.0.1:1"];

pub(super) const UP: &str = "event=xmpp-up";
pub(super) const ESTABLISHED: &str = "event=dtcp-established";

/// A program at one end of the stream.
pub(super) struct End {
    pub(super) program: Program,
    pub(super) to: ChildStdin,
    pub(super) from: ChildStdout,
}

impl End {
    pub(super) fn start(name: &str, command: &mut Command) -> Self {
        let (program, to, from) = Program::start_piped(name, command);
        Self { program, to, from }
    }

    /// Sends this and ends; reads to the end.
    pub(super) fn talk(self, said: Vec<u8>) -> thread::JoinHandle<(Program, Vec<u8>)> {
        let Self { program, mut to, mut from } = self;
        let writer = thread::spawn(move || to.write_all(&said).expect("can write"));
        thread::spawn(move || {
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).expect("its output ends");
            writer.join().expect("what was said is written");
            (program, heard)
        })
    }

    /// Checks that it fails with this reason in its last line.
    pub(super) fn fails(mut self, why: &str) {
        assert_eq!(self.program.exit().code(), Some(1));
        self.program.says(why);
    }
}

pub(super) fn server() -> Prosody {
    Prosody::start(&["a.localhost", "b.localhost", "c.localhost"])
}

pub(super) fn open_to(server: &Prosody, to: &str, options: &[&str]) -> Command {
    let mut open = rendezvous();
    open.args(["dtcp", "open"]).args(server.options("a.localhost")).args(["--as", OPENER, "--to", to]);
    open.args(["--allow", "loopback", "--log", "debug"]).args(options);
    open
}

pub(super) fn open(server: &Prosody, to: &str, options: &[&str]) -> End {
    End::start("open", &mut open_to(server, to, options))
}

pub(super) fn accept_from(server: &Prosody, options: &[&str]) -> Command {
    let mut accept = rendezvous();
    accept.args(["dtcp", "accept"]).args(server.options("b.localhost")).args(["--as", ACCEPTER]);
    accept.args(["--allow", "loopback", "--log", "debug"]).args(options);
    accept
}

pub(super) fn accept(server: &Prosody, options: &[&str]) -> End {
    let end = End::start("accept", &mut accept_from(server, options));
    end.program.says(UP);
    end
}

/// The independent peer, as an account or behind a component.
pub(super) fn peer(server: &Prosody, role: &str, jid: &str, options: &[&str]) -> End {
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

/// Both send many bytes at once, receive the other's, and end successfully.
pub(super) fn exchange(one: End, other: End, bytes: usize) {
    for end in [&one, &other] {
        end.program.says("established");
    }
    let said = [noise(1, bytes), noise(2, bytes + 1)];
    let [one, other] = [one.talk(said[0].clone()), other.talk(said[1].clone())];
    let (mut one, heard) = one.join().expect("it talks");
    assert!(heard == said[1], "what was said arrives as it was: {} bytes", heard.len());
    let (mut other, heard) = other.join().expect("it talks");
    assert!(heard == said[0], "what was said arrives as it was: {} bytes", heard.len());
    for end in [&mut one, &mut other] {
        assert!(end.exit().success(), "it ended in order");
    }
}

pub(super) const MUCH: usize = 3_000_000;
