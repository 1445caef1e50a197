//! The metrics of an agent.

use rendezvous_core::event::{Event, RelayLoss, Target};
use rendezvous_core::id::Id;

use super::process::Process;
use super::{Family, Format, PerRow, Scrape};

const RELAY_LOST: Family =
    Family::counter("rendezvous_agent_relay_lost", "Connections that a relay refused or ended, by reason.");
const DIAL_FAILED: Family =
    Family::counter("rendezvous_agent_dials_failed", "Relays and local services that could not be reached.");
const SERVICE_TLS_FAILED: Family =
    Family::counter("rendezvous_agent_service_tls_failed", "Failed TLS handshakes with local services.");
const CLIENTS_REFUSED: Family =
    Family::counter("rendezvous_agent_clients_refused", "Clients refused by the agent.");
const RELAYED: Family = Family::counter("rendezvous_relayed_bytes", "Bytes of pairs.");

/// The reasons of [`RELAY_LOST`], in the order of [`loss`].
const LOSSES: [&str; 8] =
    ["refused", "challenged", "garbled", "ended", "silent", "tls", "unreachable", "proxy"];

const fn loss(why: RelayLoss) -> usize {
    match why {
        RelayLoss::Refused(_) => 0,
        RelayLoss::Challenged => 1,
        RelayLoss::NotHttp => 2,
        RelayLoss::Ended(_) | RelayLoss::Released => 3,
        RelayLoss::TimedOut => 4,
        RelayLoss::Tls(_) => 5,
        RelayLoss::Unreachable(_) => 6,
        RelayLoss::Proxy(_) => 7,
    }
}

/// Counters of an agent since its start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    relay_lost: [u64; LOSSES.len()],
    relay_unreachable: u64,
    service_unreachable: u64,
    service_tls_failed: u64,
    clients_refused: u64,
    upstreams: Vec<OfUpstream>,
}

/// Counters of one ticket.
#[derive(Clone, Copy, Debug, Default)]
struct OfUpstream {
    /// The ID of its hidden server.
    id: Option<Id>,
    pairs: u64,
    from_client: u64,
    from_hidden: u64,
}

impl Counters {
    /// Counters of an agent with tickets of these IDs.
    #[must_use]
    pub fn new(ids: impl IntoIterator<Item = Id>) -> Self {
        let of = |id| OfUpstream { id: Some(id), ..OfUpstream::default() };
        Self { upstreams: ids.into_iter().map(of).collect(), ..Self::default() }
    }

    /// Counts an event.
    pub fn count(&mut self, event: &Event) {
        match *event {
            Event::RelayLost { why, .. } => self.relay_lost[loss(why)] += 1,
            Event::DialFailed { what: Target::Relay(_), .. } => self.relay_unreachable += 1,
            Event::DialFailed { what: Target::Service(_) | Target::Stream(_), .. } => {
                self.service_unreachable += 1;
            }
            Event::ServiceTlsFailed { .. } => self.service_tls_failed += 1,
            Event::ClientRefused { .. } => self.clients_refused += 1,
            Event::Served { upstream, .. } => {
                if let Some(of) = self.upstreams.get_mut(usize::from(upstream)) {
                    of.pairs += 1;
                }
            }
            Event::PairEnded { id, from_client, from_hidden, .. } => {
                // The event names the hidden server, not the relay.
                if let Some(of) = self.upstreams.iter_mut().find(|of| of.id == Some(id)) {
                    of.from_client = of.from_client.saturating_add(from_client);
                    of.from_hidden = of.from_hidden.saturating_add(from_hidden);
                }
            }
            _ => {}
        }
    }
}

/// A ticket and its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The hidden server's name.
    pub name: String,
    /// The relay.
    pub relay: String,
    /// Connections that wait at the relay.
    pub waiting: u32,
    pairs: u64,
    /// Bytes of all tickets with this name; `None` in all rows of the name but the first.
    bytes: Option<(u64, u64)>,
}

const PER_TICKET: &[PerRow<Row>] = &[
    PerRow {
        family: Family::gauge(
            "rendezvous_waiting_connections",
            "Connections that wait for clients at a relay.",
        ),
        write: |row, samples| samples.sample(&[("id", &row.name), ("relay", &row.relay)], row.waiting),
    },
    PerRow {
        family: Family::counter("rendezvous_pairs", "Clients that were connected to a local service."),
        write: |row, samples| samples.sample(&[("id", &row.name), ("relay", &row.relay)], row.pairs),
    },
    PerRow {
        family: Family::counter(
            "rendezvous_bytes",
            "Bytes of pairs that have ended; in: from clients, out: to clients.",
        ),
        write: |row, samples| {
            if let Some((from_client, from_hidden)) = row.bytes {
                samples.sample(&[("id", &row.name), ("direction", "in")], from_client);
                samples.sample(&[("id", &row.name), ("direction", "out")], from_hidden);
            }
        },
    },
];

/// What the metrics of an agent are made from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The process.
    pub process: Process,
    /// Its counters.
    pub counters: &'a Counters,
    /// Bytes of pairs received.
    pub relayed: u64,
    /// The name, relay and number of waiting connections of each ticket.
    pub tickets: Vec<(String, String, u32)>,
}

impl Facts<'_> {
    /// Makes a scrape.
    #[must_use]
    pub fn scrape(self, format: Format) -> Scrape<Row> {
        let mut text = String::new();
        let out = &mut text;
        let of = self.counters;
        self.process.write(format, out);
        RELAYED.begin(format, out).sample(&[], self.relayed);
        let mut samples = RELAY_LOST.begin(format, out);
        for (reason, count) in LOSSES.iter().zip(of.relay_lost) {
            samples.sample(&[("reason", reason)], count);
        }
        let mut samples = DIAL_FAILED.begin(format, out);
        samples.sample(&[("to", "relay")], of.relay_unreachable);
        samples.sample(&[("to", "service")], of.service_unreachable);
        SERVICE_TLS_FAILED.begin(format, out).sample(&[], of.service_tls_failed);
        CLIENTS_REFUSED.begin(format, out).sample(&[], of.clients_refused);
        Scrape::new(format, text, PER_TICKET, rows(self.tickets, &of.upstreams))
    }
}

/// The rows of the tickets. Two tickets with the same name and relay are one row, since a series must be unique.
fn rows(tickets: Vec<(String, String, u32)>, of: &[OfUpstream]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (place, (name, relay, waiting)) in tickets.into_iter().enumerate() {
        let of = of.get(place).copied().unwrap_or_default();
        let first = rows.iter_mut().find(|row| row.name == name).and_then(|row| row.bytes.as_mut());
        let bytes = match first {
            Some((from_client, from_hidden)) => {
                *from_client += of.from_client;
                *from_hidden += of.from_hidden;
                None
            }
            None => Some((of.from_client, of.from_hidden)),
        };
        match rows.iter_mut().find(|row| row.name == name && row.relay == relay) {
            Some(row) => {
                row.waiting += waiting;
                row.pairs += of.pairs;
            }
            None => rows.push(Row { name, relay, waiting, pairs: of.pairs, bytes }),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_with_one_name_at_one_relay_are_one_series() {
        let ticket = |name: &str, relay: &str| (name.to_owned(), relay.to_owned(), 2);
        let of = [OfUpstream { pairs: 1, from_client: 5, ..OfUpstream::default() }; 3];
        let rows = rows(vec![ticket("a", "r"), ticket("a", "s"), ticket("a", "r")], &of);
        let numbers: Vec<_> =
            rows.iter().map(|row| (row.relay.as_str(), row.waiting, row.pairs, row.bytes)).collect();
        assert_eq!(numbers, [("r", 4, 2, Some((15, 0))), ("s", 2, 1, None)]);
    }
}
