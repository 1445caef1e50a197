//! Ctrl-C and the end of the session. Their handlers wake the event loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Registry, Token, Waker};
pub(crate) use signal_hook::consts::{SIGINT, SIGTERM};

/// A reload, which no one can request here.
pub(crate) const SIGHUP: i32 = 1;
/// A signal without a meaning.
pub(crate) const SIGUSR1: i32 = 10;
/// An upgrade, which no one can request here either.
pub(crate) const SIGUSR2: i32 = 12;

/// A signal may be pending when the waker wakes the loop.
pub(crate) const USE_WAKER: bool = true;

/// The signals that a program handles.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(i32, Arc<AtomicBool>)>);

impl Signals {
    /// Handles these signals.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    #[allow(unsafe_code, reason = "the handler of a signal")]
    pub(crate) fn take(_: &Registry, _: Token, waker: &Arc<Waker>, which: &[i32]) -> io::Result<Self> {
        let mut taken = Vec::new();
        for signal in which.iter().copied().filter(|signal| ![SIGHUP, SIGUSR1, SIGUSR2].contains(signal)) {
            let (has_come, waker) = (Arc::new(AtomicBool::new(false)), Arc::clone(waker));
            let flag = Arc::clone(&has_come);
            let on_signal = move || {
                flag.store(true, Ordering::Release);
                let _ = waker.wake();
            };
            // SAFETY: the C library calls the handler on a thread of its own, so it may use the system's calls.
            unsafe { signal_hook::low_level::register(signal, on_signal) }?;
            taken.push((signal, has_come));
        }
        Ok(Self(taken))
    }

    /// The next pending signal.
    pub(crate) fn next(&mut self) -> Option<i32> {
        self.0.iter().find(|(_, has_come)| has_come.swap(false, Ordering::Acquire)).map(|(signal, _)| *signal)
    }
}
