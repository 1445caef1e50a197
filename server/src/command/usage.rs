//! `rendezvous usage`: shows the traffic of each hidden server by month or by day.

use std::collections::BTreeMap;

use miniserde::{Serialize, json};
use rendezvous_core::id::Id;

use super::columns::{bytes, columns, shown};
use crate::console::print;
use crate::failure::Failure;
use crate::ids::{IDS_FILE, Ids};
use crate::options::{Opt, STATE, Spec, parse};
use crate::state::{self, State};
use crate::status::control;
use crate::usage::{self, Amount, Record, Table, month_text};

/// The options of `usage`.
pub(super) const SPEC: Spec = Spec {
    command: "usage",
    operands: &[],
    summary: "Shows the traffic of each hidden server by month.",
    options: &[STATE, Opt::flag("days", "by day instead"), Opt::flag("json", "print a JSON object, by day and by month")],
    footer: "\
Days and months are in UTC. 40 days and 24 months are kept, also of IDs that were removed. A running relay is asked, and
the file 'usage' in the state folder is read if none runs. It keeps what moved before the last --usage-interval.",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
/// [`Failure`] for invalid options, or if the file cannot be read.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let folder = state::find_existing(matches.one("state"))?;
    let table = match control::get(&folder, "/api/usage") {
        Ok(text) => Table::parse(&text).0,
        Err(_) => usage::read(&State::open(matches.one("state"))?)?.0,
    };
    let ids = Ids::load(&folder.join(IDS_FILE))?;
    let names: BTreeMap<Id, String> = ids.entries.iter().map(|of| (of.id, of.name.clone())).collect();
    let text = if matches.flag("json") {
        json::to_string(&document(&table, &names)) + "\n"
    } else {
        rows(&table, &names, matches.flag("days"))
    };
    print(&text)
}

/// The JSON object.
#[derive(Serialize)]
struct Document {
    usage: Vec<OfId>,
}

#[derive(Serialize)]
struct OfId {
    /// The operator's name; `None` if the ID was removed.
    name: Option<String>,
    id: String,
    days: Vec<Entry>,
    months: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    date: String,
    from_client: u64,
    from_hidden: u64,
    pairs: u64,
}

fn entry(date: String, of: Amount) -> Entry {
    Entry { date, from_client: of.from_client, from_hidden: of.from_hidden, pairs: of.pairs }
}

fn document(table: &Table, names: &BTreeMap<Id, String>) -> Document {
    let of_id = |(id, record): (Id, &Record)| OfId {
        name: names.get(&id).cloned(),
        id: id.to_string(),
        days: record.days.iter().map(|(day, of)| entry(day.to_string(), *of)).collect(),
        months: record.months.iter().map(|(month, of)| entry(month_text(*month), *of)).collect(),
    };
    Document { usage: table.records(Id(0)).map(of_id).collect() }
}

/// The rows: by name, the latest date first.
fn rows(table: &Table, names: &BTreeMap<Id, String>, by_day: bool) -> String {
    let mut all: Vec<(String, Id, &Record)> = table
        .records(Id(0))
        .map(|(id, record)| {
            (names.get(&id).map_or_else(|| format!("({id})"), |name| shown(name)), id, record)
        })
        .collect();
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut rows = vec![["NAME", "DATE", "FROM CLIENTS", "FROM HIDDEN", "PAIRS"].map(str::to_owned)];
    for (name, _, record) in all {
        let dates: Vec<(String, Amount)> = if by_day {
            record.days.iter().map(|(day, of)| (day.to_string(), *of)).collect()
        } else {
            record.months.iter().map(|(month, of)| (month_text(*month), *of)).collect()
        };
        let dates = dates.into_iter().rev();
        rows.extend(dates.map(|(date, of)| {
            [name.clone(), date, bytes(of.from_client), bytes(of.from_hidden), of.pairs.to_string()]
        }));
    }
    let mut text = String::new();
    columns(&rows, &mut text);
    text.trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_month_of_each_name_comes_first() {
        let month = 31 * 86_400;
        let start = 1_796_040_000;
        let mut table = Table::default();
        let amount = Amount { from_client: 1_024, from_hidden: 2, pairs: 3 };
        table.add(Id(1), amount, start);
        table.add(Id(1), amount, start + month);
        table.add(Id(2), amount, start);
        let names = BTreeMap::from([(Id(1), "b".to_owned()), (Id(2), "a".to_owned())]);
        let text = rows(&table, &names, false);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a", "2026-11", "1.0", "KiB", "2", "B", "3"]);
        assert_eq!((lines[2][..2].to_vec(), lines[3][1]), (vec!["b", "2026-12"], "2026-11"));
        assert_eq!(rows(&table, &names, true).lines().count(), 4);
        let json = json::to_string(&document(&table, &BTreeMap::new()));
        assert!(json.starts_with(r#"{"usage":[{"name":null,"id":"00000000-0000-0000-0000-000000000001","days":[{"date":"2026-11-30","#), "{json}");
    }
}
