//! The handshake on one connection: [`Dialling`] asks, [`Serving`] answers (XEP-0046 §3.3).
//!
//! Neither has a session: the [`negotiation`](super::negotiation) decides whether a key is correct, and which
//! connection is chosen. Both consume whole lines only. The bytes after the last line belong to TLS after `starttls`
//! (docs/dtcp.md §6.26), and otherwise to the application (docs/dtcp.md §6.24, §6.25). They are not read.
//!
//! | serving, in state | `starttls` | `key:K` | `ok` | anything else | too long |
//! |---|---|---|---|---|---|
//! | `Listening` | `ok`, → `Securing`; without TLS, or inside of it: `error` | → `Judged`; in clear where TLS is required: `error` | `error` | `error` | `error`, close |
//! | `Judged` | not read | not read | not read | not read | not read |
//! | `Tentative` | `error`, → `Listening` | `error`, → `Listening` | established | `error`, → `Listening` | `error`, close |
//!
//! After the fourth `error` the connection is closed (docs/dtcp.md §6.17).
//!
//! | dialling, in state | `ok` | `ok:` our key | `error` | anything else |
//! |---|---|---|---|---|
//! | `Fresh` | failed | failed | failed | failed |
//! | `AskedTls` | → `Securing` | failed | `key:K`, → `AskedKey`; where TLS is required: failed | failed |
//! | `AskedKey` | failed | correct | failed | failed |

use super::Key;
use super::line::{self, Command, Found};

/// The maximum number of errors on one connection; after the last one it is closed (docs/dtcp.md §6.17).
pub const ERRORS_MAX: u8 = 4;

/// The policy for TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Neither requested nor offered.
    #[default]
    Off,
    /// Requested and offered, but a connection in clear is accepted.
    Prefer,
    /// Required.
    Require,
}

/// The result of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<A> {
    /// How many bytes were consumed from the front.
    pub used: usize,
    /// The action.
    pub act: A,
}

/// The action of the serving endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served<'a> {
    /// Wait for more bytes.
    Wait,
    /// Send `ok`, then begin TLS as the server.
    StartTls,
    /// The peer sent this key: check it, and call [`Serving::judge`]. No line is read before that.
    Judge(&'a [u8]),
    /// Send `ok:` with the dialling endpoint's key.
    Accept,
    /// The requestor's ack has arrived: the connection is established.
    Acknowledged,
    /// Send `error`; the connection stays.
    Refuse,
    /// Send `error`, then close.
    Dismiss,
}

/// The result of checking a key that was sent to the serving endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet: the session is known, but the peer's key is not (docs/dtcp.md §6.2).
    Later,
    /// It belongs to no session, or not to one with this peer.
    Wrong,
    /// It belongs to a session that has its connection, so this connection is not needed (docs/dtcp.md §6.3).
    UsedKey,
    /// It is correct, and the peer is the requestor, which chooses.
    Tentative,
    /// It is correct, and we are the requestor: established.
    Commit,
}

/// The serving side of one connection.
#[derive(Clone, Debug)]
pub struct Serving {
    state: ServingState,
    tls: Tls,
    secure: bool,
    errors: u8,
}

/// See the first table of the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServingState {
    Listening,
    Securing,
    Judged,
    Tentative,
    Ended,
}

impl Serving {
    /// A connection that was just accepted.
    #[must_use]
    pub const fn new(tls: Tls) -> Self {
        Self { state: ServingState::Listening, tls, secure: false, errors: 0 }
    }

    /// Reads at most one line from the front of the bytes that were received and not consumed.
    #[must_use]
    pub fn on_bytes<'a>(&mut self, bytes: &'a [u8]) -> Step<Served<'a>> {
        let is_tentative = match self.state {
            ServingState::Listening => false,
            ServingState::Tentative => true,
            ServingState::Securing | ServingState::Judged | ServingState::Ended => {
                return Step { used: 0, act: Served::Wait };
            }
        };
        match line::find(bytes) {
            Found::Partial => Step { used: 0, act: Served::Wait },
            Found::TooLong => Step { used: 0, act: self.dismiss() },
            Found::Unknown { len } => Step { used: len, act: self.refuse() },
            Found::Command { command, len } if is_tentative => {
                Step { used: len, act: self.acknowledged(command) }
            }
            Found::Command { command, len } => Step { used: len, act: self.asked(command) },
        }
    }

    /// The TLS handshake is complete.
    pub fn on_tls_up(&mut self) {
        debug_assert!(self.state == ServingState::Securing, "TLS nobody began");
        self.secure = true;
        self.state = ServingState::Listening;
    }

    /// Handles the result of checking the last key. May be called again after [`Verdict::Later`].
    #[must_use]
    pub fn judge(&mut self, verdict: Verdict) -> Served<'static> {
        debug_assert!(self.state == ServingState::Judged, "no key was shown");
        match verdict {
            Verdict::Later => Served::Wait,
            Verdict::Wrong => self.refuse(),
            Verdict::UsedKey => self.dismiss(),
            Verdict::Tentative => {
                self.state = ServingState::Tentative;
                Served::Accept
            }
            Verdict::Commit => {
                self.state = ServingState::Ended;
                Served::Accept
            }
        }
    }

    /// Whether a correct key was answered, and the ack is awaited.
    #[must_use]
    pub fn is_tentative(&self) -> bool {
        self.state == ServingState::Tentative
    }

    /// Whether TLS is refused because it is off.
    #[must_use]
    pub(super) fn has_no_tls(&self) -> bool {
        self.tls == Tls::Off
    }

    /// Whether a key is refused because TLS is required and not established.
    #[must_use]
    pub(super) fn refuses_keys(&self) -> bool {
        self.state == ServingState::Listening && self.tls == Tls::Require && !self.secure
    }

    /// Whether the connection uses TLS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    fn asked<'a>(&mut self, command: Command<'a>) -> Served<'a> {
        match command {
            Command::StartTls if self.tls != Tls::Off && !self.secure => {
                self.state = ServingState::Securing;
                Served::StartTls
            }
            // The key is not checked, so that an eavesdropper learns nothing (docs/dtcp.md §6.29).
            Command::Key(_) if self.tls == Tls::Require && !self.secure => self.refuse(),
            Command::Key(key) => {
                self.state = ServingState::Judged;
                Served::Judge(key)
            }
            Command::StartTls | Command::Ok(_) | Command::Error => self.refuse(),
        }
    }

    fn acknowledged(&mut self, command: Command<'_>) -> Served<'static> {
        match command {
            Command::Ok(b"") => {
                self.state = ServingState::Ended;
                Served::Acknowledged
            }
            Command::Ok(_) | Command::StartTls | Command::Key(_) | Command::Error => self.refuse(),
        }
    }

    fn refuse(&mut self) -> Served<'static> {
        self.errors += 1;
        if self.errors >= ERRORS_MAX {
            return self.dismiss();
        }
        self.state = ServingState::Listening;
        Served::Refuse
    }

    fn dismiss(&mut self) -> Served<'static> {
        self.state = ServingState::Ended;
        Served::Dismiss
    }
}

/// The action of the dialling endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// Wait for more bytes.
    Wait,
    /// Send `starttls`.
    AskTls,
    /// Begin TLS as the client.
    StartTls,
    /// Send `key:` with the serving endpoint's key.
    ShowKey,
    /// The serving endpoint answered with our key. The requestor sends `ok`, unless another connection was chosen;
    /// for the responder the connection is established.
    Right,
    /// The handshake failed: close the connection (docs/dtcp.md §6.31).
    Failed,
}

/// The dialling side of one connection.
#[derive(Clone, Debug)]
pub struct Dialling {
    state: DiallingState,
    tls: Tls,
}

/// See the second table of the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiallingState {
    Fresh,
    AskedTls,
    Securing,
    AskedKey,
    Ended,
}

impl Dialling {
    /// A connection that is being dialled.
    #[must_use]
    pub const fn new(tls: Tls) -> Self {
        Self { state: DiallingState::Fresh, tls }
    }

    /// The connection is established.
    #[must_use]
    pub fn on_connected(&mut self) -> Dialled {
        debug_assert!(self.state == DiallingState::Fresh, "connected twice");
        match self.tls {
            Tls::Off => self.show_key(),
            Tls::Prefer | Tls::Require => {
                self.state = DiallingState::AskedTls;
                Dialled::AskTls
            }
        }
    }

    /// Whether an `error` that is received now is final because TLS is required.
    #[must_use]
    pub(super) fn needs_tls(&self) -> bool {
        self.state == DiallingState::AskedTls && self.tls == Tls::Require
    }

    /// The TLS handshake is complete.
    #[must_use]
    pub fn on_tls_up(&mut self) -> Dialled {
        debug_assert!(self.state == DiallingState::Securing, "TLS nobody began");
        self.show_key()
    }

    /// Reads at most one line from the front of the bytes that were received and not consumed; `mine` is our key.
    #[must_use]
    pub fn on_bytes(&mut self, bytes: &[u8], mine: &Key) -> Step<Dialled> {
        match self.state {
            DiallingState::Securing | DiallingState::Ended => return Step { used: 0, act: Dialled::Wait },
            // The serving endpoint only answers; a peer that sends first does not speak DTCP (docs/dtcp.md §6.32).
            DiallingState::Fresh if !bytes.is_empty() => return Step { used: 0, act: self.fail() },
            DiallingState::Fresh | DiallingState::AskedTls | DiallingState::AskedKey => {}
        }
        match line::find(bytes) {
            Found::Partial => Step { used: 0, act: Dialled::Wait },
            Found::TooLong => Step { used: 0, act: self.fail() },
            Found::Unknown { len } => Step { used: len, act: self.fail() },
            Found::Command { command, len } => Step { used: len, act: self.answered(command, mine) },
        }
    }

    fn answered(&mut self, command: Command<'_>, mine: &Key) -> Dialled {
        match (self.state, command) {
            (DiallingState::AskedTls, Command::Ok(b"")) => {
                self.state = DiallingState::Securing;
                Dialled::StartTls
            }
            (DiallingState::AskedTls, Command::Error) if self.tls == Tls::Prefer => self.show_key(),
            (DiallingState::AskedKey, Command::Ok(key)) if mine.is(key) => {
                self.state = DiallingState::Ended;
                Dialled::Right
            }
            _ => self.fail(),
        }
    }

    fn show_key(&mut self) -> Dialled {
        self.state = DiallingState::AskedKey;
        Dialled::ShowKey
    }

    fn fail(&mut self) -> Dialled {
        self.state = DiallingState::Ended;
        Dialled::Failed
    }
}
