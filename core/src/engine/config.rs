//! The relay's configuration.

use alloc::string::String;
use alloc::vec::Vec;

use crate::http::head;
use crate::machine::USER_TIMEOUT;
use crate::pair;
use crate::prefix::Prefix;
use crate::time::Span;

/// How the connections of a listener begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// With a TLS handshake.
    Tls,
    /// In clear.
    Plain,
    /// With a PROXY protocol header in clear, accepted only from [trusted](Config::proxies) peers, and then like
    /// [`Transport::Tls`].
    Proxied,
    /// With a raw client's bytes of any protocol. All of them go to the hidden server of this port, a position in
    /// [`Config::ports`].
    Port(u16),
}

/// The configuration of a relay. All limits are inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The transports of the driver's listeners, in the order of their [`Listener`](crate::machine::Listener)
    /// numbers.
    pub listeners: Vec<Transport>,
    /// The labels of the ports for raw clients, of 1 to 64 visible ASCII characters. A hidden server is told the port
    /// that its client came through.
    pub ports: Vec<String>,
    /// The domain of `LABEL.DOMAIN`, which names a hidden server without a challenge; in lower case, without a dot at
    /// either end.
    pub domain: Option<String>,
    /// Whether this is one of several relays behind a load balancer that selects the relay by the server name. Then only
    /// hidden servers and clients are served whose server name is `LABEL.DOMAIN` with the first label of the ID
    /// (`docs/protocol.md §12`). Needs [`Config::domain`].
    pub group: bool,
    /// The addresses of load balancers whose PROXY headers are trusted.
    pub proxies: Vec<Prefix>,
    /// The addresses whose connections are dropped when they are accepted, or when their PROXY header has arrived.
    pub denied: Vec<Prefix>,
    /// Whether a plain token is accepted only once.
    pub one_time_strict: bool,
    /// Limits of a request head, in bytes.
    pub head: head::Limits,
    /// Limit of all connections.
    pub connections_max: u32,
    /// Limit of connections of one address (for IPv6, of one /64); 0: no limit.
    pub connections_per_address_max: u32,
    /// Limit of TLS handshakes in progress. From three quarters on, the oldest are displaced.
    pub handshakes_max: u32,
    /// Limit of connections that wait for a request head or are answered. From three quarters on, the oldest are
    /// displaced.
    pub heads_max: u32,
    /// Limit of waiting connections for one ID.
    pub waiting_per_id_max: u32,
    /// Limit of pairs of one ID.
    pub pairs_per_id_max: u32,
    /// Limit of clients held for one ID.
    pub held_per_id_max: u32,
    /// Limit of accepted tokens remembered for one ID.
    pub tokens_per_id_max: u32,
    /// Timeout of a TLS handshake.
    pub handshake: Span,
    /// Timeout of the first byte of a request, and of the rest of its head after that byte.
    pub head_timeout: Span,
    /// Timeout of sending a response, and of receiving the body of a challenged request.
    pub answer: Span,
    /// Timeout of a held client.
    pub hold: Span,
    /// Limit of how long bytes to a waiting connection may stay unacknowledged; default [`USER_TIMEOUT`].
    pub user_timeout: Span,
    /// Timeouts of a pair.
    pub pair: pair::Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            ports: Vec::new(),
            domain: None,
            group: false,
            proxies: Vec::new(),
            denied: Vec::new(),
            one_time_strict: false,
            head: head::Limits::default(),
            connections_max: 10_000,
            connections_per_address_max: 1_000,
            handshakes_max: 2_000,
            heads_max: 1_500,
            waiting_per_id_max: 32,
            pairs_per_id_max: 1_000,
            held_per_id_max: 256,
            tokens_per_id_max: 65_536,
            handshake: Span::from_secs(10),
            head_timeout: Span::from_secs(10),
            answer: Span::from_secs(10),
            hold: Span::from_secs(5),
            user_timeout: USER_TIMEOUT,
            pair: pair::Limits::default(),
        }
    }
}
