//! Name resolution on threads, because the system's resolver blocks: two threads for each name in progress, one per
//! family. They are started on demand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mio::Waker;
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::Time;

use super::Resolved;
use super::look_up::{Family, look_up};
use super::names::Names;

/// Limit of threads. A name server that does not respond occupies the threads of its names until the system's resolver
/// times out.
const THREADS_MAX: usize = 32;
/// Delay of IPv4 addresses while the IPv6 ones are still being resolved (RFC 8305 §3, Resolution Delay).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The result of a thread.
type Found = (String, Family, Vec<SocketAddr>);

/// The name resolver of a program.
#[derive(Debug)]
pub(super) struct Resolver {
    names: Names,
    found: Receiver<Found>,
    finder: Sender<Found>,
    waker: Arc<Waker>,
    threads: usize,
    /// Names that wait for a thread.
    queue: VecDeque<String>,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (finder, found) = channel();
        Self { names: Names::default(), found, finder, waker, threads: 0, queue: VecDeque::new() }
    }

    /// Requests the addresses of a name.
    pub(super) fn ask(&mut self, on: ConnId, host: &str, port: u16, now: Time) {
        self.names.ask(on, host, port, now);
        self.begin(now);
    }

    /// The next result, if there is one.
    pub(super) fn answer(&mut self, now: Time) -> Option<Resolved> {
        while let Ok((host, family, addresses)) = self.found.try_recv() {
            self.threads -= 1;
            self.names.found(&host, family, addresses, now);
        }
        self.begin(now);
        self.names.next_answer()
    }

    /// Whether there is a result for which the waker was not called.
    pub(super) fn has_answer(&self) -> bool {
        self.names.has_answer()
    }

    /// Starts look-ups while threads are available.
    fn begin(&mut self, now: Time) {
        while let Some(host) = self.names.next_look_up() {
            self.queue.push_back(host);
        }
        while self.threads + Family::ALL.len() <= THREADS_MAX
            && let Some(host) = self.queue.pop_front()
        {
            let v6 = Arc::new(Finished::default());
            for family in Family::ALL {
                if self.spawn(&host, family, Arc::clone(&v6)).is_ok() {
                    self.threads += 1;
                } else {
                    self.names.found(&host, family, Vec::new(), now);
                }
            }
        }
    }

    fn spawn(&self, host: &str, family: Family, v6: Arc<Finished>) -> std::io::Result<()> {
        let (host, finder, waker) = (host.to_owned(), self.finder.clone(), Arc::clone(&self.waker));
        thread::Builder::new().name("resolver".into()).spawn(move || {
            let addresses = look_up(&host, family);
            if family == Family::V4 && !addresses.is_empty() {
                v6.wait(RESOLUTION_DELAY);
            }
            // Fails only if the program is ending.
            if finder.send((host, family, addresses)).is_ok() {
                let _ = waker.wake();
            }
            if family == Family::V6 {
                v6.finish();
            }
        })?;
        Ok(())
    }
}

/// Whether a look-up has finished.
#[derive(Debug, Default)]
struct Finished {
    is_finished: Mutex<bool>,
    changed: Condvar,
}

impl Finished {
    fn finish(&self) {
        *self.is_finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, at_most: Duration) {
        let is_finished = self.is_finished.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(is_finished, at_most, |is_finished| !*is_finished));
    }
}
