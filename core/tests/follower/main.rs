//! The exchange follower: the ends of requests and responses, what is held, and when it stops.
//!
//! Every conversation is followed at once, byte by byte, in pieces of seven, and with further bytes after it.

mod bodies;
mod closing;
mod not_http;
mod requests;
mod responses;
mod switching;

#[allow(unreachable_pub, reason = "in the other crate it is public")]
#[path = "../../../tests/src/exchanges.rs"]
mod exchanges;

use exchanges::{Exchanges, Found, From, Pieces, What};
use rendezvous_core::http::follower::Mode;
use rendezvous_core::http::head::Limits;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The bytes of one side, in the order of a conversation.
#[derive(Clone, Copy)]
enum Part<'a> {
    C(&'a str),
    H(&'a str),
}

use Part::{C, H};

/// The findings in a conversation, and the follower's state at its end.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    client: Vec<Found>,
    hidden: Vec<Found>,
    between: bool,
    opaque: bool,
    closing: bool,
    over: bool,
}

fn outcome(exchanges: &Exchanges) -> Outcome {
    let follower = &exchanges.follower;
    Outcome {
        client: exchanges.found(From::Client),
        hidden: exchanges.found(From::Hidden),
        between: follower.is_between_exchanges(),
        opaque: follower.is_opaque(),
        closing: follower.will_close(),
        over: follower.is_over(),
    }
}

fn run(limits: Limits, mode: Mode, parts: &[Part<'_>], pieces: Pieces) -> Exchanges {
    let mut exchanges = Exchanges::new(limits, mode);
    for part in parts {
        match part {
            C(text) => exchanges.deliver(From::Client, text.as_bytes(), pieces),
            H(text) => exchanges.deliver(From::Hidden, text.as_bytes(), pieces),
        }
    }
    exchanges
}

fn follow_within(limits: Limits, mode: Mode, parts: &[Part<'_>]) -> Outcome {
    let whole = outcome(&run(limits, mode, parts, Pieces::Whole));
    for pieces in [Pieces::Of(1), Pieces::Of(7)] {
        assert_eq!(outcome(&run(limits, mode, parts, pieces)), whole, "{pieces:?}");
    }
    // Further bytes do not change earlier findings, except for what was held.
    for behind in [C(GET), C("\x16\x03\x01"), H(OK), H("\0")] {
        let more: Vec<_> = parts.iter().copied().chain([behind]).collect();
        let more = outcome(&run(limits, mode, &more, Pieces::Whole));
        for (before, after) in [(&whole.client, &more.client), (&whole.hidden, &more.hidden)] {
            let settled: Vec<_> = before.iter().filter(|it| it.what != What::Held).collect();
            let last = settled.len().saturating_sub(1);
            assert!(after.len() >= settled.len());
            for (at, (before, after)) in settled.iter().zip(after).enumerate() {
                // A body or an end may be extended.
                let may_grow = at == last && matches!(before.what, What::Skipped(_));
                assert!(may_grow || *before == after, "{before} became {after}");
            }
        }
    }
    whole
}

fn follow(mode: Mode, parts: &[Part<'_>]) -> Outcome {
    follow_within(Limits::default(), mode, parts)
}

/// The same in both modes.
fn follow_any(parts: &[Part<'_>]) -> Outcome {
    let lenient = follow(Mode::Lenient, parts);
    assert_eq!(follow(Mode::Strict, parts), lenient);
    lenient
}

/// What was found, as text.
fn shown(found: &[Found]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

/// The number of complete heads.
fn heads(found: &[Found]) -> usize {
    found.iter().filter(|it| matches!(it.what, What::Head(_))).count()
}

/// A request or response with these lines as well.
fn with(first: &str, fields: &str, body: &str) -> String {
    format!("{first}\r\n{fields}\r\n{body}")
}

fn post(fields: &str, body: &str) -> String {
    with("POST / HTTP/1.1\r\nHost: a", fields, body)
}

fn response(fields: &str, body: &str) -> String {
    with("HTTP/1.1 200 OK", fields, body)
}
