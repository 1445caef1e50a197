//! The ends of requests, and when the connection is between two exchanges.

use rendezvous_core::http::follower::{Follower, Mode, PIPELINE_MAX, Step};
use rendezvous_core::http::head::{Limits, Refusal, parse};

use crate::{C, GET, H, OK, Outcome, What, follow, follow_any, follow_within, heads, post, shown, with};

#[test]
fn a_new_connection_is_between_exchanges() {
    let Outcome { between, opaque, closing, over, .. } = follow_any(&[]);
    assert_eq!((between, opaque, closing, over), (true, false, false, false));
}

#[test]
fn exchanges_follow_each_other() {
    let exchange = [C(GET), H(OK)];
    let outcome = follow_any(&[exchange, exchange, exchange].concat());
    assert_eq!(shown(&outcome.client), ["0: head of 27", "27: head of 27", "54: head of 27"]);
    assert_eq!(shown(&outcome.hidden), ["0: head of 38", "38: head of 38", "76: head of 38"]);
    assert!(outcome.between && !outcome.closing);
}

#[test]
fn a_request_is_under_way_until_it_is_answered() {
    assert!(!follow_any(&[C(GET)]).between);
    assert!(!follow_any(&[C(GET), H("HTTP/1.1 200 OK\r\n")]).between);
    assert!(!follow_any(&[C(GET), H("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")]).between);
    assert!(follow_any(&[C(GET), H("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")]).between);
}

#[test]
fn pipelined_requests_are_answered_one_by_one() {
    let outcome = follow_any(&[C(GET), C(GET), H(OK)]);
    assert_eq!((heads(&outcome.client), heads(&outcome.hidden), outcome.between), (2, 1, false));
    let outcome = follow_any(&[C(GET), C(GET), H(OK), H(OK)]);
    assert_eq!((heads(&outcome.client), heads(&outcome.hidden), outcome.between), (2, 2, true));
}

#[test]
fn an_early_response_leaves_the_request_under_way() {
    let head = post("Content-Length: 5\r\n", "");
    let outcome = follow_any(&[C(&head), C("ab"), H(OK)]);
    assert_eq!((heads(&outcome.hidden), outcome.between), (1, false));
    let outcome = follow_any(&[C(&head), C("ab"), H(OK), C("cde")]);
    assert_eq!(shown(&outcome.client), ["0: head of 47", "47: 5 skipped"]);
    assert!(outcome.between);
}

#[test]
fn one_empty_line_before_a_request_belongs_to_it() {
    let outcome = follow_any(&[C(GET), C("\r\n"), C(GET), H(OK), H(OK)]);
    assert_eq!(shown(&outcome.client), ["0: head of 27", "27: head of 29"]);
}

#[test]
fn a_partial_head_has_not_begun_to_pass() {
    let outcome = follow_any(&[C(GET), H(OK), C("GET / HT")]);
    assert_eq!(shown(&outcome.client), ["0: head of 27"]);
    assert!(outcome.between);
}

#[test]
fn a_head_that_is_kept_back_is_found_again() {
    let mut follower = Follower::new(Limits::default(), Mode::Lenient);
    for behind in ["", "x", GET] {
        let text = format!("{GET}{behind}");
        let Step::Request { len, head } = follower.on_client(text.as_bytes()) else { panic!("no request") };
        assert_eq!((len, head.host), (GET.len(), Some("a")));
        assert!(follower.is_between_exchanges());
    }
}

#[test]
fn too_many_unanswered_requests_hold_the_next() {
    let many = GET.repeat(PIPELINE_MAX as usize);
    let outcome = follow_any(&[C(&many), C(GET)]);
    assert_eq!(heads(&outcome.client), PIPELINE_MAX as usize);
    assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Held));
    // One response lets one more pass.
    let outcome = follow_any(&[C(&many), C(GET), C(GET), H(OK)]);
    assert_eq!(heads(&outcome.client), PIPELINE_MAX as usize + 1);
    assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Held));
}

#[test]
fn each_of_many_unanswered_requests_keeps_its_method() {
    let head = GET.replace("GET", "HEAD");
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    let body = format!("{long}xyz");
    for first in 0..2 {
        let (mut requests, mut responses) = (String::new(), String::new());
        for at in first..first + PIPELINE_MAX {
            requests += if at % 2 == 0 { &head } else { GET };
            responses += if at % 2 == 0 { long } else { &body };
        }
        let outcome = follow_any(&[C(&requests), H(&responses)]);
        assert_eq!(heads(&outcome.hidden), PIPELINE_MAX as usize);
        assert!(outcome.between);
    }
}

#[test]
fn a_request_that_no_relay_forwards_is_refused_in_both_modes() {
    for (text, refusal) in [
        ("GET / HTTP/1.1\r\n\r\n", Refusal::HostMissing),
        ("GET / HTTP/1.1\nHost: a\n\n", Refusal::BareLineFeed),
        ("GET /{\"a\"} HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::RequestLine),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Refusal::Folded),
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Control),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Version),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BlankLines),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLineFeed),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refusal::ContentLength,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", Refusal::ContentLength),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::TransferEncoding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Refusal::TransferEncoding),
    ] {
        for before in [&[][..], &[C(GET), H(OK)], &[C(GET)]] {
            let parts = [before, &[C(text)]].concat();
            let outcome = follow_any(&parts);
            assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Refused(refusal)), "{text:?}");
        }
    }
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let small = Limits { head_bytes_max: 100, line_bytes_max: 40 };
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40));
    let long_head = with("GET / HTTP/1.1\r\nHost: a", &format!("X: {}\r\n", "x".repeat(100)), "");
    for (text, refusal) in [(&long_line, Refusal::LineTooLong), (&long_head, Refusal::HeadTooLarge)] {
        let outcome = follow_within(small, Mode::Lenient, &[C(GET), C(text)]);
        assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Refused(refusal)));
    }
}

#[test]
fn the_strict_mode_refuses_connect_and_unknown_expectations() {
    let expecting = |fields: &str| post(&format!("{fields}Content-Length: 1\r\n"), "x");
    let twice = expecting("Expect: 100-continue\r\nExpect: 100-continue\r\n");
    for (text, refusal) in [
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Tunnel),
        (&expecting("Expect: 200-ok\r\n"), Refusal::Expect),
        (&expecting("Expect: 100-continue, 100-continue\r\n"), Refusal::Expect),
        (&twice, Refusal::Expect),
    ] {
        let outcome = follow(Mode::Strict, &[C(GET), H(OK), C(text)]);
        assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Refused(refusal)), "{text:?}");
        let outcome = follow(Mode::Lenient, &[C(GET), H(OK), C(text)]);
        assert_eq!(heads(&outcome.client), 2, "{text:?}");
    }
    assert_eq!(heads(&follow_any(&[C(&expecting("Expect: 100-Continue\r\n"))]).client), 1);
}

#[test]
fn a_rewritten_head_counts_as_it_was_sent() {
    // The Upgrade was removed: nothing waits for its response.
    let sent = parse(GET.as_bytes()).unwrap();
    let mut follower = Follower::new(Limits::default(), Mode::Strict);
    follower.request_passed(&sent);
    assert!(matches!(follower.on_client(GET.as_bytes()), Step::Request { .. }));
}
