//! The requests of agent and connector, and how they parse the responses.

use rendezvous_core::http::head::{self, Finder, Found, Limits};
use rendezvous_core::http::response::{
    RegistrationOptions, Response, ResponseError, parse_response, parse_status, write_connect, write_upgrade,
};
use rendezvous_core::http::target::{Registration, Token, registration};
use rendezvous_core::id::Id;
use rendezvous_core::token::Challenge;

const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
const SMALL: Limits = Limits { head_bytes_max: 64, line_bytes_max: 32 };

const BARE: Response = Response {
    pool: None,
    instance: None,
    status: 200,
    date: None,
    len: 0,
    upgrade_octet_stream: false,
    upgrade_sealed_stream: false,
    is_offline: false,
    retry_after: None,
    content_length: None,
    challenge: None,
};

/// Parses a head at once, cut at every byte, byte by byte, and with further bytes after it: all have the same result.
fn read(text: &str, limits: &Limits) -> Result<Option<Response>, ResponseError> {
    let bytes = text.as_bytes();
    let whole = parse_response(bytes, &mut Finder::default(), limits);
    for cut in 0..bytes.len() {
        let mut finder = Finder::default();
        let first = parse_response(&bytes[..cut], &mut finder, limits);
        if first != Ok(None) {
            assert_eq!(first, whole, "{text:?} cut at {cut}");
        } else {
            assert_eq!(parse_response(bytes, &mut finder, limits), whole, "{text:?} cut at {cut}");
        }
    }
    let mut finder = Finder::default();
    let mut early = (0..bytes.len()).map(|len| parse_response(&bytes[..len], &mut finder, limits));
    let bytewise = early.find(|it| *it != Ok(None));
    assert_eq!(bytewise.unwrap_or_else(|| parse_response(bytes, &mut finder, limits)), whole, "{text:?}");
    if whole != Ok(None) {
        let behind = [bytes, b"\x16\r\n\0HTTP/1.1"].concat();
        assert_eq!(
            parse_response(&behind, &mut Finder::default(), limits),
            whole,
            "{text:?} with more behind"
        );
    }
    whole
}

fn good(text: &str) -> Response {
    let response = read(text, &Limits::default()).unwrap().unwrap();
    assert_eq!(response.len, text.len());
    Response { len: 0, ..response }
}

#[test]
fn a_status_line_alone_is_an_answer() {
    for text in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.1 200 \r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
    ] {
        assert_eq!(good(text), BARE, "{text:?}");
    }
}

#[test]
fn an_empty_line_in_front_belongs_to_the_head() {
    assert_eq!(good("\r\nHTTP/1.1 200 OK\r\n\r\n"), BARE);
}

#[test]
fn bytes_behind_the_head_are_left_alone() {
    let bytes = b"HTTP/1.1 200 OK\r\n\r\nGET / HTTP/1.1\r\n";
    let response = parse_response(bytes, &mut Finder::default(), &Limits::default()).unwrap().unwrap();
    assert_eq!(&bytes[response.len..], b"GET / HTTP/1.1\r\n");
}

#[test]
fn an_incomplete_head_asks_for_more() {
    let text = "HTTP/1.1 401 Unauthorized\r\nDate: x\r\n\r\n";
    for len in 0..text.len() {
        assert_eq!(read(&text[..len], &Limits::default()), Ok(None), "{len}");
    }
}

#[test]
fn the_fields_that_matter_are_read() {
    let response = good(
        "HTTP/1.1 429 Too Many Requests\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: \u{e9}\r\n\
         RETRY-AFTER:  120 \r\nContent-Length: 0\r\n\r\n",
    );
    let expected = Response {
        status: 429,
        date: Some(784_111_777),
        retry_after: Some(120),
        content_length: Some(0),
        ..BARE
    };
    assert_eq!(response, expected);
}

#[test]
fn fields_that_cannot_be_read_count_as_missing() {
    for fields in [
        "Date: yesterday\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: +5\r\n",
        "Date:\r\nRetry-After: 4294967296\r\nContent-Length: 18446744073709551616\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\nRetry-After: 1\r\nRetry-After: 2\r\n",
    ] {
        assert_eq!(good(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")), BARE, "{fields:?}");
    }
}

#[test]
fn a_challenge_is_read_if_there_is_one_and_it_is_well_formed() {
    let read = |fields: &str| good(&format!("HTTP/1.1 401 No\r\n{fields}\r\n")).challenge;
    for text in ["0123456789-_azAZ".to_owned(), "c".repeat(64)] {
        let expected = Challenge::parse(text.as_bytes());
        assert!(expected.is_some());
        assert_eq!(read(&format!("rendezvous-challenge:  {text} \r\n")), expected);
    }
    for text in [String::new(), "c".repeat(15), "c".repeat(65), "c".repeat(16) + ".", "c".repeat(16) + "=="] {
        assert_eq!(read(&format!("Rendezvous-Challenge: {text}\r\n")), None, "{text:?}");
    }
    let twice = format!("Rendezvous-Challenge: {0}\r\nRendezvous-Challenge: {0}\r\n", "c".repeat(16));
    assert_eq!(read(&twice), None);
}

#[test]
fn an_upgrade_needs_both_fields() {
    for (fields, expected) in [
        ("Connection: Upgrade\r\nUpgrade: octet-stream\r\n", true),
        ("connection: keep-alive, UPGRADE\r\nupgrade: Octet-Stream\r\n", true),
        ("Connection: Upgrade\r\n", false),
        ("Upgrade: octet-stream\r\n", false),
        ("Connection: close\r\nUpgrade: octet-stream\r\n", false),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
        ("Connection: Upgrade\r\nUpgrade: octet-streams\r\n", false),
    ] {
        let response = good(&format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"));
        assert_eq!(response, Response { status: 101, upgrade_octet_stream: expected, ..BARE }, "{fields:?}");
    }
}

#[test]
fn what_is_no_answer_is_malformed() {
    for text in [
        "\r\n\r\n",
        "\x16\x03\x01",
        "\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "GET / HTTP/1.1\r\n",
        "HTTP/2.0 200 OK\r\n",
        "HTTP/1.2 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        "HTTP/1.1\r\n",
        "HTTP/1.1 \r\n",
        "HTTP/1.1 20\r\n",
        "HTTP/1.1 099 Low\r\n",
        "HTTP/1.1 2000\r\n",
        "HTTP/1.1 200OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 +20 OK\r\n",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200 OK\r\n Folded: x\r\n",
        "HTTP/1.1 200 OK\r\nNoColon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSpace : x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nNul: \0\r\n\r\n",
    ] {
        assert_eq!(read(text, &Limits::default()), Err(ResponseError::Malformed), "{text:?}");
    }
}

#[test]
fn a_head_over_the_limit_is_too_large() {
    let with = |len: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(len - 24));
    assert_eq!(read(&with(64), &SMALL).map(|it| it.map(|it| it.len)), Ok(Some(64)));
    assert_eq!(read(&with(65), &SMALL), Err(ResponseError::TooLarge));
    assert_eq!(read(&format!("HTTP/1.1 200 {}", "x".repeat(19)), &SMALL), Err(ResponseError::TooLarge));
    let many = |fields| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a:\r\n".repeat(fields));
    assert_eq!(good(&many(100)), BARE);
    assert_eq!(read(&many(101), &Limits::default()), Err(ResponseError::TooLarge));
}

#[test]
fn the_status_of_a_head_that_was_cut_off_can_still_be_read() {
    for (text, expected) in [
        ("HTTP/1.1 401\r\n", Some(401)),
        ("\r\nHTTP/1.1 401 Unauthorized\r\n", Some(401)),
        ("HTTP/1.1 404 Not Found\r\nContent-Le", Some(404)),
        ("HTTP/1.1 401", None),
        ("HTTP/1.1 401\r", None),
        ("HTTP/1.1 401\n", None),
        ("GET / HTTP/1.1\r\n", None),
        ("", None),
    ] {
        assert_eq!(parse_status(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn an_agent_registers_with_a_bound_token() {
    let token = Token::Bound { response: [0xa5; 16], nonce: b"abcdefghijkl-_09" };
    let mut out = Vec::new();
    write_connect(&mut out, ID, &token, "relay.example.com:8443", RegistrationOptions::default());
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "CONNECT uuid:2f402f80-da50-41e1-9b23-0123456789ab?response=a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\
         &nonce=abcdefghijkl-_09 HTTP/1.1\r\nHost: relay.example.com:8443\r\nRendezvous-Challenge: next\r\n\r\n"
    );
}

#[test]
fn an_agent_registers_with_a_plain_token() {
    let mut out = Vec::new();
    write_connect(&mut out, ID, &Token::Plain(b"012345"), "[::1]", RegistrationOptions::default());
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "CONNECT uuid:2f402f80-da50-41e1-9b23-0123456789ab?response=012345 HTTP/1.1\r\nHost: [::1]\r\n\r\n"
    );
}

#[test]
fn a_relay_reads_what_an_agent_writes() {
    let (response, nonce) = ([7; 16], &b"abcdefghijkl-_09"[..]);
    let challenge = Challenge::parse(b"a-challenge-of-the-relay").unwrap();
    for token in [
        Token::Plain(b"01234567"),
        Token::Bound { response, nonce },
        Token::Challenged { response, nonce, challenge },
    ] {
        let mut out = Vec::new();
        write_connect(&mut out, ID, &token, "relay.example.com", RegistrationOptions::default());
        let found = Finder::default().find(&out, &Limits::default());
        assert!(matches!(found, Found::Complete(whole) if whole.bytes() == out), "{found:?}");
        let head = head::parse(&out).unwrap();
        assert!(head.is_connect());
        assert_eq!(head.asks_challenge, !matches!(token, Token::Plain(_)));
        assert_eq!(registration(head.target), Ok(Registration { id: ID, token, takes_raw: false }));
    }
}

#[test]
fn a_connector_asks_for_an_byte_stream_at_once() {
    let mut out = Vec::new();
    write_upgrade(&mut out, "relay.example.com:8443", ID, None);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET / HTTP/1.1\r\n\
         Host: relay.example.com:8443\r\n\
         Authorization: Basic MmY0MDJmODAtZGE1MC00MWUxLTliMjMtMDEyMzQ1Njc4OWFiOg==\r\n\
         Connection: Upgrade\r\n\
         Upgrade: octet-stream\r\n\
         \r\n"
    );
}

#[test]
fn every_error_says_what_is_wrong() {
    assert_eq!(
        [ResponseError::Malformed, ResponseError::TooLarge].map(ResponseError::why),
        ["the answer is not HTTP", "the head of the answer is too large"]
    );
}

#[test]
fn a_relay_says_that_a_hidden_server_is_offline() {
    for (field, expected) in [
        ("Hidden-Server: offline", true),
        ("hidden-server: x, Offline", true),
        ("Hidden-Server: online", false),
        ("X-Hidden-Server: offline", false),
    ] {
        let text = format!("HTTP/1.1 503 Service Unavailable\r\n{field}\r\n\r\n");
        let response = parse_response(text.as_bytes(), &mut Default::default(), &Limits::default());
        assert_eq!(response.unwrap().unwrap().is_offline, expected, "{field}");
    }
}
