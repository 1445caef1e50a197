//! `rendezvous status`: shows the state of a running relay.

use std::fmt::Write as _;

use crate::console::print;
use crate::escape::Shown;
use crate::failure::Failure;
use crate::json::Value;
use crate::options::{Opt, STATE, Spec, parse};
use crate::state;
use crate::status::socket;

const SPEC: Spec = Spec {
    command: "status",
    operands: &[],
    summary: "Shows what a running relay is doing: who waits, pairs, octets, what it refused and why, what it uses.",
    options: &[STATE, Opt::flag("json", "as one JSON object, for programs")],
    events: "\
It asks the relay's socket, status.sock in the state folder, which its owner (and root) may open.
'SEEN' is how long ago a connection of the hidden server was there. Counters begin at the relay's
start. Exit code 1 where no relay runs with that state folder.",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if no relay runs or it does not respond.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let document = socket::ask(&state::find(matches.one("state"))?)?;
    let value = Value::parse(&document).ok_or_else(|| {
        Failure::Failed("the relay's answer is not complete, or of another version: try again".to_owned())
    })?;
    print(&if matches.flag("json") { document } else { table(&value) })
}

/// Formats the status for the terminal. Control characters are escaped.
fn table(status: &Value) -> String {
    let mut text = String::new();
    let number = |of: Option<&Value>, name| of.and_then(|of| of.number(name)).unwrap_or_default();
    let (version, stopping) =
        (status.text("version").unwrap_or("?"), status.get("stopping") == Some(&Value::Bool(true)));
    let _ = writeln!(
        text,
        "rendezvous {}, process {}, up {}{}",
        shown(version),
        number(Some(status), "pid"),
        span(number(Some(status), "uptime")),
        if stopping { ", stopping" } else { "" }
    );
    let of = status.get("connections");
    let kinds = ["handshakes", "heads", "answers", "waiting", "held", "paired", "closing"];
    let kinds = kinds.map(|kind| format!("{} {kind}", number(of, kind))).join(", ");
    let _ = writeln!(text, "connections  {} of {}: {kinds}", number(of, "now"), number(of, "max"));
    let buffers = status.get("buffers");
    let (used, most) = (octets(number(buffers, "octets")), octets(number(buffers, "max")));
    let _ = writeln!(text, "buffers      {used} of {most}, {} pipes", number(Some(status), "pipes"));
    let of = status.get("descriptors");
    let known = |name| of.and_then(|of| of.number(name)).map_or("?".to_owned(), |it| it.to_string());
    let _ = writeln!(text, "descriptors  {} of {}", known("now"), known("max"));
    let _ = writeln!(text, "relayed      {}", octets(number(status.get("octets"), "relayed")));
    let _ = writeln!(
        text,
        "challenged   {}, hand-overs failed {}, log lines left out {}, lost {}",
        number(Some(status), "challenged"),
        number(Some(status), "hand_overs_failed"),
        number(Some(status), "log_lines_left_out"),
        number(Some(status), "log_lines_lost")
    );
    certificates(status, &mut text);
    ids(status, &mut text);
    reasons(status, &mut text);
    text
}

/// The certificates from a CA.
fn certificates(status: &Value, text: &mut String) {
    let mut rows = vec![
        ["CERTIFICATE", "STATE", "DAYS LEFT", "NEXT TRY", "FAILURES", "LAST FAILURE"].map(str::to_owned),
    ];
    for of in status.list("certificates") {
        rows.push([
            shown(of.text("name").unwrap_or("?")),
            shown(of.text("state").unwrap_or("?")),
            of.number("days_left").map_or("-".to_owned(), |days| days.to_string()),
            of.number("next_in").map_or("-".to_owned(), |next| match next {
                0 => "now".to_owned(),
                next => span(next),
            }),
            of.number("failures").unwrap_or_default().to_string(),
            shown(of.text("last_failure").unwrap_or("")),
        ]);
    }
    if rows.len() > 1 {
        columns(&rows, text);
    }
}

fn ids(status: &Value, text: &mut String) {
    let mut rows = vec![
        ["NAME", "ID", "WAITING", "HELD", "PAIRS", "ENDED", "FROM CLIENTS", "FROM HIDDEN", "SEEN"]
            .map(str::to_owned),
    ];
    for of in status.list("ids") {
        let number = |name| of.number(name).unwrap_or_default();
        rows.push([
            shown(of.text("name").unwrap_or("?")),
            shown(of.text("id").unwrap_or("?")),
            number("waiting").to_string(),
            number("held").to_string(),
            number("pairs").to_string(),
            number("pairs_ended").to_string(),
            octets(number("from_client")),
            octets(number("from_hidden")),
            of.number("seen").map_or("never".to_owned(), |seen| match seen {
                0 => "now".to_owned(),
                seen => span(seen),
            }),
        ]);
    }
    columns(&rows, text);
    let left_out = status.number("ids_left_out").unwrap_or_default();
    if left_out > 0 {
        let _ = writeln!(text, "… and {left_out} more");
    }
}

fn reasons(status: &Value, text: &mut String) {
    let mut rows = vec![["COUNT", "WHAT", "WHY"].map(str::to_owned)];
    for (name, what) in [("refused", "refused"), ("dropped", "dropped"), ("waiting_ended", "waiting ended")] {
        for of in status.list(name) {
            let what =
                of.number("status").map_or_else(|| what.to_owned(), |status| format!("{what} {status}"));
            let count = of.number("count").unwrap_or_default().to_string();
            rows.push([count, what, shown(of.text("why").unwrap_or("?"))]);
        }
    }
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
        let status = Value::parse(
            r#"{"version":"1\u001b[2J","ids":[{"name":"\u0007\u009b31m","id":"é"}],"dropped":[{"why":"\r\nx","count":3}]}"#,
        );
        let table = table(&status.unwrap());
        assert!(table.chars().all(|c| c == '\n' || matches!(c, ' '..='~' | 'é')), "{table:?}");
        assert!(
            table.contains(r"1\u{1b}[2J") && table.contains(r"\u{7}\u{9b}31m") && table.contains(r"\r\nx")
        );
    }
}
