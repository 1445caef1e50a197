//! The take-over of this relay by a new process, and of another one by this process.
//!
//! The messages and their order are described in [`crate::take_over`]. In the process that is taken over from, everything
//! runs on the event loop, and each step has a deadline. If a step fails, the relay continues as before.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use miniserde::json;
use rendezvous_core::engine::{Engine, Quiet, TakeOver as EngineStep};
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::trace::Recorder;

use super::Relay;
use super::upgrade::Upgrade;
use crate::clock;
use crate::command::acme::{self, Host};
use crate::daemon::{Loop, Successor};
use crate::linux::descriptors::OwnedFd;
use crate::logging::Escaped;
use crate::net::mio::MioNet;
use crate::socket_file::UnixStream;
use crate::state::State;
use crate::status::document::OlderProcess;
use crate::status::kick;
use crate::take_over::{
    Channel, DESCRIPTORS_MAX, Label, Links, MOVED_MAX, Message, Place, RECORDS_MAX, Received, Role,
    TOKENS_MAX,
};
use crate::usage::Usage;

/// How long the new process may take to load everything.
const LOADING: Span = Span::from_secs(60);
/// How long the new process may take for each later step.
const STEP_TIMEOUT: Span = Span::from_secs(10);
/// The interval of steps that wait for no edge.
const STEP: Span = Span::from_millis(10);

/// The event loop of a relay.
type RelayLoop = Loop<Host<Recorder<Engine>>>;

/// The take-overs of a relay, at both ends.
pub(super) struct TakeOver {
    links: Links,
    stage: Stage,
    /// The processes that this one has taken over from.
    older: Vec<Older>,
    upgrade: Option<Upgrade>,
    /// The labels of the listeners, in their order.
    labels: Vec<Label>,
    /// The socket in the state folder.
    path: PathBuf,
    /// How long connections may continue after this process was taken over from; `None`: until they end.
    drain_max: Option<Span>,
}

struct Older {
    place: Place,
    report: OlderProcess,
}

/// Which process serves.
#[derive(Debug)]
enum Stage {
    /// This one.
    Serving,
    /// This one, and another one is taking over.
    HandingOver { to: Place, step: Step },
    /// Another one.
    Retired {
        /// The process that has taken over.
        pid: u32,
        /// The connection to it, or to the process that has taken over from that one.
        link: Option<Place>,
    },
}

/// What happens next.
#[derive(Debug)]
enum Step {
    /// The other process loads its files, until this time.
    Loading { until: Time },
    /// No connection is accepted since this time, until no client is held and no request is on its way.
    Quieting { attempt: u32, since: Time },
    /// Connections are accepted again since this time, because clients were held in this attempt.
    Resuming { attempt: u32, since: Time },
    /// No registration is accepted. A write of the traffic may be in progress, until this time.
    Finishing { until: Time },
    /// Tokens and records are sent, until this time.
    Sending { token: Option<usize>, records: VecDeque<String>, until: Time },
    /// Everything was sent. The other process decides, until this time.
    Committed { until: Time },
}

impl TakeOver {
    pub(super) fn new(state: &State, labels: Vec<Label>, drain_max: Option<Span>) -> Self {
        Self {
            links: Links::default(),
            stage: Stage::Serving,
            older: Vec::new(),
            upgrade: None,
            labels,
            path: state.file(crate::take_over::NAME),
            drain_max,
        }
    }

    /// Binds the socket for processes that take over.
    pub(super) fn listen(&mut self, net: &MioNet) {
        if let Err(error) = self.links.listen(net, &self.path) {
            let reason = crate::failure::reason(&error);
            log::warn!("event=no-take-over-socket reason={}", Escaped(&reason));
        }
    }

    /// This process has taken over from the one at the other end of this channel, and has its own sockets.
    pub(super) fn settled(&mut self, net: &MioNet, channel: Channel<UnixStream>, now: Time) {
        match self.links.add(net, channel, now) {
            Ok(place) => {
                self.links.send(place, &Message::Settled, Vec::new());
                self.add_older(place);
            }
            Err(error) => log::warn!("event=older-process-lost reason={}", Escaped(&error.to_string())),
        }
    }

    /// Starts a new process that takes over from this one.
    pub(super) fn start_upgrade(&mut self, net: &MioNet) {
        if self.upgrade.is_some() || !matches!(self.stage, Stage::Serving) {
            log::warn!("event=take-over-ignored reason=\"another one is in progress\"");
            return;
        }
        match Upgrade::start(net.waker()) {
            Ok(upgrade) => self.upgrade = Some(upgrade),
            Err(why) => log::error!("event=take-over-failed reason={}", Escaped(&why)),
        }
    }

    /// Whether a process that this one has started is taking over.
    pub(super) const fn is_upgrading(&self) -> bool {
        self.upgrade.is_some()
    }

    pub(super) fn successor(&self) -> Option<Successor> {
        match self.stage {
            Stage::Retired { pid, .. } => Some(Successor { pid, drain_max: self.drain_max }),
            Stage::Serving | Stage::HandingOver { .. } => None,
        }
    }

    /// The processes that this one has taken over from.
    pub(super) fn older(&self) -> Vec<OlderProcess> {
        self.older.iter().map(|older| older.report.clone()).collect()
    }

    /// Tells the older processes to end connections. Returns how many there are.
    pub(super) fn kick_older(&mut self, what: &kick::Request) -> u32 {
        // The connections of other processes have other numbers.
        if what.conn.is_some() {
            return 0;
        }
        for older in &self.older {
            self.links.send(older.place, &Message::Kick(json::to_string(what)), Vec::new());
        }
        u32::try_from(self.older.len()).unwrap_or(u32::MAX)
    }

    /// This process shuts down: no other one can take over.
    pub(super) fn stop(&mut self) -> Option<crate::socket_file::SocketFile> {
        self.links.take_file()
    }

    pub(super) fn due(&self, now: Time) -> Option<Time> {
        let step = match &self.stage {
            Stage::HandingOver { step, .. } => Some(match step {
                Step::Loading { until } | Step::Committed { until } => *until,
                Step::Quieting { .. }
                | Step::Resuming { .. }
                | Step::Finishing { .. }
                | Step::Sending { .. } => now + STEP,
            }),
            Stage::Serving | Stage::Retired { .. } => None,
        };
        [step, self.links.due(now)].into_iter().flatten().min()
    }

    /// Does the work of one turn.
    pub(super) fn work(&mut self, relay: &mut Relay, event_loop: &mut RelayLoop) {
        let now = event_loop.now();
        if let Some(why) = self.upgrade.as_ref().and_then(Upgrade::failure) {
            self.upgrade = None;
            if !matches!(self.stage, Stage::Retired { .. }) {
                log::error!("event=take-over-failed reason={}", Escaped(&why));
            }
        }
        self.links.work(event_loop.net(), now.mono);
        for (place, received) in self.links.receive(event_loop.net(), now.mono) {
            match received {
                Received::Message(message) => self.on_message(place, message, relay, event_loop, now),
                Received::Ended(why) => self.on_end(place, &why, relay, event_loop),
            }
        }
        self.step(relay, event_loop, now);
    }

    fn on_message(
        &mut self,
        place: Place,
        message: Message,
        relay: &mut Relay,
        event_loop: &mut RelayLoop,
        now: Now,
    ) {
        let candidate = matches!(self.stage, Stage::HandingOver { to, .. } if to == place);
        match message {
            Message::Hello { program } => self.begin(place, &program, relay, event_loop, now),
            Message::Ready if candidate => self.on_ready(event_loop, now),
            Message::Taken if candidate => self.retire(place, relay, event_loop),
            Message::Settled => self.on_settled(place, relay, event_loop),
            Message::Older => self.add_older(place),
            Message::Report { started, connections, pairs } => {
                if let Some(older) = self.older.iter_mut().find(|older| older.place == place) {
                    older.report = OlderProcess { started, connections, pairs, ..older.report };
                }
            }
            Message::Traffic(moved) if self.older.iter().any(|older| older.place == place) => {
                let wall = clock::wall();
                for (id, amount) in moved {
                    relay.usage.add(id, amount, wall);
                }
            }
            Message::Kick(text) if self.is_link(place) => {
                let request = json::from_str::<kick::Request>(&text).ok();
                if let Some(what) = request.and_then(|request| request.resolve(&relay.names)) {
                    let ended = event_loop.call(|host, now| acme::inner_mut(host).handle_kick(&what, now));
                    log::info!("event=kicked count={ended}");
                }
            }
            Message::Refused { why } => {
                self.links.close(event_loop.net(), place);
                self.on_end(place, &why, relay, event_loop);
            }
            _ => {
                let why = "an unexpected message";
                self.links.refuse(place, why);
                self.on_end(place, why, relay, event_loop);
            }
        }
    }

    fn is_link(&self, place: Place) -> bool {
        matches!(self.stage, Stage::Retired { link: Some(link), .. } if link == place)
    }

    fn add_older(&mut self, place: Place) {
        let pid = self.links.pid(place);
        log::info!("event=older-process pid={pid}");
        self.older.push(Older { place, report: OlderProcess { pid, ..OlderProcess::default() } });
    }

    /// A connection has ended.
    fn on_end(&mut self, place: Place, why: &str, relay: &mut Relay, event_loop: &mut RelayLoop) {
        let mut is_known = self.is_link(place);
        if let Some(at) = self.older.iter().position(|older| older.place == place) {
            is_known = true;
            let older = self.older.remove(at);
            log::info!("event=older-process-ended pid={}", older.report.pid);
        }
        if self.is_link(place) {
            self.close_sockets(relay, event_loop);
            if let Stage::Retired { link, .. } = &mut self.stage {
                *link = None;
            }
        }
        if matches!(self.stage, Stage::HandingOver { to, .. } if to == place) {
            self.cancel(why, relay, event_loop);
        } else if !is_known {
            log::warn!("event=take-over-refused reason={}", Escaped(why));
        }
    }

    // ---- this process is taken over from ----

    /// A process wants to take over: it gets the sockets.
    fn begin(&mut self, place: Place, program: &str, relay: &Relay, event_loop: &mut RelayLoop, now: Now) {
        if acme::inner(event_loop.machine()).machine().is_draining() {
            return self.links.refuse(place, "the relay is shutting down or was taken over: try again");
        }
        if !matches!(self.stage, Stage::Serving) {
            return self.links.refuse(place, "another process is taking over: try again");
        }
        let pid = self.links.pid(place);
        match self.descriptors(relay, event_loop.net()) {
            Err(error) => {
                let reason = crate::failure::reason(&error);
                log::warn!("event=take-over-failed pid={pid} reason={}", Escaped(&reason));
                self.links.refuse(place, &reason);
            }
            Ok(all) => {
                log::info!("event=take-over-begins pid={pid} version={}", Escaped(program));
                self.send_sockets(place, all);
                let step = Step::Loading { until: now.mono + LOADING };
                self.stage = Stage::HandingOver { to: place, step };
            }
        }
    }

    /// The descriptors to hand over, with their labels.
    fn descriptors(&self, relay: &Relay, net: &MioNet) -> std::io::Result<Vec<(Label, OwnedFd)>> {
        let own = net.listener_descriptors()?;
        debug_assert_eq!(own.len(), self.labels.len(), "one label for each listener");
        let mut all: Vec<_> = self.labels.iter().cloned().zip(own).collect();
        if let Some(admin) = &relay.admin {
            let label = |on: std::net::SocketAddr| Label {
                role: Role::Metrics,
                is_inherited: false,
                address: on.to_string(),
            };
            all.extend(admin.tcp_listeners()?.into_iter().map(|(on, descriptor)| (label(on), descriptor)));
        }
        if let Some(lock) = relay.acme.lock() {
            let label = Label { role: Role::AcmeLock, is_inherited: false, address: String::new() };
            all.push((label, lock));
        }
        Ok(all)
    }

    fn send_sockets(&mut self, place: Place, mut all: Vec<(Label, OwnedFd)>) {
        loop {
            let rest = all.split_off(all.len().min(DESCRIPTORS_MAX));
            let (labels, descriptors) = all.into_iter().unzip();
            let is_last = rest.is_empty();
            self.links.send(place, &Message::Sockets { labels, is_last }, descriptors);
            if is_last {
                return;
            }
            all = rest;
        }
    }

    fn on_ready(&mut self, event_loop: &mut RelayLoop, now: Now) {
        if let Stage::HandingOver { step: step @ Step::Loading { .. }, .. } = &mut self.stage {
            event_loop.pause_accepting(true);
            *step = Step::Quieting { attempt: 1, since: now.mono };
        }
    }

    /// Continues a take-over whose next step depends on the time.
    fn step(&mut self, relay: &mut Relay, event_loop: &mut RelayLoop, now: Now) {
        let Stage::HandingOver { to, step } = &mut self.stage else { return };
        let to = *to;
        if acme::inner(event_loop.machine()).machine().is_draining() {
            return self.give_up(to, "the relay is shutting down", relay, event_loop);
        }
        match step {
            Step::Loading { until } if *until <= now.mono => {
                self.give_up(to, "the new process was not ready in time", relay, event_loop);
            }
            Step::Loading { .. } => {}
            Step::Quieting { attempt, since } => {
                let paused = now.mono.since(*since);
                match acme::inner(event_loop.machine()).machine().quiet(paused, *attempt) {
                    Quiet::Wait => {}
                    Quiet::Freeze => {
                        event_loop.call(|host, now| {
                            acme::inner_mut(host).handle_take_over(EngineStep::Freeze, now)
                        });
                        *step = Step::Finishing { until: now.mono + STEP_TIMEOUT };
                        self.step(relay, event_loop, now);
                    }
                    Quiet::Resume => {
                        event_loop.pause_accepting(false);
                        *step = Step::Resuming { attempt: *attempt, since: now.mono };
                    }
                }
            }
            Step::Resuming { attempt, since } => {
                let resumed = now.mono.since(*since);
                if acme::inner(event_loop.machine()).machine().may_quiet(resumed, *attempt) {
                    event_loop.pause_accepting(true);
                    *step = Step::Quieting { attempt: *attempt + 1, since: now.mono };
                }
            }
            Step::Finishing { until } => {
                let until = *until;
                relay.keep_usage(event_loop);
                match relay.usage.hand_over() {
                    Some(text) => {
                        *step = Step::Sending {
                            token: Some(0),
                            records: pieces(&text),
                            until: now.mono + STEP_TIMEOUT,
                        };
                        self.step(relay, event_loop, now);
                    }
                    None if until <= now.mono => {
                        self.give_up(to, "the traffic could not be written in time", relay, event_loop);
                    }
                    None => {}
                }
            }
            Step::Sending { token, records, until } => {
                let until = *until;
                while !self.links.has_unsent(to) {
                    if let Some(from) = *token {
                        let engine = acme::inner(event_loop.machine()).machine();
                        let (tokens, next) = engine.used_tokens(from, TOKENS_MAX, now);
                        *token = next;
                        self.links.send(to, &Message::Tokens(tokens), Vec::new());
                    } else if let Some(lines) = records.pop_front() {
                        self.links.send(to, &Message::Records(lines), Vec::new());
                    } else {
                        self.links.send(to, &Message::Commit, Vec::new());
                        *step = Step::Committed { until: now.mono + STEP_TIMEOUT };
                        return;
                    }
                }
                if until <= now.mono {
                    self.give_up(to, "the new process does not receive", relay, event_loop);
                }
            }
            Step::Committed { until } if *until <= now.mono => {
                if self.links.close_unless_received(event_loop.net(), to, &Message::Taken) {
                    self.retire(to, relay, event_loop);
                } else {
                    self.cancel("the new process did not take over in time", relay, event_loop);
                }
            }
            Step::Committed { .. } => {}
        }
    }

    fn give_up(&mut self, to: Place, why: &str, relay: &mut Relay, event_loop: &mut RelayLoop) {
        self.links.refuse(to, why);
        self.cancel(why, relay, event_loop);
    }

    /// The take-over failed: this process continues as before.
    fn cancel(&mut self, why: &str, relay: &mut Relay, event_loop: &mut RelayLoop) {
        log::warn!("event=take-over-failed reason={}", Escaped(why));
        self.stage = Stage::Serving;
        event_loop.call(|host, now| acme::inner_mut(host).handle_take_over(EngineStep::Cancel, now));
        event_loop.pause_accepting(false);
        relay.usage.resume();
    }

    /// The other process serves from now on.
    fn retire(&mut self, place: Place, relay: &mut Relay, event_loop: &mut RelayLoop) {
        let Stage::HandingOver { step: Step::Committed { .. }, .. } = self.stage else {
            self.links.refuse(place, "an unexpected message");
            return self.cancel("an unexpected message", relay, event_loop);
        };
        let pid = self.links.pid(place);
        log::info!("event=taken-over pid={pid}");
        self.stage = Stage::Retired { pid, link: Some(place) };
        self.upgrade = None;
        // Before they are closed, they are removed from the poll: the other process keeps the sockets alive.
        event_loop.stop_accepting();
        if let Some(admin) = &mut relay.admin {
            admin.close_tcp_listeners(event_loop.net());
        }
        relay.acme.retire(event_loop);
        relay.usage.retire();
        event_loop.call(|host, now| acme::inner_mut(host).handle_take_over(EngineStep::Retire, now));
        // They connect again, to the other process.
        for older in std::mem::take(&mut self.older) {
            self.links.close(event_loop.net(), older.place);
        }
        self.report(relay, event_loop);
    }

    /// The other process has the sockets that commands connect to.
    fn on_settled(&mut self, place: Place, relay: &mut Relay, event_loop: &mut RelayLoop) {
        if self.is_link(place) {
            self.close_sockets(relay, event_loop);
        }
    }

    fn close_sockets(&mut self, relay: &mut Relay, event_loop: &mut RelayLoop) {
        event_loop.net().close_status();
        let take_over = self.links.stop_listening(event_loop.net());
        // Only those that are still of this process are removed.
        let files = [relay.socket_file.take(), take_over];
        for file in files.into_iter().flatten() {
            relay.removals.push(file.remove_in_background());
        }
        if let Some(admin) = &mut relay.admin {
            admin.close_listeners(event_loop.net());
        }
    }

    /// Once a second, if another process has taken over: tells it the state of this one.
    pub(super) fn tick(&mut self, relay: &mut Relay, event_loop: &mut RelayLoop) {
        self.reconnect(event_loop);
        self.report(relay, event_loop);
    }

    /// If another process has taken over and is gone, connects to the one that has taken over from that one, if there is
    /// one.
    fn reconnect(&mut self, event_loop: &mut RelayLoop) {
        let Stage::Retired { link: link @ None, .. } = &mut self.stage else { return };
        let now = event_loop.now().mono;
        if let Ok(place) = self.links.connect(event_loop.net(), &self.path, now) {
            *link = Some(place);
            self.links.send(place, &Message::Older, Vec::new());
        }
    }

    fn report(&mut self, relay: &mut Relay, event_loop: &RelayLoop) {
        let Stage::Retired { link: Some(link), .. } = self.stage else { return };
        if self.links.has_unsent(link) {
            return;
        }
        let engine = acme::inner(event_loop.machine()).machine();
        debug_assert!(engine.is_draining(), "the other process serves");
        let report = Message::Report {
            started: relay.started_wall,
            connections: engine.connections() as u64,
            pairs: engine.pairs() as u64,
        };
        self.links.send(link, &report, Vec::new());
        self.tell_traffic(link, relay);
    }

    fn tell_traffic(&mut self, link: Place, relay: &mut Relay) {
        let untold = relay.usage.take_untold();
        for part in untold.chunks(MOVED_MAX) {
            self.links.send(link, &Message::Traffic(part.to_vec()), Vec::new());
        }
    }

    /// The process ends: if another one has taken over, it is told the rest, or the rest is written.
    pub(super) fn finish(
        &mut self,
        relay: &mut Relay,
        event_loop: &mut RelayLoop,
        state: &State,
        timeout: Duration,
    ) {
        self.reconnect(event_loop);
        let Stage::Retired { link, .. } = self.stage else { return };
        match link {
            Some(link) => {
                self.tell_traffic(link, relay);
                self.links.finish(link, timeout);
            }
            None => {
                let untold = relay.usage.take_untold();
                if relay.usage.is_kept() && !untold.is_empty() {
                    Usage::write_untold(&untold, state, clock::wall());
                }
            }
        }
    }
}

/// Divides text into pieces of whole lines.
fn pieces(text: &str) -> VecDeque<String> {
    let mut pieces: VecDeque<String> = VecDeque::new();
    for line in text.split_inclusive('\n') {
        match pieces.back_mut() {
            Some(last) if last.len() + line.len() <= RECORDS_MAX => last.push_str(line),
            _ => pieces.push_back(line.to_owned()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_divided_at_lines() {
        let line = format!("{}\n", "x".repeat(99));
        let text = line.repeat(2_000);
        let pieces = pieces(&text);
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= RECORDS_MAX));
        assert!(pieces.iter().all(|piece| piece.ends_with('\n')));
        assert_eq!(pieces.into_iter().collect::<String>(), text);
    }
}
