//! Request heads: how they are parsed, which are refused and why, and where they end.
//!
//! Every head goes through [`read`]: at once, cut at every byte, byte by byte, and with further bytes after it.

mod bytes;
mod ends;
mod fields;
mod passed_on;
mod read;
mod request_line;

use rendezvous_core::http::head::{Finder, Found, Head, Limits, Refusal, parse};

const LIMITS: Limits = Limits { head_bytes_max: 16 << 10, line_bytes_max: 8 << 10 };
const SMALL: Limits = Limits { head_bytes_max: 100, line_bytes_max: 40 };

/// The only result for these bytes, however they are cut.
fn find<'a>(bytes: &'a [u8], limits: &Limits) -> Found<'a> {
    let whole = Finder::default().find(bytes, limits);
    for cut in 0..bytes.len() {
        let mut finder = Finder::default();
        let early = finder.find(&bytes[..cut], limits);
        let late = if early == Found::Partial { finder.find(bytes, limits) } else { early };
        assert_eq!(late, whole, "{:?} cut at {cut}", bytes.escape_ascii().to_string());
    }
    let mut finder = Finder::default();
    let bytewise =
        (1..=bytes.len()).map(|len| finder.find(&bytes[..len], limits)).find(|it| *it != Found::Partial);
    assert_eq!(bytewise.unwrap_or(Found::Partial), whole, "{:?}", bytes.escape_ascii().to_string());
    if whole != Found::Partial {
        let behind = [bytes, b"\r\n\x16\0GET / HTTP/1.1\r\n"].concat();
        assert_eq!(Finder::default().find(&behind, limits), whole, "{:?}", bytes.escape_ascii().to_string());
    }
    whole
}

/// The length of a complete head.
fn len_of(found: Found<'_>) -> Option<usize> {
    match found {
        Found::Complete(whole) => Some(whole.bytes().len()),
        Found::Partial | Found::Refused(_) => None,
    }
}

/// Parses a head as the engine does.
fn read(bytes: &[u8]) -> Result<Head<'_>, Refusal> {
    match find(bytes, &LIMITS) {
        Found::Refused(refusal) => {
            // Without a call of the finder the result is the same, or an incomplete head.
            assert!([Err(refusal), Err(Refusal::Incomplete)].contains(&parse(bytes)));
            Err(refusal)
        }
        Found::Complete(whole) => {
            assert_eq!(whole.bytes(), bytes);
            assert_eq!(whole.parse(), parse(bytes));
            whole.parse()
        }
        Found::Partial => Err(Refusal::Incomplete),
    }
}

fn good(text: &str) -> Head<'_> {
    read(text.as_bytes()).unwrap_or_else(|refusal| panic!("{text:?}: {refusal:?}"))
}

fn all_are(refusal: Refusal, texts: &[&str]) {
    for text in texts {
        assert_eq!(read(text.as_bytes()), Err(refusal), "{text:?}");
    }
}

/// A request with these field lines besides `Host`.
fn with(fields: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn all_fields_are(refusal: Refusal, fields: &[&str]) {
    for fields in fields {
        assert_eq!(read(with(fields).as_bytes()), Err(refusal), "{fields:?}");
    }
}

fn as_it_came(head: &Head<'_>) -> String {
    let mut out = Vec::new();
    head.as_it_came(&mut out);
    String::from_utf8(out).unwrap()
}

fn without_authorization(head: &Head<'_>) -> String {
    let mut out = Vec::new();
    head.without_authorization(&mut out);
    String::from_utf8(out).unwrap()
}
