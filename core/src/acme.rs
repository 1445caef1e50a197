//! Certificates by ACME: an RFC 8555 client as a state machine, and its connection to the CA.
//!
//! [`Client`] decides everything: which certificate is ordered or renewed when, what is sent to the CA, what is stored
//! before which step. It has no connections, keys and files. [`With`] runs it beside any other machine on the same event
//! loop. `docs/acme.md` has the states, the order in which things are stored, and the limits.
//!
//! ```text
//!  driver ── handle_*, poll_output ──▶ With<M> ──▶ M (relay or agent, untouched)
//!    │                                    │
//!    │                                    ├──▶ Transport: one connection for each request
//!    │                                    ▼
//!    └── poll_action, handle_answer ──▶ Client: account, orders, renewals
//! ```
//!
//! The driver keeps keys and certificates. It answers each [`Question`] once, with the id that came with it, whenever the
//! answer is there; the next question comes only then.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | what can be set |
//! | [`action`] | what the client asks its driver for, and the answers |
//! | [`event`] | what is logged |
//! | [`names`], [`url`] | the names of a certificate, URLs of a CA |
//! | [`state`] | what is stored |
//! | [`message`] | requests and responses |
//! | [`dates`], [`pem`] | dates and chains as CAs write them |
//! | [`client`] | the client |
//! | [`with`] | the client beside another machine |

pub mod action;
mod attempts;
pub mod client;
pub mod config;
pub mod dates;
pub mod event;
mod http_listener;
mod jose;
mod json;
pub mod message;
pub mod names;
mod objects;
pub mod pem;
mod problem;
mod renewal;
pub mod state;
mod transport;
pub mod url;
pub mod with;

pub use self::action::{Action, Answer, Certificate, Challenge, Proof, Question, QuestionId};
pub use self::client::{Client, Status, Wanted};
pub use self::config::{ChallengeKind, Config, ExternalAccount, PublicKey};
pub use self::event::Event;
pub use self::message::{Method, NoResponse, Request, Response};
pub use self::names::Names;
pub use self::state::State;
pub use self::url::Url;
pub use self::with::With;
