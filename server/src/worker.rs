//! A helper thread for blocking calls such as reading files. The event loop sends a request, is woken, and takes the
//! response.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use mio::Waker;

/// A thread that handles one request at a time. After this is dropped, it ends once its last request is done.
#[derive(Debug)]
pub(crate) struct Worker<Q, A> {
    questions: Sender<Q>,
    answers: Receiver<A>,
    is_busy: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// Starts the thread. `waker` wakes the event loop for each response.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(crate) fn start(
        name: &str,
        waker: Arc<Waker>,
        mut answer: impl FnMut(Q) -> A + Send + 'static,
    ) -> io::Result<Self> {
        let (questions, asked) = channel();
        let (answered, answers) = channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            for question in asked {
                if answered.send(answer(question)).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers, is_busy: false })
    }

    /// Sends a request. Returns false if the previous one is not done yet.
    pub(crate) fn ask(&mut self, question: Q) -> bool {
        if self.is_busy {
            return false;
        }
        self.is_busy = self.questions.send(question).is_ok();
        self.is_busy
    }

    /// Whether a request is not done yet.
    pub(crate) const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Waits for the response, at most for `timeout`. For the end of a program, outside of the event loop.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<A> {
        let answer = self.answers.recv_timeout(timeout).ok()?;
        self.is_busy = false;
        Some(answer)
    }

    /// Takes the response, if there is one.
    pub(crate) fn answer(&mut self) -> Option<A> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.is_busy = false;
                Some(answer)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}
