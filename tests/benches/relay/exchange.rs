//! Round trips of small messages through a warm pair.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::args::Args;
use crate::end::End;
use crate::field::Field;
use crate::pair::Pair;
use crate::peers::Transport;
use crate::process::PATIENCE;
use crate::report::{BUSY, Quantity, Report, quantile};
use crate::{Failure, Scenario};

/// A message, there and back.
const MESSAGE: [u8; 64] = [0x5a; 64];
/// Time between two messages of a paced conversation.
pub(crate) const PERIOD: Duration = Duration::from_millis(1);
/// Round trips of one measurement.
const COUNT: usize = 2_000;
/// Pairs that exchange messages without pause.
const PAIRS: usize = 16;

pub(crate) const P50: Quantity = Quantity { name: "round trip p50", unit: "µs" };
pub(crate) const P99: Quantity = Quantity { name: "round trip p99", unit: "µs" };
const REQUESTS: Quantity = Quantity { name: "requests", unit: "1/s" };
const REQUESTS_CPU: Quantity = Quantity { name: "cpu of a request", unit: "µs" };

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "round-trips".to_owned(), run: Box::new(round_trips) },
        Scenario { name: "requests".to_owned(), run: Box::new(requests) },
    ]
}

/// A client that sends a message and a hidden server that returns it.
pub(crate) struct Exchange {
    client: End,
    hidden: End,
    asked: Option<Instant>,
    /// Bytes of the current message.
    at_hidden: usize,
    at_client: usize,
    /// The time of each message that came back.
    pub(crate) times: Vec<Duration>,
}

impl Exchange {
    pub(crate) fn new(pair: Pair) -> Result<Self, Failure> {
        let Pair { client, hidden } = pair;
        client.socket.set_nonblocking(true)?;
        hidden.socket.set_nonblocking(true)?;
        Ok(Self { client, hidden, asked: None, at_hidden: 0, at_client: 0, times: Vec::new() })
    }

    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.client.as_raw_fd(), self.hidden.as_raw_fd()]
    }

    /// Sends a message; only while none is in transit. It is so small that there is always room.
    fn ask(&mut self) -> Result<(), Failure> {
        self.asked = Some(Instant::now());
        (self.at_hidden, self.at_client) = (0, 0);
        Ok(self.client.write_all(&MESSAGE)?)
    }

    /// Sends a message if none is in transit and the last is old enough.
    pub(crate) fn ask_at_ease(&mut self, last: &mut Instant) -> Result<(), Failure> {
        if self.asked.is_none() && last.elapsed() >= PERIOD {
            *last = Instant::now();
            self.ask()?;
        }
        Ok(())
    }

    /// Makes progress: returns the message, and receives it. Returns whether a message came back.
    pub(crate) fn turn(&mut self) -> Result<bool, Failure> {
        let Some(asked) = self.asked else {
            return Ok(false);
        };
        if self.at_hidden < MESSAGE.len() {
            self.at_hidden += receive(&mut self.hidden)?;
            if self.at_hidden == MESSAGE.len() {
                self.hidden.write_all(&MESSAGE)?;
            }
        }
        self.at_client += receive(&mut self.client)?;
        if self.at_client < MESSAGE.len() {
            return Ok(false);
        }
        self.times.push(asked.elapsed());
        self.asked = None;
        Ok(true)
    }

    /// Reports the quantiles of all times, in microseconds.
    pub(crate) fn note(&self, report: &mut Report, relay: &'static str) {
        let micros: Vec<f64> = self.times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        report.sample(relay, P50, quantile(micros.clone(), 0.5));
        report.sample(relay, P99, quantile(micros, 0.99));
    }
}

/// Receives what is there, up to a message.
fn receive(end: &mut End) -> Result<usize, Failure> {
    let mut message = MESSAGE;
    match end.read(&mut message) {
        Ok(0) => Err("an end in the middle of a conversation".into()),
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// One paced conversation.
fn round_trips(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let (relays, ground) = field.cast(|kind| kind.carries(Transport::TLS_TLS))?;
    for _ in 0..args.rounds {
        for relay in &relays {
            let mut exchanges = [Exchange::new(Pair::open(relay, ground, Transport::TLS_TLS)?)?];
            let mut table = Table::new(&exchanges)?;
            let mut next = Instant::now();
            while exchanges[0].times.len() < args.load(COUNT) {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                next = Instant::now() + PERIOD;
                exchanges[0].ask()?;
                while table.turn(&mut exchanges, |_| Ok(()))? == 0 {}
            }
            exchanges[0].note(report, relay.name());
        }
    }
    Ok(())
}

/// Many conversations without pauses.
fn requests(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let (relays, ground) = field.cast(|kind| kind.carries(Transport::TLS_TLS))?;
    let count = 10 * args.load(COUNT);
    for _ in 0..args.rounds {
        for relay in &relays {
            let mut exchanges = (0..PAIRS)
                .map(|_| Exchange::new(Pair::open(relay, ground, Transport::TLS_TLS)?))
                .collect::<Result<Vec<_>, _>>()?;
            relay.process.settle()?;
            let (cpu, clock) = (relay.process.cpu()?, Instant::now());
            let mut table = Table::new(&exchanges)?;
            exchanges.iter_mut().try_for_each(Exchange::ask)?;
            let mut done = 0;
            while done < count {
                done += table.turn(&mut exchanges, Exchange::ask)?;
            }
            let wall = clock.elapsed().as_secs_f64();
            let cpu = (relay.process.cpu()? - cpu).as_secs_f64();
            report.sample(relay.name(), REQUESTS, done as f64 / wall);
            report.sample(relay.name(), REQUESTS_CPU, cpu * 1e6 / done as f64);
            report.sample(relay.name(), BUSY, cpu / wall * 100.0);
        }
    }
    Ok(())
}

/// The poll of all conversations.
struct Table {
    poll: Poll,
    events: Events,
}

impl Table {
    fn new(exchanges: &[Exchange]) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        for (at, exchange) in exchanges.iter().enumerate() {
            for descriptor in exchange.descriptors() {
                poll.registry().register(&mut SourceFd(&descriptor), Token(at), Interest::READABLE)?;
            }
        }
        Ok(Self { poll, events: Events::with_capacity(64) })
    }

    /// Waits for bytes and receives them. Calls `then` for each conversation whose message came back, and returns their
    /// number.
    fn turn(
        &mut self,
        exchanges: &mut [Exchange],
        mut then: impl FnMut(&mut Exchange) -> Result<(), Failure>,
    ) -> Result<usize, Failure> {
        self.poll.poll(&mut self.events, Some(PATIENCE))?;
        if self.events.is_empty() {
            return Err("nobody says anything any more".into());
        }
        let mut done = 0;
        for event in &self.events {
            let exchange = &mut exchanges[event.token().0];
            if exchange.turn()? {
                done += 1;
                then(exchange)?;
            }
        }
        Ok(done)
    }
}
