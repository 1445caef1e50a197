//! Request heads.

use rendezvous_core::http::head::{Finder, Found, Head, Limits, Refusal, parse};

pub(crate) fn run(bytes: &[u8]) {
    // Short inputs exceed small limits.
    for limits in [Limits::default(), Limits { head_bytes_max: 200, line_bytes_max: 60 }] {
        let found = find(bytes, &limits);
        match found {
            Found::Partial => assert!(parse(bytes).is_err(), "a head without an end"),
            Found::Refused(refusal) => {
                assert!((400..600).contains(&refusal.status().code()) && !refusal.why().is_empty());
                let over = [Refusal::LineTooLong, Refusal::HeadTooLarge].contains(&refusal);
                assert!(over || parse(bytes).is_err(), "{refusal:?}, and then not");
            }
            Found::Complete(whole) => {
                let raw = whole.bytes();
                assert!(bytes.starts_with(raw) && raw.len() <= limits.head_bytes_max as usize);
                assert_eq!(whole.parse(), parse(raw), "found and parsed at once");
                if let Ok(head) = whole.parse() {
                    check(&head, raw);
                }
            }
        }
    }
}

/// The verdict, which must be the same whole, byte by byte, and in two halves.
fn find<'a>(bytes: &'a [u8], limits: &Limits) -> Found<'a> {
    let whole = Finder::default().find(bytes, limits);
    let mut finder = Finder::default();
    let first = (0..=bytes.len()).map(|len| finder.find(&bytes[..len], limits));
    let bytewise = first.into_iter().find(|found| *found != Found::Partial).unwrap_or(Found::Partial);
    assert_eq!(bytewise, whole, "byte by byte");
    let mut finder = Finder::default();
    let half = finder.find(&bytes[..bytes.len() / 2], limits);
    let halves = if half == Found::Partial { finder.find(bytes, limits) } else { half };
    assert_eq!(halves, whole, "in halves");
    whole
}

fn check(head: &Head<'_>, raw: &[u8]) {
    let (mut as_it_came, mut without) = (Vec::new(), Vec::new());
    head.as_it_came(&mut as_it_came);
    head.without_authorization(&mut without);
    assert_eq!(as_it_came, raw.strip_prefix(b"\r\n").unwrap_or(raw), "passed on as it came");
    assert_eq!(parse(&as_it_came).as_ref(), Ok(head));
    assert_eq!(without, less_authorization(&as_it_came), "less one line and nothing else");
    let again = parse(&without).expect("a head less one field is a head");
    let fields = |head: &Head<'_>| {
        format!(
            "{:?}",
            (
                head.method,
                head.target,
                head.version,
                head.host,
                head.body,
                head.expect,
                head.close,
                head.upgrade
            )
        )
    };
    assert_eq!(fields(&again), fields(head));
    assert_eq!(again.authorization, None);
    assert_eq!(head.is_connect(), head.method == "CONNECT");
}

/// An independent implementation: by lines of text, not by bytes.
fn less_authorization(head: &[u8]) -> Vec<u8> {
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let keeps = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        !(line.contains(':') && name.eq_ignore_ascii_case("authorization"))
    };
    let (request_line, fields) = text.split_once("\r\n").expect("a head has lines");
    let mut kept: Vec<&str> = vec![request_line];
    kept.extend(fields.split("\r\n").filter(keeps));
    kept.join("\r\n").chars().map(|it| u8::try_from(u32::from(it)).expect("it was a byte")).collect()
}
