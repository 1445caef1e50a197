//! What an operator can set.

use alloc::string::String;
use alloc::vec::Vec;

use crate::http::head;
use crate::machine::USER_TIMEOUT;
use crate::pair;
use crate::prefix::Prefix;
use crate::time::Span;

/// How a listener's connections begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// With a TLS handshake.
    Tls,
    /// In clear.
    Plain,
    /// With the header of the PROXY protocol in clear, of [trusted](Config::proxies) peers alone, and then as
    /// [`Transport::Tls`].
    Proxied,
    /// With whatever a raw client sends: everything goes to the hidden server of this port, a position in
    /// [`Config::ports`].
    Port(u16),
}

/// Everything that an operator can set. All limits are inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the shell's listeners speak, in the order of their [`Listener`](crate::machine::Listener)
    /// numbers.
    pub listeners: Vec<Transport>,
    /// The labels of the ports for raw clients, of 1 to 64 visible ASCII characters: a hidden server is told by which port
    /// its client came.
    pub ports: Vec<String>,
    /// `LABEL.DOMAIN` names a hidden server without a challenge; in lower case, without a dot at either end.
    pub domain: Option<String>,
    /// Who may say for whom it opens a connection.
    pub proxies: Vec<Prefix>,
    /// Plain tokens are taken once only.
    pub one_time_strict: bool,
    /// Limits of a request head, in bytes.
    pub head: head::Limits,
    /// Connections in all.
    pub connections_max: u32,
    /// Connections of one address (IPv6: of one /64); 0: no limit.
    pub connections_per_address_max: u32,
    /// TLS handshakes in progress; from three quarters on the oldest make room.
    pub handshakes_max: u32,
    /// Connections whose next request head is to come, or in progress; from three quarters on the oldest make room.
    pub heads_max: u32,
    /// Connections that wait for one ID.
    pub waiting_per_id_max: u32,
    /// Pairs of one ID.
    pub pairs_per_id_max: u32,
    /// Clients held for one ID.
    pub held_per_id_max: u32,
    /// Accepted tokens remembered for one ID.
    pub tokens_per_id_max: u32,
    /// A TLS handshake may take this long.
    pub handshake: Span,
    /// A head may take this long from its first byte, and the first byte from the connection's beginning.
    pub head_timeout: Span,
    /// An answer must be in the socket, and the body of a challenged request must be there, after this long.
    pub answer: Span,
    /// How long a client is held for the next waiting connection.
    pub hold: Span,
    /// How long bytes to a waiting connection may stay unacknowledged; default [`USER_TIMEOUT`].
    pub user_timeout: Span,
    /// Deadlines of a pair.
    pub pair: pair::Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            ports: Vec::new(),
            domain: None,
            proxies: Vec::new(),
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
