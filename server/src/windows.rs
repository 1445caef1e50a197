//! Windows: what `linux` offers on other systems, with the same names. Sockets of the file system, service managers,
//! splice(2) and the checks of owners and modes are missing.
//!
//! Only compiled so far, not run: `server/dist/cross check`.

pub(crate) mod descriptors;
pub(crate) mod files;
pub mod notify;
pub(crate) mod signals;
pub mod socket_file;
pub mod stdio;

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::windows::io::{AsHandle, OwnedSocket};
use std::time::Duration;

/// State of a connection's acknowledgements: unknown on this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acks {
    /// Whether an acknowledgement is outstanding.
    pub(crate) outstanding: bool,
    /// Time since the last one was received.
    pub(crate) last: Duration,
    /// Smoothed round-trip time.
    pub(crate) round_trip: Duration,
}

/// Reads TCP_INFO: unknown on this system.
pub(crate) const fn acks<S>(_: &S) -> Option<Acks> {
    None
}

/// Nothing: the system keeps its own bound.
pub(crate) const fn limit_unsent<S>(_: &S, _: usize) {}

/// Number of sent but unacknowledged bytes: unknown on this system.
pub(crate) const fn unacknowledged<S>(_: &S) -> usize {
    0
}

/// Does nothing: files and consoles always block here.
///
/// # Errors
/// None.
pub(crate) const fn wait_writable(_: &File) -> io::Result<()> {
    Ok(())
}

/// Not available on this system.
///
/// # Errors
/// Always.
pub(crate) fn route_messages() -> io::Result<socket2::Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: there is no call for it.
pub(crate) const fn trim_heap() {}

/// The rows and columns of a terminal: unknown on this system.
#[cfg(feature = "qr")]
pub(crate) const fn terminal_size<T>(_: &T) -> Option<(u16, u16)> {
    None
}

/// The limit of open sockets: unknown on this system.
pub(crate) const fn raise_descriptors() -> Option<u64> {
    None
}

/// Does nothing: these privileges are not known here.
///
/// # Errors
/// None.
pub(crate) const fn give_up_privileges() -> io::Result<()> {
    Ok(())
}

/// Does nothing: there is no such limit.
///
/// # Errors
/// None.
pub(crate) const fn survive_file_size_limit() -> io::Result<()> {
    Ok(())
}

/// Whether this process runs as root, which does not exist here.
pub(crate) const fn is_root() -> bool {
    false
}

/// The user that `files::MetadataExt::uid` says of every file.
pub(crate) const fn effective_user() -> u32 {
    0
}

/// Whether a user ID stands for users that this user namespace does not map: there are no namespaces.
pub(crate) const fn is_unmapped_user(_: u32) -> bool {
    false
}

/// Removes a variable from the environment, so that child programs do not inherit it.
#[allow(unsafe_code, reason = "remove_var, which is safe on Windows")]
pub(crate) fn take_variable(name: &str) -> Option<std::ffi::OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: on Windows it may be called by any thread (std::env::remove_var).
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Sockets are not inherited by their number.
///
/// # Errors
/// Always.
pub(crate) fn inherited(_: i32) -> io::Result<OwnedSocket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a socket listens: unknown on this system.
///
/// # Errors
/// None.
pub(crate) const fn is_listener(_: &socket2::Socket) -> io::Result<bool> {
    Ok(true)
}

/// Another handle of standard error.
///
/// # Errors
/// There is no standard error, or the system has no handles left.
pub(crate) fn stderr() -> io::Result<File> {
    Ok(File::from(io::stderr().as_handle().try_clone_to_owned()?))
}

/// The resident memory of this process: unknown on this system.
pub(crate) const fn resident_memory() -> Option<u64> {
    None
}

/// Number of open descriptors of this process: unknown on this system.
pub(crate) const fn descriptors() -> Option<usize> {
    None
}

/// Turns off the echo of a console: not available.
pub(crate) struct EchoOff<'t, T>(PhantomData<&'t T>);

impl<'t, T> EchoOff<'t, T> {
    /// Fails, so that no password is shown.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn on(_: &'t T) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "pipe the password to standard input"))
    }
}
