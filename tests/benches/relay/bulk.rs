//! Moves bytes through pairs as fast as the relay accepts and returns them, in one thread.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::Failure;
use crate::end::End;
use crate::pair::Pair;
use crate::process::PATIENCE;

/// Maximum bytes per send or receive.
const PIECE_BYTES: usize = 256 * 1024;

/// What TLS 1.3 adds to a record's content: its type and the tag.
const RECORD_EXTRA: u64 = 17;

/// One end of a pair under load.
pub(crate) struct Flow {
    end: End,
    out: Outgoing,
    /// Content that is still to be received.
    missing: u64,
    records: Option<Records>,
    readable: bool,
    writable: bool,
}

enum Outgoing {
    /// Sealed bytes to send, and how many were sent.
    Sealed(Vec<u8>, usize),
    /// Number of arbitrary bytes still to send.
    Clear(u64),
}

impl Flow {
    /// An end that sends `send` bytes and receives `receive`. What it sends is sealed here.
    fn new(mut end: End, send: u64, receive: u64) -> Result<Self, Failure> {
        end.socket.set_nonblocking(true)?;
        let out = if end.tls.is_some() && send > 0 {
            // Sealing all at once would need twice the memory.
            let piece = vec![0x5a; 1024 * 1024];
            let mut wire = end.seal(&piece, usize::try_from(send)? / piece.len())?;
            let rest = usize::try_from(send)? % piece.len();
            wire.extend(end.seal(&piece[..rest], usize::from(rest > 0))?);
            Outgoing::Sealed(wire, 0)
        } else {
            Outgoing::Clear(send)
        };
        let records = end.tls.is_some().then(Records::default);
        Ok(Self { end, out, missing: receive, records, readable: true, writable: true })
    }

    /// Both ends of a pair, with `down` bytes from the hidden server to the client, and `up` the other way.
    pub(crate) fn pair(pair: Pair, down: u64, up: u64) -> Result<[Self; 2], Failure> {
        Ok([Self::new(pair.hidden, down, up)?, Self::new(pair.client, up, down)?])
    }

    fn is_done(&self) -> bool {
        self.missing == 0 && self.out.is_empty()
    }

    /// Sends one piece and receives one. Returns whether there may be more to do at once.
    fn turn(&mut self, scratch: &mut [u8]) -> Result<bool, Failure> {
        if self.writable && !self.out.is_empty() {
            match self.end.socket.write(self.out.next(scratch)) {
                Ok(bytes) => self.out.sent(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error.into()),
            }
        }
        if self.readable && self.missing > 0 {
            match self.end.socket.read(scratch) {
                Ok(0) => return Err(format!("an end, {} bytes too early", self.missing).into()),
                Ok(bytes) => self.received(&scratch[..bytes])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.readable && self.missing > 0 || self.writable && !self.out.is_empty())
    }

    fn received(&mut self, wire: &[u8]) -> Result<(), Failure> {
        let content = match &mut self.records {
            Some(records) => records.content(wire)?,
            None => wire.len() as u64,
        };
        self.missing = self.missing.checked_sub(content).ok_or("more came than was sent")?;
        Ok(())
    }
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        match self {
            Self::Sealed(wire, sent) => *sent == wire.len(),
            Self::Clear(left) => *left == 0,
        }
    }

    fn next<'a>(&'a self, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Sealed(wire, sent) => &wire[*sent..wire.len().min(sent + PIECE_BYTES)],
            Self::Clear(left) => &scratch[..usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE_BYTES)],
        }
    }

    fn sent(&mut self, bytes: usize) {
        match self {
            Self::Sealed(_, sent) => *sent += bytes,
            Self::Clear(left) => *left -= bytes as u64,
        }
    }
}

/// Counts the content of TLS records by their headers.
#[derive(Default)]
struct Records {
    header: [u8; 5],
    have: usize,
    /// Remaining bytes of the current record.
    left: usize,
}

impl Records {
    fn content(&mut self, mut wire: &[u8]) -> Result<u64, Failure> {
        let mut content = 0;
        while !wire.is_empty() {
            if self.left > 0 {
                let bytes = self.left.min(wire.len());
                self.left -= bytes;
                wire = &wire[bytes..];
                continue;
            }
            let bytes = (self.header.len() - self.have).min(wire.len());
            self.header[self.have..self.have + bytes].copy_from_slice(&wire[..bytes]);
            self.have += bytes;
            wire = &wire[bytes..];
            if self.have == self.header.len() {
                let [kind, _, _, high, low] = self.header;
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.have = 0;
                if kind != 23 {
                    return Err(format!("a TLS record of type {kind}").into());
                }
                let length = self.left as u64;
                content += length.checked_sub(RECORD_EXTRA).ok_or("a TLS record that is too short")?;
            }
        }
        Ok(content)
    }
}

/// Additional work of the load while it moves bytes.
pub(crate) trait Aside {
    /// The descriptors that it waits for.
    fn descriptors(&self) -> Vec<RawFd>;

    /// The maximum time between two calls.
    fn pause(&self) -> Duration;

    /// Called between any two turns of the flows.
    fn turn(&mut self) -> Result<(), Failure>;
}

/// No additional work.
pub(crate) struct Nothing;

impl Aside for Nothing {
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn pause(&self) -> Duration {
        PATIENCE
    }

    fn turn(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Moves all bytes.
pub(crate) fn run(flows: &mut [Flow], aside: &mut impl Aside) -> Result<(), Failure> {
    let mut poll = register(flows, aside)?;
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0x5a; PIECE_BYTES];
    let mut last_event = Instant::now();
    loop {
        let mut busy = false;
        for flow in flows.iter_mut() {
            busy |= flow.turn(&mut scratch)?;
            aside.turn()?;
        }
        if flows.iter().all(Flow::is_done) {
            return Ok(());
        }
        poll.poll(&mut events, Some(if busy { Duration::ZERO } else { aside.pause() }))?;
        if busy || !events.is_empty() {
            last_event = Instant::now();
        } else if last_event.elapsed() >= PATIENCE {
            let missing: u64 = flows.iter().map(|flow| flow.missing).sum();
            return Err(format!("nothing moves any more, and {missing} bytes are still to come").into());
        }
        for event in &events {
            // Tokens after those of the flows belong to the additional work.
            if let Some(flow) = flows.get_mut(event.token().0) {
                flow.readable |= event.is_readable() || event.is_read_closed();
                flow.writable |= event.is_writable();
            }
        }
    }
}

fn register(flows: &[Flow], aside: &impl Aside) -> Result<Poll, Failure> {
    let poll = Poll::new()?;
    for (at, flow) in flows.iter().enumerate() {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut SourceFd(&flow.end.as_raw_fd()), Token(at), both)?;
    }
    for descriptor in aside.descriptors() {
        poll.registry().register(&mut SourceFd(&descriptor), Token(flows.len()), Interest::READABLE)?;
    }
    Ok(poll)
}
