//! The PROXY protocol header, both versions: complete, in pieces, and invalid.

use rendezvous_core::prefix::{Prefix, PrefixError};
use rendezvous_core::proxy_header::{LEN_MAX, Parsed, Version, begins_v2, parse, write};

const START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn header(version: Version, source: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    write(version, source.map(|it| it.parse().expect("an address")), &mut out);
    out
}

fn v2(rest: &[u8]) -> Vec<u8> {
    [START, rest].concat()
}

fn is(source: Option<&str>, len: usize) -> Parsed {
    Parsed::Complete { len, source: source.map(|it| it.parse().expect("an address")) }
}

#[test]
fn what_is_written_is_read_back_whatever_follows_and_however_it_is_cut() {
    for source in [Some("192.0.2.1:80"), Some("[2001:db8::1]:65535"), None] {
        for version in [Version::V1, Version::V2] {
            let header = header(version, source);
            let whole = is(source, header.len());
            assert_eq!(parse(&header), whole, "{source:?}");
            assert_eq!(parse(&[&header[..], b"\x16\x03\x01 and more"].concat()), whole, "{source:?}");
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Parsed::Partial, "{source:?} cut at {cut}");
            }
        }
    }
}

#[test]
fn the_forms_are_those_of_the_document() {
    assert_eq!(header(Version::V1, Some("192.0.2.1:80")), b"PROXY TCP4 192.0.2.1 0.0.0.0 80 0\r\n");
    assert_eq!(header(Version::V1, Some("[2001:db8::1]:80")), b"PROXY TCP6 2001:db8::1 :: 80 0\r\n");
    assert_eq!(header(Version::V1, None), b"PROXY UNKNOWN\r\n");
    let tcp4 = v2(&[0x21, 0x11, 0, 12, 192, 0, 2, 1, 0, 0, 0, 0, 0, 80, 0, 0]);
    assert_eq!(header(Version::V2, Some("192.0.2.1:80")), tcp4);
    assert_eq!(header(Version::V2, Some("[::ffff:192.0.2.1]:80")), tcp4, "an IPv4 address in other clothes");
    assert_eq!(header(Version::V2, Some("[2001:db8::1]:80")).len(), 16 + 36);
    assert_eq!(header(Version::V2, None), v2(&[0x20, 0, 0, 0]));
}

#[test]
fn the_beginning_of_version_2_is_that_of_nothing_else() {
    for len in 0..START.len() {
        assert!(begins_v2(&START[..len]), "{len}");
        let other = [&START[..len], &[START[len] ^ 1]].concat();
        assert!(!begins_v2(&other), "{len}");
    }
    assert!(begins_v2(&header(Version::V2, None)));
    assert!(!begins_v2(&header(Version::V1, None)) && !begins_v2(b"GET / HTTP/1.1\r\n"));
}

#[test]
fn lines_of_others() {
    for (line, source) in [
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
        ("PROXY TCP6 ::1 ::2 0 1\r\n", Some("[::1]:0")),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    ] {
        assert_eq!(parse(line.as_bytes()), is(source, line.len()), "{line}");
    }
}

#[test]
fn lines_that_are_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 80 443\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 80 443 1\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 80 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 080 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +80 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 ::1 80 443\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 80 443\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 80 443\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 80 443\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
        "PROXY \u{e9}\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Parsed::Refused("malformed PROXY line"), "{line}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(long.len(), 108);
    assert_eq!(parse(long.as_bytes()), Parsed::Refused("PROXY line too long"));
    assert_eq!(parse(&long.as_bytes()[..106]), Parsed::Partial);
    for other in ["GET / HTTP/1.1\r\n", "PROXX", "\x16\x03\x01", "\r\n\r\n\r\n"] {
        assert_eq!(parse(other.as_bytes()), Parsed::Refused("no PROXY header"), "{other:?}");
    }
}

#[test]
fn binary_headers_of_others() {
    // With extensions after the addresses.
    let extended = v2(&[0x21, 0x11, 0, 16, 192, 0, 2, 1, 1, 2, 3, 4, 0, 80, 0, 81, 4, 0, 1, 0]);
    assert_eq!(parse(&extended), is(Some("192.0.2.1:80"), 32));
    // UDP, Unix, unspecified: no usable address.
    for family in [0x00, 0x12, 0x22, 0x31, 0x32, 0xff] {
        assert_eq!(parse(&v2(&[0x21, family, 0, 1, 9])), is(None, 17), "{family:#x}");
    }
    // A health check may have addresses, which are ignored.
    assert_eq!(parse(&v2(&[0x20, 0x11, 0, 1, 9])), is(None, 17));
}

/// A header of version 2 for 192.0.2.1:80 with these extensions.
fn extended(extensions: &[u8]) -> Vec<u8> {
    let len = u16::try_from(12 + extensions.len()).expect("it fits").to_be_bytes();
    let addresses = [192, 0, 2, 1, 1, 2, 3, 4, 0, 80, 0, 81];
    v2(&[&[0x21, 0x11, len[0], len[1]][..], &addresses, extensions].concat())
}

#[test]
fn extensions_are_read_within_the_header_s_length_alone() {
    for good in [
        &[][..],
        // NOOP, twice; an unknown type; TLS with only its five bytes.
        &[4, 0, 0, 4, 0, 2, 9, 9],
        &[0xee, 0, 1, 7],
        &[0x20, 0, 5, 1, 0, 0, 0, 0],
    ] {
        let header = extended(good);
        let whole = is(Some("192.0.2.1:80"), header.len());
        assert_eq!(parse(&header), whole, "{good:?}");
        assert_eq!(parse(&[&header[..], &[0xff; 64]].concat()), whole, "{good:?} and payload");
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Parsed::Partial, "{good:?} cut at {cut}");
        }
    }
    let malformed = Parsed::Refused("malformed extension in the PROXY header");
    for bad in [
        &[4][..],
        &[4, 0],
        &[4, 0, 1],
        &[4, 0xff, 0xff, 1],
        &[4, 0, 0, 4],
        &[3, 0, 3, 0, 0, 0],
        &[3, 0, 5, 0, 0, 0, 0, 0],
        &[3, 0, 4, 1, 2, 3, 4],
        &[0x20, 0, 4, 1, 0, 0, 0],
    ] {
        let header = [extended(bad), vec![0; 64]].concat();
        assert_eq!(parse(&header), malformed, "{bad:?}: payload is no part of an extension");
    }
}

/// The checksum of the header below, computed by another program.
const CHECKSUM: [u8; 4] = [0xd8, 0xf7, 0x9e, 0x7c];

#[test]
fn a_checksum_must_be_right() {
    let header = extended(&[3, 0, 4, CHECKSUM[0], CHECKSUM[1], CHECKSUM[2], CHECKSUM[3], 4, 0, 1, 0]);
    assert_eq!(parse(&header), is(Some("192.0.2.1:80"), header.len()));
    // Without its type, byte 28, it is not a checksum.
    for at in (16..header.len()).filter(|at| *at != 28) {
        let mut wrong = header.clone();
        wrong[at] ^= 1;
        assert!(!matches!(parse(&wrong), Parsed::Complete { .. }), "octet {at}");
    }
}

#[test]
fn a_local_header_s_extensions_mean_nothing() {
    assert_eq!(parse(&v2(&[0x20, 0x11, 0, 3, 3, 0xff, 0xff])), is(None, 19));
}

#[test]
fn binary_headers_that_are_refused() {
    let short = Parsed::Refused("PROXY header too short for its addresses");
    assert_eq!(parse(&v2(&[&[0x21, 0x11, 0, 11][..], &[0; 11]].concat())), short);
    assert_eq!(parse(&v2(&[&[0x21, 0x21, 0, 35][..], &[0; 35]].concat())), short);
    for command in [0x11, 0x22, 0x31, 0x00] {
        let unknown = Parsed::Refused("PROXY header of an unknown version or command");
        assert_eq!(parse(&v2(&[command, 0x11, 0, 0])), unknown, "{command:#x}");
    }
    let long = u16::try_from(LEN_MAX - 16 + 1).expect("it fits").to_be_bytes();
    assert_eq!(parse(&v2(&[0x21, 0x11, long[0], long[1]])), Parsed::Refused("PROXY header too long"));
}

#[test]
fn a_prefix_contains_what_shares_its_bits() {
    for (prefix, inside, outside) in [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("0.0.0.0/0", "255.255.255.255", "::"),
        ("128.0.0.0/1", "200.0.0.1", "127.255.255.255"),
        ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
        ("::1", "::1", "::2"),
        ("::/0", "ffff::", "192.0.2.1"),
        ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ("192.0.2.0/24", "::ffff:192.0.2.9", "::192.0.2.9"),
    ] {
        let this: Prefix = prefix.parse().expect(prefix);
        assert!(this.contains(inside.parse().expect(inside)), "{prefix} {inside}");
        assert!(!this.contains(outside.parse().expect(outside)), "{prefix} {outside}");
    }
    assert_eq!("10.0.0.1".parse::<Prefix>().map(|it| it.to_string()), Ok("10.0.0.1/32".to_owned()));
}

#[test]
fn a_prefix_that_is_none_says_why() {
    for (text, error) in [
        ("", PrefixError::Address),
        ("host/24", PrefixError::Address),
        ("10.0.0/8", PrefixError::Address),
        ("10.0.0.0/", PrefixError::Bits),
        ("10.0.0.0/33", PrefixError::Bits),
        ("::/129", PrefixError::Bits),
        ("10.0.0.0/+8", PrefixError::Bits),
        ("10.0.0.1/8", PrefixError::Host),
        ("::1/0", PrefixError::Host),
    ] {
        assert_eq!(text.parse::<Prefix>(), Err(error), "{text}");
    }
    assert_eq!(PrefixError::Host.to_string(), "the address has bits beyond the prefix");
}
