//! The commands that `id add` prints, ready to paste.

#[cfg(feature = "qr")]
use std::io;
use std::path::Path;

use crate::ids::Entry;
#[cfg(feature = "qr")]
use crate::linux;
use crate::options::value::public_host;
use crate::relay_url::RelayUrl;
use crate::trust::Trust;

/// The command to run next to the hidden server.
pub(super) fn for_agent(ticket: &Path, entry: &Entry, relay: &RelayUrl) -> String {
    let ticket = quoted(&ticket.display().to_string());
    let option = if entry.end_to_end { " --end-to-end" } else { "" };
    let acme = certificate_of_ca(entry, relay).map(|options| {
        format!(
            "or, with a certificate that browsers trust, if port 443 leads to the relay:\n    \
             rendezvous agent --ticket {ticket} --to 127.0.0.1:8080{option}{options}\n"
        )
    });
    format!(
        "\nOn the hidden server's machine, with the ticket there (mode 600):\n    \
         rendezvous agent --ticket {ticket} --to 127.0.0.1:8080{option}\n{}",
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
    let by_name = format!("Browser, if the relay has --domain {}:\n    {page}\n", public_host(&relay.host));
    let ssh = format!(
        "ssh, if the agent has --stream 127.0.0.1:22; in ~/.ssh/config:\n    \
         Host {name}\n        ProxyCommand rendezvous connect {relay} {id}{connect}"
    );
    if entry.end_to_end {
        return format!(
            "\n{by_name}\
             curl, with the pin from the agent's log (event=end-to-end pin=sha256//…):\n    \
             curl -k --pinnedpubkey 'sha256//…' {page}\n\
             {ssh} --end-to-end sha256//…\n"
        );
    }
    let by_name = if has_names(relay) { by_name } else { String::new() };
    format!(
        "\n{by_name}\
         Browser, without --domain (user name: the ID, password: anything):\n    {relay}/\n\
         curl:\n    curl --digest -u {id}:{curl} {relay}/\n\
         {ssh}\n\
         End-to-end TLS: rendezvous id set {name} --end-to-end on; agent --end-to-end\n"
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

/// A QR code of the URL of a hidden server with a label, for phones. Empty if the relay is an address, which has no names
/// below it, or if the terminal of standard output has no room for it beside `rest`, the text around it.
#[cfg(feature = "qr")]
pub(super) fn qr_code(entry: &Entry, relay: &RelayUrl, rest: &str) -> String {
    let Some((rows, columns)) = linux::terminal_size(&io::stdout()) else { return String::new() };
    if entry.labels.is_empty() || !has_names(relay) {
        return String::new();
    }
    let code = blocks(&page(entry, relay));
    if has_room(rest, &code, rows.into(), columns.into()) {
        format!("\nFor a phone:\n{code}")
    } else {
        String::new()
    }
}

/// Whether both texts fit into a terminal, with the command, its title and the next prompt.
#[cfg(feature = "qr")]
fn has_room(rest: &str, code: &str, rows: usize, columns: usize) -> bool {
    const AROUND: usize = 5;
    let wrapped = |line: &str| line.chars().count().div_ceil(columns.max(1)).max(1);
    // A row of the code starts and ends with a sequence that sets colours and takes no room.
    let width = code.lines().next().map_or(0, |row| row.chars().count()) - COLOURS.len() - RESET.len();
    width <= columns && rest.lines().map(wrapped).sum::<usize>() + code.lines().count() + AROUND <= rows
}

#[cfg(not(feature = "qr"))]
pub(super) fn qr_code(_: &Entry, _: &RelayUrl, _: &str) -> String {
    String::new()
}

/// Black on white.
#[cfg(feature = "qr")]
const COLOURS: &str = "\x1b[30;47m";
#[cfg(feature = "qr")]
const RESET: &str = "\x1b[0m";

/// A QR code in half blocks, with the quiet zone that scanners need: dark on light, whatever the colours of the terminal.
#[cfg(feature = "qr")]
fn blocks(text: &str) -> String {
    use qrcodegen::{QrCode, QrCodeEcc};

    const QUIET: i32 = 4;
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Low) else { return String::new() };
    let mut lines = String::new();
    for y in (-QUIET..code.size() + QUIET).step_by(2) {
        lines.push_str("    ");
        lines.push_str(COLOURS);
        for x in -QUIET..code.size() + QUIET {
            lines.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        lines.push_str(RESET);
        lines.push('\n');
    }
    lines
}

/// Quotes a word for the shell.
pub(super) fn quoted(word: &str) -> String {
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

    #[test]
    fn a_qr_code_is_printed_where_nothing_scrolls_away() {
        let code = blocks("https://home.relay.example.com/");
        let rest = format!("{}\n{}", "a line", "x".repeat(100));
        // 17 rows of code, one for the first line, two for the second, five around them.
        assert!(has_room(&rest, &code, 25, 80));
        assert!(!has_room(&rest, &code, 24, 80));
        assert!(!has_room(&rest, &code, 100, 36), "37 columns with the indentation");
        assert!(has_room(&rest, &code, 100, 37));
    }
}
