//! Differential test of our exchange follower: the same conversations to ours and to h11.
//!
//! Ours may stop earlier: a conversation that it refuses, or passes unparsed to the connection's end, is not misread.
//! While both continue, heads and bodies have the same boundaries. Ours must not continue where h11 refuses, except for
//! [`LOOSER`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use rendezvous_core::http::follower::Mode;
use rendezvous_core::http::head::Limits;
use tests::exchanges::{Exchanges, Found, From, Pieces, What};

use crate::hidden::noise;
use crate::peers::{Peer, script};

/// Where we continue and h11 does not.
const LOOSER: &str = "RFC 9112 §2.2 asks for one empty line before a request to be ignored";

/// What clients send, with unusual parts.
const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: b=c\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n1b\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n00\r\nX: y\r\nZ: 0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b\"\r\nx\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nx\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "\u{16}\u{3}\u{1}",
];

/// What servers answer, with unusual parts.
const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 404\r\ncontent-length:5\r\nServer: x\r\n\r\nabcde",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n2;x\r\n\r\n\r\n0\r\nServer-Timing: y\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n\r\nto the end",
    "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b\"\r\nx\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: y\r\n z\r\n\r\n",
    "ICY 200 OK\r\n\r\n",
];

/// A conversation: the bytes of the client, and those of the server.
type Talk = [Vec<u8>; 2];

/// Deterministic random numbers.
struct Draw(std::vec::IntoIter<u8>);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(noise(seed, 256).into_iter())
    }

    fn below(&mut self, sides: usize) -> usize {
        let pair = [self.0.next(), self.0.next()].map(Option::unwrap_or_default);
        usize::from(u16::from_le_bytes(pair)) % sides.max(1)
    }
}

/// Up to five exchanges. Most are plain, because the first unusual one usually ends the comparison.
fn generate(draw: &mut Draw) -> Talk {
    let mut exchange = Talk::default();
    for _ in 0..=draw.below(5) {
        for (side, texts, plain) in [(0, REQUESTS, 9), (1, RESPONSES, 9)] {
            let from = if draw.below(3) > 0 { plain } else { texts.len() };
            // One byte for each character.
            exchange[side].extend(
                texts[draw.below(from)].chars().map(|it| u8::try_from(u32::from(it)).expect("a byte")),
            );
        }
    }
    exchange
}

/// Applies up to three mutations to a conversation.
fn mutate(exchange: &mut Talk, draw: &mut Draw) {
    const BYTES: &[u8] = b"\r\n\r\n\t :,;\0\x7f\xe90123afHGx=\"";
    for _ in 0..=draw.below(3) {
        let side = &mut exchange[draw.below(2)];
        let at = draw.below(side.len() + 1);
        match draw.below(4) {
            0 => side.insert(at, BYTES[draw.below(BYTES.len())]),
            1 if at < side.len() => drop(side.remove(at)),
            2 if at < side.len() => side[at] = BYTES[draw.below(BYTES.len())],
            _ => side.truncate(at),
        }
    }
}

pub(super) fn h11_follows_generated_exchanges_as_we_do() {
    let talks: Vec<_> = (0..4_000).map(|seed| generate(&mut Draw::new(seed))).collect();
    let seen = compare(&talks);
    println!("{seen:?}");
    // Otherwise the test would not show that the two agree on much.
    assert!(seen.get("both go on").is_some_and(|count| *count > 8_000), "{seen:?}");
    assert!(seen.contains_key(LOOSER) && seen.contains_key("ours refuses"), "{seen:?}");
}

pub(super) fn h11_follows_mutated_exchanges_as_we_do() {
    let mutant = |seed| {
        let mut draw = Draw::new(seed);
        let mut exchange = generate(&mut draw);
        mutate(&mut exchange, &mut draw);
        exchange
    };
    let talks: Vec<_> = (10_000..22_000).map(mutant).collect();
    println!("{:?}", compare(&talks));
}

/// A message: where its head begins, the head's length, and the body's length, if it is complete.
type Message = (u64, u64, Option<u64>);

/// The messages of one direction.
#[derive(Debug, Default)]
struct Side {
    messages: Vec<Message>,
    end: String,
}

/// Returns how often each class of agreement occurred.
fn compare(talks: &[Talk]) -> BTreeMap<&'static str, u32> {
    let theirs = h11(talks);
    let mut seen = BTreeMap::new();
    let mut unlisted = String::new();
    for (exchange, theirs) in talks.iter().zip(theirs) {
        let ours = ours(exchange);
        for side in 0..2 {
            match class(&exchange[side], &ours[side], &theirs[side], side == 0) {
                Some(classes) => {
                    for (class, count) in classes {
                        *seen.entry(class).or_insert(0) += count;
                    }
                }
                None => {
                    let [sent, answered] = exchange.each_ref().map(|it| it.escape_ascii().to_string());
                    let (ours, theirs) = (&ours[side], &theirs[side]);
                    let _ =
                        writeln!(unlisted, "{sent}\n  {answered}\n  ours:   {ours:?}\n  theirs: {theirs:?}");
                }
            }
        }
    }
    assert!(unlisted.is_empty(), "differences that are not listed:\n{unlisted}");
    seen
}

/// The class of a direction; `None` for a difference that is not allowed.
fn class(bytes: &[u8], ours: &Side, theirs: &Side, is_client: bool) -> Option<Vec<(&'static str, u32)>> {
    let mut both = 0;
    for (ours, theirs) in ours.messages.iter().zip(&theirs.messages) {
        let is_same = ours.0 == theirs.0 && ours.1 == theirs.1;
        // Our follower treats an interim response like a body. The start of the next response shows that it ended
        // correctly.
        let is_same_body = !is_client || ours.2.is_none() || theirs.2.is_none() || ours.2 == theirs.2;
        if !is_same || !is_same_body {
            return None;
        }
        both += 1;
    }
    let mut classes = vec![("both go on", both)];
    let (we, they) = (ours.messages.len(), theirs.messages.len());
    let next = ours.messages.get(they);
    match we.cmp(&they) {
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Less => match ours.end.as_str() {
            "refused" => classes.push(("ours refuses", 1)),
            "opaque" => classes.push(("ours lets the rest pass", 1)),
            "held" => classes.push(("ours waits", 1)),
            _ => return None,
        },
        std::cmp::Ordering::Greater => match (theirs.end.as_str(), next) {
            ("stop" | "switch", _) => classes.push(("h11 goes no further", 1)),
            ("no", Some((at, ..))) if is_client && bytes.get(*at as usize..)?.starts_with(b"\r\n") => {
                classes.push((LOOSER, 1));
            }
            // The last response has no end of its own.
            ("no", Some((_, _, None))) if !is_client && ours.end == "opaque" && we == they + 1 => {
                classes.push(("ours lets the rest pass", 1));
            }
            _ => return None,
        },
    }
    Some(classes)
}

fn ours(exchange: &Talk) -> [Side; 2] {
    let mut exchanges = Exchanges::new(Limits::default(), Mode::Strict);
    exchanges.deliver(From::Client, &exchange[0], Pieces::Whole);
    exchanges.deliver(From::Hidden, &exchange[1], Pieces::Whole);
    [From::Client, From::Hidden].map(|from| side(&exchanges.found(from)))
}

fn side(found: &[Found]) -> Side {
    let mut side = Side { end: "more".to_owned(), ..Side::default() };
    for (place, Found { at, what }) in found.iter().enumerate() {
        let next = found.get(place + 1).map(|it| it.what);
        match what {
            What::Head(len) => {
                let body = match next {
                    Some(What::Head(_) | What::Held) => Some(0),
                    // The next head shows whether more bytes belong to it.
                    Some(What::Skipped(len))
                        if matches!(found.get(place + 2).map(|it| it.what), Some(What::Head(_))) =>
                    {
                        Some(len)
                    }
                    _ => None,
                };
                side.messages.push((*at, *len, body));
            }
            What::Skipped(_) => {}
            What::Opaque => side.end = "opaque".to_owned(),
            What::Refused(_) => side.end = "refused".to_owned(),
            What::Held => side.end = "held".to_owned(),
        }
    }
    side
}

fn h11(talks: &[Talk]) -> Vec<[Side; 2]> {
    let mut python = Peer::H11.command();
    python.arg(script("h11_exchanges.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().expect("python starts");
    let mut input = Vec::new();
    for bytes in talks.iter().flatten() {
        input.extend_from_slice(&u32::try_from(bytes.len()).expect("short").to_le_bytes());
        input.extend_from_slice(bytes);
    }
    let mut stdin = child.stdin.take().expect("piped");
    // Write and read at the same time: otherwise a pipe would fill.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("python runs");
    writer.join().expect("no panic").expect("python reads everything");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).expect("text");
    let all: Vec<_> = text
        .lines()
        .map(|line| {
            let (client, server) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            [client, server].map(parse)
        })
        .collect();
    assert_eq!(all.len(), talks.len());
    all
}

fn parse(text: &str) -> Side {
    let (messages, end) = text.split_once('/').unwrap_or_else(|| panic!("{text:?}"));
    let number = |text: &str| text.parse().ok();
    let message = |text: &str| {
        let parts: Vec<_> = text.split('+').collect();
        (number(parts[0]).expect("a start"), number(parts[1]).expect("a length"), number(parts[2]))
    };
    let messages = messages.split(',').filter(|it| !it.is_empty()).map(message).collect();
    Side { messages, end: end.to_owned() }
}
