//! Traces: the inputs and actions of a machine as text that can be read, written and replayed.
//!
//! Machines are deterministic: the inputs in their order determine all actions. A [`Trace`] has both. [`Trace::parse`]
//! parses one, its `Display` writes one, and [`Replay`] runs one and reports where the machine acts differently.
//! [`Recorder`] wraps a running machine and records a trace of it.
//!
//! # The format
//!
//! One item per line; ` #` begins a comment. The machine comes first, here a relay:
//!
//! ```text
//! rendezvous-trace 1
//! machine relay
//! listen plain tls                               # the transports of listeners 0, 1, …
//! config hold=2s waiting-per-id-max=2            # settings that differ from the default
//! seed 0                                         # of the nonces; hexadecimal, without leading zeroes
//! id home 6ba7b810-9dad-41d1-80b4-00c04fd430c8 secret=JBSWY3DPEHPK3PXP tokens=any labels=home,house
//! ```
//!
//! Or an agent, with a line for each upstream:
//!
//! ```text
//! rendezvous-trace 1
//! machine agent
//! config once=yes
//! seed 0
//! jitter 0                                       # the seed of the jitter in its back-off
//! id home 6ba7b810-9dad-41d1-80b4-00c04fd430c8 secret=JBSWY3DPEHPK3PXP
//! upstream home relay=192.0.2.7:8443 host=relay.example tls pool=4 service=127.0.0.1:80 stream=127.0.0.1:22
//! ```
//!
//! An `id` line gives an identity a name for this file: the UUID, the secret in BASE32, and where they differ from the
//! default `algorithm=SHA1`, `digits=6`, `period=60`, `tokens=any` (plain tokens are taken), `labels=`. It may stand
//! anywhere before it is used. An `upstream` has one of them as its first word; `tls`, `plain` (for plain tokens),
//! `pool`, `pool-max` (if the pool grows), `service` and `stream` are there or not; `door=REALM` if clients of the service need a password, with `password-keep` if it gets that;
//! `service-tls=N` if the service speaks TLS, with `N` for `upstream=N`
//! of its handshake. An agent that takes direct connections has a line `direct` behind
//! those:
//!
//! ```text
//! direct certificate=64-HEX-DIGITS listener=0 hosts=192.0.2.9:7000,[2001:db8::9]:7000 allow=loopback,private
//! ```
//!
//! An agent that reaches its relay through an HTTP proxy has a line `proxy UPSTREAM at=HOST:PORT`, with `credentials` at its
//! end if the proxy may ask for them. They are `user` and `password` in each trace.
//!
//! The values of `allow` are `loopback`, `link-local`, `private`, `shared` and `names`; the addresses of `own=ADDRESS,…` are never dialled;
//! `patience=` is the timeout of a client's decision.
//!
//! Then the events: `@`, the time, `wall=` with the wall clock's second unless it has advanced steadily, and the event.
//! The time is `@5s`, `@100ms`, `@17us` since the origin, or `@+5s` since the event before. The first event is `start`.
//! All resulting actions follow their event in order, each after an arrow.
//!
//! ```text
//! @0 wall=1795219200 start
//! @+0 ids home
//! @+1ms open 0 192.0.2.1:40000
//!     -> conn 0.1
//! @+1ms in 0.1 "CONNECT uuid:$id(home)?response=$bound(home,nonce-of-sixteen)&nonce=nonce-of-sixteen HTTP/1.1\r\n\r\n"
//!     -> took 127
//!     -> user-timeout 0.1 37500ms
//!     -> send 0.1 "HTTP/1.1 200 OK\r\n\r\n"
//!     -> note waiting 0.1 from=192.0.2.1:40000 id=6ba7b810-9dad-41d1-80b4-00c04fd430c8 waiting=1
//! @+0 flushed 0.1
//! ```
//!
//! An agent's first action results from its `start`. What it sends is compared, and so is its backoff:
//!
//! ```text
//! @0 wall=1795219200 start
//!     -> dial 0.1 192.0.2.7:8443
//! @+10ms connected 0.1
//!     -> start-tls 0.1 client upstream=0
//! @+10ms secured 0.1
//!     -> send 0.1 "CONNECT uuid:$id(home)?response=$bound(home,83UYCrqSiIQB8ZGb5KhxWg)&nonce=83UYCrqSiIQB8ZGb5KhxWg HTTP/1.1\r\n"
//!         "Host: relay.example\r\n"
//!         "Rendezvous-Challenge: next\r\n\r\n"
//! @+10ms in 0.1 "HTTP/1.1 404 Not Found\r\n\r\n"
//!     -> took 26
//!     -> close 0.1 linger
//!     -> note relay-lost 0.1 upstream=0 why=refused status=404 again=4877452us
//! @+4877452us timeout
//!     -> dial 1.2 192.0.2.7:8443
//! ```
//!
//! | event | [`Machine`](crate::machine::Machine) |
//! |---|---|
//! | `start` | construction |
//! | `open LISTENER ADDRESS` | `handle_open`; the action `conn` is the returned id |
//! | `found CONN ADDRESS…` | `handle_found` |
//! | `resolved CONN ADDRESS…`, `connected CONN` | `handle_resolved`, `handle_connected` |
//! | `secured CONN`, `secured CONN certificate=HEX` | `handle_secured`; the SHA-256 of the peer's certificate |
//! | `dial-failed CONN name\|refused\|unreachable\|local` | `handle_dial_failed` |
//! | `tls-failed CONN certificate\|ended\|protocol` | `handle_tls_failed` |
//! | `in CONN "OCTETS"` | `handle_bytes`: all offered bytes; the action `took` has the number consumed, if any |
//! | `last-bytes CONN` | `handle_last_bytes` |
//! | `moved CONN read=N queued=N`, `flushed CONN` | `handle_moved`, `handle_flushed` |
//! | `round-trip CONN TIME` | `handle_round_trip` |
//! | `acked CONN none\|TIME` | `handle_acked` |
//! | `stalled CONN` | `handle_stalled` |
//! | `end CONN clean\|truncated\|reset`, `write-failed CONN`, `closed CONN` | `handle_end`, `handle_write_failed`, `handle_closed` |
//! | `timeout` | `handle_timeout` |
//! | `verified CONN TICKET right\|wrong\|busy=N` | agent: the result of a password check; the check itself is not an action |
//! | `path-changed` | agent: an address or a route of the machine has changed |
//! | `keys-removed KEY…` | agent: `handle_removed_keys`, with the fingerprints of the keys |
//! | `ticket UPSTREAM NAME` | agent: `handle_ticket`, with the secret of this identity |
//! | `drain` | `handle_drain` |
//! | `ids NAME…`, `config KEY=VALUE…` | relay: `handle_ids`, `handle_config` |
//! | `take-over freeze`, `take-over cancel`, `take-over retire` | relay: `handle_take_over` |
//! | `kick conn=CONN`, `kick id=UUID`, `kick from=PREFIX` | relay: `handle_kick`; the number of ended connections is not an action |
//!
//! Actions are outputs, and `conn` and `took`; `Idle` is omitted. Bytes are quoted, with `\r \n \t \" \\ \$ \xHH`;
//! several strings, on the line or on lines of their own, are one. They may contain
//!
//! | | |
//! |---|---|
//! | `$times(x,70000)` | a repeated byte; at most 1048576 bytes in total for one event |
//! | `$id(home)` | the UUID |
//! | `$totp(home)`, `$totp(home,-1)` | the plain token of now, or of a step with an offset of up to 2 |
//! | `$bound(home,NONCE)`, `$bound(home,NONCE,+1)` | the bound token |
//! | `$challenged(home,CHALLENGE,NONCE)` | the token over a challenge |
//! | `$basic(home,PASSWORD)` | BASE64 of UUID, colon, password |
//! | `$date` | the wall clock's second as an HTTP date |
//! | `$nonce` | any 32 lower-case hexadecimal digits; only in actions |
//! | `$challenge` | any challenge of a relay: 43 letters, digits, `-` and `_`; only in actions |
//!
//! # Contents of a recorded trace
//!
//! A recorded trace has no credentials: see [`Recorder`].

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

pub use self::bytes::Bytes;
pub use self::parse::ParseError;
pub use self::record::Recorder;
pub use self::replay::{Difference, Played, Replay};
pub use self::replayer::{Action, Replayer};
use crate::fingerprint::Fingerprint;
use crate::machine::{ConnId, DialFailure, End, Listener, Secured, TlsFailure};
use crate::registry::Enrolment;
use crate::time::{Now, Span};
use crate::{agent, engine};

mod bytes;
mod config;
mod direct;
mod display;
mod parse;
mod print;
mod pseudonyms;
mod record;
mod redact;
mod replay;
mod replayer;
mod tokenizer;
mod writer;

/// The inputs of one machine from its start, with the resulting actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The machine and its configuration.
    pub setup: Setup,
    /// Its seed; for an agent, that of its nonces.
    pub seed: [u8; 32],
    /// The identities and their names in this file.
    pub identities: Vec<Identity>,
    /// The steps. The first, and only the first, is [`Input::Start`].
    pub steps: Vec<Step>,
}

/// The kind of machine, with its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The relay.
    Relay(Box<engine::Config>),
    /// The agent.
    Agent {
        /// The configuration.
        config: Box<agent::Config>,
        /// The seed of its jitter ([`agent::Seeds::jitter`]).
        jitter: [u8; 32],
    },
}

/// An ID with its secret, under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name: letters, digits, `-` and `_`.
    pub name: String,
    /// The ID, its secret and its settings.
    pub enrolment: Enrolment,
}

/// An input and the resulting actions.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its line in the file; 0 if it was not parsed. Steps that differ only in the line are equal.
    pub line: u32,
    /// The time.
    pub now: Now,
    /// The input.
    pub event: Input,
    /// The actions, in order.
    pub outcomes: Vec<Outcome>,
}

/// An input of the machine: see the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is a method of Machine, with that method's arguments; see the table above"
)]
pub enum Input {
    Start,
    Open { on: Listener, from: SocketAddr },
    Found { on: ConnId, addresses: Vec<SocketAddr> },
    Resolved { on: ConnId, addresses: Vec<SocketAddr> },
    Connected { on: ConnId },
    DialFailed { on: ConnId, why: DialFailure },
    Secured { on: ConnId, tls: Secured },
    TlsFailed { on: ConnId, why: TlsFailure },
    In { on: ConnId, bytes: Bytes },
    LastBytes { on: ConnId },
    Moved { on: ConnId, read: u32, queued: u32 },
    Flushed { on: ConnId },
    RoundTrip { on: ConnId, round_trip: Span },
    Acked { on: ConnId, age: Option<Span> },
    End { on: ConnId, how: End },
    WriteFailed { on: ConnId },
    Stalled { on: ConnId },
    Closed { on: ConnId },
    Timeout,
    Ids { names: Vec<String> },
    Config { config: Box<engine::Config> },
    Kick { what: engine::Kick },
    TakeOver { step: engine::TakeOver },
    Drain,
    PathChanged,
    KeysRemoved { keys: Vec<Fingerprint> },
    Ticket { upstream: u16, name: String },
    Verified { on: ConnId, ticket: u64, verdict: agent::Verdict },
}

/// An expected action.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its line in the file; 0 if it was not parsed. Outcomes that differ only in the line are equal.
    pub line: u32,
    /// The text of the action, without bytes: `send 0.1`, `pair 0.1 1.2`.
    pub text: String,
    /// The bytes of a `send`.
    pub bytes: Option<Bytes>,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        (self.now, &self.event, &self.outcomes) == (other.now, &other.event, &other.outcomes)
    }
}

impl Eq for Step {}

impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.bytes) == (&other.text, &other.bytes)
    }
}

impl Eq for Outcome {}
