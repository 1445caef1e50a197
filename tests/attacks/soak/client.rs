//! One connection of the load and its state.

use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::conn::Conn;
use crate::ground::Identity;
use crate::ledger::{ByteLedger, CLIENT, HIDDEN};
use crate::stream::Stream;

/// The longest accepted head.
const HEAD_MAX: usize = 4096;

/// A hidden server's answer.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: soak\r\n\r\n";

/// Bytes of one write.
const PART: usize = 16 << 10;

/// The state of a connection.
pub(crate) enum Role {
    /// A hidden server's, before its 200.
    Asking { answer: Vec<u8> },
    /// A hidden server's, until a client's first byte.
    Waiting,
    /// A hidden server's, in the client's head.
    Hearing { head: Vec<u8> },
    /// A client's, before its answer.
    Calling { traffic: Traffic, answer: Vec<u8> },
    /// A pair's.
    Moving(Traffic),
}

/// One side of a pair.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) pair: u64,
    side: usize,
    begun: Instant,
    sent: u64,
    received: u64,
    ended: bool,
    on_end: bool,
}

impl Traffic {
    pub(crate) fn new(pair: u64, side: usize) -> Self {
        let begun = Instant::now();
        Self { pair, side, begun, sent: 0, received: 0, ended: false, on_end: false }
    }
}

/// What happens to a connection after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    Closes,
    Resets,
}

/// A connection.
pub(crate) struct Client {
    pub(crate) conn: Conn,
    pub(crate) role: Role,
    /// The identity that it serves or requests; `None` for a connection from a real agent.
    pub(crate) identity: Option<usize>,
}

/// Shared by all connections.
pub(crate) struct Common {
    pub(crate) seed: u64,
    pub(crate) ledger: ByteLedger,
    pub(crate) identities: Vec<Identity>,
    /// Paced pairs are to end.
    pub(crate) stopping: bool,
}

impl Common {
    /// The head of a client's request, and what its hidden server gets of it.
    pub(crate) fn head(&self, pair: u64, with_authorization: bool) -> Option<String> {
        let plan = self.ledger.plan(pair)?;
        let method = if plan.at_once { "POST" } else { "GET" };
        let id = self.identities[plan.identity].id;
        let authorization = if with_authorization {
            format!(
                "Authorization: Digest username=\"{id}\", realm=\"rendezvous\", nonce=\"0\", uri=\"/\"\r\n"
            )
        } else {
            String::new()
        };
        // Another protocol follows: bytes after a plain request are not forwarded if they may be the next request.
        Some(format!(
            "{method} /{pair} HTTP/1.1\r\nhOST:  soak\r\n{authorization}Connection: Upgrade\r\nUpgrade: soak\r\n\
             X-Behind:\t1 \r\n\r\n"
        ))
    }
}

impl Client {
    /// Makes as much progress as possible: receives everything, sends everything for which there is room.
    pub(crate) fn turn(&mut self, common: &mut Common, scratch: &mut [u8]) -> Fate {
        if let Err(error) = self.conn.flush() {
            return self.cut_off(&error, common, scratch);
        }
        match self.listen(common, scratch) {
            Fate::Stays => {
                self.emit(common, scratch).unwrap_or_else(|error| self.cut_off(&error, common, scratch))
            }
            fate => fate,
        }
    }

    /// It cannot be written to any more. Bytes before that can still be read; an EOF after it does not count.
    fn cut_off(&mut self, error: &io::Error, common: &mut Common, scratch: &mut [u8]) -> Fate {
        while let Ok(bytes @ 1..) = self.conn.receive(scratch) {
            if let Err(why) = self.on_bytes(&scratch[..bytes], common) {
                common.ledger.fault(&why);
            }
        }
        self.broke(error, common)
    }

    /// Receives everything that is there.
    fn listen(&mut self, common: &mut Common, scratch: &mut [u8]) -> Fate {
        loop {
            match self.conn.receive(scratch) {
                Ok(0) => return self.on_end(common),
                Ok(bytes) => {
                    if let Err(why) = self.on_bytes(&scratch[..bytes], common) {
                        common.ledger.fault(&why);
                        return Fate::Resets;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Fate::Stays,
                Err(error) => return self.broke(&error, common),
            }
        }
    }

    /// Processes bytes. Unexpected ones are an error.
    fn on_bytes(&mut self, bytes: &[u8], common: &mut Common) -> Result<(), String> {
        match &mut self.role {
            Role::Asking { answer } => {
                answer.extend_from_slice(bytes);
                let Some(end) = end_of_head(answer)? else { return Ok(()) };
                if &answer[..end] != b"HTTP/1.1 200 OK\r\n\r\n" {
                    return Err(format!("a CONNECT was answered {:?}", String::from_utf8_lossy(answer)));
                }
                let behind = answer.split_off(end);
                self.role = Role::Waiting;
                if behind.is_empty() { Ok(()) } else { self.on_bytes(&behind, common) }
            }
            Role::Waiting => {
                self.role = Role::Hearing { head: Vec::new() };
                self.on_bytes(bytes, common)
            }
            Role::Hearing { head } => {
                head.extend_from_slice(bytes);
                let Some(end) = end_of_head(head)? else { return Ok(()) };
                let behind = head.split_off(end);
                let pair = pair_of(head)?;
                // The agent in between was killed, and the client noticed it first.
                if self.identity.is_none() && common.ledger.is_over(pair) {
                    self.role = Role::Moving(Traffic::new(pair, HIDDEN));
                    return Ok(());
                }
                let wanted = common.head(pair, false);
                if wanted.as_deref().map(str::as_bytes) != Some(&head[..]) {
                    return Err(format!("{:?} instead of {wanted:?}", String::from_utf8_lossy(head)));
                }
                let is_ours =
                    |plan: crate::ledger::Plan| self.identity.is_none_or(|own| own == plan.identity);
                if !common.ledger.plan(pair).is_some_and(is_ours) {
                    return Err(format!("pair {pair}: another hidden server got it"));
                }
                self.role = Role::Moving(Traffic::new(pair, HIDDEN));
                // The next write reports a failure.
                let _ = self.conn.emit(SWITCHING);
                if behind.is_empty() { Ok(()) } else { self.on_bytes(&behind, common) }
            }
            Role::Calling { traffic, answer } => {
                answer.extend_from_slice(bytes);
                let Some(end) = end_of_head(answer)? else { return Ok(()) };
                if &answer[..end] != SWITCHING {
                    let line = String::from_utf8_lossy(answer).lines().next().unwrap_or_default().to_owned();
                    common.ledger.refused(traffic.pair, &line);
                    // Its body is ignored: bytes of a finished pair are not checked.
                    self.role = Role::Moving(*traffic);
                    return Ok(());
                }
                let behind = answer.split_off(end);
                self.role = Role::Moving(*traffic);
                if behind.is_empty() { Ok(()) } else { self.on_bytes(&behind, common) }
            }
            Role::Moving(traffic) => traffic.on_bytes(bytes, common),
        }
    }

    /// The other side ended cleanly.
    fn on_end(&mut self, common: &mut Common) -> Fate {
        match &mut self.role {
            // A killed agent got only as far as the local service.
            Role::Hearing { .. } if self.identity.is_none() => Fate::Closes,
            Role::Asking { .. } | Role::Waiting | Role::Hearing { .. } => {
                common.ledger.fault("a waiting connection was ended");
                Fate::Closes
            }
            Role::Calling { traffic, .. } => {
                common.ledger.fault(&format!("pair {}: the client got no answer", traffic.pair));
                Fate::Closes
            }
            Role::Moving(traffic) if common.ledger.plan(traffic.pair).is_none() => Fate::Closes,
            Role::Moving(traffic) => {
                if !traffic.on_end {
                    traffic.on_end = true;
                    common.ledger.on_end(traffic.pair, traffic.side, traffic.received);
                }
                if traffic.ended { Fate::Closes } else { Fate::Stays }
            }
        }
    }

    /// The connection failed.
    fn broke(&mut self, error: &io::Error, common: &mut Common) -> Fate {
        match &self.role {
            Role::Hearing { .. } if self.identity.is_none() => {}
            Role::Asking { .. } | Role::Waiting | Role::Hearing { .. } => {
                common.ledger.fault(&format!("a waiting connection broke: {error}"));
            }
            Role::Calling { traffic, .. } => {
                common.ledger.fault(&format!("pair {}: the client got no answer: {error}", traffic.pair));
            }
            Role::Moving(traffic) if common.ledger.is_broken(traffic.pair) => {}
            Role::Moving(traffic) => {
                let Traffic { pair, side, sent, received, .. } = traffic;
                let at = format!("at side {side}, {sent} bytes sent, {received} received");
                common.ledger.fault(&format!("pair {pair}: broke: {error}, {at}"));
                common.ledger.breaks(*pair);
            }
        }
        Fate::Closes
    }

    /// Sends what there is room for.
    fn emit(&mut self, common: &mut Common, scratch: &mut [u8]) -> io::Result<Fate> {
        match &mut self.role {
            Role::Calling { traffic, .. }
                if common.ledger.plan(traffic.pair).is_some_and(|it| it.at_once) =>
            {
                traffic.emit(&mut self.conn, common, scratch, false)
            }
            Role::Moving(traffic) => traffic.emit(&mut self.conn, common, scratch, true),
            _ => Ok(Fate::Stays),
        }
    }

    /// Its connection is gone.
    pub(crate) fn over(&self, common: &mut Common) {
        if let Role::Calling { traffic, .. } | Role::Moving(traffic) = &self.role {
            common.ledger.over(traffic.pair, traffic.side);
        }
    }
}

impl Traffic {
    fn on_bytes(&mut self, bytes: &[u8], common: &mut Common) -> Result<(), String> {
        if common.ledger.plan(self.pair).is_none() {
            return Ok(());
        }
        let stream = Stream::new(common.seed, self.pair, 1 - self.side);
        if let Some(at) = stream.first_wrong(self.received, bytes) {
            return Err(format!("pair {}: a wrong byte at {at}, at side {}", self.pair, self.side));
        }
        self.received += bytes.len() as u64;
        common.ledger.bytes += bytes.len() as u64;
        Ok(())
    }

    fn emit(
        &mut self,
        conn: &mut Conn,
        common: &mut Common,
        scratch: &mut [u8],
        answered: bool,
    ) -> io::Result<Fate> {
        let Some(plan) = common.ledger.plan(self.pair) else {
            // It was refused: our own end lets the relay close.
            return self.end(conn, common);
        };
        if plan.pace.is_some() && common.stopping && !self.ended {
            common.ledger.stop_paced(self.pair, self.side, self.sent);
            return self.end(conn, common);
        }
        let stream = Stream::new(common.seed, self.pair, self.side);
        let breaks_at = plan.breaks.filter(|(side, _)| answered && *side == self.side).map(|(_, at)| at);
        let length = plan.lengths[self.side];
        let until = plan.pace.map_or(length, |pace| {
            length.min((self.begun.elapsed().as_millis() as u64).saturating_mul(pace) / 1000)
        });
        let until = until.min(breaks_at.unwrap_or(u64::MAX));
        while self.sent < until {
            let part = &mut scratch[..(until - self.sent).min(PART as u64) as usize];
            stream.fill(self.sent, part);
            let taken = conn.give(part)?;
            if taken == 0 {
                return Ok(Fate::Stays);
            }
            self.sent += taken as u64;
        }
        if breaks_at.is_some_and(|at| self.sent >= at) {
            common.ledger.breaks(self.pair);
            return Ok(Fate::Resets);
        }
        let is_done = self.ended || self.sent == length && answered;
        if is_done { self.end(conn, common) } else { Ok(Fate::Stays) }
    }

    fn end(&mut self, conn: &mut Conn, common: &mut Common) -> io::Result<Fate> {
        if !self.ended {
            self.ended = true;
            common.ledger.ended(self.pair, self.side, self.sent);
            conn.end()?;
        }
        // Closing now would lose what the socket has not accepted yet; the other side's end comes after ours.
        Ok(if self.on_end && conn.is_shut() { Fate::Closes } else { Fate::Stays })
    }
}

/// Where a head ends.
fn end_of_head(head: &[u8]) -> Result<Option<usize>, String> {
    match head.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(at) => Ok(Some(at + 4)),
        None if head.len() > HEAD_MAX => Err(format!("no end of {:?}", String::from_utf8_lossy(head))),
        None => Ok(None),
    }
}

/// The pair to which a head belongs.
fn pair_of(head: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(head);
    let pair = text.split([' ', '/']).nth(2).and_then(|number| number.parse().ok());
    pair.ok_or_else(|| format!("a hidden server got {text:?}"))
}

/// A client of a pair, after its head was sent.
pub(crate) fn client(mut conn: Conn, pair: u64, common: &Common) -> io::Result<Client> {
    let plan = common.ledger.plan(pair).ok_or(ErrorKind::NotFound)?;
    conn.emit(common.head(pair, true).ok_or(ErrorKind::NotFound)?.as_bytes())?;
    let role = Role::Calling { traffic: Traffic::new(pair, CLIENT), answer: Vec::new() };
    Ok(Client { conn, role, identity: Some(plan.identity) })
}
