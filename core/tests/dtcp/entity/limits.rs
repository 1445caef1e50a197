//! The limits of requests and connections, and timeouts of unanswered ones.

use rendezvous_core::dtcp::entity::{SESSIONS_MAX, SESSIONS_PER_PEER_MAX};
use rendezvous_core::dtcp::{Key, Offer};
use rendezvous_core::event::Event;

use super::*;

/// A request of `peer`, with a key of its own.
fn request(peer: &str, key: &str, hosts: &[&str]) -> Iq {
    let offer = Offer { key: Key::new(key.as_bytes()).unwrap(), ..offer(hosts) };
    dtcp::request(&jid(peer), &jid(ME), IqId::new("1").unwrap(), &offer)
}

/// Whether a connection is not accepted.
fn is_shut_out(stage: &mut Stage) -> bool {
    stage.harness.actions();
    let on = stage.accepted();
    let actions = stage.harness.actions();
    let is_noted =
        |did: &Done| matches!(did, Done::Asked(Output::Event(Event::Dropped { on: it, .. })) if *it == on);
    actions.iter().any(is_noted) && actions.contains(&Done::Asked(Output::Close { on, how: Close::Abort }))
}

#[test]
fn connections_are_taken_while_a_session_is_under_way_and_at_no_other_time() {
    let mut stage = Stage::accept(&[HOST]);
    assert!(is_shut_out(&mut stage), "nobody asked");
    let answer = stage.asked(&[]).remove(0);
    assert!(!is_shut_out(&mut stage));
    let on = stage.accepted();
    let _ = stage.harness.receive(on, format!("key:{}\nok\n", key(&answer)).as_bytes());
    assert!(stage.harness.actions().contains(&Done::Asked(Output::Pair { hidden: on, client: stage.local })));
    assert!(is_shut_out(&mut stage), "there is a stream");

    let mut stage = Stage::accept(&[HOST]);
    let answer = stage.asked(&[]).remove(0);
    stage.receive(&error(JOE, IqId::new("g"), Some(&key(&answer))));
    assert!(is_shut_out(&mut stage), "the session failed");

    let mut stage = Stage::new(Role::Open { to: jid(JOE) }, &[HOST]);
    assert!(is_shut_out(&mut stage), "the peer was not asked");
}

#[test]
fn a_peer_that_does_not_get_through_keeps_nobody_out_and_the_first_through_wins() {
    let mut stage = Stage::accept(&[HOST]);
    assert!(matches!(stage.asked(&[HOST])[..], [Iq { kind: Kind::Result, .. }]));
    let (to_joe, _) = dials(&stage.harness.actions())[0];
    let answers = stage.receive(&request("ann@y/1", "k", &[]));
    let [Iq { kind: Kind::Result, .. }] = &answers[..] else { panic!("{answers:?}") };
    let on = stage.accepted();
    stage.events();
    let _ = stage.harness.receive(on, format!("key:{}\nok\n", key(&answers[0])).as_bytes());
    let actions = stage.harness.actions();
    assert!(actions.contains(&Done::Asked(Output::Pair { hidden: on, client: stage.local })));
    assert!(actions.contains(&Done::Asked(Output::Close { on: to_joe, how: Close::Abort })));
    let iqs = stage.iqs();
    assert!(matches!(&iqs[..], [Iq { kind: Kind::Error(_), to, .. }] if *to == jid(JOE)), "{iqs:?}");
    let refused = Refused { why: SessionFailure::Busy, error: None, connect_error: None };
    assert_eq!(
        stage.events(),
        [
            DtcpEvent::Established { peer: jid("ann@y/1"), tls: false },
            DtcpEvent::Failed { peer: jid(JOE), refused }
        ]
    );
    assert_eq!(code(&stage.receive(&request("bob@y/1", "k", &[]))), 503, "there is a stream");
}

#[test]
fn one_account_has_so_many_sessions_and_all_together_so_many() {
    let mut stage = Stage::accept(&[HOST]);
    for n in 0..SESSIONS_PER_PEER_MAX {
        let answers = stage.receive(&request(&format!("joe@y/{n}"), &format!("k{n}"), &[]));
        assert!(matches!(answers[..], [Iq { kind: Kind::Result, .. }]), "{answers:?}");
    }
    assert_eq!(code(&stage.receive(&request("joe@y/more", "k", &[]))), 500);
    for n in SESSIONS_PER_PEER_MAX..SESSIONS_MAX {
        let answers = stage.receive(&request(&format!("u{n}@y/1"), "k", &[]));
        assert!(matches!(answers[..], [Iq { kind: Kind::Result, .. }]), "{answers:?}");
    }
    // The account with the most sessions is displaced, until it has no more than any other.
    let joe = SESSIONS_PER_PEER_MAX - 1;
    for n in 0..joe {
        let iqs = stage.receive(&request(&format!("ann{n}@y/1"), "k", &[]));
        assert!(iqs.iter().any(|iq| matches!(iq.kind, Kind::Result)), "{iqs:?}");
    }
    assert_eq!(code(&stage.receive(&request("ann@y/1", "k", &[]))), 500);
    stage.harness.wait(Span::from_secs(60));
    assert_eq!(stage.harness.machine.outcome(), None);
    stage.iqs();
    let answers = stage.receive(&request("ann@y/1", "k", &[]));
    assert!(matches!(answers[..], [Iq { kind: Kind::Result, .. }]), "they end");
}

#[test]
fn who_opens_waits_for_the_server_as_long_as_for_the_peer_and_who_accepts_for_ever() {
    let mut stage = Stage::new(Role::Open { to: jid(JOE) }, &[HOST]);
    stage.harness.wait(Span::from_secs(59));
    goes_on(&mut stage);
    stage.harness.wait(Span::from_secs(1));
    let refused = Refused { why: SessionFailure::Deadline, error: None, connect_error: None };
    assert_eq!(stage.events(), [DtcpEvent::Failed { peer: jid(JOE), refused: refused.clone() }]);
    stage.is_over(&Outcome::Failed(refused));

    let mut stage = Stage::new(Role::Open { to: jid(JOE) }, &[HOST]);
    stage.harness.wait(Span::from_secs(59));
    stage.harness.call(IqHandler::handle_online);
    assert_eq!(stage.iqs().len(), 1);
    stage.harness.wait(Span::from_secs(59));
    goes_on(&mut stage);

    let mut stage = Stage::new(Role::Accept { from: Allow::Everybody }, &[HOST]);
    stage.harness.wait(Span::from_secs(24 * 3600));
    goes_on(&mut stage);
}

#[test]
fn keys_that_wait_to_be_sent_are_not_shown() {
    let (mut stage, request) = Stage::open(&[]);
    stage.receive(&answer(&request, JOE, &[HOST]));
    let (on, _) = dials(&stage.harness.actions())[0];
    let now = stage.harness.now;
    stage.harness.machine.handle_connected(on, now);
    let shown = format!("{:?}", stage.harness.machine);
    assert!(shown.contains(&format!("({} bytes)", "key:\n".len() + THEIRS.len())), "{shown}");
    let bytes = format!("{:?}", THEIRS.as_bytes());
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])) && !shown.contains(THEIRS), "{shown}");
}
