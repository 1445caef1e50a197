//! A request's head is complete: whose is it, what does it want, and what is the answer?

use alloc::vec::Vec;

use super::route::Route;
use super::{DISCARD_OCTETS_MAX, Engine, FULL, NOBODY, RETRY_AFTER, Request, STOPPING, State};
use crate::http::head::{self, Body, Head};
use crate::http::reply::{Reply, Status};
use crate::http::target::{self, Registration, Token};
use crate::id::Id;
use crate::limiter::Source;
use crate::machine::{Close, ConnId, Output};
use crate::note::Note;
use crate::registry::{Policy, Refused};
use crate::time::{Now, Span};

impl Engine {
    pub(super) fn request(&mut self, on: ConnId, bytes: &[u8], len: usize, now: Now) {
        let (octets, behind) = bytes.split_at(len);
        match head::parse(octets) {
            Err(refusal) => {
                self.refuse(on, None, refusal.status(), refusal.why(), false, None, now);
            }
            Ok(head) if head.is_connect() => self.register(on, &head, !behind.is_empty(), now),
            Ok(head) => self.client(on, &head, now),
        }
    }

    pub(super) fn register(&mut self, on: ConnId, head: &Head<'_>, behind: bool, now: Now) {
        let registration = match target::registration(head.target) {
            Ok(registration) => registration,
            Err(error) => {
                return self.refuse(on, None, error.status(), error.why(), false, None, now);
            }
        };
        let refused = if behind {
            (Status::Conflict409, "octets behind the request, before its answer", None)
        } else if self.draining {
            (Status::Unavailable503, STOPPING, Some(RETRY_AFTER))
        } else if self.is_full() {
            (Status::Unavailable503, FULL, Some(RETRY_AFTER))
        } else {
            match self.authenticate(on, &registration, now) {
                Ok(()) => return self.wait(on, &registration, head.proxy_header, now),
                Err(refused) => refused,
            }
        };
        let (status, why, retry_after) = refused;
        let id = Some(registration.id).filter(|id| self.registry.is_enrolled(*id));
        self.refuse(on, id, status, why, false, retry_after, now);
    }

    pub(super) fn authenticate(
        &mut self,
        on: ConnId,
        registration: &Registration<'_>,
        now: Now,
    ) -> Result<(), (Status, &'static str, Option<u32>)> {
        const GUESSING: &str = "too many failures";
        let too_many = |wait: Span| {
            (Status::TooManyRequests429, GUESSING, Some(u32::try_from(wait.as_secs_up()).unwrap_or(u32::MAX)))
        };
        let source = self.conns.from(on).map(|from| Source::from(from.ip()));
        let exhausted = source.and_then(|source| self.failures.exhausted(source, now.mono));
        // A bound token has 128 bits: whoever has a right one has not guessed it, and no neighbour's guessing behind
        // the same address may lock it out.
        if let (Some(wait), Token::Plain(_)) = (exhausted, &registration.token) {
            return Err(too_many(wait));
        }
        let policy = Policy {
            one_time_strict: self.config.one_time_strict,
            tokens_max: self.config.tokens_per_id_max,
        };
        match self.registry.authenticate(registration, policy, now) {
            Ok(()) => Ok(()),
            Err(Refused::Full) => Err((Status::Unavailable503, "too many tokens remembered", Some(30))),
            Err(Refused::Guessed(wait)) => Err(too_many(wait)),
            Err(Refused::Unauthorized) => {
                if let Some(source) = source {
                    self.failures.fail(source, now.mono);
                }
                match exhausted {
                    Some(wait) => Err(too_many(wait)),
                    None => Err((Status::Unauthorized401, "not authorized", None)),
                }
            }
        }
    }

    pub(super) fn client(&mut self, on: ConnId, head: &Head<'_>, now: Now) {
        let is_head = head.method == "HEAD";
        if self.draining {
            return self.refuse_client(on, None, Status::Unavailable503, STOPPING, is_head, now);
        }
        if self.is_full() || self.is_over_share(on) {
            return self.refuse_client(on, None, Status::Unavailable503, FULL, is_head, now);
        }
        match self.route(head) {
            Route::To { id, by } if self.registry.is_enrolled(id) => {
                let mut rewritten = Vec::new();
                if by.removes_authorization() {
                    head.without_authorization(&mut rewritten);
                } else {
                    head.as_it_came(&mut rewritten);
                }
                let repeatable = matches!(head.method, "GET" | "HEAD" | "OPTIONS")
                    && head.body == Body::None
                    && !head.expect;
                let request = Request { head: rewritten.into_boxed_slice(), repeatable, is_head, tries: 0 };
                self.meet(on, id, request, now);
            }
            Route::To { .. } | Route::Unknown => {
                self.refuse_client(on, None, Status::NotFound404, NOBODY, is_head, now);
            }
            Route::Ask => self.challenge(on, head, now),
            Route::Malformed => {
                const WHY: &str = "malformed Authorization";
                self.refuse(on, None, Status::BadRequest400, WHY, is_head, None, now);
            }
        }
    }

    pub(super) fn challenge(&mut self, on: ConnId, head: &Head<'_>, now: Now) {
        let discard = match head.body {
            Body::None => Some(0),
            Body::Length(octets) if octets <= DISCARD_OCTETS_MAX && !head.expect => Some(octets),
            Body::Length(_) | Body::Chunked => None,
        };
        let keep = discard.filter(|_| !head.close);
        let reply = Reply {
            status: Status::Unauthorized401,
            diagnostic: "the ID of the hidden server is asked for as user name",
            permanent: false,
            retry_after: None,
            close: keep.is_none(),
            head_request: head.method == "HEAD",
            challenge: Some((self.entropy.half_block(), self.entropy.half_block())),
        };
        let mut text = Vec::new();
        reply.write(now.wall, &mut text);
        self.conns.send(on, text);
        let from = self.conns.from(on);
        self.conns.note(Note::Challenged { on, from });
        match keep {
            Some(discard) => {
                let due = now.mono + self.config.answer;
                self.become_state(on, State::Answering { discard }, Some(due));
                self.conns.say(Output::Read { on, wanted: false });
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
        is_head: bool,
        now: Now,
    ) {
        let retry_after = (status == Status::Unavailable503).then_some(RETRY_AFTER);
        self.refuse(on, id, status, why, is_head, retry_after, now);
    }

    #[expect(clippy::too_many_arguments, reason = "every part of an answer is named where it is given")]
    pub(super) fn refuse(
        &mut self,
        on: ConnId,
        id: Option<Id>,
        status: Status,
        why: &'static str,
        head_request: bool,
        retry_after: Option<u32>,
        now: Now,
    ) {
        let permanent = matches!(
            status,
            Status::BadRequest400
                | Status::Forbidden403
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
            head_request,
            challenge: None,
        };
        let mut text = Vec::new();
        reply.write(now.wall, &mut text);
        self.conns.send(on, text);
        let from = self.conns.from(on);
        self.conns.note(Note::Refused { on, from, id, status, why });
        self.conns.close(on, Close::Linger, now);
    }
}
