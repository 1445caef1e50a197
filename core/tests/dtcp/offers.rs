//! Keys, offers, answers: everything before dialling, and the resulting dials.

use rendezvous_core::acl::Policy;
use rendezvous_core::dtcp::handshake::Tls;
use rendezvous_core::dtcp::negotiation::{Config, LinkId, Output, Refusal, SessionFailure, Signal, TlsRole};
use rendezvous_core::dtcp::{Fingerprint, Key, Offer};
use rendezvous_core::machine::Close;
use rendezvous_core::time::Span;

use crate::{
    HOST, Party, close, dials, error, established, everywhere, failed, give_up, key_line, offer, ok_line,
    one_dial, pinned, place, write,
};

const CERTIFICATE: Fingerprint = Fingerprint([1; 32]);
const ANOTHER: Fingerprint = Fingerprint([2; 32]);

fn refusals(actions: &[Output]) -> Vec<Refusal> {
    actions
        .iter()
        .filter_map(|it| match it {
            Output::Signal { signal: Signal::Refuse(refusal), .. } => Some(*refusal),
            _ => None,
        })
        .collect()
}

#[test]
fn case_20_our_keys_are_32_hexadecimal_digits_and_never_the_same() {
    let mut party = Party::with_tls(Tls::Off);
    let (_, one) = party.requested();
    let (_, other) = party.requested();
    for key in [&one, &other] {
        let digits = key.as_bytes();
        assert_eq!(digits.len(), 32);
        assert!(digits.iter().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(it)));
    }
    assert!(one != other);
}

#[test]
fn case_20_keys_of_1_to_255_bytes_that_a_line_can_carry_are_accepted() {
    for good in [&b"a"[..], &[b'k'; 255], b"a:b c", "schlüssel".as_bytes()] {
        assert!(Key::new(good).is_ok());
    }
    for bad in [&b""[..], &[b'k'; 256], b"a\nb", b"a\r"] {
        assert!(Key::new(bad).is_err());
    }
}

#[test]
fn keys_are_neither_shown_nor_taken_by_their_front() {
    let key = Key::new(b"secret").unwrap();
    assert_eq!(format!("{key:?}"), "Key(…)");
    assert!(key.is(b"secret"));
    for other in [&b"secre"[..], b"secret1", b"Secret", b""] {
        assert!(!key.is(other));
    }
}

#[test]
fn case_5_the_first_three_hosts_are_dialled_and_no_other() {
    let hosts = ["192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3", "192.0.2.4:4"];
    let (_, _, actions) = Party::with_tls(Tls::Off).requestor(&offer(&hosts));
    let ports: Vec<_> = dials(&actions).iter().map(|(_, to)| to.port()).collect();
    assert_eq!(ports, [1, 2, 3]);
}

#[test]
fn case_5_an_unusable_host_counts_among_the_three() {
    let hosts = ["192.0.2.1:1", "nonsense", "127.0.0.1:3", "192.0.2.4:4"];
    let (_, _, actions) = Party::with_tls(Tls::Off).requestor(&offer(&hosts));
    let ports: Vec<_> = dials(&actions).iter().map(|(_, to)| to.port()).collect();
    assert_eq!(ports, [1]);
}

#[test]
fn case_36_a_host_that_is_offered_twice_is_dialled_once() {
    let (_, _, actions) = Party::with_tls(Tls::Off).requestor(&offer(&[HOST, HOST, "192.0.2.2:8000"]));
    assert_eq!(dials(&actions).len(), 2);
}

#[test]
fn case_5_and_33_we_offer_three_hosts_at_most_with_ipv6_last() {
    let mut party = Party::with_tls(Tls::Off);
    let hosts = ["[2001:db8::1]:1", "192.0.2.1:2", "example.org:3", "192.0.2.4:4"].map(place);
    let session = party.it.request("joe", &hosts, party.now);
    let actions = party.actions();
    let [Output::Signal { session: id, signal: Signal::Request(ours) }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(*id, session);
    assert_eq!(ours.hosts, ["192.0.2.1:2", "example.org:3", "[2001:db8::1]:1"]);
}

#[test]
fn case_6_who_got_no_host_gives_up_without_a_word() {
    let (_, _, actions) = Party::with_tls(Tls::Off).requestor(&offer(&[]));
    assert_eq!(actions, []);
    let (_, _, actions) = Party::with_tls(Tls::Off).responder(&offer(&[]));
    assert_eq!(actions, []);
}

#[test]
fn case_6_a_request_is_refused_when_neither_side_has_a_host() {
    let mut party = Party::with_tls(Tls::Off);
    party.it.handle_request("joe", &offer(&[]), &[], party.now);
    assert_eq!(refusals(&party.actions()), [Refusal::Unreachable]);
    assert_eq!(party.it.sessions(), 0);
}

#[test]
fn case_6_a_requestor_fails_at_once_when_neither_side_has_a_host() {
    let mut party = Party::with_tls(Tls::Off);
    let session = party.it.request("joe", &[], party.now);
    party.actions();
    party.it.handle_answer(session, &offer(&[]), party.now);
    assert_eq!(party.actions(), [failed(session, SessionFailure::Unreachable)]);
}

#[test]
fn case_7_an_answer_and_then_a_give_up_when_no_host_is_usable() {
    for hosts in [["nonsense"], ["127.0.0.1:80"], ["192.0.2.1:0"], ["2001:db8::1:80"], ["example.org:80"]] {
        let mut party = Party::with_tls(Tls::Off);
        let (session, _, actions) = party.responder(&offer(&hosts));
        assert_eq!(actions, [give_up(session)]);
        assert_eq!(party.it.sessions(), 1);
    }
}

#[test]
fn case_8_who_was_given_no_host_counts_as_given_up() {
    let mut party = Party::with_tls(Tls::Off);
    let session = party.it.handle_request("joe", &offer(&[HOST]), &[], party.now);
    let dial = one_dial(&party.actions());
    party.it.handle_dial_failed(dial);
    let expected =
        [close(dial, Close::Abort), give_up(session), failed(session, SessionFailure::Unreachable)];
    assert_eq!(party.actions(), expected[..1]);
    assert_eq!(party.sleep(Span::from_secs(10)), expected[1..]);
}

/// The outputs of a responder after a request, with their times.
fn outputs_of(meets: impl FnOnce(&mut Party, LinkId)) -> Vec<(u64, Output)> {
    let mut party = Party::with_tls(Tls::Off);
    let session = party.it.handle_request("joe", &offer(&[HOST]), &[place(HOST)], party.now);
    let dial = one_dial(&party.actions());
    meets(&mut party, dial);
    let mut outputs_of: Vec<_> = party.actions().into_iter().map(|actions| (0, actions)).collect();
    for second in 1..60 {
        outputs_of.extend(party.sleep(Span::from_secs(1)).into_iter().map(|actions| (second, actions)));
    }
    outputs_of.retain(|(_, actions)| matches!(actions, Output::Signal { .. }));
    assert_eq!(outputs_of.first().map(|(_, actions)| actions), Some(&give_up(session)));
    outputs_of
}

#[test]
fn what_a_dial_met_is_not_to_be_told_from_what_is_said_and_when() {
    let refused = outputs_of(|party, dial| party.it.handle_dial_failed(dial));
    let silent = outputs_of(|_, _| ());
    let open = outputs_of(|party, dial| party.it.handle_connected(dial));
    let another_service = outputs_of(|party, dial| {
        party.it.handle_connected(dial);
        let _ = party.it.handle_bytes(dial, b"SSH-2.0-OpenSSH_9.9\r\nerror\nerror\nerror\nerror\n");
        party.it.handle_end(dial);
    });
    assert_eq!(refused.first().map(|(second, _)| *second), Some(10));
    assert!([&silent, &open, &another_service].iter().all(|it| **it == refused), "{silent:?} {open:?}");
}

#[test]
fn one_account_has_its_dials_a_minute_and_no_more_whatever_its_resources_and_keys() {
    let mut party = Party::with_tls(Tls::Off);
    let mut dials = 0;
    for second in 0..60_u32 {
        for n in 0..10 {
            let theirs =
                Offer { key: Key::new(format!("{second}.{n}").as_bytes()).unwrap(), ..offer(&[HOST]) };
            let peer = format!("joe@y/{second}.{n}");
            let session = party.it.handle_request(&peer, &theirs, &[], party.now);
            dials += party.actions().iter().filter(|actions| matches!(actions, Output::Dial { .. })).count();
            party.it.cancel(session);
        }
        party.sleep(Span::from_secs(1));
    }
    assert!((30..=60).contains(&dials), "{dials}");
    let theirs = offer(&[HOST]);
    party.it.handle_request("ann@y/1", &theirs, &[], party.now);
    assert!(
        party.actions().iter().any(|actions| matches!(actions, Output::Dial { .. })),
        "another has its own"
    );
}

#[test]
fn one_account_never_has_all_sessions() {
    let mut party = Party::with_tls(Tls::Off);
    let ask = |party: &mut Party, peer: &str, key: usize| {
        let theirs = Offer { key: Key::new(format!("k{key}").as_bytes()).unwrap(), ..offer(&[]) };
        let session = party.it.handle_request(peer, &theirs, &[place(HOST)], party.now);
        let actions = party.actions();
        actions.iter().any(
            |it| matches!(it, Output::Signal { session: of, signal: Signal::Answer(_) } if *of == session),
        )
    };
    assert_eq!((0..300).filter(|n| ask(&mut party, &format!("joe@y/{n}"), *n)).count(), 256);
    for n in 0..50 {
        assert!(ask(&mut party, &format!("ann@y/{n}"), n), "{n}");
    }
    assert!(!ask(&mut party, "joe@y/more", 999), "it has the most");
}

#[test]
fn case_15_too_many_sessions_are_refused() {
    let mut party = Party::new(Config { sessions_max: 1, ..Config::default() });
    party.requested();
    party.it.handle_request("jane", &offer(&[HOST]), &[], party.now);
    assert_eq!(refusals(&party.actions()), [Refusal::Busy]);
    let session = party.it.request("jane", &[], party.now);
    assert_eq!(party.actions(), [failed(session, SessionFailure::Busy)]);
    assert_eq!(party.it.sessions(), 1);
}

#[test]
fn case_16_a_second_answer_is_ignored() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _, actions) = party.requestor(&offer(&[HOST]));
    assert_eq!(dials(&actions).len(), 1);
    party.it.handle_answer(session, &offer(&["192.0.2.9:9"]), party.now);
    party.it.handle_refused(session);
    assert_eq!(party.actions(), []);
    assert_eq!(party.it.sessions(), 1);
}

#[test]
fn case_16_a_refusal_fails_the_session() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _) = party.requested();
    party.it.handle_refused(session);
    assert_eq!(party.actions(), [failed(session, SessionFailure::Refused)]);
    party.it.handle_answer(session, &offer(&[HOST]), party.now);
    assert_eq!(party.actions(), []);
}

#[test]
fn case_34_names_are_looked_up_when_allowed_and_their_addresses_judged() {
    let policy = Policy { names: true, ..Policy::default() };
    let mut party = Party::new(Config { policy, ..Config::default() });
    let (_, _, actions) = party.requestor(&offer(&["example.org:80", "example.org:0"]));
    let [Output::Resolve { link, host, port: 80 }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(host, "example.org");
    let addresses = ["127.0.0.1:80", "192.0.2.5:80", "192.0.2.6:80"].map(|it| it.parse().unwrap());
    party.it.handle_resolved(*link, &addresses);
    assert_eq!(party.actions(), [Output::Dial { link: *link, to: addresses[1] }]);
}

#[test]
fn case_34_a_name_with_no_address_that_may_be_dialled_is_given_up() {
    let policy = Policy { names: true, ..Policy::default() };
    let mut party = Party::new(Config { policy, ..Config::default() });
    let (session, _, actions) = party.requestor(&offer(&["rebound.example:80"]));
    let [Output::Resolve { link, .. }] = &actions[..] else { panic!("{actions:?}") };
    party.it.handle_resolved(*link, &["127.0.0.1:80".parse().unwrap()]);
    assert_eq!(party.actions(), [close(*link, Close::Abort), give_up(session)]);
}

#[test]
fn case_35_what_the_policy_allows_is_dialled() {
    let mut party = Party::new(Config { policy: everywhere(), ..Config::default() });
    let (_, _, actions) = party.requestor(&offer(&["127.0.0.1:1", "[fe80::1]:2", "0.0.0.0:3"]));
    assert_eq!(dials(&actions).len(), 2);
}

#[test]
fn case_37_two_requests_that_cross_are_two_sessions() {
    let mut party = Party::with_tls(Tls::Off);
    let (mine, mine_key) = party.requested();
    let (theirs, theirs_key, _) = party.responder(&offer(&[HOST]));
    assert!(mine != theirs && mine_key != theirs_key);
    assert_eq!(party.it.session_of("joe", mine_key.as_bytes()), Some(mine));
    assert_eq!(party.it.session_of("joe", theirs_key.as_bytes()), Some(theirs));
    party.it.handle_answer(mine, &offer(&[HOST]), party.now);
    assert_eq!(party.it.sessions(), 2);
}

#[test]
fn case_38_the_same_key_of_the_same_peer_is_a_conflict_while_its_session_lives() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, _, _) = party.responder(&offer(&[HOST]));
    let hosts = [place("198.51.100.1:8000")];
    party.it.handle_request("joe", &offer(&[HOST]), &hosts, party.now);
    assert_eq!(refusals(&party.actions()), [Refusal::Conflict]);
    party.it.handle_request("jane", &offer(&[HOST]), &hosts, party.now);
    assert_eq!(refusals(&party.actions()), []);
    party.it.cancel(session);
    party.actions();
    party.it.handle_request("joe", &offer(&[HOST]), &hosts, party.now);
    assert_eq!(refusals(&party.actions()), []);
}

#[test]
fn case_39_without_a_fingerprint_any_certificate_will_do() {
    let mut party = Party::with_tls(Tls::Require);
    let (session, key, actions) = party.requestor(&offer(&[HOST]));
    let dial = one_dial(&actions);
    assert_eq!(party.connected(dial), [write(dial, *b"starttls\n")]);
    assert_eq!(party.receive(dial, b"ok\n"), [Output::StartTls { link: dial, role: TlsRole::Client }]);
    party.it.handle_tls_up(dial, Some(ANOTHER));
    assert_eq!(party.actions(), [write(dial, *b"key:a1b2c3d4\n")]);
    let actions = party.receive(dial, &ok_line(&key));
    assert_eq!(actions, [write(dial, *b"ok\n"), Output::Established { session, link: dial, tls: true }]);
}

#[test]
fn a_dialling_party_shows_no_key_to_another_certificate() {
    for certificate in [Some(ANOTHER), None] {
        let mut party = Party::with_tls(Tls::Prefer);
        let (session, _, actions) = party.requestor(&pinned(&[HOST], CERTIFICATE));
        let dial = one_dial(&actions);
        party.connected(dial);
        party.receive(dial, b"ok\n");
        party.it.handle_tls_up(dial, certificate);
        assert_eq!(party.actions(), [close(dial, Close::Abort), give_up(session)]);
    }
}

#[test]
fn a_dialling_party_speaks_no_clear_text_to_who_has_a_certificate() {
    let mut party = Party::with_tls(Tls::Prefer);
    let (session, _, actions) = party.requestor(&pinned(&[HOST], CERTIFICATE));
    let dial = one_dial(&actions);
    party.connected(dial);
    assert_eq!(party.receive(dial, b"error\n"), [close(dial, Close::Abort), give_up(session)]);
}

#[test]
fn a_serving_party_takes_a_right_key_from_the_right_certificate_only() {
    for (certificate, is_right) in [(Some(CERTIFICATE), true), (Some(ANOTHER), false), (None, false)] {
        let mut party = Party::with_tls(Tls::Prefer);
        let (session, key, _) = party.requestor(&pinned(&[], CERTIFICATE));
        let link = party.accepted();
        party.receive(link, b"starttls\n");
        party.it.handle_tls_up(link, certificate);
        let actions = party.receive(link, &key_line(&key));
        let won = Output::Established { session, link, tls: true };
        let right = vec![write(link, *b"ok:a1b2c3d4\n"), won];
        assert_eq!(actions, if is_right { right } else { vec![error(link)] });
    }
}

#[test]
fn a_serving_party_takes_no_key_in_clear_from_who_has_a_certificate() {
    let mut party = Party::with_tls(Tls::Prefer);
    let (_, key, _) = party.responder(&pinned(&[HOST], CERTIFICATE));
    let link = party.accepted();
    assert_eq!(party.receive(link, &key_line(&key)), [error(link)]);
}

#[test]
fn a_parked_connection_in_clear_is_refused_when_the_answer_names_a_certificate() {
    let mut party = Party::with_tls(Tls::Prefer);
    let (session, key) = party.requested();
    let link = party.accepted();
    party.receive(link, &key_line(&key));
    party.it.handle_answer(session, &pinned(&[], CERTIFICATE), party.now);
    assert_eq!(party.actions(), [error(link), Output::Read { link, wanted: true }]);
    assert_eq!(party.it.sessions(), 1);
}

#[test]
fn a_fingerprint_is_nothing_to_who_wants_no_tls() {
    let mut party = Party::with_tls(Tls::Off);
    let (session, key, _) = party.requestor(&pinned(&[], CERTIFICATE));
    let link = party.accepted();
    let actions = party.receive(link, &key_line(&key));
    assert_eq!(actions, [write(link, *b"ok:a1b2c3d4\n"), established(session, link)]);
}

#[test]
fn our_fingerprint_goes_with_our_offers() {
    let mut party = Party::new(Config { fingerprint: Some(CERTIFICATE), ..Config::default() });
    party.it.request("joe", &[], party.now);
    party.it.handle_request("joe", &offer(&[HOST]), &[], party.now);
    for actions in &party.actions()[..2] {
        let Output::Signal { signal: Signal::Request(ours) | Signal::Answer(ours), .. } = actions else {
            panic!("{actions:?}")
        };
        assert_eq!(ours.fingerprint, Some(CERTIFICATE));
    }
}

#[test]
fn the_first_deadline_is_the_one_to_wake_for() {
    let mut party = Party::with_tls(Tls::Off);
    assert_eq!(party.until(), None);
    party.requested();
    assert_eq!(party.until(), Some(party.now + Span::from_secs(60)));
    party.accepted();
    assert_eq!(party.until(), Some(party.now + Span::from_secs(30)));
}
