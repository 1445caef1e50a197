//! JIDs.

use rendezvous_core::entropy::Entropy;
use rendezvous_core::xmpp::jid::{IqId, Jid};

#[test]
fn account_and_domain_are_in_lower_case_and_the_resource_is_as_it_is() {
    let jid = Jid::parse("Joe@Example.ORG/Home/@Work").unwrap();
    assert_eq!(jid.as_str(), "joe@example.org/Home/@Work");
    assert_eq!((jid.bare(), jid.domain()), ("joe@example.org", "example.org"));
    assert_eq!(Jid::parse("proxy.localhost").unwrap().domain(), "proxy.localhost");
    assert_eq!(Jid::parse("JÜRGEN@x").unwrap().as_str(), "jÜrgen@x");
}

#[test]
fn what_is_no_jid_is_refused() {
    let long = "x".repeat(1024);
    let long = [format!("{long}@x"), format!("x@{long}"), format!("x@y/{long}")];
    let odd = ["", "@x", "x@", "x/", "/x", "x@y@z", "x y@z", "x@y z", "x@y/\n", "\u{0}", "x@/y"];
    for text in odd.into_iter().chain(long.iter().map(String::as_str)) {
        assert_eq!(Jid::parse(text), None, "{text:?}");
    }
    let part = "x".repeat(1023);
    assert!(Jid::parse(&format!("{part}@{part}/{part}")).is_some());
}

#[test]
fn ids_are_bounded_and_ours_are_random() {
    assert!(IqId::new(&"x".repeat(256)).is_some());
    assert_eq!(IqId::new(&"x".repeat(257)), None);
    let mut entropy = Entropy::new([7; 32]);
    let [one, other] = [(); 2].map(|()| IqId::random(&mut entropy));
    assert_ne!(one, other);
    assert_eq!(one.as_str().len(), 32);
}
