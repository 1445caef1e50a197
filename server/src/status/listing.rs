//! The document of connections: one JSON object, written in slices.

use miniserde::{Deserialize, Serialize, json};
use rendezvous_core::engine::{ConnectionInfo, ConnectionState, Engine, Transport};
use rendezvous_core::machine::{ConnId, NamedBy};
use rendezvous_core::time::Now;

use crate::logging::Names;

/// Places of the engine's table that are visited in one call.
const PLACES: usize = 64;

/// The document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// The connections, in no particular order.
    pub connections: Vec<Connection>,
}

/// A connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connection {
    /// Its name in logs.
    pub conn: String,
    /// The peer's address, if it is known.
    pub peer: Option<String>,
    /// The operator's name of the hidden server, if it is of one or for one.
    pub name: Option<String>,
    /// How it began: `tls`, `plain`, `proxy` or `port`.
    pub transport: String,
    /// How it named the hidden server: `label`, `user-name`, `parameter`, `server-name`, `port` or `token`; else empty.
    pub named_by: String,
    /// `handshake`, `head`, `answer`, `waiting`, `held`, `paired` or `closing`.
    pub state: String,
    /// `client` or `hidden` in a pair, else empty.
    pub side: String,
    /// How long it waits, is held or is paired.
    pub seconds: Option<u64>,
    /// The other half of its pair.
    pub paired_with: Option<String>,
    /// Bytes of the pair that were received from it.
    pub received: u64,
    /// Bytes of the pair that were received for it.
    pub sent: u64,
}

/// The document being written.
#[derive(Debug, Default)]
pub struct Listing {
    /// The next place of the engine's table.
    next: usize,
    has_begun: bool,
    has_entry: bool,
}

impl Listing {
    /// Appends the next slice, of about `enough` bytes. Returns whether more follow.
    pub fn next(
        &mut self,
        engine: &Engine,
        names: &Names,
        now: Now,
        out: &mut String,
        enough: usize,
    ) -> bool {
        if !std::mem::replace(&mut self.has_begun, true) {
            out.push_str("{\"connections\":[");
        }
        while out.len() < enough {
            let (listed, next) = engine.list(self.next, PLACES, now);
            for info in listed {
                if std::mem::replace(&mut self.has_entry, true) {
                    out.push(',');
                }
                out.push_str(&json::to_string(&Connection::new(&info, names)));
            }
            let Some(next) = next else {
                out.push_str("]}\n");
                return false;
            };
            self.next = next;
        }
        true
    }
}

impl Connection {
    fn new(of: &ConnectionInfo, names: &Names) -> Self {
        let (state, side) = match of.state {
            ConnectionState::Handshake => ("handshake", ""),
            ConnectionState::Head => ("head", ""),
            ConnectionState::Answer => ("answer", ""),
            ConnectionState::Waiting => ("waiting", ""),
            ConnectionState::Held => ("held", ""),
            ConnectionState::Hidden => ("paired", "hidden"),
            ConnectionState::Client => ("paired", "client"),
            ConnectionState::Closing => ("closing", ""),
        };
        let transport = match of.transport {
            Some(Transport::Tls) => "tls",
            Some(Transport::Plain) | None => "plain",
            Some(Transport::Proxied) => "proxy",
            Some(Transport::Port(_)) => "port",
        };
        let named_by = match of.named_by {
            NamedBy::Nothing => "",
            NamedBy::Label => "label",
            NamedBy::UserName => "user-name",
            NamedBy::Parameter => "parameter",
            NamedBy::ServerName => "server-name",
            NamedBy::Port => "port",
            NamedBy::Token => "token",
        };
        Self {
            conn: conn(of.conn),
            peer: of.from.map(|from| from.to_string()),
            name: of.id.map(|id| names.0.get(&id).map_or("?", String::as_str).to_owned()),
            transport: transport.to_owned(),
            named_by: named_by.to_owned(),
            state: state.to_owned(),
            side: side.to_owned(),
            seconds: of.age.map(|age| age.0 / 1_000_000),
            paired_with: of.peer.map(conn),
            received: of.received,
            sent: of.sent,
        }
    }
}

fn conn(of: ConnId) -> String {
    format!("{}.{}", of.index, of.generation)
}
