//! DTCP's IQs, to the letter of XEP-0046. A test of the case docs/dtcp.md §6.N has `case_N` in its name.

use rendezvous_core::dtcp::negotiation::Refusal;
use rendezvous_core::dtcp::xmpp::{Message, answer, give_up, read, refusal, request};
use rendezvous_core::dtcp::{Key, KeyError, Offer};
use rendezvous_core::xmpp::condition::Condition;

use super::{id, iq, jid, written};

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

fn offer(text: &str, hosts: &[&str]) -> Offer {
    Offer { key: key(text), hosts: hosts.iter().map(|it| (*it).to_owned()).collect(), fingerprint: None }
}

/// The contents of an IQ with this in its query.
fn set(query: &str) -> Option<Message> {
    read(&iq(&format!(
        "<iq type='set' id='1' from='a@x/y' to='b@z'><query xmlns='http://jabber.org/protocol/dtcp'>{query}</query></iq>"
    )))
}

#[test]
fn the_request_of_the_seed_is_read_and_written() {
    let ours = offer("c7b5ea3f", &["192.168.0.32:8000", "63.110.44.12:8000"]);
    let it = request(&jid("me@x/a"), &jid("joe@x/Home"), id("dtcp_1"), &ours);
    assert_eq!(
        written(&it),
        "<iq type='set' from='me@x/a' to='joe@x/Home' id='dtcp_1'><query xmlns='http://jabber.org/protocol/dtcp'>\
         <key>c7b5ea3f</key><host>192.168.0.32:8000</host><host>63.110.44.12:8000</host></query></iq>"
    );
    assert_eq!(read(&iq(&written(&it))), Some(Message::Request(Ok(ours))));
}

#[test]
fn the_answer_of_the_seed_is_read_and_written() {
    let ours = offer("a1b2c3d4", &["192.168.0.33:8000"]);
    let it = answer(&jid("joe@x/Home"), &jid("me@x/a"), Some(id("dtcp_1")), &ours);
    assert_eq!(
        written(&it),
        "<iq type='result' from='joe@x/Home' to='me@x/a' id='dtcp_1'><query xmlns='http://jabber.org/protocol/dtcp'>\
         <key>a1b2c3d4</key><host>192.168.0.33:8000</host></query></iq>"
    );
    assert_eq!(read(&iq(&written(&it))), Some(Message::Answer(Ok(ours))));
}

#[test]
fn the_refusal_of_the_seed_is_read() {
    let it = iq(
        "<iq type='error' id='dtcp_1' from='joe@x/Home' to='me@x/a'><error code='501'>DTCP not supported</error></iq>",
    );
    let Some(Message::Error { error, key: None }) = read(&it) else { panic!("{:?}", read(&it)) };
    assert_eq!((error.condition, &*error.text), (Condition::FeatureNotImplemented, "DTCP not supported"));
}

#[test]
fn case_5_only_three_hosts_are_kept_usable_or_not() {
    let hosts = "<key>k</key><host>nonsense</host><host>1:1</host><host/><host>2:2</host>";
    assert_eq!(set(hosts), Some(Message::Request(Ok(offer("k", &["nonsense", "1:1", ""])))));
}

#[test]
fn case_12_and_13_a_give_up_is_read_with_an_id_and_without() {
    for id in ["", "id='g1'", "id=''"] {
        for code in ["503", "502", "500"] {
            let it = iq(&format!(
                "<iq type='error' {id} from='a@x/y' to='b@z'><query xmlns='http://jabber.org/protocol/dtcp'>\
                 <key>a1b2c3d4</key></query><error code='{code}'>Could not connect to any of the hosts.</error></iq>"
            ));
            let query = read(&it);
            assert!(
                matches!(&query, Some(Message::Error { key: Some(key), .. }) if key.is(b"a1b2c3d4")),
                "{query:?}"
            );
        }
    }
}

#[test]
fn case_13_a_give_up_is_written_with_an_id_and_in_both_forms() {
    let it = give_up(&jid("me@x/a"), &jid("joe@x/Home"), id("g1"), &key("a1b2c3d4"));
    assert_eq!(
        written(&it),
        "<iq type='error' from='me@x/a' to='joe@x/Home' id='g1'><query xmlns='http://jabber.org/protocol/dtcp'>\
         <key>a1b2c3d4</key></query><error code='503' type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>Could not connect to any of the hosts.</text></error></iq>"
    );
    let query = read(&iq(&written(&it)));
    assert!(
        matches!(&query, Some(Message::Error { key: Some(key), .. }) if key.is(b"a1b2c3d4")),
        "{query:?}"
    );
}

#[test]
fn the_key_of_a_give_up_is_not_shown_and_what_can_be_none_is_none() {
    let give_up = |key: &str| {
        iq(&format!(
            "<iq type='error' from='a@x/y' to='b@z'><query xmlns='http://jabber.org/protocol/dtcp'>\
             <key>{key}</key></query><error code='503'/></iq>"
        ))
    };
    let shown = format!("{:?}", read(&give_up("a1b2c3d4")));
    assert!(shown.contains("key: Some(Key(…))"), "{shown}");
    for odd in ["", "a&#10;b", &"x".repeat(256)] {
        assert!(matches!(read(&give_up(odd)), Some(Message::Error { key: None, .. })), "{odd}");
    }
}

#[test]
fn case_15_and_38_each_refusal_has_its_number() {
    let codes = [Refusal::Unreachable, Refusal::Conflict, Refusal::Busy].map(|why| refusal(why).0.code());
    assert_eq!(codes, [503, 409, 500]);
}

#[test]
fn case_16_an_answer_without_a_key_is_no_answer() {
    for inner in
        ["", "<query xmlns='http://jabber.org/protocol/dtcp'/>", "<query xmlns='other'><key>k</key></query>"]
    {
        let it = iq(&format!("<iq type='result' id='1' from='a' to='b'>{inner}</iq>"));
        assert_eq!(read(&it), Some(Message::Answer(Err(KeyError))), "{inner}");
    }
}

#[test]
fn case_20_a_key_has_1_to_255_bytes_that_a_line_can_carry() {
    let long = "x".repeat(255);
    assert_eq!(set(&format!("<key>{long}</key>")), Some(Message::Request(Ok(offer(&long, &[])))));
    let odd = ["", "<key/>", "<key>a&#10;b</key>", "<key>a&#13;b</key>", "<key xmlns='other'>k</key>"];
    let odd = odd.map(str::to_owned).into_iter().chain([format!("<key>{}</key>", "x".repeat(256))]);
    for query in odd {
        assert_eq!(set(&query), Some(Message::Request(Err(KeyError))), "{query}");
    }
    assert_eq!(
        set("<key> a:b ü&lt;</key>"),
        Some(Message::Request(Ok(offer(" a:b ü<", &[])))),
        "nothing is trimmed"
    );
}

#[test]
fn what_is_not_about_dtcp_is_not_read() {
    assert_eq!(read(&iq("<iq type='set' from='a' to='b'><query xmlns='whoknows'/></iq>")), None);
    assert_eq!(read(&iq("<iq type='set' from='a' to='b'/>")), None);
    let get = "<iq type='get' from='a' to='b'><query xmlns='http://jabber.org/protocol/dtcp'/></iq>";
    assert_eq!(read(&iq(get)), None);
}
