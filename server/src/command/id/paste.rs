//! What `id add` prints, ready to paste.

use std::path::Path;

use rendezvous_core::id::Id;

use crate::relay_url::RelayUrl;
use crate::trust::Trust;

/// What is typed beside the hidden server.
pub(super) fn for_agent(ticket: &Path) -> String {
    format!(
        "\nOn the hidden server's machine, with the ticket there (mode 600):\n\n    \
         rendezvous agent --ticket {} --to 127.0.0.1:8080\n",
        quoted(&ticket.display().to_string())
    )
}

/// What clients type: curl, and ssh through the connector.
pub(super) fn for_clients(name: &str, id: Id, relay: &RelayUrl, trust: &Trust) -> String {
    let (curl, connect) = match trust {
        _ if !relay.tls => (String::new(), String::new()),
        // curl checks the pin beside the certificate, not instead of it: -k leaves the pin alone to decide.
        Trust::Pins(pins) => {
            let all = pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(";");
            let each: String = pins.iter().map(|pin| format!(" --pin {pin}")).collect();
            (format!(" -k --pinnedpubkey '{all}'"), each)
        }
        Trust::CaFile(path) => {
            let path = quoted(&path.display().to_string());
            (format!(" --cacert {path}"), format!(" --ca {path}"))
        }
        Trust::System => (String::new(), " --ca system".to_owned()),
        Trust::Insecure => (" -k".to_owned(), String::new()),
    };
    format!(
        "\nA client:\n\n    curl --digest -u {id}:{curl} {relay}/\n\n\
         ssh, where the agent has --stream 127.0.0.1:22; in ~/.ssh/config:\n\n    \
         Host {name}\n        ProxyCommand rendezvous connect {relay} {id}{connect}\n"
    )
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
