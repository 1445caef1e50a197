//! The network of the operating system: mio, edge-triggered.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Now, Span};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::paths::Paths;
use super::pipe::{Pipe, Pipes};
use super::resolver::Resolver;
use super::stdio::Stdio;
use super::{Edge, GENERATION_MASK, Net, Resolved};
use crate::clock::Clock;
use crate::linux;
use crate::linux::descriptors::{AsFd, OwnedFd};
use crate::linux::signals::{self, Signals};
use crate::socket_file::{UnixListener, UnixStream};

/// The listen backlog. It is larger than mio's fixed 128, because all agents reconnect at once after a restart of the
/// relay.
const BACKLOG: i32 = 4096;
/// A dead idle path is detected after 25 s + 3 × 5 s (docs/protocol.md §2.7). The core's `USER_TIMEOUT` matches these.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(25);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Tokens from here upwards are not connections; the table of connections never grows this large.
const SPECIAL: usize = usize::MAX - 0xffff;
const SIGNALS: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const STATUS: Token = Token(usize::MAX - 2);
/// The sockets that the program serves itself have the [`OWN_MAX`] tokens from here on.
const OWN: usize = usize::MAX - 0x100;
/// Limit of those sockets.
const OWN_MAX: usize = 0x80;

/// Bits of a token that hold the connection's index.
const INDEX_BITS: u32 = if cfg!(target_pointer_width = "64") { 32 } else { 20 };

/// Sockets, clocks, signals and names of the operating system.
pub struct MioNet {
    poll: Poll,
    events: Events,
    clock: Clock,
    listeners: Vec<TcpListener>,
    /// Number of connected sockets, and its limit.
    sockets: usize,
    sockets_max: usize,
    signals: Option<Signals>,
    /// Whether a signal may be pending.
    signalled: bool,
    status: Option<UnixListener>,
    /// Whether a connection to the status socket may be pending.
    asked: bool,
    /// Edges of the sockets that the program serves itself.
    own_edges: Vec<OwnEdge>,
    waker: Arc<Waker>,
    resolver: Option<Resolver>,
    paths: Option<Paths>,
    pipes: Pipes,
}

/// Options of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bind {
    /// `[::]` accepts only IPv6.
    pub only_v6: bool,
    /// The address need not exist yet (IP_FREEBIND, on Linux).
    pub may_be_missing: bool,
}

/// An edge of a socket that the program serves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnEdge {
    /// Its place, as given to [`MioNet::register_own`].
    pub place: usize,
    /// Whether it may be readable.
    pub read: bool,
    /// Whether it may be writable.
    pub write: bool,
}

/// A connected socket, or standard input and output.
#[derive(Debug)]
pub enum Sock {
    /// A TCP socket.
    Tcp(TcpStream),
    /// Standard input and output.
    Stdio(Box<Stdio>),
}

impl MioNet {
    /// Makes a network without listeners.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            clock: Clock::start(),
            listeners: Vec::new(),
            sockets: 0,
            sockets_max: usize::MAX,
            signals: None,
            signalled: false,
            status: None,
            asked: false,
            own_edges: Vec::new(),
            waker,
            resolver: None,
            paths: None,
            pipes: Pipes::default(),
        })
    }

    /// Opens a listener. Returns its address, with the actual port if 0 was requested. Its index is the number of
    /// earlier listeners. `[::]` accepts IPv4 as well.
    ///
    /// # Errors
    /// Those of socket, bind and listen.
    pub fn listen(&mut self, on: SocketAddr) -> io::Result<SocketAddr> {
        self.bind(on, Bind::default())
    }

    /// Opens a listener like [`MioNet::listen`], with options.
    ///
    /// # Errors
    /// Those of socket, bind and listen.
    pub fn bind(&mut self, on: SocketAddr, bind: Bind) -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(on), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if on.is_ipv6() {
            socket.set_only_v6(bind.only_v6 || on.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
        }
        if bind.may_be_missing {
            set_free_bind(&socket, on)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&on.into())?;
        socket.listen(BACKLOG)?;
        self.take_listener(socket.into())
    }

    /// Takes over a non-blocking listener that was opened elsewhere. Returns its address. Its index is assigned as in
    /// [`MioNet::listen`].
    ///
    /// # Errors
    /// Those of the registration call.
    pub fn take_listener(&mut self, listener: std::net::TcpListener) -> io::Result<SocketAddr> {
        let mut listener = TcpListener::from_std(listener);
        let token = Token(SPECIAL + self.listeners.len());
        self.poll.registry().register(&mut listener, token, Interest::READABLE)?;
        let address = listener.local_addr()?;
        self.listeners.push(listener);
        Ok(address)
    }

    /// Allows at most `max` kernel pipes between cleartext sockets; each uses two descriptors. By default there are
    /// none.
    pub const fn allow_pipes(&mut self, max: usize) {
        self.pipes.set_max(max);
    }

    /// Limits the number of connected sockets, to leave descriptors for other uses. Beyond the limit, accepting fails
    /// as if there were no descriptors left. By default there is no limit.
    pub const fn limit_sockets(&mut self, max: usize) {
        self.sockets_max = max;
    }

    /// Returns a waker that wakes [`Net::wait`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Watches this machine's addresses and routes. A change wakes [`Net::wait`] and is reported by
    /// [`MioNet::paths_changed`].
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn watch_paths(&mut self) -> io::Result<()> {
        self.paths = Some(Paths::watch(self.waker())?);
        Ok(())
    }

    /// Whether an address or a route has changed since the last call.
    pub fn paths_changed(&self) -> bool {
        self.paths.as_ref().is_some_and(Paths::take)
    }

    /// Watches a socket that the program serves itself, apart from the machine's connections. Its edges wake
    /// [`Net::wait`]. `place` is less than 128.
    ///
    /// # Errors
    /// Those of the registration call.
    pub fn register_own(&self, socket: &mut impl Source, place: usize) -> io::Result<()> {
        debug_assert!(place < OWN_MAX, "no token for it");
        self.poll.registry().register(socket, Token(OWN + place), Interest::READABLE | Interest::WRITABLE)
    }

    /// Stops watching a socket.
    pub fn deregister_own(&self, socket: &mut impl Source) {
        // If this fails, closing the socket ends the watch.
        let _ = self.poll.registry().deregister(socket);
    }

    /// The edges of sockets in these places since the last call. One for an earlier socket with the same place is
    /// harmless.
    pub fn take_own_edges(&mut self, places: Range<usize>) -> Vec<OwnEdge> {
        let (taken, rest) =
            std::mem::take(&mut self.own_edges).into_iter().partition(|edge| places.contains(&edge.place));
        self.own_edges = rest;
        taken
    }

    /// Duplicates of the descriptors of all listeners, in the order of opening, for another process.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn listener_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.listeners.iter().map(|listener| listener.as_fd().try_clone_to_owned()).collect()
    }

    /// Closes the status socket.
    pub fn close_status(&mut self) {
        if let Some(mut status) = self.status.take() {
            let _ = self.poll.registry().deregister(&mut status);
        }
    }

    /// Takes the status socket. A connection to it wakes [`Net::wait`] and is returned by [`MioNet::caller`].
    ///
    /// # Errors
    /// Those of the registration call.
    pub fn take_status(&mut self, mut listener: UnixListener) -> io::Result<()> {
        self.poll.registry().register(&mut listener, STATUS, Interest::READABLE)?;
        self.status = Some(listener);
        // Connections that came before caused no edge.
        self.asked = true;
        Ok(())
    }

    /// Accepts the next connection to the status socket.
    pub fn caller(&mut self) -> Option<UnixStream> {
        let listener = self.status.as_ref().filter(|_| self.asked)?;
        match listener.accept() {
            Ok((caller, _)) => Some(caller),
            Err(error) => {
                // After any other error, try again in the next turn: there is no further edge.
                self.asked = error.kind() != io::ErrorKind::WouldBlock;
                None
            }
        }
    }

    /// Handles these signals: they wake [`Net::wait`] and are returned by [`MioNet::signal`].
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn take_signals(&mut self, which: &[i32]) -> io::Result<()> {
        self.signals = Some(Signals::take(self.poll.registry(), SIGNALS, &self.waker, which)?);
        // A signal before the registration may have caused no edge.
        self.signalled = true;
        Ok(())
    }

    /// Returns the next pending signal.
    pub fn signal(&mut self) -> Option<i32> {
        // Checking for signals in every turn would add about 5 % to the time of a relayed request.
        let signals = self.signals.as_mut().filter(|_| self.signalled)?;
        let signal = signals.next();
        self.signalled = signal.is_some();
        signal
    }
}

impl Net for MioNet {
    type Sock = Sock;
    type Pipe = Pipe;

    const BULK_MIN: usize = 16 * 1024;

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn wait(&mut self, edges: &mut Vec<Edge>, at_most: Option<Span>) -> io::Result<()> {
        let has_answer = self.resolver.as_ref().is_some_and(Resolver::has_answer);
        let at_most = if has_answer { Some(Span::ZERO) } else { at_most };
        // mio rounds up to milliseconds.
        match self.poll.poll(&mut self.events, at_most.map(|span| Duration::from_micros(span.0))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            match event.token() {
                SIGNALS => self.signalled = true,
                WAKER => self.signalled |= signals::USE_WAKER,
                STATUS => self.asked = true,
                Token(own @ OWN..) if own < OWN + OWN_MAX => self.own_edges.push(OwnEdge {
                    place: own - OWN,
                    read: event.is_readable() || event.is_read_closed() || event.is_error(),
                    write: event.is_writable() || event.is_write_closed() || event.is_error(),
                }),
                Token(special) if special >= SPECIAL => {
                    edges.push(Edge::Listener(u16::try_from(special - SPECIAL).unwrap_or(u16::MAX)));
                }
                Token(token) => edges.push(Edge::Conn {
                    token: from_token(token),
                    // On an error or hang-up, calls in both directions find out the reason.
                    read: event.is_readable() || event.is_read_closed() || event.is_error(),
                    write: event.is_writable() || event.is_write_closed() || event.is_error(),
                }),
            }
        }
        Ok(())
    }

    fn accept(&mut self, on: u16) -> io::Result<(Sock, SocketAddr)> {
        let listener = self.listeners.get(usize::from(on)).ok_or(io::ErrorKind::WouldBlock)?;
        if self.sockets >= self.sockets_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let (stream, from) = listener.accept()?;
        self.sockets += 1;
        tune(&stream);
        // A dual-stack listener reports IPv4 peers as IPv4-mapped addresses.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        Ok((Sock::Tcp(stream), from))
    }

    fn rearm(&mut self, on: u16) -> io::Result<()> {
        let Some(listener) = self.listeners.get_mut(usize::from(on)) else { return Ok(()) };
        self.poll.registry().reregister(listener, Token(SPECIAL + usize::from(on)), Interest::READABLE)
    }

    fn stop_listening(&mut self) {
        for mut listener in self.listeners.drain(..) {
            // Closing is not enough if the service manager or another process holds the same socket.
            let _ = self.poll.registry().deregister(&mut listener);
        }
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Sock> {
        let stream = TcpStream::connect(to)?;
        self.sockets += 1;
        tune(&stream);
        Ok(Sock::Tcp(stream))
    }

    fn connected(&mut self, sock: &mut Sock) -> io::Result<bool> {
        let Sock::Tcp(stream) = sock else { return Ok(true) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn local_address(&mut self, sock: &mut Sock) -> io::Result<SocketAddr> {
        match sock {
            Sock::Tcp(stream) => stream.local_addr(),
            Sock::Stdio(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn watch(&mut self, sock: &mut Sock, token: ConnId) -> io::Result<()> {
        let registry = self.poll.registry();
        match sock {
            Sock::Tcp(stream) => {
                registry.register(stream, to_token(token), Interest::READABLE | Interest::WRITABLE)
            }
            Sock::Stdio(stdio) => stdio.watch(registry, to_token(token)),
        }
    }

    fn recv(&mut self, sock: &mut Sock, into: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match sock {
            Sock::Tcp(stream) => stream.read(into),
            Sock::Stdio(stdio) => stdio.recv(into),
        })
    }

    fn peek_end(&mut self, sock: &mut Sock) -> io::Result<bool> {
        match sock {
            Sock::Tcp(stream) => uninterrupted(|| stream.peek(&mut [0])).map(|n| n == 0),
            // `WouldBlock` would mean that it is not readable.
            Sock::Stdio(_) => Ok(false),
        }
    }

    fn send(&mut self, sock: &mut Sock, from: &[u8]) -> io::Result<usize> {
        uninterrupted(|| match sock {
            Sock::Tcp(stream) => stream.write(from),
            Sock::Stdio(stdio) => stdio.send(from),
        })
    }

    fn limit_unsent(&mut self, sock: &mut Sock, bytes: usize) {
        if let Sock::Tcp(stream) = sock {
            linux::limit_unsent(stream, bytes);
        }
    }

    fn take_pipe(&mut self, from: &Sock, to: &Sock) -> Option<Pipe> {
        match (from, to) {
            (Sock::Tcp(_), Sock::Tcp(_)) => self.pipes.take(),
            (Sock::Stdio(_), _) | (_, Sock::Stdio(_)) => None,
        }
    }

    fn give_pipe(&mut self, pipe: Pipe) {
        self.pipes.give(pipe);
    }

    fn splice_in(&mut self, sock: &mut Sock, pipe: &mut Pipe, at_most: usize) -> io::Result<usize> {
        let Sock::Tcp(stream) = sock else { return Err(io::ErrorKind::Unsupported.into()) };
        match uninterrupted(|| pipe.fill(stream, at_most)) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        // splice(2) also returns 0 in front of TCP urgent data.
        match uninterrupted(|| stream.peek(&mut [0]))? {
            0 => Ok(0),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn splice_out(&mut self, pipe: &mut Pipe, sock: &mut Sock) -> io::Result<usize> {
        let Sock::Tcp(stream) = sock else { return Err(io::ErrorKind::Unsupported.into()) };
        uninterrupted(|| pipe.empty(stream))
    }

    fn end_write(&mut self, sock: &mut Sock) -> io::Result<()> {
        match sock {
            Sock::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Sock::Stdio(stdio) => {
                stdio.end_write(self.poll.registry());
                Ok(())
            }
        }
    }

    fn close(&mut self, sock: Sock) {
        match sock {
            Sock::Tcp(_) => self.sockets = self.sockets.saturating_sub(1),
            Sock::Stdio(mut stdio) => stdio.unwatch(self.poll.registry()),
        }
    }

    fn abort(&mut self, sock: Sock) {
        if let Sock::Tcp(stream) = &sock {
            // If this fails, the connection is closed without a reset.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.close(sock);
    }

    fn take_error(&mut self, sock: &mut Sock) -> Option<io::Error> {
        match sock {
            Sock::Tcp(stream) => stream.take_error().unwrap_or_else(Some),
            Sock::Stdio(stdio) => stdio.take_error(),
        }
    }

    fn user_timeout(&mut self, sock: &mut Sock, after: Option<Span>) {
        #[cfg(target_os = "linux")]
        if let Sock::Tcp(stream) = sock {
            // If this fails, the system's default timeout applies.
            let after = after.map(|span| Duration::from_micros(span.0));
            let _ = SockRef::from(&*stream).set_tcp_user_timeout(after);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (sock, after);
    }

    fn last_ack(&mut self, sock: &mut Sock) -> Option<Span> {
        let Sock::Tcp(stream) = sock else { return None };
        let acks = linux::acks(stream)?;
        acks.outstanding.then(|| Span(u64::try_from(acks.last.as_micros()).unwrap_or(u64::MAX)))
    }

    fn round_trip(&mut self, sock: &mut Sock) -> Option<Span> {
        let Sock::Tcp(stream) = sock else { return None };
        linux::acks(stream).map(|acks| Span(u64::try_from(acks.round_trip.as_micros()).unwrap_or(u64::MAX)))
    }

    fn unacknowledged(&mut self, sock: &mut Sock) -> usize {
        match sock {
            Sock::Tcp(stream) => linux::unacknowledged(stream),
            Sock::Stdio(stdio) => stdio.unwritten(),
        }
    }

    fn resolve(&mut self, on: ConnId, host: &str, port: u16) {
        let now = self.clock.now().mono;
        let resolver = self.resolver.get_or_insert_with(|| Resolver::new(Arc::clone(&self.waker)));
        resolver.ask(on, host, port, now);
    }

    fn resolved(&mut self) -> Option<Resolved> {
        let now = self.clock.now().mono;
        self.resolver.as_mut()?.answer(now)
    }
}

/// Repeats a call that a signal interrupted.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(target_os = "linux")]
fn set_free_bind(socket: &Socket, on: SocketAddr) -> io::Result<()> {
    if on.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) }
}

#[cfg(not(target_os = "linux"))]
fn set_free_bind(_: &Socket, _: SocketAddr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Disables Nagle's algorithm and enables keepalive, which detects a dead idle path. Errors are ignored: the connection
/// works without them.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

const fn to_token(id: ConnId) -> Token {
    Token(((id.generation & GENERATION_MASK) as usize) << INDEX_BITS | id.index as usize)
}

fn from_token(token: usize) -> ConnId {
    let part = |bits: usize| u32::try_from(bits).unwrap_or(u32::MAX);
    ConnId { index: part(token & ((1 << INDEX_BITS) - 1)), generation: part(token >> INDEX_BITS) }
}
