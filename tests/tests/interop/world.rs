//! A relay with its state, in a folder of its own. Only this module knows the format of the log lines.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::peers::{Peer, profile, script};
use crate::program::{Program, run};
use crate::wire::{Answer, Below, Wire};

/// Awaited parts of log lines.
pub(crate) mod lines {
    /// Relay and agent: a connection waits for a client.
    pub(crate) const WAITING: &str = "event=waiting ";
    /// Relay: a waiting connection has ended.
    pub(crate) const WAITING_ENDED: &str = "event=waiting-ended";
    /// Relay: a client is held until the hidden server returns.
    pub(crate) const HELD: &str = "event=held";
    /// Relay: a pair was made.
    pub(crate) const PAIRED: &str = "event=paired";
    /// Relay: a pair has ended.
    pub(crate) const PAIR_ENDED: &str = "event=pair-ended";
    /// Relay: an answer other than a success.
    pub(crate) const REFUSED: &str = "event=refused";
    /// Agent: the relay is unreachable, or refuses the agent.
    pub(crate) const RELAY_LOST: &str = "event=relay-lost";
    /// Agent: a local service cannot be reached.
    pub(crate) const UNREACHABLE: &str = "event=unreachable";
    /// Connector: it listens at an address.
    pub(crate) const LISTENING: &str = "event=listening";
    /// Relay: it has started.
    pub(crate) const READY: &str = "event=ready";
}

/// A command of our binary.
pub(crate) fn rendezvous() -> Command {
    let binary = profile().join("rendezvous");
    assert!(binary.is_file(), "{} is not there: run `cargo build` first", binary.display());
    let mut command = Command::new(binary);
    command.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").env_remove("JOURNAL_STREAM");
    command
}

/// Locks the default port, 8443.
pub(crate) fn usual_port() -> MutexGuard<'static, ()> {
    static PORT: Mutex<()> = Mutex::new(());
    PORT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder that is removed when it is dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rendezvous-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder can be made");
        Self(path)
    }

    /// Writes a file with mode 0600.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        path
    }

    /// Makes a self-signed certificate with openssl. `alternative_names` as in `DNS:localhost,IP:127.0.0.1`. Returns
    /// the paths of the certificate and its key.
    pub(crate) fn self_signed(&self, name: &str, alternative_names: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.0.join(format!("{name}.crt")), self.write(&format!("{name}.key"), ""));
        let mut openssl = Peer::Openssl.command();
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-days", "2", "-subj", &format!("/CN={name}")]);
        openssl.args(["-addext", &format!("subjectAltName={alternative_names}"), "-keyout"]);
        let made = run(openssl.arg(&key).arg("-out").arg(&certificate));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (certificate, key)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An enrolled hidden server.
#[derive(Clone, Debug)]
pub(crate) struct Enrolled {
    pub(crate) name: String,
    pub(crate) id: String,
    /// In BASE32.
    pub(crate) secret: String,
    ticket: String,
}

/// A running relay.
pub(crate) struct Relay {
    pub(crate) program: Program,
    pub(crate) tls: SocketAddr,
    pub(crate) clear: SocketAddr,
    pub(crate) pin: String,
}

impl Relay {
    pub(crate) fn address(&self, below: Below) -> SocketAddr {
        if below == Below::Clear { self.clear } else { self.tls }
    }

    /// `https://127.0.0.1:PORT`, or `http:`.
    pub(crate) fn url(&self, below: Below) -> String {
        format!("{}://{}", below.scheme(), self.address(below))
    }

    pub(crate) fn open(&self, below: Below) -> Wire {
        Wire::open(below, self.address(below))
    }

    /// Sends bytes without TLS and reads one answer.
    pub(crate) fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut wire = self.open(Below::Clear);
        wire.send(bytes.as_ref());
        Answer::read(&mut wire)
    }
}

/// The folder of one relay: its state, its tickets.
pub(crate) struct World {
    pub(crate) folder: Folder,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: Folder::new() }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.0.join("state")
    }

    /// The relay's certificate, for clients that need a CA file.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.state().join("relay.crt")
    }

    /// `rendezvous id add`, for a relay whose port is not known yet.
    pub(crate) fn enrol(&self, name: &str, options: &[&str]) -> Enrolled {
        let ticket = self.folder.0.join(format!("{name}.made"));
        let mut add = rendezvous();
        add.args(["id", "add", name, "--relay", "https://127.0.0.1:1", "--state"]).arg(self.state());
        add.arg("--out").arg(&ticket).args(options);
        assert!(run(&mut add).status.success(), "id add {name}");
        let ticket = fs::read_to_string(ticket).expect("id add writes the ticket");
        let uri = ticket.split("otpauth://totp/rendezvous:").nth(1).expect("a Key URI");
        let (id, rest) = uri.split_once("?secret=").expect("a secret");
        let secret = rest.split(['&', '\n']).next().expect("a secret").to_owned();
        Enrolled { name: name.to_owned(), id: id.to_owned(), secret, ticket }
    }

    /// Enrols a hidden server of the kind of 2013. Returns also the file with its secret as text.
    pub(crate) fn enrol_old(&self, name: &str) -> (Enrolled, PathBuf) {
        let secret = self.folder.write(&format!("{name}.text"), "12345678901234567890");
        let base32 = self.folder.write(&format!("{name}.base32"), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n");
        let options =
            ["--tokens", "any", "--algorithm", "SHA1", "--digits", "6", "--period", "30", "--secret-file"];
        let base32 = base32.to_str().expect("a path of ours");
        let options: Vec<&str> = options.into_iter().chain([base32]).collect();
        (self.enrol(name, &options), secret)
    }

    /// `rendezvous serve` on two ports of its own choice.
    pub(crate) fn relay(&self, options: &[&str]) -> Relay {
        self.relay_at(["127.0.0.1:0", "127.0.0.1:0"], options)
    }

    /// Starts the same relay again, at the same addresses.
    pub(crate) fn relay_again(&self, old: &Relay, options: &[&str]) -> Relay {
        self.relay_at([&old.tls.to_string(), &old.clear.to_string()], options)
    }

    /// `rendezvous serve` at these two addresses.
    pub(crate) fn relay_at(&self, on: [&str; 2], options: &[&str]) -> Relay {
        Self::ready(Program::start("relay", &mut self.serve(on, options)))
    }

    /// The command `rendezvous serve` with these two addresses.
    pub(crate) fn serve(&self, [tls, clear]: [&str; 2], options: &[&str]) -> Command {
        let mut serve = rendezvous();
        serve.args(["serve", "--listen", tls, "--listen-plain", clear, "--state"]).arg(self.state());
        serve.args(options);
        serve
    }

    /// Awaits that a relay has started.
    pub(crate) fn ready(program: Program) -> Relay {
        program.expect_line(lines::READY);
        let tls = program.pick("the listen address", |line| address_of(line, true));
        let clear = program.pick("where it listens in clear", |line| address_of(line, false));
        let pin = program.pick("its pin", |line| {
            let pin = line.split_once("pin=sha256//")?.1.split([' ', '"']).next()?;
            Some(format!("sha256//{pin}"))
        });
        Relay { program, tls, clear, pin }
    }

    /// A ticket for a running relay, with this transport.
    pub(crate) fn ticket(&self, relay: &Relay, of: &Enrolled, below: Below) -> PathBuf {
        self.ticket_with(relay, of, below, |line| Some(line.to_owned()))
    }

    /// As [`Self::ticket`], with every line changed or left out.
    pub(crate) fn ticket_with(
        &self,
        relay: &Relay,
        of: &Enrolled,
        below: Below,
        change: impl Fn(&str) -> Option<String>,
    ) -> PathBuf {
        let url = relay.url(below);
        let line = |line: &str| match line {
            line if line.starts_with("relay ") => Some(format!("relay {url}")),
            // A pin is refused without TLS.
            line if line.starts_with("pin ") && below == Below::Clear => None,
            line => Some(line.to_owned()),
        };
        let text: String = of
            .ticket
            .lines()
            .filter_map(line)
            .filter_map(|line| change(&line))
            .flat_map(|line| [line, "\n".to_owned()])
            .collect();
        self.folder.write(&format!("{}-{}.ticket", of.name, below.scheme()), &text)
    }

    /// A ticket for a relay behind a path with this round-trip time, in milliseconds, and the path.
    pub(crate) fn far_ticket(&self, relay: &Relay, of: &Enrolled, round_trip: u32) -> (Program, PathBuf) {
        let mut line = Peer::Python.command();
        line.arg(script("delay_proxy.py"));
        line.args([(round_trip / 2).to_string(), relay.tls.port().to_string()]);
        let line = Program::start("line", &mut line);
        let port = line.pick("its port", |line| line.strip_prefix("port ")?.parse::<u16>().ok());
        let ticket = self.ticket_with(relay, of, Below::Tls13, |line| {
            let is_relay = line.starts_with("relay ");
            Some(if is_relay { format!("relay https://127.0.0.1:{port}") } else { line.to_owned() })
        });
        (line, ticket)
    }

    /// Starts `rendezvous agent`, and awaits that it waits for clients.
    pub(crate) fn agent(&self, relay: &Relay, of: &Enrolled, below: Below, options: &[&str]) -> Program {
        let ticket = self.ticket(relay, of, below);
        let agent = start_agent(&ticket, options);
        agent.expect_line(lines::WAITING);
        agent
    }

    /// A relay, an enrolled hidden server and its agent for an HTTP service.
    pub(crate) fn with_service(service: SocketAddr) -> (Self, Relay, Enrolled, Program) {
        let world = Self::new();
        let home = world.enrol("home", &[]);
        let relay = world.relay(&[]);
        let agent = world.agent(&relay, &home, Below::Tls13, &["--to", &service.to_string()]);
        (world, relay, home, agent)
    }

    /// A fresh token for a CONNECT's query, bound to a nonce.
    pub(crate) fn token(&self, relay: &Relay, of: &Enrolled) -> String {
        let ticket = self.ticket(relay, of, Below::Tls13);
        let token = run(rendezvous().args(["token", "--ticket"]).arg(ticket));
        assert!(token.status.success(), "token");
        String::from_utf8_lossy(&token.stdout).trim().to_owned()
    }

    /// The digits of a plain token.
    pub(crate) fn plain_token(&self, relay: &Relay, of: &Enrolled) -> String {
        let ticket = self.ticket(relay, of, Below::Tls13);
        let token = run(rendezvous().args(["token", "--plain", "--ticket"]).arg(ticket));
        assert!(token.status.success(), "token --plain");
        String::from_utf8_lossy(&token.stdout).trim().to_owned()
    }

    /// A hidden server that the test controls, after the 200.
    pub(crate) fn waiting(&self, relay: &Relay, of: &Enrolled, below: Below) -> Wire {
        let mut wire = relay.open(below);
        wire.send(format!("CONNECT uuid:{}?{} HTTP/1.1\r\n\r\n", of.id, self.token(relay, of)).as_bytes());
        let answer = crate::hidden::read_head(&mut wire);
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 200 OK\r\n\r\n");
        wire
    }
}

/// Starts `rendezvous agent` without awaiting it.
pub(crate) fn start_agent(ticket: &Path, options: &[&str]) -> Program {
    Program::start("agent", rendezvous().args(["agent", "--ticket"]).arg(ticket).args(options))
}

/// The `Authorization` of a client that requests a hidden server.
pub(crate) fn basic(id: &str) -> String {
    format!("Authorization: Basic {}\r\n", base64(format!("{id}:").as_bytes()))
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, place: u32| char::from(DIGITS[(group >> (18 - 6 * place) & 63) as usize]);
    let group = |chunk: &[u8]| {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        let (third, fourth) = (chunk.len() > 1, chunk.len() > 2);
        let or = |there: bool, place: u32| if there { digit(group, place) } else { '=' };
        [digit(group, 0), digit(group, 1), or(third, 2), or(fourth, 3)]
    };
    bytes.chunks(3).flat_map(group).collect()
}

/// The address in a line about a listener of the relay.
fn address_of(line: &str, tls: bool) -> Option<SocketAddr> {
    line.contains(if tls { "tls=yes" } else { "tls=no" }).then(|| listening_at(line)).flatten()
}

/// The address in a line about a listener.
pub(crate) fn listening_at(line: &str) -> Option<SocketAddr> {
    let line = line.contains(lines::LISTENING).then_some(line)?;
    line.split([' ', '=']).find_map(|word| word.parse().ok())
}
