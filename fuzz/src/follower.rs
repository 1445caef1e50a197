//! The exchange follower. The first byte is the mode. The rest is what client and hidden server send, alternating, each
//! part ended by a byte 0xff.

use rendezvous_core::http::follower::Mode;
use rendezvous_core::http::head::{Body, Limits, parse};
use tests::exchanges::{Exchanges, Found, From, Pieces, What};

pub(crate) fn run(bytes: &[u8]) {
    let (mode, turns) = match bytes {
        [b'S', turns @ ..] => (Mode::Strict, turns),
        [_, turns @ ..] => (Mode::Lenient, turns),
        [] => return,
    };
    for limits in [Limits::default(), Limits { head_bytes_max: 200, line_bytes_max: 60 }] {
        let whole = follow(turns, limits, mode, Pieces::Whole);
        for pieces in [Pieces::Of(1), Pieces::Of(3)] {
            let cut = follow(turns, limits, mode, pieces);
            for from in [From::Client, From::Hidden] {
                assert_eq!(cut.found(from), whole.found(from), "{from:?}, {pieces:?}");
            }
            assert_eq!(flags(&cut), flags(&whole), "{pieces:?}");
        }
        let sent = |from| {
            turns
                .split(|byte| *byte == 0xff)
                .enumerate()
                .filter(|(turn, _)| (turn % 2 == 0) == (from == From::Client))
                .flat_map(|(_, bytes)| bytes)
                .copied()
                .collect::<Vec<_>>()
        };
        check_client(&sent(From::Client), &whole.found(From::Client));
        check_hidden(&sent(From::Hidden), &whole.found(From::Hidden));
    }
}

fn follow(turns: &[u8], limits: Limits, mode: Mode, pieces: Pieces) -> Exchanges {
    let mut exchanges = Exchanges::new(limits, mode);
    for (turn, bytes) in turns.split(|byte| *byte == 0xff).enumerate() {
        let from = if turn % 2 == 0 { From::Client } else { From::Hidden };
        exchanges.deliver(from, bytes, pieces);
    }
    exchanges
}

/// The follower's state.
fn flags(exchanges: &Exchanges) -> (bool, bool, bool, bool) {
    let follower = &exchanges.follower;
    (follower.is_between_exchanges(), follower.is_opaque(), follower.will_close(), follower.is_over())
}

/// Requests are complete heads, each with the body that it announces.
fn check_client(sent: &[u8], found: &[Found]) {
    let mut at = 0;
    for (place, Found { at: begins, what }) in found.iter().enumerate() {
        assert_eq!(*begins, at, "a gap");
        let next = found.get(place + 1).map(|it| it.what);
        match *what {
            What::Head(len) => {
                at += len;
                let head = parse(&sent[*begins as usize..at as usize]).expect("a head that passes is a head");
                match (head.body, next) {
                    (Body::Length(len @ 1..), Some(What::Skipped(skipped))) => {
                        assert!(skipped == len || skipped < len && place + 2 == found.len(), "{len} bytes");
                    }
                    (Body::None | Body::Length(0), Some(What::Skipped(_))) => panic!("no body was announced"),
                    (Body::Length(1..) | Body::Chunked, Some(What::Head(_) | What::Opaque)) => {
                        assert_eq!(next, Some(What::Opaque), "the body is missing");
                    }
                    _ => {}
                }
            }
            What::Skipped(len) => at += len,
            What::Opaque | What::Refused(_) | What::Held => assert!(next.is_none()),
        }
    }
    assert!(at <= sent.len() as u64);
}

fn check_hidden(sent: &[u8], found: &[Found]) {
    let mut at = 0;
    for (place, Found { at: begins, what }) in found.iter().enumerate() {
        assert_eq!(*begins, at, "a gap");
        match *what {
            What::Head(len) => {
                at += len;
                let head = &sent[*begins as usize..at as usize];
                assert!(head.starts_with(b"HTTP/1.") && head.ends_with(b"\r\n\r\n"));
            }
            What::Skipped(len) => at += len,
            What::Opaque | What::Held => assert_eq!(place + 1, found.len()),
            What::Refused(_) => panic!("responses are not refused"),
        }
    }
    assert!(at <= sent.len() as u64);
}
