//! What a service manager is told (sd_notify(3)): ready, reloading, stopping, still alive, and a line about the state.
//!
//! Nothing waits for the manager: what it has no room for is sent again later, in order, if it is a change of state,
//! and forgotten if it is not.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rendezvous_core::time::{Span, Time};

use crate::linux;

/// The line about the state goes out this often at most.
const STATUS_EVERY: Span = Span::from_secs(2);
/// What was not taken is sent again after this long.
const RETRY: Span = Span::from_millis(200);
/// Changes of state that are kept for a manager that takes nothing; the oldest go first.
const UNSENT_MAX: usize = 16;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    unsent: VecDeque<String>,
    retry: Option<Time>,
    /// How often it is told that we live, and when next.
    watchdog: Option<(Span, Time)>,
    /// The line about the state as it was sent last.
    status: Option<String>,
    /// When it may be looked at again.
    status_due: Time,
    /// It may be another by now.
    stale: bool,
}

impl Manager {
    /// The manager that this process's environment names, if it does; what names it is taken out of the environment.
    ///
    /// # Errors
    /// It is named, and cannot be reached.
    pub fn from_environment(now: Time) -> io::Result<Self> {
        let socket = linux::take_variable("NOTIFY_SOCKET");
        let micros = linux::take_variable("WATCHDOG_USEC");
        let of = linux::take_variable("WATCHDOG_PID");
        let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
        let ours = of.is_none_or(|of| number(of) == Some(u64::from(std::process::id())));
        let every = micros.and_then(number).filter(|&micros| ours && micros > 0).map(Span);
        socket.map_or(Ok(Self::default()), |name| Self::at(&name, every, now))
    }

    /// The manager that listens at `name` (a path, or `@` and an abstract name) and takes us for dead after `watchdog`
    /// without a word.
    ///
    /// # Errors
    /// It is no name of a socket, or nobody listens there.
    pub fn at(name: &OsStr, watchdog: Option<Span>, now: Time) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name)?)?;
        socket.set_nonblocking(true)?;
        let watchdog = watchdog.map(|limit| (Span(limit.0 / 2), now));
        Ok(Self { socket: Some(socket), watchdog, stale: true, ..Self::default() })
    }

    /// The program does what it is for: it was started, or has reloaded.
    pub fn ready(&mut self, now: Time) {
        self.queue("READY=1".to_owned(), now);
    }

    /// The program reads its configuration again; [`Manager::ready`] follows.
    pub fn reloading(&mut self, now: Time) {
        let since = linux::monotonic_micros().map_or_else(String::new, |it| format!("\nMONOTONIC_USEC={it}"));
        self.queue(format!("RELOADING=1{since}"), now);
    }

    /// The program ends.
    pub fn stopping(&mut self, now: Time) {
        self.queue("STOPPING=1".to_owned(), now);
    }

    /// Something happened that may change the line about the state.
    pub const fn touch(&mut self) {
        self.stale = true;
    }

    /// Says what is due: to be called after every turn of the event loop. `status` is the line about the state, asked
    /// for only where it is wanted.
    pub fn update(&mut self, now: Time, status: impl FnOnce() -> Option<String>) {
        if self.socket.is_none() {
            return;
        }
        if self.retry.is_some_and(|retry| retry <= now) {
            self.flush(now);
        }
        if let Some((every, due)) = &mut self.watchdog
            && *due <= now
        {
            *due = now + *every;
            let _ = self.send("WATCHDOG=1");
        }
        if self.stale && self.status_due <= now {
            self.stale = false;
            self.status_due = now + STATUS_EVERY;
            let line = status();
            if line == self.status {
                return;
            }
            match self.send(&format!("STATUS={}", line.as_deref().unwrap_or_default())) {
                Ok(()) => self.status = line,
                Err(_) => self.stale = true,
            }
        }
    }

    /// When [`Manager::tell`] has something to say at the latest; `None`: nothing is due.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.socket.as_ref()?;
        let watchdog = self.watchdog.map(|(_, due)| due);
        let status = self.stale.then_some(self.status_due);
        [watchdog, status, self.retry].into_iter().flatten().min()
    }

    fn queue(&mut self, what: String, now: Time) {
        if self.socket.is_some() {
            self.unsent.push_back(what);
            if self.unsent.len() > UNSENT_MAX {
                self.unsent.pop_front();
            }
            self.flush(now);
        }
    }

    fn flush(&mut self, now: Time) {
        self.retry = None;
        while let Some(what) = self.unsent.pop_front() {
            match self.send(&what) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent.push_front(what);
                    self.retry = Some(now + RETRY);
                    return;
                }
                Err(error) => log::debug!("event=notify error={:?}", error.to_string()),
            }
        }
    }

    fn send(&self, what: &str) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| socket.send(what.as_bytes()).map(drop))
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(rest)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    }
}
