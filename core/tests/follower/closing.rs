//! When no further exchange follows on the connection.

use rendezvous_core::http::follower::{Follower, Mode, Step};
use rendezvous_core::http::head::{Limits, parse};

use crate::{C, GET, H, OK, What, follow_any, heads, post, response, with};

#[test]
fn either_side_can_say_that_an_exchange_is_the_last() {
    let get = |version: &str, fields: &str| with(&format!("GET / HTTP/{version}\r\nHost: a"), fields, "");
    let ok = |version: &str, fields: &str| {
        with(&format!("HTTP/{version} 200 OK\r\nContent-Length: 0"), fields, "")
    };
    let (keep, close) = ("Connection: keep-alive\r\n", "Connection: x, Close\r\n");
    for (request, response, closing) in [
        (get("1.1", ""), ok("1.1", ""), false),
        (get("1.1", close), ok("1.1", ""), true),
        (get("1.1", ""), ok("1.1", close), true),
        (get("1.1", ""), ok("1.0", ""), true),
        (get("1.1", ""), ok("1.0", keep), false),
        (get("1.0", ""), ok("1.1", ""), true),
        (get("1.0", ""), ok("1.0", keep), true),
        (get("1.0", keep), ok("1.0", ""), true),
        (get("1.0", keep), ok("1.0", keep), false),
        (get("1.0", keep), ok("1.1", ""), false),
        (get("1.0", "Connection: keep-alive, close\r\n"), ok("1.0", keep), true),
    ] {
        let outcome = follow_any(&[C(&request), H(&response)]);
        assert_eq!((outcome.closing, outcome.over), (closing, closing), "{request:?} {response:?}");
        assert!(outcome.between);
    }
}

#[test]
fn a_closing_connection_is_over_when_the_last_response_has_passed() {
    let request = with("GET / HTTP/1.1\r\nHost: a", "Connection: close\r\n", "");
    let first = response("Content-Length: 3\r\n", "ab");
    let outcome = follow_any(&[C(&request), H(&first)]);
    assert!(outcome.closing && !outcome.over);
    assert!(follow_any(&[C(&request), H(&first), H("c")]).over);
}

#[test]
fn a_later_head_is_still_found_on_a_closing_connection() {
    let request = with("GET / HTTP/1.1\r\nHost: a", "Connection: close\r\n", "");
    let outcome = follow_any(&[C(&request), C(GET), H(OK)]);
    assert_eq!((heads(&outcome.client), outcome.over), (2, false));
}

#[test]
fn a_body_that_was_announced_with_expect_is_unknown_after_an_early_final_response() {
    let head = post("Expect: 100-continue\r\nContent-Length: 27\r\n", "");
    // The client may send the body, or another request of the same length.
    let outcome = follow_any(&[C(&head), H(OK), C(GET)]);
    assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Held));
    assert!(outcome.closing && outcome.over && !outcome.between);
    // The client has begun to send it, without waiting.
    let outcome = follow_any(&[C(&head), C("x"), H(OK)]);
    assert!(!outcome.closing);
    let outcome = follow_any(&[C(&head), C("x"), H(OK), C(&GET[1..]), C(GET)]);
    assert_eq!((heads(&outcome.client), outcome.closing), (2, false));
    // The body was asked for.
    let outcome = follow_any(&[C(&head), H("HTTP/1.1 100 Continue\r\n\r\n"), C(GET), H(OK)]);
    assert_eq!((heads(&outcome.client), outcome.closing, outcome.between), (1, false, true));
    // There is no body.
    let empty = post("Expect: 100-continue\r\nContent-Length: 0\r\n", "");
    let outcome = follow_any(&[C(&empty), H(OK), C(GET)]);
    assert_eq!((heads(&outcome.client), outcome.closing), (2, false));
}

#[test]
fn an_earlier_response_says_nothing_about_a_body_that_was_announced() {
    let head = post("Expect: 100-continue\r\nContent-Length: 3\r\n", "");
    let outcome = follow_any(&[C(GET), C(&head), H(OK), C("abc"), H(OK)]);
    assert!(outcome.between && !outcome.closing);
}

#[test]
fn the_end_of_a_side_is_the_end_of_exchanges() {
    let mut follower = Follower::new(Limits::default(), Mode::Lenient);
    follower.request_passed(&parse(GET.as_bytes()).unwrap());
    follower.client_ended();
    assert!(follower.will_close() && !follower.is_over());
    assert!(matches!(follower.on_hidden(OK.as_bytes()), Step::Response { .. }));
    assert!(follower.is_over() && follower.is_between_exchanges());

    let mut follower = Follower::new(Limits::default(), Mode::Lenient);
    follower.request_passed(&parse(GET.as_bytes()).unwrap());
    follower.hidden_ended();
    assert!(follower.will_close() && follower.is_over() && !follower.is_between_exchanges());
}
