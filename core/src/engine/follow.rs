//! Follows the exchanges of pairs. Each request names a hidden server, so a later one may name another.
//!
//! Programs reuse a connection for all requests to the same host and port, here the relay's. A request that names
//! another hidden server must never reach the first one. Both halves of such a pair are gated, and a [`Follower`]
//! finds the end of each request and response. A head that does not name the pair's hidden server stays at the
//! client's gate until the exchanges before it are complete. Then the pair ends, cleanly for the hidden server, and
//! the head is treated as the first one on a connection: the client is handed over to the hidden server that it
//! names, or gets the challenge if it names none.
//!
//! Bytes that are not certainly HTTP are not followed. They are forwarded as in a pair without gates.

use alloc::boxed::Box;

use super::route::Route;
use super::{Engine, State};
use crate::conns::Ended;
use crate::http::follower::{Follower, Step, begins_like_request};
use crate::http::head::Head;
use crate::id::Id;
use crate::machine::{Close, ConnId, Output, PASS_ALL};
use crate::pair::{EndReason, PairEnd, Side};
use crate::time::Now;

/// The exchanges of one pair.
#[derive(Debug)]
pub(super) struct Follow {
    follower: Follower,
    at_gate: AtGate,
    from_client: Passing,
    from_hidden: Passing,
}

/// The bytes that pass the gate of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    /// This many bytes, which have not moved yet.
    Bytes(u64),
    /// Everything.
    All,
    /// Nothing more: the stream has ended, and all bytes before the end have moved.
    Ended,
}

/// What the client's first byte at the gate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtGate {
    /// More bytes.
    Bytes,
    /// The rest of a request head.
    PartOfHead,
    /// Progress in the other direction, after which it is a request or another protocol.
    Response,
    /// The end of the exchanges before it: it does not name the pair's hidden server, or is not a request that may be
    /// forwarded.
    Leave,
    /// The end of the pair: it belongs to a malformed body. Neither it nor the bytes after it can be forwarded.
    Cut,
}

impl Follow {
    /// `follower` has seen the request that begins the pair.
    pub(super) const fn new(follower: Follower) -> Self {
        let none = Passing::Bytes(0);
        Self { follower, at_gate: AtGate::Bytes, from_client: none, from_hidden: none }
    }

    fn passing(&mut self, from: Side) -> &mut Passing {
        match from {
            Side::Client => &mut self.from_client,
            Side::Hidden => &mut self.from_hidden,
        }
    }

    /// All bytes of this side that passed the gate have moved.
    fn passed(&mut self, from: Side) {
        match from {
            Side::Client => self.follower.client_passed(u64::MAX),
            Side::Hidden => self.follower.hidden_passed(u64::MAX),
        }
    }

    /// Whether all bytes that passed the gates have moved.
    const fn has_moved(&self) -> bool {
        const fn has_moved(passing: Passing) -> bool {
            matches!(passing, Passing::Bytes(0) | Passing::Ended)
        }
        has_moved(self.from_client) && has_moved(self.from_hidden)
    }
}

impl Engine {
    /// For traces: a copy of the follower of the pair of `on`, and the side of `on`.
    #[cfg(feature = "trace")]
    pub(crate) fn follower(&mut self, on: ConnId) -> Option<(Follower, Side)> {
        let (peer, side) = self.conns.peer(on)?;
        match self.conns.state(if side == Side::Client { on } else { peer })? {
            State::Client { follow: Some(follow), .. } => Some((follow.follower.clone(), side)),
            _ => None,
        }
    }

    /// Handles bytes of a client at its gate.
    pub(super) fn follow_client(&mut self, client: ConnId, bytes: &[u8], now: Now) {
        let Some((id, mut follow)) = self.take_follow(client) else { return };
        let mut rest = bytes;
        follow.at_gate = loop {
            if rest.is_empty() {
                break AtGate::Bytes;
            }
            let is_at_head = follow.follower.is_at_request_head();
            let passed = match follow.follower.on_client(rest) {
                Step::More if is_at_head && has_request_target(rest) => break AtGate::PartOfHead,
                Step::More => break AtGate::Bytes,
                Step::Hold => break AtGate::Response,
                Step::Skip(bytes) => bytes,
                Step::Request { len: _, ref head } if !self.names(head, id) => break AtGate::Leave,
                Step::Request { len, head } => {
                    follow.follower.request_passed(&head);
                    len as u64
                }
                // The relay refuses it like the first head on a connection.
                Step::Refused(_) if is_at_head => break AtGate::Leave,
                Step::Refused(_) => break AtGate::Cut,
                Step::Response { .. } | Step::Opaque => {
                    self.pass(&mut follow, Side::Hidden, client, PASS_ALL);
                    PASS_ALL
                }
            };
            self.pass(&mut follow, Side::Client, client, passed);
            rest = usize::try_from(passed).ok().and_then(|passed| rest.get(passed..)).unwrap_or_default();
        };
        self.put_follow(client, follow);
        self.settle_followed(client, now);
    }

    /// Handles bytes of a hidden server at its gate.
    pub(super) fn follow_hidden(&mut self, hidden: ConnId, bytes: &[u8], now: Now) {
        let Some((client, Side::Hidden)) = self.conns.peer(hidden) else { return };
        if let Some(State::Client { request, .. }) = self.conns.state(client) {
            *request = None;
        }
        let Some((_, mut follow)) = self.take_follow(client) else { return };
        let mut rest = bytes;
        while !rest.is_empty() {
            let passed = match follow.follower.on_hidden(rest) {
                Step::More => break,
                Step::Skip(bytes) => bytes,
                Step::Response { len } => len as u64,
                // Bytes that answer no request are forwarded and not followed.
                Step::Hold | Step::Request { .. } | Step::Opaque | Step::Refused(_) => {
                    if follow.follower.is_opaque() {
                        self.pass(&mut follow, Side::Client, client, PASS_ALL);
                    }
                    PASS_ALL
                }
            };
            self.pass(&mut follow, Side::Hidden, client, passed);
            rest = usize::try_from(passed).ok().and_then(|passed| rest.get(passed..)).unwrap_or_default();
        }
        if follow.at_gate == AtGate::Response {
            // The client's bytes may be able to proceed: they are offered again.
            self.conns.emit(Output::Read { on: client, wanted: true });
        }
        self.put_follow(client, follow);
        self.settle_followed(client, now);
    }

    /// No bytes follow those at the gate of `on`. An incomplete request head is not forwarded, since it may be meant
    /// for another hidden server. Other bytes are.
    pub(super) fn follow_last(&mut self, on: ConnId, now: Now) {
        let Some((peer, side)) = self.conns.peer(on) else { return };
        let client = if side == Side::Client { on } else { peer };
        let Some((_, mut follow)) = self.take_follow(client) else { return };
        match follow.at_gate {
            AtGate::PartOfHead if side == Side::Client => follow.at_gate = AtGate::Leave,
            AtGate::Response | AtGate::Leave | AtGate::Cut if side == Side::Client => {}
            _ => self.pass(&mut follow, side, client, PASS_ALL),
        }
        self.put_follow(client, follow);
        self.settle_followed(client, now);
    }

    /// Bytes that passed the gate have moved.
    pub(super) fn follow_moved(&mut self, from: ConnId, read: u32, now: Now) {
        let Some((peer, side)) = self.conns.peer(from) else { return };
        let client = if side == Side::Client { from } else { peer };
        let Some(State::Client { follow: Some(follow), .. }) = self.conns.state(client) else { return };
        if let Passing::Bytes(left) = follow.passing(side) {
            *left = left.saturating_sub(u64::from(read));
            if *left == 0 {
                follow.passed(side);
                self.settle_followed(client, now);
            }
        }
    }

    /// One side of a pair has ended its stream cleanly. Returns whether that has ended the pair.
    pub(super) fn follow_end(&mut self, on: ConnId, now: Now) -> bool {
        let Some((peer, side)) = self.conns.peer(on) else { return false };
        let client = if side == Side::Client { on } else { peer };
        let Some(State::Client { follow: Some(follow), .. }) = self.conns.state(client) else { return false };
        *follow.passing(side) = Passing::Ended;
        follow.passed(side);
        match side {
            Side::Client => follow.follower.client_ended(),
            Side::Hidden => follow.follower.hidden_ended(),
        }
        self.settle_followed(client, now);
        self.conns.peer(on).is_none()
    }

    /// Whether a later request names the hidden server `id`.
    ///
    /// Earlier requests do not matter (RFC 9110 §3.3). A client with Digest credentials sends its first request to
    /// another hidden server without them, and names that server only after a challenge.
    fn names(&self, head: &Head<'_>, id: Id) -> bool {
        let is_allowed = !self.registry.is_end_to_end(id) || head.asks_sealed_stream();
        is_allowed && matches!(self.route(head), Route::To { id: named, .. } if named == id)
    }

    /// Whether the exchanges of this client are followed, and all of them are complete.
    pub(super) fn is_answered(&mut self, client: ConnId) -> bool {
        match self.conns.any_state(client) {
            Some(State::Client { follow: Some(follow), .. }) => follow.follower.is_complete(),
            _ => false,
        }
    }

    /// Decides about the bytes at the client's gate: they stay, the client leaves the pair, or the connection ends.
    pub(super) fn settle_followed(&mut self, client: ConnId, now: Now) {
        let Some(State::Client { follow: Some(follow), .. }) = self.conns.state(client) else { return };
        match follow.at_gate {
            AtGate::Bytes | AtGate::PartOfHead => return,
            AtGate::Response | AtGate::Leave if !follow.has_moved() => return,
            AtGate::Response | AtGate::Leave | AtGate::Cut => {}
        }
        // A body that was not forwarded completely must not appear complete.
        let hidden = if follow.follower.is_in_request() { Close::Truncate } else { Close::Linger };
        let is_over = follow.follower.is_over();
        let is_malformed = follow.at_gate == AtGate::Cut;
        let leaves = follow.at_gate == AtGate::Leave && follow.follower.is_between_exchanges();
        // A closing connection has little time for its queue, so the pair continues while there is one.
        let has_queue = self.conns.pair_of(client).is_some_and(|pair| pair.has_queue_to(Side::Client));
        if (is_over || is_malformed) && has_queue {
            return;
        }
        if is_over {
            self.end_followed(client, hidden, EndReason::Done, now);
        } else if is_malformed {
            self.end_followed(client, Close::Truncate, EndReason::Truncated(Side::Client), now);
        } else if leaves {
            self.leave(client, now);
        }
    }

    /// The client leaves the pair, which is a clean end for the hidden server. The bytes at the client's gate are
    /// offered again, like the first request on a connection.
    fn leave(&mut self, client: ConnId, now: Now) {
        let Some((hidden, _)) = self.conns.peer(client) else { return };
        let ended = self.ended(hidden, client, Close::Linger, EndReason::Done);
        self.conns.close(hidden, Close::Linger, now);
        self.pair_over(ended, now);
        self.conns.emit(Output::Read { on: client, wanted: true });
        self.await_head(client, self.config.head_timeout, now);
    }

    /// Ends a pair although the client has sent more. The client gets everything that the hidden server sent.
    fn end_followed(&mut self, client: ConnId, hidden_close: Close, why: EndReason, now: Now) {
        let Some((hidden, _)) = self.conns.peer(client) else { return };
        let ended = self.ended(hidden, client, hidden_close, why);
        self.conns.close(hidden, hidden_close, now);
        self.conns.close(client, Close::Linger, now);
        self.pair_over(ended, now);
    }

    fn ended(
        &mut self,
        hidden: ConnId,
        client: ConnId,
        hidden_close: Close,
        why: EndReason,
    ) -> Option<Ended> {
        let pair = *self.conns.pair_of(client)?;
        let over = PairEnd { hidden: hidden_close, client: Close::Linger, why };
        Some(Ended { hidden, client, pair, over })
    }

    fn pass(&mut self, follow: &mut Follow, from: Side, client: ConnId, bytes: u64) {
        let Some((hidden, _)) = self.conns.peer(client) else { return };
        let passing = follow.passing(from);
        let Passing::Bytes(before) = *passing else { return };
        *passing = match before.saturating_add(bytes) {
            PASS_ALL => Passing::All,
            bytes => Passing::Bytes(bytes),
        };
        let from = if from == Side::Client { client } else { hidden };
        self.conns.emit(Output::Pass { from, bytes });
    }

    fn take_follow(&mut self, client: ConnId) -> Option<(Id, Box<Follow>)> {
        match self.conns.state(client)? {
            State::Client { id, follow, .. } => Some((*id, follow.take()?)),
            _ => None,
        }
    }

    fn put_follow(&mut self, client: ConnId, put: Box<Follow>) {
        if let Some(State::Client { follow, .. }) = self.conns.state(client) {
            *follow = Some(put);
        }
    }
}

/// Whether bytes that begin like a request contain the beginning of the target.
fn has_request_target(bytes: &[u8]) -> bool {
    begins_like_request(bytes) && bytes.contains(&b' ')
}
