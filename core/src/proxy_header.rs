//! The PROXY protocol header (HAProxy, doc/proxy-protocol.txt, versions 1 and 2). A load balancer puts it in front of
//! a stream to report the client's address; so does the relay for an agent that asks for it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// The maximum length of a version 1 header with its CRLF, in bytes (§2.1).
const V1_MAX: usize = 107;
/// The beginning of a version 1 header.
const V1_START: &[u8] = b"PROXY ";
/// The beginning of a version 2 header (§2.2).
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the fixed part of a version 2 header, in bytes.
const V2_FIXED: usize = 16;
/// The maximum length of addresses and extensions of a version 2 header, in bytes; the protocol allows 65,535.
const V2_REST_MAX: usize = 2_048;

/// The reason for refusing a header with valid addresses.
pub(crate) const MALFORMED_EXTENSION: &str = "malformed extension in the PROXY header";
/// The type of the extension without a meaning (§2.2.4).
#[cfg(feature = "trace")]
pub(crate) const NOOP: u8 = 0x04;
/// The type of the extension with a checksum (§2.2.3).
const CRC32C: u8 = 0x03;
/// The type of the extension about the sender's TLS connection (§2.2.5), and the length of its fixed part.
const SSL: u8 = 0x20;
const SSL_MIN: usize = 5;

/// The type of the extension with the host name that the client asked for (§2.2.2).
const AUTHORITY: u8 = 0x02;
/// The type of the extension with the label of the port that a raw client came through: the first of those for
/// private use (§2.2.7).
const PORT: u8 = 0xE0;
/// The maximum length of either name, in bytes: that of a host name.
pub const RAW_NAME_MAX: usize = 255;

/// The maximum length of a header, in bytes.
pub const LEN_MAX: usize = V2_FIXED + V2_REST_MAX;

/// The version of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The result of parsing the beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An incomplete header.
    Partial,
    /// A complete header.
    Complete {
        /// Its length in bytes. The stream begins after it.
        len: usize,
        /// The client's address; `None` if the header has none, or is for the sender's own connection (`UNKNOWN`,
        /// `LOCAL`).
        source: Option<SocketAddr>,
    },
    /// No header, or a malformed one, for this reason.
    Refused(&'static str),
}

/// The name by which a raw client asked for its hidden server (`docs/protocol.md §10`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawName {
    /// The host name in its ClientHello: in lower case, without a trailing dot.
    Host(String),
    /// The label of the relay's port that it came through.
    Port(String),
}

/// The name in a complete version 2 header that the relay wrote for a raw client. `None` if the header has no name,
/// so that the client is not a raw one.
///
/// # Errors
///
/// There are several names, a name is empty, too long or not visible ASCII, or extensions are malformed. The text
/// says which.
pub fn raw_name(header: &[u8]) -> Result<Option<RawName>, &'static str> {
    let Some((&[.., command, family, _, _], rest)) = header.split_first_chunk::<V2_FIXED>() else {
        return Ok(None);
    };
    if !begins_v2(header) || command != 0x21 {
        return Ok(None);
    }
    let addresses_len = match family {
        0x11 => 12,
        0x21 => 36,
        // Without addresses the position of the extensions is unknown.
        _ => 0,
    };
    let mut rest = rest.get(addresses_len..).unwrap_or_default();
    let mut name = None;
    while let Some((&[kind, high, low], behind)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, next) = behind.split_at_checked(len).ok_or(MALFORMED_EXTENSION)?;
        rest = next;
        let make: fn(String) -> RawName = match kind {
            AUTHORITY => RawName::Host,
            PORT => RawName::Port,
            _ => continue,
        };
        let is_name = (1..=RAW_NAME_MAX).contains(&len) && value.iter().all(u8::is_ascii_graphic);
        let value = core::str::from_utf8(value)
            .ok()
            .filter(|_| is_name)
            .ok_or("malformed name in the PROXY header")?;
        if name.replace(make(String::from(value))).is_some() {
            return Err("several names in the PROXY header");
        }
    }
    if rest.is_empty() { Ok(name) } else { Err(MALFORMED_EXTENSION) }
}

/// Appends the version 2 header for a raw client of `source`. A client whose address is unknown gets the unspecified
/// one.
pub fn write_raw(source: Option<SocketAddr>, name: &RawName, out: &mut Vec<u8>) {
    let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let begin = out.len();
    write(Version::V2, Some(source.unwrap_or(unknown)), out);
    let (kind, name) = match name {
        RawName::Host(name) => (AUTHORITY, name),
        RawName::Port(name) => (PORT, name),
    };
    debug_assert!((1..=RAW_NAME_MAX).contains(&name.len()), "a name of another length");
    let value = name.as_bytes().get(..name.len().min(RAW_NAME_MAX)).unwrap_or_default();
    let [high, low] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    out.extend_from_slice(&[kind, high, low]);
    out.extend_from_slice(value);
    let len = u16::try_from(out.len() - begin - V2_FIXED).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(field) = out.get_mut(begin + V2_FIXED - 2..begin + V2_FIXED) {
        field.copy_from_slice(&len);
    }
}

/// Parses a header of either version at the front of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    if begins(bytes, V2_START) {
        v2(bytes)
    } else if begins(bytes, V1_START) {
        v1(bytes)
    } else {
        Parsed::Refused("no PROXY header")
    }
}

/// Whether these bytes begin like a version 2 header, as far as they go. Nothing that begins so is HTTP.
#[must_use]
pub fn begins_v2(bytes: &[u8]) -> bool {
    begins(bytes, V2_START)
}

/// Whether a complete header has the command `LOCAL`: the connection is the load balancer's own, usually a health check.
#[must_use]
pub fn is_local(header: &[u8]) -> bool {
    begins_v2(header) && header.get(V2_START.len()) == Some(&0x20)
}

/// Appends a header for a stream of `source`; without one, a header without an address. The destination, which is not
/// used here, is unspecified.
pub fn write(version: Version, source: Option<SocketAddr>, out: &mut Vec<u8>) {
    let source = source.map(|source| SocketAddr::new(source.ip().to_canonical(), source.port()));
    match version {
        Version::V1 => {
            let line = match source {
                Some(SocketAddr::V4(from)) => {
                    format!("PROXY TCP4 {} 0.0.0.0 {} 0\r\n", from.ip(), from.port())
                }
                Some(SocketAddr::V6(from)) => format!("PROXY TCP6 {} :: {} 0\r\n", from.ip(), from.port()),
                None => String::from("PROXY UNKNOWN\r\n"),
            };
            out.extend_from_slice(line.as_bytes());
        }
        Version::V2 => {
            out.extend_from_slice(V2_START);
            let Some(source) = source else { return out.extend_from_slice(&[0x20, 0, 0, 0]) };
            let (family, addresses) = match source.ip() {
                IpAddr::V4(from) => (0x11, [from.octets(), [0; 4]].concat()),
                IpAddr::V6(from) => (0x21, [from.octets(), [0; 16]].concat()),
            };
            let ports = [source.port().to_be_bytes(), [0; 2]].concat();
            let len =
                u8::try_from(addresses.len() + ports.len()).unwrap_or_else(|_| unreachable!("36 at most"));
            out.extend_from_slice(&[0x21, family, 0, len]);
            out.extend_from_slice(&addresses);
            out.extend_from_slice(&ports);
        }
    }
}

/// Whether the shorter of both is a prefix of the other.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(left, right)| left == right)
}

fn v1(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.iter().take(V1_MAX).position(|&byte| byte == b'\n') else {
        return if bytes.len() < V1_MAX { Parsed::Partial } else { Parsed::Refused("PROXY line too long") };
    };
    const MALFORMED: Parsed = Parsed::Refused("malformed PROXY line");
    let line =
        bytes[V1_START.len()..end].strip_suffix(b"\r").and_then(|line| core::str::from_utf8(line).ok());
    let Some(line) = line else { return MALFORMED };
    let len = end + 1;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Parsed::Complete { len, source: None };
    }
    match addresses(line) {
        Some(source) => Parsed::Complete { len, source: Some(source) },
        None => MALFORMED,
    }
}

/// The source of `TCP4 source destination port port`, separated by single spaces.
fn addresses(line: &str) -> Option<SocketAddr> {
    let mut parts = line.split(' ');
    let ip = match parts.next()? {
        "TCP4" => both::<Ipv4Addr>(parts.next()?, parts.next()?)?.into(),
        "TCP6" => both::<Ipv6Addr>(parts.next()?, parts.next()?)?.into(),
        _ => return None,
    };
    let (source, _) = (port(parts.next()?)?, port(parts.next()?)?);
    parts.next().is_none().then(|| SocketAddr::new(ip, source))
}

/// The first of two addresses, both of which must be well-formed.
fn both<A: FromStr>(source: &str, destination: &str) -> Option<A> {
    let source = source.parse().ok()?;
    destination.parse::<A>().ok()?;
    Some(source)
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn v2(bytes: &[u8]) -> Parsed {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else { return Parsed::Partial };
    let [.., command, family, high, low] = *fixed;
    let rest_len = usize::from(u16::from_be_bytes([high, low]));
    if rest_len > V2_REST_MAX {
        return Parsed::Refused("PROXY header too long");
    }
    let Some(rest) = rest.get(..rest_len) else { return Parsed::Partial };
    let len = V2_FIXED + rest_len;
    let addresses_len = match family {
        0x11 => 12,
        0x21 => 36,
        _ => rest_len,
    };
    if command == 0x21
        && let Some(extensions) = rest.get(addresses_len..)
        && !are_extensions(extensions, &bytes[..len])
    {
        return Parsed::Refused(MALFORMED_EXTENSION);
    }
    let source = match (command, family) {
        // The sender's own connection, such as a health check. Its addresses and extensions are ignored.
        (0x20, _) => None,
        (0x21, 0x11) => match rest.first_chunk::<12>() {
            Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) => {
                Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
            }
            None => return Parsed::Refused("PROXY header too short for its addresses"),
        },
        (0x21, 0x21) => match (rest.first_chunk::<16>(), rest.get(32..36)) {
            (Some(from), Some(ports)) => Some(SocketAddr::new(
                Ipv6Addr::from(*from).to_canonical(),
                u16::from_be_bytes([ports[0], ports[1]]),
            )),
            _ => return Parsed::Refused("PROXY header too short for its addresses"),
        },
        // UDP, Unix sockets and future families have no address that is meaningful for a TCP listener (§2.2).
        (0x21, _) => None,
        _ => return Parsed::Refused("PROXY header of an unknown version or command"),
    };
    Parsed::Complete { len, source }
}

/// Whether the bytes after the addresses are well-formed extensions (§2.2: type, length in two bytes, value), and
/// their checksum, if there is one, is that of the whole `header`.
fn are_extensions(mut rest: &[u8], header: &[u8]) -> bool {
    while let Some((&[kind, high, low], behind)) = rest.split_first_chunk::<3>() {
        let value_len = usize::from(u16::from_be_bytes([high, low]));
        let Some((value, next)) = behind.split_at_checked(value_len) else { return false };
        let is_well_formed = match kind {
            CRC32C => value.first_chunk::<4>().is_some_and(|checksum| {
                let at = header.len() - behind.len();
                value_len == 4 && u32::from_be_bytes(*checksum) == checksum_without(header, at)
            }),
            SSL => value_len >= SSL_MIN,
            _ => true,
        };
        if !is_well_formed {
            return false;
        }
        rest = next;
    }
    rest.is_empty()
}

/// The CRC-32C of a header with zeroes in place of the checksum, which is the four bytes at `at` (§2.2.3).
fn checksum_without(header: &[u8], at: usize) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let bytes = header.iter().enumerate();
    let bytes = bytes.map(|(place, byte)| if (at..at + 4).contains(&place) { 0 } else { *byte });
    !bytes.fold(u32::MAX, |checksum, byte| {
        (0..8).fold(checksum ^ u32::from(byte), |checksum, _| {
            if checksum & 1 == 1 { checksum >> 1 ^ POLYNOMIAL } else { checksum >> 1 }
        })
    })
}
