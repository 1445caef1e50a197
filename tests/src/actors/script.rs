//! One connection's script: heads, then the bytes of a flow in each direction, at given speeds.

use std::fmt::Write as _;

use rendezvous_core::machine::End;
use rendezvous_core::time::{Span, Time};

use super::channel::{Channel, Received};
use crate::model::{ByteLedger, byte};
use crate::rng::Rng;
use crate::sim_net::{ProcessId, World};

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Half-closes after the last byte, and closes when the peer has ended too.
    HalfClose,
    /// Does nothing after the last byte, and closes when the peer has ended.
    AfterPeer,
    /// Closes right after the last byte.
    Close,
    /// Resets after the last byte.
    Reset,
    /// A NAT loses the connection after the last byte.
    Lost,
    /// With TLS, sends a FIN without close_notify after the last byte, and closes when the peer has ended too.
    Cut,
}

/// Speeds and ending of one side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Bytes after the head.
    pub bytes: u64,
    /// Maximum number of bytes per send.
    pub send_most: usize,
    /// Pause between sends.
    pub send_rest: Span,
    /// Maximum number of bytes per receive. 0: it never reads.
    pub read_most: usize,
    /// Pause between receives.
    pub read_rest: Span,
    /// How it ends.
    pub ending: Ending,
    /// Time after which it gives up.
    pub patience: Span,
}

impl Behaviour {
    /// Sends and reads everything at once, and ends cleanly.
    #[must_use]
    pub const fn plain(bytes: u64) -> Self {
        Self {
            bytes,
            send_most: 65_536,
            send_rest: Span::ZERO,
            read_most: 65_536,
            read_rest: Span::ZERO,
            ending: Ending::HalfClose,
            patience: Span::from_secs(120),
        }
    }

    /// Draws a behaviour with at most `room` bytes.
    pub fn draw(rng: &mut Rng, room: u64, endings: &[Ending]) -> Self {
        let slow = |rng: &mut Rng| match rng.below(6) {
            0 => (1 + rng.below(4), Span(rng.below(3_000))),
            1 => (1 + rng.length(1_000), Span(rng.below(100_000))),
            _ => (65_536, Span::ZERO),
        };
        let bytes = rng.length(room);
        let (mut send_most, send_rest) = slow(rng);
        let (mut read_most, read_rest) = slow(rng);
        // Single bytes, but in a bounded number of sends.
        send_most = send_most.max(bytes / 500);
        read_most = read_most.max(room / 500);
        let ending = usize::try_from(rng.below(endings.len() as u64)).unwrap_or(0);
        Self {
            bytes,
            send_most: usize::try_from(send_most).unwrap_or(1),
            send_rest,
            read_most: if rng.below(40) == 0 { 0 } else { usize::try_from(read_most).unwrap_or(1) },
            read_rest,
            ending: endings[ending],
            patience: Span::from_secs(rng.between(20, 150)),
        }
    }
}

/// What a step of a connection resulted in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing new.
    Quiet,
    /// A complete head.
    Head(String),
    /// The connection is closed.
    Ended,
}

/// The script of one connection.
pub struct Script {
    channel: Channel,
    /// Its speeds and ending.
    pub behaviour: Behaviour,
    /// Bytes to send before those of the flow.
    preamble: Vec<u8>,
    head: Vec<u8>,
    /// Received bytes that belong to no flow yet.
    unread: Vec<u8>,
    /// Bytes of a response body to skip.
    skip: usize,
    out: Option<(usize, u64)>,
    inward: Option<usize>,
    send_at: Time,
    read_at: Time,
    give_up: Time,
    /// How the peer's side ended.
    pub peer_end: Option<End>,
    ended: bool,
}

impl Script {
    /// Starts the script on a channel.
    #[must_use]
    pub fn new(channel: Channel, behaviour: Behaviour, now: Time) -> Self {
        Self {
            channel,
            behaviour,
            preamble: Vec::new(),
            head: Vec::new(),
            unread: Vec::new(),
            skip: 0,
            out: None,
            inward: None,
            send_at: now,
            read_at: now,
            give_up: now + behaviour.patience,
            peer_end: None,
            ended: false,
        }
    }

    /// Appends text that is sent before the flow.
    pub fn emit(&mut self, text: &[u8]) {
        self.preamble.extend_from_slice(text);
    }

    /// Sends the bytes of this flow after the preamble.
    pub fn send_flow(&mut self, flow: usize) {
        self.out = Some((flow, 0));
    }

    /// Treats the bytes after the last head as those of this flow.
    pub fn read_flow(&mut self, flow: usize, ledger: &mut ByteLedger) {
        self.inward = Some(flow);
        ledger.received(flow, &std::mem::take(&mut self.unread));
    }

    /// Skips this many bytes after the last head; then another head follows.
    pub fn skip(&mut self, bytes: usize) {
        self.skip = bytes;
    }

    /// Changes the behaviour and restarts the timeout.
    pub fn change(&mut self, behaviour: Behaviour, now: Time) {
        self.behaviour = behaviour;
        self.give_up = now + behaviour.patience;
    }

    /// The connection.
    #[must_use]
    pub const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether it is closed.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.channel.is_closed()
    }

    /// Resets it.
    pub fn abort(&mut self, world: &mut World) {
        self.channel.abort(world);
    }

    /// Makes as much progress as possible.
    pub fn go_on(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger) -> Progress {
        let step = self.step(who, world, ledger);
        let ignores_input = self.behaviour.read_most == 0 || self.peer_end.is_some();
        let is_gone = self.is_over() || world.is_lost(self.channel.ep());
        if let Some((flow, _)) = self.out.filter(|_| is_gone) {
            ledger.sender_left(flow);
        }
        if let Some(flow) = self.inward.filter(|_| is_gone || ignores_input) {
            ledger.receiver_left(flow);
        }
        step
    }

    fn step(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger) -> Progress {
        if self.is_over() {
            return Progress::Ended;
        }
        match world.connected(self.channel.ep()) {
            Ok(true) => {}
            Ok(false) if world.now() < self.give_up => {
                world.sleep_until(who, self.give_up);
                return Progress::Quiet;
            }
            Ok(false) | Err(_) => {
                self.channel.abort(world);
                return Progress::Ended;
            }
        }
        if world.now() >= self.give_up {
            self.channel.abort(world);
            return Progress::Ended;
        }
        let read = self.read(world, ledger);
        if let Progress::Head(_) = read {
            return read;
        }
        self.write(world, ledger);
        self.finish(world, ledger);
        if self.is_over() { Progress::Ended } else { self.sleep(who, world) }
    }

    fn sleep(&self, who: ProcessId, world: &mut World) -> Progress {
        let now = world.now();
        let next = [self.send_at, self.read_at, self.give_up].into_iter().filter(|at| *at > now).min();
        world.sleep_until(who, next.unwrap_or(self.give_up));
        Progress::Quiet
    }

    fn write(&mut self, world: &mut World, ledger: &mut ByteLedger) {
        while world.now() >= self.send_at && !self.ended {
            let most = self.behaviour.send_most.max(1);
            let sent = if self.preamble.is_empty() {
                let Some((flow, sent)) = &mut self.out else { break };
                let n = (self.behaviour.bytes - *sent).min(most as u64).min(16_384);
                if n == 0 {
                    break;
                }
                // Without room it sends one byte, so that the system reports room later.
                let n = if self.channel.is_tls() {
                    n
                } else {
                    n.min(world.room(self.channel.ep()).max(1) as u64)
                };
                let bytes: Vec<u8> = (*sent..*sent + n).map(|at| byte(*flow, at)).collect();
                let n = self.channel.send(world, &bytes);
                *sent += n as u64;
                ledger.sent(*flow, n as u64);
                if n > 0 {
                    world.event(|log| {
                        let _ = write!(log, "{:?} flow {flow} sent {sent}", self.channel.ep());
                    });
                }
                n
            } else {
                let n = self.preamble.len().min(most);
                let n = self.channel.send(world, &self.preamble[..n]);
                self.preamble.drain(..n);
                n
            };
            if sent == 0 {
                break;
            }
            if self.behaviour.send_rest > Span::ZERO {
                self.send_at = world.now() + self.behaviour.send_rest;
            }
        }
    }

    /// Ends the connection after everything has been sent.
    fn finish(&mut self, world: &mut World, ledger: &mut ByteLedger) {
        let all_said = self.preamble.is_empty()
            && self.out.is_some_and(|(_, sent)| sent == self.behaviour.bytes)
            && self.channel.flush(world);
        if all_said && !self.ended {
            match self.behaviour.ending {
                Ending::HalfClose => {
                    self.end_flow(ledger);
                    self.ended = self.channel.end_write(world, true);
                }
                Ending::Cut => self.ended = self.channel.end_write(world, !self.channel.is_tls()),
                Ending::Close => {
                    if world.readable(self.channel.ep()) == 0 {
                        self.end_flow(ledger);
                        if self.channel.end_write(world, true) {
                            self.channel.close(world);
                        }
                    } else {
                        self.channel.close(world);
                    }
                }
                Ending::Reset => self.channel.abort(world),
                Ending::Lost => {
                    world.lose(self.channel.ep());
                    self.ended = true;
                }
                Ending::AfterPeer => {}
            }
            if self.behaviour.ending == Ending::Cut && !self.channel.is_tls() {
                self.end_flow(ledger);
            }
        }
        if let Some(end) = self.peer_end
            && !self.is_over()
            && (self.ended || all_said || end != End::Clean || !world.can_send(self.channel.ep()))
        {
            if !self.ended && all_said {
                self.end_flow(ledger);
                if !self.channel.end_write(world, true) {
                    return;
                }
            }
            if all_said || self.ended { self.channel.close(world) } else { self.channel.abort(world) }
        }
    }

    fn end_flow(&mut self, ledger: &mut ByteLedger) {
        if let Some((flow, _)) = self.out {
            ledger.end(flow);
        }
    }

    fn read(&mut self, world: &mut World, ledger: &mut ByteLedger) -> Progress {
        let mut buffer = [0; 8_192];
        while world.now() >= self.read_at && self.behaviour.read_most > 0 {
            if self.take_head() {
                let head = std::mem::take(&mut self.head);
                return Progress::Head(String::from_utf8_lossy(&head).into_owned());
            }
            if self.peer_end.is_some() {
                break;
            }
            let most = self.behaviour.read_most.min(buffer.len());
            match self.channel.recv(world, &mut buffer[..most]) {
                Received::Nothing => break,
                Received::Bytes(n) => {
                    match self.inward {
                        Some(flow) => {
                            ledger.received(flow, &buffer[..n]);
                            let received = ledger.flows()[flow].received;
                            world.event(|log| {
                                let _ =
                                    write!(log, "{:?} flow {flow} received {received}", self.channel.ep());
                            });
                        }
                        None => self.unread.extend_from_slice(&buffer[..n]),
                    }
                    if self.behaviour.read_rest > Span::ZERO {
                        self.read_at = world.now() + self.behaviour.read_rest;
                    }
                }
                Received::End(end) => {
                    self.peer_end = Some(end);
                    if let (End::Clean, Some(flow)) = (end, self.inward) {
                        ledger.ended(flow);
                    }
                }
            }
        }
        Progress::Quiet
    }

    /// Takes a complete head from the received bytes. Returns whether there was one.
    fn take_head(&mut self) -> bool {
        let skipped = self.skip.min(self.unread.len());
        self.unread.drain(..skipped);
        self.skip -= skipped;
        let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
        let behind = self.unread.split_off(at + 4);
        self.head = std::mem::replace(&mut self.unread, behind);
        true
    }
}

/// The value of a field of a head.
#[must_use]
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
