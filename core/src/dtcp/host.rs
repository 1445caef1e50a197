//! `host:port` in the form of an offer (XEP-0046 §3.1, docs/dtcp.md §6.33, §6.34).

use alloc::format;
use alloc::string::{String, ToString};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::endpoint::{Host, HostPort};

/// The maximum length of a name in bytes (RFC 1035 §2.3.4, without the root's dot).
const NAME_BYTES_MAX: usize = 253;

/// Parses a host: `192.0.2.1:8000`, `[2001:db8::1]:8000` or `example.org:8000`. Returns `None` for anything else,
/// including an IPv6 address without brackets, since the beginning of its port is ambiguous.
///
/// Port 0 is accepted; the [`Policy`](crate::acl::Policy) never allows to dial it.
#[must_use]
pub fn parse(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok()?;
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(HostPort { host: Host::Address(IpAddr::V6(address)), port });
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(HostPort { host: Host::Address(IpAddr::V4(address)), port });
    }
    is_name(host).then(|| HostPort { host: Host::Name(host.to_ascii_lowercase()), port })
}

/// Writes a host in the form that [`parse`] reads.
#[must_use]
pub fn write(place: &HostPort) -> String {
    match &place.host {
        Host::Address(IpAddr::V4(address)) => format!("{address}:{}", place.port),
        Host::Address(IpAddr::V6(address)) => format!("[{address}]:{}", place.port),
        Host::Name(name) => {
            let mut text = name.to_string();
            text.push(':');
            text.push_str(&place.port.to_string());
            text
        }
    }
}

/// Whether this is a host name. A text whose last label is a number is not: resolvers read `127.1` and `0x7f000001`
/// as addresses (RFC 3986 §7.4).
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or(text);
    text.len() <= NAME_BYTES_MAX
        && text.split('.').all(is_label)
        && !last.starts_with(|first: char| first.is_ascii_digit())
}
