//! The records of traffic, and their text.
//!
//! ```text
//! # rendezvous usage 1 (UTC): ID, date, bytes from clients, bytes from the hidden server, pairs
//! 2f402f80-da50-41e1-9b23-0123456789ab 2026-11-30 1200 530000 12
//! 2f402f80-da50-41e1-9b23-0123456789ab 2026-11 90000 8200000 310
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use rendezvous_core::http::date::{civil, days_since_1970};
use rendezvous_core::id::Id;

/// The first line of the file.
const HEADING: &str =
    "# rendezvous usage 1 (UTC): ID, date, bytes from clients, bytes from the hidden server, pairs\n";
/// The word in place of a date, for what moved while the clock was not set.
const UNDATED: &str = "undated";
/// Limit of the days of each ID.
const DAYS_MAX: usize = 40;
/// Limit of the months of each ID.
const MONTHS_MAX: usize = 24;
/// A clock before 2026-01-01 is not set: this program is newer.
const CLOCK_MIN: u64 = 1_767_225_600;
const DAY: u64 = 86_400;

/// An amount of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes from clients, without the heads of their requests.
    pub from_client: u64,
    /// Bytes from the hidden server.
    pub from_hidden: u64,
    /// Pairs that ended.
    pub pairs: u64,
}

impl Amount {
    /// What was added since `earlier`; nothing of a number that is less than it was, because its counter began anew.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            from_client: self.from_client.saturating_sub(earlier.from_client),
            from_hidden: self.from_hidden.saturating_sub(earlier.from_hidden),
            pairs: self.pairs.saturating_sub(earlier.pairs),
        }
    }

    /// The bytes of both directions.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.from_client.saturating_add(self.from_hidden)
    }

    /// Adds another amount.
    pub fn add(&mut self, other: Self) {
        self.from_client = self.from_client.saturating_add(other.from_client);
        self.from_hidden = self.from_hidden.saturating_add(other.from_hidden);
        self.pairs = self.pairs.saturating_add(other.pairs);
    }
}

/// A day in UTC: days since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub u32);

impl Date {
    /// The date of a second of the wall clock; `None` if the clock is not set.
    #[must_use]
    pub fn of(wall: u64) -> Option<Self> {
        if wall < CLOCK_MIN { None } else { u32::try_from(wall / DAY).ok().map(Self) }
    }

    /// Its month: months since year 0.
    fn month(self) -> u32 {
        let (year, month, _) = civil(u64::from(self.0));
        u32::try_from(year * 12 + month).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(u64::from(self.0));
        write!(f, "{year:04}-{:02}-{day:02}", month + 1)
    }
}

/// A month as text.
#[must_use]
pub fn month_text(month: u32) -> String {
    format!("{:04}-{:02}", month / 12, month % 12 + 1)
}

/// The traffic of one ID. Dates are in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// By day.
    pub days: Vec<(Date, Amount)>,
    /// By month.
    pub months: Vec<(u32, Amount)>,
    /// What moved while the clock was not set.
    pub undated: Amount,
}

impl Record {
    fn add(&mut self, amount: Amount, date: Option<Date>) {
        let Some(date) = date else { return self.undated.add(amount) };
        entry(&mut self.days, date).add(amount);
        entry(&mut self.months, date.month()).add(amount);
        limit(&mut self.days, DAYS_MAX, |day| day.0.abs_diff(date.0));
        limit(&mut self.months, MONTHS_MAX, |month| month.abs_diff(date.month()));
    }

    /// The traffic of a day.
    #[must_use]
    pub fn day(&self, date: Date) -> Amount {
        find(&self.days, date)
    }

    fn last(&self) -> u32 {
        self.months.last().map_or(0, |(month, _)| *month)
    }
}

fn find<K: Ord + Copy>(list: &[(K, Amount)], key: K) -> Amount {
    list.binary_search_by_key(&key, |(key, _)| *key).map_or(Amount::default(), |place| list[place].1)
}

fn entry<K: Ord + Copy>(list: &mut Vec<(K, Amount)>, key: K) -> &mut Amount {
    let place = list.binary_search_by_key(&key, |(key, _)| *key).unwrap_or_else(|place| {
        list.insert(place, (key, Amount::default()));
        place
    });
    &mut list[place].1
}

/// Removes the dates that are the farthest from the present one. After a jump of the clock, those may be in the future.
fn limit<K: Copy>(list: &mut Vec<(K, Amount)>, max: usize, distance: impl Fn(K) -> u32) {
    while list.len() > max {
        let farthest = (0..list.len()).max_by_key(|&place| distance(list[place].0)).unwrap_or(0);
        list.remove(farthest);
    }
}

/// The records of all IDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<Id, Record>);

impl Table {
    /// Adds traffic at a second of the wall clock.
    pub fn add(&mut self, id: Id, amount: Amount, wall: u64) {
        self.0.entry(id).or_default().add(amount, Date::of(wall));
    }

    /// If the clock is set, gives its date to what has none. Returns the IDs that have changed.
    pub fn date(&mut self, wall: u64) -> Vec<Id> {
        let Some(date) = Date::of(wall) else { return Vec::new() };
        let undated = self.0.iter_mut().filter(|(_, record)| record.undated != Amount::default());
        undated
            .map(|(id, record)| {
                let amount = std::mem::take(&mut record.undated);
                record.add(amount, Some(date));
                *id
            })
            .collect()
    }

    /// Removes the records of IDs that are not enrolled, the oldest ones, until at most `max` records are left. Returns
    /// the removed IDs.
    pub fn limit(&mut self, max: usize, is_enrolled: impl Fn(Id) -> bool) -> Vec<Id> {
        let Some(excess) = self.0.len().checked_sub(max).filter(|excess| *excess > 0) else {
            return Vec::new();
        };
        let mut old: Vec<_> = self.0.iter().filter(|(id, _)| !is_enrolled(**id)).collect();
        old.sort_by_key(|(_, record)| record.last());
        let removed: Vec<_> = old.into_iter().take(excess).map(|(id, _)| *id).collect();
        for id in &removed {
            self.0.remove(id);
        }
        removed
    }

    /// The record of an ID.
    #[must_use]
    pub fn record(&self, id: Id) -> Option<&Record> {
        self.0.get(&id)
    }

    /// Replaces or removes the record of an ID.
    pub fn replace(&mut self, id: Id, record: Option<Record>) {
        match record {
            Some(record) => drop(self.0.insert(id, record)),
            None => drop(self.0.remove(&id)),
        }
    }

    /// Replaces the records of the IDs in this text of a file. Returns these IDs.
    pub fn replace_all(&mut self, text: &str) -> BTreeSet<Id> {
        let newer = Self::parse(text).0.0;
        let ids = newer.keys().copied().collect();
        self.0.extend(newer);
        ids
    }

    /// The records in the order of their IDs, from the first ID that is not less than `from`.
    pub fn records(&self, from: Id) -> impl Iterator<Item = (Id, &Record)> {
        self.0.range(from..).map(|(id, record)| (*id, record))
    }

    /// The traffic of an ID in the month of this second of the wall clock.
    #[must_use]
    pub fn month(&self, id: Id, wall: u64) -> Amount {
        match (self.record(id), Date::of(wall)) {
            (Some(record), Some(date)) => find(&record.months, date.month()),
            (Some(record), None) => record.undated,
            (None, _) => Amount::default(),
        }
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = HEADING.to_owned();
        for (id, record) in &self.0 {
            write_record(*id, record, &mut text);
        }
        text
    }

    /// Parses the text of a file. Returns the numbers of malformed lines too, counted from 1.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<usize>) {
        let (mut table, mut malformed) = (Self::default(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            if !line.is_empty() && !line.starts_with('#') && table.parse_line(line).is_none() {
                malformed.push(number);
            }
        }
        (table, malformed)
    }

    fn parse_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (id, date) = (Id::parse(words.next()?.as_bytes())?, words.next()?);
        let mut number = || words.next()?.parse::<u64>().ok();
        let amount = Amount { from_client: number()?, from_hidden: number()?, pairs: number()? };
        if words.next().is_some() {
            return None;
        }
        if date == UNDATED {
            self.0.entry(id).or_default().undated.add(amount);
            return Some(());
        }
        let mut parts = date.split('-').map(|part| part.parse::<u32>().ok());
        let (year, month) = (parts.next()??, parts.next()??);
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        let day = parts.next();
        if parts.next().is_some() {
            return None;
        }
        match day {
            None => {
                let months = &mut self.0.entry(id).or_default().months;
                entry(months, year * 12 + month - 1).add(amount);
            }
            Some(day) => {
                let date = day_number(year, month, day?)?;
                entry(&mut self.0.entry(id).or_default().days, date).add(amount);
            }
        }
        Some(())
    }
}

/// Appends the heading of the file.
pub fn write_heading(out: &mut String) {
    out.push_str(HEADING);
}

/// Appends the lines of a record.
pub fn write_record(id: Id, record: &Record, out: &mut String) {
    let mut line = |date: &dyn fmt::Display, of: &Amount| {
        let _ = writeln!(out, "{id} {date} {} {} {}", of.from_client, of.from_hidden, of.pairs);
    };
    for (date, amount) in &record.days {
        line(date, amount);
    }
    for (month, amount) in &record.months {
        line(&month_text(*month), amount);
    }
    if record.undated != Amount::default() {
        line(&UNDATED, &record.undated);
    }
}

/// The day of a date; `None` if there is no such date.
fn day_number(year: u32, month: u32, day: u32) -> Option<Date> {
    let date = (u64::from(year), u64::from(month) - 1, u64::from(day));
    let days = days_since_1970(date.0, date.1, date.2)?;
    (civil(days) == date).then(|| u32::try_from(days).ok().map(Date))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(bytes: u64) -> Amount {
        Amount { from_client: bytes, from_hidden: bytes.saturating_mul(2), pairs: 1 }
    }

    #[test]
    fn every_date_is_read_as_it_is_written() {
        for day in (20_000..60_000).step_by(13) {
            let text = Date(day).to_string();
            let mut parts = text.split('-').map(|part| part.parse().unwrap());
            let (year, month, of_month) =
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            assert_eq!(day_number(year, month, of_month), Some(Date(day)), "{text}");
        }
        for (year, month, day) in [(2026, 2, 29), (2026, 4, 31), (2026, 1, 0), (2026, 1, 32)] {
            assert_eq!(day_number(year, month, day), None);
        }
        assert!(day_number(2028, 2, 29).is_some());
    }

    #[test]
    fn the_text_is_read_as_it_was_written() {
        let mut table = Table::default();
        table.add(Id(1), amount(5), CLOCK_MIN);
        table.add(Id(1), amount(7), CLOCK_MIN + 40 * DAY);
        table.add(Id(2), amount(u64::MAX), CLOCK_MIN);
        table.add(Id(3), amount(1), 0);
        assert_eq!(Table::parse(&table.text()), (table, Vec::new()));
    }

    #[test]
    fn malformed_lines_are_skipped_and_named() {
        let id = "2f402f80-da50-41e1-9b23-0123456789ab";
        let text = format!(
            "# x\n{id} 2026-11-30 1 2 3\nx\n{id} 2026-13-01 1 2 3\n{id} 2026-11-30 1 2\n{id} 2026-11-30 1 2 3 4\n\
             {id} 2026-11-31 1 2 3\n{id} 2026-11 -1 2 3\n{id} 2026-11-1-1 1 2 3\n{id} 2026-11 1 2 3\n"
        );
        let (table, malformed) = Table::parse(&text);
        assert_eq!(malformed, [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(table.text().lines().count(), 3);
    }

    #[test]
    fn the_present_date_stays_however_many_are_in_the_future() {
        let mut table = Table::default();
        let years = 900 * DAY;
        for day in 0..100 {
            table.add(Id(1), amount(1), CLOCK_MIN + years + day * DAY);
        }
        for day in 0..3 {
            table.add(Id(1), amount(1), CLOCK_MIN + day * DAY);
            table.add(Id(1), amount(1), CLOCK_MIN + day * DAY);
        }
        let record = table.record(Id(1)).unwrap();
        assert_eq!(record.days.len(), DAYS_MAX);
        for day in 0..3 {
            assert_eq!(record.day(Date::of(CLOCK_MIN + day * DAY).unwrap()).pairs, 2);
        }
    }

    #[test]
    fn ids_that_are_gone_make_room_the_oldest_first() {
        let mut table = Table::default();
        for id in 0..5_u8 {
            table.add(Id(id.into()), amount(1), CLOCK_MIN + u64::from(10 - id) * 31 * DAY);
        }
        assert_eq!(table.limit(3, |id| id == Id(4)), [Id(3), Id(2)]);
        assert_eq!(table.records(Id(0)).map(|(id, _)| id.0).collect::<Vec<_>>(), [0, 1, 4]);
        assert!(table.limit(1, |_| true).is_empty(), "enrolled ones stay");
    }
}
