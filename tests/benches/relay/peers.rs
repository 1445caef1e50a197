//! The relays, ours and the others, and their configurations.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::end::Below;
use crate::field::Ground;
use crate::process::Process;

/// How the two sides of a pair are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) client: Below,
    pub(crate) hidden: Below,
}

impl Transport {
    pub(crate) const TLS_TLS: Self = Self { client: Below::Tls, hidden: Below::Tls };
    pub(crate) const TLS_CLEAR: Self = Self { client: Below::Tls, hidden: Below::Clear };
    pub(crate) const CLEAR_CLEAR: Self = Self { client: Below::Clear, hidden: Below::Clear };
    pub(crate) const ALL: [Self; 3] = [Self::TLS_TLS, Self::TLS_CLEAR, Self::CLEAR_CLEAR];

    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.client.name(), self.hidden.name())
    }
}

/// A program and its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    /// Another binary of ours.
    Against,
    HaProxy,
    /// HAProxy with `option splice-auto`: without TLS the kernel moves the bytes itself.
    HaProxySplice,
    Nginx,
    /// Its server; its client runs beside the load.
    Rathole,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ours, Self::Against, Self::HaProxy, Self::HaProxySplice, Self::Nginx, Self::Rathole];

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ours => "rendezvous",
            Self::Against => "against",
            Self::HaProxy => "haproxy",
            Self::HaProxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::Rathole => "rathole",
        }
    }

    /// Whether it implements our protocol.
    pub(crate) const fn is_rendezvous(&self) -> bool {
        matches!(self, Self::Ours | Self::Against)
    }

    /// Whether it supports pairs with this transport.
    pub(crate) fn carries(&self, transport: Transport) -> bool {
        match self {
            Self::Ours | Self::Against | Self::HaProxy | Self::Nginx => true,
            Self::HaProxySplice | Self::Rathole => transport == Transport::CLEAR_CLEAR,
        }
    }

    fn program(&self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::Against => None,
            Self::HaProxy | Self::HaProxySplice => Some("haproxy"),
            Self::Nginx => Some("nginx"),
            Self::Rathole => Some("rathole"),
        }
    }
}

/// The path of a program; nginx and HAProxy may be in folders outside of PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// nginx's stream module, if it is not built in.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The kinds that can run here. Prints how to get the others.
pub(crate) fn present(against: bool) -> Vec<Kind> {
    let mut missing = Vec::new();
    let mut kinds = Kind::ALL.to_vec();
    kinds.retain(|kind| match kind.program() {
        None => *kind == Kind::Ours || against,
        Some(program) => {
            let there =
                find(program).is_some() && (*kind != Kind::Nginx || Path::new(NGINX_STREAM).is_file());
            if !there && !missing.contains(&program) {
                missing.push(program);
            }
            there
        }
    });
    if missing.contains(&"rathole") {
        eprintln!("relay: no rathole on the PATH: it is left out (cargo install rathole)");
    }
    let packages: Vec<_> = missing.iter().filter_map(|program| package(program)).collect();
    if !packages.is_empty() {
        eprintln!(
            "relay: left out: {}; get them by\n  apt-get install {}",
            missing.join(", "),
            packages.join(" ")
        );
    }
    kinds
}

fn package(program: &str) -> Option<&'static str> {
    match program {
        "haproxy" => Some("haproxy"),
        "nginx" => Some("nginx libnginx-mod-stream"),
        _ => None,
    }
}

/// A running relay.
pub(crate) struct Relay {
    pub(crate) kind: Kind,
    pub(crate) binary: PathBuf,
    pub(crate) process: Process,
    doors: Doors,
    /// rathole's client.
    _beside: Option<Process>,
}

/// Where a relay listens. Ours accepts all clients and hidden servers at one of two addresses; the others have a port
/// for each kind.
#[derive(Clone, Copy)]
struct Doors {
    tls_tls: SocketAddr,
    tls_clear: SocketAddr,
    clear_clear: SocketAddr,
    /// TLS, without a server behind it.
    alone: SocketAddr,
}

impl Relay {
    /// Starts it, without connections.
    pub(crate) fn start(kind: Kind, ground: &Ground) -> Result<Self, Failure> {
        let folder = ground.new_folder()?;
        let doors = Doors::new()?;
        let binary = match kind.program() {
            None if kind == Kind::Against => ground.against.clone().ok_or("no other binary")?,
            None => ground.binary.clone(),
            Some(program) => find(program).ok_or_else(|| format!("{program} is gone"))?,
        };
        let mut command = Command::new(&binary);
        let mut ready = doors.clear_clear;
        match kind {
            Kind::Ours | Kind::Against => ours(&mut command, ground, &doors, &folder)?,
            Kind::HaProxy | Kind::HaProxySplice => {
                let text = haproxy(ground, &doors, kind == Kind::HaProxySplice)?;
                command.arg("-db").arg("-f").arg(write(&folder, "haproxy.cfg", &text)?);
            }
            Kind::Nginx => {
                let text = nginx(ground, &doors, &folder)?;
                command.arg("-p").arg(&folder).arg("-c").arg(write(&folder, "nginx.conf", &text)?);
            }
            Kind::Rathole => {
                let control = free_port()?;
                let text = rathole(ground, &doors, control)?;
                command.arg("--server").arg(write(&folder, "rathole.toml", &text)?);
                ready = control;
            }
        }
        let process = Process::start(&mut command, 0, &folder.join("log"), ready)?;
        let beside = if kind == Kind::Rathole {
            let mut client = Command::new(&binary);
            client.arg("--client").arg(folder.join("rathole.toml"));
            Some(Process::start(
                &mut client,
                usize::from(ground.processors > 1),
                &folder.join("client.log"),
                doors.clear_clear,
            )?)
        } else {
            None
        };
        // A forwarding relay has forwarded the check whether it listens.
        process.settle()?;
        ground.sink.clear()?;
        Ok(Self { kind, binary, process, doors, _beside: beside })
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Where clients of such a pair connect.
    pub(crate) fn entrance(&self, transport: Transport) -> SocketAddr {
        match (transport.client, transport.hidden) {
            (Below::Tls, Below::Tls) => self.doors.tls_tls,
            (Below::Tls, Below::Clear) => self.doors.tls_clear,
            (Below::Clear, _) => self.doors.clear_clear,
        }
    }

    /// Where hidden servers connect, if this relay has any.
    pub(crate) fn back_entrance(&self, below: Below) -> SocketAddr {
        match below {
            Below::Tls => self.doors.tls_tls,
            Below::Clear => self.doors.clear_clear,
        }
    }

    /// Where a TLS handshake leads to no server.
    pub(crate) fn alone(&self) -> SocketAddr {
        self.doors.alone
    }
}

impl Doors {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            tls_tls: free_port()?,
            tls_clear: free_port()?,
            clear_clear: free_port()?,
            alone: free_port()?,
        })
    }
}

fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// The options of our relay. All loads come from one address. The folder is its own, because two relays never share
/// one.
fn ours(command: &mut Command, ground: &Ground, doors: &Doors, folder: &Path) -> Result<(), Failure> {
    let state = folder.join("state");
    fs::create_dir(&state)?;
    // With its mode, which denies access to other users.
    fs::copy(ground.state().join("ids"), state.join("ids"))?;
    command.arg("serve").arg("--state").arg(&state);
    command.arg("--cert").arg(&ground.certificate).arg("--key").arg(&ground.key);
    for door in [doors.tls_tls, doors.tls_clear, doors.alone] {
        command.args(["--listen", &door.to_string()]);
    }
    command.args(["--listen-plain", &doors.clear_clear.to_string(), "--log", "warn"]);
    command.args(["--max-connections", "30000", "--max-connections-per-address", "0"]);
    command.args(["--max-waiting", "20000", "--max-pairs", "20000"]);
    Ok(())
}

fn haproxy(ground: &Ground, doors: &Doors, splice: bool) -> Result<String, Failure> {
    let (server, pem) = (ground.sink.address()?, ground.both.display());
    let mut text = "global\n  nbthread 1\n  maxconn 4000\n  ssl-server-verify none\n\
         defaults\n  mode tcp\n  timeout connect 60s\n  timeout client 1h\n  timeout server 1h\n"
        .to_owned();
    if splice {
        text.push_str("  option splice-auto\n");
    }
    let tls = [
        ("tls_tls", doors.tls_tls, true, " ssl verify none"),
        ("tls_clear", doors.tls_clear, true, ""),
        ("clear_clear", doors.clear_clear, false, ""),
    ];
    for (name, door, front, back) in tls {
        let crt = if front { format!(" ssl crt {pem}") } else { String::new() };
        writeln!(text, "listen {name}\n  bind {door}{crt}\n  server sink {server}{back}")?;
    }
    writeln!(text, "frontend alone\n  mode http\n  bind {} ssl crt {pem}", doors.alone)?;
    text.push_str("  http-request return status 200\n");
    Ok(text)
}

fn nginx(ground: &Ground, doors: &Doors, folder: &Path) -> Result<String, Failure> {
    let (server, folder) = (ground.sink.address()?, folder.display());
    let (crt, key) = (ground.certificate.display(), ground.key.display());
    let mut text = format!(
        "load_module {NGINX_STREAM};\n\
         daemon off; master_process off; pid {folder}/pid; error_log {folder}/log error;\n\
         events {{ worker_connections 8000; }}\n\
         stream {{\n  proxy_buffer_size 64k; proxy_timeout 1h; tcp_nodelay on;\n\
         \x20 ssl_certificate {crt}; ssl_certificate_key {key};\n\
         \x20 ssl_protocols TLSv1.3; proxy_ssl_protocols TLSv1.3;\n"
    );
    writeln!(text, "  server {{ listen {} ssl; proxy_pass {server}; proxy_ssl on; }}", doors.tls_tls)?;
    writeln!(text, "  server {{ listen {} ssl; proxy_pass {server}; }}", doors.tls_clear)?;
    writeln!(text, "  server {{ listen {}; proxy_pass {server}; }}", doors.clear_clear)?;
    writeln!(text, "  server {{ listen {} ssl; return \"\"; }}\n}}", doors.alone)?;
    Ok(text)
}

fn rathole(ground: &Ground, doors: &Doors, control: SocketAddr) -> Result<String, Failure> {
    let (server, door) = (ground.sink.address()?, doors.clear_clear);
    Ok(format!(
        "[server]\nbind_addr = \"{control}\"\ndefault_token = \"bench\"\n\
         [server.services.sink]\nbind_addr = \"{door}\"\n\
         [client]\nremote_addr = \"{control}\"\ndefault_token = \"bench\"\n\
         [client.services.sink]\nlocal_addr = \"{server}\"\n"
    ))
}
