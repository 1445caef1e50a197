//! The entity: its stanzas, and when its local connection is paired with the direct one.

use rendezvous_core::bytestream::name::Allow;
use rendezvous_core::component_host::IqHandler;
use rendezvous_core::dtcp::entity::{Config, Entity, Outcome, Role, SESSIONS_MAX};
use rendezvous_core::dtcp::negotiation;
use rendezvous_core::dtcp::xmpp::{self as dtcp, Message};
use rendezvous_core::event::{DtcpEvent, Event, Refused, SessionFailure};
use rendezvous_core::machine::{Close, ConnId, End, Listener, Machine, Output};
use rendezvous_core::pair::{self, EndReason};
use rendezvous_core::time::Span;
use rendezvous_core::xmpp::condition::{Condition, StanzaError};
use rendezvous_core::xmpp::iq::{Iq, Kind};
use rendezvous_core::xmpp::jid::{IqId, Jid};

use super::harness::{Done, Harness, address, dials, sent};
use super::{HOST, THEIRS, offer, place};

mod limits;

const ME: &str = "me@x/home";
const JOE: &str = "joe@y/home";

fn jid(text: &str) -> Jid {
    Jid::parse(text).expect("a JID")
}

struct Stage {
    harness: Harness<Entity>,
    local: ConnId,
}

impl Stage {
    fn new(role: Role, hosts: &[&str]) -> Self {
        let config = Config {
            jid: jid(ME),
            role,
            hosts: hosts.iter().map(|it| place(it)).collect(),
            listeners: 1,
            negotiation: negotiation::Config::default(),
            pair: pair::Limits::default(),
        };
        let mut harness = Harness::new(Entity::new(config, [7; 32]));
        let local = harness.call(|it, now| it.handle_open(Listener(1), address(1, 1), now));
        assert_eq!(harness.actions(), [Done::Asked(Output::Read { on: local, wanted: false })]);
        Self { harness, local }
    }

    /// Requests a session with Joe. Returns the request.
    fn open(hosts: &[&str]) -> (Self, Iq) {
        let mut stage = Self::new(Role::Open { to: jid(JOE) }, hosts);
        assert_eq!(stage.iqs(), [], "the server is not there");
        stage.harness.call(IqHandler::handle_online);
        let [request] = &stage.iqs()[..] else { panic!("one request") };
        assert_eq!((&request.from, &request.to, &request.kind), (&jid(ME), &jid(JOE), &Kind::Set));
        let request = request.clone();
        (stage, request)
    }

    fn accept(hosts: &[&str]) -> Self {
        let mut stage = Self::new(Role::Accept { from: Allow::Everybody }, hosts);
        stage.harness.call(IqHandler::handle_online);
        assert_eq!(stage.iqs(), []);
        stage
    }

    fn iqs(&mut self) -> Vec<Iq> {
        std::iter::from_fn(|| self.harness.machine.poll_iq()).collect()
    }

    fn events(&mut self) -> Vec<DtcpEvent> {
        let events = std::mem::take(&mut self.harness.xmpp_events).into_iter();
        events
            .filter_map(|event| match event {
                Event::Dtcp(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    /// Handles an IQ. Returns the answers.
    fn receive(&mut self, iq: &Iq) -> Vec<Iq> {
        self.harness.call(|it, now| it.handle_iq(iq.clone(), now));
        self.iqs()
    }

    /// Joe requests a session with the id `1`. Returns the answers.
    fn asked(&mut self, hosts: &[&str]) -> Vec<Iq> {
        self.receive(&dtcp::request(&jid(JOE), &jid(ME), IqId::new("1").unwrap(), &offer(hosts)))
    }

    fn accepted(&mut self) -> ConnId {
        self.harness.call(|it, now| it.handle_open(Listener(0), address(2, 2), now))
    }

    fn is_over(&mut self, how: &Outcome) {
        assert_eq!(self.harness.machine.outcome(), Some(how));
        assert!(
            self.harness
                .actions()
                .contains(&Done::Asked(Output::Close { on: self.local, how: Close::Truncate }))
        );
        assert!(self.harness.machine.is_done());
    }
}

/// Our key in an IQ of ours.
fn key(iq: &Iq) -> String {
    match dtcp::read(iq) {
        Some(Message::Request(Ok(offer)) | Message::Answer(Ok(offer))) => {
            String::from_utf8(offer.key.as_bytes().to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn answer(to: &Iq, from: &str, hosts: &[&str]) -> Iq {
    dtcp::answer(&jid(from), &jid(ME), to.id.clone(), &offer(hosts))
}

fn error(from: &str, id: Option<IqId>, key: Option<&str>) -> Iq {
    let mut iq = dtcp::give_up(&jid(from), &jid(ME), IqId::new("").unwrap(), &offer(&[]).key);
    iq.id = id;
    iq.payload = key.map(|key| {
        use rendezvous_core::xmpp::element::Element;
        let key = Element::new(dtcp::NAMESPACE, "key").with_text(key);
        Element::new(dtcp::NAMESPACE, "query").with_child(key)
    });
    iq
}

fn code_of(iq: &Iq) -> u16 {
    match &iq.kind {
        Kind::Error(error) => error.condition.code(),
        kind => panic!("{kind:?}"),
    }
}

fn code(iqs: &[Iq]) -> u16 {
    match iqs {
        [Iq { kind: Kind::Error(error), payload: None, .. }] => error.condition.code(),
        _ => panic!("{iqs:?}"),
    }
}

/// Nothing is paired, and nothing has failed.
fn goes_on(stage: &mut Stage) {
    assert_eq!(stage.harness.actions(), []);
    assert_eq!(stage.harness.machine.outcome(), None);
}

#[test]
fn who_opens_asks_dials_and_pairs() {
    let (mut stage, request) = Stage::open(&[]);
    assert_eq!(stage.receive(&answer(&request, JOE, &[HOST])), []);
    let (on, _) = dials(&stage.harness.actions())[0];
    stage.harness.call(|it, now| it.handle_connected(on, now));
    assert_eq!(sent(&stage.harness.actions(), on), format!("key:{THEIRS}\n"));
    let line = format!("ok:{}\n", key(&request));
    let used = stage.harness.receive(on, format!("{line}hello").as_bytes());
    assert_eq!(used, line.len(), "what is behind it is the stream");
    let actions = stage.harness.actions();
    assert_eq!(sent(&actions, on), "ok\n");
    assert!(actions.contains(&Done::Asked(Output::Read { on: stage.local, wanted: true })));
    assert_eq!(actions.last(), Some(&Done::Asked(Output::Pair { hidden: on, client: stage.local })));
    let peer = jid(JOE);
    assert_eq!(
        stage.events(),
        [
            DtcpEvent::Begun { peer: peer.clone() },
            DtcpEvent::Dialled { peer: peer.clone(), to: HOST.parse().unwrap() },
            DtcpEvent::Established { peer, tls: false }
        ]
    );
    for half in [on, stage.local] {
        stage.harness.call(|it, now| it.handle_end(half, End::Clean, now));
    }
    assert_eq!(stage.harness.machine.outcome(), Some(&Outcome::Ended(EndReason::Done)));
    assert!(stage.harness.machine.is_done());
}

#[test]
fn who_accepts_answers_serves_and_pairs() {
    let mut stage = Stage::accept(&[HOST]);
    let answers = stage.asked(&[]);
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&answer.to, &answer.id, &answer.kind), (&jid(JOE), &IqId::new("1"), &Kind::Result));
    let on = stage.accepted();
    assert_eq!(stage.harness.receive(on, format!("key:{}\n", key(answer)).as_bytes()), 37);
    assert_eq!(sent(&stage.harness.actions(), on), format!("ok:{THEIRS}\n"));
    let _ = stage.harness.receive(on, b"ok\n");
    assert!(stage.harness.actions().contains(&Done::Asked(Output::Pair { hidden: on, client: stage.local })));
}

#[test]
fn a_request_without_an_id_is_answered_without_one() {
    let mut stage = Stage::accept(&[HOST]);
    let mut request = dtcp::request(&jid(JOE), &jid(ME), IqId::new("1").unwrap(), &offer(&[]));
    request.id = None;
    assert!(matches!(&stage.receive(&request)[..], [Iq { id: None, kind: Kind::Result, .. }]));
}

#[test]
fn case_3_a_connection_that_was_there_at_success_is_told_and_closed() {
    let mut stage = Stage::accept(&[HOST]);
    let answer = stage.asked(&[]).remove(0);
    let line = format!("key:{}\n", key(&answer));
    let (late, silent, on) = (stage.accepted(), stage.accepted(), stage.accepted());
    let _ = stage.harness.receive(on, format!("{line}ok\n").as_bytes());
    stage.harness.actions();
    let _ = stage.harness.receive(late, line.as_bytes());
    let close = Done::Asked(Output::Close { on: late, how: Close::Linger });
    assert_eq!(stage.harness.actions(), [Done::Sent(late, b"error\n".to_vec()), close]);
    assert_eq!(stage.harness.receive(silent, b""), 0);
    stage.harness.call(|it, now| it.handle_end(on, End::Reset, now));
    assert!(stage.harness.machine.is_done(), "it goes with the stream");
}

#[test]
fn a_direct_connection_that_is_cut_closes_behind_the_alert_and_one_that_is_reset_at_once() {
    for (end, how) in [(End::Truncated, Close::Linger), (End::Reset, Close::Abort)] {
        let mut stage = Stage::accept(&[HOST]);
        stage.asked(&[]);
        let on = stage.accepted();
        stage.harness.actions();
        stage.harness.call(|it, now| it.handle_end(on, end, now));
        assert_eq!(stage.harness.actions(), [Done::Asked(Output::Close { on, how })]);
    }
}

#[test]
fn case_6_a_request_where_neither_has_a_host_is_refused_with_503() {
    let mut stage = Stage::accept(&[]);
    assert_eq!(code(&stage.asked(&[])), 503);
    let condition = Condition::ServiceUnavailable;
    assert_eq!(stage.events(), [DtcpEvent::Declined { peer: jid(JOE), condition }]);
    goes_on(&mut stage);
}

#[test]
fn case_9_when_both_gave_up_who_opens_fails_and_who_accepts_goes_on() {
    let refused = Refused { why: SessionFailure::Unreachable, error: None, connect_error: None };
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&answer(&request, JOE, &[]));
    goes_on(&mut stage);
    assert_eq!(stage.receive(&error(JOE, None, Some(&key(&request)))), []);
    stage.is_over(&Outcome::Failed(refused.clone()));

    let mut stage = Stage::accept(&[HOST]);
    let answer = stage.asked(&[]).remove(0);
    stage.events();
    stage.receive(&error(JOE, IqId::new("g"), Some(&key(&answer))));
    assert_eq!(stage.events(), [DtcpEvent::Failed { peer: jid(JOE), refused }]);
    goes_on(&mut stage);
    assert!(matches!(stage.asked(&[])[..], [Iq { kind: Kind::Result, .. }]), "the next may get through");
}

#[test]
fn case_10_at_the_deadline_the_other_is_told_and_the_session_is_over() {
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&answer(&request, JOE, &[]));
    stage.harness.wait(Span::from_secs(60));
    stage.is_over(&Outcome::Failed(Refused {
        why: SessionFailure::Deadline,
        error: None,
        connect_error: None,
    }));
}

#[test]
fn case_12_a_give_up_counts_from_the_peer_alone_and_with_our_key_alone() {
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&answer(&request, JOE, &[]));
    for odd in [
        error("joe@y/other", None, Some(&key(&request))),
        error(JOE, None, Some(THEIRS)),
        error(JOE, None, None),
    ] {
        assert_eq!(stage.receive(&odd), [], "no error is ever answered");
        goes_on(&mut stage);
    }
}

#[test]
fn case_13_a_give_up_names_the_others_key_and_has_an_id_of_its_own() {
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&answer(&request, JOE, &[HOST]));
    let (on, _) = dials(&stage.harness.actions())[0];
    let refused = rendezvous_core::machine::DialFailure::Refused;
    stage.harness.call(|it, now| it.handle_dial_failed(on, refused, now));
    let iqs = stage.iqs();
    let [said] = &iqs[..] else { panic!("{iqs:?}") };
    assert!(said.id.is_some() && said.id != request.id);
    assert!(
        matches!(dtcp::read(said), Some(Message::Error { key: Some(it), .. }) if it.is(THEIRS.as_bytes()))
    );
}

#[test]
fn case_14_who_is_told_to_stop_gives_up() {
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&answer(&request, JOE, &[HOST]));
    let (on, _) = dials(&stage.harness.actions())[0];
    stage.harness.call(IqHandler::handle_drain);
    assert!(
        matches!(&stage.iqs()[..], [Iq { kind: Kind::Error(error), .. }] if error.condition.code() == 503)
    );
    assert_eq!(stage.harness.machine.outcome(), Some(&Outcome::Abandoned));
    assert!(stage.harness.actions().contains(&Done::Asked(Output::Close { on, how: Close::Abort })));
    assert!(stage.harness.machine.is_done());
}

#[test]
fn a_local_connection_that_breaks_gives_up_and_one_that_ends_does_not() {
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&answer(&request, JOE, &[HOST]));
    let local = stage.local;
    stage.harness.call(|it, now| it.handle_end(local, End::Clean, now));
    assert_eq!(stage.harness.machine.outcome(), None);
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&answer(&request, JOE, &[HOST]));
    let local = stage.local;
    stage.harness.call(|it, now| it.handle_end(local, End::Reset, now));
    assert_eq!(stage.iqs().len(), 1, "a give-up");
    stage.is_over(&Outcome::Abandoned);
}

#[test]
fn case_15_a_request_without_a_key_is_400_and_one_that_is_not_wanted_403() {
    let mut stage = Stage::accept(&[HOST]);
    let mut request = dtcp::request(&jid(JOE), &jid(ME), IqId::new("1").unwrap(), &offer(&[]));
    request.payload = Some(rendezvous_core::xmpp::element::Element::new(dtcp::NAMESPACE, "query"));
    assert_eq!(code(&stage.receive(&request)), 400);

    let mut stage = Stage::new(Role::Accept { from: Allow::These(vec![jid("ann@y")]) }, &[HOST]);
    assert_eq!(code(&stage.asked(&[HOST])), 403);
    let mut by_ann = dtcp::request(&jid("ann@y/1"), &jid(ME), IqId::new("1").unwrap(), &offer(&[]));
    assert!(matches!(stage.receive(&by_ann)[..], [Iq { kind: Kind::Result, .. }]));
    by_ann.to = jid("other@x/home");
    assert_eq!(code(&stage.receive(&by_ann)), 501, "nobody is there");

    let (mut stage, _) = Stage::open(&[HOST]);
    assert_eq!(code(&stage.asked(&[HOST])), 403, "who opens accepts nobody");
}

#[test]
fn case_15_and_38_so_many_sessions_at_a_time_and_a_key_once() {
    let mut stage = Stage::accept(&[HOST]);
    stage.asked(&[]);
    assert_eq!(code(&stage.asked(&[])), 409, "the same key");
    let by = |name: &str| dtcp::request(&jid(name), &jid(ME), IqId::new("2").unwrap(), &offer(&[]));
    for other in 1..SESSIONS_MAX {
        let answer = stage.receive(&by(&format!("ann{other}@y/1")));
        assert!(matches!(answer[..], [Iq { kind: Kind::Result, .. }]));
    }
    assert_eq!(code(&stage.receive(&by("one@too/many"))), 500);
}

#[test]
fn the_first_that_gets_through_is_served_and_the_others_are_told() {
    let mut stage = Stage::accept(&[HOST]);
    stage.asked(&[]);
    let by_ann =
        dtcp::request(&jid("ann@y/1"), &jid(ME), IqId::new("2").unwrap(), &offer(&["203.0.113.1:1"]));
    let to_bob = dtcp::request(&jid("bob@y/1"), &jid(ME), IqId::new("3").unwrap(), &offer(&[]));
    stage.receive(&by_ann);
    let to_bob = stage.receive(&to_bob).remove(0);
    let on = stage.accepted();
    let _ = stage.harness.receive(on, format!("key:{}\nok\n", key(&to_bob)).as_bytes());
    assert!(stage.harness.actions().contains(&Done::Asked(Output::Pair { hidden: on, client: stage.local })));
    let iqs = stage.iqs();
    let [given_up] = &iqs[..] else { panic!("{iqs:?}: who is not dialled has nothing to be told") };
    assert_eq!((&given_up.to, code_of(given_up)), (&jid("ann@y/1"), 503));
    assert_eq!(code(&stage.asked(&[])), 503, "served");
}

#[test]
fn case_16_an_answer_counts_once_with_our_id_and_from_the_peer_alone() {
    let (mut stage, request) = Stage::open(&[]);
    stage.receive(&answer(&request, "joe@y/other", &[HOST]));
    let mut odd = answer(&request, JOE, &[HOST]);
    odd.id = IqId::new("other");
    stage.receive(&odd);
    odd.id = None;
    stage.receive(&odd);
    goes_on(&mut stage);
    stage.receive(&answer(&request, JOE, &[HOST]));
    assert_eq!(dials(&stage.harness.actions()).len(), 1);
    stage.receive(&answer(&request, JOE, &[HOST]));
    goes_on(&mut stage);
}

#[test]
fn case_16_an_answer_without_a_key_fails_the_session() {
    let (mut stage, request) = Stage::open(&[HOST]);
    let mut odd = answer(&request, JOE, &[]);
    odd.payload = None;
    assert_eq!(stage.receive(&odd), []);
    stage.is_over(&Outcome::Failed(Refused {
        why: SessionFailure::Refused,
        error: None,
        connect_error: None,
    }));
}

#[test]
fn a_refusal_fails_the_session_and_what_it_says_is_kept() {
    let (mut stage, request) = Stage::open(&[HOST]);
    stage.receive(&error("joe@y/other", request.id.clone(), None));
    goes_on(&mut stage);
    let said = StanzaError::new(Condition::FeatureNotImplemented, "DTCP not supported");
    let mut refusal = error(JOE, request.id.clone(), None);
    refusal.kind = Kind::Error(said.clone());
    assert_eq!(stage.receive(&refusal), []);
    stage.is_over(&Outcome::Failed(Refused {
        why: SessionFailure::Refused,
        error: Some(said),
        connect_error: None,
    }));
}

#[test]
fn what_is_not_about_dtcp_is_refused_with_503_and_answers_never() {
    let mut stage = Stage::accept(&[HOST]);
    let mut iq = dtcp::request(&jid(JOE), &jid(ME), IqId::new("1").unwrap(), &offer(&[]));
    iq.payload = Some(rendezvous_core::xmpp::element::Element::new("jabber:iq:version", "query"));
    iq.kind = Kind::Get;
    assert_eq!(code(&stage.receive(&iq)), 503);
    iq.kind = Kind::Result;
    assert_eq!(stage.receive(&iq), []);
    assert_eq!(stage.receive(&error(JOE, None, Some("k"))), []);
}
