//! `id set`: changes the name, the labels and the limits of an enrolled hidden server.

use rendezvous_core::prefix::Prefix;

use super::commit;
use super::enrol::read_label;
use crate::console::print;
use crate::failure::Failure;
use crate::ids::steering::{PREFIXES_MAX, QUOTA_MAX, RATE_MAX, RATE_MIN, max_pairs};
use crate::ids::{Edit, Entry, Steering, is_name};
use crate::options::{Matches, Opt, STATE, Spec, parse, value};
use crate::state::State;

/// The value that removes a limit.
const NONE: &str = "none";

pub(super) const SET: Spec = Spec {
    command: "id set",
    operands: &["NAME"],
    summary: "Changes an enrolled hidden server, all or nothing. The change is in force in a running relay before the \
              command ends.",
    options: &[
        Opt::one(
            "rename",
            "NAME",
            "",
            "give it another name in logs and commands; its ID, its secret and its ticket stay",
        ),
        Opt::many(
            "label",
            "add=LABEL|remove=LABEL",
            "",
            "add or remove a name under the relay's --domain; may be repeated",
        ),
        Opt::flag("disable", "end its connections, and refuse its agents and clients until --enable"),
        Opt::flag("enable", "serve it again"),
        Opt::one("max-pairs", "N|none", "as it is", "limit of its pairs, below the relay's --max-pairs"),
        Opt::one(
            "rate",
            "BYTES/S|none",
            "as it is",
            "limit of bytes per second in each direction, shared by all of its pairs (100000, 64k, 10M)",
        ),
        Opt::one(
            "quota",
            "BYTES|none",
            "as it is",
            "limit of bytes per calendar month (UTC), both directions together; then its clients are refused",
        ),
        Opt::many(
            "allow",
            "ADDR[/BITS]|all",
            "as it is",
            "serve only clients from these addresses; replaces the earlier list",
        ),
        Opt::many(
            "deny",
            "ADDR[/BITS]|none",
            "as it is",
            "refuse clients from these addresses, even allowed ones; replaces the earlier list",
        ),
        Opt::one(
            "end-to-end",
            "on|off",
            "as it is",
            "whether its agent or its service terminates its clients' TLS, instead of the relay",
        ),
        STATE,
    ],
    footer: "\
Pairs that the change forbids end at once. A rate holds for the present pairs too. Each relay applies a rate
and a quota on its own: on three relays they are three limits.",
};

/// `id set NAME`.
pub(super) fn set(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SET, args)?;
    let name = matches.operands().concat();
    let change = Change::read(&matches)?;
    let state = State::open_for_owner(matches.one("state"))?;
    let mut edit = Edit::begin(&state)?;
    let old = edit.get(&name)?.clone();
    let new = change.apply(&old)?;
    if new == old {
        return print(&format!("{old} is unchanged\n"));
    }
    edit.replace(&name, &new)?;
    commit(edit)?;
    print(&format!("{new} is changed: {}\n", describe(&old, &new).join(", ")))
}

/// The requested change.
#[derive(Default)]
struct Change {
    rename: Option<String>,
    labels: Vec<LabelChange>,
    disabled: Option<bool>,
    max_pairs: Option<Option<u32>>,
    rate: Option<Option<u64>>,
    quota: Option<Option<u64>>,
    allow: Option<Vec<Prefix>>,
    deny: Option<Vec<Prefix>>,
    end_to_end: Option<bool>,
}

enum LabelChange {
    Add(String),
    Remove(String),
}

impl Change {
    fn read(matches: &Matches) -> Result<Change, Failure> {
        let disabled = match (matches.flag("disable"), matches.flag("enable")) {
            (true, true) => {
                return Err(Failure::Usage("--disable and --enable exclude each other".to_owned()));
            }
            (false, false) => None,
            (is_disabled, _) => Some(is_disabled),
        };
        let change = Change {
            rename: matches.get_if("rename", new_name)?,
            labels: matches.get_all("label", label_change)?,
            disabled,
            max_pairs: matches.get_if("max-pairs", or_none(max_pairs))?,
            rate: matches.get_if("rate", or_none(value::size(RATE_MIN, RATE_MAX)))?,
            quota: matches.get_if("quota", or_none(value::size(1, QUOTA_MAX)))?,
            allow: prefixes(matches, "allow", "all")?,
            deny: prefixes(matches, "deny", NONE)?,
            end_to_end: matches.get_if("end-to-end", value::one_of(&["on", "off"]))?.map(|at| at == 0),
        };
        if change.is_empty() {
            return Err(Failure::Usage(
                "nothing to change: give an option ('rendezvous id set --help' lists them)".to_owned(),
            ));
        }
        Ok(change)
    }

    fn is_empty(&self) -> bool {
        let Change { rename, labels, disabled, max_pairs, rate, quota, allow, deny, end_to_end } = self;
        rename.is_none()
            && labels.is_empty()
            && disabled.is_none()
            && max_pairs.is_none()
            && rate.is_none()
            && quota.is_none()
            && allow.is_none()
            && deny.is_none()
            && end_to_end.is_none()
    }

    fn apply(self, old: &Entry) -> Result<Entry, Failure> {
        let mut labels = old.labels.clone();
        for change in self.labels {
            match change {
                LabelChange::Add(label) if labels.contains(&label) => {
                    return Err(Failure::Failed(format!(
                        "--label: '{}' already has the label '{label}'",
                        old.name
                    )));
                }
                LabelChange::Add(label) => labels.push(label),
                LabelChange::Remove(label) if !labels.contains(&label) => {
                    return Err(Failure::Failed(format!("--label: '{}' has no label '{label}'", old.name)));
                }
                LabelChange::Remove(label) => labels.retain(|other| *other != label),
            }
        }
        let was = &old.steering;
        Ok(Entry {
            name: self.rename.unwrap_or_else(|| old.name.clone()),
            labels,
            end_to_end: self.end_to_end.unwrap_or(old.end_to_end),
            steering: Steering {
                disabled: self.disabled.unwrap_or(was.disabled),
                max_pairs: self.max_pairs.unwrap_or(was.max_pairs),
                rate: self.rate.unwrap_or(was.rate),
                quota: self.quota.unwrap_or(was.quota),
                allow: self.allow.unwrap_or_else(|| was.allow.clone()),
                deny: self.deny.unwrap_or_else(|| was.deny.clone()),
            },
            ..old.clone()
        })
    }
}

fn new_name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("'{text}' is not a valid name: use 1 to 64 letters, digits, - _ ."))
    }
}

fn label_change(text: &str) -> Result<LabelChange, String> {
    match text.split_once('=') {
        Some(("add", label)) => read_label(label).map(LabelChange::Add),
        Some(("remove", label)) => Ok(LabelChange::Remove(label.to_ascii_lowercase())),
        _ => Err(format!("'{text}' is not add=LABEL or remove=LABEL")),
    }
}

/// Parses `none` or a limit.
fn or_none<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| if text == NONE { Ok(None) } else { parse(text).map(Some) }
}

/// The new list of addresses; `None` if the option is not given. `empty` alone makes the list empty.
fn prefixes(matches: &Matches, option: &str, empty: &str) -> Result<Option<Vec<Prefix>>, Failure> {
    let usage = |text: String| Err(Failure::Usage(format!("--{option}: {text}")));
    match matches.many(option).as_slice() {
        [] => return Ok(None),
        [only] if *only == empty => return Ok(Some(Vec::new())),
        all if all.contains(&empty) => return usage(format!("'{empty}' must be the only value")),
        _ => {}
    }
    let prefixes = matches.get_all(option, value::prefix)?;
    if prefixes.len() > PREFIXES_MAX {
        return usage(format!("more than {PREFIXES_MAX} ranges of addresses"));
    }
    let repeated = prefixes.iter().enumerate().find(|(at, prefix)| prefixes[..*at].contains(prefix));
    match repeated {
        Some((_, prefix)) => usage(format!("'{prefix}' is repeated")),
        None => Ok(Some(prefixes)),
    }
}

/// The settings that differ.
fn describe(old: &Entry, new: &Entry) -> Vec<String> {
    let list = |prefixes: &[Prefix], empty: &str| super::list(prefixes, empty);
    let (was, is) = (&old.steering, &new.steering);
    let mut changes = Vec::new();
    let mut add = |differs: bool, text: String| {
        if differs {
            changes.push(text);
        }
    };
    add(old.name != new.name, format!("name {} (was {})", new.name, old.name));
    add(
        old.labels != new.labels,
        format!("labels {}", if new.labels.is_empty() { "-".to_owned() } else { new.labels.join(" ") }),
    );
    add(was.disabled != is.disabled, if is.disabled { "disabled" } else { "enabled" }.to_owned());
    add(was.max_pairs != is.max_pairs, format!("max pairs {}", super::limit(is.max_pairs, "")));
    add(was.rate != is.rate, format!("rate {}", super::limit(is.rate, " bytes/s each way")));
    add(was.quota != is.quota, format!("quota {}", super::limit(is.quota, " bytes/month")));
    add(was.allow != is.allow, format!("allow {}", list(&is.allow, "all")));
    add(was.deny != is.deny, format!("deny {}", list(&is.deny, "-")));
    let end_to_end = if new.end_to_end { "on" } else { "off" };
    add(old.end_to_end != new.end_to_end, format!("end-to-end {end_to_end}"));
    changes
}
