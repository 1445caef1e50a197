//! Refused meanings of fields.

use rendezvous_core::http::head::Refusal;

use crate::{all_are, all_fields_are, read};

#[test]
fn a_client_names_its_host() {
    all_are(Refusal::HostMissing, &["GET / HTTP/1.1\r\n\r\n", "GET http://a/ HTTP/1.1\r\nX-Host: a\r\n\r\n"]);
}

#[test]
fn a_client_names_its_host_once() {
    all_are(
        Refusal::HostRepeated,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            "CONNECT uuid:x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn a_host_is_a_host_and_a_port() {
    for host in [
        "a b", "a, b", "a/b", "a?b", "me@a", "a:b", "a:80:80", "a:65536", "a:-1", "a:+1", "http://a", "[::1",
        "[]", "[::1]x", "::1", "a[", "\"a\"", "a\\b", "\u{e9}",
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(read(text.as_bytes()), Err(Refusal::HostMalformed), "{host}");
    }
    assert_eq!(read(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"), Err(Refusal::HostMalformed));
}

#[test]
fn a_host_that_contradicts_the_target_is_refused() {
    for (target, host) in [
        ("http://a/", "b"),
        ("http://a/", ""),
        ("http://a/", "a:443"),
        ("https://a/", "a:80"),
        ("http://a:8080/", "a"),
        ("ftp://a:21/", "a"),
        ("ftp://a/", "a:443"),
        ("http://a/", "a."),
        ("http://a.evil/", "a"),
    ] {
        for version in ["1.0", "1.1"] {
            let text = format!("GET {target} HTTP/{version}\r\nHost: {host}\r\n\r\n");
            assert_eq!(read(text.as_bytes()), Err(Refusal::HostContradicts), "{target} {host}");
        }
    }
}

#[test]
fn two_authorizations_are_refused() {
    all_fields_are(
        Refusal::AuthorizationRepeated,
        &[
            "Authorization: Basic x\r\nAuthorization: Basic x\r\n",
            "Authorization: Basic x\r\nX: y\r\nAUTHORIZATION:\r\n",
        ],
    );
}

#[test]
fn a_content_length_is_one_number() {
    all_fields_are(
        Refusal::ContentLength,
        &[
            "Content-Length:\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5.0\r\n",
            "Content-Length: \u{665}\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
        ],
    );
}

#[test]
fn a_content_length_beside_a_transfer_encoding_is_refused() {
    all_fields_are(
        Refusal::ContentLength,
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        ],
    );
}

#[test]
fn the_only_transfer_encoding_is_chunked() {
    all_fields_are(
        Refusal::TransferEncoding,
        &[
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: chunked;x=y\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ],
    );
    all_are(Refusal::TransferEncoding, &["POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"]);
}

#[test]
fn a_registration_has_no_body() {
    all_are(
        Refusal::ConnectBody,
        &[
            "CONNECT uuid:x HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "CONNECT uuid:x HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "CONNECT uuid:x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    );
}
