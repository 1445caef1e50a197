//! Standard input and output as one connection: what ssh's ProxyCommand gives us.
//!
//! Other processes may share both, so that their open file descriptions are left as they are: O_NONBLOCK would be set
//! for everybody, and would stay after a kill. Sockets are asked not to wait call by call. Pipes and terminals are opened
//! once more, which makes a description of our own. For everything else (files, devices, and pipes that may not be opened
//! again) a thread makes the calls that block, behind a socket.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::linux;

/// A helper thread moves at most this much at once.
const CHUNK: usize = 64 * 1024;

/// Both descriptors. No call on them blocks.
#[derive(Debug)]
pub struct Stdio {
    input: End,
    /// `None` once the writing side has ended.
    output: Option<End>,
    /// Bytes that a helper thread was sent and has not written.
    unwritten: Arc<AtomicUsize>,
    /// Why the helper thread that writes has ended, if it was an error.
    output_failed: Arc<OnceLock<io::ErrorKind>>,
}

/// One of the two.
#[derive(Debug)]
enum End {
    /// A socket, which is shared.
    Socket(OwnedFd),
    /// A pipe or a terminal, non-blocking, by a description that nobody else has.
    Own(File),
    /// Behind a thread.
    Helped(Helped),
}

/// This side of a socket whose other side a thread has.
#[derive(Debug)]
struct Helped {
    stream: UnixStream,
    /// Why the thread has ended, if it was an error.
    failed: Arc<OnceLock<io::ErrorKind>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Input,
    Output,
}

impl Stdio {
    /// Takes over standard input and output. This process must use neither of them otherwise.
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

    /// Watches both directions.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.input.watch(registry, token, Interest::READABLE)?;
        self.output.as_ref().map_or(Ok(()), |end| end.watch(registry, token, Interest::WRITABLE))
    }

    /// Stops watching.
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
                // Counted first: the thread may have written it before the call returns.
                self.unwritten.fetch_add(from.len(), Ordering::Relaxed);
                let sent = helped.stream.write(from);
                let unsent = from.len() - sent.as_ref().map_or(0, |n| *n);
                self.unwritten.fetch_sub(unsent, Ordering::Relaxed);
                sent
            }
        }
    }

    /// How many bytes were sent and are not written by a helper thread yet.
    pub fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Why bytes that were sent could not be written, once that is known.
    pub fn take_error(&self) -> Option<io::Error> {
        self.output_failed.get().map(|error| (*error).into())
    }

    /// Ends standard output: whoever reads it sees the end, for we hold no other descriptor of it, unless it is a socket
    /// that is standard input as well (socat's EXEC).
    pub fn end_write(&mut self, registry: &Registry) {
        let Some(output) = self.output.take() else { return };
        output.unwatch(registry);
        if let End::Socket(socket) = &output {
            // It fails if the peer is gone, which will show.
            let _ = SockRef::from(socket).shutdown(Shutdown::Write);
        }
        // A helper thread ends when it has written what it was sent.
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
            // The end shows when the error can be had.
            drop(theirs);
        };
        thread::Builder::new().name("stdio".to_owned()).spawn(work)?;
        Ok(Self::Helped(Helped { stream, failed: Arc::clone(failed) }))
    }

    fn watch(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.raw()).register(registry, token, interest)
    }

    fn unwatch(&self, registry: &Registry) {
        // It is about to be closed, which ends the watch too.
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

/// Opens a pipe or a terminal once more, non-blocking: only the new description is.
///
/// # Errors
/// It is neither, it may not be opened (a pipe of another user's), or its other end is gone.
#[cfg(target_os = "linux")]
fn open_again(file: &File, direction: Direction) -> io::Result<File> {
    let before = file.metadata()?;
    // The master of a pseudo-terminal is no terminal here: opening it makes another one.
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

/// Elsewhere the same description would be opened.
#[cfg(not(target_os = "linux"))]
fn open_again(_: &File, _: Direction) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Copies until the end of `from`, whether they block or not; `written` is told of every call that wrote.
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

/// Waits if a call failed that is to be made again; `None` if it is not.
fn wait_after(error: &io::Error, wait: impl FnOnce() -> io::Result<()>) -> Option<io::Result<()>> {
    match error.kind() {
        io::ErrorKind::Interrupted => Some(Ok(())),
        io::ErrorKind::WouldBlock => Some(wait()),
        _ => None,
    }
}

/// Puts a pipe without a reader in the place of descriptor 1, so that our duplicate is the only one left in this process.
fn close_stdout() -> io::Result<()> {
    let (_, nobody) = io::pipe()?;
    linux::replace(&nobody, &io::stdout())
}
