//! Opens the listeners of commands.

use std::io;
use std::net::SocketAddr;

use crate::failure::{Failure, reason};
use crate::net::mio::{Bind, MioNet};

/// An unprivileged port, for hints.
const PORT: u16 = 8443;

/// Listens on an address. `all` are the addresses that the program listens on. Returns the address with the actual
/// port, if 0 was requested.
///
/// `[::]` accepts IPv4 as well, unless `all` has an IPv4 address with the same port. An address that no interface has
/// is accepted if the system allows it, because at boot the interface may be configured later.
///
/// # Errors
/// The address cannot be listened on.
pub(super) fn listen(net: &mut MioNet, on: SocketAddr, all: &[SocketAddr]) -> Result<SocketAddr, Failure> {
    open(net, on, all).map_err(|error| cannot_listen(on, &error))
}

/// Listens like [`listen`], but returns the system's error.
pub(super) fn open(net: &mut MioNet, on: SocketAddr, all: &[SocketAddr]) -> io::Result<SocketAddr> {
    let bind = Bind { only_v6: is_only_v6(on, all), may_be_missing: false };
    match net.bind(on, bind) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && !on.ip().is_unspecified() => {
            let bound = net.bind(on, Bind { may_be_missing: true, ..bind }).map_err(|_| error)?;
            log::warn!(
                "event=address-missing on={bound} reason=\"no interface has this address\" \
                 hint=\"connections are accepted once an interface has it\""
            );
            Ok(bound)
        }
        other => other,
    }
}

/// Whether a socket on `on` must leave IPv4 to another listener of the program.
fn is_only_v6(on: SocketAddr, all: &[SocketAddr]) -> bool {
    let is_beside = |other: &SocketAddr| other.is_ipv4() && other.port() == on.port() && on.port() != 0;
    on.is_ipv6() && all.iter().any(is_beside)
}

/// The failure for an address that cannot be listened on, with a hint.
pub(super) fn cannot_listen(on: SocketAddr, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied if on.port() < 1024 => {
            let other = SocketAddr::new(on.ip(), PORT);
            format!(" (ports under 1024 need CAP_NET_BIND_SERVICE; {other} does not)")
        }
        io::ErrorKind::AddrInUse => " (another program, or another relay, listens there)".to_owned(),
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)".to_owned(),
        _ => String::new(),
    };
    Failure::Failed(format!("cannot listen on {on}: {}{hint}", reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_ipv6_leave_a_port_of_ipv4_to_its_own_listener() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all: Vec<_> = ["[::]:1", "[::]:2", "0.0.0.0:1", "127.0.0.1:3"].map(address).to_vec();
        for (on, only) in
            [("[::]:1", true), ("[::]:2", false), ("[::]:3", true), ("0.0.0.0:1", false), ("[::]:0", false)]
        {
            assert_eq!(is_only_v6(address(on), &all), only, "{on}");
        }
        assert!(!is_only_v6(address("[::]:0"), &[address("0.0.0.0:0")]), "the ports differ");
    }
}
