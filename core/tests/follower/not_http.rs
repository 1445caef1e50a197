//! Bytes of a client that are not HTTP.

use rendezvous_core::http::follower::Mode;
use rendezvous_core::http::head::Refusal;

use crate::{C, GET, H, OK, What, follow, shown};

#[test]
fn another_protocol_passes_in_the_lenient_mode_and_is_refused_in_the_strict_one() {
    for text in [
        "\u{16}\u{3}\u{1}\u{2}",
        "$GPGGA,123519,4807.038,N\r\n",
        "\0",
        "\u{e9}",
        "ls -la\n",
        "QUIT\r\n",
        "{}\r\n",
    ] {
        let parts = [C(GET), H(OK), C(text), C(GET), H("anything")];
        let outcome = follow(Mode::Lenient, &parts);
        assert_eq!(shown(&outcome.client), ["0: head of 27", "27: opaque"], "{text:?}");
        assert_eq!(shown(&outcome.hidden), ["0: head of 38", "38: opaque"], "{text:?}");
        assert!(outcome.opaque, "{text:?}");
        let outcome = follow(Mode::Strict, &parts);
        assert!(matches!(outcome.client.last().map(|it| it.what), Some(What::Refused(_))), "{text:?}");
        assert!(!outcome.opaque, "{text:?}");
    }
}

#[test]
fn what_was_refused_stays_refused() {
    let outcome = follow(Mode::Strict, &[C("\0"), C(GET)]);
    assert_eq!(shown(&outcome.client), ["0: refused, not HTTP"]);
    assert_eq!(outcome.client[0].what, What::Refused(Refusal::NotHttp));
}
