//! `rendezvous status`: shows the state of a running relay.

use std::fmt::Write as _;

use crate::console::print;
use crate::escape::Shown;
use crate::failure::Failure;
use crate::options::{Opt, STATE, Spec, parse};
use crate::state;
use crate::status::document::{Document, Reason};
use crate::status::socket;

pub(super) const SPEC: Spec = Spec {
    command: "status",
    operands: &[],
    summary: "Shows the state of a running relay: waiting connections, pairs, bytes, refusals and resources.",
    options: &[STATE, Opt::flag("json", "print a JSON object")],
    footer: "\
It reads the relay's socket, status.sock in the state folder, which only its owner (and root) may open.
'SEEN' is the time since the hidden server was last connected. Counters start at the relay's
start. Exit code 1 if no relay runs with that state folder.",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if no relay runs or it does not respond.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let document = socket::ask(&state::find(matches.one("state"))?)?;
    let status = Document::parse(&document).ok_or_else(|| {
        Failure::Failed("the relay's answer is incomplete or from another version: try again".to_owned())
    })?;
    print(&if matches.flag("json") { document } else { table(&status) })
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
    let of = &status.connections;
    let _ = writeln!(
        text,
        "connections  {} of {}: {} handshakes, {} heads, {} answers, {} waiting, {} held, {} paired, {} closing",
        of.now, of.max, of.handshakes, of.heads, of.answers, of.waiting, of.held, of.paired, of.closing
    );
    let (used, most) = (octets(status.buffers.octets), octets(status.buffers.max));
    let _ = writeln!(text, "buffers      {used} of {most}, {} pipes", status.pipes);
    let known = |number: Option<u64>| number.map_or("?".to_owned(), |it| it.to_string());
    let _ =
        writeln!(text, "descriptors  {} of {}", known(status.descriptors.now), known(status.descriptors.max));
    let _ = writeln!(text, "relayed      {}", octets(status.octets.relayed));
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
            octets(of.from_client),
            octets(of.from_hidden),
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

/// Appends an empty line and rows with aligned columns.
fn columns<const N: usize>(rows: &[[String; N]], text: &mut String) {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    text.push('\n');
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn shown(text: &str) -> String {
    Shown(text).to_string()
}

/// Formats seconds in the two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Formats a number of bytes with three or more digits.
fn octets(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let step = (count.ilog2() / 10).clamp(1, 6);
    let tenths = (u128::from(count) * 10) >> (10 * step);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[step as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::Enrolled;

    #[test]
    fn lengths_of_time_and_octets_are_for_reading() {
        assert_eq!([0, 59, 61, 3_700, 90_000].map(span), ["0s", "59s", "1m 1s", "1h 1m", "1d 1h"]);
        assert_eq!(
            [0, 1023, 1024, 1536, 50 << 20, u64::MAX].map(octets),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "50.0 MiB", "15.9 EiB"]
        );
    }

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
