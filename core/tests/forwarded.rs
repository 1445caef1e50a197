//! Heads with forwarding fields: which fields are added, and which of the client's are removed.

use std::net::IpAddr;

use rendezvous_core::http::forwarded::{Origin, write};
use rendezvous_core::http::head::parse;

fn origin(client: &str) -> Origin {
    Origin { client: Some(client.parse().unwrap()), is_https: true }
}

fn written(head: &str, origin: &Origin) -> String {
    let head = parse(head.as_bytes()).unwrap();
    let mut out = b"before".to_vec();
    write(&head, origin, &mut out);
    let text = String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned();
    let again = parse(text.as_bytes()).unwrap();
    assert_eq!((again.method, again.target, again.host), (head.method, head.target, head.host));
    assert_eq!((again.body, again.persists, again.expect), (head.body, head.persists, head.expect));
    text
}

/// The fields of a request with these lines besides `Host`, without those that are added.
fn kept(fields: &str) -> String {
    let text = written(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), &origin("192.0.2.1"));
    let kept = text.strip_prefix("GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    kept.strip_suffix(ADDED).unwrap_or_else(|| panic!("{text:?}")).to_owned()
}

const ADDED: &str = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: https\r\n\
                     Forwarded: for=192.0.2.1;host=a;proto=https\r\n\r\n";

#[test]
fn a_request_gets_each_field_once() {
    let head = "GET /x HTTP/1.1\r\nHost: home.example:8443\r\nAccept: */*\r\n\r\n";
    assert_eq!(
        written(head, &origin("192.0.2.1")),
        "GET /x HTTP/1.1\r\nHost: home.example:8443\r\nAccept: */*\r\n\
         X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: home.example:8443\r\nX-Forwarded-Proto: https\r\n\
         Forwarded: for=192.0.2.1;host=\"home.example:8443\";proto=https\r\n\r\n"
    );
}

#[test]
fn addresses_have_the_form_that_each_field_asks_for() {
    for (client, plain, forwarded) in [
        ("192.0.2.1", "192.0.2.1", "for=192.0.2.1"),
        ("2001:db8::1", "2001:db8::1", "for=\"[2001:db8::1]\""),
        ("::ffff:192.0.2.1", "192.0.2.1", "for=192.0.2.1"),
    ] {
        let text = written("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &origin(client));
        assert!(text.contains(&format!("\r\nX-Forwarded-For: {plain}\r\n")), "{text}");
        assert!(text.contains(&format!("\r\nForwarded: {forwarded};host=a;proto=https\r\n")), "{text}");
    }
}

#[test]
fn an_unknown_client_is_unknown() {
    let origin = Origin { client: None::<IpAddr>, is_https: false };
    assert_eq!(
        written("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n", &origin),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=unknown;host=a;proto=http\r\n\r\n"
    );
}

#[test]
fn a_host_is_quoted_where_it_is_no_token() {
    for (host, forwarded) in [
        ("a.example", "a.example"),
        ("[::1]", "\"[::1]\""),
        ("a:80", "\"a:80\""),
        ("a:", "\"a:\""),
        ("a,b", "\"a,b\""),
    ] {
        let text = written(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), &origin("192.0.2.1"));
        assert!(text.contains(&format!(";host={forwarded};")), "{text}");
        assert!(text.contains(&format!("\r\nX-Forwarded-Host: {host}\r\n")), "{text}");
    }
    for head in ["GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let text = written(head, &origin("192.0.2.1"));
        assert!(!text.contains("X-Forwarded-Host"), "{text}");
        assert!(text.contains("\r\nForwarded: for=192.0.2.1;proto=https\r\n"), "{text}");
    }
    let text = written("GET http://b:81/x HTTP/1.1\r\nHost: b:81\r\n\r\n", &origin("192.0.2.1"));
    assert!(text.contains("\r\nX-Forwarded-Host: b:81\r\n"), "{text}");
}

#[test]
fn fields_of_the_client_are_removed_in_every_spelling() {
    for name in [
        "Forwarded",
        "FORWARDED",
        "X-Forwarded-For",
        "x-forwarded-for",
        "X_Forwarded_For",
        "X-Forwarded_For",
        "X.Forwarded.For",
        "x_forwarded-FOR",
        "X-Forwarded-Host",
        "X_FORWARDED_HOST",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Ssl",
        "X-Forwarded",
        "Forwarded-For",
        "X-Real-IP",
        "x_real_ip",
        "X-Client-IP",
        "Client-IP",
        "Client_IP",
        "True-Client-IP",
    ] {
        let fields = format!("A: 1\r\n{name}: 192.0.2.9\r\nB: 2\r\n{name}:\r\n");
        assert_eq!(kept(&fields), "A: 1\r\nB: 2\r\n", "{name}");
    }
}

#[test]
fn other_fields_stay_as_they_came() {
    for fields in [
        "",
        "XForwardedFor: 1\r\n",
        "Forwardeds: 1\r\n",
        "X-Real-IPs: 1\r\n",
        "accept:text/html \r\nX:  Forwarded: for=1\r\nx: 2\r\n",
        "Connection: keep-alive\r\nUpgrade: h2\r\n",
        "connection:close , te\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
        "Cookie: X-Forwarded-For=1\r\nAuthorization: Basic x\r\n",
    ] {
        assert_eq!(kept(fields), fields);
    }
}

#[test]
fn connection_does_not_name_what_was_removed() {
    for (fields, expected) in [
        ("Connection: X-Forwarded-For\r\n", ""),
        ("Connection: close, x-forwarded-for,Forwarded , te\r\n", "Connection: close, te\r\n"),
        ("connection: X_Real_IP\r\nConnection: keep-alive\r\n", "Connection: keep-alive\r\n"),
        ("Connection: , X-Forwarded-Proto ,, close\r\n", "Connection: close\r\n"),
    ] {
        assert_eq!(kept(fields), expected, "{fields:?}");
    }
}

#[test]
fn an_upgrade_to_h2c_is_removed() {
    for (fields, expected) in [
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", ""),
        ("Connection: keep-alive, upgrade\r\nUPGRADE: H2C\r\n", "Connection: keep-alive\r\n"),
        (
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        ),
        ("HTTP2_Settings: x\r\n", ""),
    ] {
        assert_eq!(kept(fields), expected, "{fields:?}");
    }
    for (upgrade, expected) in [("h2c", None), ("websocket", Some("websocket")), ("h2c, x", Some("h2c, x"))] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        let head = parse(text.as_bytes()).unwrap();
        assert_eq!(write(&head, &origin("192.0.2.1"), &mut Vec::new()).upgrade, expected);
    }
}

#[test]
fn an_empty_line_in_front_is_left_out() {
    let text = written("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &origin("192.0.2.1"));
    assert_eq!(text, format!("GET / HTTP/1.1\r\nHost: a\r\n{ADDED}"));
}
