//! Sans-IO implementation of the rendezvous protocol: a relay, the agent beside a hidden server, the connector beside a
//! client, direct connections (DTCP) and the stream proxy.
//!
//! State machines consume events and return actions; the caller does all I/O. There are no sockets, clocks, entropy
//! sources, threads and logs in this crate. `docs/protocol.md` specifies the protocol, `docs/design.md` the design.
//!
//! The main types are [`Engine`] (the relay), [`Agent`] and [`Connector`]. All of them are a [`Machine`]: the trait has the
//! events as methods, and [`Output`] has the actions. `examples/blocking_relay.rs` is a whole relay on blocking sockets.
//!
//! # Run loop
//!
//! ```
//! use rendezvous_core::engine::{Config, Transport};
//! use rendezvous_core::{Engine, Listener, Machine, Now, Output, Time};
//!
//! /// Carries out all actions; returns when `handle_timeout` is due.
//! fn drain(machine: &mut impl Machine, sent: &mut Vec<u8>) -> Option<Time> {
//!     loop {
//!         let mut text = Vec::new();
//!         match machine.poll_output(&mut text) {
//!             // The driver writes to the socket of `to`, and calls `handle_flushed` when all is in it.
//!             Output::Send { to: _, len } => sent.extend_from_slice(&text[..len as usize]),
//!             // It shuts the socket down, and calls `handle_closed` when that is done.
//!             Output::Close { on: _, how: _ } => {}
//!             // Nothing more to do. The driver sleeps until an event or `until`.
//!             Output::Idle { until, why: _ } => return until,
//!             // Read, Pair, StartTls, Dial …: see `Output`.
//!             _ => {}
//!         }
//!     }
//! }
//!
//! let config = Config { listeners: vec![Transport::Plain], ..Config::default() };
//! let mut now = Now { mono: Time(0), wall: 1_700_000_000 };
//! let mut relay = Engine::new(config, [7; 32], now);
//! let mut sent = Vec::new();
//! drain(&mut relay, &mut sent);
//!
//! // A client connects, and sends a request that names no hidden server.
//! let client = relay.handle_open(Listener(0), "192.0.2.1:40000".parse().unwrap(), now);
//! drain(&mut relay, &mut sent);
//! let request = b"GET / HTTP/1.1\r\nHost: relay.example\r\n\r\n";
//! let consumed = relay.handle_bytes(client, request, now);
//! let until = drain(&mut relay, &mut sent);
//!
//! assert_eq!(consumed, request.len());
//! assert!(sent.starts_with(b"HTTP/1.1 401 Unauthorized\r\n"));
//!
//! // The client does not take the answer: its deadline passes.
//! now.mono = until.expect("an answer has a deadline");
//! relay.handle_timeout(now);
//! drain(&mut relay, &mut sent);
//! ```
//!
//! # Contract
//!
//! ## Calls
//!
//! The driver calls one `handle_*` method for each event, and then [`Machine::poll_output`] until it returns
//! [`Output::Idle`]. No method returns an error: what a peer does wrong is answered and closed by outputs. What the driver
//! does wrong is a `debug_assert!`. Outputs for one connection are carried out in their order. What an output causes is
//! reported once the machine is idle.
//!
//! ## Connections
//!
//! The machine makes each [`ConnId`]: in [`Machine::handle_open`] for an accepted connection, and with [`Output::Resolve`] or
//! [`Output::Dial`] for one that it wants to open. The driver calls [`Machine::handle_closed`] once for each id, after
//! [`Output::Close`]. A connection whose socket has failed stays until the machine closes it; the driver reports the
//! failure with `handle_end`, `handle_write_failed` or `handle_dial_failed`.
//!
//! ## Bytes
//!
//! Outside of a pair, the driver offers received bytes with [`Machine::handle_bytes`], keeps what was not consumed, and offers
//! it again together with the bytes that follow. [`Output::Read`] stops and resumes that.
//!
//! ## Pairs
//!
//! From [`Output::Pair`] on the driver moves bytes between the two connections itself and reports lengths with
//! [`Machine::handle_moved`]. Bytes that were received and not consumed by then go first. The pair lasts until one of the
//! two is closed.
//!
//! ## Gates
//!
//! After [`Output::Gate`] the bytes of one half of a pair are offered before they move. [`Output::Pass`] lets a number of
//! them move. Bytes that the machine consumes are dropped; it sends others in their place. Bytes that are neither
//! consumed nor let pass are kept, and offered again with what follows. A byte that was let pass is never offered again.
//!
//! ## Ends
//!
//! The driver reports the end of a connection's reading side once, with [`Machine::handle_end`], after all bytes in front of
//! it were offered or moved. It tells a clean end from a truncated one ([`End`]).
//!
//! ## Time
//!
//! Each call carries both clocks ([`Now`]). [`Output::Idle`] has the next deadline; early and late calls of
//! [`Machine::handle_timeout`] are harmless.
//!
//! ## Determinism
//!
//! The same calls give the same outputs, bit for bit. Entropy is the seed given at construction, so the seed of a real
//! program comes from the operating system. `trace` records and replays calls.
//!
//! ## Memory
//!
//! The driver owns all buffers of bytes that move. [`Machine::owners`] and [`Machine::kept`] tell to which accounts memory is
//! charged. If memory is short, [`Machine::handle_stalled`] has the machine close a connection.
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`machine`] | the trait of all machines, and the actions |
//! | [`engine`] | the relay |
//! | [`agent`] | the program beside a hidden server |
//! | [`connector`] | the program beside a client that speaks no HTTP |
//! | `acme` | certificates: an ACME client (feature `acme`) |
//! | [`dtcp`], [`offer`] | direct connections, and the offers that negotiate them |
//! | `bytestream` | the stream proxy, and both ends of its streams (feature `xmpp`) |
//! | `xmpp`, `component_host` | stanzas; a machine behind a component of an XMPP server (feature `xmpp`) |
//! | [`http`] | HTTP/1.1 heads, request targets, credentials, responses |
//! | [`token`], [`id`] | how a hidden server authenticates, and its ID |
//! | [`client_hello`] | the server name in a ClientHello |
//! | [`registry`] | enrolled IDs and their waiting connections |
//! | [`pair`] | the half-close table |
//! | [`dialer`], [`relay_client`], [`backoff`] | dialling, the relay as seen by its clients, retry delays |
//! | [`conn`], [`endpoint`], [`acl`], [`fingerprint`] | connections, hosts and ports, addresses that may be dialled, certificates |
//! | [`account`], [`prefix`], [`proxy_header`] | memory accounting, address prefixes, the PROXY protocol |
//! | [`event`] | events to log and count |
//! | [`opaque`] | bytes that `Debug` does not print |
//! | `trace` | recording and replaying (feature `trace`) |
//! | [`time`], [`entropy`] | clocks and randomness as values |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod account;
pub mod acl;
#[cfg(feature = "acme")]
pub mod acme;
mod admission;
pub mod agent;
pub mod backoff;
#[cfg(feature = "xmpp")]
pub mod bytestream;
pub mod client_hello;
#[cfg(feature = "xmpp")]
pub mod component_host;
pub mod conn;
pub mod connector;
mod conns;
pub mod dialer;
pub mod dtcp;
pub mod endpoint;
pub mod engine;
pub mod entropy;
pub mod event;
pub mod fingerprint;
pub mod http;
pub mod id;
pub mod limiter;
pub mod machine;
pub mod offer;
pub mod opaque;
pub mod pacer;
pub mod pair;
pub mod prefix;
pub mod proxy_header;
pub mod registry;
pub mod relay_client;
mod sorted_vec_map;
pub mod subject;
pub mod time;
pub mod token;
#[cfg(feature = "trace")]
pub mod trace;
pub mod tunnel;
#[cfg(feature = "xmpp")]
pub mod xmpp;

pub use agent::Agent;
pub use conn::{Close, ConnId, End, Listener};
pub use connector::Connector;
pub use engine::Engine;
pub use event::Event;
pub use id::Id;
pub use machine::{Machine, Output};
pub use time::{Now, Span, Time};
