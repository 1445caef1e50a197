//! What happened to a machine, as text that a person can read and write; and the same again.
//!
//! A machine is deterministic: what entered it, in order, is all there is to know. A [`Trace`] holds that, and the
//! actions that came of it. [`Trace::parse`] reads one, its `Display` writes one, [`Replay`] runs one and says where
//! the machine acts otherwise. [`Recorder`] stands around a machine that is at work and writes what happens to it.
//!
//! # The format
//!
//! One thing a line; what is behind ` #` is a comment. First the machine; a relay:
//!
//! ```text
//! rendezvous-trace 1
//! machine relay
//! listen plain tls                               # what listeners 0, 1, … speak
//! config hold=2s waiting-per-id-max=2            # what differs from the default
//! seed 0                                         # of the nonces; hexadecimal, zeroes in front left out
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
//! Behind `allow` stand `loopback`, `link-local`, `private`, `shared` and `names`; `own=ADDRESS,…` is never dialled;
//! `patience=` is how long it waits for what a client decides.
//!
//! Then what happened: `@`, the time, `wall=` with the wall clock's second where it did not just go on, and the event.
//! The time is `@5s`, `@100ms`, `@17us` since the origin, or `@+5s` since the event before. The first event is `start`.
//! Behind an event stand the actions that came of it, all of them, in their order, an arrow in front of each.
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
//! An agent's first action comes of its `start`; what it sends is there to be compared with, and so is how long it waits:
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
//! | `start` | the machine is made |
//! | `open LISTENER ADDRESS` | `handle_open`; the action `conn` is the id that it gives |
//! | `found CONN ADDRESS…` | `handle_found` |
//! | `resolved CONN ADDRESS…`, `connected CONN` | `handle_resolved`, `handle_connected` |
//! | `secured CONN`, `secured CONN certificate=HEX` | `handle_secured`; the SHA-256 of the certificate that the peer showed |
//! | `dial-failed CONN name\|refused\|unreachable\|local` | `handle_dial_failed` |
//! | `tls-failed CONN certificate\|ended\|protocol` | `handle_tls_failed` |
//! | `in CONN "OCTETS"` | `handle_bytes`: all that is offered; the action `took` is how many it consumed, if any |
//! | `last-bytes CONN` | `handle_last_bytes` |
//! | `moved CONN read=N queued=N`, `flushed CONN` | `handle_moved`, `handle_flushed` |
//! | `round-trip CONN TIME` | `handle_round_trip` |
//! | `acked CONN none\|TIME` | `handle_acked` |
//! | `stalled CONN` | `handle_stalled` |
//! | `end CONN clean\|truncated\|reset`, `write-failed CONN`, `closed CONN` | `handle_end`, `handle_write_failed`, `handle_closed` |
//! | `timeout` | `handle_timeout` |
//! | `verified CONN TICKET right\|wrong\|busy=N` | an agent's: the result of a check of a password; the check is no action |
//! | `path-changed` | an agent's: an address or a route of the machine has changed |
//! | `drain` | the operator's wish: nothing new |
//! | `ids NAME…`, `config KEY=VALUE…` | a relay's operator's wishes |
//!
//! Actions are outputs, but for `conn` and `took`; an `Idle` is none. Octets are quoted, with `\r \n \t \" \\ \$ \xHH`;
//! several strings, on the line or on lines of their own, are one. In them may stand
//!
//! | | |
//! |---|---|
//! | `$times(x,70000)` | a byte so many times; of one event 1048576 bytes at most together |
//! | `$id(home)` | the UUID |
//! | `$totp(home)`, `$totp(home,-1)` | the plain token of now, or of so many steps from now (up to 2) |
//! | `$bound(home,NONCE)`, `$bound(home,NONCE,+1)` | the bound token |
//! | `$challenged(home,CHALLENGE,NONCE)` | the token over a challenge |
//! | `$basic(home,PASSWORD)` | BASE64 of UUID, colon, password |
//! | `$date` | the wall clock's second as HTTP writes it |
//! | `$nonce` | any 32 lower-case hexadecimal digits; in actions alone |
//! | `$challenge` | any challenge of a relay: 43 letters, digits, `-` and `_`; in actions alone |
//!
//! # What a recorded trace holds, and what not
//!
//! Nothing that opens anything, of a relay's or of an agent's: see [`Recorder`].

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

/// What happened to one machine from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Which machine, and how it was configured.
    pub setup: Setup,
    /// Its seed; an agent's is that of its nonces.
    pub seed: [u8; 32],
    /// Who is known by which name in this file.
    pub identities: Vec<Identity>,
    /// What happened; the first is [`Input::Start`], and no other is.
    pub steps: Vec<Step>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The relay.
    Relay(Box<engine::Config>),
    /// The program beside a hidden server.
    Agent {
        /// How it was configured.
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
    /// Everything else.
    pub enrolment: Enrolment,
}

/// One event and what came of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The line it stands on; 0 if it was not read from text. Two steps that differ in it alone are equal.
    pub line: u32,
    /// When.
    pub now: Now,
    /// What.
    pub event: Input,
    /// The actions, in order.
    pub outcomes: Vec<Outcome>,
}

/// What entered the machine: see the [module](self).
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
    Drain,
    PathChanged,
    KeysRemoved { keys: Vec<Fingerprint> },
    Verified { on: ConnId, ticket: u64, verdict: agent::Verdict },
}

/// An action as it is expected.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The line it stands on; 0 if it was not read from text. Two that differ in it alone are equal.
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
