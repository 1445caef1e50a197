//! Bodies: lengths, chunks and trailers.

use rendezvous_core::http::follower::{Follower, Mode, Step};
use rendezvous_core::http::head::{Limits, Refusal, parse};

use crate::{C, GET, H, OK, What, follow, follow_any, follow_within, heads, post, response, shown};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Why a chunked request body is refused; `None` if another request is found after it.
fn judge(mode: Mode, body: &str) -> Option<Refusal> {
    let request = post(CHUNKED, body);
    let outcome = follow(mode, &[C(&request), C(GET)]);
    match outcome.client.last().map(|it| it.what) {
        Some(What::Refused(refusal)) => Some(refusal),
        _ => {
            assert_eq!(heads(&outcome.client), 2, "{body:?}");
            None
        }
    }
}

#[test]
fn a_length_is_skipped_at_once() {
    let request = post("Content-Length: 1000000\r\n", "");
    let mut follower = Follower::new(Limits::default(), Mode::Strict);
    follower.request_passed(&parse(request.as_bytes()).unwrap());
    assert_eq!(follower.on_client(b""), Step::More);
    assert_eq!(follower.on_client(b"x"), Step::Skip(1_000_000));
    assert!(matches!(follower.on_hidden(OK.as_bytes()), Step::Response { .. }));
    follower.client_passed(999_999);
    assert!(!follower.is_between_exchanges());
    follower.client_passed(1);
    assert!(follower.is_between_exchanges());
}

#[test]
fn bytes_of_a_response_count_when_they_have_passed() {
    let mut follower = Follower::new(Limits::default(), Mode::Lenient);
    follower.request_passed(&parse(GET.as_bytes()).unwrap());
    let head = response("Content-Length: 9\r\n", "");
    assert_eq!(follower.on_hidden(head.as_bytes()), Step::Response { len: head.len() });
    assert_eq!(follower.on_hidden(b"123"), Step::Skip(9));
    follower.hidden_passed(8);
    assert!(!follower.is_between_exchanges());
    follower.hidden_passed(1);
    assert!(follower.is_between_exchanges());
}

#[test]
fn the_next_call_tells_as_well_that_skipped_bytes_have_passed() {
    let mut follower = Follower::new(Limits::default(), Mode::Lenient);
    follower.request_passed(&parse(GET.as_bytes()).unwrap());
    let head = response("Content-Length: 9\r\n", "");
    assert_eq!(follower.on_hidden(head.as_bytes()), Step::Response { len: head.len() });
    assert_eq!(follower.on_hidden(b"123"), Step::Skip(9));
    assert!(!follower.is_between_exchanges());
    assert_eq!(follower.on_hidden(b""), Step::More);
    assert!(follower.is_between_exchanges());
}

#[test]
fn the_longest_length_has_no_end() {
    let request = post("Content-Length: 18446744073709551615\r\n", "");
    let mut follower = Follower::new(Limits::default(), Mode::Strict);
    follower.request_passed(&parse(request.as_bytes()).unwrap());
    let mut left = u64::MAX;
    while left > 0 {
        let Step::Skip(len) = follower.on_client(GET.as_bytes()) else { panic!("{left} left") };
        assert!(len <= 1 << 63);
        left -= len;
    }
    assert!(matches!(follower.on_client(GET.as_bytes()), Step::Request { .. }));
}

#[test]
fn chunks_end_with_the_empty_line_behind_the_last() {
    for body in [
        "0\r\n\r\n",
        "000\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "0000000000000002\r\n\r\n\r\n0\r\n\r\n",
        "3;a;b=c\r\nabc\r\n0;last\r\n\r\n",
        "1;chunk-signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\nx\r\n0\r\n\r\n",
        "0\r\nX: y\r\nZ:\r\n\r\n",
        "5\r\nGET /\r\n0\r\nETag: \"x\"\r\n\r\n",
    ] {
        let request = post(CHUNKED, body);
        let outcome = follow_any(&[C(&request), C(GET), H(OK), H(OK)]);
        let (head, body) = (post(CHUNKED, "").len(), body.len());
        let expected = [
            format!("0: head of {head}"),
            format!("{head}: {body} skipped"),
            format!("{}: head of 27", head + body),
        ];
        assert_eq!(shown(&outcome.client), expected);
        assert!(outcome.between);
    }
}

#[test]
fn data_is_not_looked_at() {
    let request = post(CHUNKED, "1b\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n");
    let outcome = follow_any(&[C(&request), H(OK)]);
    assert_eq!((heads(&outcome.client), outcome.between), (1, true));
}

#[test]
fn a_malformed_chunk_is_refused_in_both_modes() {
    for body in [
        "\r\n",
        "g\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\n\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "1_0\r\nx\r\n0\r\n\r\n",
        ";a\r\nx\r\n0\r\n\r\n",
        "00000000000000001\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "1;a=\"b\"\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "1; a\r\nx\r\n0\r\n\r\n",
        "1;a\0\r\nx\r\n0\r\n\r\n",
        "1;\u{e9}\r\nx\r\n0\r\n\r\n",
        "1\r\rx\r\n0\r\n\r\n",
    ] {
        for mode in [Mode::Lenient, Mode::Strict] {
            assert_eq!(judge(mode, body), Some(Refusal::Chunk), "{body:?}");
        }
    }
}

#[test]
fn an_endless_chunk_extension_is_refused() {
    let body = format!("1;{}", "a".repeat(300));
    assert_eq!(judge(Mode::Lenient, &body), Some(Refusal::Chunk));
}

#[test]
fn trailers_keep_the_rules_of_fields() {
    for (trailers, refusal) in [
        ("X : y\r\n", Refusal::FieldName),
        (": y\r\n", Refusal::FieldName),
        ("X\r\n", Refusal::FieldName),
        (" X: y\r\n", Refusal::Folded),
        ("X: y\r\n z\r\n", Refusal::Folded),
        ("X: y\n", Refusal::BareLineFeed),
        ("\n", Refusal::BareLineFeed),
        ("X: \r y\r\n", Refusal::BareCarriageReturn),
        ("X: \0\r\n", Refusal::Control),
    ] {
        for mode in [Mode::Lenient, Mode::Strict] {
            assert_eq!(judge(mode, &format!("0\r\n{trailers}\r\n")), Some(refusal), "{trailers:?}");
        }
    }
    let many = "X: y\r\n".repeat(101);
    assert_eq!(judge(Mode::Lenient, &format!("0\r\n{many}\r\n")), Some(Refusal::TooManyFields));
    let small = Limits { head_bytes_max: 100, line_bytes_max: 60 };
    let request = post(CHUNKED, &format!("0\r\nX: {}\r\n\r\n", "y".repeat(100)));
    let outcome = follow_within(small, Mode::Lenient, &[C(&request)]);
    assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Refused(Refusal::HeadTooLarge)));
}

#[test]
fn the_strict_mode_refuses_trailers_that_belong_into_a_head() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Transfer_Encoding",
        "Host",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Connection",
        "Forwarded",
        "X-Forwarded-For",
        "x_forwarded_for",
        "X.Forwarded.Host",
        "X-Real-IP",
        "Client-IP",
    ] {
        let body = format!("0\r\nX: y\r\n{name}: z\r\n\r\n");
        assert_eq!(judge(Mode::Strict, &body), Some(Refusal::Trailer), "{name}");
        assert_eq!(judge(Mode::Lenient, &body), None, "{name}");
    }
    assert_eq!(judge(Mode::Strict, "0\r\nServer-Timing: x\r\nX-Forwards: y\r\n\r\n"), None);
}
