//! Changes of this machine's addresses and routes, watched on a thread of its own.
//!
//! On Linux the system sends a message for each change (rtnetlink(7)). Elsewhere it is looked every few seconds which
//! addresses connections would have.

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

/// A burst of messages is over when none came for this long.
const QUIET: Duration = Duration::from_millis(200);
/// A burst is reported after this long, though it goes on.
const BURST_MAX: Span = Span::from_secs(1);
/// Where the system sends no messages, the addresses are looked at this often.
const LOOK: Duration = Duration::from_secs(5);
/// Two addresses that are nobody's (RFC 5737, RFC 3849): nothing is sent to them, the system looks up the route.
const NOBODY: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// Reports that paths have changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths(Arc<AtomicBool>);

impl Paths {
    /// Begins to watch; `waker` wakes the loop after each change.
    ///
    /// # Errors
    /// The system has no thread for it.
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

/// Receives one message, which is not read. False if none came in time, or none can come.
fn receive(messages: &socket2::Socket) -> bool {
    let mut message = [std::mem::MaybeUninit::uninit(); 64];
    loop {
        match messages.recv(&mut message) {
            Ok(_) => return true,
            Err(error) => match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::Interrupted, _) => {}
                // More came than there was room for: that is a change as well.
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

/// The addresses that connections would have, of each family.
fn own_addresses() -> [Option<IpAddr>; 2] {
    NOBODY.map(|(any, nobody)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(nobody).ok()?;
        socket.local_addr().ok().map(|own| own.ip())
    })
}
