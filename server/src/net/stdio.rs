//! Standard input and output as one connection, as ssh's ProxyCommand uses them.
//!
//! Other processes may share both, so their open file descriptions are not changed: O_NONBLOCK would apply to all of
//! them, and would stay set after a kill. Sockets are used with MSG_DONTWAIT. Pipes and terminals are reopened, which
//! makes a description of our own. For everything else (files, devices, and pipes that cannot be reopened), a thread
//! makes the blocking calls behind a socket pair.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::linux;

/// Limit of bytes that a helper thread moves at once.
const CHUNK: usize = 64 * 1024;

/// Standard input and output. No call on them blocks.
#[derive(Debug)]
pub struct Stdio {
    input: End,
    /// `None` once the writing side has ended.
    output: Option<End>,
    /// Bytes that were sent to a helper thread and that it has not written yet.
    unwritten: Arc<AtomicUsize>,
    /// The error that ended the writing helper thread, if any.
    output_failed: Arc<OnceLock<io::ErrorKind>>,
}

/// Standard input or standard output.
#[derive(Debug)]
enum End {
    /// A shared socket.
    Socket(OwnedFd),
    /// A pipe or terminal, reopened as non-blocking.
    Own(File),
    /// Anything else, behind a helper thread.
    Helped(Helped),
}

/// Our side of the socket pair to a helper thread.
#[derive(Debug)]
struct Helped {
    stream: UnixStream,
    /// The error that ended the thread, if any.
    failed: Arc<OnceLock<io::ErrorKind>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Input,
    Output,
}

impl Stdio {
    /// Takes over standard input and output. The process must not use them otherwise.
    ///
    /// # Errors
    /// One of them is closed, or the system has no descriptors or threads left.
    pub fn take() -> io::Result<Self> {
        let unwritten = Arc::new(AtomicUsize::new(0));
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let input = End::new(input, Direction::Input, &unwritten, &Arc::default())?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let output_failed = Arc::default();
        let output = End::new(output, Direction::Output, &unwritten, &output_failed)?;
        close_stdout()?;
        Ok(Self { input, output: Some(output), unwritten, output_failed })
    }

    /// Registers both directions for polling.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.input.watch(registry, token, Interest::READABLE)?;
        self.output.as_ref().map_or(Ok(()), |end| end.watch(registry, token, Interest::WRITABLE))
    }

    /// Deregisters both directions.
    pub fn unwatch(&mut self, registry: &Registry) {
        self.input.unwatch(registry);
        if let Some(output) = &self.output {
            output.unwatch(registry);
        }
    }

    /// Receives from standard input.
    pub fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            End::Socket(socket) => linux::receive_now(socket, into),
            End::Own(file) => file.read(into),
            End::Helped(helped) => match helped.stream.read(into)? {
                0 => helped.failed.get().map_or(Ok(0), |error| Err((*error).into())),
                n => Ok(n),
            },
        }
    }

    /// Sends to standard output.
    pub fn send(&mut self, from: &[u8]) -> io::Result<usize> {
        match &mut self.output {
            None => Err(io::ErrorKind::BrokenPipe.into()),
            Some(End::Socket(socket)) => linux::send_now(socket, from),
            Some(End::Own(file)) => file.write(from),
            Some(End::Helped(helped)) => {
                if let Some(error) = helped.failed.get() {
                    return Err((*error).into());
                }
                // Counted before the call: the thread may write the bytes before it returns.
                self.unwritten.fetch_add(from.len(), Ordering::Relaxed);
                let sent = helped.stream.write(from);
                let unsent = from.len() - sent.as_ref().map_or(0, |n| *n);
                self.unwritten.fetch_sub(unsent, Ordering::Relaxed);
                sent
            }
        }
    }

    /// Number of sent bytes that a helper thread has not written yet.
    pub fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// The error that kept sent bytes from being written, once it is known.
    pub fn take_error(&self) -> Option<io::Error> {
        self.output_failed.get().map(|error| (*error).into())
    }

    /// Closes standard output. Its reader sees EOF, because this process holds no other descriptor of it, unless it is
    /// a socket that is also standard input (socat's EXEC).
    pub fn end_write(&mut self, registry: &Registry) {
        let Some(output) = self.output.take() else { return };
        output.unwatch(registry);
        if let End::Socket(socket) = &output {
            // It fails only if the peer is gone, which other calls report.
            let _ = SockRef::from(socket).shutdown(Shutdown::Write);
        }
        // A helper thread ends after it has written everything.
    }
}

impl End {
    fn new(
        fd: OwnedFd,
        direction: Direction,
        unwritten: &Arc<AtomicUsize>,
        failed: &Arc<OnceLock<io::ErrorKind>>,
    ) -> io::Result<Self> {
        let file = File::from(fd);
        let kind = file.metadata()?.file_type();
        if kind.is_socket() {
            return Ok(Self::Socket(file.into()));
        }
        if let Ok(own) = open_again(&file, direction) {
            return Ok(Self::Own(own));
        }
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let (of_thread, unwritten) = (Arc::clone(failed), Arc::clone(unwritten));
        let work = move || {
            let copied = match direction {
                Direction::Input => copy(&file, &theirs, |_| ()),
                Direction::Output => copy(&theirs, &file, |n| {
                    unwritten.fetch_sub(n, Ordering::Relaxed);
                }),
            };
            if let Err(error) = copied {
                let _ = of_thread.set(error.kind());
            }
            // Closed after the error is stored, so that the error is available at EOF.
            drop(theirs);
        };
        thread::Builder::new().name("stdio".to_owned()).spawn(work)?;
        Ok(Self::Helped(Helped { stream, failed: Arc::clone(failed) }))
    }

    fn watch(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.raw()).register(registry, token, interest)
    }

    fn unwatch(&self, registry: &Registry) {
        // An error does not matter: closing the descriptor deregisters it too.
        let _ = SourceFd(&self.raw()).deregister(registry);
    }

    fn raw(&self) -> i32 {
        match self {
            Self::Socket(socket) => socket.as_raw_fd(),
            Self::Own(file) => file.as_raw_fd(),
            Self::Helped(helped) => helped.stream.as_raw_fd(),
        }
    }
}

/// Reopens a pipe or terminal with a new, non-blocking description.
///
/// # Errors
/// It is neither, it cannot be opened (a pipe of another user), or its other end is closed.
#[cfg(target_os = "linux")]
fn open_again(file: &File, direction: Direction) -> io::Result<File> {
    use std::io::IsTerminal as _;
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

    let before = file.metadata()?;
    // A pseudo-terminal's master is excluded: opening it again makes another terminal.
    let is_master = before.rdev() == libc::makedev(5, 2);
    if !before.file_type().is_fifo() && (is_master || !file.is_terminal()) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let own = File::options()
        .read(direction == Direction::Input)
        .write(direction == Direction::Output)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let after = own.metadata()?;
    if (before.dev(), before.ino(), before.rdev()) == (after.dev(), after.ino(), after.rdev()) {
        Ok(own)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Not available: other systems would open the same description.
#[cfg(not(target_os = "linux"))]
fn open_again(_: &File, _: Direction) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Copies blocking or non-blocking data until `from` is at EOF; `written` is called after each write.
fn copy(mut from: impl Read + AsFd, mut to: impl Write + AsFd, written: impl Fn(usize)) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) => {
                wait_after(&error, || linux::wait_readable(&from)).ok_or(error)??;
                continue;
            }
        };
        let mut left = &chunk[..n];
        while !left.is_empty() {
            match to.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    left = &left[n..];
                    written(n);
                }
                Err(error) => wait_after(&error, || linux::wait_writable(&to)).ok_or(error)??,
            }
        }
    }
}

/// Waits if a call failed and must be repeated; `None` if it failed for good.
fn wait_after(error: &io::Error, wait: impl FnOnce() -> io::Result<()>) -> Option<io::Result<()>> {
    match error.kind() {
        io::ErrorKind::Interrupted => Some(Ok(())),
        io::ErrorKind::WouldBlock => Some(wait()),
        _ => None,
    }
}

/// Replaces descriptor 1 by a pipe without a reader, so that our duplicate is the only one in this process.
fn close_stdout() -> io::Result<()> {
    let (_, nobody) = io::pipe()?;
    linux::replace(&nobody, &io::stdout())
}
