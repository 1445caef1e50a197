//! Memory per pair: `rendezvous proxy` beside Prosody's mod_proxy65, with the same number of sockets.
//!
//! ```text
//! cargo bench -p tests --bench proxy        # needs prosody: apt-get install prosody
//! ```
//!
//! Measures the resident memory (VmRSS) of the process for each of 300 pairs: after its first socket is known, when
//! both are joined without traffic, and after it has carried 64 KiB each way with all others open. The idle figure is
//! the whole process. Prosody's includes an XMPP server, so compare the growth.

#![allow(clippy::disallowed_methods, reason = "a benchmark waits for real programs")]

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rendezvous_core::bytestream::name::StreamId;
use rendezvous_core::bytestream::stanza::{Query, Stanza};
use rendezvous_core::bytestream::xmpp::{NAMESPACE, write};
use rendezvous_core::xmpp::component::{Action, Component, Secret};
use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::iq::{Iq, Kind};
use rendezvous_core::xmpp::jid::{IqId, Jid};
use sha1::{Digest, Sha1};

const PAIRS: usize = 300;
const SECRET: &str = "bench";
const OURS: &str = "proxy.localhost";
const THEIRS: &str = "proxy65.localhost";
const ENDS: &str = "ends.localhost";
const SOCKS: &str = "http://jabber.org/protocol/bytestreams";
const CHUNK: usize = 64 * 1024;
/// How often it tries to connect to a program that starts.
const TRIES: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    let folder = Folder::new();
    let Some(server) = Server::start(&folder.0) else {
        return println!("proxy: prosody is not installed (apt-get install prosody)");
    };
    let ours = Ours::start(&folder.0, &server);
    println!("{:<22}{:>12}{:>18}{:>18}{:>18}", "", "idle", "a waiting side", "a joined pair", "after 64 KiB");
    let mut ends = Ends::connect(server.components);
    report("rendezvous proxy", &ours.program, &mut Claims { ends: &mut ends, at: ours.at });
    report("mod_proxy65 (select)", &server.program, &mut Socks { ends: &mut ends, at: server.socks });
}

/// How the two sides of a pair connect to a proxy.
trait Sides {
    fn first(&mut self, pair: usize) -> TcpStream;

    /// Joined when it returns.
    fn second(&mut self, pair: usize) -> TcpStream;
}

/// Measures a process while its pairs are made.
fn report(name: &str, program: &Running, sides: &mut dyn Sides) {
    let idle = program.settled();
    let first: Vec<_> = (0..PAIRS).map(|pair| sides.first(pair)).collect();
    let waiting = program.settled();
    let second: Vec<_> = (0..PAIRS).map(|pair| sides.second(pair)).collect();
    let joined = program.settled();
    for (one, other) in first.iter().zip(&second) {
        pass(one, other);
        pass(other, one);
    }
    let used = program.settled();
    let each = |now: u64| format!("{:.1} kB", (now as f64 - idle as f64) / PAIRS as f64);
    let (waiting, joined, used) = (each(waiting), each(joined), each(used));
    println!("{name:<22}{:>9.1} MB{waiting:>18}{joined:>18}{used:>18}", idle as f64 / 1000.0);
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let bytes = vec![7; CHUNK];
    let mut got = vec![0; CHUNK];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&bytes).expect("can write"));
        to.read_exact(&mut got).expect("what was sent arrives");
    });
    assert!(got == bytes, "what was sent arrives as it was");
}

/// Our proxy: each socket is claimed.
struct Claims<'a> {
    ends: &'a mut Ends,
    at: SocketAddr,
}

impl Claims<'_> {
    fn claim(&mut self, side: &str, pair: usize) -> TcpStream {
        let sock = TcpStream::connect(self.at).expect("it listens");
        let endpoint = SocketAddr::new(self.at.ip(), sock.local_addr().expect("connected").port());
        let query = Query::Claim { sid: StreamId::new(&format!("stream-{pair}")), endpoint: Some(endpoint) };
        let id = IqId::new(&format!("{side}{pair}")).expect("short");
        let stanza = Stanza { peer: jid(OURS), id, query };
        self.ends.emit(&write(&stanza, &name(side, pair), NAMESPACE));
        sock
    }
}

impl Sides for Claims<'_> {
    fn first(&mut self, pair: usize) -> TcpStream {
        self.claim("a", pair)
    }

    fn second(&mut self, pair: usize) -> TcpStream {
        let sock = self.claim("b", pair);
        self.ends.await_result();
        self.ends.await_result();
        sock
    }
}

/// mod_proxy65: SOCKS5, and an activation (XEP-0065).
struct Socks<'a> {
    ends: &'a mut Ends,
    at: SocketAddr,
}

impl Socks<'_> {
    fn connect(&self, pair: usize) -> TcpStream {
        let text = format!("stream-{pair}{}{}", name("a", pair).as_str(), name("b", pair).as_str());
        let hash: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sock = TcpStream::connect(self.at).expect("it listens");
        sock.write_all(&[5, 1, 0]).expect("can write");
        sock.read_exact(&mut [0; 2]).expect("a method");
        let request = [&[5, 1, 0, 3, 40][..], hash.as_bytes(), &[0, 0]].concat();
        sock.write_all(&request).expect("can write");
        sock.read_exact(&mut [0; 47]).expect("an answer");
        sock
    }
}

impl Sides for Socks<'_> {
    fn first(&mut self, pair: usize) -> TcpStream {
        self.connect(pair)
    }

    fn second(&mut self, pair: usize) -> TcpStream {
        let sock = self.connect(pair);
        let activate = Element::new(SOCKS, "activate").with_text(name("b", pair).as_str());
        let query = Element::new(SOCKS, "query").with("sid", &format!("stream-{pair}")).with_child(activate);
        let id = IqId::new(&format!("s{pair}"));
        self.ends.emit(&Iq {
            from: name("a", pair),
            to: jid(THEIRS),
            id,
            kind: Kind::Set,
            payload: Some(query),
        });
        self.ends.await_result();
        sock
    }
}

/// The XMPP entities of all ends: a component of the server.
struct Ends {
    sock: TcpStream,
    component: Component,
    read: Vec<u8>,
}

impl Ends {
    fn connect(at: SocketAddr) -> Self {
        let mut sock = TcpStream::connect(at).expect("it listens");
        let (component, header) = Component::begin(ENDS, Secret::new(SECRET.as_bytes()));
        sock.write_all(&header).expect("can write");
        let mut ends = Self { sock, component, read: Vec::new() };
        while !matches!(ends.receive(), Action::Up) {}
        ends
    }

    fn receive(&mut self) -> Action {
        loop {
            let mut rest = &self.read[..];
            let received = self.component.read(&mut rest);
            self.read = rest.to_vec();
            match received {
                Some(Action::Say(bytes)) => self.sock.write_all(&bytes).expect("can write"),
                Some(received) => return received,
                None => {
                    let mut more = [0; 4096];
                    let bytes = self.sock.read(&mut more).expect("the server talks");
                    assert!(bytes > 0, "the server ended the stream");
                    self.read.extend_from_slice(&more[..bytes]);
                }
            }
        }
    }

    fn emit(&mut self, iq: &Iq) {
        let mut text = Vec::new();
        iq.write(&mut text);
        self.sock.write_all(&text).expect("can write");
    }

    fn await_result(&mut self) {
        match self.receive() {
            Action::Iq(Iq { kind: Kind::Result, .. }) => {}
            other => panic!("no result: {other:?}"),
        }
    }
}

fn jid(text: &str) -> Jid {
    Jid::parse(text).expect("a JID")
}

fn name(side: &str, pair: usize) -> Jid {
    jid(&format!("{side}{pair}@{ENDS}/x"))
}

/// A process, killed when it is dropped.
struct Running(Child);

impl Running {
    /// Resident memory in kB, when it no longer grows.
    fn settled(&self) -> u64 {
        let mut before = 0;
        loop {
            thread::sleep(10 * PAUSE);
            let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux");
            let now = line.trim().trim_end_matches(" kB").parse().expect("a number");
            if std::mem::replace(&mut before, now) == now {
                return now;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prosody, with its own proxy.
struct Server {
    program: Running,
    components: SocketAddr,
    socks: SocketAddr,
}

impl Server {
    /// `None` if it is not installed.
    fn start(folder: &Path) -> Option<Self> {
        let [components, socks] = [(); 2].map(|()| free());
        let configuration = folder.join("prosody.cfg.lua");
        fs::write(&configuration, configure(folder, components, socks)).expect("a file can be written");
        let mut command = Command::new("prosody");
        command.arg("--config").arg(configuration).arg("-F").stdout(Stdio::null());
        let program = Running(command.spawn().ok()?);
        await_port(components);
        await_port(socks);
        Some(Self { program, components, socks })
    }
}

fn configure(folder: &Path, components: SocketAddr, socks: SocketAddr) -> String {
    let folder = folder.display();
    let component = |name| format!("Component \"{name}\"\n\tcomponent_secret = \"{SECRET}\"\n");
    format!(
        "data_path = \"{folder}\"\npidfile = \"{folder}/pid\"\ncertificates = \"{folder}\"\n\
         log = {{ error = \"*console\" }}\nrun_as_root = true\n\
         -- the default, epoll, stalls the tail of what the proxy moves (0.12.3)\n\
         network_backend = \"select\"\nuse_ipv6 = false\ninterfaces = {{ \"127.0.0.1\" }}\n\
         component_ports = {{ {} }}\nproxy65_ports = {{ {} }}\nc2s_ports = {{ }}\n\
         modules_disabled = {{ \"s2s\", \"c2s\", \"tls\", \"posix\" }}\nVirtualHost \"localhost\"\n{}{}\
         Component \"{THEIRS}\" \"proxy65\"\n\tproxy65_address = \"127.0.0.1\"\n\tproxy65_open_access = true\n",
        components.port(),
        socks.port(),
        component(ENDS),
        component(OURS)
    )
}

/// Our proxy.
struct Ours {
    program: Running,
    at: SocketAddr,
}

impl Ours {
    fn start(folder: &Path, server: &Server) -> Self {
        let at = free();
        let secret = folder.join("secret");
        fs::write(&secret, SECRET).expect("a file can be written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let mut command = Command::new(build());
        command.args([
            "proxy",
            "--xmpp",
            &server.components.to_string(),
            "--component",
            OURS,
            "--log",
            "error",
        ]);
        command.arg("--secret-file").arg(secret).args(["--listen", &at.to_string()]);
        let program = Running(command.spawn().expect("it can be run"));
        await_port(at);
        Self { program, at }
    }
}

/// The release binary.
fn build() -> PathBuf {
    let here = env::current_exe().expect("this program is a file");
    // TARGET/PROFILE/deps/NAME
    let target = here.ancestors().nth(3).expect("a target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--package", "rendezvous", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    let built = cargo.arg("--target-dir").arg(target).status();
    assert!(built.is_ok_and(|status| status.success()), "cargo cannot build the binary");
    target.join("release/rendezvous")
}

/// A port that is free at the moment.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    listener.local_addr().expect("it has an address")
}

fn await_port(at: SocketAddr) {
    for _ in 0..TRIES {
        if TcpStream::connect(at).is_ok() {
            return;
        }
        thread::sleep(PAUSE);
    }
    panic!("nobody listens at {at}");
}

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("rendezvous-bench-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
