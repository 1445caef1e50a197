//! Parsers of option values for [`Matches::get`](super::Matches::get). Their errors follow the option's name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rendezvous_core::prefix::Prefix;
use rustls_pki_types::ServerName;

/// A host name or address and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A host name in lower case or an address without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(&self.host), self.port)
    }
}

/// Parses an `ADDR:PORT` to listen on: `[::]:443`, `0.0.0.0:8443`. With port 0 the system selects one.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text.parse::<u16>() {
        Ok(port) => format!(
            "'{text}' is only a port; write [::]:{port} for all addresses, 127.0.0.1:{port} for this machine only"
        ),
        Err(_) => format!("'{text}' is not ADDR:PORT, such as [::]:8443, 0.0.0.0:8443 or 127.0.0.1:8080"),
    })
}

/// Parses an `ADDR:PORT` that peers connect to: `192.0.2.1:4000`, `[2001:db8::1]:4000`. Neither part may be zero.
pub fn announced(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("'{text}' is not ADDR:PORT, such as 192.0.2.1:4000 or [2001:db8::1]:4000"))?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(format!("'{text}' is not an address that peers can connect to"));
    }
    Ok(address)
}

/// Parses a `HOST:PORT` to connect to: `127.0.0.1:8080`, `[::1]:22`, `printer.lan:80`. The port is not 0.
pub fn host_port(text: &str) -> Result<HostPort, String> {
    if !text.is_ascii() {
        return Err(format!("'{text}' {NOT_ASCII}"));
    }
    let bad = || format!("'{text}' is not HOST:PORT, such as 127.0.0.1:8080, [::1]:22 or printer.lan:80");
    let (host, port) = split_host_port(text).ok_or_else(bad)?;
    let port = port.ok_or_else(|| format!("'{text}' has no port: write HOST:PORT"))?;
    match port {
        0 => Err(format!("'{text}': cannot connect to port 0")),
        port => Ok(HostPort { host, port }),
    }
}

/// Parses `ADDR[/BITS]`: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.1`.
pub fn prefix(text: &str) -> Result<Prefix, String> {
    text.parse()
        .map_err(|error| format!("'{text}' is not a range of addresses, such as 10.0.0.0/8 or ::1: {error}"))
}

/// Parses a file name.
pub fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("the file name is empty".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// Parses a time: `5`, `0.5` (seconds), `250ms`, `30s`, `10m`, `2h`. At most a year.
pub fn seconds(text: &str) -> Result<Duration, String> {
    const YEAR: u128 = 366 * 86_400 * 1_000_000;
    let bad = || format!("'{text}' is not a time, such as 5 or 0.5 (seconds), 250ms, 10m or 2h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u128 = match &text[digits.len()..] {
        "" | "s" => 1_000_000,
        "ms" => 1_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(bad()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    // Excludes signs, exponents and a lone dot.
    let all = [whole, fraction].concat();
    if all.is_empty() || all.len() > 18 || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = all.parse().map_err(|_| bad())?;
    let micros = u128::from(number) * unit / 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
    match u64::try_from(micros) {
        Ok(micros) if u128::from(micros) <= YEAR => Ok(Duration::from_micros(micros)),
        _ => Err(format!("'{text}' is more than a year")),
    }
}

/// Parses the timeout of a state that every peer passes through: at least 0.1 s. A shorter one ends every connection.
pub fn timeout(text: &str) -> Result<Duration, String> {
    at_least(text, seconds(text)?, TIMEOUT_MIN)
}

/// Parses an interval: 0 for none, else at least `least`.
pub fn interval(least: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| match seconds(text)? {
        Duration::ZERO => Ok(Duration::ZERO),
        time => at_least(text, time, least),
    }
}

/// The shortest [`timeout`].
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

fn at_least(text: &str, time: Duration, least: Duration) -> Result<Duration, String> {
    if time < least {
        return Err(format!("'{text}' is less than {}s", least.as_secs_f64()));
    }
    Ok(time)
}

/// Parses a size in bytes within bounds (inclusive), with an optional unit: `65536`, `64k`, `16KiB`, `8M`, `1G`. Units
/// are powers of 1024.
pub fn size(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let bad = || format!("'{text}' is not a size in bytes, such as 65536, 64k or 8M");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1u64 << 30,
            _ => return Err(bad()),
        };
        let number = number(digits).ok_or_else(bad)?;
        let bytes = number.checked_mul(unit).ok_or_else(bad)?;
        within(text, bytes, least, most)
    }
}

/// Parses a count within bounds (inclusive).
pub fn count(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let number =
            number(text).ok_or_else(|| format!("'{text}' is not a number from {least} to {most}"))?;
        within(text, number, least, most)
    }
}

/// Parses one of some words. Returns its index.
pub fn one_of(words: &'static [&'static str]) -> impl Fn(&str) -> Result<usize, String> {
    move |text| {
        let place = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        place.ok_or_else(|| format!("'{text}' is not one of {}", words.join(", ")))
    }
}

/// The error for a host name with non-ASCII letters, which the user must convert.
pub(crate) const NOT_ASCII: &str =
    "contains non-ASCII letters: write the A-label form (xn--…), which 'idn2 NAME' prints";

/// Splits `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`. Returns `None` for anything else, or if the host is neither a
/// name nor an address. The returned host is in lower case, without brackets. An IPv6 address may have a zone, as in
/// `[fe80::1%eth0]` (RFC 4007 §11) or, in a URL, `[fe80::1%25eth0]` (RFC 6874).
pub(crate) fn split_host_port(text: &str) -> Option<(String, Option<u16>)> {
    let mut zoned = String::new();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let (address, zone) = host.split_once('%').unzip();
            address.unwrap_or(host).parse::<Ipv6Addr>().ok()?;
            if let (Some(address), Some(zone)) = (address, zone) {
                let zone = zone.strip_prefix("25").filter(|zone| !zone.is_empty()).unwrap_or(zone);
                if !is_zone(zone) {
                    return None;
                }
                zoned = format!("{}%{zone}", address.to_ascii_lowercase());
            }
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(|port| number(port).and_then(|port| u16::try_from(port).ok()));
    let port = match port {
        Some(None) => return None,
        Some(port) => port,
        None => None,
    };
    if !zoned.is_empty() {
        return Some((zoned, port));
    }
    ServerName::try_from(host).ok()?;
    Some((host.to_ascii_lowercase(), port))
}

/// Whether a text may be a zone: an interface's name or number.
fn is_zone(zone: &str) -> bool {
    let is_of_zone =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@');
    !zone.is_empty() && zone.len() < 64 && zone.bytes().all(is_of_zone)
}

/// The host for certificates and `Host` fields: without an address's zone, which is local to this machine (RFC 6874
/// §1), and without a name's trailing dot (RFC 6066 §3).
pub(crate) fn public_host(host: &str) -> &str {
    match host.split_once('%') {
        Some((address, _)) => address,
        None => host.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(host),
    }
}

/// The host before a colon and port: an IPv6 address in brackets.
pub(crate) fn bracketed(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ if host.contains('%') => format!("[{host}]"),
        _ => host.to_owned(),
    }
}

/// Parses digits without a sign or space.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn within(text: &str, number: u64, least: u64, most: u64) -> Result<u64, String> {
    if number < least {
        Err(format!("'{text}' is less than {least}"))
    } else if number > most {
        Err(format!("'{text}' is more than {most}"))
    } else {
        Ok(number)
    }
}
