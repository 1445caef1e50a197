//! Shared by all scenarios: certificate, identities, the server behind the relays, and the relays.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rendezvous::key_uri;
use rendezvous_core::id::Id;
use rendezvous_core::token::{Algorithm, Key};
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::Failure;
use crate::args::Args;
use crate::end;
use crate::peers::{self, Kind, Relay};
use crate::process::prepare;
use crate::sink::Sink;

/// Number of enrolled hidden servers.
const IDENTITIES: u128 = 16;

/// Minimum descriptors of the load, and of each relay.
const DESCRIPTORS: u64 = 12_000;

/// An enrolled hidden server.
pub(crate) struct Identity {
    pub(crate) id: Id,
    key: Key,
    nonces: AtomicU64,
}

impl Identity {
    fn new(number: u128) -> Result<Self, Failure> {
        let key = Key::new(vec![0x5a; 32], Algorithm::Sha256, Key::DIGITS, Key::PERIOD_SECS)?;
        let id = Id(0xbe9c_0000_0000_4000_8000_0000_0000_0000 | number);
        Ok(Self { id, key, nonces: AtomicU64::new(0) })
    }

    /// A CONNECT with a fresh token.
    pub(crate) fn connect(&self) -> Result<String, Failure> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let nonce =
            format!("{:08x}-{:016x}", std::process::id(), self.nonces.fetch_add(1, Ordering::Relaxed));
        let mut head = format!("CONNECT uuid:{}?response=", self.id);
        for byte in self.key.bound(self.key.step(wall), nonce.as_bytes()) {
            write!(head, "{byte:02x}")?;
        }
        write!(head, "&nonce={nonce} HTTP/1.1\r\n\r\n")?;
        Ok(head)
    }

    /// A client's request to it.
    pub(crate) fn get(&self) -> String {
        let id = self.id;
        format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Digest username=\"{id}\", realm=\"rendezvous\", \
             nonce=\"0\", uri=\"/\", response=\"00000000000000000000000000000000\"\r\n\r\n"
        )
    }
}

/// The files that relays need.
pub(crate) struct Ground {
    folder: PathBuf,
    folders: AtomicU64,
    pub(crate) binary: PathBuf,
    pub(crate) against: Option<PathBuf>,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one file.
    pub(crate) both: PathBuf,
    pub(crate) sink: Sink,
    pub(crate) processors: usize,
    pub(crate) identities: Vec<Identity>,
    pub(crate) client: Arc<ClientConfig>,
}

impl Ground {
    /// The state folder of our relays.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A folder for one start of one relay.
    pub(crate) fn new_folder(&self) -> Result<PathBuf, Failure> {
        let folder = self.folder.join(self.folders.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The files, and the relays that run from the beginning to the end.
pub(crate) struct Field {
    // Before `ground`: they must end before their folder is removed.
    relays: Vec<Relay>,
    pub(crate) ground: Ground,
    kinds: Vec<Kind>,
}

impl Field {
    pub(crate) fn new(args: &Args) -> Result<Self, Failure> {
        // Before this process is bound to its processors, which cargo would inherit.
        let binary = match &args.binary {
            Some(binary) => {
                fs::canonicalize(binary).map_err(|error| format!("{}: {error}", binary.display()))?
            }
            None => build()?,
        };
        let processors = std::thread::available_parallelism()?.get();
        prepare(DESCRIPTORS, processors)?;
        let kinds = peers::present(args.against.is_some());
        let folder = env::temp_dir().join(format!("rendezvous-bench-{}", std::process::id()));
        fs::create_dir_all(folder.join("state"))?;
        let made = generate_simple_self_signed(["localhost".to_owned()])?;
        let [certificate, key, both] = write_certificate(&folder, &made)?;
        let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
        let sink = Sink::new(end::server_config(made.cert.der().clone(), secret)?)?;
        let identities = (0..IDENTITIES).map(Identity::new).collect::<Result<Vec<_>, _>>()?;
        enrol(&folder.join("state"), &identities)?;
        let ground = Ground {
            folder,
            folders: AtomicU64::new(0),
            binary,
            against: args.against.as_ref().map(fs::canonicalize).transpose()?,
            certificate,
            key,
            both,
            sink,
            processors,
            identities,
            client: end::client_config(false)?,
        };
        Ok(Self { relays: Vec::new(), ground, kinds })
    }

    /// The relays of these kinds that can run here, and the files. Starts those that do not run yet.
    pub(crate) fn cast(&mut self, wanted: impl Fn(&Kind) -> bool) -> Result<(Vec<&Relay>, &Ground), Failure> {
        for kind in self.kinds.iter().filter(|kind| wanted(kind)) {
            if !self.relays.iter().any(|relay| relay.kind == *kind) {
                self.relays.push(Relay::start(kind.clone(), &self.ground)?);
            }
        }
        let mut chosen: Vec<&Relay> = self.relays.iter().filter(|relay| wanted(&relay.kind)).collect();
        chosen.sort_by_key(|relay| Kind::ALL.iter().position(|kind| *kind == relay.kind));
        Ok((chosen, &self.ground))
    }

    /// The kinds that can run here.
    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The machine and the programs, by name and value.
    pub(crate) fn about(&self) -> Vec<(String, String)> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let model = read("/proc/cpuinfo");
        let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let mut about = vec![
            ("processor".to_owned(), model.trim_start_matches(['\t', ' ', ':']).to_owned()),
            ("processors".to_owned(), self.ground.processors.to_string()),
            ("kernel".to_owned(), read("/proc/sys/kernel/osrelease").trim().to_owned()),
            ("congestion".to_owned(), congestion_control()),
        ];
        about.push(("rendezvous".to_owned(), self.ground.binary.display().to_string()));
        for (program, option) in [("haproxy", "-v"), ("nginx", "-v"), ("rathole", "--version")] {
            let Some(path) = peers::find(program) else { continue };
            if let Ok(output) = Command::new(path).arg(option).output() {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                let words: Vec<_> = said.split_whitespace().take(8).collect();
                about.push((program.to_owned(), words.join(" ")));
            }
        }
        about
    }
}

/// The system's default congestion control.
fn congestion_control() -> String {
    let name = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    name.trim().to_owned()
}

/// Builds the release binary, beside this benchmark.
fn build() -> Result<PathBuf, Failure> {
    let here = env::current_exe()?;
    // TARGET/PROFILE/deps/NAME
    let target = here.ancestors().nth(3).ok_or("this program is in no target folder")?;
    let binary = target.join("release/rendezvous");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--package", "rendezvous", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    cargo.arg("--target-dir").arg(target);
    match cargo.status() {
        Ok(status) if status.success() => Ok(binary),
        Ok(status) => Err(format!("cargo build: {status}").into()),
        Err(_) if binary.is_file() => Ok(binary),
        Err(error) => {
            Err(format!("cannot run cargo ({error}), and {} is not there", binary.display()).into())
        }
    }
}

fn write_certificate(folder: &Path, made: &CertifiedKey<rcgen::KeyPair>) -> Result<[PathBuf; 3], Failure> {
    let [certificate, key, both] = ["crt", "key", "pem"].map(|name| folder.join(name));
    let (crt, secret) = (made.cert.pem(), made.signing_key.serialize_pem());
    write_secret(&certificate, &crt)?;
    write_secret(&key, &secret)?;
    write_secret(&both, &format!("{crt}{secret}"))?;
    Ok([certificate, key, both])
}

fn enrol(state: &Path, identities: &[Identity]) -> Result<(), Failure> {
    let mut ids = String::new();
    for (number, identity) in identities.iter().enumerate() {
        writeln!(
            ids,
            "bench-{number}  {}  tokens=bound",
            key_uri::print(identity.id, &identity.key).as_str()
        )?;
    }
    write_secret(&state.join("ids"), &ids)
}

fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
