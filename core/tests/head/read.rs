//! Accepted heads and their contents.

use rendezvous_core::http::head::{Body, Refusal, Version};

use crate::{all_are, good, read, with};

#[test]
fn a_plain_request_is_read() {
    let head = good("GET /path?query HTTP/1.1\r\nHost: relay.example.com:8443\r\n\r\n");
    assert_eq!((head.method, head.target, head.version), ("GET", "/path?query", Version::Http11));
    assert_eq!((head.host, head.authorization), (Some("relay.example.com:8443"), None));
    assert_eq!((head.body, head.expect, head.close, head.upgrade), (Body::None, false, false, None));
    assert!(!head.is_connect());
}

#[test]
fn a_registration_needs_no_fields() {
    let head = good("CONNECT uuid:2f402f80-da50-41e1-9b23-0123456789ab?response=123456 HTTP/1.1\r\n\r\n");
    assert!(head.is_connect());
    assert_eq!(head.target, "uuid:2f402f80-da50-41e1-9b23-0123456789ab?response=123456");
    assert_eq!((head.host, head.body), (None, Body::None));
}

#[test]
fn fields_of_a_registration_mean_nothing() {
    for fields in [
        "Host: relay.example.com\r\nConnection: close\r\n",
        "Host: not a host\r\nConnection: keep-alive\r\n",
        "Authorization: x\r\nAuthorization: y\r\nUpgrade: z\r\nConnection: upgrade\r\n",
    ] {
        let text = format!("CONNECT uuid:x HTTP/1.1\r\n{fields}\r\n");
        let head = good(&text);
        assert_eq!((head.host, head.authorization, head.upgrade), (None, None, None), "{fields:?}");
    }
}

#[test]
fn connect_in_lower_case_is_another_method() {
    assert!(!good("connect / HTTP/1.1\r\nHost: a\r\n\r\n").is_connect());
    all_are(Refusal::TargetForm, &["connect uuid:x HTTP/1.1\r\n"]);
}

#[test]
fn http_1_0_needs_no_host_and_closes() {
    for fields in ["", "Connection: keep-alive\r\n"] {
        let text = format!("GET / HTTP/1.0\r\n{fields}\r\n");
        let head = good(&text);
        assert_eq!((head.version, head.host, head.close), (Version::Http10, None, true));
    }
}

#[test]
fn connection_close_is_found_in_any_list_and_case() {
    for (fields, expected) in [
        ("Connection: close\r\n", true),
        ("CONNECTION:Close\r\n", true),
        ("connection: keep-alive ,\tCLOSE , x\r\n", true),
        ("Connection: keep-alive\r\nConnection: close\r\n", true),
        ("Connection: keep-alive\r\n", false),
        ("Connection: closed\r\n", false),
        ("Connection:\r\n", false),
        ("X-Connection: close\r\n", false),
    ] {
        assert_eq!(good(&with(fields)).close, expected, "{fields:?}");
    }
}

#[test]
fn an_upgrade_counts_when_connection_lists_it() {
    for (fields, expected) in [
        ("Connection: Upgrade\r\nUpgrade: octet-stream\r\n", Some("octet-stream")),
        ("connection: keep-alive, upgrade\r\nUPGRADE:  websocket \r\n", Some("websocket")),
        ("Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", Some("a")),
        ("Connection: Upgrade\r\nUpgrade:\r\n", None),
        ("Connection: Upgrade\r\n", None),
        ("Upgrade: websocket\r\n", None),
        ("Connection: close\r\nUpgrade: websocket\r\n", None),
        ("Connection: upgrades\r\nUpgrade: websocket\r\n", None),
    ] {
        assert_eq!(good(&with(fields)).upgrade, expected, "{fields:?}");
    }
}

#[test]
fn http_1_0_has_no_upgrade() {
    let head = good("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(head.upgrade, None);
}

#[test]
fn any_expectation_is_seen() {
    for fields in ["Expect: 100-continue\r\n", "expect: something\r\n", "EXPECT:\r\n"] {
        assert!(good(&with(fields)).expect, "{fields:?}");
    }
    assert!(!good(&with("X-Expect: 100-continue\r\n")).expect);
}

#[test]
fn the_announced_body_is_read() {
    for (fields, expected) in [
        ("", Body::None),
        ("Content-Length: 0\r\n", Body::Length(0)),
        ("content-length:65536 \r\n", Body::Length(65_536)),
        ("Content-Length: 007\r\n", Body::Length(7)),
        ("Content-Length: 18446744073709551615\r\n", Body::Length(u64::MAX)),
        ("Transfer-Encoding: chunked\r\n", Body::Chunked),
        ("TRANSFER-ENCODING:  Chunked \r\n", Body::Chunked),
    ] {
        assert_eq!(good(&with(fields)).body, expected, "{fields:?}");
    }
}

#[test]
fn the_authorization_is_read_whatever_its_case() {
    for name in ["Authorization", "AUTHORIZATION", "authorization", "aUTHORIZATIOn"] {
        let text = with(&format!("{name}:  Basic x \r\n"));
        assert_eq!(good(&text).authorization, Some(b"Basic x".as_slice()), "{name}");
    }
    assert_eq!(good(&with("Authorization:\r\n")).authorization, Some(b"".as_slice()));
    assert_eq!(good(&with("Proxy-Authorization: x\r\nAuthorizations: y\r\n")).authorization, None);
}

#[test]
fn hosts_of_every_form_are_read() {
    for host in [
        "",
        "a",
        "relay.example.com",
        "relay.example.com.",
        "relay.example.com:8443",
        "relay.example.com:",
        "under_score~x",
        "%41b",
        "127.0.0.1:80",
        "[::1]",
        "[2001:db8::1]:443",
        "[::ffff:192.0.2.1]:65535",
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(good(&text).host, Some(host));
    }
}

#[test]
fn every_character_of_rfc_3986_may_stand_in_a_target() {
    for byte in 0..=u8::MAX {
        let text = [b"GET /a".as_slice(), &[byte], b"b HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let is_allowed = byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte);
        assert_eq!(read(&text).is_ok(), is_allowed, "{byte:#04x}");
    }
}

#[test]
fn targets_of_every_form_are_read() {
    for (line, host) in [
        ("GET / HTTP/1.1", "a"),
        ("GET //a/../b//?? HTTP/1.1", "a"),
        ("GET /?a[]=1&b=%zz HTTP/1.1", "a"),
        ("OPTIONS * HTTP/1.1", "a"),
        ("OPTIONS / HTTP/1.1", "a"),
        ("GET http://a HTTP/1.1", "a"),
        ("GET http://a?x HTTP/1.1", "a"),
        ("GET HTTP://A:80/x HTTP/1.1", "a"),
        ("GET http://a/ HTTP/1.1", "a:80"),
        ("GET https://a/ HTTP/1.1", "a:443"),
        ("GET wss://a:/ HTTP/1.1", "a:443"),
        ("GET http://a:8080/@x:1 HTTP/1.1", "a:8080"),
        ("GET http://[::1]:8080/ HTTP/1.1", "[::1]:8080"),
        ("GET x-y.z+1://a/ HTTP/1.1", "a"),
    ] {
        let text = format!("{line}\r\nHost: {host}\r\n\r\n");
        let head = good(&text);
        assert_eq!((head.host, Some(head.target)), (Some(host), line.split(' ').nth(1)), "{line}");
    }
}

#[test]
fn without_a_host_field_the_target_names_the_host() {
    assert_eq!(good("GET http://relay:8080/x HTTP/1.0\r\n\r\n").host, Some("relay:8080"));
}

#[test]
fn any_field_can_be_read_by_its_name() {
    let head = b"GET / HTTP/1.1\r\nHost: h\r\naccept:  a \r\nAccept: b\r\n\r\n";
    let head = rendezvous_core::http::head::parse(head).expect("a head");
    assert_eq!(head.values("Accept"), [&b"a"[..], b"b"]);
    assert!(head.values("Origin").is_empty());
}
