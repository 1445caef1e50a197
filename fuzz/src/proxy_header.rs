//! Headers of the PROXY protocol.

use std::net::{IpAddr, SocketAddr};

use rendezvous_core::proxy_header::{
    LEN_MAX, Parsed, RawName, Version, begins_v2, parse, raw_name, write, write_raw,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub(crate) fn run(bytes: &[u8]) {
    let whole = parse(bytes);
    assert_eq!(bytewise(bytes), whole, "byte by byte");
    assert_eq!(begins_v2(bytes), bytes.starts_with(SIGNATURE) || SIGNATURE.starts_with(bytes));
    match whole {
        Parsed::Partial => assert!(bytes.len() < LEN_MAX, "a header without an end"),
        Parsed::Refused(why) => {
            assert!(!why.is_empty());
            assert_eq!(parse(&[bytes, b"\r\n"].concat()), whole, "what comes behind makes it no better");
        }
        Parsed::Complete { len, source } => {
            assert!(len <= bytes.len() && len <= LEN_MAX);
            let header = &bytes[..len];
            assert_eq!(parse(header), whole, "without what is behind it");
            let said = if header.starts_with(SIGNATURE) { binary(header) } else { line(header) };
            assert_eq!(source.map(canonical), said.map(canonical), "what the document says");
            rewrite(source);
            match raw_name(header) {
                Ok(Some(name)) => rewrite_raw(source, &name),
                Ok(None) => {}
                Err(why) => assert!(!why.is_empty()),
            }
        }
    }
}

/// A raw client's header is written so that it parses to the same.
fn rewrite_raw(source: Option<SocketAddr>, name: &RawName) {
    let mut header = Vec::new();
    write_raw(source, name, &mut header);
    assert_eq!(raw_name(&header).as_ref(), Ok(&Some(name.clone())));
    let Parsed::Complete { len, source: read } = parse(&header) else { panic!("no header: {header:?}") };
    assert_eq!(len, header.len());
    assert!(source.is_none() || read == source.map(canonical), "{read:?} for {source:?}");
}

/// The first verdict, byte by byte.
fn bytewise(bytes: &[u8]) -> Parsed {
    let verdicts = (0..=bytes.len()).map(|len| parse(&bytes[..len]));
    verdicts.into_iter().find(|it| *it != Parsed::Partial).unwrap_or(Parsed::Partial)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 80 443`, by words (§2.1).
fn line(header: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(header).expect("a line is text").strip_suffix("\r\n").expect("a line ends");
    assert!(header.len() <= 107, "{text}");
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let ips = [from, to].map(|ip| ip.parse::<IpAddr>().expect("an address"));
            assert!(ips.iter().all(|ip| ip.is_ipv4() == (family == "TCP4")), "{text}");
            let ports = [from_port, to_port].map(|port| port.parse::<u16>().expect("a port"));
            assert_eq!(ports.map(|port| port.to_string()), [from_port, to_port], "{text}");
            Some(SocketAddr::new(ips[0], ports[0]))
        }
        _ => panic!("a line that is none: {text:?}"),
    }
}

/// The fixed part and the addresses, by their offsets (§2.2).
fn binary(header: &[u8]) -> Option<SocketAddr> {
    assert_eq!(usize::from(header[14]) << 8 | usize::from(header[15]), header.len() - 16);
    assert_eq!(header[12] >> 4, 2, "the version");
    let port = |at: usize| u16::from(header[at]) << 8 | u16::from(header[at + 1]);
    match (header[12] & 0xf, header[13]) {
        (0, _) => None,
        (1, 0x11) => {
            let ip: [u8; 4] = header[16..20].try_into().expect("four bytes");
            Some(SocketAddr::new(ip.into(), port(24)))
        }
        (1, 0x21) => {
            let ip: [u8; 16] = header[16..32].try_into().expect("sixteen bytes");
            Some(SocketAddr::new(ip.into(), port(48)))
        }
        (1, _) => None,
        (command, _) => panic!("command {command}"),
    }
}

fn rewrite(source: Option<SocketAddr>) {
    for version in [Version::V1, Version::V2] {
        let mut header = Vec::new();
        write(version, source, &mut header);
        let len = header.len();
        match parse(&header) {
            Parsed::Complete { len: read, source: again } => {
                assert_eq!((read, again.map(canonical)), (len, source.map(canonical)));
            }
            other => panic!("{other:?} of what was written for {source:?}"),
        }
    }
}

/// A mapped IPv4 address is that address; scope and flow are not in a header.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
