//! Forwarded heads are unchanged.

use crate::{LIMITS, as_it_came, find, good, len_of, read, with, without_authorization};

#[test]
fn a_head_is_passed_on_byte_for_byte() {
    let text = "GET /%7e//x?[] HTTP/1.1\r\nx-B:  2 \r\nHOST:a\r\nX-b:\r\nx-B: 1\t\r\nX-A:a,b ,c\r\n\r\n";
    assert_eq!(as_it_came(&good(text)), text);
    assert_eq!(without_authorization(&good(text)), text);
}

#[test]
fn the_authorization_line_is_left_out_and_nothing_else() {
    for line in [
        "Authorization: Basic x\r\n",
        "AUTHORIZATION: Basic x\r\n",
        "authorization:Basic x\r\n",
        "AuThOrIzAtIoN:\r\n",
        "Authorization: \t \r\n",
        "Authorization: Digest username=\"Host: b\", uri=\"Authorization:\"\r\n",
    ] {
        for (front, back) in [
            ("GET / HTTP/1.1\r\n", "Host: a\r\nX: 1\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\n", "X: 1\r\nx: 2\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX:  Authorization: y \r\nAuthorizations: z\r\n", "\r\n"),
        ] {
            let text = format!("{front}{line}{back}");
            let head = good(&text);
            assert_eq!(without_authorization(&head), format!("{front}{back}"), "{text:?}");
            assert_eq!(as_it_came(&head), text);
        }
    }
}

#[test]
fn bytes_above_ascii_in_values_are_passed_on_as_they_are() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\x80\xc3\xa9\tz\r\n\r\n";
    let mut out = b"before".to_vec();
    read(text).unwrap().without_authorization(&mut out);
    assert_eq!(out, [b"before".as_slice(), text].concat());
}

#[test]
fn one_empty_line_in_front_is_counted_and_not_passed_on() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let led = format!("\r\n{text}");
    assert_eq!(len_of(find(led.as_bytes(), &LIMITS)), Some(led.len()));
    assert_eq!(as_it_came(&good(&led)), text);
    assert_eq!(without_authorization(&good(&led)), text);
}

#[test]
fn debug_shows_no_credentials() {
    let client = with("Authorization: Basic c2VjcmV0\r\n");
    let shown = format!("{:?} {:?}", good(&client), good("CONNECT uuid:x?response=123456 HTTP/1.1\r\n\r\n"));
    assert!(shown.contains("CONNECT"), "{shown}");
    for hidden in ["c2VjcmV0", "123456", "99, 50, 86"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}
