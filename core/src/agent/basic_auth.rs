//! Passwords: each request of an HTTP client needs a user name and a password (RFC 7617).

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Agent, ConnId};
use crate::http::accept::Form;
use crate::http::basic::{self, Credentials, Presented};
use crate::http::head::{Body, Head};
use crate::http::reply::diagnostic::PASSWORD;
use crate::http::reply::{Reply, Status};
use crate::time::{Now, Span};

/// The maximum body of a request that gets 401, in bytes. It is discarded; if it is longer, the connection is closed.
const DROPPED_BODY_MAX: u64 = 64 << 10;

/// The timeout of the caller's password check.
pub(super) const VERDICT_TIMEOUT: Span = Span::from_secs(30);

/// Asks the clients of an HTTP service for a password.
///
/// Connectors and raw clients are not asked, since they only reach the stream services, which have their own keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    realm: String,
    keeps_credentials: bool,
}

impl BasicAuth {
    /// The maximum length of a realm, in bytes.
    const REALM_MAX: usize = 64;

    /// Asks with this realm. Characters other than letters, digits, `-`, `.` and `_` are replaced by `_`.
    #[must_use]
    pub fn new(realm: &str) -> Self {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
        let letters = realm.chars().map(|letter| if is_plain(letter) { letter } else { '_' });
        Self { realm: letters.take(Self::REALM_MAX).collect(), keeps_credentials: false }
    }

    /// Also forwards `Authorization` to the service. Otherwise it is removed.
    #[must_use]
    pub fn keeping_credentials(self) -> Self {
        Self { keeps_credentials: true, ..self }
    }

    /// Whether the service gets `Authorization`.
    #[must_use]
    pub const fn keeps_credentials(&self) -> bool {
        self.keeps_credentials
    }

    /// The realm.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }
}

/// A user name and a password that the caller checks: [`Agent::take_checks`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordCheck {
    /// The connection whose request waits.
    pub on: ConnId,
    /// The number of this check, to tell it from others of the connection.
    pub ticket: u64,
    /// The client's address, if it is known.
    pub from: Option<IpAddr>,
    /// The credentials in the request.
    pub credentials: Credentials,
}

/// The result of a [`PasswordCheck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Correct: the request is forwarded.
    Right,
    /// Wrong: the client gets 401.
    Wrong,
    /// Not checked: the client gets 429.
    Busy {
        /// When to retry, in seconds.
        retry_after: u32,
    },
}

/// The progress of the request at the front of a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// Not read yet.
    Open,
    /// Its password is being checked.
    Checking { ticket: u64 },
    /// It may be forwarded.
    Admitted,
    /// It is refused, once the earlier requests are answered.
    Denied(Denial),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denial {
    NoPassword,
    Wrong,
    Busy { retry_after: u32 },
}

/// The state of one client's connection.
#[derive(Clone, Debug)]
pub(super) struct AuthState {
    pub(super) basic_auth: BasicAuth,
    admission: Admission,
    /// The number of bytes of a refused request's body that are still to be discarded.
    unread: u64,
    /// Whether a 401 or 429 is in the send queue. The client's next bytes wait, so that there is never more
    /// than one.
    is_answer_queued: bool,
    /// Whether the last request was refused.
    is_denied: bool,
}

/// What to do with the request at the front.
pub(super) enum Decision {
    Pass,
    /// Keep it.
    Hold,
    /// Keep it until these credentials are checked.
    Ask(Credentials),
    /// Its credentials are malformed: it gets 400, and the connection is closed.
    Malformed,
    /// Send this response, and discard the request.
    Answer(Answer),
}

/// A 401 or 429.
pub(super) struct Answer {
    pub(super) text: Vec<u8>,
    pub(super) closes: bool,
    pub(super) why: &'static str,
}

impl AuthState {
    pub(super) const fn new(basic_auth: BasicAuth) -> Self {
        Self { basic_auth, admission: Admission::Open, unread: 0, is_answer_queued: false, is_denied: false }
    }

    /// Decides about the request at the front; `raw` is its head. `is_answerable`: a response sent now would be the
    /// one to it.
    pub(super) fn decide(&mut self, head: &Head<'_>, raw: &[u8], is_answerable: bool, now: Now) -> Decision {
        if self.admission == Admission::Open {
            match basic::read(head.authorization) {
                Presented::Nothing => self.admission = Admission::Denied(Denial::NoPassword),
                Presented::Malformed => return Decision::Malformed,
                Presented::Basic(credentials) => return Decision::Ask(credentials),
            }
        }
        match self.admission {
            Admission::Admitted => {
                self.admission = Admission::Open;
                self.is_denied = false;
                Decision::Pass
            }
            Admission::Denied(denial) if is_answerable => {
                Decision::Answer(self.answer(denial, head, raw, now))
            }
            Admission::Open | Admission::Checking { .. } | Admission::Denied(_) => Decision::Hold,
        }
    }

    fn answer(&mut self, denial: Denial, head: &Head<'_>, raw: &[u8], now: Now) -> Answer {
        let body = match head.body {
            Body::None => Some(0),
            Body::Length(bytes) => Some(bytes).filter(|bytes| *bytes <= DROPPED_BODY_MAX),
            Body::Chunked => None,
        };
        // With `Expect` the body may follow or not.
        let kept = body.filter(|_| head.persists && !head.expect);
        self.admission = Admission::Open;
        self.unread = kept.unwrap_or(0);
        self.is_answer_queued = true;
        self.is_denied = true;
        let (status, retry_after) = match denial {
            Denial::NoPassword | Denial::Wrong => (Status::Unauthorized401, None),
            Denial::Busy { retry_after } => (Status::TooManyRequests429, Some(retry_after)),
        };
        let reply = Reply {
            status,
            diagnostic: denial.why(),
            permanent: false,
            retry_after,
            close: kept.is_none(),
            head_request: head.method == "HEAD",
            form: Form::preferred(raw),
            challenge: None,
            token_challenge: None,
        };
        let (mut challenge, mut text) = (Vec::new(), Vec::new());
        if status == Status::Unauthorized401 {
            basic::write_challenge(&self.basic_auth.realm, &mut challenge);
        }
        reply.write_with(&challenge, now.wall, &mut text);
        Answer { text, closes: kept.is_none(), why: denial.why() }
    }

    /// Discards the bytes at the front that belong to a refused request. Returns how many these are.
    pub(super) fn drop_body(&mut self, bytes: &[u8]) -> usize {
        let len = usize::try_from(self.unread).unwrap_or(usize::MAX).min(bytes.len());
        self.unread -= len as u64;
        len
    }

    #[cfg(feature = "trace")]
    pub(super) const fn unread_body(&self) -> u64 {
        self.unread
    }

    pub(super) const fn asked(&mut self, ticket: u64) {
        self.admission = Admission::Checking { ticket };
    }

    /// Whether a password is being checked.
    pub(super) const fn is_asking(&self) -> bool {
        matches!(self.admission, Admission::Checking { .. })
    }

    /// Whether a refused request waits for its turn to be answered.
    pub(super) const fn has_denied(&self) -> bool {
        matches!(self.admission, Admission::Denied(_))
    }

    /// Whether the client was refused, and its next request is awaited.
    pub(super) const fn awaits_retry(&self) -> bool {
        self.is_denied && matches!(self.admission, Admission::Open)
    }

    pub(super) const fn is_answer_queued(&self) -> bool {
        self.is_answer_queued
    }

    /// The send queue is empty. Returns whether the client's next bytes waited for that.
    pub(super) const fn flushed(&mut self) -> bool {
        core::mem::replace(&mut self.is_answer_queued, false)
    }

    /// Handles the result of a check. Returns whether it is for the request at the front.
    fn verified(&mut self, ticket: u64, verdict: Verdict) -> bool {
        if self.admission != (Admission::Checking { ticket }) {
            return false;
        }
        self.admission = match verdict {
            Verdict::Right => Admission::Admitted,
            Verdict::Wrong => Admission::Denied(Denial::Wrong),
            Verdict::Busy { retry_after } => Admission::Denied(Denial::Busy { retry_after }),
        };
        true
    }
}

impl Denial {
    const fn why(self) -> &'static str {
        match self {
            Self::NoPassword => PASSWORD,
            Self::Wrong => "wrong user name or password",
            Self::Busy { .. } => "too many passwords to check",
        }
    }
}

impl Agent {
    /// Returns the passwords to check since the last call. The driver calls this whenever the machine is idle, and
    /// [`Agent::handle_verified`] for each. A check is dropped if its connection ends meanwhile.
    #[must_use]
    pub fn take_checks(&mut self) -> Vec<PasswordCheck> {
        core::mem::take(&mut self.checks)
    }

    /// Handles the result of a [`PasswordCheck`]. Late and duplicate results are ignored.
    pub fn handle_verified(&mut self, on: ConnId, ticket: u64, verdict: Verdict, now: Now) {
        if self.auth(on).is_some_and(|auth| auth.verified(ticket, verdict)) {
            self.offer_again(on);
            self.conclude(on, now);
        }
        self.check_invariants();
    }
}
