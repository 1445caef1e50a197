//! `rendezvous status`: shows the state of a running relay.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use miniserde::json;

use super::columns::{bytes, columns, shown, span};
use crate::console::print;
use crate::failure::{Failure, reason};
use crate::options::{Opt, STATE, Spec, parse};
use crate::state;
use crate::status::document::{Document, Reason};
use crate::status::listing::{Connection, Connections};
use crate::status::{control, socket};

/// The options of `status`.
pub(super) const SPEC: Spec = Spec {
    command: "status",
    operands: &[],
    summary: "Shows the state of a running relay: waiting connections, pairs, bytes, refusals and resources.",
    options: &[
        STATE,
        Opt::flag(
            "connections",
            "show each connection instead: its peer, hidden server, age, bytes and how it came",
        ),
        Opt::flag("ready", "only check whether the relay accepts connections, for health checks"),
        Opt::flag("watch", "show it again every two seconds, until Ctrl-C"),
        Opt::flag("json", "print a JSON object"),
    ],
    footer: "\
It reads the relay's socket, control.sock in the state folder, which only its owner (and root) may open.
'SEEN' is the time since the hidden server was last connected. Counters start at the relay's
start. Exit code 1 if no relay runs with that state folder. With --ready also if the relay shuts
down, or has no valid certificate.",
};

/// The interval of `--watch`.
const WATCH: Duration = Duration::from_secs(2);
/// Clears a terminal.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if no relay runs or it does not respond.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let folder = state::find(matches.one("state"))?;
    let (connections, is_json) = (matches.flag("connections"), matches.flag("json"));
    if matches.flag("ready") {
        if connections || is_json || matches.flag("watch") {
            return Err(Failure::Usage(
                "--ready cannot be combined with other options than --state".to_owned(),
            ));
        }
        return check_ready(&folder);
    }
    if !matches.flag("watch") {
        return print(&text(&folder, connections, is_json)?);
    }
    let clear = if io::stdout().is_terminal() && !is_json { CLEAR } else { "" };
    loop {
        print(&format!("{clear}{}", text(&folder, connections, is_json)?))?;
        thread::sleep(WATCH);
    }
}

/// Checks whether the relay accepts connections, as `GET /ready` does.
fn check_ready(folder: &Path) -> Result<(), Failure> {
    control::get(folder, "/ready").map(drop).map_err(|error| match socket::ask(folder) {
        // Says whether a relay runs at all.
        Err(failure) => failure,
        Ok(_) => Failure::Failed(format!("the relay is not ready: {}", reason(&error))),
    })
}

/// What is shown once.
fn text(folder: &Path, connections: bool, is_json: bool) -> Result<String, Failure> {
    let bad =
        || Failure::Failed("the relay's answer is incomplete or from another version: try again".to_owned());
    if connections {
        let document = control::get(folder, "/api/connections").map_err(|error| {
            // Says whether a relay runs at all.
            match socket::ask(folder) {
                Err(failure) => failure,
                Ok(_) => Failure::of_file("ask the relay at", &folder.join(control::NAME), &error),
            }
        })?;
        let listed: Connections = json::from_str(&document).map_err(|_| bad())?;
        return Ok(if is_json { document } else { listing(listed) });
    }
    // A relay that has no control socket has a status socket, which leaves out IDs beyond 96 KiB.
    let document = match control::get(folder, "/api/status") {
        Ok(document) => document,
        Err(_) => socket::ask(folder)?,
    };
    let status = Document::parse(&document).ok_or_else(bad)?;
    Ok(if is_json { document } else { table(&status) })
}

/// The connections as a table: those of pairs and held clients first, the oldest first.
fn listing(mut listed: Connections) -> String {
    let order = |of: &Connection| (of.state != "paired", of.state != "held", of.state != "waiting");
    listed.connections.sort_by(|a, b| {
        (order(a), &a.name, b.seconds, &a.conn).cmp(&(order(b), &b.name, a.seconds, &b.conn))
    });
    let mut rows = vec![
        ["CONN", "PEER", "NAME", "STATE", "CAME BY", "SINCE", "RECEIVED", "SENT", "PAIRED WITH"]
            .map(str::to_owned),
    ];
    let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), shown);
    rows.extend(listed.connections.iter().map(|of| {
        [
            shown(&of.conn),
            or_dash(&of.peer),
            or_dash(&of.name),
            if of.side.is_empty() {
                shown(&of.state)
            } else {
                format!("{} ({})", shown(&of.state), shown(&of.side))
            },
            if of.named_by.is_empty() {
                shown(&of.transport)
            } else {
                format!("{}, {}", shown(&of.transport), shown(&of.named_by))
            },
            of.seconds.map_or("-".to_owned(), span),
            bytes(of.received),
            bytes(of.sent),
            or_dash(&of.paired_with),
        ]
    }));
    let mut text = String::new();
    columns(&rows, &mut text);
    text.trim_start().to_owned()
}

/// The document as a table. Control characters in it are escaped.
fn table(status: &Document) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "rendezvous {}, process {}, up {}{}",
        shown(&status.version),
        status.pid,
        span(status.uptime),
        if status.stopping { ", stopping" } else { "" }
    );
    for older in status.older.iter().flatten() {
        let since = crate::clock::wall().saturating_sub(older.started);
        let _ = writeln!(
            text,
            "older        process {}, up {}: {} connections, {} pairs",
            older.pid,
            span(since),
            older.connections,
            older.pairs
        );
    }
    let of = &status.connections;
    let _ = writeln!(
        text,
        "connections  {} of {}: {} handshakes, {} heads, {} answers, {} waiting, {} held, {} paired, {} closing",
        of.now, of.max, of.handshakes, of.heads, of.answers, of.waiting, of.held, of.paired, of.closing
    );
    let (used, most) = (bytes(status.buffers.bytes), bytes(status.buffers.max));
    let _ = writeln!(text, "buffers      {used} of {most}, {} pipes", status.pipes);
    let known = |number: Option<u64>| number.map_or("?".to_owned(), |it| it.to_string());
    let _ =
        writeln!(text, "descriptors  {} of {}", known(status.descriptors.now), known(status.descriptors.max));
    let _ = writeln!(text, "relayed      {}", bytes(status.bytes.relayed));
    let _ = writeln!(
        text,
        "challenged   {}, hand-overs failed {}, log lines left out {}, lost {}",
        status.challenged, status.hand_overs_failed, status.log_lines_left_out, status.log_lines_lost
    );
    certificates(status, &mut text);
    ids(status, &mut text);
    reasons(status, &mut text);
    text
}

/// The certificates from a CA.
fn certificates(status: &Document, text: &mut String) {
    let mut rows = vec![
        ["CERTIFICATE", "STATE", "DAYS LEFT", "NEXT TRY", "FAILURES", "LAST FAILURE"].map(str::to_owned),
    ];
    rows.extend(status.certificates.iter().map(|of| {
        [
            shown(&of.name),
            shown(&of.state),
            of.days_left.map_or("-".to_owned(), |days| days.to_string()),
            match of.next_in {
                0 => "now".to_owned(),
                next => span(next),
            },
            of.failures.to_string(),
            shown(&of.last_failure),
        ]
    }));
    if rows.len() > 1 {
        columns(&rows, text);
    }
}

fn ids(status: &Document, text: &mut String) {
    let mut rows = vec![
        ["NAME", "ID", "WAITING", "HELD", "PAIRS", "ENDED", "FROM CLIENTS", "FROM HIDDEN", "SEEN"]
            .map(str::to_owned),
    ];
    rows.extend(status.ids.iter().map(|of| {
        [
            shown(&of.name),
            shown(&of.id),
            of.waiting.to_string(),
            of.held.to_string(),
            of.pairs.to_string(),
            of.pairs_ended.to_string(),
            bytes(of.from_client),
            bytes(of.from_hidden),
            of.seen.map_or("never".to_owned(), |seen| match seen {
                0 => "now".to_owned(),
                seen => span(seen),
            }),
        ]
    }));
    columns(&rows, text);
    if status.ids_left_out > 0 {
        let _ = writeln!(text, "… and {} more", status.ids_left_out);
    }
}

fn reasons(status: &Document, text: &mut String) {
    let mut rows = vec![["COUNT", "WHAT", "WHY"].map(str::to_owned)];
    let row = |what: String, why: &str, count: u64| [count.to_string(), what, shown(why)];
    rows.extend(status.refused.iter().map(|of| row(format!("refused {}", of.status), &of.why, of.count)));
    let of_kind = |what: &'static str, reasons: &[Reason]| {
        Vec::from_iter(reasons.iter().map(|of| row(what.to_owned(), &of.why, of.count)))
    };
    rows.extend(of_kind("dropped", &status.dropped));
    rows.extend(of_kind("waiting ended", &status.waiting_ended));
    if rows.len() > 1 {
        columns(&rows, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::Enrolled;

    #[test]
    fn nothing_in_the_table_controls_a_terminal() {
        let status = Document {
            version: "1\u{1b}[2J".to_owned(),
            ids: vec![Enrolled {
                name: "\u{7}\u{9b}31m".to_owned(),
                id: "é".to_owned(),
                ..Enrolled::default()
            }],
            dropped: vec![Reason { why: "\r\nx".to_owned(), count: 3 }],
            ..Document::default()
        };
        let table = table(&status);
        assert!(table.chars().all(|c| c == '\n' || matches!(c, ' '..='~' | 'é')), "{table:?}");
        assert!(
            table.contains(r"1\u{1b}[2J") && table.contains(r"\u{7}\u{9b}31m") && table.contains(r"\r\nx")
        );
    }
}
