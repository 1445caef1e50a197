//! Standard input and output as one connection, as ssh's ProxyCommand uses them. Calls on them block, and they cannot be
//! polled, so a thread for each direction copies between them and a pair of sockets on loopback.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use mio::event::Source;
use mio::{Interest, Registry, Token};

/// Limit of bytes that a thread moves at once.
const CHUNK: usize = 64 * 1024;

/// Standard input and output. No call on them blocks.
#[derive(Debug)]
pub struct Stdio {
    input: mio::net::TcpStream,
    input_failed: Arc<OnceLock<io::ErrorKind>>,
    /// `None` once the writing side has ended.
    output: Option<mio::net::TcpStream>,
    /// Bytes that were sent to the thread and that it has not written yet.
    unwritten: Arc<AtomicUsize>,
    output_failed: Arc<OnceLock<io::ErrorKind>>,
}

impl Stdio {
    /// Takes over standard input and output. The process must not use them otherwise.
    ///
    /// # Errors
    /// The system has no sockets or threads left.
    pub fn take() -> io::Result<Self> {
        let unwritten = Arc::new(AtomicUsize::new(0));
        let (input_failed, output_failed) = (Arc::default(), Arc::default());
        let (input, theirs) = pair()?;
        spawn(&input_failed, theirs, |mut theirs| copy(&mut io::stdin().lock(), &mut theirs, |_| ()))?;
        let (output, theirs) = pair()?;
        let left = Arc::clone(&unwritten);
        spawn(&output_failed, theirs, move |mut theirs| {
            copy(&mut theirs, &mut io::stdout().lock(), |n| {
                left.fetch_sub(n, Ordering::Relaxed);
            })
        })?;
        Ok(Self { input, input_failed, output: Some(output), unwritten, output_failed })
    }

    /// Registers both directions for polling.
    ///
    /// # Errors
    /// Those of the registration calls.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.input.register(registry, token, Interest::READABLE)?;
        self.output.as_mut().map_or(Ok(()), |end| end.register(registry, token, Interest::WRITABLE))
    }

    /// Deregisters both directions.
    pub fn unwatch(&mut self, registry: &Registry) {
        // An error does not matter: closing the socket deregisters it too.
        let _ = self.input.deregister(registry);
        if let Some(output) = &mut self.output {
            let _ = output.deregister(registry);
        }
    }

    /// Receives from standard input.
    ///
    /// # Errors
    /// `WouldBlock`, or why standard input cannot be read.
    pub fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.input.read(into)? {
            0 => self.input_failed.get().map_or(Ok(0), |error| Err((*error).into())),
            n => Ok(n),
        }
    }

    /// Sends to standard output.
    ///
    /// # Errors
    /// `WouldBlock`, or why standard output cannot be written.
    pub fn send(&mut self, from: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        let Some(output) = &mut self.output else { return Err(io::ErrorKind::BrokenPipe.into()) };
        // Counted before the call: the thread may write the bytes before it returns.
        self.unwritten.fetch_add(from.len(), Ordering::Relaxed);
        let sent = output.write(from);
        self.unwritten.fetch_sub(from.len() - sent.as_ref().map_or(0, |n| *n), Ordering::Relaxed);
        sent
    }

    /// Number of sent bytes that the thread has not written yet.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// The error that kept sent bytes from being written, once it is known.
    #[must_use]
    pub fn take_error(&self) -> Option<io::Error> {
        self.output_failed.get().map(|error| (*error).into())
    }

    /// Ends standard output. The thread ends after it has written everything.
    pub fn end_write(&mut self, registry: &Registry) {
        if let Some(mut output) = self.output.take() {
            let _ = output.deregister(registry);
            let _ = output.shutdown(Shutdown::Write);
        }
    }
}

/// Two connected sockets: a non-blocking one for the event loop, and a blocking one for a thread.
fn pair() -> io::Result<(mio::net::TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    loop {
        let (theirs, from) = listener.accept()?;
        // Any program of this machine may connect.
        if from == ours.local_addr()? {
            ours.set_nonblocking(true)?;
            ours.set_nodelay(true)?;
            theirs.set_nodelay(true)?;
            return Ok((mio::net::TcpStream::from_std(ours), theirs));
        }
    }
}

/// Starts a thread that works with its socket.
fn spawn(
    failed: &Arc<OnceLock<io::ErrorKind>>,
    theirs: TcpStream,
    work: impl FnOnce(&TcpStream) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let failed = Arc::clone(failed);
    thread::Builder::new().name("stdio".to_owned()).spawn(move || {
        if let Err(error) = work(&theirs) {
            let _ = failed.set(error.kind());
        }
        // Closed after the error is stored, so that the error is available at EOF.
        drop(theirs);
    })?;
    Ok(())
}

/// Copies until `from` is at EOF; `written` is called after each write.
fn copy(from: &mut impl Read, to: &mut impl Write, written: impl Fn(usize)) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&chunk[..n])?;
        to.flush()?;
        written(n);
    }
}
