//! One look-up of a host name by the system's resolver (getaddrinfo(3)). It blocks until the resolver returns.

use std::net::SocketAddr;

/// An address family to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// AAAA.
    V6,
    /// A.
    V4,
}

impl Family {
    /// Both families, in order of preference (RFC 8305 §3).
    pub(crate) const ALL: [Self; 2] = [Self::V6, Self::V4];
}

/// Resolves the addresses of one family, so that a name server that does not respond for one family does not delay the
/// other. Returns none if the name has none. The ports are 0.
#[cfg(unix)]
#[allow(unsafe_code, reason = "getaddrinfo(3): the standard library cannot ask for one family")]
pub(crate) fn look_up(host: &str, family: Family) -> Vec<SocketAddr> {
    use std::ffi::CString;
    use std::ptr::{null, null_mut};

    use socket2::SockAddr;

    let Ok(name) = CString::new(host) else { return Vec::new() };
    // SAFETY: addrinfo is a C structure of integers and pointers, for which all zeroes are valid.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_family = match family {
        Family::V6 => libc::AF_INET6,
        Family::V4 => libc::AF_INET,
    };
    let mut list: *mut libc::addrinfo = null_mut();
    // SAFETY: the name is a C string and the hints are initialised; `list` is valid for writing.
    if unsafe { libc::getaddrinfo(name.as_ptr(), null(), &raw const hints, &raw mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the list is getaddrinfo's, and freed only below.
        let entry = unsafe { &*next };
        let len = entry.ai_addrlen;
        // SAFETY: ai_addr points to an address of ai_addrlen bytes, which fits into any address storage.
        let address = unsafe {
            SockAddr::try_init(|storage, room| {
                if entry.ai_addr.is_null() || len > *room {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                let bytes = usize::try_from(len).unwrap_or(0);
                std::ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), storage.cast::<u8>(), bytes);
                *room = len;
                Ok(())
            })
        };
        if let Some(address) = address.ok().and_then(|((), address)| address.as_socket())
            && !found.contains(&address)
        {
            found.push(address);
        }
        next = entry.ai_next;
    }
    // SAFETY: the list is getaddrinfo's, and nothing refers to it any more.
    unsafe { libc::freeaddrinfo(list) };
    found
}

/// Resolves the addresses of one family. The system is asked for both.
#[cfg(windows)]
pub(crate) fn look_up(host: &str, family: Family) -> Vec<SocketAddr> {
    use std::net::ToSocketAddrs as _;

    let Ok(found) = (host, 0).to_socket_addrs() else { return Vec::new() };
    found.filter(|address| address.is_ipv6() == (family == Family::V6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_by_their_family() {
        let found = |host, family| look_up(host, family).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("192.0.2.7", Family::V4), ["192.0.2.7:0"]);
        assert_eq!(found("192.0.2.7", Family::V6), [""; 0]);
        assert_eq!(found("2001:db8::7", Family::V6), ["[2001:db8::7]:0"]);
        assert_eq!(found("2001:db8::7", Family::V4), [""; 0]);
    }

    #[test]
    fn a_zone_is_the_index_of_its_interface() {
        let found = look_up("fe80::1%lo", Family::V6);
        let [SocketAddr::V6(address)] = found[..] else { panic!("{found:?}") };
        assert_eq!(address.scope_id(), 1);
    }

    #[test]
    fn what_is_no_name_has_no_addresses() {
        for host in ["", "a\0b", "no such name.invalid"] {
            assert_eq!(look_up(host, Family::V4), []);
        }
    }
}
