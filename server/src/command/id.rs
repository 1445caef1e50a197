//! `rendezvous id`: manages the hidden servers of a relay.

mod enrol;
mod paste;
mod set;

use std::fmt::Write;

use miniserde::{Serialize, json};
use rendezvous_core::prefix::Prefix;

use crate::cert;
use crate::console::{print, print_error};
use crate::failure::Failure;
use crate::ids::{Edit, Entry, IDS_FILE, Ids};
use crate::options::{Opt, STATE, Spec, did_you_mean, parse};
use crate::relay_url::RelayUrl;
use crate::state::{self, State};
use crate::status::socket::{self, IdsChange};
use crate::ticket::parse_ca;
use crate::trust::Trust;

const HELP: &str = "\
Usage: rendezvous id COMMAND [OPTIONS] [NAME]

Enrols hidden servers in the relay's state folder. A running relay puts changes in force before the command ends.

Commands:
    id add NAME        enrol a hidden server and write its ticket
    id list            list all hidden servers, without secrets
    id show NAME       show one, and the commands for its clients
    id ticket NAME     write the ticket again
    id set NAME        rename, limit, disable or change it
    id rotate NAME     make a new secret and ticket; the old one stops working
    id remove NAME     remove it, and close its waiting connections

'rendezvous id COMMAND --help' lists the options.
";

type Run = fn(&[String]) -> Result<(), Failure>;

const COMMANDS: &[(&str, &Spec, Run)] = &[
    ("add", &enrol::ADD, enrol::add),
    ("list", &LIST, list_ids),
    ("show", &SHOW, show),
    ("set", &set::SET, set::set),
    ("rotate", &enrol::ROTATE, enrol::rotate),
    ("remove", &REMOVE, remove),
    ("ticket", &enrol::TICKET, enrol::ticket),
];

/// The arguments of each subcommand.
pub(super) fn specs() -> Vec<&'static Spec> {
    COMMANDS.iter().map(|(_, spec, _)| *spec).collect()
}

/// Runs `id` with the remaining arguments.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if the change could not be made.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let Some((name, rest)) = args.split_first() else { return Err(Failure::Help(HELP.to_owned())) };
    if let Some((.., run)) = COMMANDS.iter().find(|(known, ..)| known == name) {
        return run(rest);
    }
    if matches!(name.as_str(), "-h" | "--help") {
        return Err(Failure::Help(HELP.to_owned()));
    }
    let known = || COMMANDS.iter().map(|(known, ..)| *known);
    let meant = did_you_mean(name, known()).map(|meant| format!(", did you mean 'id {meant}'?"));
    let meant = meant.unwrap_or_else(|| format!(": one of {}", Vec::from_iter(known()).join(", ")));
    Err(Failure::Usage(format!("unknown command 'id {name}'{meant}")))
}

const LIST: Spec = Spec {
    command: "id list",
    operands: &[],
    summary: "Lists the enrolled hidden servers, without their secrets.",
    options: &[STATE, Opt::flag("json", "print a JSON array")],
    footer: "",
};

fn list_ids(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&LIST, args)?;
    let path = state::find_existing(matches.one("state"))?.join(IDS_FILE);
    let ids = Ids::load(&path)?;
    ids.errors.iter().for_each(|complaint| print_error(Some("id"), complaint));
    if matches.flag("json") {
        return print(&json(&ids.entries));
    }
    if ids.entries.is_empty() {
        print_error(
            Some("id"),
            &format!("no hidden server is enrolled in {} (rendezvous id add NAME)", path.display()),
        );
        return Ok(());
    }
    print(&table(&ids.entries))
}

const SHOW: Spec = Spec {
    command: "id show",
    operands: &["NAME"],
    summary: "Shows an enrolled hidden server, without its secret.",
    options: &[enrol::RELAY.explained("also print the commands for its clients"), enrol::CA, STATE],
    footer: "",
};

fn show(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SHOW, args)?;
    let relay = matches.get_if("relay", RelayUrl::parse)?;
    let folder = state::find_existing(matches.one("state"))?;
    let path = folder.join(IDS_FILE);
    let ids = Ids::load(&path)?;
    let name = matches.operands().concat();
    let entry = ids.get(&name).ok_or_else(|| ids.nobody(&name, &path))?;
    let mut text = details(entry);
    if let Some(relay) = relay {
        // The existing pin: `id show` does not make or change a certificate.
        let trust = match matches.get_if("ca", parse_ca)? {
            Some(given) => given,
            None if relay.tls => match socket::served_certificate(&folder) {
                Some(served) if served.changes_keys => Trust::System,
                Some(served) => Trust::Pins(vec![served.pin]),
                None => Trust::Pins(vec![cert::pin_of_file(&folder.join(cert::CERT_FILE))?]),
            },
            None => Trust::System,
        };
        text.push_str(&paste::for_clients(entry, &relay, &trust));
    }
    print(&text)
}

const REMOVE: Spec = Spec {
    command: "id remove",
    operands: &["NAME"],
    summary: "Removes a hidden server. A running relay closes its waiting connections.",
    options: &[STATE],
    footer: "",
};

fn remove(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&REMOVE, args)?;
    let state = State::open_for_owner(matches.one("state"))?;
    let mut edit = Edit::begin(&state)?;
    let entry = edit.remove(&matches.operands().concat())?;
    commit(edit)?;
    print(&format!("{entry} is removed\n"))
}

/// Writes the file and waits until a running relay has read it.
fn commit(edit: Edit<'_>) -> Result<(), Failure> {
    let (state, within) = (edit.state(), socket::IDS_TIMEOUT.as_secs());
    edit.commit()?;
    let path = state.file(IDS_FILE);
    match socket::await_ids(state.folder(), &path) {
        IdsChange::InForce => {}
        IdsChange::NotRead => print_error(
            Some("id"),
            &format!(
                "note: {} is changed, but the running relay has not read it within {within} s: the change is not in \
                 force yet (if the relay refused the file, its log says why)",
                path.display()
            ),
        ),
        IdsChange::Unknown => print_error(
            Some("id"),
            "note: the running relay is of another version: the change is in force within two seconds",
        ),
    }
    Ok(())
}

fn details(entry: &Entry) -> String {
    let key = &entry.key;
    let labels = if entry.labels.is_empty() { "-".to_owned() } else { entry.labels.join(", ") };
    let rows = [
        ("name", entry.name.clone()),
        ("id", entry.id.to_string()),
        ("tokens", entry.tokens.name().to_owned()),
        ("labels", labels),
        ("tls", if entry.end_to_end { "end-to-end" } else { "relay" }.to_owned()),
        ("access", if entry.steering.disabled { "disabled" } else { "enabled" }.to_owned()),
        ("max pairs", limit(entry.steering.max_pairs, "")),
        ("rate", limit(entry.steering.rate, " bytes/s each way")),
        ("quota", limit(entry.steering.quota, " bytes/month")),
        ("allow", list(&entry.steering.allow, "all")),
        ("deny", list(&entry.steering.deny, "-")),
        ("algorithm", key.algorithm().name().to_owned()),
        ("digits", key.digits().to_string()),
        ("period", format!("{} s", key.period())),
    ];
    rows.iter().map(|(what, value)| format!("{what:<10} {value}\n")).collect()
}

fn limit(limit: Option<impl std::fmt::Display>, unit: &str) -> String {
    limit.map_or("-".to_owned(), |limit| format!("{limit}{unit}"))
}

fn list(prefixes: &[Prefix], empty: &str) -> String {
    match prefixes {
        [] => empty.to_owned(),
        _ => prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn table(entries: &[Entry]) -> String {
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0).max("NAME".len());
    let mut text = format!("{:<width$}  {:<36}  {:<6}  LABELS\n", "NAME", "ID", "TOKENS");
    for entry in entries {
        let id = entry.id.to_string();
        let labels = if entry.labels.is_empty() { "-".to_owned() } else { entry.labels.join(",") };
        let _ = writeln!(text, "{:<width$}  {id}  {:<6}  {labels}", entry.name, entry.tokens.name());
    }
    text
}

/// One enrolled hidden server, as `--json` prints it.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    id: String,
    tokens: &'a str,
    labels: &'a [String],
    end_to_end: bool,
    algorithm: &'a str,
    digits: u32,
    period: u64,
    disabled: bool,
    max_pairs: Option<u32>,
    rate: Option<u64>,
    quota: Option<u64>,
    allow: Vec<String>,
    deny: Vec<String>,
}

/// A JSON array with one line for each entry.
fn json(entries: &[Entry]) -> String {
    let row = |entry: &Entry| {
        let row = Row {
            name: &entry.name,
            id: entry.id.to_string(),
            tokens: entry.tokens.name(),
            labels: &entry.labels,
            end_to_end: entry.end_to_end,
            algorithm: entry.key.algorithm().name(),
            digits: entry.key.digits().into(),
            period: entry.key.period().into(),
            disabled: entry.steering.disabled,
            max_pairs: entry.steering.max_pairs,
            rate: entry.steering.rate,
            quota: entry.steering.quota,
            allow: entry.steering.allow.iter().map(ToString::to_string).collect(),
            deny: entry.steering.deny.iter().map(ToString::to_string).collect(),
        };
        format!("  {}", json::to_string(&row))
    };
    let rows: Vec<String> = entries.iter().map(row).collect();
    if rows.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", rows.join(",\n")) }
}
