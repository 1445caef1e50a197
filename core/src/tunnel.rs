//! A CONNECT exchange with an HTTP proxy (RFC 9110 §9.3.6): the way to a relay through a proxy.
//!
//! [`Tunnel`] is the exchange on one connection, without I/O. It sends a CONNECT, answers a 407 with Basic (RFC 7617) or
//! Digest (RFC 7616), skips the body of the 407, and ends with the head of a 2xx. Every byte behind that head belongs to the
//! relay.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::auth::{Challenge, Scheme, choose};
use self::body::{BodyEnd, Skip};
use crate::conn::DialFailure;
use crate::endpoint::{Host, HostPort};
use crate::http::head::Limits;
use crate::http::response::parse_fields;
use crate::opaque::Opaque;

mod auth;
mod body;

/// An HTTP proxy on the way to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its address.
    pub place: HostPort,
    /// The credentials that it may ask for.
    pub credentials: Option<Credentials>,
    /// Makes the client nonces of Digest. It need not be secret, but must differ between runs.
    pub seed: [u8; 16],
}

impl Proxy {
    /// The same proxy with credentials that are not secret, for traces.
    #[cfg(feature = "trace")]
    pub(crate) fn with_stand_ins(&self) -> Self {
        Self::stand_in(self.place.clone(), self.credentials.is_some())
    }

    /// A proxy of a trace.
    #[cfg(feature = "trace")]
    pub(crate) fn stand_in(place: HostPort, has_credentials: bool) -> Self {
        let credentials = has_credentials
            .then(|| Credentials { user: String::from("user"), password: Opaque(String::from("password")) });
        Self { place, credentials, seed: [0; 16] }
    }
}

/// A user name and a password. `Debug` does not show the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user name, without a colon and without control characters.
    pub user: String,
    /// The password, without control characters.
    pub password: Opaque<String>,
}

/// Why a proxy opened no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// It answered with this status.
    Refused(u16),
    /// It asks for a user name and a password, and none is configured.
    NoCredentials,
    /// It does not accept the user name and the password.
    WrongCredentials,
    /// It accepts neither Basic nor Digest, but NTLM or Negotiate.
    Ntlm,
    /// It accepts neither Basic nor Digest.
    UnknownScheme,
    /// Its answer is not HTTP, or too long.
    NotHttp,
    /// It ended the connection before its answer.
    Ended,
    /// It did not answer in time.
    TimedOut,
    /// It cannot be reached.
    Unreachable(DialFailure),
}

/// The next step of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// These bytes are consumed; send this on the same connection.
    Send(String),
    /// The answer cannot be skipped on this connection: repeat the exchange on a new one, with [`Tunnel::begin`].
    Reconnect,
    /// The tunnel is open. The bytes that follow are the relay's.
    Open,
    /// There is no tunnel.
    Failed(ProxyError),
}

/// The exchange with a proxy on one connection.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// `HOST:PORT` of the relay.
    target: String,
    credentials: Option<Credentials>,
    seed: [u8; 16],
    state: State,
    /// The challenge that is answered, if there was one.
    challenge: Option<Challenge>,
    /// Whether credentials were sent for the present challenge.
    is_answered: bool,
    /// Whether a nonce has expired and was replaced.
    was_stale: bool,
    /// Requests with the present nonce.
    count: u32,
    /// Bytes of the present head that were scanned.
    scanned: usize,
    /// Whether the first request answers a challenge of an earlier connection. If it is refused, the nonce may have been
    /// forgotten.
    is_guess: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for the head of an answer.
    Head,
    /// Skips the body of a 407; then the CONNECT is repeated.
    Body(Skip),
    Over,
}

impl Tunnel {
    /// An exchange that has not begun.
    #[must_use]
    pub fn new(proxy: &Proxy, target: &HostPort) -> Self {
        Self {
            target: authority(target),
            credentials: proxy.credentials.clone(),
            seed: proxy.seed,
            state: State::Head,
            challenge: None,
            is_answered: false,
            was_stale: false,
            count: 0,
            scanned: 0,
            is_guess: false,
        }
    }

    /// The request at the beginning of a connection: the first one, or after [`Step::Reconnect`] the next one.
    #[must_use]
    pub fn begin(&mut self) -> String {
        self.state = State::Head;
        self.scanned = 0;
        self.request()
    }

    /// An exchange with the same proxy that answers the challenge of this one in its first request.
    #[must_use]
    pub fn next(&mut self, target: &HostPort) -> Self {
        // Each answer to a nonce has a number of its own.
        self.count += 1;
        Self {
            target: authority(target),
            state: State::Head,
            is_answered: false,
            was_stale: false,
            scanned: 0,
            is_guess: true,
            ..self.clone()
        }
    }

    /// Handles received bytes, from the first that was not consumed. Returns how many are consumed, and the next step.
    pub fn read(&mut self, bytes: &[u8], limits: &Limits) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            match &mut self.state {
                State::Over => return (used, Step::Failed(ProxyError::NotHttp)),
                State::Body(skip) => {
                    let Ok((skipped, is_over)) = skip.read(rest, limits) else {
                        return (used, Step::Reconnect);
                    };
                    used += skipped;
                    if !is_over {
                        return (used, Step::More);
                    }
                    self.state = State::Head;
                    return (used, Step::Send(self.request()));
                }
                State::Head => {
                    let Some(len) = head_len(rest, &mut self.scanned) else {
                        let is_too_long = rest.len() > limits.head_bytes_max as usize;
                        let begins = b"HTTP/1.".iter().zip(rest).all(|(a, b)| a == b);
                        let is_bad = is_too_long || !begins;
                        return (used, if is_bad { self.fail(ProxyError::NotHttp) } else { Step::More });
                    };
                    self.scanned = 0;
                    let head = rest.get(..len).unwrap_or_default();
                    used += len;
                    let Some(step) = self.answer(head) else { continue };
                    return (used, step);
                }
            }
        }
    }

    /// Handles the head of an answer. `None`: go on.
    fn answer(&mut self, head: &[u8]) -> Option<Step> {
        let Some((status, fields)) = parse_fields(head) else {
            return Some(self.fail(ProxyError::NotHttp));
        };
        match status {
            100..200 => None,
            200..300 => {
                self.state = State::Over;
                Some(Step::Open)
            }
            407 => {
                let challenges =
                    fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Proxy-Authenticate"));
                let step = self.challenged(challenges.map(|(_, value)| value.as_str()));
                if let Err(error) = step {
                    return Some(self.fail(error));
                }
                match BodyEnd::of(head, &fields) {
                    BodyEnd::Empty => Some(Step::Send(self.request())),
                    BodyEnd::Skip(skip) => {
                        self.state = State::Body(skip);
                        None
                    }
                    BodyEnd::UntilClose => Some(Step::Reconnect),
                }
            }
            status => Some(self.fail(ProxyError::Refused(status))),
        }
    }

    /// Chooses how to answer a 407.
    fn challenged<'a>(&mut self, fields: impl Iterator<Item = &'a str>) -> Result<(), ProxyError> {
        let offered = choose(fields);
        if self.credentials.is_none() {
            return Err(ProxyError::NoCredentials);
        }
        let challenge = offered?;
        if self.is_answered {
            // A nonce that has expired is no wrong password, once.
            if !challenge.is_stale || core::mem::replace(&mut self.was_stale, true) {
                return Err(ProxyError::WrongCredentials);
            }
        }
        self.challenge = Some(challenge);
        self.count = 0;
        Ok(())
    }

    fn request(&mut self) -> String {
        let target = &self.target;
        let mut text =
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Connection: keep-alive\r\n");
        if let (Some(challenge), Some(credentials)) = (&self.challenge, &self.credentials) {
            self.count += 1;
            self.is_answered = !core::mem::take(&mut self.is_guess);
            let value = match &challenge.scheme {
                Scheme::Basic => auth::basic(credentials),
                Scheme::Digest(digest) => digest.answer(credentials, target, self.count, &self.seed),
            };
            text.push_str("Proxy-Authorization: ");
            text.push_str(&value);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text
    }

    fn fail(&mut self, error: ProxyError) -> Step {
        self.state = State::Over;
        Step::Failed(error)
    }
}

/// `HOST:PORT`, with an IPv6 address in brackets.
fn authority(place: &HostPort) -> String {
    match &place.host {
        Host::Address(address) => format!("{}", core::net::SocketAddr::new(*address, place.port)),
        Host::Name(name) => format!("{name}:{}", place.port),
    }
}

/// The length of a head that is complete. `scanned` is the number of bytes that were looked at before.
fn head_len(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    let from = scanned.saturating_sub(3);
    *scanned = bytes.len();
    let at = bytes.get(from..)?.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(from + at + 4)
}

/// The fields of a head, with names as they were sent.
pub(crate) type FieldList = Vec<(String, String)>;

#[cfg(test)]
mod tests;
