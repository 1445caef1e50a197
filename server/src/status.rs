//! The status document of a relay: counters, and a snapshot of the present state.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rendezvous_core::engine::{IdSnapshot, Snapshot};
use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::time::Span;

use crate::event_loop::Stats;
use crate::ids::Stamp;
use crate::json::quote;
use crate::logging::{self, Names};
use crate::pin::Pin;

pub mod socket;

/// Limit of the document, in bytes, so that one call writes it to a socket. IDs that do not fit are omitted, inactive
/// ones first.
pub const DOCUMENT_MAX: usize = 96 * 1024;

/// Counters since the start, by reason. They are independent of the log level. Reasons are fixed texts, so the number
/// of counters is bounded.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    refused: BTreeMap<(u16, &'static str), u64>,
    dropped: BTreeMap<&'static str, u64>,
    waiting_ended: BTreeMap<&'static str, u64>,
    challenged: u64,
    hand_overs_failed: u64,
}

impl Counters {
    /// Counts an event.
    pub fn count(&mut self, event: &Event) {
        match event {
            Event::Refused { status, why, .. } => *self.refused.entry((status.code(), why)).or_default() += 1,
            Event::Dropped { why, .. } => *self.dropped.entry(why).or_default() += 1,
            Event::TlsFailed { why, .. } => *self.dropped.entry(logging::tls(*why)).or_default() += 1,
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
        }
    }

    fn count_waiting_ended(&mut self, why: WaitingEnd) {
        *self.waiting_ended.entry(logging::waiting_end(why)).or_default() += 1;
    }
}

/// Limited resources of the process, and their use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resources {
    /// Bytes in buffers.
    pub buffer_octets: usize,
    /// Limit of bytes in buffers.
    pub buffer_octets_max: usize,
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
    pub certificates: Vec<CertificateReport>,
}

/// How things are with a certificate from a CA. Times are in seconds since 1970.
#[derive(Clone, Debug)]
pub struct CertificateReport {
    /// Its name.
    pub name: String,
    /// The end of its validity; `None` if there is no certificate yet.
    pub not_after: Option<u64>,
    /// The time of the report.
    pub now: u64,
    /// The next order, or the next attempt of one.
    pub next: u64,
    /// Attempts that failed since the last certificate.
    pub failures: u32,
    /// Why the last one failed; empty if none did.
    pub last_failure: String,
}

/// So many certificates are reported at most, those with failures and those that expire soonest first.
const CERTIFICATES_MAX: usize = 64;
/// So much of a failure is reported, in characters.
const FAILURE_MAX: usize = 300;

impl CertificateReport {
    fn json(&self) -> String {
        const DAY: u64 = 24 * 60 * 60;
        let state = match self.not_after {
            None if self.failures > 0 => "failing",
            None => "missing",
            Some(end) if end <= self.now => "expired",
            Some(_) if self.failures > 0 => "failing",
            Some(_) => "valid",
        };
        let or_null = |it: Option<u64>| it.map_or_else(|| "null".to_owned(), |it| it.to_string());
        let last_failure: String = self.last_failure.chars().take(FAILURE_MAX).collect();
        format!(
            "{{\"name\":{},\"state\":\"{state}\",\"not_after\":{},\"days_left\":{},\"next_in\":{},\"failures\":{},\
             \"last_failure\":{}}}",
            quote(&self.name),
            or_null(self.not_after),
            or_null(self.not_after.map(|end| end.saturating_sub(self.now) / DAY)),
            self.next.saturating_sub(self.now),
            self.failures,
            quote(&last_failure)
        )
    }
}

impl Report<'_> {
    /// Formats the document: one JSON object and a line feed, at most [`DOCUMENT_MAX`] bytes.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = String::from("{");
        self.write_process(&mut text);
        self.write_connections(&mut text);
        self.write_counters(&mut text);
        self.write_certificates(&mut text);
        self.write_ids(&mut text);
        text.push_str("}\n");
        text
    }

    fn write_process(&self, text: &mut String) {
        let Resources { buffer_octets, buffer_octets_max, pipes, descriptors, descriptors_max, .. } =
            self.resources;
        let or_null = |it: Option<u64>| it.map_or_else(|| "null".to_owned(), |it| it.to_string());
        let (descriptors, descriptors_max) =
            (or_null(descriptors.map(|it| it as u64)), or_null(descriptors_max));
        let _ = write!(
            text,
            "\"version\":{},\"pid\":{},\"uptime\":{},\"stopping\":{},\"certificate\":{{\"pin\":\"{}\",\"changes_keys\":{}}},\
             \"ids_stamp\":\"{}\",",
            quote(env!("CARGO_PKG_VERSION")),
            std::process::id(),
            self.uptime.0 / 1_000_000,
            self.snapshot.draining,
            self.pin,
            self.changes_keys,
            self.ids_stamp
        );
        let _ = write!(
            text,
            "\"buffers\":{{\"octets\":{buffer_octets},\"max\":{buffer_octets_max}}},\"pipes\":{pipes},\
             \"descriptors\":{{\"now\":{descriptors},\"max\":{descriptors_max}}},\
             \"log_lines_left_out\":{},\"log_lines_lost\":{},",
            self.resources.log_lines_left_out, self.resources.log_lines_lost
        );
    }

    fn write_connections(&self, text: &mut String) {
        let of = &self.snapshot.connections;
        let Stats { relayed, copied, spliced, turns } = self.stats;
        let _ = write!(
            text,
            "\"connections\":{{\"now\":{},\"max\":{},\"handshakes\":{},\"heads\":{},\"answers\":{},\
             \"waiting\":{},\"held\":{},\"paired\":{},\"closing\":{}}},",
            of.all(),
            self.snapshot.connections_max,
            of.handshakes,
            of.heads,
            of.answers,
            of.waiting,
            of.held,
            of.paired,
            of.closing
        );
        let _ = write!(
            text,
            "\"octets\":{{\"relayed\":{relayed},\"copied\":{copied},\"spliced\":{spliced}}},\"turns\":{turns},"
        );
    }

    fn write_counters(&self, text: &mut String) {
        let Counters { refused, dropped, waiting_ended, challenged, hand_overs_failed } = self.counters;
        let _ = write!(text, "\"challenged\":{challenged},\"hand_overs_failed\":{hand_overs_failed},");
        let refused = refused.iter().map(|((status, why), count)| {
            format!("{{\"status\":{status},\"why\":{},\"count\":{count}}}", quote(why))
        });
        let _ = write!(text, "\"refused\":[{}],", Vec::from_iter(refused).join(","));
        for (name, counts) in [("dropped", dropped), ("waiting_ended", waiting_ended)] {
            let counts =
                counts.iter().map(|(why, count)| format!("{{\"why\":{},\"count\":{count}}}", quote(why)));
            let _ = write!(text, "\"{name}\":[{}],", Vec::from_iter(counts).join(","));
        }
    }

    fn write_certificates(&self, text: &mut String) {
        let mut all: Vec<&CertificateReport> = self.certificates.iter().collect();
        all.sort_by_key(|it| (it.failures == 0, it.not_after));
        let all: Vec<String> = all.into_iter().take(CERTIFICATES_MAX).map(CertificateReport::json).collect();
        let _ = write!(text, "\"certificates\":[{}],", all.join(","));
    }

    fn write_ids(&self, text: &mut String) {
        const TAIL: usize = "],\"ids_left_out\":18446744073709551615}\n".len();
        let name = |of: &IdSnapshot| self.names.0.get(&of.id).map_or("?", String::as_str);
        let mut ids: Vec<&IdSnapshot> = self.snapshot.ids.iter().collect();
        let is_idle = |of: &IdSnapshot| of.waiting + of.held + of.pairs == 0;
        ids.sort_unstable_by_key(|of| (is_idle(of), name(of), of.id));
        text.push_str("\"ids\":[");
        let mut shown = 0;
        for of in &ids {
            let entry = id(of, name(of));
            if text.len() + entry.len() + 1 + TAIL > DOCUMENT_MAX {
                break;
            }
            text.push_str(if shown > 0 { "," } else { "" });
            text.push_str(&entry);
            shown += 1;
        }
        let _ = write!(text, "],\"ids_left_out\":{}", ids.len() - shown);
    }
}

fn id(of: &IdSnapshot, name: &str) -> String {
    let IdSnapshot { id, waiting, held, pairs, pairs_ended, from_client, from_hidden, seen } = *of;
    let seen = seen.map_or_else(|| "null".to_owned(), |seen| (seen.0 / 1_000_000).to_string());
    format!(
        "{{\"name\":{},\"id\":\"{id}\",\"waiting\":{waiting},\"held\":{held},\"pairs\":{pairs},\
         \"pairs_ended\":{pairs_ended},\"from_client\":{from_client},\"from_hidden\":{from_hidden},\"seen\":{seen}}}",
        quote(name)
    )
}
