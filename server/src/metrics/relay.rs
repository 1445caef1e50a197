//! The metrics of a relay.

use std::collections::BTreeMap;

use rendezvous_core::engine::{IdSnapshot, Snapshot};

use super::process::Process;
use super::{Family, Format, Kind, PerRow, Scrape};
use crate::event_loop::Stats;
use crate::status::Counters;

const ACTIVE: Family = Family::gauge("rendezvous_active_pairs", "Pairs of a client and a hidden server.");
const PAIRS: Family = Family::counter("rendezvous_pairs", "Pairs that began.");
const CONNECTIONS: Family = Family::gauge("rendezvous_connections", "Connections by state.");
const CONNECTIONS_MAX: Family = Family::gauge("rendezvous_connections_max", "Limit of connections.");
const RELAYED: Family = Family::counter("rendezvous_relayed_bytes", "Bytes of pairs, of all hidden servers.");
const REFUSED: Family = Family::counter("rendezvous_refused", "Refused requests.");
const CHALLENGED: Family =
    Family::counter("rendezvous_challenged", "Clients that named no hidden server and got a challenge.");
const HAND_OVERS_FAILED: Family =
    Family::counter("rendezvous_handovers_failed", "Waiting connections that failed before a response.");
const HAND_OVER: Family = Family {
    name: "rendezvous_handover_seconds",
    kind: Kind::Histogram,
    help: "Time from a client's complete request until it was handed over.",
};
const HANDSHAKES: Family = Family::counter("rendezvous_handshakes", "TLS handshakes by result.");
const BUFFERS: Family = Family::gauge("rendezvous_buffer_bytes", "Memory for peers' data.");
const BUFFERS_MAX: Family = Family::gauge("rendezvous_buffer_max_bytes", "Limit of memory for peers' data.");
const REPLAY_CACHE: Family = Family::gauge("rendezvous_replay_cache_tokens", "Tokens in the replay cache.");
const LOG_LINES: Family = Family::counter("rendezvous_log_lines_missing", "Log lines that were not written.");
const CERTIFICATE: Family = Family::gauge(
    "rendezvous_certificate_expiry_timestamp_seconds",
    "End of a certificate's validity, in seconds since 1970.",
);
const IDS: Family = Family::gauge("rendezvous_ids", "Enrolled hidden servers.");
const READY: Family = Family::gauge("rendezvous_ready", "Whether the relay accepts connections.");

/// A hidden server and its numbers.
#[derive(Debug)]
pub struct Row {
    /// The operator's name for it.
    pub name: String,
    /// Its numbers.
    pub of: IdSnapshot,
}

/// The families with samples of each hidden server.
const PER_ID: &[PerRow<Row>] = &[
    PerRow {
        family: Family::counter("rendezvous_bytes", "Bytes of pairs; in: from clients, out: to clients."),
        write: |row, samples| {
            samples.sample(&[("id", &row.name), ("direction", "in")], row.of.from_client);
            samples.sample(&[("id", &row.name), ("direction", "out")], row.of.from_hidden);
        },
    },
    PerRow {
        family: Family::gauge(
            "rendezvous_waiting_connections",
            "Connections of hidden servers that wait for clients.",
        ),
        write: |row, samples| samples.sample(&[("id", &row.name)], row.of.waiting),
    },
    PerRow {
        family: Family::gauge("rendezvous_id_pairs", "Pairs of each hidden server."),
        write: |row, samples| samples.sample(&[("id", &row.name)], row.of.pairs),
    },
    PerRow {
        family: Family::gauge(
            "rendezvous_held_clients",
            "Clients that wait for a connection of a hidden server.",
        ),
        write: |row, samples| samples.sample(&[("id", &row.name)], row.of.held),
    },
];

/// What the metrics of a relay are made from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The process.
    pub process: Process,
    /// The engine's state. Its IDs become rows.
    pub snapshot: Snapshot,
    /// The loop's counters.
    pub stats: Stats,
    /// Counted events.
    pub counters: &'a Counters,
    /// Bytes in buffers, and their limit.
    pub buffers: (usize, usize),
    /// Log lines left out by the rate limit, and lost ones.
    pub log_lines: (u64, u64),
    /// The end of validity of the certificates, by name.
    pub certificates: BTreeMap<String, u64>,
    /// Whether the relay accepts connections.
    pub is_ready: bool,
}

impl Facts<'_> {
    /// Makes a scrape. `name` is the operator's name of an ID; IDs without one are left out.
    #[must_use]
    pub fn scrape(self, format: Format, name: impl Fn(&IdSnapshot) -> Option<String>) -> Scrape<Row> {
        let first = self.first(format);
        let rows = self.snapshot.ids.into_iter().filter_map(|of| Some(Row { name: name(&of)?, of }));
        Scrape::new(format, first, PER_ID, rows.collect())
    }

    fn first(&self, format: Format) -> String {
        let mut text = String::new();
        let out = &mut text;
        self.process.write(format, out);
        let of = &self.snapshot.connections;
        let counts = &self.snapshot.counts;
        READY.begin(format, out).sample(&[], u8::from(self.is_ready));
        IDS.begin(format, out).sample(&[], self.snapshot.ids.len());
        ACTIVE.begin(format, out).sample(&[], of.paired / 2);
        PAIRS.begin(format, out).sample(&[], counts.pairs);
        let mut samples = CONNECTIONS.begin(format, out);
        for (state, count) in [
            ("handshake", of.handshakes),
            ("head", of.heads),
            ("answer", of.answers),
            ("waiting", of.waiting),
            ("held", of.held),
            ("paired", of.paired),
            ("closing", of.closing),
        ] {
            samples.sample(&[("state", state)], count);
        }
        CONNECTIONS_MAX.begin(format, out).sample(&[], self.snapshot.connections_max);
        RELAYED.begin(format, out).sample(&[], self.stats.relayed);
        let mut samples = REFUSED.begin(format, out);
        for (reason, count) in self.counters.refusals() {
            samples.sample(&[("reason", reason.label())], count);
        }
        CHALLENGED.begin(format, out).sample(&[], self.counters.challenged());
        HAND_OVER.begin(format, out).histogram(&counts.hand_overs);
        HAND_OVERS_FAILED.begin(format, out).sample(&[], self.counters.hand_overs_failed());
        let mut samples = HANDSHAKES.begin(format, out);
        samples.sample(&[("result", "ok")], counts.handshakes);
        samples.sample(&[("result", "failed")], self.counters.tls_failed());
        BUFFERS.begin(format, out).sample(&[], self.buffers.0);
        BUFFERS_MAX.begin(format, out).sample(&[], self.buffers.1);
        REPLAY_CACHE.begin(format, out).sample(&[], self.snapshot.tokens);
        let mut samples = LOG_LINES.begin(format, out);
        samples.sample(&[("why", "rate_limit")], self.log_lines.0);
        samples.sample(&[("why", "lost")], self.log_lines.1);
        let mut samples = CERTIFICATE.begin(format, out);
        for (name, not_after) in &self.certificates {
            samples.sample(&[("name", name)], not_after);
        }
        text
    }
}
