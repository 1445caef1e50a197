//! Refused request lines.

use rendezvous_core::http::head::{Finder, Found, Refusal};

use crate::{LIMITS, all_are, read};

#[test]
fn a_request_line_has_three_parts_and_two_spaces() {
    all_are(
        Refusal::RequestLine,
        &[
            "GET\r\n",
            "GET \r\n",
            "GET /\r\n",
            "GET / \r\n",
            "GET  / HTTP/1.1\r\n",
            "GET /  HTTP/1.1\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET\t/\tHTTP/1.1\r\n",
            "GET  HTTP/1.1\r\n",
            "GET /a b HTTP/1.1\r\n",
            "G(T / HTTP/1.1\r\n",
            "CONNECT  HTTP/1.1\r\n",
            "CONNECT uuid:{x} HTTP/1.1\r\n",
            "GET /a#b HTTP/1.1\r\n",
            "GET /\"<>\\^`{|} HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.1\r\n",
        ],
    );
    assert_eq!(read(b"GET /\xff\xfe HTTP/1.1\r\n"), Err(Refusal::RequestLine));
}

#[test]
fn what_names_no_version_is_a_malformed_line() {
    all_are(
        Refusal::RequestLine,
        &[
            "GET / HTTP\r\n",
            "GET / HTTP/1\r\n",
            "GET / HTTP/2\r\n",
            "GET / HTTP/1.10\r\n",
            "GET / HTTP/11\r\n",
            "GET / HTTP/1,1\r\n",
            "GET / HTTP/x.1\r\n",
            "GET / http/1.1\r\n",
            "GET / ICY/1.1\r\n",
        ],
    );
}

#[test]
fn any_other_version_is_not_supported() {
    all_are(
        Refusal::Version,
        &[
            "PRI * HTTP/2.0\r\n",
            "GET / HTTP/0.9\r\n",
            "GET / HTTP/1.2\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/3.0\r\n",
            "CONNECT uuid:x HTTP/2.0\r\n",
        ],
    );
}

#[test]
fn connect_is_not_supported_under_http_1_0() {
    all_are(Refusal::Version, &["CONNECT uuid:x HTTP/1.0\r\n"]);
}

#[test]
fn a_form_of_target_that_is_no_clients_is_refused() {
    all_are(
        Refusal::TargetForm,
        &[
            "GET * HTTP/1.1\r\n",
            "options * HTTP/1.1\r\n",
            "OPTIONS ** HTTP/1.1\r\n",
            "GET example.com:443 HTTP/1.1\r\n",
            "GET example.com HTTP/1.1\r\n",
            "GET uuid:2f402f80-da50-41e1-9b23-0123456789ab HTTP/1.1\r\n",
            "GET ?x HTTP/1.1\r\n",
            "GET a/b HTTP/1.1\r\n",
            "GET http:/a HTTP/1.1\r\n",
            "GET http:// HTTP/1.1\r\n",
            "GET http:///x HTTP/1.1\r\n",
            "GET http://:80/ HTTP/1.1\r\n",
            "GET http://me@a/ HTTP/1.1\r\n",
            "GET http://a:b/ HTTP/1.1\r\n",
            "GET http://a:65536/ HTTP/1.1\r\n",
            "GET http://[::1/ HTTP/1.1\r\n",
            "GET ://a/ HTTP/1.1\r\n",
            "GET 1http://a/ HTTP/1.1\r\n",
            "GET x?y=http://a/ HTTP/1.1\r\n",
        ],
    );
}

#[test]
fn a_malformed_line_is_refused_before_the_head_is_complete() {
    assert_eq!(Finder::default().find(b"GET /\r\n", &LIMITS), Found::Refused(Refusal::RequestLine));
    assert_eq!(Finder::default().find(b"PRI * HTTP/2.0\r\n", &LIMITS), Found::Refused(Refusal::Version));
}
