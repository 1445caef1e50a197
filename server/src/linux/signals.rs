//! Signals as readiness.

use std::io;
use std::sync::Arc;

use mio::{Interest, Registry, Token, Waker};
pub(crate) use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

/// Whether a signal may be pending when the waker wakes the loop. Here it has an edge of its own.
pub(crate) const USE_WAKER: bool = false;

/// The signals that a program handles.
pub(crate) struct Signals(signal_hook_mio::v1_0::Signals);

impl Signals {
    /// Handles these signals. They cause an edge with `token`.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub(crate) fn take(registry: &Registry, token: Token, _: &Arc<Waker>, which: &[i32]) -> io::Result<Self> {
        let mut signals = signal_hook_mio::v1_0::Signals::new(which)?;
        registry.register(&mut signals, token, Interest::READABLE)?;
        Ok(Self(signals))
    }

    /// The next pending signal.
    pub(crate) fn next(&mut self) -> Option<i32> {
        self.0.pending().next()
    }
}
