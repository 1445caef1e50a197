//! The commands that `id add` prints, ready to paste.

#[cfg(feature = "qr")]
use std::io::{self, IsTerminal as _};
use std::path::Path;

use crate::ids::Entry;
use crate::options::value::public_host;
use crate::relay_url::RelayUrl;
use crate::trust::Trust;

/// The command to run next to the hidden server.
pub(super) fn for_agent(ticket: &Path, entry: &Entry, relay: &RelayUrl) -> String {
    let ticket = quoted(&ticket.display().to_string());
    let (option, then) = if entry.end_to_end {
        (" --end-to-end", "\nIts log has the pin of its key: event=end-to-end pin=sha256//…\n")
    } else {
        ("", "")
    };
    let acme = certificate_of_ca(entry, relay).map(|options| {
        format!(
            "\nWith a certificate that browsers trust, if the relay has --domain {} and port 443 leads to it:\n\n    \
             rendezvous agent --ticket {ticket} --to 127.0.0.1:8080{option}{options}\n",
            relay.host
        )
    });
    format!(
        "\nOn the hidden server's machine, with the ticket there (mode 600):\n\n    \
         rendezvous agent --ticket {ticket} --to 127.0.0.1:8080{option}\n{then}{}",
        acme.unwrap_or_default()
    )
}

/// The options for an end-to-end agent that gets its own certificate from a CA; `None` if no CA issues one.
fn certificate_of_ca(entry: &Entry, relay: &RelayUrl) -> Option<String> {
    let label = entry.labels.first().filter(|_| cfg!(feature = "acme") && entry.end_to_end)?;
    let is_public = has_names(relay) && relay.host.contains('.');
    is_public.then(|| format!(" --name {label}.{} --acme --acme-agree-tos", relay.host))
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
    let page = page(entry, relay);
    let host = public_host(&relay.host);
    let ssh = format!(
        "ssh, if the agent has --stream 127.0.0.1:22; in ~/.ssh/config:\n\n    \
         Host {name}\n        ProxyCommand rendezvous connect {relay} {id}{connect}"
    );
    if entry.end_to_end {
        return format!(
            "\nA browser, if the relay has --domain {host}: {page}\n\n\
             A client, with the pin from the agent's log:\n\n    \
             curl -k --pinnedpubkey 'sha256//…' {page}\n\n\
             {ssh} --end-to-end sha256//…\n"
        );
    }
    let by_user_name = format!("{relay}/ with the ID as user name, and any password");
    let browser = if has_names(relay) {
        format!("A browser, if the relay has --domain {host}: {page}\nOtherwise: {by_user_name}")
    } else {
        format!("A browser: {by_user_name}")
    };
    format!(
        "\n{browser}\n\n\
         A client:\n\n    curl --digest -u {id}:{curl} {relay}/\n\n\
         {ssh}\n\n\
         To keep the relay from reading the traffic: rendezvous id set {name} --end-to-end on, and agent --end-to-end\n"
    )
}

/// Whether names can be below the relay's host: not if it is an address.
fn has_names(relay: &RelayUrl) -> bool {
    relay.host.parse::<std::net::Ipv4Addr>().is_err() && !relay.host.contains(':')
}

/// The URL of a hidden server below the relay's host, if that is the relay's domain.
fn page(entry: &Entry, relay: &RelayUrl) -> String {
    let id = entry.id.to_string();
    let label = entry.labels.first().unwrap_or(&id);
    let (scheme, usual) = if relay.tls { ("https", 443) } else { ("http", 80) };
    let port = if relay.port == usual { String::new() } else { format!(":{}", relay.port) };
    format!("{scheme}://{label}.{}{port}/", relay.host)
}

/// A QR code of the URL of a hidden server with a label, for phones. Empty if standard output is no terminal, or if the
/// relay is an address, which has no names below it.
#[cfg(feature = "qr")]
pub(super) fn qr_code(entry: &Entry, relay: &RelayUrl) -> String {
    if entry.labels.is_empty() || !has_names(relay) || !io::stdout().is_terminal() {
        return String::new();
    }
    format!("\nFor a phone:\n\n{}", blocks(&page(entry, relay)))
}

#[cfg(not(feature = "qr"))]
pub(super) fn qr_code(_: &Entry, _: &RelayUrl) -> String {
    String::new()
}

/// A QR code in half blocks, with the quiet zone that scanners need: dark on light, whatever the colours of the terminal.
#[cfg(feature = "qr")]
fn blocks(text: &str) -> String {
    use qrcodegen::{QrCode, QrCodeEcc};

    const QUIET: i32 = 4;
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Low) else { return String::new() };
    let mut lines = String::new();
    for y in (-QUIET..code.size() + QUIET).step_by(2) {
        // Black on white.
        lines.push_str("    \x1b[30;47m");
        for x in -QUIET..code.size() + QUIET {
            lines.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        lines.push_str("\x1b[0m\n");
    }
    lines
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

#[cfg(all(test, feature = "qr"))]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_has_its_quiet_zone_and_its_finder_patterns() {
        let lines: Vec<String> =
            blocks("https://home.relay.example.com/").lines().map(str::to_owned).collect();
        let cells = |line: &str| line.replace("    \x1b[30;47m", "").replace("\x1b[0m", "");
        // Version 2 has 25 modules, with a quiet zone of four on each side: 33 columns in 17 rows of half blocks.
        assert!(lines.iter().all(|line| cells(line).chars().count() == 33), "{lines:#?}");
        assert_eq!(lines.len(), 17);
        assert_eq!(cells(&lines[0]).trim(), "");
        assert!(cells(&lines[2]).starts_with("    █▀▀▀▀▀█ "), "{}", lines[2]);
        assert!(cells(&lines[2]).ends_with(" █▀▀▀▀▀█    "), "{}", lines[2]);
    }
}
