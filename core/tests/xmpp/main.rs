//! XMPP: streams, IQs, the component's side of XEP-0114, a machine behind one, and the stanzas of DTCP and of the
//! stream proxy.

#![cfg(feature = "xmpp")]

mod bytestream;
mod component;
mod component_host;
mod dtcp;
mod iq;
mod jid;
mod stream;

use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::iq::Iq;
use rendezvous_core::xmpp::jid::{IqId, Jid};
use rendezvous_core::xmpp::stream::{Part, Stream};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
    xml:lang='en' xmlns='jabber:component:accept' from='proxy.localhost' id='3BF96D32'>";

fn jid(text: &str) -> Jid {
    Jid::parse(text).unwrap_or_else(|| panic!("{text} is no JID"))
}

fn id(text: &str) -> IqId {
    IqId::new(text).unwrap()
}

/// One stanza as a server sends it.
fn stanza(text: &str) -> Element {
    let mut stream = Stream::new();
    let mut bytes = HEADER.as_bytes();
    assert!(matches!(stream.read(&mut bytes), Ok(Some(Part::Header(_)))));
    let mut bytes = text.as_bytes();
    match stream.read(&mut bytes) {
        Ok(Some(Part::Stanza(stanza))) => stanza,
        other => panic!("{other:?} of {text}"),
    }
}

fn iq(text: &str) -> Iq {
    Iq::read(&stanza(text)).unwrap_or_else(|| panic!("no IQ: {text}"))
}

fn written(iq: &Iq) -> String {
    let mut out = Vec::new();
    iq.write(&mut out);
    String::from_utf8(out).unwrap()
}
