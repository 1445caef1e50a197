//! Prosody, for the tests with an XMPP server.

use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::harness::{Case, case};
use crate::peers::Peer;
use crate::program::Program;
use crate::xmpp_server::{ACCOUNTS, Ports, SECRET, XmppServer, write};

pub(crate) const CASES: &[Case] =
    &[case("it_restarts_on_the_same_ports", &[Peer::Prosody], it_restarts_on_the_same_ports)];

fn configuration(folder: &Path) -> PathBuf {
    folder.join("prosody.cfg.lua")
}

/// The backend: `epoll` stalls the tail of what its own proxy moves (0.12.3).
pub(crate) fn configure(folder: &Path, ports: Ports, components: &[&str]) {
    for name in ACCOUNTS {
        let account = format!("return {{\n\t[\"password\"] = \"{name}pw\";\n}};\n");
        write(&folder.join(format!("data/localhost/accounts/{name}.dat")), &account);
    }
    let components = components.iter().map(|name| {
        format!("Component \"{name}\"\n\tcomponent_secret = \"{SECRET}\"\n\tcomponent_conflict_resolve = \"kick_old\"\n")
    });
    let text = format!(
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
         {}",
        ports.clients.port(),
        ports.components.port(),
        components.collect::<String>(),
        folder = folder.display(),
    );
    write(&configuration(folder), &text);
}

/// Starts it and awaits its ports. Returns `None` if it did not get them.
pub(crate) fn launch(folder: &Path) -> Option<Program> {
    let mut command = Peer::Prosody.command();
    command.arg("--config").arg(configuration(folder)).arg("-F");
    let program = Program::start("prosody", &mut command);
    let has = |service: &str| {
        let line = format!("Activated service '{service}' on ");
        program.pick(&line, |lines| lines.split_once(&line).map(|(_, where_to)| where_to.starts_with('[')))
    };
    (has("c2s") && has("component")).then_some(program)
}

/// Tests the fixture itself.
fn it_restarts_on_the_same_ports() {
    let mut server = XmppServer::prosody(&["a.localhost"]);
    let where_to = [server.ports.components, server.ports.clients];
    for _ in 0..2 {
        for address in where_to {
            TcpStream::connect(address).expect("it listens");
        }
        server.kill();
        assert!(TcpStream::connect(where_to[0]).is_err(), "killed, and still there");
        server.start_again();
    }
}
