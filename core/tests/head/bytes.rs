//! Refused line ends, and bytes that HTTP does not allow.

use rendezvous_core::http::head::{Finder, Found, Refusal};

use crate::{LIMITS, all_are, all_fields_are, find, read};

#[test]
fn what_cannot_begin_a_request_is_refused_at_its_first_byte() {
    for first in (0..=u8::MAX).filter(|it| !it.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~\r".contains(it))
    {
        let expected = if first == b'\n' { Refusal::BareLineFeed } else { Refusal::NotHttp };
        assert_eq!(Finder::default().find(&[first], &LIMITS), Found::Refused(expected), "{first:#04x}");
        assert_eq!(find(&[b'\r', b'\n', first], &LIMITS), Found::Refused(expected), "{first:#04x}");
    }
}

#[test]
fn a_tls_handshake_in_clear_is_not_http() {
    assert_eq!(read(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), Err(Refusal::NotHttp));
}

#[test]
fn a_second_empty_line_in_front_is_refused() {
    all_are(Refusal::BlankLines, &["\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"]);
}

#[test]
fn a_line_feed_without_carriage_return_is_refused() {
    all_are(
        Refusal::BareLineFeed,
        &[
            "\nGET / HTTP/1.1\r\n",
            "\r\n\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "CONNECT uuid:x HTTP/1.1\n",
        ],
    );
}

#[test]
fn a_carriage_return_without_line_feed_is_refused() {
    all_are(
        Refusal::BareCarriageReturn,
        &[
            "\rGET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\rHost: a\r\n",
            "GET / HTTP/1.1\r\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\rX",
        ],
    );
}

#[test]
fn a_control_byte_anywhere_is_refused() {
    let text = b"GET /path HTTP/1.1\r\nHost: a\r\nX-Y: z z\r\n\r\n";
    let controls = (0..0x20_u8).chain([0x7f]).filter(|it| !b"\t\r\n".contains(it));
    for control in controls {
        for at in 0..text.len() {
            let mut text = text.to_vec();
            text[at] = control;
            assert!(read(&text).is_err(), "{}", text.escape_ascii());
        }
    }
}

#[test]
fn a_tab_may_stand_around_and_in_a_value_and_nowhere_else() {
    let text = b"GET / HTTP/1.1\r\nHost:  a \r\nX:yyy\r\n\r\n";
    let is_allowed = |at| matches!(at, 21..=24 | 29..=31);
    for at in 0..text.len() {
        let mut text = text.to_vec();
        text[at] = b'\t';
        assert_eq!(read(&text).is_ok(), is_allowed(at), "{}", text.escape_ascii());
    }
}

#[test]
fn a_folded_field_is_refused() {
    all_are(
        Refusal::Folded,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Digest\r\n username=x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\ty\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
        ],
    );
}

#[test]
fn a_field_name_is_a_token_before_a_colon() {
    all_fields_are(
        Refusal::FieldName,
        &[
            ": x\r\n",
            "X : y\r\n",
            "X\t: y\r\n",
            "Authorization : y\r\n",
            "X\r\n",
            "X Y: z\r\n",
            "X(: y\r\n",
            "\"X\": y\r\n",
            "X\u{e9}: y\r\n",
            "\u{e9}: y\r\n",
        ],
    );
}

#[test]
fn a_field_value_has_no_control_bytes() {
    all_fields_are(
        Refusal::Control,
        &["X: \0\r\n", "X: a\x08b\r\n", "X: \x7f\r\n", "X:\x0b\r\n", "X\0: y\r\n"],
    );
}
