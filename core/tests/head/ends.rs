//! The end of a head, and its limits.

use std::collections::BTreeSet;

use rendezvous_core::http::head::{FIELDS_MAX, Finder, Found, Limits, Refusal, parse};
use rendezvous_core::http::reply::Status;

use crate::{LIMITS, SMALL, find, good, len_of, read};

#[test]
fn a_head_ends_at_its_empty_line() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\n";
    assert_eq!(len_of(Finder::default().find(text, &LIMITS)), Some(27));
}

#[test]
fn a_head_that_has_not_ended_is_partial() {
    let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for len in 0..text.len() {
        assert_eq!(find(&text[..len], &LIMITS), Found::Partial, "{len}");
        assert_eq!(parse(&text[..len]), Err(Refusal::Incomplete), "{len}");
    }
    assert_eq!(parse(&[text.as_slice(), b"x"].concat()), Err(Refusal::Incomplete));
}

#[test]
fn a_finder_begins_anew_after_a_head() {
    let (first, second) = (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /2 HTTP/1.1\r\n\r\n");
    let mut finder = Finder::default();
    assert_eq!(finder.find(&first[..20], &LIMITS), Found::Partial);
    assert_eq!(len_of(finder.find(first, &LIMITS)), Some(first.len()));
    assert_eq!(len_of(finder.find(first, &LIMITS)), Some(first.len()));
    assert_eq!(len_of(finder.find(second, &LIMITS)), Some(second.len()));
    assert_eq!(finder.find(b"\0", &LIMITS), Found::Refused(Refusal::NotHttp));
    assert_eq!(finder.find(b"\0", &LIMITS), Found::Refused(Refusal::NotHttp));
}

#[test]
fn bytes_that_come_one_by_one_are_looked_at_once() {
    // If each call scanned everything again, this would be 2 * 10^12 bytes, and would not end.
    let limits = Limits { head_bytes_max: 2_000_001, line_bytes_max: 100 };
    let mut text = b"GET / HTTP/1.1\r\nX: ".to_vec();
    text.resize(2_000_000, b'x');
    let mut finder = Finder::default();
    for len in 0..text.len() {
        assert_eq!(finder.find(&text[..len], &limits), Found::Partial);
    }
}

#[test]
fn a_request_line_over_the_limit_is_too_long() {
    let line = |len: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(len - 16));
    assert_eq!(line(40).len(), 40);
    assert_eq!(find(line(40).as_bytes(), &SMALL), Found::Partial);
    assert_eq!(find(line(41).as_bytes(), &SMALL), Found::Refused(Refusal::LineTooLong));
    assert_eq!(find(&[b'x'; 39], &SMALL), Found::Partial);
    assert_eq!(find(&[b'x'; 40], &SMALL), Found::Refused(Refusal::LineTooLong));
}

#[test]
fn an_empty_line_in_front_does_not_shorten_the_request_line() {
    let text = format!("\r\nGET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(24));
    assert_eq!(len_of(find(text.as_bytes(), &SMALL)), Some(text.len()));
}

#[test]
fn a_head_over_the_limit_is_too_large() {
    let head = |len: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(len - 23));
    assert_eq!(len_of(find(head(100).as_bytes(), &SMALL)), Some(100));
    assert_eq!(find(head(101).as_bytes(), &SMALL), Found::Refused(Refusal::HeadTooLarge));
    assert_eq!(find(&head(200).as_bytes()[..99], &SMALL), Found::Partial);
    assert_eq!(find(&head(200).as_bytes()[..100], &SMALL), Found::Refused(Refusal::HeadTooLarge));
}

#[test]
fn a_field_over_the_limit_of_the_line_is_read() {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(60));
    assert_eq!(len_of(find(text.as_bytes(), &SMALL)), Some(text.len()));
}

#[test]
fn a_hundred_fields_are_read_and_no_more() {
    let head = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(fields - 1));
    assert_eq!(FIELDS_MAX, 100);
    assert_eq!(good(&head(100)).host, Some("a"));
    // The excess line is refused before it is complete.
    assert_eq!(find(&head(101).as_bytes()[..head(100).len() - 2], &LIMITS), Found::Partial);
    assert_eq!(
        find(&head(101).as_bytes()[..head(100).len() - 1], &LIMITS),
        Found::Refused(Refusal::TooManyFields)
    );
    assert_eq!(read(head(101).as_bytes()), Err(Refusal::TooManyFields));
}

#[test]
fn the_default_limits_are_16_and_8_kib() {
    assert_eq!(Limits::default(), LIMITS);
}

#[test]
fn every_refusal_has_its_status() {
    for (refusal, status) in [
        (Refusal::LineTooLong, Status::UriTooLong414),
        (Refusal::HeadTooLarge, Status::HeadTooLarge431),
        (Refusal::TooManyFields, Status::HeadTooLarge431),
        (Refusal::Version, Status::VersionNotSupported505),
        (Refusal::NotHttp, Status::BadRequest400),
        (Refusal::BareLineFeed, Status::BadRequest400),
        (Refusal::Folded, Status::BadRequest400),
        (Refusal::HostMissing, Status::BadRequest400),
        (Refusal::AuthorizationRepeated, Status::BadRequest400),
        (Refusal::ContentLength, Status::BadRequest400),
        (Refusal::ConnectBody, Status::BadRequest400),
    ] {
        assert_eq!(refusal.status(), status, "{refusal:?}");
    }
}

#[test]
fn every_refusal_says_what_is_wrong_in_words_of_its_own() {
    let all = [
        Refusal::NotHttp,
        Refusal::BlankLines,
        Refusal::BareLineFeed,
        Refusal::BareCarriageReturn,
        Refusal::Control,
        Refusal::RequestLine,
        Refusal::TargetForm,
        Refusal::Folded,
        Refusal::FieldName,
        Refusal::FieldValue,
        Refusal::HostMissing,
        Refusal::HostRepeated,
        Refusal::HostMalformed,
        Refusal::HostContradicts,
        Refusal::AuthorizationRepeated,
        Refusal::ContentLength,
        Refusal::TransferEncoding,
        Refusal::ConnectBody,
        Refusal::Incomplete,
        Refusal::LineTooLong,
        Refusal::HeadTooLarge,
        Refusal::TooManyFields,
        Refusal::Version,
    ];
    let texts: BTreeSet<_> = all.map(Refusal::why).into_iter().collect();
    assert_eq!(texts.len(), all.len());
    assert_eq!(Refusal::BareLineFeed.why(), "LF without CR");
}

/// Without a call of the finder, parsing gives the finder's result, and never a head with further bytes.
#[test]
fn a_head_is_read_whole_or_not_at_all() {
    assert_eq!(parse(b"GET / HTTP/1.1\nHost: a\n\n"), Err(Refusal::BareLineFeed));
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx"), Err(Refusal::Incomplete));
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n"), Err(Refusal::Incomplete));
}
