//! Clients: selects the local service, connects to it, and makes the pair.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::direct::{GONE, offer_of};
use super::forwarding::Unforwarded;
use super::link::Stage;
use super::raw::NO_STREAM;
use super::{Agent, BasicAuth, Conn, ServiceKind, State, conn_state};
use crate::conns::Ended;
use crate::dialer::Dialling;
use crate::dtcp::Offer;
use crate::event::{Event, Target};
use crate::http::accept::{AnswerForm, Form};
use crate::http::head::{Body, Finder, Found, Refusal, WholeHead};
use crate::http::reply::diagnostic::{
    ADDRESS, NO_DESCRIPTORS, NO_SERVICE, SERVICE_UNREACHABLE, TOO_MANY_CLIENTS,
};
use crate::http::reply::{Reply, Status, Switching, write_switching};
use crate::machine::{Close, ConnId, DialFailure, Output, TlsFailure, TlsRole};
use crate::pair::Side;
use crate::proxy_header::{self, Parsed};
use crate::relay_client::Deadlines;
use crate::time::Now;

/// `Retry-After` of a 503, in seconds.
const RETRY_AFTER: u32 = 5;

impl Agent {
    /// Handles the first bytes of a client. The next connection is opened at once.
    pub(super) fn taken(&mut self, on: ConnId, bytes: &[u8], now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        let is_full = self.link(upstream).serving + 2 > self.config.service_connections_max;
        self.link(upstream).take();
        if is_full {
            let (from, id) = (self.conns.from(on), self.upstream(upstream).id);
            self.conns.event(Event::ClientRefused { on, from, id, why: TOO_MANY_CLIENTS });
            let asked = ServiceKind::http(bytes).unwrap_or(ServiceKind::OTHER);
            let why = Unforwarded::unavailable(TOO_MANY_CLIENTS);
            self.refuse(on, why, asked, now);
            return self.fill(upstream, now);
        }
        let has_header = self.config.asks_for_address() || self.upstream(upstream).takes_raw();
        let state = if has_header { State::Header } else { State::Head(Finder::default()) };
        self.enter(on, state, Some(now.mono + self.config.head_timeout));
        let link = self.link(upstream);
        link.pool.on_taken(link.waiting, now);
        if self.config.once {
            self.handle_drain(now);
        } else {
            self.fill(upstream, now);
        }
    }

    /// Handles the front of a client's bytes if the relay was asked for a PROXY header. Returns how many bytes were
    /// consumed, and whether the request comes next. An older relay does not know the header and sends the request at
    /// once.
    pub(super) fn read_header(&mut self, on: ConnId, bytes: &[u8], now: Now) -> (usize, bool) {
        let len = if proxy_header::begins_v2(bytes) {
            match proxy_header::parse(bytes) {
                Parsed::Partial => return (0, false),
                Parsed::Complete { len, source } => {
                    if let Some(source) = source {
                        self.conns.set_from(on, source);
                    }
                    if self.take_raw(on, &bytes[..len], now) {
                        return (len, true);
                    }
                    len
                }
                Parsed::Refused(why) => {
                    self.lose_client(on, why, Close::Abort, now);
                    return (0, false);
                }
            }
        } else {
            0
        };
        self.enter(on, State::Head(Finder::default()), Some(now.mono + self.config.head_timeout));
        (len, true)
    }

    /// Handles the head of a client's request. Returns how many bytes were consumed. Only a connector's request is
    /// answered here; anything else, even if it is malformed, is left to the HTTP service.
    pub(super) fn read_head(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let limits = self.config.head;
        let Some(conn) = self.conns.state(on) else { return 0 };
        let upstream = conn.upstream;
        let forwards = self.follows(on);
        if self.refuses_clear(on) {
            return self.read_sealed_request(on, bytes, now);
        }
        if self.upstream(upstream).stream.is_none() && !self.reads_head(on) {
            if let Some(asked) = ServiceKind::http(bytes) {
                self.serve_client(on, asked, None, now);
            }
            return 0;
        }
        let is_connector = self.is_sealed_connector(on);
        let has_stream =
            is_connector || self.upstream(upstream).stream.is_some() && self.may_ask_for_stream(on);
        let Some(State::Head(finder)) = conn_state(&mut self.conns, on) else { return 0 };
        match finder.find(bytes, &limits) {
            Found::Partial => 0,
            Found::Complete(whole) if has_stream && asks_for_stream(whole) => {
                let len = whole.bytes().len();
                let offer = self.config.direct.as_ref().and_then(|_| offer_of(whole.bytes()));
                self.serve_client(on, ServiceKind::Stream { parked: bytes.len() > len }, offer, now);
                len
            }
            Found::Complete(_) | Found::Refused(_) if is_connector => {
                self.refuse_request(on, NO_STREAM, AnswerForm::of(bytes), now);
                0
            }
            Found::Refused(refusal) if forwards => {
                self.refuse_request(on, Unforwarded::refused(refusal), AnswerForm::of(bytes), now);
                0
            }
            Found::Complete(whole) if forwards => {
                match whole.parse() {
                    Ok(head) if head.is_connect() => {
                        self.refuse_request(
                            on,
                            Unforwarded::refused(Refusal::Tunnel),
                            AnswerForm::of(bytes),
                            now,
                        );
                    }
                    Ok(head) => self.serve_client(
                        on,
                        ServiceKind::Http { is_head: head.method == "HEAD", form: Form::preferred(bytes) },
                        None,
                        now,
                    ),
                    Err(refusal) => {
                        self.refuse_request(on, Unforwarded::refused(refusal), AnswerForm::of(bytes), now)
                    }
                }
                0
            }
            Found::Complete(_) | Found::Refused(_) => {
                self.serve_client(on, ServiceKind::http(bytes).unwrap_or(ServiceKind::OTHER), None, now);
                0
            }
        }
    }

    /// Dials a local service for a client. It is not dialled earlier, since services drop idle connections. `offer`:
    /// the client prefers a direct connection.
    pub(super) fn serve_client(
        &mut self,
        on: ConnId,
        asked: ServiceKind,
        offer: Option<Box<Offer>>,
        now: Now,
    ) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        if !self.config.allows(self.conns.from(on).map(|from| from.ip())) {
            let from = self.conns.from(on);
            self.conns.event(Event::Dropped { on, from, upstream: Some(upstream), why: ADDRESS });
            return self.refuse(on, Unforwarded::ADDRESS, asked, now);
        }
        let Some((place, tls)) = self.upstream(upstream).place_of(asked) else {
            let from = self.conns.from(on);
            self.conns.event(Event::Dropped { on, from, upstream: Some(upstream), why: NO_SERVICE });
            return self.refuse(on, Unforwarded::no_service(NO_SERVICE), asked, now);
        };
        let place = place.clone();
        self.conns.emit(Output::Read { on, wanted: false });
        let local = self.conns.insert(Conn::new(upstream, State::Ended), None);
        let timeout = self.config.local_dial;
        let how = Dialling {
            tls: tls.map(|upstream| TlsRole::Client { upstream }),
            greets: self.config.send_proxy.is_some(),
            deadlines: Deadlines { dial: timeout, handshake: timeout, answer: timeout },
        };
        self.enter(local, State::Local { relay: on, asked }, None);
        self.enter(on, State::Meeting { local, offer }, None);
        self.dial(local, &place, how, now);
    }

    /// A local service with TLS was connected to: sends the PROXY header in clear before the handshake, as servers
    /// that support both expect.
    pub(super) fn greet_service(&mut self, on: ConnId) {
        let lead = self.dialers.lead(on).unwrap_or(on);
        let Some((_, relay, _)) = self.local(lead) else { return };
        let from = self.conns.from(relay);
        self.greet(on, from);
    }

    /// The local service was reached: pairs it with the client, or negotiates a direct connection first.
    pub(super) fn reached(&mut self, local: ConnId, now: Now) {
        let Some((upstream, relay, asked)) = self.local(local) else { return };
        if let Some(State::Meeting { offer, .. }) = conn_state(&mut self.conns, relay)
            && let Some(theirs) = offer.take()
        {
            return self.propose(relay, local, &theirs, now);
        }
        let is_tls = self.upstream(upstream).place_of(asked).is_some_and(|(_, tls)| tls.is_some());
        let is_header_queued = !is_tls && self.greet(local, self.conns.from(relay));
        if matches!(asked, ServiceKind::Stream { .. }) {
            let mut text = Vec::new();
            write_switching(&mut text, Switching::Relayed);
            self.conns.send(relay, text);
        }
        self.conns.emit(Output::UserTimeout { on: relay, after: None });
        self.conns.emit(Output::Read { on: relay, wanted: true });
        let has_parked = !matches!(asked, ServiceKind::Stream { parked: false } | ServiceKind::Raw(_));
        let is_head_queued = has_parked && self.conns.has_ended(relay);
        self.join(local, relay, is_header_queued || is_head_queued, now);
        if !asked.is_stream() {
            self.gate(local, relay);
        }
        self.conns.event(Event::Served { relay, local, upstream, stream: asked.is_stream() });
    }

    /// Sends a PROXY header to the local service if that is configured. Returns whether one was sent.
    pub(super) fn greet(&mut self, local: ConnId, from: Option<SocketAddr>) -> bool {
        let mut header = Vec::new();
        if let Some(version) = self.config.send_proxy {
            proxy_header::write(version, from, &mut header);
        }
        let is_said = !header.is_empty();
        self.conns.send(local, header);
        is_said
    }

    /// Pairs the local service with a client's connection, relayed or direct. Parked bytes of the client go first.
    pub(super) fn join(&mut self, local: ConnId, client: ConnId, is_head_queued: bool, now: Now) {
        for on in [local, client] {
            self.enter(on, State::Paired(None), None);
        }
        self.conns.pair(local, client, is_head_queued, now);
        let ended = self.conns.pair_ended(local, now);
        self.pair_over(ended, now);
    }

    /// The local service cannot be reached at any address, or its certificate is not trusted: the client gets 502.
    pub(super) fn no_service(&mut self, local: ConnId, why: NoService, now: Now) {
        let Some((upstream, relay, asked)) = self.local(local) else { return };
        self.close(local, Close::Abort, now);
        let what = if asked.is_stream() { Target::Stream(upstream) } else { Target::Service(upstream) };
        self.conns.event(match why {
            NoService::Dial(why) => Event::DialFailed { on: local, what, why, again: None },
            NoService::Tls(why) => Event::ServiceTlsFailed { on: local, upstream, why },
        });
        let why = match why {
            NoService::Dial(DialFailure::Local) => Unforwarded::unavailable(NO_DESCRIPTORS),
            NoService::Dial(DialFailure::Name | DialFailure::Refused | DialFailure::Unreachable)
            | NoService::Tls(_) => Unforwarded::no_service(SERVICE_UNREACHABLE),
        };
        self.refuse(relay, why, asked, now);
    }

    /// Refuses a client because of its first request, and logs that.
    pub(super) fn refuse_request(&mut self, on: ConnId, why: Unforwarded, form: AnswerForm, now: Now) {
        let from = self.conns.from(on);
        let upstream = self.conns.state(on).map(|conn| conn.upstream);
        self.conns.event(Event::Dropped { on, from, upstream, why: why.why });
        self.refuse(on, why, ServiceKind::Http { is_head: form.is_head, form: form.form }, now);
    }

    /// Answers a client that is not served, and closes its connection. A raw client's connection is truncated, since
    /// its protocol is unknown.
    pub(super) fn refuse(&mut self, relay: ConnId, why: Unforwarded, asked: ServiceKind, now: Now) {
        if let ServiceKind::Raw(_) = asked {
            let upstream = self.conns.state(relay).map(|conn| conn.upstream);
            self.close(relay, Close::Truncate, now);
            return upstream.into_iter().for_each(|upstream| self.unanswered_client(upstream, now));
        }
        self.send_reply(relay, why, asked.is_head(), asked.form(), now);
        self.close(relay, Close::Linger, now);
    }

    /// Sends the response to a request that is not forwarded. The caller then closes the connection.
    pub(super) fn send_reply(
        &mut self,
        relay: ConnId,
        why: Unforwarded,
        is_head: bool,
        form: Form,
        now: Now,
    ) {
        let Some(upstream) = self.conns.state(relay).map(|conn| conn.upstream) else { return };
        let reply = Reply {
            status: why.status,
            diagnostic: why.why,
            permanent: !matches!(why.status, Status::BadGateway502 | Status::Unavailable503),
            retry_after: (why.status == Status::Unavailable503).then_some(RETRY_AFTER),
            close: true,
            head_request: is_head,
            form,
            challenge: None,
            token_challenge: None,
        };
        let mut text = Vec::new();
        reply.write(now.wall, &mut text);
        self.conns.send(relay, text);
        self.unanswered_client(upstream, now);
    }

    /// Whether the exchanges of this client are followed: its requests get fields, must all name one host, or need a
    /// password.
    pub(super) fn follows(&mut self, on: ConnId) -> bool {
        self.forwards(on) || self.name_of(on).is_some() || self.basic_auth(on).is_some()
    }

    /// Whether no byte of this client reaches a service before its whole head was read.
    pub(super) fn reads_head(&mut self, on: ConnId) -> bool {
        self.follows(on) || self.is_sealed(on)
    }

    /// Whether each request of this client gets forwarding fields.
    pub(super) fn forwards(&mut self, on: ConnId) -> bool {
        let Some(conn) = self.conns.state(on) else { return false };
        let upstream = conn.upstream;
        self.config.forwarded && self.upstream(upstream).service.is_some()
    }

    /// Whether this client's upstream needs a password.
    pub(super) fn basic_auth(&mut self, on: ConnId) -> Option<&BasicAuth> {
        let upstream = self.conns.state(on)?.upstream;
        self.upstream(upstream).basic_auth.as_ref()
    }

    /// The client left before it was connected to the local service.
    pub(super) fn client_gone(&mut self, on: ConnId, how: Close, now: Now) {
        let local = match conn_state(&mut self.conns, on) {
            Some(&mut State::Meeting { local, .. }) => Some(local),
            _ => None,
        };
        self.lose_client(on, GONE, how, now);
        if let Some(local) = local {
            self.close(local, Close::Abort, now);
        }
    }

    /// Drops a client without a response.
    pub(super) fn lose_client(&mut self, on: ConnId, why: &'static str, how: Close, now: Now) {
        let from = self.conns.from(on);
        let upstream = self.conns.state(on).map(|conn| conn.upstream);
        self.conns.event(Event::Dropped { on, from, upstream, why });
        self.close(on, how, now);
        if let Some(upstream) = upstream {
            self.unanswered_client(upstream, now);
        }
    }

    fn local(&mut self, local: ConnId) -> Option<(u16, ConnId, ServiceKind)> {
        match self.conns.state(local)? {
            &mut Conn { upstream, state: State::Local { relay, asked, .. }, .. } => {
                Some((upstream, relay, asked))
            }
            _ => None,
        }
    }

    pub(super) fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { hidden, client, pair, over }) = ended else { return };
        let Some(&mut Conn { upstream, .. }) = self.conns.any_state(hidden) else { return };
        let why = pair.reason(over.why, self.is_answered(client));
        for on in [hidden, client] {
            if let Some(conn) = self.conns.any_state(on) {
                let link = &mut self.links[usize::from(conn.upstream)];
                link.count(conn.state.stage(), Stage::Other);
                conn.state = State::Ended;
            }
        }
        let from = self.conns.from(client);
        self.conns.event(Event::PairEnded {
            hidden,
            client,
            from,
            id: self.upstream(upstream).id,
            from_client: pair.bytes_from(Side::Client),
            from_hidden: pair.bytes_from(Side::Hidden),
            after: now.mono.since(pair.began()),
            why,
        });
        if pair.bytes_from(Side::Hidden) == 0 {
            self.unanswered_client(upstream, now);
        }
    }
}

/// Why there is no connection to the local service.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoService {
    /// Connecting failed.
    Dial(DialFailure),
    /// The TLS handshake failed.
    Tls(TlsFailure),
}

impl ServiceKind {
    /// Any request for the HTTP service except a HEAD.
    pub(super) const OTHER: Self = Self::Http { is_head: false, form: Form::Json };

    /// The kind of request that these first bytes begin; `None` if they may become a HEAD, which is refused without a
    /// body.
    fn http(bytes: &[u8]) -> Option<Self> {
        const HEAD: &[u8] = b"HEAD ";
        let is_head = bytes.starts_with(HEAD);
        (is_head || !HEAD.starts_with(bytes)).then(|| Self::Http { is_head, form: Form::preferred(bytes) })
    }

    const fn form(self) -> Form {
        match self {
            Self::Http { form, .. } => form,
            Self::Stream { .. } | Self::Raw(_) => Form::Json,
        }
    }

    const fn is_head(self) -> bool {
        matches!(self, Self::Http { is_head: true, .. })
    }

    /// Whether its protocol is unknown.
    const fn is_stream(self) -> bool {
        matches!(self, Self::Stream { .. } | Self::Raw(_))
    }
}

/// Whether this head is a connector's. With a body, the bytes after the head would not be the stream.
fn asks_for_stream(whole: WholeHead<'_>) -> bool {
    let Ok(head) = whole.parse() else { return false };
    let offers = head.upgrade.unwrap_or_default();
    head.body == Body::None && offers.split(',').any(|it| it.trim().eq_ignore_ascii_case("octet-stream"))
}
