//! A session with its connections: which one is chosen, what each side is told, and the fate of the others.

use rendezvous_core::dtcp::handshake::Tls;
use rendezvous_core::dtcp::negotiation::{Config, Output, SessionFailure};
use rendezvous_core::machine::Close;
use rendezvous_core::time::Span;

use crate::{
    HOST, Party, close, dials, error, established, failed, give_up, key_line, offer, ok_line, one_dial, write,
};

const TWO: [&str; 2] = [HOST, "192.0.2.2:8000"];

fn read(link: rendezvous_core::dtcp::negotiation::LinkId, wanted: bool) -> Output {
    Output::Read { link, wanted }
}

#[test]
fn a_serving_requestor_commits_when_it_answers_the_key() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, actions) = party.requestor(&offer(&[HOST]));
    let dial = one_dial(&actions);
    let link = party.accepted();
    let actions = party.receive(link, &key_line(&key));
    let expected = [write(link, *b"ok:a1b2c3d4\n"), established(session, link), close(dial, Close::Abort)];
    assert_eq!(actions, expected);
    assert_eq!((party.it.sessions(), party.it.links()), (0, 0));
}

#[test]
fn a_dialling_requestor_commits_with_the_ack() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, actions) = party.requestor(&offer(&TWO));
    let [(dial, _), (other, _)] = dials(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(party.connected(dial), [write(dial, *b"key:a1b2c3d4\n")]);
    let actions = party.receive(dial, &ok_line(&key));
    assert_eq!(actions, [write(dial, *b"ok\n"), established(session, dial), close(other, Close::Abort)]);
}

#[test]
fn a_serving_responder_follows_at_the_ack() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, actions) = party.responder(&offer(&[HOST]));
    let dial = one_dial(&actions);
    let [winner, tentative] = [party.accepted(), party.accepted()];
    for link in [winner, tentative] {
        assert_eq!(party.receive(link, &key_line(&key)), [write(link, *b"ok:a1b2c3d4\n")]);
    }
    let actions = party.receive(winner, b"ok\n");
    let closed = [close(dial, Close::Abort), close(tentative, Close::Abort)];
    assert_eq!(actions, [&[established(session, winner)], &closed[..]].concat());
}

#[test]
fn a_dialling_responder_follows_at_the_answer_without_an_ack() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, actions) = party.responder(&offer(&[HOST]));
    let dial = one_dial(&actions);
    let tentative = party.accepted();
    party.receive(tentative, &key_line(&key));
    party.connected(dial);
    let actions = party.receive(dial, &ok_line(&key));
    assert_eq!(actions, [established(session, dial), close(tentative, Close::Abort)]);
}

#[test]
fn case_2_who_asks_a_requestor_too_early_is_parked_until_the_answer() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key) = party.requested();
    let [first, second] = [party.accepted(), party.accepted()];
    for link in [first, second] {
        assert_eq!(party.receive(link, &key_line(&key)), [read(link, false)]);
    }
    party.it.handle_answer(session, &offer(&[HOST]), party.now);
    let expected = [
        write(first, *b"ok:a1b2c3d4\n"),
        established(session, first),
        error(second),
        close(second, Close::Linger),
    ];
    assert_eq!(party.actions(), expected);
}

#[test]
fn case_2_a_parked_connection_is_dismissed_when_the_request_is_refused() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key) = party.requested();
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_refused(session);
    let expected = [error(link), close(link, Close::Linger), failed(session, SessionFailure::Refused)];
    assert_eq!(party.actions(), expected);
}

#[test]
fn case_2_a_parked_connection_is_dismissed_at_its_deadline() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, key) = party.requested();
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    assert_eq!(party.sleep(Span::from_secs(29)), []);
    assert_eq!(party.sleep(Span::from_secs(1)), [error(link), close(link, Close::Linger)]);
}

#[test]
fn case_2_only_so_many_connections_are_parked() {
    let mut party = Party::new(Config { parked_max: 1, ..Config::default() });
    let (_, key) = party.requested();
    let [first, second] = [party.accepted(), party.accepted()];
    assert_eq!(party.receive(first, &key_line(&key)), [read(first, false)]);
    assert_eq!(party.receive(second, &key_line(&key)), [error(second), close(second, Close::Linger)]);
}

#[test]
fn case_3_a_connection_that_was_there_is_dismissed_with_the_right_key_after_the_commit() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, key, _) = party.requestor(&offer(&[HOST]));
    let [winner, loser] = [party.accepted(), party.accepted()];
    party.receive(winner, &key_line(&key));
    assert_eq!(party.receive(loser, &key_line(&key)), [error(loser), close(loser, Close::Linger)]);
}

#[test]
fn case_4_a_later_connection_finds_no_such_key_and_stays() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, key, _) = party.requestor(&offer(&[HOST]));
    let [winner, _there] = [party.accepted(), party.accepted()];
    party.receive(winner, &key_line(&key));
    let late = party.accepted();
    assert_eq!(party.receive(late, &key_line(&key)), [error(late)]);
    assert_eq!(party.receive(late, &key_line(&key)), [error(late)]);
}

#[test]
fn case_4_after_a_failure_or_a_cancel_the_key_is_unknown() {
    let mut party = Party::with_tls(Tls::Off);
    let (refused, key) = party.requested();
    let (cancelled, other) = party.requested();
    let link = party.accepted();
    party.it.handle_refused(refused);
    party.it.cancel(cancelled);
    party.actions();
    assert_eq!(party.receive(link, &key_line(&key)), [error(link)]);
    assert_eq!(party.receive(link, &key_line(&other)), [error(link)]);
    assert_eq!(party.sleep(Span::from_secs(30)), [close(link, Close::Abort)]);
}

#[test]
fn case_17_another_key_may_follow_a_wrong_one() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.requestor(&offer(&[]));
    let link = party.accepted();
    for _ in 0..3 {
        assert_eq!(party.receive(link, b"key:wrong\n"), [error(link)]);
    }
    let actions = party.receive(link, &key_line(&key));
    assert_eq!(actions, [write(link, *b"ok:a1b2c3d4\n"), established(session, link)]);
}

#[test]
fn case_17_four_wrong_keys_at_once_are_answered_and_the_rest_is_not_read() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, key, _) = party.requestor(&offer(&[]));
    let link = party.accepted();
    let lines = [b"key:wrong\n".repeat(4), key_line(&key)].concat();
    assert_eq!(party.it.handle_bytes(link, &lines), 40);
    let errors = [error(link), error(link), error(link), error(link), close(link, Close::Linger)];
    assert_eq!(party.actions(), errors);
}

#[test]
fn case_24_bytes_behind_the_key_are_the_applications_at_a_serving_requestor() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, key, _) = party.requestor(&offer(&[]));
    let link = party.accepted();
    let line = key_line(&key);
    assert_eq!(party.it.handle_bytes(link, &[&line[..], b"error\n"].concat()), line.len());
    assert_eq!(party.it.handle_bytes(link, b"error\n"), 0);
}

#[test]
fn case_24_bytes_behind_a_wrong_key_are_further_commands() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.requestor(&offer(&[]));
    let link = party.accepted();
    let lines = [b"key:wrong\n", &key_line(&key)[..]].concat();
    let actions = party.receive(link, &lines);
    assert_eq!(actions, [error(link), write(link, *b"ok:a1b2c3d4\n"), established(session, link)]);
}

#[test]
fn case_24_bytes_behind_the_ack_are_the_applications() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, key, _) = party.responder(&offer(&[HOST]));
    let link = party.accepted();
    let lines = [&key_line(&key)[..], b"ok\nkey:x\n"].concat();
    assert_eq!(party.it.handle_bytes(link, &lines), lines.len() - 6);
}

#[test]
fn case_25_bytes_behind_the_answer_are_the_applications() {
    for is_requestor in [true, false] {
        let mut party = Party::with_tls(Tls::Off);
        let theirs = offer(&[HOST]);
        let (_, key, actions) =
            if is_requestor { party.requestor(&theirs) } else { party.responder(&theirs) };
        let dial = one_dial(&actions);
        party.connected(dial);
        let line = ok_line(&key);
        assert_eq!(party.it.handle_bytes(dial, &[&line[..], b"ok\n"].concat()), line.len());
    }
}

#[test]
fn case_30_a_tentative_connection_that_says_something_else_is_tentative_no_more() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.responder(&offer(&[]));
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    assert_eq!(party.receive(link, &key_line(&key)), [error(link)]);
    assert_eq!(party.receive(link, b"ok\n"), [error(link)]);
    party.receive(link, &key_line(&key));
    assert_eq!(party.receive(link, b"ok\n"), [established(session, link)]);
}

#[test]
fn case_31_a_dial_that_leads_nowhere_is_closed_and_the_others_go_on() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _, actions) = party.requestor(&offer(&[HOST, "192.0.2.2:8000", "192.0.2.3:8000"]));
    let [(wrong, _), (ended, _), (silent, _)] = dials(&actions)[..] else { panic!("{actions:?}") };
    for link in [wrong, ended, silent] {
        party.connected(link);
    }
    assert_eq!(party.receive(wrong, b"ok:wrong\n"), [close(wrong, Close::Abort)]);
    party.it.handle_end(ended);
    assert_eq!(party.actions(), [close(ended, Close::Abort)]);
    assert_eq!(party.sleep(Span::from_secs(30)), [close(silent, Close::Abort), give_up(session)]);
}

#[test]
fn case_32_who_speaks_before_it_was_asked_is_closed() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _, actions) = party.requestor(&offer(&[HOST]));
    let dial = one_dial(&actions);
    assert_eq!(party.it.handle_bytes(dial, b"SSH-2.0-x\r\n"), 0);
    assert_eq!(party.actions(), [close(dial, Close::Abort), give_up(session)]);
}

#[test]
fn case_40_the_end_of_a_tentative_connection_before_the_ack_leaves_the_others() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.responder(&offer(&[]));
    let [first, second] = [party.accepted(), party.accepted()];
    party.receive(first, &key_line(&key));
    party.receive(second, &key_line(&key));
    party.it.handle_end(first);
    assert_eq!(party.actions(), [close(first, Close::Abort)]);
    assert_eq!(party.receive(second, b"ok\n"), [established(session, second)]);
}

#[test]
fn case_40_the_end_behind_the_commit_is_the_applications() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, key, _) = party.requestor(&offer(&[]));
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_end(link);
    party.it.handle_dial_failed(link);
    party.it.handle_tls_failed(link);
    assert_eq!(party.actions(), []);
}

#[test]
fn only_so_many_connections_are_accepted_at_once() {
    let mut party = Party::new(Config { accepted_max: 1, ..Config::default() });
    party.accepted();
    let link = party.it.handle_accepted(party.now);
    assert_eq!(party.actions(), [close(link, Close::Abort)]);
    assert_eq!(party.it.handle_bytes(link, b"ok\n"), 0);
    assert_eq!((party.actions(), party.it.links()), (vec![], 1));
}

#[test]
fn a_failed_tls_handshake_closes_the_connection() {
    let mut party = Party::with_tls(Tls::Prefer);
    let (session, _, actions) = party.requestor(&offer(&[HOST]));
    let (dial, link) = (one_dial(&actions), party.accepted());
    party.receive(link, b"starttls\n");
    party.it.handle_tls_failed(link);
    assert_eq!(party.actions(), [close(link, Close::Linger)]);
    party.connected(dial);
    party.receive(dial, b"ok\n");
    party.it.handle_tls_failed(dial);
    assert_eq!(party.actions(), [close(dial, Close::Linger), give_up(session)]);
}
