//! Detects changes of this machine's addresses and routes, on a thread of its own.
//!
//! On Linux, the kernel sends a message for each change (rtnetlink(7)). Elsewhere the thread polls the source addresses
//! of new connections every few seconds.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::Waker;
use rendezvous_core::time::Span;

use crate::clock::Clock;
use crate::linux;

/// A burst of messages ends after this long without one.
const QUIET: Duration = Duration::from_millis(200);
/// A burst is reported after this long even if it continues.
const BURST_MAX: Span = Span::from_secs(1);
/// Polling interval where the system sends no messages.
const LOOK: Duration = Duration::from_secs(5);
/// Two documentation addresses (RFC 5737, RFC 3849). Nothing is sent to them; the system only selects a route.
const NOBODY: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// Reports changes of paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths(Arc<AtomicBool>);

impl Paths {
    /// Starts to watch; `waker` wakes the loop after each change.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn watch(waker: Arc<Waker>) -> io::Result<Self> {
        let paths = Self::default();
        let changed = Arc::clone(&paths.0);
        let report = move || {
            changed.store(true, Ordering::Release);
            let _ = waker.wake();
        };
        thread::Builder::new().name("paths".to_owned()).stack_size(64 * 1024).spawn(move || {
            match linux::route_messages() {
                Ok(messages) => watch_messages(&messages, report),
                Err(_) => watch_addresses(report),
            }
        })?;
        Ok(paths)
    }

    /// Whether a path has changed since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Acquire)
    }
}

/// Reports each burst of messages.
fn watch_messages(messages: &socket2::Socket, report: impl Fn()) {
    let clock = Clock::start();
    loop {
        if messages.set_read_timeout(None).is_err() || !receive(messages) {
            return;
        }
        let end = clock.now().mono + BURST_MAX;
        let _ = messages.set_read_timeout(Some(QUIET));
        while clock.now().mono < end && receive(messages) {}
        report();
    }
}

/// Receives and discards one message. Returns false on timeout or if no more can come.
fn receive(messages: &socket2::Socket) -> bool {
    let mut message = [std::mem::MaybeUninit::uninit(); 64];
    loop {
        match messages.recv(&mut message) {
            Ok(_) => return true,
            Err(error) => match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::Interrupted, _) => {}
                // The receive buffer overflowed: there was a change.
                (_, Some(libc::ENOBUFS)) => return true,
                _ => return false,
            },
        }
    }
}

fn watch_addresses(report: impl Fn()) {
    let mut before = own_addresses();
    loop {
        thread::sleep(LOOK);
        let now = own_addresses();
        if now != before {
            before = now;
            report();
        }
    }
}

/// The source addresses of new connections, by family.
fn own_addresses() -> [Option<IpAddr>; 2] {
    NOBODY.map(|(any, nobody)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(nobody).ok()?;
        socket.local_addr().ok().map(|own| own.ip())
    })
}
