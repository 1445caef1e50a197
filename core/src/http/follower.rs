//! Follows the HTTP exchanges of a pair: where each request and each response ends (RFC 9112 §6), and whether the
//! connection is between two exchanges.
//!
//! A [`Follower`] gets what the client sends and what the hidden server responds, and keeps no bytes. For the front of
//! the bytes that were received in one direction and not forwarded yet, it returns what may be forwarded ([`Step`]).
//! Bodies are skipped without parsing, except for chunk lines. The caller decides about each request head before any
//! byte of it is forwarded.
//!
//! ```
//! use rendezvous_core::http::follower::{Follower, Mode, Step};
//! use rendezvous_core::http::head::{Limits, parse};
//!
//! let first = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
//! let mut follower = Follower::new(Limits::default(), Mode::Lenient);
//! follower.request_passed(&parse(first).unwrap());
//! // Only one of the three bytes is there. The other two are reported by `client_passed` when they have come.
//! assert!(matches!(follower.on_client(b"a"), Step::Skip(3)));
//! follower.client_passed(3);
//! assert!(matches!(follower.on_hidden(b"HTTP/1.1 204 No Content\r\n\r\n"), Step::Response { len: 27 }));
//! assert!(follower.is_between_exchanges());
//! // The next request names another hidden server: the client may leave now.
//! let next = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
//! let Step::Request { len, head } = follower.on_client(next) else { panic!() };
//! assert_eq!((len, head.host), (next.len(), Some("b")));
//! ```
//!
//! # When it stops
//!
//! After a 101 to an Upgrade, or a 2xx to a CONNECT, the connection carries another protocol ([`Step::Opaque`]). A
//! response that clients could delimit in different ways is treated as one that ends with the connection: the hidden
//! server's bytes are forwarded without parsing, the client's requests are still followed, and
//! [`Follower::is_between_exchanges`] stays false. So a hidden server cannot make the follower forward a request that
//! it would otherwise refuse.

mod body;
mod response_head;
#[cfg(feature = "acme")]
pub(crate) mod whole_response;

#[cfg(feature = "trace")]
use alloc::vec::Vec;

pub(crate) use self::body::{Body, Progress};
use self::response_head::{Framing, ResponseHead};
use super::fields::Fields;
use super::forwarded::{is_certificate_name, is_forwarding_name, is_same_name};
use super::head::{Finder, Found, Head, Limits, Refusal, WholeHead};
use super::syntax::is_tchar;

/// The maximum number of unanswered requests; further heads wait.
pub const PIPELINE_MAX: u32 = u64::BITS;

/// How client bytes that are not HTTP are treated where a request is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes that do not begin like a request are another protocol and are forwarded: [`Step::Opaque`]. A malformed
    /// request is refused in this mode too, since a server might accept it.
    Lenient,
    /// They are refused. So are CONNECT, an `Expect` other than `100-continue`, and trailers with fields that belong
    /// in a head.
    Strict,
}

/// What to do with the bytes at the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// More bytes are needed. The caller keeps what it has, and calls again with more. At most as many bytes are
    /// needed as [`Limits`] allow for a head.
    More,
    /// The first `len` bytes are a complete request head. The caller forwards it and calls
    /// [`Follower::request_passed`]; or it holds the head back, and the next call finds the same head.
    Request {
        /// The length of the head in bytes, including a leading empty line.
        len: usize,
        /// The parsed head.
        head: Head<'a>,
    },
    /// The first `len` bytes are the head of the final response to the oldest unanswered request. The caller forwards
    /// it.
    Response {
        /// The length of the head in bytes.
        len: usize,
    },
    /// This many bytes may be forwarded without parsing: a body, chunks, trailers, an interim response. Some of them
    /// may not have been received yet. There are never more than 2⁶³. Until all have been forwarded, the connection
    /// is not between exchanges ([`Follower::client_passed`], [`Follower::hidden_passed`]).
    Skip(u64),
    /// From the client: everything is forwarded from now on, in both directions. From the hidden server: everything
    /// is forwarded in this direction; [`Follower::is_opaque`] tells whether also in the other.
    Opaque,
    /// From the client: the bytes wait for progress in the other direction. An Upgrade or a CONNECT is unanswered, or
    /// [`PIPELINE_MAX`] requests are. Or it is unknown whether the client still sends the body that it announced with
    /// `Expect`, and the connection ends with the response ([`Follower::is_over`]).
    ///
    /// From the hidden server: no request is unanswered, so the bytes are not a response. They must not be forwarded,
    /// since the client would take them for the response to its next request. The connection should end. If another
    /// request is forwarded, they are its response.
    Hold,
    /// The client's bytes are not a request that may be forwarded. Every further call returns the same.
    Refused(Refusal),
}

/// Follows the exchanges of one pair. See the [module](self).
#[derive(Clone, Debug)]
pub struct Follower {
    limits: Limits,
    mode: Mode,
    requests: Requests,
    responses: Responses,
    unanswered: Pipeline,
    persistence: Persistence,
    /// The number of skipped bytes from the client that are not forwarded yet; below, those from the hidden server.
    client_pending: u64,
    hidden_pending: u64,
}

/// The client's direction.
///
/// ```text
/// Head ─request passed─▶ Body ─its end─▶ Head
/// Head ─request with Expect passed─▶ Announced ─the body begins─▶ Body
/// Announced ─final response first─▶ Unknown
/// Head, Body ─malformed─▶ Refused
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requests {
    /// A request head is next.
    Head(Finder),
    /// In the body of a request.
    Body(Body),
    /// Before a body that was announced with `Expect`. The client sends it after a 100 or a timeout of its own.
    Announced(Body),
    /// The final response came first. Whether the announced body still comes is unknown, so nothing more can be
    /// parsed.
    Unknown,
    /// The client sent something that must not be forwarded. `in_body`: in the body of a request whose head was
    /// forwarded.
    Refused { refusal: Refusal, in_body: bool },
}

/// The hidden server's direction. `Head` ─final response─▶ `Body` ─its end─▶ `Head`; `Head` ─response without an
/// unambiguous length─▶ `UntilEnd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Responses {
    /// A response head is next.
    Head(Finder),
    /// In the body of a response.
    Body(Body),
    /// In a response that ends with the connection.
    UntilEnd,
}

/// Whether the connection carries further exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Persistence {
    /// Another exchange may follow.
    Open,
    /// No exchange follows those that are under way.
    Closing,
    /// The hidden server has ended its direction.
    Ended,
    /// The connection has switched to another protocol.
    Opaque,
}

impl Follower {
    /// A follower at the start of a connection, before the first request. `limits` apply to request heads, response
    /// heads and trailers.
    #[must_use]
    pub fn new(limits: Limits, mode: Mode) -> Self {
        Self {
            limits,
            mode,
            requests: Requests::Head(Finder::default()),
            responses: Responses::Head(Finder::default()),
            unanswered: Pipeline::default(),
            persistence: Persistence::Open,
            client_pending: 0,
            hidden_pending: 0,
        }
    }

    /// The next step for the client's bytes. `bytes` is everything that was received and not forwarded. All bytes of
    /// earlier [`Step::Skip`]s have been forwarded.
    pub fn on_client<'a>(&mut self, bytes: &'a [u8]) -> Step<'a> {
        self.client_pending = 0;
        if self.is_opaque() {
            return Step::Opaque;
        }
        if let Requests::Refused { refusal, .. } = self.requests {
            return Step::Refused(refusal);
        }
        if bytes.is_empty() {
            return Step::More;
        }
        match &mut self.requests {
            Requests::Head(_) if self.unanswered.is_blocked() => Step::Hold,
            // Decided at the first byte that differs, since another protocol need not send line ends.
            Requests::Head(_) if self.mode == Mode::Lenient && !begins_like_request(bytes) => {
                self.persistence = Persistence::Opaque;
                Step::Opaque
            }
            Requests::Head(finder) => match finder.find(bytes, &self.limits) {
                Found::Partial => Step::More,
                Found::Complete(whole) => self.request(whole),
                Found::Refused(refusal) => self.refuse(refusal),
            },
            Requests::Body(body) | Requests::Announced(body) => {
                let mut body = *body;
                match body.next(bytes, &self.limits, |fields| check_trailers(self.mode, fields)) {
                    Progress::More => {
                        self.requests = Requests::Body(body);
                        Step::More
                    }
                    Progress::Skip { bytes, is_complete } => {
                        self.requests = if is_complete {
                            Requests::Head(Finder::default())
                        } else {
                            Requests::Body(body)
                        };
                        self.client_pending = bytes;
                        Step::Skip(bytes)
                    }
                    Progress::Refused(refusal) => self.refuse(refusal),
                }
            }
            Requests::Unknown => Step::Hold,
            Requests::Refused { refusal, .. } => Step::Refused(*refusal),
        }
    }

    /// The caller forwards this head, unchanged or rewritten, and its request is unanswered from now on. For the
    /// first request of a pair, which the caller has parsed itself, this is the first call.
    ///
    /// A rewritten head is passed as it was sent, so that the response is interpreted as the hidden server means it.
    pub fn request_passed(&mut self, head: &Head<'_>) {
        debug_assert!(matches!(self.requests, Requests::Head(_)), "a request head inside a body");
        if self.is_opaque() {
            return;
        }
        if !head.persists {
            self.close();
        }
        let switch = match () {
            () if head.is_connect() => Switch::Connect,
            () if head.upgrade.is_some() => Switch::Upgrade,
            () => Switch::None,
        };
        // In a direction that is not followed, responses cannot be counted.
        let is_counted = self.responses != Responses::UntilEnd;
        self.unanswered.push(head.method == "HEAD", switch, is_counted);
        self.requests = match Body::announced(head.body) {
            None => Requests::Head(Finder::default()),
            Some(body) if head.expect => Requests::Announced(body),
            Some(body) => Requests::Body(body),
        };
    }

    /// This many skipped bytes of the client were forwarded.
    pub fn client_passed(&mut self, bytes: u64) {
        self.client_pending = self.client_pending.saturating_sub(bytes);
    }

    /// The client has ended its direction: no request follows.
    pub fn client_ended(&mut self) {
        self.close();
    }

    /// The next step for the hidden server's bytes. `bytes` is everything that was received and not forwarded. All
    /// bytes of earlier [`Step::Skip`]s have been forwarded.
    pub fn on_hidden(&mut self, bytes: &[u8]) -> Step<'static> {
        self.hidden_pending = 0;
        if self.is_opaque() || self.responses == Responses::UntilEnd {
            return Step::Opaque;
        }
        if bytes.is_empty() {
            return Step::More;
        }
        match &mut self.responses {
            Responses::Head(_) if self.unanswered.len == 0 => {
                self.close();
                Step::Hold
            }
            Responses::Head(finder) => match response_head::read(bytes, finder, &self.limits) {
                Ok(None) => Step::More,
                Ok(Some(head)) => self.response(head),
                Err(_)
                    if self.unanswered.front_switch() == Switch::Upgrade
                        && (self.mode == Mode::Lenient || response_head::begins_as_101(bytes)) =>
                {
                    self.switch()
                }
                Err(_) => self.until_end(),
            },
            Responses::Body(body) => match body.next(bytes, &self.limits, |_| Ok(())) {
                Progress::More => Step::More,
                Progress::Skip { bytes, is_complete } => {
                    if is_complete {
                        self.answered();
                    }
                    self.skip_hidden(bytes)
                }
                Progress::Refused(_) => self.until_end(),
            },
            Responses::UntilEnd => Step::Opaque,
        }
    }

    /// This many skipped bytes of the hidden server were forwarded.
    pub fn hidden_passed(&mut self, bytes: u64) {
        self.hidden_pending = self.hidden_pending.saturating_sub(bytes);
    }

    /// The hidden server has ended its direction: no response follows.
    pub fn hidden_ended(&mut self) {
        if self.persistence != Persistence::Opaque {
            self.persistence = Persistence::Ended;
        }
    }

    /// Whether each forwarded request is complete and completely answered, and no byte of the next request head was
    /// forwarded. A [`Step::Response`] counts as forwarded; bytes of a [`Step::Skip`] count once they are reported.
    #[must_use]
    pub fn is_between_exchanges(&self) -> bool {
        self.is_at_request_head() && self.client_pending == 0 && self.is_answered()
    }

    /// Whether the client's next bytes are a request head, or were refused in place of one.
    #[must_use]
    pub const fn is_at_request_head(&self) -> bool {
        matches!(self.requests, Requests::Head(_) | Requests::Refused { in_body: false, .. })
    }

    /// For traces: appends the next bytes of the client's current body, redacted. Returns false if there is none.
    #[cfg(feature = "trace")]
    pub(crate) fn redact_client_body(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self.requests {
            Requests::Body(body) | Requests::Announced(body) => body.redact(bytes, out),
            Requests::Head(_) | Requests::Unknown | Requests::Refused { .. } => return false,
        }
        true
    }

    /// For traces: appends the next bytes of the hidden server's current body, redacted. Returns false if there is
    /// none.
    #[cfg(feature = "trace")]
    pub(crate) fn redact_hidden_body(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self.responses {
            Responses::Body(body) => body.redact(bytes, out),
            Responses::Head(_) | Responses::UntilEnd => return false,
        }
        true
    }

    /// Whether the connection has switched to another protocol: everything is forwarded, in both directions.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.persistence == Persistence::Opaque
    }

    /// Whether no exchange can follow those that are under way: one side sent `Connection: close`, or HTTP/1.0
    /// without `keep-alive`; or a response cannot be delimited; or a side has ended.
    #[must_use]
    pub fn will_close(&self) -> bool {
        self.persistence != Persistence::Open
    }

    /// Whether everything that can be answered has been answered and no request follows, so that the caller can close
    /// the client's connection cleanly. Also true when the hidden server has ended its direction.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.persistence {
            Persistence::Open | Persistence::Opaque => false,
            Persistence::Closing => self.is_answered(),
            Persistence::Ended => true,
        }
    }

    /// Whether the next response to the client is the one to what it is sending: all earlier requests were answered,
    /// and no byte of that response was forwarded. The caller may then send a response of its own, to bytes that were
    /// refused ([`Step::Refused`]) or that timed out, and close the connection.
    #[must_use]
    pub fn is_answerable(&self) -> bool {
        matches!(self.responses, Responses::Head(_))
            && self.hidden_pending == 0
            && !self.is_opaque()
            && self.requests != Requests::Unknown
            && self.unanswered.len == u32::from(self.is_in_request())
    }

    /// Whether a request head was forwarded, and its body not yet completely.
    #[must_use]
    pub fn is_in_request(&self) -> bool {
        match self.requests {
            Requests::Head(_) | Requests::Refused { in_body: false, .. } => self.client_pending > 0,
            Requests::Refused { in_body: true, .. } => true,
            Requests::Body(_) | Requests::Announced(_) | Requests::Unknown => true,
        }
    }

    /// Whether each forwarded request is complete and its whole response was forwarded. Also true when the hidden
    /// server has ended its direction.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.is_in_request() && (self.is_answered() || self.persistence == Persistence::Ended)
    }

    /// Whether the responses to all forwarded requests were forwarded.
    fn is_answered(&self) -> bool {
        self.unanswered.len == 0
            && matches!(self.responses, Responses::Head(_))
            && self.hidden_pending == 0
            && !self.is_opaque()
    }

    /// Handles a complete request head.
    fn request<'a>(&mut self, whole: WholeHead<'a>) -> Step<'a> {
        let head = match whole.parse() {
            Ok(head) => head,
            Err(refusal) => return self.refuse(refusal),
        };
        if self.mode == Mode::Strict {
            if head.is_connect() {
                return self.refuse(Refusal::Tunnel);
            }
            if !head.is_expect_known {
                return self.refuse(Refusal::Expect);
            }
        }
        Step::Request { len: whole.bytes().len(), head }
    }

    fn refuse<'a>(&mut self, refusal: Refusal) -> Step<'a> {
        let in_body = !matches!(self.requests, Requests::Head(_));
        self.requests = Requests::Refused { refusal, in_body };
        Step::Refused(refusal)
    }

    /// Handles a complete response head while a request is unanswered.
    fn response(&mut self, head: ResponseHead) -> Step<'static> {
        match (head.status, self.unanswered.front_switch()) {
            (101, Switch::Upgrade) | (200..=299, Switch::Connect) => self.switch(),
            // The client did not ask for it.
            (101, _) => self.until_end(),
            (100..=199, _) => self.skip_hidden(head.len as u64),
            _ => self.final_response(head),
        }
    }

    fn final_response(&mut self, head: ResponseHead) -> Step<'static> {
        if self.unanswered.len == 1 && matches!(self.requests, Requests::Announced(_)) {
            self.requests = Requests::Unknown;
            self.close();
        }
        self.unanswered.refuse_switch();
        if !head.persists {
            self.close();
        }
        let has_no_body = self.unanswered.is_front_head() || matches!(head.status, 204 | 304);
        match head.framing {
            // Also if the response has no body: some clients refuse such a head, others accept it.
            Framing::Ambiguous => {
                self.until_end();
            }
            _ if has_no_body => self.answered(),
            Framing::Delimited(body) => match Body::announced(body) {
                Some(body) => self.responses = Responses::Body(body),
                None => self.answered(),
            },
            Framing::UntilEnd => {
                self.until_end();
            }
        }
        Step::Response { len: head.len }
    }

    /// Completes the response to the oldest unanswered request.
    fn answered(&mut self) {
        self.responses = Responses::Head(Finder::default());
        self.unanswered.pop();
    }

    /// Stops parsing responses: the rest of the hidden server's bytes cannot be delimited.
    fn until_end(&mut self) -> Step<'static> {
        self.responses = Responses::UntilEnd;
        self.close();
        Step::Opaque
    }

    /// Switches to another protocol.
    fn switch(&mut self) -> Step<'static> {
        self.persistence = Persistence::Opaque;
        Step::Opaque
    }

    fn skip_hidden(&mut self, bytes: u64) -> Step<'static> {
        self.hidden_pending = bytes;
        Step::Skip(bytes)
    }

    fn close(&mut self) {
        if self.persistence == Persistence::Open {
            self.persistence = Persistence::Closing;
        }
    }
}

/// The protocol switch that the last unanswered request asks for. No request is forwarded after it until it is
/// answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Switch {
    #[default]
    None,
    Upgrade,
    Connect,
}

/// The state of the unanswered requests, the oldest first.
#[derive(Clone, Copy, Debug, Default)]
struct Pipeline {
    len: u32,
    /// Bit `i`: whether the request after `i` older ones is a HEAD.
    heads: u64,
    /// The switch that the last request asks for.
    switch: Switch,
}

impl Pipeline {
    fn push(&mut self, is_head: bool, switch: Switch, is_counted: bool) {
        debug_assert!(!self.is_blocked(), "a request passed before its turn");
        self.switch = switch;
        if is_counted {
            self.heads |= u64::from(is_head).checked_shl(self.len).unwrap_or_default();
            self.len += 1;
        }
    }

    fn pop(&mut self) {
        debug_assert!(self.len > 0, "a response without a request");
        self.heads >>= 1;
        self.len = self.len.saturating_sub(1);
    }

    /// Whether the next request must wait.
    fn is_blocked(&self) -> bool {
        self.switch != Switch::None || self.len >= PIPELINE_MAX
    }

    fn is_front_head(&self) -> bool {
        self.heads & 1 == 1
    }

    /// The protocol switch that the oldest request asks for.
    fn front_switch(&self) -> Switch {
        if self.len == 1 { self.switch } else { Switch::None }
    }

    /// The oldest request was answered without a protocol switch.
    fn refuse_switch(&mut self) {
        if self.len == 1 {
            self.switch = Switch::None;
        }
    }
}

/// Whether bytes may begin a request line: a method in capitals and a space, optionally after an empty line. Only the
/// bytes up to the first difference matter, so that the result does not depend on the pieces.
pub(crate) fn begins_like_request(bytes: &[u8]) -> bool {
    /// Longer than every registered method.
    const METHOD_MAX: usize = 32;
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = line.get(..METHOD_MAX).unwrap_or(line);
    let method = line.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match line.get(method) {
        Some(b' ') => method > 0,
        Some(b'\r' | b'\n') => method == 0,
        Some(_) => false,
        None => line.len() < METHOD_MAX,
    }
}

/// Refuses trailer fields that a recipient might merge into the head (RFC 9110 §6.5.1).
fn check_trailers(mode: Mode, fields: &Fields<'_, '_>) -> Result<(), Refusal> {
    const NAMES: &[&str] = &[
        "Transfer-Encoding",
        "Content-Length",
        "Host",
        "Connection",
        "Upgrade",
        "HTTP2-Settings",
        "Expect",
        "TE",
        "Trailer",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
    ];
    let is_of_head = |name: &str| NAMES.iter().any(|it| is_same_name(name.as_bytes(), it.as_bytes()));
    let is_refused = |name: &str| {
        let bytes = name.as_bytes();
        is_of_head(name) || is_forwarding_name(bytes) || is_certificate_name(bytes)
    };
    match mode {
        Mode::Strict if fields.names().any(is_refused) => Err(Refusal::Trailer),
        Mode::Strict | Mode::Lenient => Ok(()),
    }
}
