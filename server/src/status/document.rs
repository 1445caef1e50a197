//! The status document: one JSON object, which `rendezvous status` reads again.

use miniserde::{Deserialize, Serialize, json};

/// The state of a relay at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Document {
    /// The relay's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// Whether it is shutting down.
    pub stopping: bool,
    /// Processes that it has taken over from and that still have connections.
    pub older: Option<Vec<OlderProcess>>,
    /// The certificate that it serves.
    pub certificate: Certificate,
    /// The state of the `ids` file that is in force.
    pub ids_stamp: String,
    /// Memory in buffers.
    pub buffers: Buffers,
    /// Pipes in use.
    pub pipes: u64,
    /// File descriptors.
    pub descriptors: Descriptors,
    /// Log lines left out by the rate limit.
    pub log_lines_left_out: u64,
    /// Log lines that could not be written in time.
    pub log_lines_lost: u64,
    /// Connections by state.
    pub connections: Connections,
    /// Bytes relayed since the start.
    pub bytes: MovedBytes,
    /// Turns of the event loop.
    pub turns: u64,
    /// Clients that got a challenge.
    pub challenged: u64,
    /// Hand-overs that failed.
    pub hand_overs_failed: u64,
    /// Refused requests.
    pub refused: Vec<Refused>,
    /// Connections that ended before they were used.
    pub dropped: Vec<Reason>,
    /// Waiting connections that ended without a client.
    pub waiting_ended: Vec<Reason>,
    /// Certificates from a CA: those with failures first, then those that expire soonest.
    pub certificates: Vec<CertificateOfCa>,
    /// Enrolled IDs, busy ones first.
    pub ids: Vec<Enrolled>,
    /// IDs that did not fit into the document.
    pub ids_left_out: u64,
}

/// A process that was taken over from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OlderProcess {
    /// Its ID.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Its connections.
    pub connections: u64,
    /// Its pairs.
    pub pairs: u64,
}

/// The served certificate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Certificate {
    /// The pin of its key.
    pub pin: String,
    /// It is from a CA, and the next one has another key.
    pub changes_keys: bool,
}

/// A certificate from a CA.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CertificateOfCa {
    /// Its name.
    pub name: String,
    /// `valid`, `missing`, `failing` or `expired`.
    pub state: String,
    /// The end of its validity, in seconds since 1970; `None` if there is no certificate yet.
    pub not_after: Option<u64>,
    /// Whole days until then.
    pub days_left: Option<u64>,
    /// Seconds until the next order, or the next attempt of one.
    pub next_in: u64,
    /// Attempts that failed since the last certificate.
    pub failures: u32,
    /// Why the last one failed; empty if none did.
    pub last_failure: String,
}

/// Memory in buffers, in bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Buffers {
    /// In use.
    pub bytes: u64,
    /// The ceiling.
    pub max: u64,
}

/// File descriptors; `None`: unknown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Descriptors {
    /// In use.
    pub now: Option<u64>,
    /// The limit.
    pub max: Option<u64>,
}

/// Connections by state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// All.
    pub now: u64,
    /// The limit.
    pub max: u64,
    /// In the TLS handshake.
    pub handshakes: u64,
    /// Sending a request head.
    pub heads: u64,
    /// Receiving an answer of the relay.
    pub answers: u64,
    /// Waiting connections of hidden servers.
    pub waiting: u64,
    /// Clients that wait for a hidden server.
    pub held: u64,
    /// Halves of pairs.
    pub paired: u64,
    /// Closing.
    pub closing: u64,
}

/// Bytes relayed since the start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MovedBytes {
    /// All.
    pub relayed: u64,
    /// Copied between buffers.
    pub copied: u64,
    /// Spliced in the kernel.
    pub spliced: u64,
}

/// Requests that were refused for one reason.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Refused {
    /// The HTTP status code.
    pub status: u16,
    /// The reason.
    pub why: String,
    /// How many.
    pub count: u64,
}

/// What happened for one reason.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reason {
    /// The reason.
    pub why: String,
    /// How many.
    pub count: u64,
}

/// One enrolled ID.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Enrolled {
    /// The operator's name for it; `?` if it has none.
    pub name: String,
    /// The ID.
    pub id: String,
    /// Waiting connections.
    pub waiting: u64,
    /// Clients that wait.
    pub held: u64,
    /// Pairs.
    pub pairs: u64,
    /// Pairs that have ended.
    pub pairs_ended: u64,
    /// Bytes from clients, of pairs that have ended.
    pub from_client: u64,
    /// Bytes from the hidden server, of pairs that have ended.
    pub from_hidden: u64,
    /// Bytes from clients in the present month, in UTC; `None` if the relay keeps no usage.
    pub month_in: Option<u64>,
    /// Bytes from the hidden server in the present month, in UTC, likewise.
    pub month_out: Option<u64>,
    /// Seconds since a connection of it was last there; `None`: never.
    pub seen: Option<u64>,
}

impl Document {
    /// Reads a document; `None` if it is incomplete or of another version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        json::from_str(text).ok()
    }

    /// The document as text with a line feed, at most `max` bytes: IDs at the end of the list that do not fit are counted
    /// in [`Document::ids_left_out`] instead.
    #[must_use]
    pub fn text(mut self, max: usize) -> String {
        let ids = std::mem::take(&mut self.ids);
        self.ids_left_out = u64::MAX;
        let mut room = max.saturating_sub(json::to_string(&self).len() + 1);
        let all = ids.len();
        // Each entry is followed by a comma or by the end of the list.
        self.ids.extend(ids.into_iter().map_while(|id| {
            room = room.checked_sub(json::to_string(&id).len() + 1)?;
            Some(id)
        }));
        self.ids_left_out = (all - self.ids.len()) as u64;
        json::to_string(&self) + "\n"
    }
}
