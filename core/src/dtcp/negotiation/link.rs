//! Connections that are neither established nor closed: carries out the results of their handshakes.

use alloc::vec::Vec;

use super::{LinkId, Negotiation, Output, SessionId, TlsRole};
use crate::dtcp::handshake::{Dialled, Dialling, Served, Serving, Step, Tls, Verdict};
use crate::dtcp::line::{self, Command, Found};
use crate::dtcp::{Fingerprint, Key};
use crate::machine::Close;
use crate::opaque::Opaque;
use crate::time::Time;

/// The maximum number of remembered keys of sessions that have their connection; the oldest is dropped first.
const USED_KEYS_MAX: usize = 256;

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    end: LinkEnd,
    due: Time,
    secure: bool,
    /// The peer's TLS certificate.
    certificate: Option<Fingerprint>,
}

/// Our end of the connection.
#[derive(Clone, Debug)]
enum LinkEnd {
    Dialling { session: SessionId, handshake: Dialling },
    Serving { handshake: Serving, shown: Shown },
}

/// What an accepted connection has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// No correct key yet.
    Nothing,
    /// A correct key, before our request was answered.
    Parked(SessionId),
    /// A correct key; the ack is awaited.
    Tentative(SessionId),
}

/// Our position in a session, which determines the effect of a correct key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Our request is unanswered, so the connection must wait.
    Unanswered,
    /// We choose the connection.
    Requestor,
    /// The peer chooses the connection.
    Responder,
}

/// The key of a session that has its connection. Connections that existed by then are told that they are not needed;
/// later ones are told that the key is unknown (docs/dtcp.md §6.3, §6.4).
#[derive(Clone, Debug)]
pub(super) struct UsedKey {
    key: Key,
    /// The links with lower numbers existed by then.
    before: LinkId,
}

impl Link {
    pub(super) const fn accepted(tls: Tls, due: Time) -> Self {
        let end = LinkEnd::Serving { handshake: Serving::new(tls), shown: Shown::Nothing };
        Self { end, due, secure: false, certificate: None }
    }

    pub(super) const fn dialled(session: SessionId, tls: Tls, due: Time) -> Self {
        let end = LinkEnd::Dialling { session, handshake: Dialling::new(tls) };
        Self { end, due, secure: false, certificate: None }
    }

    pub(super) const fn due(&self) -> Time {
        self.due
    }

    pub(super) const fn is_secure(&self) -> bool {
        self.secure
    }

    pub(super) const fn is_dialled(&self) -> bool {
        matches!(self.end, LinkEnd::Dialling { .. })
    }

    pub(super) const fn is_parked(&self) -> bool {
        matches!(self.end, LinkEnd::Serving { shown: Shown::Parked(_), .. })
    }

    /// The session that it belongs to, as far as it is known.
    pub(super) const fn session(&self) -> Option<SessionId> {
        match self.end {
            LinkEnd::Dialling { session, .. }
            | LinkEnd::Serving { shown: Shown::Parked(session) | Shown::Tentative(session), .. } => {
                Some(session)
            }
            LinkEnd::Serving { shown: Shown::Nothing, .. } => None,
        }
    }
}

impl Negotiation {
    pub(super) fn connected(&mut self, on: LinkId) {
        if let Some(Link { end: LinkEnd::Dialling { handshake, .. }, .. }) = self.links.get_mut(&on) {
            let act = handshake.on_connected();
            self.act_dialled(on, act);
        }
    }

    pub(super) fn tls_up(&mut self, on: LinkId, certificate: Option<Fingerprint>) {
        let Some(link) = self.links.get_mut(&on) else { return };
        link.secure = true;
        link.certificate = certificate;
        match &mut link.end {
            LinkEnd::Serving { handshake, .. } => handshake.on_tls_up(),
            LinkEnd::Dialling { session, handshake } => {
                let trusted = self.sessions.get(session).is_some_and(|it| it.trusts(certificate));
                let act = if trusted { handshake.on_tls_up() } else { Dialled::Failed };
                self.act_dialled(on, act);
            }
        }
    }

    /// Reads lines until one is incomplete, or the link waits for something else.
    pub(super) fn read(&mut self, on: LinkId, bytes: &[u8]) -> usize {
        let mut used = 0;
        while self.links.contains_key(&on) {
            let rest = &bytes[used..];
            self.record_no_tls(on, rest);
            let Some(link) = self.links.get_mut(&on) else { break };
            let took = match &mut link.end {
                LinkEnd::Serving { handshake, .. } => {
                    let Step { used, act } = handshake.on_bytes(rest);
                    self.act_served(on, act);
                    used
                }
                LinkEnd::Dialling { session, handshake } => {
                    let Some(mine) = self.sessions.get(session).map(|it| it.mine()) else { break };
                    let Step { used, act } = handshake.on_bytes(rest, mine);
                    self.act_dialled(on, act);
                    used
                }
            };
            if took == 0 {
                break;
            }
            used += took;
        }
        used
    }

    /// Records whether the next line shows that one side requires TLS and the other has it off.
    fn record_no_tls(&mut self, on: LinkId, bytes: &[u8]) {
        let Some(link) = self.links.get(&on) else { return };
        let Found::Command { command, .. } = line::find(bytes) else { return };
        let session = match (link.end.clone(), command) {
            (LinkEnd::Serving { handshake, .. }, Command::Key(shown)) if handshake.refuses_keys() => {
                self.find(shown)
            }
            // The session is not known yet: assume the only one, if there is one. If the peer continues in clear, the
            // record has no effect.
            (LinkEnd::Serving { handshake, .. }, Command::StartTls) if handshake.has_no_tls() => {
                self.sessions.keys().next().copied().filter(|_| self.sessions.len() == 1)
            }
            (LinkEnd::Dialling { session, handshake }, Command::Error) if handshake.needs_tls() => {
                Some(session)
            }
            _ => None,
        };
        if session.is_some() {
            self.in_clear = session;
        }
    }

    /// Our request was answered: parked connections can be checked. The first correct one is chosen.
    pub(super) fn unpark(&mut self, session: SessionId) {
        let parked: Vec<_> = self
            .links
            .iter()
            .filter(|(_, it)| it.is_parked() && it.session() == Some(session))
            .map(|(link, _)| *link)
            .collect();
        for on in parked {
            let verdict = self.check_key(on, session);
            self.judge(on, session, verdict);
            if self.links.contains_key(&on) {
                self.emit(Output::Read { link: on, wanted: true });
            }
        }
    }

    pub(super) fn expire(&mut self, on: LinkId) {
        if self.links.get(&on).is_some_and(Link::is_parked) {
            self.write_error(on);
            self.drop_link(on, Close::Linger);
        } else {
            self.drop_link(on, Close::Abort);
        }
    }

    /// Closes a connection, which may end its session.
    pub(super) fn drop_link(&mut self, on: LinkId, how: Close) {
        let Some(link) = self.links.remove(&on) else { return };
        self.emit(Output::Close { link: on, how });
        if let Some(session) = link.session() {
            self.review(session);
        }
        self.check_invariants();
    }

    pub(super) fn remember_used_key(&mut self, key: Key) {
        let oldest = self.links.iter().find(|(_, it)| !it.is_dialled()).map(|(on, _)| *on);
        self.used_keys.retain(|it| oldest.is_some_and(|on| on < it.before));
        if oldest.is_some() {
            self.used_keys.truncate(USED_KEYS_MAX - 1);
            let before = LinkId(self.next);
            self.used_keys.push_front(UsedKey { key, before });
        }
    }

    pub(super) fn write_error(&mut self, on: LinkId) {
        self.write(on, Command::Error);
    }

    fn write(&mut self, link: LinkId, command: Command<'_>) {
        let mut bytes = Opaque::<Vec<u8>>::default();
        command.write(&mut bytes);
        self.emit(Output::Write { link, bytes });
    }

    fn act_dialled(&mut self, on: LinkId, act: Dialled) {
        let Some(id) = self.links.get(&on).and_then(Link::session) else { return };
        match act {
            Dialled::Wait => {}
            Dialled::AskTls => self.write(on, Command::StartTls),
            Dialled::StartTls => self.emit(Output::StartTls { link: on, role: TlsRole::Client }),
            Dialled::ShowKey => {
                if let Some(key) = self.sessions.get(&id).and_then(|it| it.theirs()).cloned() {
                    self.write(on, Command::Key(key.as_bytes()));
                }
            }
            Dialled::Right => {
                if self.sessions.get(&id).is_some_and(|it| it.standing() == Standing::Requestor) {
                    self.write(on, Command::Ok(b""));
                }
                self.commit(id, on);
            }
            Dialled::Failed => self.drop_link(on, Close::Abort),
        }
    }

    fn act_served(&mut self, on: LinkId, act: Served<'_>) {
        match act {
            Served::Wait => {}
            Served::StartTls => {
                self.write(on, Command::Ok(b""));
                self.emit(Output::StartTls { link: on, role: TlsRole::Server });
            }
            Served::Judge(shown) => self.judge_shown(on, shown),
            Served::Accept => self.accept(on),
            Served::Acknowledged => {
                if let Some(id) = self.links.get(&on).and_then(Link::session) {
                    self.commit(id, on);
                }
            }
            Served::Refuse => {
                self.write_error(on);
                self.belongs(on, Shown::Nothing);
            }
            Served::Dismiss => {
                self.write_error(on);
                self.drop_link(on, Close::Linger);
            }
        }
    }

    /// Checks a key. All sessions and used keys are compared, to take constant time.
    fn judge_shown(&mut self, on: LinkId, shown: &[u8]) {
        let session = self.find(shown);
        let mut is_used = false;
        for used_keys in &self.used_keys {
            is_used |= used_keys.key.is(shown) & (on < used_keys.before);
        }
        match session {
            Some(id) => {
                let verdict = self.check_key(on, id);
                self.judge(on, id, verdict);
            }
            None => {
                let verdict = if is_used { Verdict::UsedKey } else { Verdict::Wrong };
                self.judge_as(on, verdict);
            }
        }
    }

    /// The effect of this session's correct key on this connection.
    fn check_key(&self, on: LinkId, id: SessionId) -> Verdict {
        let (Some(session), Some(link)) = (self.sessions.get(&id), self.links.get(&on)) else {
            return Verdict::UsedKey;
        };
        let parked = self.links.values().filter(|it| it.is_parked()).count();
        match session.standing() {
            Standing::Unanswered if parked >= self.config.parked_max => Verdict::UsedKey,
            Standing::Unanswered => Verdict::Later,
            _ if !session.trusts(link.certificate) => Verdict::Wrong,
            Standing::Requestor => Verdict::Commit,
            Standing::Responder => Verdict::Tentative,
        }
    }

    fn judge(&mut self, on: LinkId, id: SessionId, verdict: Verdict) {
        match verdict {
            Verdict::Later => {
                self.belongs(on, Shown::Parked(id));
                self.emit(Output::Read { link: on, wanted: false });
            }
            Verdict::Tentative | Verdict::Commit => self.belongs(on, Shown::Tentative(id)),
            Verdict::Wrong | Verdict::UsedKey => {}
        }
        self.judge_as(on, verdict);
    }

    fn judge_as(&mut self, on: LinkId, verdict: Verdict) {
        if let Some(Link { end: LinkEnd::Serving { handshake, .. }, .. }) = self.links.get_mut(&on) {
            let act = handshake.judge(verdict);
            self.act_served(on, act);
        }
    }

    /// Sends `ok:` with the peer's key. For the requestor, that chooses the connection.
    fn accept(&mut self, on: LinkId) {
        let Some(id) = self.links.get(&on).and_then(Link::session) else { return };
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(key) = session.theirs().cloned() else { return };
        let is_last_word = session.standing() == Standing::Requestor;
        self.write(on, Command::Ok(key.as_bytes()));
        if is_last_word {
            self.commit(id, on);
        }
    }

    fn belongs(&mut self, on: LinkId, to: Shown) {
        let Some(Link { end: LinkEnd::Serving { shown, .. }, .. }) = self.links.get_mut(&on) else { return };
        let before = core::mem::replace(shown, to);
        if let (Shown::Tentative(session) | Shown::Parked(session), Shown::Nothing) = (before, to) {
            self.review(session);
        }
    }
}
