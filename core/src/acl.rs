//! Which addresses may be dialled. A peer chooses them; without a filter it could reach our networks, which it cannot
//! reach itself (docs/dtcp.md §6.35).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses that may be dialled in addition to global ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Loopback: 127.0.0.0/8, ::1.
    pub loopback: bool,
    /// Link-local: 169.254.0.0/16 (RFC 3927), fe80::/10.
    pub link_local: bool,
    /// Private networks: RFC 1918, RFC 4193, and other ranges that are not globally routed.
    pub private: bool,
    /// Carrier-grade NAT: 100.64.0.0/10 (RFC 6598).
    pub shared: bool,
    /// Host names. They are resolved, and the addresses are checked.
    pub names: bool,
    /// Our own listening addresses, which are never dialled. An unspecified address stands for itself and for
    /// loopback; the caller lists the machine's other addresses.
    pub own: Vec<SocketAddr>,
}

/// The scope of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Not a host: unspecified, multicast, broadcast, reserved.
    Nobody,
    /// Loopback.
    Loopback,
    /// Link-local.
    LinkLocal,
    /// Private.
    Private,
    /// Shared address space of a provider (carrier-grade NAT).
    Shared,
    /// Global.
    Global,
}

impl Policy {
    /// Whether this address may be dialled.
    #[must_use]
    pub fn allows(&self, to: SocketAddr) -> bool {
        let reachable = match scope(to.ip()) {
            Scope::Nobody => false,
            Scope::Loopback => self.loopback,
            Scope::LinkLocal => self.link_local,
            Scope::Private => self.private,
            Scope::Shared => self.shared,
            Scope::Global => true,
        };
        reachable && to.port() != 0 && !self.own.iter().any(|own| is_own(*own, to))
    }
}

fn is_own(own: SocketAddr, to: SocketAddr) -> bool {
    let inner = innermost(to.ip());
    let same = innermost(own.ip()) == inner;
    own.port() == to.port() && (same || own.ip().is_unspecified() && scope(inner) == Scope::Loopback)
}

/// The scope of an address. An IPv6 address that embeds an IPv4 one (mapped, NAT64 and so on) has the scope of that.
#[must_use]
pub fn scope(address: IpAddr) -> Scope {
    match innermost(address) {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    }
}

fn scope_v4(address: Ipv4Addr) -> Scope {
    match address.octets() {
        // 0.0.0.0/8 is "this network" (RFC 1122 §3.2.1.3); 240.0.0.0/4 is reserved, the broadcast address in it.
        [0 | 224..=255, ..] => Scope::Nobody,
        [127, ..] => Scope::Loopback,
        [169, 254, ..] => Scope::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Scope::Private,
        // IETF protocol assignments (RFC 6890) and benchmarks (RFC 2544).
        [192, 0, 0, _] | [198, 18..=19, ..] => Scope::Private,
        [100, 64..=127, ..] => Scope::Shared,
        _ => Scope::Global,
    }
}

fn scope_v6(address: Ipv6Addr) -> Scope {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] | [0xff00..=0xffff, ..] => Scope::Nobody,
        [0, 0, 0, 0, 0, 0, 0, 1] => Scope::Loopback,
        [0xfe80..=0xfebf, ..] => Scope::LinkLocal,
        // Unique local (RFC 4193), the former site-local (RFC 3879), and local-use translation (RFC 8215), in which
        // the position of the IPv4 address is not standardised.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Scope::Private,
        _ => Scope::Global,
    }
}

/// The IPv4 address that is embedded in an IPv6 address, if any: mapped (RFC 4291 §2.5.5.2), compatible (§2.5.5.1),
/// translated (RFC 2765 §2.1), NAT64 (RFC 6052 §2.1), 6to4 (RFC 3056 §2), the Teredo client (RFC 4380 §4).
fn innermost(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let joined =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => joined(high, low),
        [0x2001, 0, .., high, low] => joined(!high, !low),
        _ => address,
    }
}
