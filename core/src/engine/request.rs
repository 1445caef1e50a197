//! Complete request heads: authentication, routing, and the responses.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::route::{Route, RoutedBy};
use super::take_over::{Service, TAKEN_OVER_RETRY_AFTER};
use super::{Answer, DISCARD_BYTES_MAX, Engine, FULL, NOBODY, RETRY_AFTER, Request, STOPPING, State};
use crate::client_hello::Alert;
use crate::event::Event;
use crate::http::accept::AnswerForm;
use crate::http::challenge::{Identified, identify};
use crate::http::follower::{Follower, Mode};
use crate::http::head::{Body, Found, Head, SEALED_STREAM, WholeHead};
use crate::http::plain_http;
use crate::http::reply::diagnostic::{
    ASK, CREDENTIALS, END_TO_END, GROUP_CLIENT, GROUP_SERVER, QUOTA, TAKEN_OVER,
};
use crate::http::reply::{Reply, Status};
use crate::http::target::{self, RedirectPort, Registration, Token};
use crate::id::Id;
use crate::limiter::Source;
use crate::machine::{Close, ConnId, Output};
use crate::registry::{Policy, Refused};
use crate::time::{Now, Span};

/// `Retry-After` while a quota is used up, in seconds.
const QUOTA_RETRY_AFTER: u32 = 3600;

impl Engine {
    /// Handles a complete head. `behind`: bytes have arrived behind it.
    pub(super) fn request(&mut self, on: ConnId, whole: WholeHead<'_>, behind: bool, now: Now) {
        let form = AnswerForm::of(whole.bytes());
        match whole.parse() {
            Err(refusal) => self.refuse(on, None, refusal.status(), refusal.why(), form, None, now),
            Ok(head) if head.is_connect() => self.register(on, &head, behind, now),
            Ok(head) => self.client(on, &head, form, now),
        }
    }

    pub(super) fn register(&mut self, on: ConnId, head: &Head<'_>, behind: bool, now: Now) {
        let registration = match target::registration(head.target) {
            Ok(registration) => registration,
            Err(error) => {
                return self.refuse(on, None, error.status(), error.why(), AnswerForm::default(), None, now);
            }
        };
        let refused = if behind {
            (Status::Conflict409, "bytes after the request, before its response", None)
        } else if let Some(refused) = self.refuses_registrations() {
            refused
        } else if self.is_full() {
            (Status::Unavailable503, FULL, Some(RETRY_AFTER))
        } else {
            match self.authenticate(on, &registration, now) {
                Ok(()) => match self.refuses_server(registration.id) {
                    Some((status, why)) => (status, why, None),
                    None if self.is_misdirected(on, Some(registration.id)) => {
                        (Status::Misdirected421, GROUP_SERVER, None)
                    }
                    None => return self.wait(on, &registration, head, now),
                },
                Err(refused) => refused,
            }
        };
        let (status, why, retry_after) = refused;
        let id = Some(registration.id).filter(|id| self.registry.is_enrolled(*id));
        self.refuse(on, id, status, why, AnswerForm::default(), retry_after, now);
    }

    pub(super) fn authenticate(
        &mut self,
        on: ConnId,
        registration: &Registration<'_>,
        now: Now,
    ) -> Result<(), (Status, &'static str, Option<u32>)> {
        const GUESSING: &str = "too many failures";
        const NOT_AUTHORIZED: (Status, &str, Option<u32>) = (Status::Unauthorized401, "not authorized", None);
        let too_many = |wait: Span| {
            (Status::TooManyRequests429, GUESSING, Some(u32::try_from(wait.as_secs_up()).unwrap_or(u32::MAX)))
        };
        let source = self.conns.from(on).map(|from| Source::from(from.ip()));
        let exhausted = source.and_then(|source| self.failures.exhausted(source, now.mono));
        // Other tokens have 128 bits. So a valid one was not guessed, and failures of others behind the same address
        // do not lock it out.
        if let (Some(wait), Token::Plain(_)) = (exhausted, &registration.token) {
            return Err(too_many(wait));
        }
        let policy = Policy {
            one_time_strict: self.config.one_time_strict,
            tokens_max: self.config.tokens_per_id_max,
        };
        match self.registry.authenticate(registration, &self.challenges, policy, now) {
            Ok(()) => Ok(()),
            Err(Refused::Full) => Err((Status::Unavailable503, "too many tokens remembered", Some(30))),
            Err(Refused::Guessed(wait)) => Err(too_many(wait)),
            // Not a guess, but for example an agent that was connected before the relay was restarted.
            Err(Refused::Stale) => Err(NOT_AUTHORIZED),
            Err(Refused::Unauthorized) => {
                if let Some(source) = source {
                    self.failures.fail(source, now.mono);
                }
                match exhausted {
                    Some(wait) => Err(too_many(wait)),
                    None => Err(NOT_AUTHORIZED),
                }
            }
        }
    }

    pub(super) fn client(&mut self, on: ConnId, head: &Head<'_>, form: AnswerForm, now: Now) {
        let answer = Answer::Http(form);
        if let Some(why) = self.cannot_serve(on) {
            return self.refuse_client(on, None, Status::Unavailable503, why, answer, now);
        }
        let route = self.route(head);
        let named = if let Route::To { id, .. } = &route { Some(*id) } else { None };
        if self.is_misdirected(on, named) {
            return self.refuse_client(on, None, Status::Misdirected421, GROUP_CLIENT, answer, now);
        }
        match route {
            Route::To { id, by: RoutedBy::Label } if contradicts(head, id) => {
                const WHY: &str = "the host and the user name are of two hidden servers";
                self.refuse_client(on, None, Status::Misdirected421, WHY, answer, now);
            }
            Route::To { id, by } if self.registry.is_end_to_end(id) && !head.asks_sealed_stream() => {
                // A browser repeats a request after a 421 on a new connection, whose ClientHello names the hidden
                // server.
                let status = match by {
                    RoutedBy::Label => Status::Misdirected421,
                    RoutedBy::UserName | RoutedBy::Parameter | RoutedBy::ParameterBeforeUserName => {
                        Status::Forbidden403
                    }
                };
                self.refuse_client(on, Some(id), status, END_TO_END, answer, now);
            }
            Route::To { id, by } if self.registry.is_enrolled(id) => {
                let mut follower = Follower::new(self.config.head, Mode::Lenient);
                follower.request_passed(head);
                let mut rewritten = Vec::new();
                if by.removes_authorization() {
                    head.without_authorization(&mut rewritten);
                } else {
                    head.as_it_came(&mut rewritten);
                }
                let repeatable = matches!(head.method, "GET" | "HEAD" | "OPTIONS")
                    && head.body == Body::None
                    && !head.expect;
                let head = rewritten.into_boxed_slice();
                let request = Box::new(Request::new(head, repeatable, answer, Some(follower), now));
                self.conns.set_named_by(on, by.shown());
                self.serve_client(on, id, request, now);
            }
            Route::To { .. } | Route::Unknown => {
                self.refuse_client(on, None, Status::NotFound404, NOBODY, answer, now);
            }
            Route::Ask => self.challenge(on, head, form, now),
            Route::Malformed => {
                self.refuse(on, None, Status::BadRequest400, CREDENTIALS, form, None, now);
            }
        }
    }

    pub(super) fn challenge(&mut self, on: ConnId, head: &Head<'_>, form: AnswerForm, now: Now) {
        let discard = match head.body {
            Body::None => Some(0),
            Body::Length(bytes) if bytes <= DISCARD_BYTES_MAX && !head.expect => Some(bytes),
            Body::Length(_) | Body::Chunked => None,
        };
        // The next request goes to the process that has taken over.
        let keep = discard.filter(|_| !head.close && !self.is_retired());
        let reply = Reply {
            status: Status::Unauthorized401,
            diagnostic: ASK,
            permanent: false,
            retry_after: None,
            close: keep.is_none(),
            head_request: form.is_head,
            form: form.form,
            challenge: Some((self.entropy.half_block(), self.entropy.half_block())),
            token_challenge: None,
        };
        let mut text = Vec::new();
        reply.write(now.wall, &mut text);
        self.conns.send(on, text);
        let from = self.conns.from(on);
        self.conns.event(Event::Challenged { on, from });
        match keep {
            Some(discard) => {
                let due = now.mono + self.config.answer;
                self.conns.set_state_until(on, State::Answering { discard }, Some(due));
                self.conns.emit(Output::Read { on, wanted: false });
            }
            None => self.conns.close(on, Close::Linger, now),
        }
    }

    pub(super) fn refuse_client(
        &mut self,
        on: ConnId,
        id: Option<Id>,
        status: Status,
        why: &'static str,
        answer: Answer,
        now: Now,
    ) {
        match answer {
            Answer::Http(form) => {
                let secs = match why {
                    QUOTA => QUOTA_RETRY_AFTER,
                    TAKEN_OVER => TAKEN_OVER_RETRY_AFTER,
                    _ => RETRY_AFTER,
                };
                let retry_after = (status == Status::Unavailable503).then_some(secs);
                self.refuse(on, id, status, why, form, retry_after, now);
            }
            Answer::Alert => self.refuse_raw(on, id, status, why, Some(Alert::UnrecognizedName), now),
            Answer::Reset => self.refuse_raw(on, id, status, why, None, now),
        }
    }

    /// The reason why no client is served at the moment, if so.
    pub(super) fn cannot_serve(&self, on: ConnId) -> Option<&'static str> {
        match () {
            () if self.service == Service::Draining => Some(STOPPING),
            () if self.is_full() || self.is_over_share(on) => Some(FULL),
            () => None,
        }
    }

    /// Answers a request in clear on a TLS port: GET and HEAD with a redirect, others with 400. The failed handshake
    /// was reported.
    pub(super) fn answer_plain_http(&mut self, on: ConnId, found: Found<'_>, bytes: &[u8], now: Now) {
        let mut text = Vec::new();
        let head = plain_http::head_of(found);
        plain_http::write(bytes, head.as_ref(), RedirectPort::Same, now.wall, &mut text);
        self.conns.send(on, text);
        self.conns.close(on, Close::Linger, now);
    }

    #[expect(clippy::too_many_arguments, reason = "every part of an answer is named where it is given")]
    pub(super) fn refuse(
        &mut self,
        on: ConnId,
        id: Option<Id>,
        status: Status,
        why: &'static str,
        form: AnswerForm,
        retry_after: Option<u32>,
        now: Now,
    ) {
        let permanent = matches!(
            status,
            Status::BadRequest400
                | Status::Forbidden403
                | Status::Misdirected421
                | Status::UriTooLong414
                | Status::HeadTooLarge431
                | Status::VersionNotSupported505
        );
        let reply = Reply {
            status,
            diagnostic: why,
            permanent,
            retry_after,
            close: true,
            head_request: form.is_head,
            form: form.form,
            challenge: None,
            // These three only answer a CONNECT.
            token_challenge: matches!(
                status,
                Status::Unauthorized401 | Status::ProxyAuthRequired407 | Status::TooManyRequests429
            )
            .then(|| self.challenges.issue(now.mono)),
        };
        let mut text = Vec::new();
        reply.write(now.wall, &mut text);
        self.conns.send(on, text);
        let from = self.conns.from(on);
        self.conns.event(Event::Refused { on, from, id, status, why });
        self.conns.close(on, Close::Linger, now);
    }
}

/// Whether this is a connector's request for a hidden server other than `labelled`, that of its host's label. A
/// connector sends its configured ID as the user name, which would be ignored because of the label. In any other
/// request the user name is for the hidden server itself.
fn contradicts(head: &Head<'_>, labelled: Id) -> bool {
    let is_connector = head.method == "GET"
        && head.target == "/"
        && (head.upgrades_to(SEALED_STREAM) || head.upgrades_to("octet-stream"));
    is_connector && matches!(head.authorization.map(identify), Some(Identified::Id(id)) if id != labelled)
}
