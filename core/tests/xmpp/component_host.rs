//! A machine behind a component: mapping of connections, and the loss and return of the server.

mod limits;
mod server;

use std::collections::VecDeque;
use std::net::SocketAddr;

use rendezvous_core::account::Owners;
use rendezvous_core::component_host::{ComponentHost, Config, IqHandler, QUEUE_BYTES_MAX};
use rendezvous_core::event::{ComponentEvent, Event};
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use rendezvous_core::relay_client::{Host, HostPort};
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::xmpp::component::{Loss, Secret};
use rendezvous_core::xmpp::iq::Iq;

use super::{HEADER, iq, jid, written};

/// The calls of the inner machine.
#[allow(clippy::large_enum_variant, reason = "a few of them, in a test")]
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Open(ConnId),
    Resolved(ConnId),
    Connected(ConnId),
    DialFailed(ConnId),
    Secured(ConnId),
    TlsFailed(ConnId),
    Bytes(ConnId, usize),
    Moved(ConnId),
    Flushed(ConnId),
    Acked(ConnId),
    LocalAddress(ConnId),
    End(ConnId),
    WriteFailed(ConnId),
    Stalled(ConnId),
    Closed(ConnId),
    Timeout,
    Iq(Iq),
    Online,
    Offline,
    Drain,
}

/// A machine that acts as the test says, and records its calls.
#[derive(Debug, Default)]
struct Puppet {
    calls: Vec<Call>,
    outputs: VecDeque<Output>,
    iqs: VecDeque<Iq>,
    is_done: bool,
}

const OWN: ConnId = ConnId { index: 4, generation: 9 };

impl Machine for Puppet {
    fn handle_open(&mut self, _: Listener, _: SocketAddr, _: Now) -> ConnId {
        self.calls.push(Call::Open(OWN));
        OWN
    }
    fn handle_resolved(&mut self, on: ConnId, _: &[SocketAddr], _: Now) {
        self.calls.push(Call::Resolved(on));
    }
    fn handle_connected(&mut self, on: ConnId, _: Now) {
        self.calls.push(Call::Connected(on));
    }
    fn handle_dial_failed(&mut self, on: ConnId, _: DialFailure, _: Now) {
        self.calls.push(Call::DialFailed(on));
    }
    fn handle_secured(&mut self, on: ConnId, _: Secured, _: Now) {
        self.calls.push(Call::Secured(on));
    }
    fn handle_tls_failed(&mut self, on: ConnId, _: TlsFailure, _: Now) {
        self.calls.push(Call::TlsFailed(on));
    }
    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], _: Now) -> usize {
        self.calls.push(Call::Bytes(on, bytes.len()));
        bytes.len() / 2
    }
    fn handle_moved(&mut self, from: ConnId, _: u32, _: u32, _: Now) {
        self.calls.push(Call::Moved(from));
    }
    fn handle_flushed(&mut self, on: ConnId, _: Now) {
        self.calls.push(Call::Flushed(on));
    }
    fn handle_acked(&mut self, on: ConnId, _: Option<Span>, _: Now) {
        self.calls.push(Call::Acked(on));
    }
    fn handle_local_address(&mut self, on: ConnId, _: SocketAddr, _: Now) {
        self.calls.push(Call::LocalAddress(on));
    }
    fn handle_end(&mut self, on: ConnId, _: End, _: Now) {
        self.calls.push(Call::End(on));
    }
    fn handle_write_failed(&mut self, on: ConnId, _: Now) {
        self.calls.push(Call::WriteFailed(on));
    }
    fn handle_stalled(&mut self, on: ConnId, _: Now) {
        self.calls.push(Call::Stalled(on));
    }
    fn owners(&self, _: ConnId) -> Owners {
        Owners::default()
    }
    fn handle_closed(&mut self, on: ConnId, _: Now) {
        self.calls.push(Call::Closed(on));
    }
    fn handle_timeout(&mut self, _: Now) {
        self.calls.push(Call::Timeout);
    }
    fn poll_output(&mut self, _: &mut Vec<u8>) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Idle { until: None, why: "nothing" })
    }
}

impl IqHandler for Puppet {
    fn handle_iq(&mut self, iq: Iq, _: Now) {
        self.calls.push(Call::Iq(iq));
    }
    fn handle_online(&mut self, _: Now) {
        self.calls.push(Call::Online);
    }
    fn handle_offline(&mut self, _: Now) {
        self.calls.push(Call::Offline);
    }
    fn handle_drain(&mut self, _: Now) {
        self.calls.push(Call::Drain);
    }
    fn poll_iq(&mut self) -> Option<Iq> {
        self.iqs.pop_front()
    }
    fn is_done(&self) -> bool {
        self.is_done
    }
}

/// An output; bytes as text.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Message(ConnId, String),
    Other(Output),
}

struct Stage {
    it: ComponentHost<Puppet>,
    now: Now,
    events: Vec<ComponentEvent>,
}

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server(generation: u32) -> ConnId {
    ConnId { index: 0, generation }
}

fn outside(on: ConnId) -> ConnId {
    ConnId { index: on.index + 1, ..on }
}

impl Stage {
    fn new() -> Self {
        Self::at(Host::Address(to("192.0.2.1:1").ip()))
    }

    fn at(host: Host) -> Self {
        let now = Now { mono: Time(1_000_000), wall: 0 };
        let config = Config {
            server: HostPort { host, port: 5347 },
            name: jid("proxy.localhost"),
            secret: Secret::new(b"test"),
        };
        Self { it: ComponentHost::new(config, Puppet::default(), [7; 32], now), now, events: Vec::new() }
    }

    fn actions(&mut self) -> Vec<Asked> {
        let mut actions = Vec::new();
        loop {
            let mut text = Vec::new();
            match self.it.poll_output(&mut text) {
                Output::Idle { .. } => return actions,
                Output::Send { to, .. } => actions.push(Asked::Message(to, String::from_utf8(text).unwrap())),
                Output::Event(Event::Component(event)) => self.events.push(event),
                output => actions.push(Asked::Other(output)),
            }
        }
    }

    fn until(&mut self) -> Option<Time> {
        match self.it.poll_output(&mut Vec::new()) {
            Output::Idle { until, .. } => until,
            output => panic!("{output:?} was not asked for"),
        }
    }

    fn calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.it.inner_mut().calls)
    }

    fn events(&mut self) -> Vec<ComponentEvent> {
        std::mem::take(&mut self.events)
    }

    fn receive(&mut self, on: ConnId, text: &str) -> Vec<Asked> {
        assert_eq!(self.it.handle_bytes(on, text.as_bytes(), self.now), text.len());
        self.actions()
    }

    fn sleep(&mut self, span: Span) -> Vec<Asked> {
        self.now.mono = self.now.mono + span;
        self.it.handle_timeout(self.now);
        self.actions()
    }

    /// Sleeps until the next output. Returns how long that was. A stale deadline wakes as well.
    fn wake(&mut self) -> (Span, Vec<Asked>) {
        let start = self.now.mono;
        loop {
            let until = self.until().expect("a deadline");
            let actions = self.sleep(until.since(self.now.mono));
            if !actions.is_empty() {
                return (self.now.mono.since(start), actions);
            }
        }
    }

    /// The connection of this generation is established, and the server has accepted us.
    fn up(&mut self, generation: u32) -> ConnId {
        let on = server(generation);
        assert!(
            matches!(self.actions()[..], [Asked::Other(Output::Dial { on: dialled, .. })] if dialled == on)
        );
        self.greet(on);
        on
    }

    fn greet(&mut self, on: ConnId) {
        self.it.handle_connected(on, self.now);
        assert!(
            matches!(&self.actions()[..], [Asked::Message(_, header)] if header.ends_with("to='proxy.localhost'>"))
        );
        assert!(
            matches!(&self.receive(on, HEADER)[..], [Asked::Message(_, sent)] if sent.starts_with("<handshake>"))
        );
        let after = Some(Span::from_secs(60));
        assert_eq!(self.receive(on, "<handshake/>"), [Asked::Other(Output::UserTimeout { on, after })]);
        self.it.handle_flushed(on, self.now);
        assert!(self.it.is_up());
        assert_eq!(self.events(), [ComponentEvent::Up]);
        assert_eq!(self.calls().last(), Some(&Call::Online));
    }

    /// The connection is reset. Returns the events.
    fn reset(&mut self, on: ConnId) -> Vec<ComponentEvent> {
        self.it.handle_end(on, End::Reset, self.now);
        assert_eq!(self.actions(), [close(on, Close::Abort)]);
        self.it.handle_closed(on, self.now);
        assert!(!self.it.is_up());
        self.events()
    }
}

fn close(on: ConnId, how: Close) -> Asked {
    Asked::Other(Output::Close { on, how })
}

fn question(id: u32) -> Iq {
    iq(&format!("<iq type='get' from='proxy.localhost' to='b' id='{id}'/>"))
}

fn again(events: &[ComponentEvent], why: Loss) -> Span {
    match events {
        [ComponentEvent::Down { why: sent, again }] if *sent == why => *again,
        _ => panic!("{events:?}"),
    }
}

#[test]
fn iqs_go_in_and_out() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    let text = "<iq type='set' from='a@b/c' to='x@proxy.localhost' id='1'><query xmlns='n'/></iq>";
    assert_eq!(stage.receive(on, text), []);
    assert_eq!(stage.calls(), [Call::Iq(iq(text))]);
    stage.it.inner_mut().iqs.extend([question(1), question(2)]);
    let both = written(&question(1)) + &written(&question(2));
    assert_eq!(stage.actions(), [Asked::Message(on, both)]);
}

#[test]
fn one_batch_is_on_its_way_at_a_time() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    stage.it.inner_mut().iqs.push_back(question(1));
    assert_eq!(stage.actions().len(), 1);
    stage.it.inner_mut().iqs.push_back(question(2));
    assert_eq!(stage.actions(), []);
    stage.it.handle_flushed(on, stage.now);
    assert_eq!(stage.actions(), [Asked::Message(on, written(&question(2)))]);
}

#[test]
fn iqs_wait_for_the_server_within_bounds_and_go_out_in_their_order() {
    let mut stage = Stage::new();
    let each = written(&question(100_000)).len();
    let most = QUEUE_BYTES_MAX / each;
    let ids = 100_000..100_000 + u32::try_from(most).unwrap() + 3;
    stage.it.inner_mut().iqs.extend(ids.map(question));
    assert!(matches!(stage.actions()[..], [Asked::Other(Output::Dial { .. })]));
    assert_eq!(stage.events(), [ComponentEvent::Full]);
    let on = server(1);
    stage.it.handle_connected(on, stage.now);
    stage.actions();
    stage.receive(on, HEADER);
    let actions = stage.receive(on, "<handshake/>");
    let [Asked::Other(Output::UserTimeout { .. }), Asked::Message(_, text)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(text.len(), most * each);
    assert!(text.starts_with(&written(&question(100_000))));
}

#[test]
fn connections_of_the_machine_inside_keep_their_own_ids() {
    let mut stage = Stage::new();
    let _ = stage.actions();
    let (it, now) = (&mut stage.it, stage.now);
    let on = it.handle_open(Listener(0), to("192.0.2.7:7"), now);
    assert_eq!(on, outside(OWN));
    it.handle_resolved(on, &[to("192.0.2.7:7")], now);
    it.handle_connected(on, now);
    it.handle_dial_failed(on, DialFailure::Refused, now);
    it.handle_secured(on, Secured::default(), now);
    it.handle_tls_failed(on, TlsFailure::Ended, now);
    assert_eq!(it.handle_bytes(on, b"1234", now), 2, "what was not consumed is offered again");
    it.handle_moved(on, 1, 1, now);
    it.handle_flushed(on, now);
    it.handle_acked(on, None, now);
    it.handle_local_address(on, to("192.0.2.7:7"), now);
    it.handle_end(on, End::Clean, now);
    it.handle_write_failed(on, now);
    it.handle_stalled(on, now);
    it.handle_closed(on, now);
    assert_eq!(
        stage.calls(),
        [
            Call::Open(OWN),
            Call::Resolved(OWN),
            Call::Connected(OWN),
            Call::DialFailed(OWN),
            Call::Secured(OWN),
            Call::TlsFailed(OWN),
            Call::Bytes(OWN, 4),
            Call::Moved(OWN),
            Call::Flushed(OWN),
            Call::Acked(OWN),
            Call::LocalAddress(OWN),
            Call::End(OWN),
            Call::WriteFailed(OWN),
            Call::Stalled(OWN),
            Call::Closed(OWN),
        ]
    );
}

#[test]
fn what_the_machine_inside_asks_for_is_of_its_own_connections() {
    let mut stage = Stage::new();
    let _ = stage.actions();
    let other = ConnId { index: 0, generation: 3 };
    let asked = |on: ConnId, other: ConnId| {
        vec![
            Output::Send { to: on, len: 0 },
            Output::Read { on, wanted: true },
            Output::Pair { hidden: on, client: other },
            Output::Gate { on },
            Output::Pass { from: on, bytes: 7 },
            Output::StartTls { on, role: TlsRole::Server },
            Output::Resolve { on, host: "x".to_owned(), port: 1 },
            Output::Dial { on, to: to("192.0.2.1:1") },
            Output::UserTimeout { on, after: None },
            Output::CheckAck { on },
            Output::LocalAddress { on },
            Output::CloseWrite { on },
            Output::Close { on, how: Close::Linger },
        ]
    };
    stage.it.inner_mut().outputs.extend(asked(OWN, other));
    let wanted = asked(outside(OWN), outside(other)).into_iter().map(|output| match output {
        Output::Send { to, .. } => Asked::Message(to, String::new()),
        output => Asked::Other(output),
    });
    assert_eq!(stage.actions(), wanted.collect::<Vec<_>>());
}

#[test]
fn a_ping_and_a_question_what_it_understands_are_answered() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    let ask =
        |payload: &str| format!("<iq type='get' from='a@b/c' to='x@proxy.localhost' id='1'>{payload}</iq>");
    let answers = |stage: &mut Stage, payload: &str| {
        let sent = stage.receive(on, &ask(payload));
        stage.it.handle_flushed(on, stage.now);
        assert_eq!(stage.calls(), [], "the machine inside does not get it");
        let [Asked::Message(_, text)] = &sent[..] else { panic!("{sent:?}") };
        text.clone()
    };
    let ping = answers(&mut stage, "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(ping, "<iq type='result' from='x@proxy.localhost' to='a@b/c' id='1'/>");
    let info = answers(&mut stage, "<query xmlns='http://jabber.org/protocol/disco#info'/>");
    assert!(info.contains("<identity category='component' type='generic' name='rendezvous'/>"), "{info}");
    for feature in ["http://jabber.org/protocol/disco#info", "urn:xmpp:ping"] {
        assert!(info.contains(&format!("<feature var='{feature}'/>")), "{info}");
    }
    let node = answers(&mut stage, "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>");
    assert!(node.contains("<item-not-found "), "{node}");
}

#[test]
fn what_is_for_another_component_is_reported_and_dropped() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    stage.events();
    for total in 1..=3 {
        let text = "<iq type='set' from='a@b/c' to='x@other.localhost/R' id='1'><query xmlns='n'/></iq>";
        assert_eq!(stage.receive(on, text), []);
        assert_eq!(stage.calls(), []);
        let events = stage.events();
        if total < 3 {
            assert!(
                matches!(events[..], [ComponentEvent::Misrouted { total: it, .. }] if it == total),
                "{events:?}"
            );
        } else {
            assert_eq!(events, []);
        }
    }
}
