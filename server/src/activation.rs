//! Socket activation (sd_listen_fds(3)). The service manager holds the listening sockets during a restart, so
//! connections wait in their backlogs and are not refused.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};

use rendezvous_core::engine::Transport;
use socket2::Socket;

use crate::failure::{Failure, reason};
use crate::linux;

/// The first inherited descriptor.
const FIRST: i32 = 3;
/// Limit of inherited descriptors.
const COUNT_MAX: i32 = 1024;

/// An inherited listener.
#[derive(Debug)]
pub struct Inherited {
    /// The socket, non-blocking.
    pub listener: TcpListener,
    /// The address that it listens on.
    pub on: SocketAddr,
    /// The protocol that its connections use.
    pub transport: Transport,
}

/// Takes all inherited listeners, in order, and removes the variables that announce them from the environment.
///
/// # Errors
/// [`Failure`] if a descriptor is not a listening TCP socket, or if its name is unknown.
pub fn take() -> Result<Vec<Inherited>, Failure> {
    let [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(linux::take_variable);
    // The variables are for another process, which started this one without removing them.
    if number(pid) != i32::try_from(std::process::id()).ok() {
        return Ok(Vec::new());
    }
    let Some(count) = number(count).filter(|count| (0..=COUNT_MAX).contains(count)) else {
        return Err(Failure::Failed("LISTEN_FDS is not a valid number of sockets".to_owned()));
    };
    let names = names.map(|names| names.to_string_lossy().into_owned()).unwrap_or_default();
    let mut names = names.split(':');
    (FIRST..FIRST + count).map(|fd| inherit(fd, names.next().unwrap_or_default())).collect()
}

/// The protocol for a socket with this name (`FileDescriptorName=` of a socket unit). Without that line, the name is
/// the unit's; outside of systemd there is none.
///
/// # Errors
/// The name is unknown.
pub fn transport(name: &str) -> Result<Transport, Failure> {
    match name {
        "tls" | "" | "unknown" | "stored" => Ok(Transport::Tls),
        "plain" => Ok(Transport::Plain),
        "proxy" => Ok(Transport::Proxied),
        unit if unit.ends_with(".socket") => Ok(Transport::Tls),
        other => Err(Failure::Failed(format!(
            "cannot use the inherited socket '{other}': its FileDescriptorName= must be tls, plain or proxy"
        ))),
    }
}

fn number(text: Option<OsString>) -> Option<i32> {
    text?.to_str()?.parse().ok()
}

fn inherit(fd: i32, name: &str) -> Result<Inherited, Failure> {
    let transport = transport(name)?;
    let failed =
        |why: &str| Failure::Failed(format!("cannot use the inherited socket {fd} ('{name}'): {why}"));
    let socket = Socket::from(linux::inherited(fd).map_err(|error| failed(&reason(&error)))?);
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    let (Some(on), Ok(true), Ok(socket2::Type::STREAM)) =
        (address, linux::is_listener(&socket), socket.r#type())
    else {
        return Err(failed("not a listening TCP socket (ListenStream=)"));
    };
    socket.set_nonblocking(true).map_err(|error| failed(&reason(&error)))?;
    Ok(Inherited { listener: socket.into(), on, transport })
}
