//! Name look-ups and dials of `check`. They work as in the agent (Happy Eyeballs, RFC 8305), but with a thread for each
//! address.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rendezvous_core::dialer::{AddressBook, Race, Todo};
use rendezvous_core::relay_client::Deadlines;

use super::wire::{Deadline, WireError};
use crate::clock::Clock;
use crate::net::look_up::{Family, look_up};
use crate::net::names::loopback;

/// Resolves a name, on threads, because the system's resolver has no timeout. Returns the addresses and a text for the
/// step.
pub(super) fn resolve(
    host: &str,
    port: u16,
    deadline: Deadline,
) -> Result<(Vec<SocketAddr>, String), String> {
    let mut found: Vec<IpAddr> = loopback(host);
    let mut is_late = false;
    if found.is_empty() {
        let (sender, receiver) = mpsc::channel();
        for family in Family::ALL {
            let (host, sender) = (host.to_owned(), sender.clone());
            // The receiver is gone after the deadline.
            thread::spawn(move || drop(sender.send((family, look_up(&host, family)))));
        }
        drop(sender);
        let mut answers = Vec::new();
        while answers.len() < Family::ALL.len() {
            match receiver.recv_timeout(deadline.left()) {
                Ok(answer) => answers.push(answer),
                Err(_) => {
                    is_late = true;
                    break;
                }
            }
        }
        answers.sort();
        let addresses: Vec<SocketAddr> = answers.into_iter().flat_map(|(_, addresses)| addresses).collect();
        if !addresses.is_empty() {
            let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            let late =
                if is_late { "; the name server did not answer for the other family in time" } else { "" };
            let text = format!("{host} is {}{late}", shown.join(", "));
            let with_port = |mut address: SocketAddr| {
                address.set_port(port);
                address
            };
            return Ok((addresses.into_iter().map(with_port).collect(), text));
        }
    } else {
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        let text = format!("{host} is {}", shown.join(", "));
        return Ok((found.drain(..).map(|ip| SocketAddr::new(ip, port)).collect(), text));
    }
    let why = if is_late { "no answer in time" } else { "it has no address" };
    Err(format!("{host} does not resolve ({why}): check the name and the network"))
}

/// The state of an attempt.
enum Attempt<T> {
    Connected(SocketAddr),
    Finished(SocketAddr, Result<T, WireError>),
}

/// A failed attempt.
pub(super) struct Failed {
    pub(super) address: SocketAddr,
    pub(super) is_connected: bool,
    pub(super) why: WireError,
}

/// The first address at which `check` succeeds, with its result, and the earlier failed attempts.
pub(super) type Raced<T> = (Option<(SocketAddr, T)>, Vec<Failed>);

/// Tries addresses until `test` succeeds on a connection to one of them. `step` is the timeout of each step of an
/// attempt.
pub(super) fn race<T: Send + 'static>(
    addresses: &[SocketAddr],
    step: Duration,
    test: impl Fn(TcpStream, Deadline) -> Result<T, WireError> + Clone + Send + 'static,
) -> Raced<T> {
    let clock = Clock::start();
    let span = crate::command::upstream::span(step);
    let deadlines = Deadlines { dial: span, handshake: span, answer: span };
    let mut book = AddressBook::default();
    let mut race = Race::resolving(deadlines, clock.now().mono);
    book.resolved(addresses, true);
    race.resolved(addresses, true, &book, clock.now().mono);
    let (sender, receiver) = mpsc::channel();
    let mut failures: Vec<Failed> = Vec::new();
    loop {
        let now = clock.now().mono;
        let until = match race.poll(&book, now) {
            Todo::Dial(address) => {
                attempt(address, step, test.clone(), sender.clone());
                continue;
            }
            Todo::Late(address) => {
                let is_connected = race.connect_time(address).is_some();
                race.failed(address, now);
                let why = WireError::Io(std::io::ErrorKind::TimedOut.into());
                failures.push(Failed { address, is_connected, why });
                continue;
            }
            Todo::Wait(until) => until,
            Todo::Lost => return (None, failures),
        };
        let left = Duration::from_micros(until.since(now).0);
        let news = match receiver.recv_timeout(left) {
            Ok(news) => news,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => continue,
        };
        let now = clock.now().mono;
        match news {
            Attempt::Connected(address) => race.connected(address, now),
            Attempt::Finished(address, Ok(value)) => return (Some((address, value)), failures),
            Attempt::Finished(address, Err(why)) => {
                let is_connected = race.connect_time(address).is_some();
                if failures.iter().all(|it| it.address != address) {
                    race.failed(address, now);
                    failures.push(Failed { address, is_connected, why });
                }
            }
        }
    }
}

fn attempt<T: Send + 'static>(
    address: SocketAddr,
    step: Duration,
    test: impl Fn(TcpStream, Deadline) -> Result<T, WireError> + Send + 'static,
    news: Sender<Attempt<T>>,
) {
    // The receiver is gone if another address was faster.
    thread::spawn(move || {
        let result = match TcpStream::connect_timeout(&address, step) {
            Ok(stream) => {
                drop(news.send(Attempt::Connected(address)));
                test(stream, Deadline::after(step))
            }
            Err(error) => Err(error.into()),
        };
        drop(news.send(Attempt::Finished(address, result)));
    });
}
