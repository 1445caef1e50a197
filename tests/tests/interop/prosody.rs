//! A real XMPP server: Prosody on ports of its own, with components for our programs and accounts for others.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use crate::harness::{Case, case};
use crate::peers::Peer;
use crate::program::Program;
use crate::world::Folder;

pub(crate) const CASES: &[Case] =
    &[case("it_restarts_on_the_same_ports", &[Peer::Prosody], it_restarts_on_the_same_ports)];

/// The secret of every component.
pub(crate) const SECRET: &str = "s3cret";

/// Accounts of the host `localhost`. A password is the name and `pw`.
pub(crate) const ACCOUNTS: [&str; 2] = ["alice", "bob"];

/// How often other ports are tried, if another program has taken one.
const ATTEMPTS: usize = 5;

/// A running server.
pub(crate) struct Prosody {
    pub(crate) program: Program,
    /// Where components connect.
    pub(crate) components: SocketAddr,
    /// Where accounts connect, without TLS.
    pub(crate) clients: SocketAddr,
    folder: Folder,
}

impl Prosody {
    /// A server with these components, each with [`SECRET`].
    pub(crate) fn start(components: &[&str]) -> Self {
        let text = components
            .iter()
            .map(|name| format!("Component \"{name}\"\n\tcomponent_secret = \"{SECRET}\"\n\tcomponent_conflict_resolve = \"kick_old\"\n"));
        Self::with(&text.collect::<String>())
    }

    /// A server with this text at the end of its configuration.
    pub(crate) fn with(rest: &str) -> Self {
        let folder = Folder::new();
        let accounts = folder.0.join("data/localhost/accounts");
        fs::create_dir_all(&accounts).expect("a folder can be made");
        for name in ACCOUNTS {
            let account = format!("return {{\n\t[\"password\"] = \"{name}pw\";\n}};\n");
            fs::write(accounts.join(format!("{name}.dat")), account).expect("a file can be written");
        }
        for _ in 0..ATTEMPTS {
            let [components, clients] = [(); 2].map(|()| free());
            fs::write(configuration(&folder.0), configure(&folder.0, components, clients, rest))
                .expect("a file can be written");
            if let Some(program) = launch(&folder.0) {
                return Self { program, components, clients, folder };
            }
        }
        panic!("prosody finds no free ports");
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// The same server again, on the same ports.
    pub(crate) fn start_again(&mut self) {
        self.program = launch(&self.folder.0).expect("its ports are free again");
    }

    /// A file with the components' secret, readable by its owner only.
    pub(crate) fn secret_file(&self) -> PathBuf {
        self.folder.write("secret", &format!("{SECRET}\n"))
    }

    /// A file in the server's folder, deleted with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// `--xmpp HOST:PORT --component NAME --secret-file FILE`, the options of our programs.
    pub(crate) fn options(&self, component: &str) -> Vec<String> {
        let file = self.secret_file();
        let file = file.to_str().expect("a path of ours");
        ["--xmpp", &self.components.to_string(), "--component", component, "--secret-file", file]
            .map(str::to_owned)
            .to_vec()
    }
}

/// A port that is free at the moment.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    listener.local_addr().expect("a listener has an address")
}

fn configuration(folder: &Path) -> PathBuf {
    folder.join("prosody.cfg.lua")
}

/// Writes the configuration. The `epoll` backend (0.12.3) stalls the last bytes of its own proxy, so another is used.
fn configure(folder: &Path, components: SocketAddr, clients: SocketAddr, rest: &str) -> String {
    let folder = folder.display();
    format!(
        "data_path = \"{folder}/data\"\n\
         pidfile = \"{folder}/prosody.pid\"\n\
         certificates = \"{folder}\"\n\
         log = {{ info = \"*console\" }}\n\
         run_as_root = true\n\
         network_backend = \"select\"\n\
         use_ipv6 = false\n\
         interfaces = {{ \"127.0.0.1\" }}\n\
         component_interfaces = {{ \"127.0.0.1\" }}\n\
         c2s_ports = {{ {} }}\n\
         component_ports = {{ {} }}\n\
         modules_enabled = {{ \"saslauth\", \"disco\", \"ping\", \"roster\" }}\n\
         modules_disabled = {{ \"s2s\", \"tls\", \"posix\" }}\n\
         c2s_require_encryption = false\n\
         allow_unencrypted_plain_auth = true\n\
         authentication = \"internal_plain\"\n\
         VirtualHost \"localhost\"\n\
         {rest}",
        clients.port(),
        components.port()
    )
}

/// Starts it and awaits its ports; `None` if it did not get them.
fn launch(folder: &Path) -> Option<Program> {
    let mut command = Peer::Prosody.command();
    command.arg("--config").arg(configuration(folder)).arg("-F");
    let program = Program::start("prosody", &mut command);
    let has = |service: &str| {
        let line = format!("Activated service '{service}' on ");
        program.pick(&line, |said| said.split_once(&line).map(|(_, where_to)| where_to.starts_with('[')))
    };
    (has("c2s") && has("component")).then_some(program)
}

/// Tests the fixture itself.
fn it_restarts_on_the_same_ports() {
    let mut server = Prosody::start(&["a.localhost"]);
    let where_to = [server.components, server.clients];
    for _ in 0..2 {
        for address in where_to {
            TcpStream::connect(address).expect("it listens");
        }
        server.kill();
        assert!(TcpStream::connect(where_to[0]).is_err(), "killed, and still there");
        server.start_again();
    }
}
