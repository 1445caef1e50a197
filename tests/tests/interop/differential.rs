//! Differential test of our head parser: the same bytes to ours and to Python's h11.
//!
//! Ours may be stricter, as [`STRICTER`] lists with reasons. It must not be more permissive: heads that both accept
//! have the same length, framing, target and fields. [`LOOSER`] lists the heads that only ours accepts, with reasons.

mod exchanges;
mod heads;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use rendezvous_core::http::head::{Body, Finder, Found, Head, Limits, Refusal, Version};

use crate::harness::{Case, case};
use crate::hidden::hex;
use crate::peers::{Peer, script};

pub(crate) const CASES: &[Case] = &[
    case("h11_reads_the_table_of_heads_as_we_do", &[Peer::H11], h11_reads_the_table_of_heads_as_we_do),
    case("h11_reads_mutated_heads_as_we_do", &[Peer::H11], h11_reads_mutated_heads_as_we_do),
    case(
        "h11_follows_generated_exchanges_as_we_do",
        &[Peer::H11],
        exchanges::h11_follows_generated_exchanges_as_we_do,
    ),
    case(
        "h11_follows_mutated_exchanges_as_we_do",
        &[Peer::H11],
        exchanges::h11_follows_mutated_exchanges_as_we_do,
    ),
];

/// What we refuse and h11 accepts, by our verdict.
const STRICTER: &[(Refusal, &str)] = &[
    (
        Refusal::AuthorizationRepeated,
        "one credential chooses the hidden server and is removed: two could differ",
    ),
    (
        Refusal::BareLineFeed,
        "RFC 9112 §2.2 allows a recipient to take LF alone; who passes a head on must not",
    ),
    (Refusal::ConnectBody, "no body has a place before a tunnel (RFC 9110 §9.3.6)"),
    (
        Refusal::ContentLength,
        "h11 merges equal repeated lengths, and lets Transfer-Encoding win over a length",
    ),
    (Refusal::Control, "h11 lets control bytes but NUL into a value"),
    (Refusal::Folded, "RFC 9112 §5.2 lets a server refuse or replace: what is passed on is not replaced"),
    (Refusal::HostContradicts, "h11 does not compare Host with an absolute target"),
    (Refusal::HostMalformed, "h11 does not look into Host"),
    (Refusal::RequestLine, "h11 lets any printable character into a target: # \" < \\ are not in RFC 3986"),
    (Refusal::TargetForm, "h11 does not compare the target's form with the method (RFC 9112 §3.2)"),
    (Refusal::TooManyFields, "h11 counts bytes only"),
    (Refusal::LineTooLong, "h11 counts the head, not its first line"),
    (Refusal::HeadTooLarge, "h11 judges the size only where the head is not complete yet"),
    (Refusal::TransferEncoding, "RFC 9112 §6.1: HTTP/1.0 knows no chunks"),
    (Refusal::Version, "h11 reads any HTTP/x.y; and CONNECT under HTTP/1.0 is refused by decision"),
];

/// What we accept and h11 refuses, by the beginning of its message.
const LOOSER: &[(&str, &str)] = &[
    (
        "no request line received",
        "RFC 9112 §2.2 asks for one empty line in front to be ignored; it is not passed on",
    ),
    ("Missing mandatory Host", "a CONNECT of 2013 has no Host, and none is looked at"),
];

/// A verdict, in the format of `h11_head.py`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    More,
    No(String),
    Ok(String),
}

fn h11_reads_the_table_of_heads_as_we_do() {
    let heads = heads::table();
    assert!(heads.len() >= 300, "{} heads", heads.len());
    let seen = compare(&heads);
    // An entry that no head needs is out of date.
    for (refusal, _) in STRICTER {
        assert!(seen.contains_key(&format!("{refusal:?}")), "no head shows {refusal:?}");
    }
    for (words, _) in LOOSER {
        assert!(seen.contains_key(*words), "no head shows {words:?}");
    }
}

fn h11_reads_mutated_heads_as_we_do() {
    let heads = heads::table();
    let mutants: Vec<_> = (0..20_000).map(|seed| heads::mutate(&heads, seed)).collect();
    let seen = compare(&mutants);
    println!("{seen:?}");
}

/// Fails on a difference that is not listed. Returns how many of each class there were.
fn compare(heads: &[Vec<u8>]) -> BTreeMap<String, u32> {
    let theirs = h11(heads);
    let mut seen = BTreeMap::new();
    let mut unlisted = String::new();
    for (bytes, theirs) in heads.iter().zip(theirs) {
        let (ours, refusal) = ours(bytes);
        let class = match (&ours, &theirs) {
            (Verdict::Ok(ours), Verdict::Ok(theirs)) if ours == theirs => continue,
            // Before a head is complete nothing is passed on, so it does not matter which parser refuses first.
            (Verdict::No(_) | Verdict::More, Verdict::No(_) | Verdict::More) => continue,
            (Verdict::No(_), Verdict::Ok(_)) => {
                STRICTER.iter().find(|(it, _)| Some(*it) == refusal).map(|(it, _)| format!("{it:?}"))
            }
            (Verdict::Ok(_), Verdict::No(why)) => looser(bytes, why),
            _ => None,
        };
        match class {
            Some(class) => *seen.entry(class).or_insert(0) += 1,
            None => {
                let _ =
                    writeln!(unlisted, "{}\n  ours:   {ours:?}\n  theirs: {theirs:?}", bytes.escape_ascii());
            }
        }
    }
    assert!(unlisted.is_empty(), "differences that are not listed:\n{unlisted}");
    seen
}

/// The class of a listed difference: h11's message must match the bytes.
fn looser(bytes: &[u8], why: &str) -> Option<String> {
    let (words, _) = LOOSER.iter().find(|(words, _)| why.starts_with(words))?;
    let fits = match *words {
        "no request line received" => bytes.starts_with(b"\r\n"),
        _ => bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"CONNECT "),
    };
    fits.then(|| (*words).to_owned())
}

fn ours(bytes: &[u8]) -> (Verdict, Option<Refusal>) {
    let whole = match Finder::default().find(bytes, &Limits::default()) {
        Found::Partial => return (Verdict::More, None),
        Found::Refused(refusal) => return (Verdict::No(refusal.why().to_owned()), Some(refusal)),
        Found::Complete(whole) => whole,
    };
    match whole.parse() {
        Ok(head) => (Verdict::Ok(describe(&head, whole.bytes().len())), None),
        Err(refusal) => (Verdict::No(refusal.why().to_owned()), Some(refusal)),
    }
}

/// In the format of `h11_head.py`. Our parser keeps neither `Host` nor `Authorization` of a CONNECT, so they are taken
/// from the bytes.
fn describe(head: &Head<'_>, len: usize) -> String {
    let mut raw = Vec::new();
    head.as_it_came(&mut raw);
    let fields: Vec<(Vec<u8>, Vec<u8>)> =
        raw.split(|&byte| byte == b'\n').skip(1).filter_map(field).collect();
    let named = |name: &str| {
        let values = fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        let values: Vec<_> =
            values.map(|(_, value)| if value.is_empty() { "empty".to_owned() } else { hex(value) }).collect();
        if values.is_empty() { "-".to_owned() } else { values.join(",") }
    };
    if !head.is_connect() {
        let absolute = !head.target.starts_with(['/', '*']);
        assert!(absolute || head.host.is_some() == (named("host") != "-"));
        let own =
            head.authorization.map(|value| if value.is_empty() { "empty".to_owned() } else { hex(value) });
        assert_eq!(own.unwrap_or("-".to_owned()), named("authorization"));
    }
    let framing = match head.body {
        Body::None => "none".to_owned(),
        Body::Chunked => "chunked".to_owned(),
        // Unchanged, with leading zeroes.
        Body::Length(length) => {
            let text = named("content-length");
            assert!(hex(length.to_string().as_bytes()).len() <= text.len());
            unhex(&text)
        }
    };
    let version = if head.version == Version::Http11 { "1.1" } else { "1.0" };
    let (method, target) = (hex(head.method.as_bytes()), hex(head.target.as_bytes()));
    let (host, authorization, count) = (named("host"), named("authorization"), fields.len());
    format!("{method} {target} {version} {len} {framing} {host} {authorization} {count}")
}

fn field(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = value[1..].strip_suffix(b"\r")?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().take_while(|byte| blank(byte)).count();
    let end = value.iter().rev().take_while(|byte| blank(byte)).count();
    Some((name.to_vec(), value.get(start..value.len() - end).unwrap_or_default().to_vec()))
}

fn unhex(text: &str) -> String {
    let bytes = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    bytes.map(|pair| char::from(u8::from_str_radix(pair, 16).expect("hex"))).collect()
}

fn h11(heads: &[Vec<u8>]) -> Vec<Verdict> {
    let mut python = Peer::H11.command();
    python.arg(script("h11_head.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().expect("python starts");
    let mut input = Vec::new();
    for head in heads {
        input.extend_from_slice(&u32::try_from(head.len()).expect("short").to_le_bytes());
        input.extend_from_slice(head);
    }
    let mut stdin = child.stdin.take().expect("piped");
    // Write and read at the same time: otherwise a pipe would fill.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("python runs");
    writer.join().expect("no panic").expect("python reads everything");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).expect("text");
    let verdict = |line: &str| match line.split_once(' ') {
        Some(("ok", rest)) => Verdict::Ok(rest.to_owned()),
        Some(("no", why)) => Verdict::No(why.to_owned()),
        _ if line == "more" => Verdict::More,
        _ => panic!("{line:?} is no verdict"),
    };
    let verdicts: Vec<_> = text.lines().map(verdict).collect();
    assert_eq!(verdicts.len(), heads.len());
    verdicts
}
