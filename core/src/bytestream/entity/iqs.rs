//! An entity behind a component: its stanzas as IQs.

use super::{Close, Entity, Iq, Now, StreamFailure, Vec};
use crate::bytestream::xmpp::{receive, write};
use crate::component_host::IqHandler;

impl IqHandler for Entity {
    fn handle_iq(&mut self, iq: Iq, now: Now) {
        match receive(&iq, &self.config.jid, &self.config.namespace) {
            Some(stanza) => self.handle_stanza(stanza, now),
            None => self.answers.extend(iq.not_understood()),
        }
    }

    fn handle_online(&mut self, _: Now) {}

    /// Streams continue. Those that are not clear yet have timeouts.
    fn handle_offline(&mut self, _: Now) {}

    /// Cancels the streams that are not clear yet, and begins no new ones. Pairs continue.
    fn handle_drain(&mut self, now: Now) {
        self.draining = true;
        let all: Vec<u64> = self.sessions.keys().copied().collect();
        for session in all {
            self.fail(session, StreamFailure::Cancelled, now);
        }
        while let Some(free) = self.free.pop_front() {
            self.unwanted(free, Close::Truncate, "shutting down", now);
        }
        self.process_matches(now);
    }

    fn poll_iq(&mut self) -> Option<Iq> {
        let answer = self.answers.pop_front();
        answer.or_else(|| Some(write(&self.poll_stanza()?, &self.config.jid, &self.config.namespace)))
    }

    fn features(&self) -> Vec<alloc::string::String> {
        alloc::vec![self.config.namespace.clone().into()]
    }

    fn is_done(&self) -> bool {
        self.draining && self.conns.len() == 0
    }
}
