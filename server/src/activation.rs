//! Listening sockets that the service manager opened (sd_listen_fds(3)): it holds them while we restart, so that
//! whoever connects meanwhile waits in them and is not refused.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};

use rendezvous_core::engine::Transport;
use socket2::Socket;

use crate::failure::{Failure, reason};
use crate::linux;

/// The first descriptor that is passed on.
const FIRST: i32 = 3;
/// More than anybody passes on.
const COUNT_MAX: i32 = 1024;

/// A listener that was passed on.
#[derive(Debug)]
pub struct Inherited {
    /// The socket, non-blocking.
    pub listener: TcpListener,
    /// Where it listens.
    pub on: SocketAddr,
    /// What it speaks.
    pub transport: Transport,
}

/// All that were passed on to this process, in their order. The variables that say so are taken out of the environment.
///
/// # Errors
/// [`Failure`] for a descriptor that is no listening TCP socket, and a name that says nothing.
pub fn take() -> Result<Vec<Inherited>, Failure> {
    let [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(linux::take_variable);
    // Meant for another, one that started us and forgot to take them out.
    if number(pid) != i32::try_from(std::process::id()).ok() {
        return Ok(Vec::new());
    }
    let Some(count) = number(count).filter(|count| (0..=COUNT_MAX).contains(count)) else {
        return Err(Failure::Failed("LISTEN_FDS is not a number of sockets".to_owned()));
    };
    let names = names.map(|names| names.to_string_lossy().into_owned()).unwrap_or_default();
    let mut names = names.split(':');
    (FIRST..FIRST + count).map(|fd| inherit(fd, names.next().unwrap_or_default())).collect()
}

/// What a socket of that name (`FileDescriptorName=` of a socket unit) speaks. Without the line it has the unit's
/// name, and in a shell none.
///
/// # Errors
/// It is none of the names that say it.
pub fn transport(name: &str) -> Result<Transport, Failure> {
    match name {
        "tls" | "" | "unknown" | "stored" => Ok(Transport::Tls),
        "plain" => Ok(Transport::Plain),
        "proxy" => Ok(Transport::Proxied),
        unit if unit.ends_with(".socket") => Ok(Transport::Tls),
        other => Err(Failure::Failed(format!(
            "the inherited socket named '{other}': what does it speak? FileDescriptorName= is tls, plain or proxy"
        ))),
    }
}

fn number(text: Option<OsString>) -> Option<i32> {
    text?.to_str()?.parse().ok()
}

fn inherit(fd: i32, name: &str) -> Result<Inherited, Failure> {
    let transport = transport(name)?;
    let failed = |why: &str| Failure::Failed(format!("the inherited socket {fd} ('{name}'): {why}"));
    let socket = Socket::from(linux::inherited(fd).map_err(|error| failed(&reason(&error)))?);
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    let (Some(on), Ok(true), Ok(socket2::Type::STREAM)) = (address, socket.is_listener(), socket.r#type())
    else {
        return Err(failed("not a listening TCP socket (ListenStream=)"));
    };
    socket.set_nonblocking(true).map_err(|error| failed(&reason(&error)))?;
    Ok(Inherited { listener: socket.into(), on, transport })
}
