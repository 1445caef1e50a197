//! Events of connections, and of XMPP.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Entity, Outcome, State};
use crate::account::Owners;
use crate::component_host::IqHandler;
use crate::machine::{ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::time::{Now, Span};
use crate::xmpp::iq::Iq;

impl Entity {
    fn link(&mut self, on: ConnId) -> Option<super::LinkId> {
        match self.conns.state(on) {
            Some(&mut State::Link(link)) => Some(link),
            Some(State::Local | State::Paired | State::Unwanted) | None => None,
        }
    }
}

impl IqHandler for Entity {
    fn handle_iq(&mut self, iq: Iq, now: Now) {
        if iq.to == self.config.jid {
            self.on_iq(&iq, now);
        } else {
            self.iqs.extend(iq.not_understood());
        }
        self.apply_actions(now);
    }

    fn handle_online(&mut self, now: Now) {
        self.is_online = true;
        self.begin(now);
        self.apply_actions(now);
    }

    fn handle_offline(&mut self, _: Now) {
        self.is_online = false;
    }

    fn handle_drain(&mut self, now: Now) {
        self.over = true;
        if self.conns.pairs() == 0 {
            self.finish(Outcome::Abandoned, now);
        }
        self.apply_actions(now);
    }

    fn poll_iq(&mut self) -> Option<Iq> {
        self.iqs.pop_front()
    }

    fn features(&self) -> Vec<alloc::string::String> {
        alloc::vec![crate::dtcp::xmpp::NAMESPACE.into()]
    }

    fn is_done(&self) -> bool {
        self.over && self.conns.len() == 0
    }
}

impl Machine for Entity {
    fn handle_open(&mut self, listener: Listener, from: SocketAddr, now: Now) -> ConnId {
        let on = self.conns.insert(State::Unwanted, Some(from));
        let is_local = listener.0 >= self.config.listeners;
        if is_local && (self.over || self.local.is_some()) {
            self.unwanted(on, "there is one connection, and no other", now);
        } else if is_local {
            self.on_local(on, now);
        } else if self.dtcp_endpoint.is_idle() {
            // Without sessions no connection can have a correct key.
            self.unwanted(on, "no session is under way", now);
        } else {
            let link = self.dtcp_endpoint.accept(on, from, now);
            self.conns.set_state(on, State::Link(link));
        }
        self.apply_actions(now);
        on
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        if let Some(link) = self.link(on) {
            self.dtcp_endpoint.resolved(link, addresses);
        }
        self.apply_actions(now);
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        if let Some(link) = self.link(on) {
            self.dtcp_endpoint.connected(link);
        }
        self.apply_actions(now);
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        if let Some(link) = self.link(on) {
            self.dtcp_endpoint.dial_failed(link, why);
        }
        self.apply_actions(now);
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        if let Some(link) = self.link(on) {
            self.dtcp_endpoint.secured(link, tls);
        }
        self.apply_actions(now);
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        if let Some(link) = self.link(on) {
            self.dtcp_endpoint.tls_failed(link, why);
        }
        self.apply_actions(now);
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let used = self.link(on).map_or(0, |link| self.dtcp_endpoint.bytes(link, bytes));
        self.apply_actions(now);
        used
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let ended = self.conns.moved(from, read, queued, now);
        self.pair_over(ended, now);
        self.apply_actions(now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.flushed(on, now);
        self.pair_over(ended, now);
        self.apply_actions(now);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        let ended = self.conns.acked(on, age, now);
        self.pair_over(ended, now);
        self.apply_actions(now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Link(link)) => self.dtcp_endpoint.ended(link, how),
            // It may have sent everything already: its end is forwarded once it is paired.
            Some(State::Local) if how == End::Clean => self.conns.mark_ended(on),
            Some(State::Local) => self.finish(Outcome::Abandoned, now),
            Some(State::Paired) => {
                let ended = self.conns.end(on, how, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
        self.apply_actions(now);
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            // Bytes that were received before can still be read, and then the end.
            Some(State::Link(_)) => {}
            Some(State::Local) => self.finish(Outcome::Abandoned, now),
            Some(State::Paired) => {
                let ended = self.conns.write_failed(on, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
        self.apply_actions(now);
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.stalled(on, now);
        self.pair_over(ended, now);
        match self.conns.state(on) {
            Some(&mut State::Link(link)) => self.dtcp_endpoint.ended(link, End::Reset),
            Some(State::Local) => self.finish(Outcome::Abandoned, now),
            Some(State::Paired | State::Unwanted) | None => {}
        }
        self.apply_actions(now);
    }

    fn owners(&self, on: ConnId) -> Owners {
        Owners::of_peer(self.conns.from(on))
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            match self.conns.state(on) {
                Some(State::Paired) => {
                    let ended = self.conns.pair_timeout(on, now);
                    self.pair_over(ended, now);
                }
                Some(State::Local) => self.expire(now),
                Some(State::Link(_) | State::Unwanted) | None => {}
            }
        }
        self.dtcp_endpoint.timeout(now);
        self.apply_actions(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        self.dtcp_endpoint.merge_idle(self.conns.poll(text, State::why))
    }
}
