//! Standard input and output as one connection: what ssh's ProxyCommand gives us.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::linux::set_nonblocking;

/// Both descriptors, non-blocking as long as this lives.
#[derive(Debug)]
pub struct Stdio {
    input: End,
    /// `None` once the writing side has ended.
    output: Option<End>,
}

#[derive(Debug)]
struct End {
    file: File,
    /// Whether it was non-blocking before us: others may share it, a terminal with the shell.
    was_nonblocking: bool,
    /// Regular files can't be polled, and never would block.
    polled: bool,
}

impl Stdio {
    /// Takes over standard input and output. This process must use neither of them otherwise.
    ///
    /// # Errors
    /// One of them is closed.
    pub fn take() -> io::Result<Self> {
        let input = End::new(io::stdin().as_fd().try_clone_to_owned()?)?;
        let output = End::new(io::stdout().as_fd().try_clone_to_owned()?)?;
        close_stdout()?;
        Ok(Self { input, output: Some(output) })
    }

    /// Whether both directions can be waited for; one that can't is always ready.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<bool> {
        let polled = self.input.watch(registry, token, Interest::READABLE)?;
        let output =
            self.output.as_mut().map_or(Ok(true), |end| end.watch(registry, token, Interest::WRITABLE))?;
        Ok(polled && output)
    }

    /// Stops watching.
    pub fn unwatch(&mut self, registry: &Registry) {
        self.input.unwatch(registry);
        if let Some(output) = &mut self.output {
            output.unwatch(registry);
        }
    }

    /// Receives from standard input.
    pub fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.input.file.read(into)
    }

    /// Sends to standard output.
    pub fn send(&mut self, from: &[u8]) -> io::Result<usize> {
        match &mut self.output {
            Some(output) => output.file.write(from),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends standard output: whoever reads it sees the end, for we hold no other descriptor of it, unless it is a socket
    /// that is standard input as well (socat's EXEC).
    pub fn end_write(&mut self, registry: &Registry) {
        if let Some(mut output) = self.output.take() {
            output.unwatch(registry);
            // No socket, no harm.
            let _ = SockRef::from(&output.file).shutdown(Shutdown::Write);
        }
    }
}

impl End {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let was_nonblocking = set_nonblocking(&file, true)?;
        Ok(Self { file, was_nonblocking, polled: false })
    }

    fn watch(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<bool> {
        match SourceFd(&self.file.as_raw_fd()).register(registry, token, interest) {
            Ok(()) => self.polled = true,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.polled = false,
            Err(error) => return Err(error),
        }
        Ok(self.polled)
    }

    fn unwatch(&mut self, registry: &Registry) {
        if std::mem::take(&mut self.polled) {
            // It is about to be closed, which ends the watch too.
            let _ = SourceFd(&self.file.as_raw_fd()).deregister(registry);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.was_nonblocking {
            // The description may be a terminal that a shell goes on using; nothing can be done if it is gone.
            let _ = set_nonblocking(&self.file, false);
        }
    }
}

/// Puts /dev/null in the place of descriptor 1, so that our duplicate is the only one left in this process.
fn close_stdout() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    crate::linux::replace(&null, &io::stdout())
}
