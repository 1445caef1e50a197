//! The relay under test with its folder, enrolled identities, and real agents.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use rendezvous::key_uri;
use rendezvous_core::id::Id;
use rendezvous_core::token::{Algorithm, Key};

use crate::Failure;

/// Timeout of the relay's start and shutdown.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that is removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("rendezvous-soak-{}", std::process::id()));
        fs::create_dir_all(path.join("state"))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An enrolled hidden server.
pub(crate) struct Identity {
    pub(crate) id: Id,
    key: Key,
    nonces: u64,
}

impl Identity {
    fn new(number: usize) -> Result<Self, Failure> {
        let key = Key::new(vec![0x5a; 32], Algorithm::Sha256, Key::DIGITS, Key::PERIOD_SECS)?;
        Ok(Self { id: Id(0x50a4_0000_0000_4000_8000_0000_0000_0000 | number as u128), key, nonces: 0 })
    }

    /// A CONNECT with a fresh token.
    pub(crate) fn connect(&mut self) -> Result<String, Failure> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        self.nonces += 1;
        let nonce = format!("soak{:020}", self.nonces);
        let mut head = format!("CONNECT uuid:{}?response=", self.id);
        for byte in self.key.bound(self.key.step(wall), nonce.as_bytes()) {
            write!(head, "{byte:02x}")?;
        }
        write!(head, "&nonce={nonce} HTTP/1.1\r\n\r\n")?;
        Ok(head)
    }
}

/// Enrols this many.
pub(crate) fn enrol(folder: &Folder, count: usize) -> Result<Vec<Identity>, Failure> {
    let identities = (0..count).map(Identity::new).collect::<Result<Vec<_>, _>>()?;
    let mut ids = String::new();
    for (number, it) in identities.iter().enumerate() {
        writeln!(ids, "soak-{number}  {}  tokens=bound", key_uri::print(it.id, &it.key).as_str())?;
    }
    write_secret(&folder.0.join("state/ids"), &ids)?;
    Ok(identities)
}

fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// A running relay. It is killed when it is dropped.
pub(crate) struct Relay {
    child: Child,
    lines: Receiver<String>,
    pub(crate) tls: SocketAddr,
    pub(crate) clear: SocketAddr,
    pin: String,
    binary: PathBuf,
}

impl Relay {
    pub(crate) fn start(binary: &Path, folder: &Folder) -> Result<Self, Failure> {
        let config = folder.0.join("relay.conf");
        fs::write(&config, "max-connections 20000\nmax-waiting 512\n")?;
        let mut serve = Command::new(binary);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--listen-plain", "127.0.0.1:0", "--config"]);
        serve.arg(config).arg("--state").arg(folder.0.join("state"));
        serve.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = serve.spawn().map_err(|error| format!("cannot run {}: {error}", binary.display()))?;
        let (to, lines) = channel();
        let from = BufReader::new(child.stderr.take().ok_or("no stderr")?);
        thread::spawn(move || {
            for line in from.lines().map_while(Result::ok).filter(|line| is_of_interest(line)) {
                if to.send(line).is_err() {
                    break;
                }
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let binary = binary.to_owned();
        let mut relay = Self { child, lines, tls: nowhere, clear: nowhere, pin: String::new(), binary };
        relay.comes_up()?;
        Ok(relay)
    }

    fn comes_up(&mut self) -> Result<(), Failure> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).map_err(|_| "the relay does not come up")?;
            let value =
                |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
            match value("event=").as_deref() {
                Some("certificate") => self.pin = value("pin=").ok_or("no pin")?,
                Some("listening") if line.contains("tls=yes") => {
                    self.tls = value("on=").ok_or("no address")?.parse()?;
                }
                Some("listening") => self.clear = value("on=").ok_or("no address")?.parse()?,
                Some("ready") => return Ok(()),
                _ => {}
            }
        }
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<u64, Failure> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count() as u64)
    }

    /// How many of them are sockets: the relay may keep an empty pipe for the next pair.
    pub(crate) fn sockets(&self) -> Result<u64, Failure> {
        let links = fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.map_while(Result::ok);
        // A descriptor that was closed meanwhile has no link.
        let is_socket = |link: PathBuf| link.to_string_lossy().starts_with("socket:");
        Ok(links.filter(|entry| fs::read_link(entry.path()).is_ok_and(is_socket)).count() as u64)
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident(&self) -> Result<u64, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS: it has ended")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) -> Result<(), Failure> {
        let kill =
            Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status()?;
        if kill.success() {
            Ok(())
        } else {
            Err(format!("the relay takes no SIG{signal}: it has ended").into())
        }
    }

    /// Shuts it down. Returns how often it reloaded, and the errors that it logged.
    pub(crate) fn finish(&mut self) -> Result<(usize, Vec<String>), Failure> {
        self.signal("TERM")?;
        let mut said = Vec::new();
        // The lines end with the process.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            said.push(line);
        }
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("the relay ended with {status}").into());
        }
        let reloaded = said.iter().filter(|line| line.contains("event=reloaded")).count();
        said.retain(|line| is_bad(line));
        Ok((reloaded, said))
    }

    /// A ticket for that identity.
    pub(crate) fn ticket(&self, folder: &Folder, identity: &Identity) -> Result<PathBuf, Failure> {
        let path = folder.0.join(format!("{}.ticket", identity.id));
        let uri = key_uri::print(identity.id, &identity.key);
        write_secret(&path, &format!("relay https://{}\npin {}\nid {}\n", self.tls, self.pin, uri.as_str()))?;
        Ok(path)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_bad(line: &str) -> bool {
    line.contains(" ERROR ") || line.contains("panicked")
}

fn is_of_interest(line: &str) -> bool {
    let events = ["certificate", "listening", "ready", "reloaded"];
    is_bad(line) || events.iter().any(|event| line.contains(&format!("event={event}")))
}

/// A `rendezvous agent` process. It is killed with SIGKILL when it is dropped.
pub(crate) struct Agent {
    child: Child,
    ticket: PathBuf,
    to: SocketAddr,
    pub(crate) identity: usize,
}

impl Agent {
    pub(crate) fn start(
        relay: &Relay,
        ticket: PathBuf,
        to: SocketAddr,
        identity: usize,
    ) -> Result<Self, Failure> {
        let child = Self::spawn(relay, &ticket, to)?;
        Ok(Self { child, ticket, to, identity })
    }

    fn spawn(relay: &Relay, ticket: &Path, to: SocketAddr) -> Result<Child, Failure> {
        let mut agent = Command::new(&relay.binary);
        agent
            .args(["agent", "--pool", "8", "--log", "error", "--to", &to.to_string(), "--ticket"])
            .arg(ticket);
        Ok(agent.env_remove("RUST_LOG").stdin(Stdio::null()).spawn()?)
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts another in its place.
    pub(crate) fn start_again(&mut self, relay: &Relay) -> Result<(), Failure> {
        self.child = Self::spawn(relay, &self.ticket, self.to)?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
