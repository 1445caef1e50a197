//! A client whose request names no hidden server (docs/protocol.md §3.3), and heads that are refused before that.

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, End};

use crate::world::World;
use crate::{GET, ID, get, world};

const ASK: &str = "GET / HTTP/1.1\r\nHost: relay\r\n\r\n";
const WHY: &str = "the ID of the hidden server is asked for as user name";

/// The two values that differ every time.
fn nonce_and_opaque(text: &str) -> (&str, &str) {
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!("{name}=\"")).expect("the parameter");
        rest.split_once('"').expect("a quote").0
    };
    (value("nonce"), value("opaque"))
}

fn challenge(world: &World, got: &str, close: &str) -> String {
    let (nonce, opaque) = nonce_and_opaque(got);
    assert!(nonce.len() == 32 && opaque.len() == 32 && nonce != opaque, "{got}");
    let field = format!(
        "WWW-Authenticate: Digest realm=\"rendezvous\", qop=\"auth, auth-int\", nonce=\"{nonce}\", \
         opaque=\"{opaque}\"\r\nWWW-Authenticate: Basic realm=\"rendezvous\"\r\n{close}"
    );
    world.answer("401 Unauthorized", &field, false, WHY)
}

fn posting(fields: &str) -> String {
    format!("POST /form HTTP/1.1\r\nHost: relay\r\n{fields}\r\n")
}

#[test]
fn who_names_nobody_is_asked_in_one_line_and_kept() {
    let mut world = world();
    let on = world.client_sends(ASK);
    assert_eq!(world.got(on), challenge(&world, &world.got(on), ""));
    assert!(world.is_open(on));
    let from = "192.0.2.1:1000".parse().ok();
    assert_eq!(world.take_events(), [Event::Challenged { on, from }]);
}

#[test]
fn who_can_t_be_kept_is_told_so() {
    let mut world = world();
    let on = world.client_sends("GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    assert_eq!(world.got(on), challenge(&world, &world.got(on), "Connection: close\r\n"));
    assert_eq!(world.closing(on), Some(Close::Linger));
}

#[test]
fn a_challenge_to_head_has_the_same_fields_and_no_body() {
    let mut world = world();
    let on = world.client_sends("HEAD / HTTP/1.1\r\nHost: relay\r\n\r\n");
    let got = world.got(on);
    let whole = challenge(&world, &got, "");
    let head = &whole[..whole.find('{').expect("a body")];
    assert_eq!(got, head);
}

#[test]
fn a_browser_gets_its_errors_as_pages() {
    const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    let mut world = world();
    world.pair(ID);
    let requests = [
        (posting(BROWSER), "401"),
        (get(crate::STRANGER).replace("\r\n\r\n", &format!("\r\n{BROWSER}\r\n")), "404"),
        (get(ID).replace("\r\n\r\n", &format!("\r\n{BROWSER}\r\n")), "503"),
        (posting(&format!("{BROWSER}A : b\r\n")), "400"),
        (posting(&format!("{BROWSER}{}", "A: b\r\n".repeat(100))), "431"),
        (posting(&format!("{BROWSER}Cookie: {}\r\n", "a".repeat(16 << 10))), "431"),
    ];
    let asked: Vec<_> = requests.iter().map(|(request, _)| world.client_sends(request)).collect();
    world.wait_secs(5);
    for (on, (_, status)) in asked.into_iter().zip(requests) {
        let got = world.got(on);
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{got}");
        assert!(got.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{got}");
        assert!(got.ends_with("</html>\n"), "{got}");
    }
}

#[test]
fn the_nonce_is_fresh_for_everyone_and_each_time() {
    let mut world = world();
    let first = world.client_sends(ASK);
    let second = world.client_sends(ASK);
    let texts = [world.take(first), world.take(second), {
        world.write(first, ASK);
        world.take(first)
    }];
    let mut values: Vec<&str> =
        texts.iter().flat_map(|text| <[&str; 2]>::from(nonce_and_opaque(text))).collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 6);
}

#[test]
fn who_names_no_uuid_or_uses_another_scheme_is_asked_again() {
    let cases = [
        "Bearer 0123",
        "Digest realm=\"rendezvous\"",
        "Digest username=\"admin\"",
        "Digest username=\"\"",
        "Basic YWRtaW46",
        "Negotiate",
    ];
    for value in cases {
        let mut world = world();
        let on = world.client_sends(ASK.replace("\r\n\r\n", &format!("\r\nAuthorization: {value}\r\n\r\n")));
        assert!(world.was_challenged(on), "{value}");
    }
}

#[test]
fn after_the_challenge_the_same_connection_reaches_the_hidden_server() {
    let mut world = world();
    let hidden = world.register(ID);
    let on = world.client_sends(ASK);
    assert!(world.was_challenged(on));
    world.write(on, get(ID));
    assert_eq!((world.peer(on), world.got(hidden).as_str()), (Some(hidden), GET));
}

#[test]
fn a_challenge_goes_out_before_the_body_which_is_then_thrown_away() {
    let mut world = world();
    let hidden = world.register(ID);
    let on = world.client_sends(posting("Content-Length: 65536\r\n"));
    assert!(world.was_challenged(on));
    for _ in 0..64 {
        world.write(on, [b'x'; 1024]);
    }
    assert_eq!(world.got(on), "");
    assert!(world.wire(on).unread.is_empty());
    world.write(on, get(ID));
    assert_eq!(world.got(hidden), GET);
}

#[test]
fn a_body_that_comes_with_its_head_and_the_next_request_is_thrown_away_alone() {
    let mut world = world();
    let hidden = world.register(ID);
    let on = world.client_sends(posting("Content-Length: 5\r\n") + "GET /" + &get(ID));
    assert!(world.was_challenged(on));
    assert_eq!((world.peer(on), world.got(hidden).as_str()), (Some(hidden), GET));
}

#[test]
fn a_request_whose_end_is_not_known_or_too_far_away_closes_the_connection() {
    let cases = [
        posting("Content-Length: 65537\r\n"),
        posting("Content-Length: 18446744073709551615\r\n"),
        posting("Content-Length: 5\r\nExpect: 100-continue\r\n"),
        posting("Transfer-Encoding: chunked\r\n"),
        posting("Content-Length: 5\r\nConnection: close\r\n"),
        posting("Connection: foo, Close\r\n"),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(),
    ];
    for head in cases {
        let mut world = world();
        let on = world.client_sends(&head);
        assert!(!world.was_challenged(on), "{head}");
    }
}

#[test]
fn a_request_without_a_body_is_kept_whatever_it_expects() {
    let mut world = world();
    for fields in ["", "Content-Length: 0\r\n", "Expect: 100-continue\r\n", "Connection: keep-alive\r\n"] {
        let on = world.client_sends(posting(fields));
        assert!(world.was_challenged(on), "{fields}");
        world.write(on, ASK);
        assert!(world.was_challenged(on), "{fields}");
    }
}

#[test]
fn pipelined_requests_are_answered_one_by_one_and_reading_rests_between() {
    let mut world = world();
    let on = world.open();
    world.stall(on, true);
    world.write(on, ASK.repeat(3));
    assert_eq!(world.got(on).matches("HTTP/1.1 401").count(), 1);
    assert_eq!((world.wire(on).wanted, world.wire(on).unread.len()), (false, 2 * ASK.len()));
    world.stall(on, false);
    assert_eq!(world.got(on).matches("HTTP/1.1 401").count(), 3);
    assert!(world.is_open(on) && world.wire(on).unread.is_empty());
}

#[test]
fn who_ended_its_side_gets_its_challenge_and_then_the_end() {
    let mut world = world();
    let on = world.open();
    world.stall(on, true);
    world.write(on, ASK);
    world.end_at_once(on, End::Clean);
    assert!(world.is_open(on));
    world.stall(on, false);
    assert_eq!(world.got(on), challenge(&world, &world.got(on), ""));
    assert_eq!(world.closing(on), Some(Close::Linger));
}

#[test]
fn who_ended_its_side_after_the_challenge_is_closed_in_order() {
    let mut world = world();
    let on = world.client_sends(ASK);
    world.end(on, End::Clean);
    assert_eq!(world.got(on), challenge(&world, &world.got(on), ""));
    assert_eq!(world.closing(on), Some(Close::Linger));
}

#[test]
fn an_end_in_the_middle_of_a_thrown_away_body_closes() {
    for how in [End::Clean, End::Truncated, End::Reset] {
        let mut world = world();
        let on = world.client_sends(posting("Content-Length: 5\r\n") + "abc");
        assert!(world.was_challenged(on));
        world.end(on, how);
        assert!(!world.is_open(on));
    }
}

#[test]
fn an_end_between_two_requests_is_no_fault() {
    let mut world = world();
    let on = world.client_sends(ASK);
    assert!(world.was_challenged(on));
    world.take_events();
    world.end(on, End::Clean);
    assert_eq!(world.closing(on), Some(Close::Linger));
    assert_eq!(world.take_events(), []);
}

#[test]
fn a_malformed_request_is_400() {
    let cases = [
        (
            format!("GET / HTTP/1.1\r\nHost: relay\r\n{0}{0}\r\n", crate::credential(ID)),
            "more than one Authorization",
        ),
        (posting("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), "malformed Content-Length"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "no Host"),
        (posting("Host: relay\r\n"), "more than one Host"),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(), "Host contradicts the target"),
        ("GET / HTTP/1.1\nHost: relay\n\n".to_owned(), "LF without CR"),
        (posting("A: b\r\n c\r\n"), "folded field"),
        (posting("A : b\r\n"), "malformed field name"),
        (posting("A: \0\r\n"), "control character"),
        ("GET /\u{e9} HTTP/1.1\r\nHost: relay\r\n\r\n".to_owned(), "malformed request line"),
        ("GET /a\"b HTTP/1.1\r\nHost: relay\r\n\r\n".to_owned(), "malformed request line"),
        (posting("Authorization: Basic ?\r\n"), "malformed Authorization"),
        (posting("Authorization: Digest username=\"x\r\n"), "malformed Authorization"),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{7c}".to_owned(), "not HTTP"),
    ];
    for (head, why) in cases {
        let mut world = world();
        let on = world.client_sends(&head);
        world.assert_refused(on, "400 Bad Request", why);
    }
}

#[test]
fn a_request_line_over_the_limit_is_414() {
    let mut world = world();
    let on = world.client_sends(format!("GET /{}", "a".repeat(8 << 10)));
    world.assert_refused(on, "414 URI Too Long", "request line too long");
}

#[test]
fn a_head_over_the_limit_or_with_too_many_fields_is_431() {
    let mut world = world();
    let on = world.client_sends(posting(&format!("A: {}\r\n", "a".repeat(16 << 10))));
    world.assert_refused(on, "431 Request Header Fields Too Large", "head too large");
    let on = world.client_sends(posting(&"A: b\r\n".repeat(100)));
    world.assert_refused(on, "431 Request Header Fields Too Large", "too many fields");
}

#[test]
fn what_is_not_http_1_x_is_505() {
    let mut world = world();
    for head in ["GET / HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/0.9\r\n\r\n"] {
        let on = world.client_sends(head);
        world.assert_refused(on, "505 HTTP Version Not Supported", "HTTP version not supported");
    }
}

#[test]
fn every_request_has_the_same_verdict_wherever_it_is_cut() {
    let requests = [
        ASK.to_owned(),
        "\r\n".to_owned() + ASK,
        ASK.repeat(2),
        posting("Content-Length: 3\r\n") + "abc" + ASK,
        posting("Content-Length: 3\r\nExpect: 100-continue\r\n") + "abc",
        posting("Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n",
        posting("Authorization: Digest username=\"x\r\n"),
        posting("A : b\r\n"),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET / HTTP/3.0\r\n\r\n".to_owned(),
        get(crate::STRANGER),
        get(ID) + "behind",
    ];
    for request in requests {
        let verdict = |pieces: &[&[u8]]| {
            let mut world = world();
            let hidden = world.register(ID);
            let on = world.open();
            pieces.iter().for_each(|piece| world.write(on, piece));
            (world.got(on), world.got(hidden), world.closing(on), world.peer(on))
        };
        let bytes = request.as_bytes();
        let whole = verdict(&[bytes]);
        for cut in 1..bytes.len() {
            assert_eq!(verdict(&[&bytes[..cut], &bytes[cut..]]), whole, "{request:?} cut at {cut}");
        }
        let singles: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(verdict(&singles), whole, "{request:?} octet by octet");
    }
}
