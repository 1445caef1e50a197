//! Give-ups, cancels, deadlines: how a session ends without a connection.

use rendezvous_core::dtcp::handshake::Tls;
use rendezvous_core::dtcp::negotiation::{Output, SessionFailure, SessionId};
use rendezvous_core::machine::Close;
use rendezvous_core::time::Span;

use crate::{
    HOST, Party, close, dials, established, failed, give_up, key_line, offer, ok_line, one_dial, write,
};

/// A requestor whose one dial has failed.
fn given_up() -> (Party, SessionId, rendezvous_core::dtcp::Key) {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, actions) = party.requestor(&offer(&[HOST]));
    let dial = one_dial(&actions);
    party.it.handle_dial_failed(dial);
    assert_eq!(party.actions(), [close(dial, Close::Abort), give_up(session)]);
    (party, session, key)
}

#[test]
fn case_9_when_both_gave_up_the_session_fails_without_a_word() {
    let (mut party, session, key) = given_up();
    party.it.handle_give_up(session);
    assert_eq!(party.actions(), [failed(session, SessionFailure::Unreachable)]);
    assert_eq!(party.it.session_of("joe", key.as_bytes()), None);
    assert_eq!(party.until(), None);
}

#[test]
fn case_10_when_the_other_gave_up_we_go_on() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, actions) = party.requestor(&offer(&[HOST]));
    let dial = one_dial(&actions);
    party.it.handle_give_up(session);
    assert_eq!(party.actions(), []);
    party.connected(dial);
    assert_eq!(party.receive(dial, &ok_line(&key)), [write(dial, *b"ok\n"), established(session, dial)]);
}

#[test]
fn case_10_when_we_gave_up_the_other_may_still_come() {
    let (mut party, session, key) = given_up();
    let link = party.accepted();
    let actions = party.receive(link, &key_line(&key));
    assert_eq!(actions, [write(link, *b"ok:a1b2c3d4\n"), established(session, link)]);
}

#[test]
fn case_10_when_the_other_never_gives_up_the_session_ends_at_its_deadline() {
    let (mut party, session, _) = given_up();
    assert_eq!(party.sleep(Span::from_secs(59)), []);
    assert_eq!(party.sleep(Span::from_secs(1)), [failed(session, SessionFailure::Deadline)]);
}

#[test]
fn case_10_at_its_deadline_a_session_that_still_dials_gives_up() {
    let config =
        rendezvous_core::dtcp::negotiation::Config { session: Span::from_secs(1), ..Default::default() };
    let mut party = Party::new(config);
    let (session, _, actions) = party.requestor(&offer(&[HOST, "192.0.2.2:8000"]));
    let closes: Vec<_> = dials(&actions).iter().map(|(link, _)| close(*link, Close::Abort)).collect();
    let expected = [&[give_up(session)], &closes[..], &[failed(session, SessionFailure::Deadline)]].concat();
    assert_eq!(party.sleep(Span::from_secs(1)), expected);
}

#[test]
fn case_11_a_give_up_during_a_live_handshake_waits_for_its_end() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.responder(&offer(&[]));
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_give_up(session);
    assert_eq!(party.actions(), []);
    party.it.handle_end(link);
    assert_eq!(party.actions(), [close(link, Close::Abort), failed(session, SessionFailure::Unreachable)]);
}

#[test]
fn case_11_a_live_handshake_that_succeeds_after_a_give_up_wins() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.responder(&offer(&[]));
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_give_up(session);
    assert_eq!(party.receive(link, b"ok\n"), [established(session, link)]);
}

#[test]
fn case_11_a_tentative_connection_that_falls_back_ends_a_session_that_both_gave_up() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.responder(&offer(&[]));
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_give_up(session);
    assert_eq!(
        party.receive(link, b"hello\n"),
        [write(link, *b"error\n"), failed(session, SessionFailure::Unreachable)]
    );
}

#[test]
fn case_11_a_give_up_before_the_answer_is_kept() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key) = party.requested();
    let named = party.it.session_of("joe", key.as_bytes());
    assert_eq!(named, Some(session));
    party.it.handle_give_up(session);
    assert_eq!(party.actions(), []);
    party.it.handle_answer(session, &offer(&["nonsense"]), party.now);
    assert_eq!(party.actions(), [give_up(session), failed(session, SessionFailure::Unreachable)]);
}

#[test]
fn case_11_a_parked_connection_outlives_the_give_up_before_the_answer() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key) = party.requested();
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_give_up(session);
    party.it.handle_answer(session, &offer(&[]), party.now);
    assert_eq!(party.actions(), [write(link, *b"ok:a1b2c3d4\n"), established(session, link)]);
}

#[test]
fn case_12_a_give_up_for_an_unknown_key_or_from_somebody_else_names_no_session() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key) = party.requested();
    assert_eq!(party.it.session_of("jane", key.as_bytes()), None);
    assert_eq!(party.it.session_of("joe", b"a1b2c3d4"), None);
    assert_eq!(party.it.session_of("joe", key.as_bytes()), Some(session));
}

#[test]
fn case_12_a_give_up_that_is_said_twice_or_after_the_end_is_ignored() {
    let (mut party, session, key) = given_up();
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_give_up(session);
    assert_eq!(party.actions(), []);
    let mut party = Party::with_tls(Tls::Off);
    let (session, _, _) = party.requestor(&offer(&[HOST]));
    party.it.handle_give_up(session);
    party.it.handle_give_up(session);
    assert_eq!((party.actions(), party.it.sessions()), (vec![], 1));
}

#[test]
fn case_13_we_give_up_once_and_with_the_key_of_the_other() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _, actions) = party.requestor(&offer(&[HOST, "192.0.2.2:8000"]));
    let [(first, _), (second, _)] = dials(&actions)[..] else { panic!("{actions:?}") };
    party.it.handle_dial_failed(first);
    assert_eq!(party.actions(), [close(first, Close::Abort)]);
    party.it.handle_dial_failed(second);
    assert_eq!(party.actions(), [close(second, Close::Abort), give_up(session)]);
    party.it.handle_dial_failed(second);
    assert_eq!(party.actions(), []);
}

#[test]
fn case_14_a_cancel_while_connecting_is_a_give_up_and_closes_everything() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, actions) = party.responder(&offer(&[HOST]));
    let (dial, link) = (one_dial(&actions), party.accepted());
    party.receive(link, &key_line(&key));
    party.it.cancel(session);
    let expected = [give_up(session), close(dial, Close::Abort), close(link, Close::Abort)];
    assert_eq!(party.actions(), expected);
    assert_eq!((party.it.sessions(), party.it.links()), (0, 0));
}

#[test]
fn case_14_a_cancel_after_we_gave_up_says_nothing_more() {
    let (mut party, session, _) = given_up();
    party.it.cancel(session);
    assert_eq!(party.actions(), []);
}

#[test]
fn case_14_a_cancel_before_the_answer_says_nothing_and_the_answer_is_ignored() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _) = party.requested();
    party.it.cancel(session);
    party.it.handle_answer(session, &offer(&[HOST]), party.now);
    assert_eq!(party.actions(), Vec::<Output>::new());
}

#[test]
fn a_request_that_is_never_answered_fails_at_its_deadline() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _) = party.requested();
    assert_eq!(party.sleep(Span::from_secs(60)), [failed(session, SessionFailure::Deadline)]);
}

#[test]
fn early_late_and_repeated_timeouts_do_no_harm() {
    let (mut party, session, _) = given_up();
    assert_eq!(party.sleep(Span::ZERO), []);
    assert_eq!(party.sleep(Span::from_secs(600)), [failed(session, SessionFailure::Deadline)]);
    assert_eq!(party.sleep(Span::from_secs(600)), []);
}
