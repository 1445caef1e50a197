//! The reader of server names in ClientHellos.

use rendezvous_core::client_hello::{Alert, ClientHello, MESSAGE_MAX, Malformed, Reader, WIRE_MAX};

/// The extension with one host name.
fn server_name(name: &[u8]) -> Vec<u8> {
    let len = u16::try_from(name.len()).unwrap();
    let mut entry = vec![0];
    entry.extend(len.to_be_bytes());
    entry.extend(name);
    let mut data = u16::try_from(entry.len()).unwrap().to_be_bytes().to_vec();
    data.extend(entry);
    extension(0, &data)
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A handshake message with these extensions; `None`: without the extensions' length too.
fn message(extensions: Option<&[Vec<u8>]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(32);
    body.extend([9; 32]);
    body.extend([0, 4, 0x13, 1, 0x13, 2]);
    body.extend([1, 0]);
    if let Some(extensions) = extensions {
        let all = extensions.concat();
        body.extend(u16::try_from(all.len()).unwrap().to_be_bytes());
        body.extend(all);
    }
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut message = vec![1, len[1], len[2], len[3]];
    message.extend(body);
    message
}

/// The message in records of at most this size.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let len = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1, len[0], len[1]], part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

fn hello(name: &[u8]) -> Vec<u8> {
    records(
        &message(Some(&[extension(0x0a0a, b""), server_name(name), extension(16, b"\0\x03\x02h2")])),
        16384,
    )
}

fn read(wire: &[u8]) -> ClientHello {
    Reader::default().read(wire)
}

fn name(name: &str) -> ClientHello {
    ClientHello::Name(name.to_owned())
}

#[test]
fn a_name_is_lower_case_and_without_the_last_dot() {
    assert_eq!(read(&hello(b"App.Example.ORG.")), name("app.example.org"));
}

#[test]
fn the_verdict_is_the_same_at_every_cut_and_in_records_of_every_size() {
    let message = message(Some(&[extension(43, &[2, 3, 4]), server_name(b"a.example")]));
    for size in [1, 2, 3, 4, 5, 17, 100, 16384] {
        let wire = records(&message, size);
        let mut reader = Reader::default();
        for len in 0..wire.len() {
            assert_eq!(reader.read(&wire[..len]), ClientHello::Partial, "{len} bytes, records of {size}");
            assert_eq!(read(&wire[..len]), ClientHello::Partial, "{len} bytes at once, records of {size}");
        }
        assert_eq!(reader.read(&wire), name("a.example"));
        assert_eq!(read(&wire), name("a.example"));
        let behind = [&wire[..], b"\x17\x03\x03\x00\x05early"].concat();
        assert_eq!(read(&behind), name("a.example"));
    }
}

#[test]
fn the_name_may_be_the_last_extension_of_the_longest_message() {
    let empty = message(Some(&[extension(21, &[]), server_name(b"a.example")])).len();
    for (padding, verdict) in [
        (MESSAGE_MAX - empty, name("a.example")),
        (MESSAGE_MAX - empty + 1, ClientHello::Refused(Malformed::TooLong)),
    ] {
        let message = message(Some(&[extension(21, &vec![0; padding]), server_name(b"a.example")]));
        assert_eq!(read(&records(&message, 16384)), verdict);
        assert_eq!(read(&records(&message, 1000)), verdict);
    }
}

#[test]
fn a_message_that_says_it_is_too_long_is_refused_by_its_first_bytes() {
    assert_eq!(read(&[22, 3, 1, 0x40, 0, 1, 0, 0x40, 0]), ClientHello::Refused(Malformed::TooLong));
}

#[test]
fn too_many_records_are_refused() {
    let message = message(Some(&[extension(21, &vec![0; 12_000]), server_name(b"a.example")]));
    let wire = records(&message, 1);
    assert_eq!(read(&wire[..WIRE_MAX]), ClientHello::Refused(Malformed::TooLong));
}

#[test]
fn no_name_is_no_name() {
    assert_eq!(read(&records(&message(None), 16384)), ClientHello::NoName);
    assert_eq!(read(&records(&message(Some(&[])), 16384)), ClientHello::NoName);
    for address in ["192.0.2.1", "2001:db8::1", "::1"] {
        assert_eq!(read(&hello(address.as_bytes())), ClientHello::NoName, "{address}");
    }
}

#[test]
fn what_is_no_handshake_is_told_by_its_first_byte() {
    for first in [b"G".as_slice(), b"S", &[0x80], &[21, 3, 3], b"PROXY"] {
        assert_eq!(read(first), ClientHello::NotTls);
    }
}

#[test]
fn names_that_are_no_host_names_are_refused() {
    let long = [b'a'; 64];
    let longer = "a.".repeat(127) + "aa";
    for bad in [
        b"".as_slice(),
        b".",
        b"a..b",
        b".a",
        b"a b",
        b"a:443",
        b"*.example",
        b"a\0.example",
        "ä.example".as_bytes(),
        b"\xff",
        b"a/b",
        b"[::1]",
        &long,
        longer.as_bytes(),
    ] {
        assert_eq!(read(&hello(bad)), ClientHello::Refused(Malformed::Name), "{bad:?}");
    }
}

#[test]
fn two_names_are_refused() {
    let twice = message(Some(&[server_name(b"a.example"), server_name(b"a.example")]));
    assert_eq!(read(&records(&twice, 16384)), ClientHello::Refused(Malformed::Name));
    let entry = b"\0\0\x01a";
    let list = [&[0, 8], entry.as_slice(), entry].concat();
    let both = message(Some(&[extension(0, &list)]));
    assert_eq!(read(&records(&both, 16384)), ClientHello::Refused(Malformed::Name));
    let other = message(Some(&[extension(0, b"\0\x04\x01\0\x01a")]));
    assert_eq!(read(&records(&other, 16384)), ClientHello::Refused(Malformed::Name));
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let good = message(Some(&[server_name(b"a.example")]));
    let refused = [Malformed::Message, Malformed::Name, Malformed::TooLong];
    for at in 4..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            match read(&records(&bad, 16384)) {
                ClientHello::Refused(why) => assert!(refused.contains(&why), "{why:?}"),
                ClientHello::Name(_) | ClientHello::NoName => {}
                other => panic!("{other:?} with {value} at {at}"),
            }
        }
    }
    for cut in 1..good.len() - 4 {
        // The message is shorter than what it contains.
        let mut bad = good[..good.len() - cut].to_vec();
        let len = u32::try_from(bad.len() - 4).unwrap().to_be_bytes();
        bad[1..4].copy_from_slice(&len[1..]);
        let verdict = read(&records(&bad, 16384));
        let extensions = good.len() - 4 - cut;
        // Two versions, random, session, suites, compression: that is a whole hello.
        if extensions == 2 + 32 + 33 + 6 + 2 {
            assert_eq!(verdict, ClientHello::NoName);
        } else {
            assert!(matches!(verdict, ClientHello::Refused(_)), "{verdict:?} with {cut} bytes less");
        }
    }
}

#[test]
fn malformed_records_are_refused() {
    let good = hello(b"a.example");
    for (at, value) in [(1, 2), (1, 4)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(read(&bad), ClientHello::Refused(Malformed::Record));
    }
    assert_eq!(read(&[22, 3, 1, 0, 0]), ClientHello::Refused(Malformed::Record));
    assert_eq!(read(&[22, 3, 1, 0x40, 1]), ClientHello::Refused(Malformed::Record));
    // An alert between the records of a message.
    let parts = records(&message(Some(&[server_name(b"a.example")])), 50);
    let bad = [&parts[..55], &[21, 3, 3, 0, 2, 2, 40]].concat();
    assert_eq!(read(&bad), ClientHello::Refused(Malformed::Record));
    // Another message than a ClientHello.
    assert_eq!(read(&[22, 3, 1, 0, 4, 2]), ClientHello::Refused(Malformed::Message));
}

#[test]
fn an_alert_is_a_record() {
    assert_eq!(Alert::DecodeError.record(), [21, 3, 3, 0, 2, 2, 50]);
    assert_eq!(Alert::UnrecognizedName.record(), [21, 3, 3, 0, 2, 2, 112]);
}
