//! The connection to the server: established, kept, lost, ended.

use rendezvous_core::event::ComponentEvent;
use rendezvous_core::machine::{Close, DialFailure, End, Machine as _, Output};
use rendezvous_core::relay_client::Host;
use rendezvous_core::time::Span;
use rendezvous_core::xmpp::component::Loss;
use rendezvous_core::xmpp::condition::StreamCondition;

use super::{Asked, Call, Stage, again, close, question, server, to};
use crate::{HEADER, written};

#[test]
fn a_server_that_goes_is_tried_again_and_the_machine_inside_is_told() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    stage.it.inner_mut().iqs.push_back(question(1));
    assert_eq!(stage.actions().len(), 1);
    let events = stage.reset(on);
    let wait = again(&events, Loss::Ended(End::Reset));
    assert!(wait >= Span::from_secs(1) && wait <= Span::from_secs(2), "{wait:?}");
    assert_eq!(stage.calls(), [Call::Offline]);
    stage.it.inner_mut().iqs.push_back(question(2));
    assert_eq!(stage.actions(), []);
    let (slept, actions) = stage.wake();
    assert_eq!(slept, wait);
    assert!(matches!(actions[..], [Asked::Other(Output::Dial { on, .. })] if on == server(2)));
    stage.it.handle_connected(server(2), stage.now);
    stage.actions();
    stage.receive(server(2), HEADER);
    let actions = stage.receive(server(2), "<handshake/>");
    assert_eq!(
        actions.last(),
        Some(&Asked::Message(server(2), written(&question(2)))),
        "what waited, not what was sent"
    );
}

#[test]
fn delays_grow_to_a_minute_and_shrink_after_a_connection_that_lasted() {
    let mut stage = Stage::new();
    let why = Loss::Unreachable(DialFailure::Refused);
    let mut waits = Vec::new();
    stage.actions();
    for attempt in 1..10 {
        stage.it.handle_dial_failed(server(attempt), DialFailure::Refused, stage.now);
        stage.it.handle_closed(server(attempt), stage.now);
        assert_eq!(stage.actions(), [close(server(attempt), Close::Abort)]);
        let events = stage.events();
        if attempt == 1 {
            assert!(again(&events, why) > Span::ZERO)
        } else {
            assert_eq!(events, [], "said once")
        }
        stage.actions();
        waits.push(stage.wake().0);
    }
    assert!(waits[0] >= Span::from_secs(1) && waits[0] <= Span::from_secs(2), "{waits:?}");
    assert!(waits[8] >= Span::from_secs(40) && waits[8] <= Span::from_secs(60), "{waits:?}");
    let on = server(10);
    stage.greet(on);
    stage.now.mono = stage.now.mono + Span::from_secs(10);
    let events = stage.reset(on);
    assert!(again(&events, Loss::Ended(End::Reset)) <= Span::from_secs(2));
}

#[test]
fn a_wrong_secret_is_said_once_and_tried_again_slowly() {
    let mut stage = Stage::new();
    let why = Loss::Refused(StreamCondition::NotAuthorized);
    stage.actions();
    for attempt in 1..4 {
        let on = server(attempt);
        stage.it.handle_connected(on, stage.now);
        stage.receive(on, HEADER);
        let error =
            "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
        let actions = stage.receive(on, error);
        assert_eq!(actions, [Asked::Message(on, "</stream:stream>".to_owned()), close(on, Close::Linger)]);
        stage.it.handle_closed(on, stage.now);
        let events = stage.events();
        if attempt == 1 {
            assert!(again(&events, why) >= Span::from_secs(40));
        } else {
            assert_eq!(events, [], "said once");
        }
        stage.wake();
    }
    assert!(!stage.calls().contains(&Call::Offline), "it never was online");
}

#[test]
fn the_next_attempt_waits_until_the_last_connection_is_gone() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    stage.receive(on, "</stream:stream>");
    assert!(matches!(stage.events()[..], [ComponentEvent::Down { why: Loss::Closed, .. }]));
    assert_eq!(stage.sleep(Span::from_secs(4)), [], "it lingers");
    stage.it.handle_closed(on, stage.now);
    let (_, actions) = stage.wake();
    assert!(matches!(actions[..], [Asked::Other(Output::Dial { .. })]));
}

#[test]
fn every_address_of_the_servers_name_is_tried() {
    let mut stage = Stage::at(Host::Name("xmpp.example.org".to_owned()));
    assert!(
        matches!(&stage.actions()[..], [Asked::Other(Output::Resolve { host, port: 5347, .. })] if host == "xmpp.example.org")
    );
    stage.it.handle_resolved(server(1), &[to("192.0.2.1:5347"), to("192.0.2.2:5347")], stage.now);
    assert_eq!(stage.actions(), [Asked::Other(Output::Dial { on: server(1), to: to("192.0.2.1:5347") })]);
    // No answer.
    let (_, actions) = stage.wake();
    assert_eq!(actions, [close(server(1), Close::Abort)]);
    stage.it.handle_closed(server(1), stage.now);
    let (slept, actions) = stage.wake();
    assert_eq!(
        (slept, &actions[..]),
        (Span::ZERO, &[Asked::Other(Output::Dial { on: server(2), to: to("192.0.2.2:5347") })][..])
    );
    stage.it.handle_dial_failed(server(2), DialFailure::Refused, stage.now);
    assert_eq!(stage.actions(), [close(server(2), Close::Abort)]);
    let events = stage.events();
    again(&events, Loss::Unreachable(DialFailure::Refused));
}

#[test]
fn a_name_without_an_address_is_unreachable() {
    let mut stage = Stage::at(Host::Name("xmpp.example.org".to_owned()));
    stage.actions();
    stage.it.handle_dial_failed(server(1), DialFailure::Name, stage.now);
    assert_eq!(stage.actions(), [close(server(1), Close::Abort)]);
    let events = stage.events();
    again(&events, Loss::Unreachable(DialFailure::Name));
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let mut stage = Stage::new();
    stage.actions();
    let (dial, _) = {
        stage.it.handle_connected(server(1), stage.now);
        stage.actions();
        stage.wake()
    };
    assert_eq!(dial, Span::from_secs(10));
    let events = stage.events();
    again(&events, Loss::TimedOut);
}

#[test]
fn white_space_keeps_the_stream_alive_and_a_server_that_takes_none_is_lost() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    for _ in 0..3 {
        let (slept, actions) = stage.wake();
        assert_eq!((slept, &actions[..]), (Span::from_secs(60), &[Asked::Message(on, " ".to_owned())][..]));
        stage.it.handle_flushed(on, stage.now);
        assert_eq!(stage.actions(), []);
    }
    stage.wake();
    let (slept, actions) = stage.wake();
    assert_eq!((slept, &actions[..]), (Span::from_secs(120), &[close(on, Close::Abort)][..]));
    let events = stage.events();
    again(&events, Loss::TimedOut);
}

#[test]
fn when_it_is_told_to_stop_the_last_words_go_out_before_the_end_of_the_stream() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    stage.it.inner_mut().iqs.push_back(question(1));
    stage.it.handle_drain(stage.now);
    assert_eq!(stage.calls(), [Call::Drain]);
    assert_eq!(stage.actions(), [Asked::Message(on, written(&question(1)))]);
    stage.it.handle_flushed(on, stage.now);
    assert_eq!(stage.actions(), [Asked::Message(on, "</stream:stream>".to_owned())], "and no FIN yet");
    stage.it.handle_drain(stage.now);
    assert_eq!(stage.actions(), [], "nor when it is told again");
    assert_eq!(stage.receive(on, "</stream:stream>"), [close(on, Close::Linger)]);
    stage.it.handle_closed(on, stage.now);
    assert!(!stage.it.is_done());
    stage.it.inner_mut().is_done = true;
    assert!(stage.it.is_done());
    assert_eq!(stage.sleep(Span::from_secs(3600)), [], "no other attempt");
    assert_eq!(stage.until(), None);
}

#[test]
fn a_server_that_does_not_end_its_stream_is_not_waited_for() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    stage.it.handle_drain(stage.now);
    assert_eq!(stage.actions(), [Asked::Message(on, "</stream:stream>".to_owned())]);
    assert_eq!(stage.wake(), (Span::from_secs(5), vec![close(on, Close::Linger)]));
}

#[test]
fn who_is_told_to_stop_without_a_server_looks_for_none_any_more() {
    let mut stage = Stage::new();
    stage.actions();
    stage.it.handle_drain(stage.now);
    assert_eq!(stage.actions(), [close(server(1), Close::Abort)]);
    stage.it.handle_closed(server(1), stage.now);
    assert_eq!(stage.sleep(Span::from_secs(3600)), []);
    assert_eq!(stage.until(), None);
}
