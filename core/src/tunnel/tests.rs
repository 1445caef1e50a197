use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{Credentials, Proxy, ProxyError, Step, Tunnel};
use crate::endpoint::{Host, HostPort};
use crate::http::head::Limits;
use crate::opaque::Opaque;

fn relay() -> HostPort {
    HostPort { host: Host::Name("relay.example".to_string()), port: 443 }
}

fn proxy(credentials: Option<(&str, &str)>) -> Proxy {
    let credentials = credentials.map(|(user, password)| Credentials {
        user: user.to_string(),
        password: Opaque(password.to_string()),
    });
    Proxy {
        place: "192.0.2.9:3128".parse::<core::net::SocketAddr>().expect("it").into(),
        credentials,
        seed: [1; 16],
    }
}

fn tunnel() -> Tunnel {
    Tunnel::new(&proxy(Some(("Mufasa", "Circle of Life"))), &relay())
}

/// The step after these bytes, however they are cut, and how many were consumed.
fn read(tunnel: &Tunnel, bytes: &[u8]) -> (Tunnel, usize, Step) {
    let mut whole = tunnel.clone();
    let (used, step) = whole.read(bytes, &Limits::default());
    let mut cut = tunnel.clone();
    let (mut consumed, mut end, mut last) = (0, 0, Step::More);
    while last == Step::More && end < bytes.len() {
        end += 1;
        let (used, step) = cut.read(&bytes[consumed..end], &Limits::default());
        consumed += used;
        last = step;
    }
    assert_eq!((consumed, &last), (used, &step), "cut at every byte");
    (whole, used, step)
}

fn head(status: &str, fields: &[&str]) -> String {
    format!("HTTP/1.1 {status}\r\n{}\r\n", fields.iter().map(|it| format!("{it}\r\n")).collect::<String>())
}

fn sent(step: Step) -> String {
    let Step::Send(text) = step else { panic!("{step:?}") };
    text
}

/// A parameter of the last `Proxy-Authorization`.
fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Digest "))?;
    let value = line.split(", ").find_map(|it| it.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"'))
}

#[test]
fn the_request_names_the_relay_with_its_port_and_ipv6_in_brackets() {
    assert_eq!(
        tunnel().begin(),
        "CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\nProxy-Connection: keep-alive\r\n\r\n"
    );
    let v6 = HostPort { host: Host::Address("2001:db8::1".parse().expect("it")), port: 8443 };
    let text = Tunnel::new(&proxy(None), &v6).begin();
    assert!(
        text.starts_with("CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n"),
        "{text}"
    );
}

#[test]
fn every_byte_behind_a_200_is_the_relay_s() {
    for fields in [&[][..], &["Content-Length: 10"], &["Transfer-Encoding: chunked"], &["Via: x", "X: y"]] {
        let mut tunnel = tunnel();
        let _ = tunnel.begin();
        let head = head("200 Connection established", fields);
        let bytes = format!("{head}HTTP/1.1 407 of the relay\r\n\r\n");
        assert_eq!(tunnel.read(bytes.as_bytes(), &Limits::default()), (head.len(), Step::Open));
    }
    let head = "HTTP/1.0 200 OK\r\n\r\n";
    assert_eq!(tunnel().read(head.as_bytes(), &Limits::default()), (head.len(), Step::Open));
}

#[test]
fn interim_answers_are_skipped() {
    let bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let (_, used, step) = read(&tunnel(), bytes.as_bytes());
    assert_eq!((used, step), (bytes.len(), Step::Open));
}

#[test]
fn a_407_with_a_body_is_answered_on_the_same_connection() {
    let bodies = [
        (vec!["Content-Length: 5"], "12345".to_string()),
        (vec!["Content-Length: 0"], String::new()),
        (
            vec!["Transfer-Encoding: chunked"],
            "5;x=y\r\n12345\r\n00A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\nT: 1\r\n\r\n".to_string(),
        ),
        (vec!["Transfer-Encoding: chunked"], "0\r\n\r\n".to_string()),
    ];
    for (mut fields, body) in bodies {
        fields.push("Proxy-Authenticate: Basic realm=\"x\"");
        let bytes = head("407 Proxy Authentication Required", &fields) + &body;
        let (tunnel, used, step) = read(&tunnel(), bytes.as_bytes());
        assert_eq!(used, bytes.len(), "{fields:?}");
        let text = sent(step);
        assert!(text.contains("\r\nProxy-Authorization: Basic TXVmYXNhOkNpcmNsZSBvZiBMaWZl\r\n"), "{text}");
        let (_, _, step) = read(&tunnel, b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(step, Step::Open);
    }
}

#[test]
fn a_407_that_ends_the_connection_is_answered_on_a_new_one() {
    for fields in [
        &["Connection: close", "Content-Length: 5"][..],
        &["Proxy-Connection: Close", "Content-Length: 5"],
        &[],
        &["Content-Length: 5", "Content-Length: 6"],
        &["Content-Length: 999999999"],
        &["Transfer-Encoding: gzip, chunked"],
    ] {
        let fields = [fields, &["Proxy-Authenticate: Basic realm=x"]].concat();
        let (mut tunnel, _, step) = read(&tunnel(), head("407 No", &fields).as_bytes());
        assert_eq!(step, Step::Reconnect, "{fields:?}");
        assert!(tunnel.begin().contains("Proxy-Authorization: Basic "));
    }
    let bytes = head("407 No", &["Transfer-Encoding: chunked", "Proxy-Authenticate: Basic"]) + "x\r\n";
    assert_eq!(read(&tunnel(), bytes.as_bytes()).2, Step::Reconnect, "a malformed chunk");
}

/// The example of RFC 7616 §3.9.1, with our request.
#[test]
fn digest_is_answered_with_the_strongest_known_algorithm() {
    let digest = |algorithm: &str| {
        format!(
            "Proxy-Authenticate: Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        )
    };
    let (md5, sha, unknown) = (digest("MD5"), digest("SHA-256"), digest("SHA-512-256"));
    let basic = "Proxy-Authenticate: Basic realm=\"a, b=c\"";
    for (fields, algorithm, length) in [
        (vec![basic, &md5], "MD5", 32),
        (vec![&sha, &md5, basic], "SHA-256", 64),
        (vec![&unknown, &md5], "MD5", 32),
    ] {
        let fields: Vec<&str> = fields.into_iter().chain(["Content-Length: 0"]).collect();
        let (_, _, step) = read(&tunnel(), head("407 No", &fields).as_bytes());
        let text = sent(step);
        assert_eq!(parameter(&text, "algorithm"), Some(algorithm));
        assert_eq!(parameter(&text, "uri"), Some("relay.example:443"));
        assert_eq!(parameter(&text, "nc"), Some("00000001"));
        assert_eq!(parameter(&text, "qop"), Some("auth"));
        assert_eq!(parameter(&text, "username"), Some("Mufasa"));
        assert_eq!(parameter(&text, "response").map(str::len), Some(length));
    }
}

/// The values were computed with another implementation (Python's hashlib).
#[test]
fn a_digest_without_qop_is_that_of_rfc_2069() {
    let field = "Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\"";
    let mut tunnel = Tunnel::new(&proxy(Some(("u", "p"))), &relay());
    let _ = tunnel.begin();
    let (_, step) = tunnel.read(head("407 No", &[field, "Content-Length: 0"]).as_bytes(), &Limits::default());
    let text = sent(step);
    assert_eq!(parameter(&text, "response"), Some(RFC_2069));
    assert_eq!(parameter(&text, "qop"), None);
    let field = "Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=auth";
    let mut tunnel = Tunnel::new(&proxy(Some(("u", "p"))), &relay());
    let _ = tunnel.begin();
    let (_, step) = tunnel.read(head("407 No", &[field, "Content-Length: 0"]).as_bytes(), &Limits::default());
    assert_eq!(parameter(&sent(step), "response"), Some(RFC_7616));
}

#[test]
fn wrong_credentials_are_tried_once() {
    for scheme in ["Basic realm=x", "Digest realm=\"x\", nonce=\"1\", qop=\"auth\""] {
        let refusal = head("407 No", &["Content-Length: 0", &format!("Proxy-Authenticate: {scheme}")]);
        let (tunnel, _, step) = read(&tunnel(), refusal.as_bytes());
        sent(step);
        assert_eq!(read(&tunnel, refusal.as_bytes()).2, Step::Failed(ProxyError::WrongCredentials));
    }
}

#[test]
fn an_expired_nonce_allows_one_more_answer() {
    let refusal = |nonce: u8, stale: &str| {
        let field =
            format!("Proxy-Authenticate: Digest realm=x, nonce=\"{nonce}\", qop=\"auth\", stale={stale}");
        head("407 No", &["Content-Length: 0", &field])
    };
    let (tunnel, _, step) = read(&tunnel(), refusal(1, "false").as_bytes());
    sent(step);
    let (tunnel, _, step) = read(&tunnel, refusal(2, "TRUE").as_bytes());
    let text = sent(step);
    assert_eq!((parameter(&text, "nonce"), parameter(&text, "nc")), (Some("2"), Some("00000001")));
    assert_eq!(read(&tunnel, refusal(3, "true").as_bytes()).2, Step::Failed(ProxyError::WrongCredentials));
}

#[test]
fn the_next_exchange_answers_the_known_challenge_at_once_and_a_forgotten_nonce_is_no_wrong_password() {
    let refusal = |nonce: u8| {
        let field = format!("Proxy-Authenticate: Digest realm=x, nonce=\"{nonce}\", qop=\"auth\"");
        head("407 No", &["Content-Length: 0", &field])
    };
    let (mut tunnel, _, step) = read(&tunnel(), refusal(1).as_bytes());
    assert_eq!(parameter(&sent(step), "nc"), Some("00000001"));
    let mut next = tunnel.next(&relay());
    assert_eq!(parameter(&next.begin(), "nc"), Some("00000003"));
    let third = tunnel.next(&relay()).begin();
    assert_eq!(parameter(&third, "nc"), Some("00000004"), "no number twice");
    let (next, _, step) = read(&next, refusal(2).as_bytes());
    assert_eq!(parameter(&sent(step), "nonce"), Some("2"));
    assert_eq!(read(&next, refusal(3).as_bytes()).2, Step::Failed(ProxyError::WrongCredentials));
}

#[test]
fn errors_name_what_the_proxy_wants() {
    let refusal = |field: &str| head("407 No", &["Content-Length: 0", field]);
    for (bytes, error) in [
        (refusal("Proxy-Authenticate: NTLM"), ProxyError::Ntlm),
        (refusal("Proxy-Authenticate: Negotiate YII=="), ProxyError::Ntlm),
        (refusal("Proxy-Authenticate: Bearer realm=\"x\""), ProxyError::UnknownScheme),
        (refusal("X: y"), ProxyError::UnknownScheme),
        (head("403 Forbidden", &[]), ProxyError::Refused(403)),
        (head("502 Bad Gateway", &["Content-Length: 4"]), ProxyError::Refused(502)),
        (head("301 Moved", &["Location: http://x"]), ProxyError::Refused(301)),
        ("SSH-2.0-OpenSSH\r\n".to_string(), ProxyError::NotHttp),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(20_000)), ProxyError::NotHttp),
    ] {
        assert_eq!(
            read(&tunnel(), bytes.as_bytes()).2,
            Step::Failed(error),
            "{}",
            &bytes[..bytes.len().min(80)]
        );
    }
    let none = Tunnel::new(&proxy(None), &relay());
    let step = read(&none, refusal("Proxy-Authenticate: Basic realm=x").as_bytes()).2;
    assert_eq!(step, Step::Failed(ProxyError::NoCredentials));
    let both = "Proxy-Authenticate: Negotiate, NTLM, Basic realm=\"x\"";
    assert!(matches!(read(&tunnel(), refusal(both).as_bytes()).2, Step::Send(_)), "Basic in the same field");
}

#[test]
fn nothing_shows_the_password() {
    assert!(!format!("{:?} {:?}", proxy(Some(("u", "secret"))), tunnel()).contains("Circle"));
    assert!(!format!("{:?}", proxy(Some(("u", "secret")))).contains("secret"));
}

const RFC_2069: &str = "b0d0e3f52cb00fbf73e17b4e40bba9cc";
const RFC_7616: &str = "d96f62a9d22bb8e19420220aa96eef9f";
