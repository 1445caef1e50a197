//! Upgrade and CONNECT: what is held, and when the connection stops being HTTP.

use rendezvous_core::http::follower::Mode;

use crate::{C, GET, H, OK, What, follow, follow_any, heads, shown, with};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const CONNECT: &str = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn what_follows_an_upgrade_is_held_until_the_101() {
    let head = UPGRADE.len();
    let outcome = follow_any(&[C(UPGRADE), C("\u{1}frames")]);
    assert_eq!(shown(&outcome.client), [format!("0: head of {head}"), format!("{head}: held")]);
    let outcome = follow_any(&[C(UPGRADE), C("\u{1}frames"), H(SWITCHING), H("\u{2}more"), C(GET)]);
    assert_eq!(shown(&outcome.client), [format!("0: head of {head}"), format!("{head}: opaque")]);
    assert_eq!(shown(&outcome.hidden), ["0: opaque"]);
    assert!(outcome.opaque && outcome.closing && !outcome.between && !outcome.over);
}

#[test]
fn after_any_other_status_exchanges_go_on() {
    for status in ["200 OK", "426 Upgrade Required", "404 Not Found", "304 Not Modified"] {
        let refused = with(&format!("HTTP/1.1 {status}"), "Content-Length: 0\r\n", "");
        let outcome = follow_any(&[C(UPGRADE), C(GET), H(&refused)]);
        assert_eq!((heads(&outcome.client), outcome.between), (2, false), "{status}");
        let outcome = follow_any(&[C(UPGRADE), C(GET), H(&refused), H(OK)]);
        assert!(outcome.between && !outcome.opaque, "{status}");
    }
}

#[test]
fn an_interim_response_decides_nothing() {
    let outcome = follow_any(&[C(UPGRADE), C(GET), H("HTTP/1.1 103 Early Hints\r\n\r\n")]);
    assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Held));
    let outcome = follow_any(&[C(UPGRADE), C("x"), H("HTTP/1.1 103 Early Hints\r\n\r\n"), H(SWITCHING)]);
    assert!(outcome.opaque);
}

#[test]
fn an_upgrade_is_answered_in_its_turn() {
    // The 101 comes instead of an earlier request's response.
    let outcome = follow_any(&[C(GET), C(UPGRADE), H(SWITCHING)]);
    assert!(!outcome.opaque && !outcome.between);
    let outcome = follow_any(&[C(GET), C(UPGRADE), H(OK), C(GET)]);
    assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Held));
    let outcome = follow_any(&[C(GET), C(UPGRADE), H(OK), H(SWITCHING)]);
    assert!(outcome.opaque);
}

#[test]
fn the_body_of_an_upgrade_is_not_held() {
    let request = with(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x",
        "Content-Length: 3\r\n",
        "abcd",
    );
    let outcome = follow_any(&[C(&request)]);
    let head = request.len() - 4;
    assert_eq!(
        shown(&outcome.client),
        [format!("0: head of {head}"), format!("{head}: 3 skipped"), format!("{}: held", head + 3)]
    );
}

#[test]
fn a_malformed_101_is_a_101_all_the_same() {
    for switching in ["HTTP/1.1 101 Switching\n\n", "HTTP/1.1 101 x\r\nUpgrade : websocket\r\n\r\n"] {
        assert!(follow_any(&[C(UPGRADE), C("x"), H(switching)]).opaque, "{switching:?}");
    }
    for other in ["HTTP/1.1 200 x\n\n", "HTTP/1.1 1010\r\n\r\n", "101\r\n\r\n"] {
        let outcome = follow(Mode::Strict, &[C(UPGRADE), C("x"), H(other)]);
        assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Held), "{other:?}");
        assert!(!outcome.opaque && outcome.closing, "{other:?}");
        // Bytes that are not a response belong to another protocol.
        assert!(follow(Mode::Lenient, &[C(UPGRADE), C("x"), H(other)]).opaque, "{other:?}");
    }
}

#[test]
fn without_a_connection_field_or_under_http_1_0_nothing_is_upgraded() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let outcome = follow_any(&[C(request), C(GET)]);
        assert_eq!(heads(&outcome.client), 2, "{request:?}");
    }
}

#[test]
fn a_connect_is_opaque_after_a_2xx_alone() {
    let outcome = follow(Mode::Lenient, &[C(CONNECT), C(GET)]);
    assert_eq!(outcome.client.last().map(|it| it.what), Some(What::Held));
    let outcome = follow(Mode::Lenient, &[C(CONNECT), C("\u{16}"), H("HTTP/1.1 200 OK\r\n\r\n")]);
    assert!(outcome.opaque);
    for refused in
        ["HTTP/1.1 405 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 301 x\r\nContent-Length: 2\r\n\r\nno"]
    {
        let outcome = follow(Mode::Lenient, &[C(CONNECT), C(GET), H(refused), H(OK)]);
        assert!(!outcome.opaque && outcome.between, "{refused:?}");
        assert_eq!(heads(&outcome.client), 2, "{refused:?}");
    }
}
