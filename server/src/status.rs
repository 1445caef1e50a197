//! The status document of a relay: counters, and a snapshot of the present state.

use std::collections::BTreeMap;

use rendezvous_core::engine::{IdSnapshot, RefusalReason, Snapshot};
use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::time::Span;

use self::document::{CertificateOfCa, Document, OlderProcess};
use self::slices::Slices;
use crate::event_loop::Stats;
use crate::ids::Stamp;
use crate::logging::{self, Names};
use crate::pin::Pin;
use crate::usage::Usage;

pub mod control;
pub mod document;
pub mod kick;
pub mod listing;
pub mod slices;
pub mod socket;

/// Limit of the document, in bytes, so that one call writes it to a socket. IDs that do not fit are omitted, inactive
/// ones first.
pub const DOCUMENT_MAX: usize = 96 * 1024;

/// Counters since the start, by reason. They are independent of the log level. Reasons are fixed texts, so the number
/// of counters is bounded.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    refused: BTreeMap<(u16, &'static str), u64>,
    /// By [`RefusalReason`], in its order.
    refusals: [u64; RefusalReason::ALL.len()],
    tls_failed: u64,
    dropped: BTreeMap<&'static str, u64>,
    waiting_ended: BTreeMap<&'static str, u64>,
    challenged: u64,
    hand_overs_failed: u64,
}

impl Counters {
    /// Counts an event.
    pub fn count(&mut self, event: &Event) {
        match event {
            Event::Refused { status, why, .. } => {
                *self.refused.entry((status.code(), why)).or_default() += 1;
                self.refusals[RefusalReason::of(*status, why) as usize] += 1;
            }
            Event::Dropped { why, .. } => *self.dropped.entry(why).or_default() += 1,
            Event::TlsFailed { why, .. } => {
                self.tls_failed += 1;
                *self.dropped.entry(logging::tls(*why)).or_default() += 1;
            }
            Event::WaitingEnded { why, .. } => self.count_waiting_ended(*why),
            Event::Challenged { .. } => self.challenged += 1,
            Event::HandOverFailed { .. } => self.hand_overs_failed += 1,
            Event::Waiting { .. }
            | Event::Held { .. }
            | Event::Paired { .. }
            | Event::PairEnded { .. }
            | Event::DialFailed { .. }
            | Event::ServiceTlsFailed { .. }
            | Event::Registered { .. }
            | Event::RelayLost { .. }
            | Event::Slowed { .. }
            | Event::ClientRefused { .. }
            | Event::DirectDial { .. }
            | Event::Served { .. }
            | Event::Direct { .. }
            | Event::Relayed { .. }
            | Event::ConnectFailed { .. } => {}
            #[cfg(feature = "xmpp")]
            Event::Component(_) | Event::Dtcp(_) | Event::Stream(_) | Event::StreamProxy(_) => {}
        }
    }

    /// The number of refused requests for each reason.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        RefusalReason::ALL.into_iter().zip(self.refusals)
    }

    /// The number of TLS handshakes that failed.
    #[must_use]
    pub const fn tls_failed(&self) -> u64 {
        self.tls_failed
    }

    /// The number of clients that got a challenge.
    #[must_use]
    pub const fn challenged(&self) -> u64 {
        self.challenged
    }

    /// The number of hand-overs that failed.
    #[must_use]
    pub const fn hand_overs_failed(&self) -> u64 {
        self.hand_overs_failed
    }

    fn count_waiting_ended(&mut self, why: WaitingEnd) {
        *self.waiting_ended.entry(logging::waiting_end(why)).or_default() += 1;
    }
}

/// Limited resources of the process, and their use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resources {
    /// Bytes in buffers.
    pub buffer_bytes: usize,
    /// Limit of bytes in buffers.
    pub buffer_bytes_max: usize,
    /// Kernel pipes in use.
    pub pipes: usize,
    /// Descriptors in use, if known.
    pub descriptors: Option<usize>,
    /// Limit of descriptors, if known.
    pub descriptors_max: Option<u64>,
    /// Log lines suppressed by the rate limit.
    pub log_lines_left_out: u64,
    /// Log lines lost because they were not read in time or could not be written.
    pub log_lines_lost: u64,
}

/// The input of the document.
#[derive(Debug)]
pub struct Report<'a> {
    /// Time since the start.
    pub uptime: Span,
    /// State of the engine.
    pub snapshot: Snapshot,
    /// Counters of the event loop.
    pub stats: Stats,
    /// Resources of the process.
    pub resources: Resources,
    /// Counted events.
    pub counters: &'a Counters,
    /// The operator's names of the IDs.
    pub names: &'a Names,
    /// The stamp of the file `ids` that is in force.
    pub ids_stamp: Stamp,
    /// The pin of the served certificate.
    pub pin: Pin,
    /// Each certificate from a CA has another key.
    pub changes_keys: bool,
    /// The certificates from a CA.
    pub certificates: Vec<CertificateOfCa>,
    /// The traffic of the month, if it is kept.
    pub usage: Option<&'a Usage>,
    /// Seconds since 1970.
    pub wall: u64,
    /// Processes that this one has taken over from.
    pub older: Vec<OlderProcess>,
}

/// Limit of the certificates in the document, those with failures and those that expire soonest first.
const CERTIFICATES_MAX: usize = 64;

impl Report<'_> {
    /// The document as text, at most [`DOCUMENT_MAX`] bytes.
    #[must_use]
    pub fn json(&self) -> String {
        self.document().text(DOCUMENT_MAX)
    }

    /// The document with all IDs, in slices. Without `shows_ids` the names stand alone.
    #[must_use]
    pub fn slices(&self, shows_ids: bool) -> Slices {
        let mut document = self.document();
        if !shows_ids {
            document.ids.iter_mut().for_each(|of| of.id = String::new());
        }
        Slices::new(document)
    }

    fn document(&self) -> Document {
        let Stats { relayed, copied, spliced, turns } = self.stats;
        let Counters { refused, dropped, waiting_ended, challenged, hand_overs_failed, .. } = self.counters;
        let resources = &self.resources;
        let refused = refused.iter().map(|(&(status, why), &count)| document::Refused {
            status,
            why: why.to_owned(),
            count,
        });
        Document {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.uptime.0 / 1_000_000,
            stopping: self.snapshot.draining,
            older: Some(self.older.clone()),
            certificate: document::Certificate { pin: self.pin.to_string(), changes_keys: self.changes_keys },
            ids_stamp: self.ids_stamp.to_string(),
            buffers: document::Buffers {
                bytes: resources.buffer_bytes as u64,
                max: resources.buffer_bytes_max as u64,
            },
            pipes: resources.pipes as u64,
            descriptors: document::Descriptors {
                now: resources.descriptors.map(|it| it as u64),
                max: resources.descriptors_max,
            },
            log_lines_left_out: resources.log_lines_left_out,
            log_lines_lost: resources.log_lines_lost,
            connections: self.connections(),
            bytes: document::MovedBytes { relayed, copied, spliced },
            turns,
            challenged: *challenged,
            hand_overs_failed: *hand_overs_failed,
            refused: refused.collect(),
            dropped: reasons(dropped),
            waiting_ended: reasons(waiting_ended),
            certificates: self.certificates(),
            ids: self.ids(),
            ids_left_out: 0,
        }
    }

    fn connections(&self) -> document::Connections {
        let of = &self.snapshot.connections;
        document::Connections {
            now: of.all().into(),
            max: self.snapshot.connections_max.into(),
            handshakes: of.handshakes.into(),
            heads: of.heads.into(),
            answers: of.answers.into(),
            waiting: of.waiting.into(),
            held: of.held.into(),
            paired: of.paired.into(),
            closing: of.closing.into(),
        }
    }

    fn certificates(&self) -> Vec<CertificateOfCa> {
        let mut all = self.certificates.clone();
        all.sort_by_key(|it| (it.failures == 0, it.not_after));
        all.truncate(CERTIFICATES_MAX);
        all
    }

    /// The enrolled IDs: busy ones first, then by name.
    fn ids(&self) -> Vec<document::Enrolled> {
        let name = |of: &IdSnapshot| self.names.0.get(&of.id).map_or("?", String::as_str);
        let is_idle = |of: &IdSnapshot| of.waiting + of.held + of.pairs == 0;
        let mut ids: Vec<&IdSnapshot> = self.snapshot.ids.iter().collect();
        ids.sort_unstable_by_key(|of| (is_idle(of), name(of), of.id));
        let month = |id| self.usage.map(|usage| usage.month(id, self.wall));
        let entry = |of: &IdSnapshot| document::Enrolled {
            month_in: month(of.id).map(|amount| amount.from_client),
            month_out: month(of.id).map(|amount| amount.from_hidden),
            name: name(of).to_owned(),
            id: of.id.to_string(),
            waiting: of.waiting.into(),
            held: of.held.into(),
            pairs: of.pairs.into(),
            pairs_ended: of.pairs_ended,
            from_client: of.from_client,
            from_hidden: of.from_hidden,
            seen: of.seen.map(|seen| seen.0 / 1_000_000),
        };
        ids.into_iter().map(entry).collect()
    }
}

fn reasons(counts: &BTreeMap<&'static str, u64>) -> Vec<document::Reason> {
    counts.iter().map(|(&why, &count)| document::Reason { why: why.to_owned(), count }).collect()
}
