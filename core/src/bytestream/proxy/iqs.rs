//! A proxy behind a component: its stanzas as IQs.

use super::{Close, Condition, Iq, Now, Proxy, State};
use crate::bytestream::xmpp::{receive, write};
use crate::component_host::IqHandler;

impl IqHandler for Proxy {
    fn handle_iq(&mut self, iq: Iq, now: Now) {
        match receive(&iq, &self.config.jid, &self.config.namespace) {
            Some(stanza) => self.handle_stanza(stanza, now),
            None => self.answers.extend(iq.not_understood()),
        }
    }

    fn handle_online(&mut self, _: Now) {}

    /// Pairs continue, and claims are held as usual: a claimer whose answer is lost times out.
    fn handle_offline(&mut self, _: Now) {}

    fn handle_drain(&mut self, now: Now) {
        self.draining = true;
        for on in self.conns.open_ids() {
            match self.conns.state(on) {
                Some(State::Unclaimed) => self.end_unclaimed(on, Close::Abort, "shutting down", now),
                Some(State::Claimed { .. }) => {
                    self.end_claimed(on, Close::Abort, Condition::ServiceUnavailable, now);
                }
                Some(State::Paired { .. } | State::Unwanted) | None => {}
            }
        }
        while let Some(claim) = self.matching.forget_claim(|_| true) {
            self.answer(claim, Condition::ServiceUnavailable);
        }
        self.process_matches(now);
    }

    fn poll_iq(&mut self) -> Option<Iq> {
        let answer = self.answers.pop_front();
        answer.or_else(|| Some(write(&self.poll_stanza()?, &self.config.jid, &self.config.namespace)))
    }

    fn features(&self) -> alloc::vec::Vec<alloc::string::String> {
        alloc::vec![self.config.namespace.clone().into()]
    }

    fn is_done(&self) -> bool {
        self.draining && self.conns.len() == 0
    }
}
