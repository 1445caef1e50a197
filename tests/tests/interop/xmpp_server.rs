//! Real XMPP servers on ports of their own, with components for our programs and accounts for others.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::program::Program;
use crate::world::Folder;
use crate::{ejabberd, prosody};

/// The secret of every component.
pub(crate) const SECRET: &str = "s3cret";

/// Accounts of the host `localhost`. A password is the name and `pw`.
pub(crate) const ACCOUNTS: [&str; 2] = ["alice", "bob"];

/// Attempts with other ports, if another program has taken one meanwhile.
const ATTEMPTS: usize = 5;

/// A running server.
pub(crate) struct XmppServer {
    pub(crate) program: Program,
    pub(crate) ports: Ports,
    folder: Folder,
    launch: Launch,
}

/// Where a server listens.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// Where components connect.
    pub(crate) components: SocketAddr,
    /// Where accounts connect, in clear.
    pub(crate) clients: SocketAddr,
}

/// Starts the server whose files are in this folder and awaits its ports. Returns `None` if it did not get them.
type Launch = fn(&Path) -> Option<Program>;

impl XmppServer {
    /// Prosody with these components.
    pub(crate) fn prosody(components: &[&str]) -> Self {
        Self::start(|folder, ports| prosody::configure(folder, ports, components), prosody::launch)
    }

    /// ejabberd with these components.
    pub(crate) fn ejabberd(components: &[&str]) -> Self {
        Self::start(|folder, ports| ejabberd::configure(folder, ports, components), ejabberd::launch)
    }

    fn start(configure: impl Fn(&Path, Ports), launch: Launch) -> Self {
        let folder = Folder::new();
        for _ in 0..ATTEMPTS {
            let [components, clients] = [(); 2].map(|()| free());
            let ports = Ports { components, clients };
            configure(&folder.0, ports);
            if let Some(program) = launch(&folder.0) {
                return Self { program, ports, folder, launch };
            }
        }
        panic!("the server finds no free ports");
    }

    /// Kills it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// The same server again, on the same ports.
    pub(crate) fn start_again(&mut self) {
        self.program = (self.launch)(&self.folder.0).expect("its ports are free again");
    }

    /// A file with the components' secret, for its owner alone.
    pub(crate) fn secret_file(&self) -> PathBuf {
        self.folder.write("secret", &format!("{SECRET}\n"))
    }

    /// A file in the server's folder, which goes with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// `--xmpp HOST:PORT --component NAME --secret-file FILE`, as our programs take it.
    pub(crate) fn options(&self, component: &str) -> Vec<String> {
        let file = self.secret_file();
        let file = file.to_str().expect("a path of ours");
        ["--xmpp", &self.ports.components.to_string(), "--component", component, "--secret-file", file]
            .map(str::to_owned)
            .to_vec()
    }
}

/// Writes a file of a server's configuration.
pub(crate) fn write(file: &Path, text: &str) {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).expect("a folder can be made");
    }
    fs::write(file, text).expect("a file can be written");
}

/// A port that is free at the moment.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    listener.local_addr().expect("a listener has an address")
}
