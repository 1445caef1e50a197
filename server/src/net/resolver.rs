//! Name look-ups on a helper thread, because the system's resolver blocks: the one thread beside the loop's, and only
//! in a program that was given a name.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use mio::Waker;
use rendezvous_core::machine::ConnId;

/// Asks and answers.
#[derive(Debug)]
pub(super) struct Resolver {
    questions: Sender<(ConnId, String, u16)>,
    answers: Receiver<(ConnId, Vec<SocketAddr>)>,
}

impl Resolver {
    /// Starts the thread; it ends when this is dropped and its last look-up is over.
    pub(super) fn start(waker: Arc<Waker>) -> std::io::Result<Self> {
        let (questions, asked) = channel::<(ConnId, String, u16)>();
        let (answered, answers) = channel();
        thread::Builder::new().name("resolver".into()).spawn(move || {
            for (on, host, port) in asked {
                // A name that does not resolve has no addresses: whoever asked needs to know no more.
                let found =
                    (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
                if answered.send((on, found)).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }

    /// Asks for a name.
    pub(super) fn ask(&self, on: ConnId, host: &str, port: u16) -> bool {
        self.questions.send((on, host.to_owned(), port)).is_ok()
    }

    /// An answer, if one is there.
    pub(super) fn answer(&self) -> Option<(ConnId, Vec<SocketAddr>)> {
        self.answers.try_recv().ok()
    }
}
