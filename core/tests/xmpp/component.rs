//! The handshake with a server, as Prosody and ejabberd do it.

use rendezvous_core::xmpp::component::{Action, Component, Loss, Secret};
use rendezvous_core::xmpp::condition::StreamCondition;

use super::HEADER;

fn begin() -> Component {
    let (component, header) = Component::begin("proxy.localhost", Secret::new(b"test"));
    let wanted = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
        xmlns:stream='http://etherx.jabber.org/streams' to='proxy.localhost'>";
    assert_eq!(String::from_utf8(header).unwrap(), wanted);
    component
}

fn receive(component: &mut Component, text: &str) -> Vec<Action> {
    let mut bytes = text.as_bytes();
    let mut actions = Vec::new();
    while let Some(next) = component.read(&mut bytes) {
        actions.push(next);
    }
    assert!(bytes.is_empty(), "octets are left");
    actions
}

fn up() -> Component {
    let mut component = begin();
    assert!(matches!(receive(&mut component, HEADER)[..], [Action::Say(_)]));
    assert!(!component.is_up());
    assert_eq!(receive(&mut component, "<handshake/>"), [Action::Up]);
    assert!(component.is_up());
    component
}

fn over(component: &mut Component, text: &str) -> Loss {
    let actions = receive(component, text);
    let [Action::Close { why, say }] = &actions[..] else { panic!("{actions:?}") };
    assert!(say.ends_with(b"</stream:stream>"));
    assert!(!component.is_up());
    assert_eq!(receive(component, "<iq type='get' from='a' to='b'/>"), []);
    *why
}

/// printf 3BF96D32test | sha1sum
#[test]
fn the_handshake_is_the_sum_of_id_and_secret_in_lower_case() {
    let actions = receive(&mut begin(), HEADER);
    let expected = b"<handshake>aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e</handshake>".to_vec();
    let [Action::Say(bytes)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(String::from_utf8_lossy(bytes), String::from_utf8_lossy(&expected));
}

/// printf '%s' 'a&btest' | sha1sum
#[test]
fn the_id_is_unescaped_before_it_is_hashed() {
    let actions = receive(&mut begin(), &HEADER.replace("3BF96D32", "a&amp;b"));
    let [Action::Say(bytes)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(
        String::from_utf8_lossy(bytes),
        "<handshake>42aadcd1ad4664955ff23936ea95a10f9d9189d6</handshake>"
    );
}

#[test]
fn iqs_are_handed_on_and_other_stanzas_ignored() {
    let mut component = up();
    let actions = receive(
        &mut component,
        " <message from='a' to='b'/><iq/><iq type='get' from='a' to='b'/> <presence/>",
    );
    assert!(matches!(&actions[..], [Action::Iq(iq)] if iq.id.is_none()), "{actions:?}");
}

/// A stanza of 17,000 bytes.
fn excess(start: &str, name: &str) -> String {
    format!("<{name} {start}><body>{}</body></{name}>", "x".repeat(17_000))
}

#[test]
fn a_stanza_that_is_too_much_is_skipped_and_answered_if_it_is_a_question() {
    let mut component = up();
    let question = "type='get' from='Joe@x/1' to='proxy.localhost' id='7'";
    let actions = receive(&mut component, &(excess(question, "iq") + "<iq type='get' from='a' to='b'/>"));
    let [Action::Excess(Some(answer)), Action::Iq(_)] = &actions[..] else { panic!("{actions:?}") };
    let text = super::written(answer);
    let start = "<iq type='error' from='proxy.localhost' to='Joe@x/1' id='7'>\
        <error code='406' type='modify'><policy-violation ";
    assert!(text.starts_with(start), "{text}");
    for (start, name) in [
        ("from='a@x/1' to='b'", "message"),
        ("type='result' from='a@x/1' to='b' id='7'", "iq"),
        ("type='error' from='a@x/1' to='b' id='7'", "iq"),
        ("type='set' to='b' id='7'", "iq"),
        ("type='set' from='a@x/1' to='@' id='7'", "iq"),
    ] {
        assert_eq!(receive(&mut component, &excess(start, name)), [Action::Excess(None)], "{start}");
    }
    let long = format!("<iq type='get' from='a' to='b' a='{}'><query/></iq>", "x".repeat(17_000));
    assert_eq!(receive(&mut component, &long), [Action::Excess(None)], "it did not say so in time");
    assert!(component.is_up());
}

#[test]
fn the_longest_jid_is_read() {
    let account = "ü".repeat(511) + "x";
    let from = format!("{account}@{}/{}", "d".repeat(1023), "&quot;".repeat(1023));
    let actions = receive(&mut up(), &format!("<iq type='get' from='{from}' to='b' id='1'/>"));
    let [Action::Iq(iq)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(iq.from.as_str(), from.replace("&quot;", "\""));
    let presence = format!("<presence from='a@b/{}' to='c'/>", "r".repeat(1023));
    assert_eq!(receive(&mut up(), &presence), [], "ignored, and the stream goes on");
}

#[test]
fn before_the_handshake_nothing_is_handed_on() {
    let mut component = begin();
    receive(&mut component, HEADER);
    assert_eq!(receive(&mut component, "<iq type='get' from='a' to='b'/>"), []);
    // Prosody's answer to a wrong namespace.
    assert_eq!(receive(&mut component, "<handshake type='error' to='x'/>"), []);
    assert!(!component.is_up());
}

#[test]
fn a_wrong_secret_is_said() {
    let mut component = begin();
    receive(&mut component, HEADER);
    let text = "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
        <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>Given token does not match</text></stream:error></stream:stream>";
    assert_eq!(over(&mut component, text), Loss::Refused(StreamCondition::NotAuthorized));
}

#[test]
fn an_unknown_name_is_said_behind_a_header_without_an_id() {
    let mut component = begin();
    let header =
        HEADER.replace("id='3BF96D32'", "id='' version='1.0'").replace(" from='proxy.localhost'", "");
    assert_eq!(receive(&mut component, &header), []);
    let text = "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    assert_eq!(over(&mut component, text), Loss::Refused(StreamCondition::HostUnknown));
}

#[test]
fn the_end_of_the_stream_and_nonsense_are_told_apart() {
    assert_eq!(over(&mut up(), "</stream:stream>"), Loss::Closed);
    assert_eq!(over(&mut up(), "</iq>"), Loss::Malformed(StreamCondition::NotWellFormed));
    let actions = receive(&mut up(), "<a><!-- -->");
    let [Action::Close { say, .. }] = &actions[..] else { panic!("{actions:?}") };
    let expected = "<stream:error><restricted-xml xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";
    assert_eq!(String::from_utf8_lossy(say), expected);
    let odd = "<stream:error><odd xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    assert_eq!(over(&mut up(), odd), Loss::Refused(StreamCondition::Undefined));
}

#[test]
fn the_secret_is_not_shown() {
    assert!(!format!("{:?}", up()).contains("test"));
    assert_eq!(format!("{:?}", Secret::new(b"test")), "Secret(…)");
    assert_eq!(format!("{:?}", receive(&mut begin(), HEADER)), "[Say((63 bytes))]");
}
