//! The ends of responses (RFC 9112 §6.3).

use crate::{C, GET, H, OK, What, follow_any, heads, response, shown, with};

const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_length_or_chunks_delimit_a_response() {
    for (fields, body) in [
        ("Content-Length: 5\r\n", "HTTP/"),
        ("content-length:  5 \r\nX: y\r\n", "12345"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX: y\r\nAuthorization: z\r\n\r\n"),
        ("TRANSFER-ENCODING: Chunked\r\n", "0\r\n\r\n"),
    ] {
        let first = response(fields, body);
        let head = first.len() - body.len();
        let outcome = follow_any(&[C(GET), H(&first), C(GET), H(OK)]);
        assert_eq!(
            shown(&outcome.hidden),
            [
                format!("0: head of {head}"),
                format!("{head}: {} skipped", body.len()),
                format!("{}: head of 38", first.len())
            ]
        );
        assert!(outcome.between && !outcome.closing);
    }
}

#[test]
fn some_responses_have_no_body_whatever_their_fields_say() {
    let fields = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (request, status, fields) in [
        (HEAD, "200 OK", fields),
        (HEAD, "200 OK", chunked),
        (HEAD, "404 Not Found", ""),
        (GET, "204 No Content", ""),
        (GET, "204 No Content", fields),
        (GET, "304 Not Modified", fields),
        (GET, "304 Not Modified", chunked),
        (GET, "304", ""),
    ] {
        let first = with(&format!("HTTP/1.1 {status}"), fields, "");
        let outcome = follow_any(&[C(request), H(&first), C(GET), H(OK)]);
        assert_eq!(heads(&outcome.hidden), 2, "{first:?}");
        assert!(outcome.between && !outcome.closing, "{first:?}");
    }
}

#[test]
fn interim_responses_belong_to_the_final_one() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 3\r\n\r\n";
    let outcome = follow_any(&[C(GET), H(interim)]);
    assert_eq!(shown(&outcome.hidden), [format!("0: {} skipped", interim.len())]);
    assert!(!outcome.between);
    let outcome = follow_any(&[C(GET), H(interim), H(OK)]);
    assert_eq!((heads(&outcome.hidden), outcome.between), (1, true));
}

#[test]
fn without_a_length_a_response_lasts_until_the_end() {
    for fields in ["", "Transfer-Encoding: gzip\r\n", "Connection: close\r\n"] {
        let first = response(fields, "");
        let outcome = follow_any(&[C(GET), H(&first), H(OK), H(OK), C(GET)]);
        assert_eq!(
            shown(&outcome.hidden),
            [format!("0: head of {}", first.len()), format!("{}: opaque", first.len())]
        );
        assert!(outcome.closing && !outcome.between && !outcome.over && !outcome.opaque);
        // The client is still followed.
        assert_eq!(heads(&outcome.client), 2);
    }
}

#[test]
fn an_ambiguous_length_lasts_until_the_end() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        let first = response(fields, "");
        let outcome = follow_any(&[C(GET), H(&first), H("12345"), H(OK)]);
        assert_eq!(outcome.hidden.last().map(|it| it.what), Some(What::Opaque), "{fields:?}");
        assert!(outcome.closing && !outcome.between && !outcome.opaque, "{fields:?}");
    }
    let first = response("Content-Length: 5,\r\n", "");
    assert!(!follow_any(&[C(HEAD), H(&first)]).between);
    let first = with("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n");
    assert!(!follow_any(&[C(GET), H(&first)]).between);
}

#[test]
fn what_is_not_certainly_a_response_lasts_until_the_end_and_the_client_is_still_followed() {
    for first in [
        "ICY 200 OK\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\0",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;\"\n\"\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
        // The client did not ask for another protocol.
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let outcome = follow_any(&[C(GET), H(first), C(GET), H(OK)]);
        assert_eq!(outcome.hidden.last().map(|it| it.what), Some(What::Opaque), "{first:?}");
        assert!(outcome.closing && !outcome.between && !outcome.opaque, "{first:?}");
        assert_eq!(heads(&outcome.client), 2, "{first:?}");
    }
}

#[test]
fn requests_are_not_counted_where_responses_are_not_followed() {
    let many = GET.repeat(200);
    let outcome = follow_any(&[C(GET), H("ICY 200 OK\r\n\r\n"), C(&many)]);
    assert_eq!(heads(&outcome.client), 201);
}

#[test]
fn bytes_that_answer_no_request_are_held() {
    for stray in [OK, "\r\n", "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", "x"] {
        let outcome = follow_any(&[C(GET), H(OK), H(stray)]);
        assert_eq!(shown(&outcome.hidden), ["0: head of 38", "38: held"], "{stray:?}");
        assert!(outcome.closing && outcome.over && outcome.between, "{stray:?}");
        let outcome = follow_any(&[H(stray)]);
        assert_eq!(shown(&outcome.hidden), ["0: held"], "{stray:?}");
    }
    // If another request is forwarded, they are its response.
    let outcome = follow_any(&[C(GET), H(OK), H(OK), C(GET)]);
    assert_eq!(heads(&outcome.hidden), 2);
}
