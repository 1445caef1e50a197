//! The handshake on one connection: [`Dialling`] asks, [`Serving`] answers (XEP-0046 §3.3).
//!
//! Neither knows a session: whether a key that was shown is right, and whether its connection wins, is for the
//! [`negotiation`](super::negotiation) to say. Both consume whole lines only. What is behind the last line belongs to
//! TLS after `starttls` (docs/dtcp.md §6.26) and otherwise to the application (docs/dtcp.md §6.24, §6.25). It is not
//! read.
//!
//! | serving, in state | `starttls` | `key:K` | `ok` | anything else | too long |
//! |---|---|---|---|---|---|
//! | `Listening` | `ok`, → `Securing`; without TLS, or inside of it: `error` | → `Judged`; in clear where TLS is required: `error` | `error` | `error` | `error`, close |
//! | `Judged` | not read | not read | not read | not read | not read |
//! | `Tentative` | `error`, → `Listening` | `error`, → `Listening` | established | `error`, → `Listening` | `error`, close |
//!
//! The fourth `error` on a connection is followed by its end (docs/dtcp.md §6.17).
//!
//! | dialling, in state | `ok` | `ok:` our key | `error` | anything else |
//! |---|---|---|---|---|
//! | `Fresh` | failed | failed | failed | failed |
//! | `AskedTls` | → `Securing` | failed | `key:K`, → `AskedKey`; where TLS is required: failed | failed |
//! | `AskedKey` | failed | right | failed | failed |

use super::Key;
use super::line::{self, Command, Found};

/// How many lines of nonsense are answered on one connection; after the last answer it is closed (docs/dtcp.md §6.17).
pub const ERRORS_MAX: u8 = 4;

/// What is wanted of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Neither asked for nor given.
    #[default]
    Off,
    /// Asked for and given, but a connection in clear will do.
    Prefer,
    /// No connection without it.
    Require,
}

/// What was made of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<A> {
    /// How many were consumed, from the front.
    pub used: usize,
    /// What is to be done.
    pub act: A,
}

/// What the serving party is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served<'a> {
    /// Wait for more.
    Wait,
    /// Say `ok`, then begin TLS as its server.
    StartTls,
    /// This key was shown: say what it is worth ([`Serving::judge`]). No line is read before that.
    Judge(&'a [u8]),
    /// Say `ok:` with the dialling party's key.
    Accept,
    /// The requestor's ack came: the connection is established.
    Acknowledged,
    /// Say `error`; the connection stays.
    Refuse,
    /// Say `error`, then close.
    Dismiss,
}

/// What a key is worth that was shown to the serving party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet: the session is, the other party's key is not (docs/dtcp.md §6.2).
    Later,
    /// It names no session, or not for this peer.
    Wrong,
    /// It named a session that is settled: the connection is of no use any more (docs/dtcp.md §6.3).
    UsedKey,
    /// It is right, and the requestor, who dialled, has the last word.
    Tentative,
    /// It is right, and we are the requestor: established.
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

    /// Reads at most one line from the front of what was received and not consumed.
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

    /// What the key that was shown last is worth; may be said again after [`Verdict::Later`].
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

    /// Whether a right key was shown, was answered, and the ack is awaited.
    #[must_use]
    pub fn is_tentative(&self) -> bool {
        self.state == ServingState::Tentative
    }

    /// Whether TLS is refused, for it is off.
    #[must_use]
    pub(super) fn has_no_tls(&self) -> bool {
        self.tls == Tls::Off
    }

    /// Whether a key that is shown now is refused, for TLS is required and not there.
    #[must_use]
    pub(super) fn refuses_keys(&self) -> bool {
        self.state == ServingState::Listening && self.tls == Tls::Require && !self.secure
    }

    /// Whether the connection is in TLS.
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
            // Whether the key is right is not looked at: who listens on the way learns nothing (docs/dtcp.md §6.29).
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

/// What the dialling party is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// Wait for more.
    Wait,
    /// Say `starttls`.
    AskTls,
    /// Begin TLS as its client.
    StartTls,
    /// Say `key:` with the serving party's key.
    ShowKey,
    /// The serving party answered with our key. The requestor says `ok`, if no other connection has won; for the
    /// responder the connection is established.
    Right,
    /// This connection leads nowhere: close it (docs/dtcp.md §6.31).
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
    /// A connection that is on its way.
    #[must_use]
    pub const fn new(tls: Tls) -> Self {
        Self { state: DiallingState::Fresh, tls }
    }

    /// The connection is up.
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

    /// Whether an `error` that is received now is the end, for TLS is required.
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

    /// Reads at most one line from the front of what was received and not consumed; `mine` is our key.
    #[must_use]
    pub fn on_bytes(&mut self, bytes: &[u8], mine: &Key) -> Step<Dialled> {
        match self.state {
            DiallingState::Securing | DiallingState::Ended => return Step { used: 0, act: Dialled::Wait },
            // The serving party answers; who speaks first speaks something else (docs/dtcp.md §6.32).
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
