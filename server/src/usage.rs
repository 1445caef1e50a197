//! The traffic of each hidden server by day and by month, in UTC, kept in a file of the state folder.
//!
//! The loop adds what has moved since it last looked to the present date, so that a jump of the clock neither adds nor
//! removes bytes. A thread writes the file. A relay that is killed loses what moved since the last write. Quotas are
//! compared with these records; without a file they are in memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;
use rendezvous_core::engine::IdSnapshot;
use rendezvous_core::id::Id;
use rendezvous_core::time::{Now, Span, Time};

pub use self::table::{Amount, Date, Record, Table, month_text, write_heading, write_record};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::logging::Escaped;
use crate::state::State;
use crate::worker::Worker;

mod table;

/// The name of the file in the state folder.
pub const FILE: &str = "usage";
/// How often the loop looks at the counters.
const GATHER: Span = Span::from_secs(10);
/// Limit of the IDs in the file. Beyond it, those that are no longer enrolled are removed, the oldest first.
const IDS_MAX: usize = 20_000;

/// Reads the file. A missing one has no records.
///
/// # Errors
/// The file cannot be read. Malformed lines are skipped, and their numbers returned.
pub fn read(state: &State) -> Result<(Table, Vec<usize>), Failure> {
    let path = state.file(FILE);
    match files::read_if_exists(&path, FileKind::USAGE)? {
        None => Ok((Table::default(), Vec::new())),
        Some(content) => Ok(Table::parse(&String::from_utf8_lossy(&content.bytes))),
    }
}

/// The records to write, and those to remove.
type Changes = Vec<(Id, Option<Record>)>;

type Writer = Worker<Changes, Result<(), Failure>>;

/// The usage of a running relay.
#[derive(Debug)]
pub struct Usage {
    table: Table,
    /// The totals of each ID when the loop last looked.
    seen: BTreeMap<Id, Amount>,
    changed: BTreeSet<Id>,
    /// `None`: there is no file.
    writer: Option<Writer>,
    interval: Span,
    gather_due: Time,
    write_due: Time,
    /// Whether the last write failed.
    has_failed: bool,
    owner: Owner,
}

/// The process that writes the file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// This one.
    This,
    /// Another one takes over, and gets the records that this one has not written. Has what has moved since.
    Undecided(BTreeMap<Id, Amount>),
    /// Another one. Has what has moved here since it was last told.
    Other(BTreeMap<Id, Amount>),
}

impl Usage {
    /// Reads the file and starts the thread that writes it, once in `interval`.
    ///
    /// # Errors
    /// The file cannot be read, or the system cannot start a thread.
    pub fn start(state: State, interval: Span, waker: Arc<Waker>, now: Time) -> Result<Self, Failure> {
        Self::start_with("", state, interval, waker, now)
    }

    /// Starts like [`Usage::start`], after another process that has handed over these records instead of writing them.
    ///
    /// # Errors
    /// Those of [`Usage::start`].
    pub fn start_with(
        records: &str,
        state: State,
        interval: Span,
        waker: Arc<Waker>,
        now: Time,
    ) -> Result<Self, Failure> {
        let (mut table, malformed) = read(&state)?;
        let changed = table.replace_all(records);
        if let Some(line) = malformed.first() {
            log::error!("event=usage-lines skipped={} first_line={line}", malformed.len());
        }
        let writer = writer(state, table.clone(), waker)
            .map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            table,
            changed,
            writer: Some(writer),
            interval,
            write_due: now + interval,
            ..Self::in_memory("", now)
        })
    }

    /// Usage that is not written to a file, with records of another process.
    #[must_use]
    pub fn in_memory(records: &str, now: Time) -> Self {
        Self {
            table: Table::parse(records).0,
            seen: BTreeMap::new(),
            changed: BTreeSet::new(),
            writer: None,
            interval: GATHER,
            gather_due: now,
            write_due: now,
            has_failed: false,
            owner: Owner::This,
        }
    }

    /// Whether it is written to a file.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether the loop should look at the counters.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.gather_due <= now
    }

    /// Adds what has moved since the last call to the present date. `ids` are all enrolled IDs.
    pub fn gather(&mut self, ids: &[IdSnapshot], now: Now) {
        self.gather_due = now.mono + GATHER.min(self.interval);
        for id in self.table.date(now.wall) {
            self.changed.insert(id);
        }
        for of in ids {
            let total =
                Amount { from_client: of.from_client, from_hidden: of.from_hidden, pairs: of.pairs_ended };
            let seen = self.seen.entry(of.id).or_default();
            // An ID that was removed and added again has new counters, but may have old pairs.
            let moved = total.since(*seen);
            *seen = total;
            self.add(of.id, moved, now.wall);
        }
        let is_enrolled = |id: Id| ids.binary_search_by_key(&id, |of| of.id).is_ok();
        if self.seen.len() > 2 * ids.len() + 64 {
            self.seen.retain(|id, _| is_enrolled(*id));
        }
        self.changed.extend(self.table.limit(IDS_MAX, is_enrolled));
    }

    /// Adds what has moved in another process.
    pub fn add(&mut self, id: Id, moved: Amount, wall: u64) {
        if moved == Amount::default() {
            return;
        }
        self.table.add(id, moved, wall);
        self.changed.insert(id);
        match &mut self.owner {
            Owner::This => {}
            Owner::Undecided(untold) | Owner::Other(untold) => untold.entry(id).or_default().add(moved),
        }
    }

    /// Another process takes over the file: nothing is written from now on. Returns the records that are not written, or
    /// `None` while a write is in progress.
    pub fn hand_over(&mut self) -> Option<String> {
        if self.owner == Owner::This {
            self.owner = Owner::Undecided(BTreeMap::new());
        }
        self.take_answer();
        if self.writer.as_ref().is_some_and(Worker::is_busy) {
            return None;
        }
        let mut text = String::new();
        let is_unwritten = |id: &Id| self.has_failed || self.writer.is_none() || self.changed.contains(id);
        for (id, record) in self.table.records(Id(0)).filter(|(id, _)| is_unwritten(id)) {
            write_record(id, record, &mut text);
        }
        Some(text)
    }

    /// The other process did not take over: this one writes the file again.
    pub fn resume(&mut self) {
        self.owner = Owner::This;
    }

    /// The other process has taken over. From now on it is told what moves here.
    pub fn retire(&mut self) {
        if let Owner::Undecided(untold) = std::mem::replace(&mut self.owner, Owner::This) {
            self.owner = Owner::Other(untold);
        }
    }

    /// Takes what has moved since the last call, if another process writes the file.
    pub fn take_untold(&mut self) -> Vec<(Id, Amount)> {
        match &mut self.owner {
            Owner::Other(untold) => std::mem::take(untold).into_iter().collect(),
            Owner::This | Owner::Undecided(_) => Vec::new(),
        }
    }

    /// Adds this to the file, because no process is left that writes it. For the end of the program.
    pub fn write_untold(untold: &[(Id, Amount)], state: &State, wall: u64) {
        let added = read(state).and_then(|(mut table, _)| {
            for (id, amount) in untold {
                table.add(*id, *amount, wall);
            }
            state.write(FILE, table.text().as_bytes(), 0o600)
        });
        if let Err(failure) = added {
            log::error!("event=usage-not-written reason={}", Escaped(&failure.to_string()));
        }
    }

    /// Starts to write the file, if it is time and something has changed. Logs errors of the last write.
    pub fn write(&mut self, now: Time) {
        self.take_answer();
        let Some(writer) = &mut self.writer else { return self.changed.clear() };
        let has_work = self.has_failed || !self.changed.is_empty();
        if self.owner != Owner::This || now < self.write_due || !has_work || writer.is_busy() {
            return;
        }
        self.write_due = now + self.interval;
        writer.ask(changes(&mut self.changed, &self.table));
    }

    /// Takes the result of the last write.
    fn take_answer(&mut self) {
        match self.writer.as_mut().and_then(Worker::answer) {
            Some(Err(failure)) if !std::mem::replace(&mut self.has_failed, true) => {
                log::error!("event=usage-not-written reason={}", Escaped(&failure.to_string()));
            }
            Some(Ok(())) if std::mem::take(&mut self.has_failed) => log::info!("event=usage-written"),
            Some(_) | None => {}
        }
    }

    /// Writes what is not written, and waits for it, at most for `timeout`. For the end of the program.
    pub fn finish(mut self, timeout: Duration) {
        let Some(mut writer) = self.writer else { return };
        let clock = Clock::start();
        let start = clock.now().mono;
        let left = || timeout.saturating_sub(Duration::from_micros(clock.now().mono.since(start).0));
        while writer.is_busy() {
            match writer.wait(left()) {
                None => return,
                Some(written) => self.has_failed |= written.is_err(),
            }
        }
        if self.owner != Owner::This || self.changed.is_empty() && !self.has_failed {
            return;
        }
        writer.ask(changes(&mut self.changed, &self.table));
        if let Some(Err(failure)) = writer.wait(left()) {
            log::error!("event=usage-not-written reason={}", Escaped(&failure.to_string()));
        }
    }

    /// The traffic of an ID in the present month.
    #[must_use]
    pub fn month(&self, id: Id, wall: u64) -> Amount {
        self.table.month(id, wall)
    }

    /// All records.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }
}

/// Takes the changes that are not written.
fn changes(changed: &mut BTreeSet<Id>, table: &Table) -> Changes {
    std::mem::take(changed).into_iter().map(|id| (id, table.record(id).cloned())).collect()
}

/// The thread that writes the file. It has a copy of all records, so that the loop sends it only those that have changed.
fn writer(state: State, mut table: Table, waker: Arc<Waker>) -> io::Result<Writer> {
    Worker::start("usage", waker, move |changes: Changes| {
        for (id, record) in changes {
            table.replace(id, record);
        }
        state.write(FILE, table.text().as_bytes(), 0o600)
    })
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;

    const DAY: u64 = 86_400;
    /// 2026-11-30, noon.
    const WALL: u64 = 1_796_040_000;

    fn snapshot(id: u128, from_client: u64) -> IdSnapshot {
        IdSnapshot {
            id: Id(id),
            waiting: 0,
            held: 0,
            pairs: 0,
            pairs_ended: 0,
            from_client,
            from_hidden: 0,
            seen: None,
        }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("rendezvous-usage-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    fn usage(folder: &std::path::Path) -> (Usage, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let state = State::open(folder.to_str()).unwrap();
        (Usage::start(state, Span::from_secs(60), waker, Time(0)).unwrap(), poll)
    }

    fn is_writing(usage: &Usage) -> bool {
        usage.writer.as_ref().is_some_and(Worker::is_busy)
    }

    fn at(seconds: u64, wall: u64) -> Now {
        Now { mono: Time(0) + Span::from_secs(seconds), wall }
    }

    fn written(folder: &std::path::Path) -> Table {
        read(&State::open(folder.to_str()).unwrap()).unwrap().0
    }

    #[test]
    fn what_moved_is_there_after_a_restart_and_is_counted_once() {
        let folder = folder("restart");
        let (mut first, _poll) = usage(&folder);
        first.gather(&[snapshot(1, 100)], at(1, WALL));
        first.gather(&[snapshot(1, 150)], at(11, WALL));
        first.finish(Duration::from_secs(60));
        let (mut second, _poll) = usage(&folder);
        second.gather(&[snapshot(1, 7)], at(1, WALL + 60));
        assert_eq!(second.month(Id(1), WALL).from_client, 157);
        second.finish(Duration::from_secs(60));
        assert_eq!(written(&folder).month(Id(1), WALL).from_client, 157);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_file_is_written_once_in_the_interval_and_only_if_something_moved() {
        let folder = folder("interval");
        let (mut usage, _poll) = usage(&folder);
        usage.gather(&[snapshot(1, 1)], at(1, WALL));
        usage.write(Time(0) + Span::from_secs(59));
        assert!(!is_writing(&usage));
        usage.write(Time(0) + Span::from_secs(60));
        assert!(usage.writer.as_mut().unwrap().wait(Duration::from_secs(60)).unwrap().is_ok());
        assert_eq!(written(&folder).month(Id(1), WALL).from_client, 1);
        usage.write(Time(0) + Span::from_secs(600));
        assert!(!is_writing(&usage), "nothing moved");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_write_that_failed_is_repeated_and_nothing_is_lost() {
        let folder = folder("full");
        let (mut usage, _poll) = usage(&folder);
        // In place of the file: it cannot be replaced.
        std::fs::create_dir(folder.join(FILE)).unwrap();
        std::fs::write(folder.join(FILE).join("x"), "").unwrap();
        usage.gather(&[snapshot(1, 5)], at(1, WALL));
        usage.write(Time(0) + Span::from_secs(60));
        while is_writing(&usage) {
            usage.write(Time(0));
            std::thread::yield_now();
        }
        assert!(usage.has_failed);
        std::fs::remove_dir_all(folder.join(FILE)).unwrap();
        usage.write(Time(0) + Span::from_secs(120));
        assert!(usage.writer.as_mut().unwrap().wait(Duration::from_secs(60)).unwrap().is_ok());
        assert_eq!(written(&folder).month(Id(1), WALL).from_client, 5);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn no_jump_of_the_clock_adds_or_removes_bytes() {
        let folder = folder("clock");
        let (mut usage, _poll) = usage(&folder);
        let walls = [WALL, WALL + 365 * DAY, WALL - DAY, 0, 3 * DAY, WALL + 1, WALL + 2];
        for (step, wall) in walls.into_iter().enumerate() {
            let step = step as u64 + 1;
            usage.gather(&[snapshot(1, 10 * step)], at(10 * step, wall));
        }
        let day = |wall| usage.table().record(Id(1)).unwrap().day(Date::of(wall).unwrap());
        assert_eq!(day(WALL + 365 * DAY).from_client, 10);
        assert_eq!(day(WALL - DAY).from_client, 10);
        assert_eq!(day(WALL).from_client, 50, "with those of the time before the clock was set");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_moves_while_another_process_takes_over_is_counted_once() {
        for is_taken in [false, true] {
            let folder = folder(if is_taken { "taken" } else { "not-taken" });
            let (mut old, _poll) = usage(&folder);
            old.gather(&[snapshot(1, 100)], at(1, WALL));
            let records = old.hand_over().expect("no write is in progress");
            old.gather(&[snapshot(1, 130)], at(2, WALL));
            old.write(Time(0) + Span::from_secs(600));
            assert!(!is_writing(&old), "another process writes");
            let (poll, state) = (Poll::new().unwrap(), State::open(folder.to_str()).unwrap());
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let every = Span::from_secs(60);
            let mut new = Usage::start_with(&records, state.clone(), every, waker, Time(0)).unwrap();
            assert_eq!(new.month(Id(1), WALL).from_client, 100);
            if is_taken {
                old.retire();
                old.gather(&[snapshot(1, 150)], at(3, WALL));
                for (id, moved) in old.take_untold() {
                    new.add(id, moved, WALL);
                }
                assert!(old.take_untold().is_empty());
                old.finish(Duration::from_secs(60));
                new.finish(Duration::from_secs(60));
                assert_eq!(written(&folder).month(Id(1), WALL).from_client, 150);
                Usage::write_untold(&[(Id(1), Amount { from_client: 5, ..Amount::default() })], &state, WALL);
                assert_eq!(written(&folder).month(Id(1), WALL).from_client, 155);
            } else {
                drop(new);
                old.resume();
                old.finish(Duration::from_secs(60));
                assert_eq!(written(&folder).month(Id(1), WALL).from_client, 130);
            }
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn counters_that_begin_anew_are_no_traffic() {
        let folder = folder("anew");
        let (mut usage, _poll) = usage(&folder);
        usage.gather(&[snapshot(1, 1_000)], at(1, WALL));
        usage.gather(&[], at(11, WALL));
        usage.gather(&[snapshot(1, 400)], at(21, WALL));
        assert_eq!(usage.month(Id(1), WALL).from_client, 1_000);
        usage.gather(&[snapshot(1, 500)], at(31, WALL));
        assert_eq!(usage.month(Id(1), WALL).from_client, 1_100);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
