//! System calls that the standard library does not offer, most of them Linux only. Elsewhere TCP state is unknown, and
//! only keepalive detects dead peers.

pub(crate) mod descriptors;
pub(crate) mod files;
pub(crate) mod signals;

use std::os::fd::AsFd;
use std::time::Duration;

/// State of a connection's acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acks {
    /// Whether an acknowledgement is outstanding, for data in flight or for zero-window probes.
    pub(crate) outstanding: bool,
    /// Time since the last one was received.
    pub(crate) last: Duration,
    /// Smoothed round-trip time.
    pub(crate) round_trip: Duration,
}

/// Reads TCP_INFO; `None` if there is none (not TCP, not Linux).
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "getsockopt(2) into a plain structure of numbers")]
pub(crate) fn acks(sock: &impl AsFd) -> Option<Acks> {
    use std::mem::{size_of, zeroed};
    use std::os::fd::AsRawFd;

    // SAFETY: tcp_info is a C structure of integers, for which all zeroes are valid.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the descriptor is open for the length of the borrow; `info` and `len` are valid for writing, and `len` is
    // the size of `info`.
    let rc = unsafe {
        libc::getsockopt(
            sock.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (rc == 0).then(|| Acks {
        // With a closed window nothing is in flight, but a living peer answers the probes.
        outstanding: info.tcpi_unacked > 0 || info.tcpi_probes >= 2,
        last: Duration::from_millis(u64::from(info.tcpi_last_ack_recv)),
        round_trip: Duration::from_micros(u64::from(info.tcpi_rtt)),
    })
}

/// TCP_NOTSENT_LOWAT: how many unsent bytes a socket may hold. A system that refuses keeps its own bound.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "setsockopt(2) with one integer")]
pub(crate) fn limit_unsent(sock: &impl AsFd, bytes: usize) {
    use std::mem::size_of_val;
    use std::os::fd::AsRawFd;

    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let Ok(len) = libc::socklen_t::try_from(size_of_val(&bytes)) else { return };
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT);
    // SAFETY: the descriptor is open for the length of the borrow; `bytes` is valid for reading, and `len` bytes long.
    unsafe { libc::setsockopt(sock.as_fd().as_raw_fd(), level, option, (&raw const bytes).cast(), len) };
}

/// Number of sent but unacknowledged bytes (SIOCOUTQ); 0 if unknown.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "ioctl(2) into one integer")]
pub(crate) fn unacknowledged(sock: &impl AsFd) -> usize {
    use std::os::fd::AsRawFd;

    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the length of the borrow; TIOCOUTQ, which SIOCOUTQ is, writes one int.
    let rc = unsafe { libc::ioctl(sock.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if rc == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Receives available data without blocking, even on a blocking socket. Returns 0 at EOF.
///
/// # Errors
/// Those of recv(2); `WouldBlock` if there is no data.
#[allow(unsafe_code, reason = "recv(2) into a slice")]
pub(crate) fn receive_now(socket: &impl AsFd, into: &mut [u8]) -> std::io::Result<usize> {
    use std::os::fd::AsRawFd;

    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the length of the borrow; `into` is valid for writing that many bytes.
    let rc = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) };
    usize::try_from(rc).map_err(|_| std::io::Error::last_os_error())
}

/// Sends as much as there is room for without blocking, even on a blocking socket.
///
/// # Errors
/// Those of send(2); `WouldBlock` if there is no room.
#[allow(unsafe_code, reason = "send(2) from a slice")]
pub(crate) fn send_now(socket: &impl AsFd, from: &[u8]) -> std::io::Result<usize> {
    use std::os::fd::AsRawFd;

    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the length of the borrow; `from` is valid for reading that many bytes.
    let rc = unsafe { libc::send(fd, from.as_ptr().cast(), from.len(), libc::MSG_DONTWAIT) };
    usize::try_from(rc).map_err(|_| std::io::Error::last_os_error())
}

/// Waits until a file is readable, or at EOF or in error.
///
/// # Errors
/// Those of poll(2).
pub(crate) fn wait_readable(file: &impl AsFd) -> std::io::Result<()> {
    wait(file, libc::POLLIN)
}

/// Waits until a file is writable, or in error.
///
/// # Errors
/// Those of poll(2).
pub(crate) fn wait_writable(file: &impl AsFd) -> std::io::Result<()> {
    wait(file, libc::POLLOUT)
}

#[allow(unsafe_code, reason = "poll(2) on one plain structure")]
fn wait(file: &impl AsFd, events: libc::c_short) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;

    let mut poll = libc::pollfd { fd: file.as_fd().as_raw_fd(), events, revents: 0 };
    // SAFETY: `poll` is one structure, valid for reading and writing; the descriptor is open for the length of the borrow.
    let rc = unsafe { libc::poll(&raw mut poll, 1, -1) };
    let error = std::io::Error::last_os_error();
    if rc < 0 && error.kind() != std::io::ErrorKind::Interrupted { Err(error) } else { Ok(()) }
}

/// Makes a pipe of this capacity in bytes. Returns its read end and its write end.
///
/// # Errors
/// Those of pipe2(2), and of fcntl(2) if this user's pipes have reached the system's limit.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "pipe2(2) into two integers, and fcntl(2) on one of them")]
pub(crate) fn pipe(bytes: i32) -> std::io::Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: both were just opened, and nothing else owns them.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: F_SETPIPE_SZ takes an integer; the descriptor is open.
    if unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok((read, write))
}

/// Moves at most `at_most` bytes between a pipe and a socket in the kernel. Returns 0 at the EOF of `from`.
///
/// # Errors
/// Those of splice(2); `WouldBlock` if `from` has no data or `to` has no room.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "splice(2) between open descriptors")]
pub(crate) fn splice(from: &impl AsFd, to: &impl AsFd, at_most: usize) -> std::io::Result<usize> {
    use std::os::fd::AsRawFd;
    use std::ptr::null_mut;

    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open for the length of the borrows; without offsets nothing is written by address.
    let rc = unsafe { libc::splice(from, null_mut(), to, null_mut(), at_most, flags) };
    usize::try_from(rc).map_err(|_| std::io::Error::last_os_error())
}

/// Reads TCP_INFO: unknown on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn acks(_: &impl AsFd) -> Option<Acks> {
    None
}

/// Nothing: other systems keep their own bound.
#[cfg(not(target_os = "linux"))]
pub(crate) fn limit_unsent(_: &impl AsFd, _: usize) {}

/// Number of sent but unacknowledged bytes: unknown on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn unacknowledged(_: &impl AsFd) -> usize {
    0
}

/// Opens a socket that receives a message for each change of this machine's addresses and routes (rtnetlink(7)).
///
/// # Errors
/// Those of socket(2) and bind(2).
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a socket address that socket2 has no type for")]
pub(crate) fn route_messages() -> std::io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

    let groups = libc::RTMGRP_IPV4_IFADDR
        | libc::RTMGRP_IPV4_ROUTE
        | libc::RTMGRP_IPV6_IFADDR
        | libc::RTMGRP_IPV6_ROUTE;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_nl is a C structure of integers and smaller than the storage.
    let address = unsafe { storage.view_as::<libc::sockaddr_nl>() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
    address.nl_groups = u32::try_from(groups).unwrap_or_default();
    let len = libc::socklen_t::try_from(std::mem::size_of::<libc::sockaddr_nl>()).unwrap_or_default();
    // SAFETY: the storage holds a sockaddr_nl of that length.
    let address = unsafe { SockAddr::new(storage, len) };
    let protocol = Some(Protocol::from(libc::NETLINK_ROUTE));
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), protocol)?;
    socket.bind(&address)?;
    Ok(socket)
}

/// Not available on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn route_messages() -> std::io::Result<socket2::Socket> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Returns freed memory to the system, which the C library would keep.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "malloc_trim(3) takes one integer")]
pub(crate) fn trim_heap() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other C libraries keep less memory and have no call for it.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) const fn trim_heap() {}

/// Makes the descriptor number of `place` refer to `file` (dup2).
///
/// # Errors
/// Those of dup2(2).
#[allow(unsafe_code, reason = "dup2(2) between open descriptors")]
pub(crate) fn replace(file: &impl AsFd, place: &impl AsFd) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;

    // SAFETY: both descriptors are open for the length of the borrows; the owner of `place` then owns a duplicate of
    // `file`.
    let rc = unsafe { libc::dup2(file.as_fd().as_raw_fd(), place.as_fd().as_raw_fd()) };
    if rc < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Raises the limit of open descriptors to the hard limit. Returns the new limit, or `None` if it is unknown.
#[allow(unsafe_code, reason = "getrlimit(2) and setrlimit(2) on a plain structure of numbers")]
pub(crate) fn raise_descriptors() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is valid for reading.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    Some(limit.rlim_cur)
}

/// Drops privileges that no command needs: programs started from here gain no rights, and core dumps and debuggers of
/// the same user cannot read the secrets in memory.
///
/// # Errors
/// The first call that failed; the others were tried as well.
#[allow(unsafe_code, reason = "prctl(2) with integers, and setrlimit(2) on a plain structure of numbers")]
pub(crate) fn give_up_privileges() -> std::io::Result<()> {
    let check = |rc: libc::c_int| if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is valid for reading.
    let core = check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) });
    #[cfg(target_os = "linux")]
    let (dumps, privileges) = {
        let no: libc::c_ulong = 0;
        let yes: libc::c_ulong = 1;
        // SAFETY: both options take only integers and affect only this process.
        let dumps = check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, no, no, no, no) });
        // SAFETY: as above.
        (dumps, check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no) }))
    };
    #[cfg(not(target_os = "linux"))]
    let (dumps, privileges) = (Ok(()), Ok(()));
    core.and(dumps).and(privileges)
}

/// The rows and columns of a terminal; `None` if it is none, or if it does not tell.
#[cfg(feature = "qr")]
#[allow(unsafe_code, reason = "ioctl(2) into a plain structure of numbers")]
pub(crate) fn terminal_size(terminal: &impl AsFd) -> Option<(u16, u16)> {
    use std::os::fd::AsRawFd;

    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the length of the borrow; TIOCGWINSZ writes a winsize.
    let rc = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (rc == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    effective_user() == 0
}

/// The effective user ID of this process.
#[allow(unsafe_code, reason = "geteuid(2), which cannot fail")]
pub(crate) fn effective_user() -> u32 {
    // SAFETY: it only returns a number.
    unsafe { libc::geteuid() }
}

/// Whether a user ID stands for users that this user namespace does not map (user_namespaces(7)).
pub(crate) fn is_unmapped_user(uid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    if read("/proc/sys/kernel/overflowuid").trim().parse() != Ok(uid) {
        return false;
    }
    let map = read("/proc/self/uid_map");
    let is_in = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u64>().ok());
        let (Some(first), _, Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return true;
        };
        (first..first.saturating_add(count)).contains(&u64::from(uid))
    };
    // Without a map there is no user namespace.
    !map.is_empty() && !map.lines().any(is_in)
}

/// Runs `make` with a file mode creation mask of 0177, so that new files are private to their owner.
///
/// The mask applies to the whole process: files that other threads create at the same time are private as well.
#[allow(unsafe_code, reason = "umask(2), which cannot fail")]
pub(crate) fn with_private_files<R>(make: impl FnOnce() -> R) -> R {
    // SAFETY: it takes and returns an integer.
    let before = unsafe { libc::umask(0o177) };
    let made = make();
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    made
}

/// Removes a variable from the environment, so that child programs do not inherit it.
///
/// Call it only at the start of a command, while no other thread reads the environment.
#[allow(unsafe_code, reason = "the environment is the C library's, which other threads may be reading")]
pub(crate) fn take_variable(name: &str) -> Option<std::ffi::OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: the only other thread at that time is that of the log, which does not read the environment.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Takes over a descriptor that this process inherited, by its number, and sets FD_CLOEXEC.
///
/// # Errors
/// The descriptor is not open.
#[allow(unsafe_code, reason = "a descriptor's number from outside, and fcntl(2) on it")]
pub(crate) fn inherited(number: i32) -> std::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::{FromRawFd, OwnedFd};

    // SAFETY: F_SETFD takes an integer, and fails if the number is not an open descriptor.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: it is open, as just checked; the parent process passed it to us, and the caller takes it once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether a socket listens.
///
/// # Errors
/// Those of getsockopt(2).
#[cfg(target_os = "linux")]
pub(crate) fn is_listener(socket: &socket2::Socket) -> std::io::Result<bool> {
    socket.is_listener()
}

/// Whether a socket listens: unknown on this system, where accepting fails if it does not.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_listener(_: &socket2::Socket) -> std::io::Result<bool> {
    Ok(true)
}

/// Another descriptor of standard error.
///
/// # Errors
/// It is closed, or the system has no descriptors left.
pub(crate) fn stderr() -> std::io::Result<std::fs::File> {
    Ok(std::fs::File::from(std::io::stderr().as_fd().try_clone_to_owned()?))
}

/// Ignores SIGXFSZ, so that a write beyond the file size limit (RLIMIT_FSIZE) fails instead of ending the program.
///
/// # Errors
/// Those of sigaction(2).
pub(crate) fn survive_file_size_limit() -> std::io::Result<()> {
    let reached = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, reached).map(drop)
}

/// The monotonic clock in microseconds, as the service manager reads it; `None` if there is none.
#[allow(unsafe_code, reason = "clock_gettime(2) into a plain structure of numbers")]
pub(crate) fn monotonic_micros() -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0 {
        return None;
    }
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    Some(seconds * 1_000_000 + nanos / 1_000)
}

/// The resident memory of this process in bytes; `None` if unknown.
pub(crate) fn resident_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Number of open descriptors of this process; `None` if unknown.
pub(crate) fn descriptors() -> Option<usize> {
    // Since Linux 6.2 the size of this folder is their number. Listing thousands of them takes milliseconds.
    if let Some(count @ 1..) = std::fs::metadata("/proc/self/fd").ok().map(|folder| folder.len()) {
        return usize::try_from(count).ok();
    }
    let listed = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them belongs to the directory listing itself.
    Some(listed.count().saturating_sub(1))
}

/// Turns off the echo of a terminal until it is dropped.
pub(crate) struct EchoOff<'t, T: AsFd> {
    terminal: &'t T,
    before: libc::termios,
}

impl<'t, T: AsFd> EchoOff<'t, T> {
    /// Turns the echo off. The line feed at the end of a line is still shown.
    ///
    /// # Errors
    /// `terminal` is not a terminal.
    #[allow(unsafe_code, reason = "tcgetattr(3) into a plain structure of numbers")]
    pub(crate) fn on(terminal: &'t T) -> std::io::Result<Self> {
        use std::os::fd::AsRawFd;

        // SAFETY: termios is a C structure of integers, for which all zeroes are valid.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open for the length of the borrow; `before` is valid for writing.
        if unsafe { libc::tcgetattr(terminal.as_fd().as_raw_fd(), &raw mut before) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let this = Self { terminal, before };
        let mut silent = before;
        silent.c_lflag = silent.c_lflag & !libc::ECHO | libc::ECHONL;
        this.set(&silent)?;
        Ok(this)
    }

    #[allow(unsafe_code, reason = "tcsetattr(3) from a plain structure of numbers")]
    fn set(&self, to: &libc::termios) -> std::io::Result<()> {
        use std::os::fd::AsRawFd;

        // SAFETY: the descriptor is open for the length of the borrow; `to` is a structure that tcgetattr(3) filled.
        let rc = unsafe { libc::tcsetattr(self.terminal.as_fd().as_raw_fd(), libc::TCSAFLUSH, to) };
        if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

impl<T: AsFd> Drop for EchoOff<'_, T> {
    fn drop(&mut self) {
        // Ignored: the terminal may be gone.
        let _ = self.set(&self.before);
    }
}
