//! Notifications to a service manager (sd_notify(3)): ready, reloading, stopping, watchdog and a status line.
//!
//! Sending never blocks. If the manager's socket is full, changes of state are sent again later, in order, and other
//! messages are dropped.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rendezvous_core::time::{Span, Time};

use crate::linux;

/// Minimum interval between two status lines.
const STATUS_EVERY: Span = Span::from_secs(2);
/// Delay before unsent messages are sent again.
const RETRY: Span = Span::from_millis(200);
/// Limit of unsent messages; the oldest are dropped first.
const UNSENT_MAX: usize = 16;

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    unsent: VecDeque<String>,
    retry: Option<Time>,
    /// The interval of watchdog messages, and when the next one is due.
    watchdog: Option<(Span, Time)>,
    /// The status line sent last.
    status: Option<String>,
    /// When the status line may be sent again.
    status_due: Time,
    /// Whether the status line may have changed.
    stale: bool,
    /// Whether another process reports to the manager now.
    is_over: bool,
}

impl Manager {
    /// Connects to the manager named in the environment, if any, and removes its variables from the environment.
    ///
    /// # Errors
    /// The manager cannot be reached.
    pub fn from_environment(now: Time) -> io::Result<Self> {
        let socket = linux::take_variable("NOTIFY_SOCKET");
        let micros = linux::take_variable("WATCHDOG_USEC");
        let of = linux::take_variable("WATCHDOG_PID");
        let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
        let ours = of.is_none_or(|of| number(of) == Some(u64::from(std::process::id())));
        let every = micros.and_then(number).filter(|&micros| ours && micros > 0).map(Span);
        socket.map_or(Ok(Self::default()), |name| Self::at(&name, every, now))
    }

    /// Connects to the manager at `name` (a path, or `@` and an abstract name), which considers this process dead after
    /// `watchdog` without a message.
    ///
    /// # Errors
    /// `name` is not a socket address, or no process listens there.
    pub fn at(name: &OsStr, watchdog: Option<Span>, now: Time) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name)?)?;
        socket.set_nonblocking(true)?;
        let watchdog = watchdog.map(|limit| (Span(limit.0 / 2), now));
        Ok(Self { socket: Some(socket), watchdog, stale: true, ..Self::default() })
    }

    /// Reports that the program has started, or has reloaded.
    pub fn ready(&mut self, now: Time) {
        self.queue("READY=1".to_owned(), now);
    }

    /// Reports a reload; [`Manager::ready`] follows.
    pub fn reloading(&mut self, now: Time) {
        let since = linux::monotonic_micros().map_or_else(String::new, |it| format!("\nMONOTONIC_USEC={it}"));
        self.queue(format!("RELOADING=1{since}"), now);
    }

    /// Reports that the program is shutting down.
    pub fn stopping(&mut self, now: Time) {
        self.queue("STOPPING=1".to_owned(), now);
    }

    /// Reports that another process is the main process of the service from now on, and that a reload is complete. The
    /// manager ignores further messages of this one.
    pub fn hand_over(&mut self, pid: u32, now: Time) {
        self.queue(format!("MAINPID={pid}\nREADY=1"), now);
        (self.watchdog, self.stale, self.is_over) = (None, false, true);
    }

    /// Marks the status line as possibly changed.
    pub const fn touch(&mut self) {
        self.stale = !self.is_over;
    }

    /// Sends the messages that are due. Call it after every turn of the event loop. `status` makes the status line and
    /// is called only if one is due.
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

    /// When [`Manager::update`] has something to send at the latest; `None` if nothing is due.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.socket.as_ref()?;
        let watchdog = self.watchdog.map(|(_, due)| due);
        let status = self.stale.then_some(self.status_due);
        [watchdog, status, self.retry].into_iter().flatten().min()
    }

    fn queue(&mut self, what: String, now: Time) {
        if self.socket.is_some() && !self.is_over {
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
                Err(error) => log::debug!("event=notify reason={:?}", error.to_string()),
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
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path or an abstract name")),
    }
}
