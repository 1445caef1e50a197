//! The commands that `id add` prints, ready to paste.

use std::path::Path;

use crate::ids::Entry;
use crate::relay_url::RelayUrl;
use crate::trust::Trust;

/// The command to run next to the hidden server.
pub(super) fn for_agent(ticket: &Path, entry: &Entry) -> String {
    let ticket = quoted(&ticket.display().to_string());
    let (option, then) = if entry.end_to_end {
        (" --end-to-end", "\nIts log has the pin of its key: event=end-to-end pin=sha256//…\n")
    } else {
        ("", "")
    };
    format!(
        "\nOn the hidden server's machine, with the ticket there (mode 600):\n\n    \
         rendezvous agent --ticket {ticket} --to 127.0.0.1:8080{option}\n{then}"
    )
}

/// The commands for clients: curl, and ssh through the connector.
pub(super) fn for_clients(entry: &Entry, relay: &RelayUrl, trust: &Trust) -> String {
    let (name, id) = (&entry.name, entry.id);
    let (curl, connect) = match trust {
        _ if !relay.tls => (String::new(), String::new()),
        // curl verifies the certificate in addition to the pin; `-k` turns that off.
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
    if entry.end_to_end {
        let id_label = id.to_string();
        let label = entry.labels.first().unwrap_or(&id_label);
        let port = if relay.port == 443 { String::new() } else { format!(":{}", relay.port) };
        let host = &relay.host;
        return format!(
            "\nA browser, if the relay has --domain {host}: https://{label}.{host}{port}/\n\n\
             A client, with the pin from the agent's log:\n\n    \
             curl -k --pinnedpubkey 'sha256//…' https://{label}.{host}{port}/\n\n\
             ssh, if the agent has --stream 127.0.0.1:22; in ~/.ssh/config:\n\n    \
             Host {name}\n        ProxyCommand rendezvous connect {relay} {id}{connect} --end-to-end sha256//…\n"
        );
    }
    format!(
        "\nA client:\n\n    curl --digest -u {id}:{curl} {relay}/\n\n\
         ssh, if the agent has --stream 127.0.0.1:22; in ~/.ssh/config:\n\n    \
         Host {name}\n        ProxyCommand rendezvous connect {relay} {id}{connect}\n"
    )
}

/// Quotes a word for the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
