//! Follows the HTTP exchanges of a pair: where each request and each response ends (RFC 9112 §6), and whether the
//! connection is between two exchanges.
//!
//! A [`Follower`] looks at what the client sends and at what the hidden server answers. It keeps no bytes: for the front
//! of what was received in one direction and not passed on yet, it tells what may pass ([`Step`]). Bodies pass unseen,
//! but for the lines between chunks. The caller decides about each request head before any byte of it passes.
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
//! # What stops it
//!
//! After a 101 to an Upgrade, or a 2xx to a CONNECT, the connection carries something else ([`Step::Opaque`]). A
//! response that clients could delimit in different ways is treated as one that lasts until the connection ends: the
//! hidden server's bytes pass unseen, the client's requests are still followed, and [`Follower::is_between_exchanges`]
//! stays false. So a hidden server cannot make the follower pass a request that it would not have passed.

mod body;
mod response_head;

#[cfg(feature = "trace")]
use alloc::vec::Vec;

use self::body::{Body, Progress};
use self::response_head::{Framing, ResponseHead};
use super::fields::Fields;
use super::forwarded::{is_certificate_name, is_forwarding_name, is_same_name};
use super::head::{self, Finder, Found, Head, Limits, Refusal};
use super::syntax::is_tchar;

/// The most requests that may be unanswered; the next head waits.
pub const PIPELINE_MAX: u32 = u64::BITS;

/// What happens to bytes of a client that are not HTTP, where a request is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What does not begin like a request is another protocol, and passes: [`Step::Opaque`]. What begins like a request
    /// and is malformed is refused in this mode too, since a server might take it for a request.
    Lenient,
    /// It is refused, and so are CONNECT, an `Expect` other than `100-continue`, and trailers with fields that belong
    /// into a head.
    Strict,
}

/// What to do with the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Not enough bytes to decide; the caller keeps what it has, and calls again with more. At most as many bytes are
    /// needed as [`Limits`] allow for a head.
    More,
    /// The first `len` bytes are a complete request head. The caller passes it, and calls
    /// [`Follower::request_passed`]; or it keeps the head back, and the next call finds the same head.
    Request {
        /// How many bytes the head has, an empty line in front included.
        len: usize,
        /// What it says.
        head: Head<'a>,
    },
    /// The first `len` bytes are the head of the final response to the oldest unanswered request. The caller passes it.
    Response {
        /// How many bytes the head has.
        len: usize,
    },
    /// That many bytes may pass without being looked at: a body, chunks, trailers, an interim response. There may be
    /// fewer yet, and there are never more than 2⁶³. Until they have passed, the connection is not between two exchanges
    /// ([`Follower::client_passed`], [`Follower::hidden_passed`]).
    Skip(u64),
    /// From the client: everything passes from now on, in both directions. From the hidden server: everything passes in
    /// this direction, and [`Follower::is_opaque`] tells whether in the other too.
    Opaque,
    /// From the client: the bytes wait until the other direction has progressed. An Upgrade or a CONNECT is unanswered,
    /// or [`PIPELINE_MAX`] requests are; or it is unknown whether the client still sends the body that it announced with
    /// `Expect`, and the connection ends with the response ([`Follower::is_over`]).
    ///
    /// From the hidden server: no request is unanswered, so the bytes are no response to any. They must not pass, since
    /// the client would take them for the response to its next request. The connection should end; if another request
    /// passes, they are its response.
    Hold,
    /// The client's bytes are no request that may be forwarded. Every further call returns the same.
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
    /// How many skipped bytes have not passed yet, from the client and from the hidden server.
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
    /// At the front of a body that was announced with `Expect`: the client sends it when it has a 100, or loses patience.
    Announced(Body),
    /// The final response came first. Whether the announced body still comes is unknown, so nothing more can be read.
    Unknown,
    /// The client sent what must not pass; `in_body`: in the body of a request whose head has passed.
    Refused { refusal: Refusal, in_body: bool },
}

/// The hidden server's direction. `Head` ─final response─▶ `Body` ─its end─▶ `Head`; `Head` ─a response without certain
/// length─▶ `UntilEnd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Responses {
    /// A response head is next.
    Head(Finder),
    /// In the body of a response.
    Body(Body),
    /// In a response that lasts until the connection ends.
    UntilEnd,
}

/// How long the connection carries exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Persistence {
    /// Another exchange may follow.
    Open,
    /// No exchange is answered after those that are under way.
    Closing,
    /// The hidden server has ended its direction.
    Ended,
    /// It carries something else than HTTP.
    Opaque,
}

impl Follower {
    /// A follower at the front of a connection, before the first request. `limits` are those of request heads, response
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

    /// The next step for the client's bytes: everything that was received and has not passed, from the first byte on.
    /// Everything that earlier steps skipped has passed by the time of this call.
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
            // At the first byte that decides it: another protocol need not send a line end.
            Requests::Head(_) if self.mode == Mode::Lenient && !begins_like_request(bytes) => {
                self.persistence = Persistence::Opaque;
                Step::Opaque
            }
            Requests::Head(finder) => match finder.find(bytes, &self.limits) {
                Found::Partial => Step::More,
                Found::Complete(len) => self.request(bytes.get(..len).unwrap_or_default()),
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

    /// The caller passes this head, as it came or rewritten: its request is unanswered from now on. For the first
    /// request of a pair, which the caller has parsed itself, this is the first call.
    ///
    /// A rewritten head is given as it was sent, so that the response is understood as the hidden server means it.
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

    /// That many bytes of the client have passed, of those that were skipped.
    pub fn client_passed(&mut self, bytes: u64) {
        self.client_pending = self.client_pending.saturating_sub(bytes);
    }

    /// The client has ended its direction: no further request comes.
    pub fn client_ended(&mut self) {
        self.close();
    }

    /// The next step for the hidden server's bytes: everything that was received and has not passed, from the first byte
    /// on. Everything that earlier steps skipped has passed by the time of this call.
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

    /// That many bytes of the hidden server have passed, of those that were skipped.
    pub fn hidden_passed(&mut self, bytes: u64) {
        self.hidden_pending = self.hidden_pending.saturating_sub(bytes);
    }

    /// The hidden server has ended its direction: no further response comes.
    pub fn hidden_ended(&mut self) {
        if self.persistence != Persistence::Opaque {
            self.persistence = Persistence::Ended;
        }
    }

    /// Whether each request that passed is complete and has been answered completely, and the next request head has not
    /// begun to pass. A [`Step::Response`] counts as passed; bytes of a [`Step::Skip`] count when they have passed.
    #[must_use]
    pub fn is_between_exchanges(&self) -> bool {
        self.is_at_request_head() && self.client_pending == 0 && self.is_answered()
    }

    /// Whether the client's next bytes are a request head, or what was refused in the place of one.
    #[must_use]
    pub const fn is_at_request_head(&self) -> bool {
        matches!(self.requests, Requests::Head(_) | Requests::Refused { in_body: false, .. })
    }

    /// For traces: appends the next bytes of the client's body under way, redacted. False: no body is under way.
    #[cfg(feature = "trace")]
    pub(crate) fn redact_client_body(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self.requests {
            Requests::Body(body) | Requests::Announced(body) => body.redact(bytes, out),
            Requests::Head(_) | Requests::Unknown | Requests::Refused { .. } => return false,
        }
        true
    }

    /// For traces: appends the next bytes of the hidden server's body under way, redacted. False: no body is under way.
    #[cfg(feature = "trace")]
    pub(crate) fn redact_hidden_body(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self.responses {
            Responses::Body(body) => body.redact(bytes, out),
            Responses::Head(_) | Responses::UntilEnd => return false,
        }
        true
    }

    /// Whether the connection is no HTTP connection any more: everything passes, in both directions.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.persistence == Persistence::Opaque
    }

    /// Whether the connection can carry no exchange after those that are under way: one side said `Connection: close`,
    /// or HTTP/1.0 without `keep-alive`; or a response cannot be delimited; or a side has ended.
    #[must_use]
    pub fn will_close(&self) -> bool {
        self.persistence != Persistence::Open
    }

    /// Whether everything that can be answered has been answered, and no more requests will be: the caller can end the
    /// client's connection in order. True as well when the hidden server has ended its direction.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.persistence {
            Persistence::Open | Persistence::Opaque => false,
            Persistence::Closing => self.is_answered(),
            Persistence::Ended => true,
        }
    }

    /// Whether the next response that the client gets is the one to what it is sending: all earlier requests have been
    /// answered, and nothing of that response has passed. Then the caller may send one of its own, to what was refused
    /// ([`Step::Refused`]) or did not come in time, and close the connection.
    #[must_use]
    pub fn is_answerable(&self) -> bool {
        matches!(self.responses, Responses::Head(_))
            && self.hidden_pending == 0
            && !self.is_opaque()
            && self.requests != Requests::Unknown
            && self.unanswered.len == u32::from(self.is_in_request())
    }

    /// Whether a request head has passed, and the body that it announces has not been passed completely.
    #[must_use]
    pub fn is_in_request(&self) -> bool {
        match self.requests {
            Requests::Head(_) | Requests::Refused { in_body: false, .. } => self.client_pending > 0,
            Requests::Refused { in_body: true, .. } => true,
            Requests::Body(_) | Requests::Announced(_) | Requests::Unknown => true,
        }
    }

    /// Whether each request that passed is complete, and its whole response has passed. True as well when the hidden
    /// server has ended its direction.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.is_in_request() && (self.is_answered() || self.persistence == Persistence::Ended)
    }

    /// Whether the responses to all requests that passed have passed.
    fn is_answered(&self) -> bool {
        self.unanswered.len == 0
            && matches!(self.responses, Responses::Head(_))
            && self.hidden_pending == 0
            && !self.is_opaque()
    }

    /// A complete request head.
    fn request<'a>(&mut self, raw: &'a [u8]) -> Step<'a> {
        let head = match head::parse(raw) {
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
        Step::Request { len: raw.len(), head }
    }

    fn refuse<'a>(&mut self, refusal: Refusal) -> Step<'a> {
        let in_body = !matches!(self.requests, Requests::Head(_));
        self.requests = Requests::Refused { refusal, in_body };
        Step::Refused(refusal)
    }

    /// A complete response head, while a request is unanswered.
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
            // Even where there is no body: some clients refuse such a head, and others do not.
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

    /// The response to the oldest unanswered request is complete.
    fn answered(&mut self) {
        self.responses = Responses::Head(Finder::default());
        self.unanswered.pop();
    }

    /// The rest of the hidden server's bytes cannot be delimited.
    fn until_end(&mut self) -> Step<'static> {
        self.responses = Responses::UntilEnd;
        self.close();
        Step::Opaque
    }

    /// The protocol changes with these bytes.
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

/// Which protocol change the last unanswered request asks for. Nothing passes behind it until it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Switch {
    #[default]
    None,
    Upgrade,
    Connect,
}

/// What has to be known of the unanswered requests, the oldest first.
#[derive(Clone, Copy, Debug, Default)]
struct Pipeline {
    len: u32,
    /// Bit `i`: the request with `i` older ones is a HEAD.
    heads: u64,
    /// Of the last request.
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

    /// Whether the next request has to wait.
    fn is_blocked(&self) -> bool {
        self.switch != Switch::None || self.len >= PIPELINE_MAX
    }

    fn is_front_head(&self) -> bool {
        self.heads & 1 == 1
    }

    /// The protocol change that the oldest request asks for.
    fn front_switch(&self) -> Switch {
        if self.len == 1 { self.switch } else { Switch::None }
    }

    /// The oldest request was answered without a change of the protocol.
    fn refuse_switch(&mut self) {
        if self.len == 1 {
            self.switch = Switch::None;
        }
    }
}

/// Whether bytes may begin a request line: a method in capitals and a space, or an
/// empty line before it. Only bytes up to the fault are looked at, so that the verdict does not depend on the pieces.
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

/// Fields that a recipient might merge into the head must not come in a trailer (RFC 9110 §6.5.1).
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
