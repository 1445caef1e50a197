//! A stream of XML, and the IQs in it.

use rendezvous_core::bytestream::xmpp as bytestream;
use rendezvous_core::dtcp::xmpp as dtcp;
use rendezvous_core::xmpp::condition::StreamCondition;
use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::iq::Iq;
use rendezvous_core::xmpp::stream::{DEPTH_MAX, Part, STANZA_BYTES_MAX, Stream};

const HEADER: &[u8] = b"<stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' id='1'>";

type Read = (Vec<Part>, Option<StreamCondition>);

pub(crate) fn run(bytes: &[u8]) {
    read(bytes);
    let (parts, _) = read(&[HEADER, bytes].concat());
    for part in &parts[1.min(parts.len())..] {
        if let Part::Stanza(stanza) = part {
            assert!(depth(stanza) < DEPTH_MAX);
            rewrite(stanza);
            if let Some(iq) = Iq::read(stanza) {
                understand(&iq);
            }
        }
    }
}

/// The same however it is cut.
fn read(bytes: &[u8]) -> Read {
    let whole = pieces(bytes, bytes.len().max(1));
    for cut in [1, 2, 3, 7, 64, 1000] {
        assert_eq!(pieces(bytes, cut), whole, "in pieces of {cut}");
    }
    whole
}

fn pieces(bytes: &[u8], cut: usize) -> Read {
    let mut stream = Stream::new();
    let mut parts = Vec::new();
    for piece in bytes.chunks(cut) {
        let mut piece = piece;
        loop {
            match stream.read(&mut piece) {
                Ok(Some(part)) => {
                    assert_eq!(matches!(part, Part::Header(_)), parts.is_empty(), "the header comes first");
                    parts.push(part);
                }
                Ok(None) => break assert!(piece.is_empty(), "bytes are left"),
                Err(condition) => return (parts, Some(condition)),
            }
        }
    }
    (parts, None)
}

fn depth(element: &Element) -> usize {
    1 + element.children().iter().map(depth).max().unwrap_or(0)
}

/// What is written parses, unless references made it longer than a stanza may be.
fn rewrite(stanza: &Element) {
    let mut bytes = HEADER.to_vec();
    stanza.write("jabber:component:accept", &mut bytes);
    let (parts, condition) = pieces(&bytes, bytes.len());
    assert_eq!(condition, None, "{}", bytes.escape_ascii());
    match &parts[1..] {
        [Part::Stanza(again)] => assert_eq!(again, stanza),
        [Part::Excess(_)] => assert!(bytes.len() - HEADER.len() > STANZA_BYTES_MAX),
        _ => panic!("{parts:?}"),
    }
}

fn understand(iq: &Iq) {
    let mut bytes = HEADER.to_vec();
    iq.write(&mut bytes);
    let (parts, _) = pieces(&bytes, bytes.len());
    if let [_, Part::Stanza(stanza)] = &parts[..] {
        let again = Iq::read(stanza).expect("an IQ that was one");
        // Parts of an error that are not parsed are not written either.
        assert_eq!(
            (&again.from, &again.to, &again.id, &again.payload, again.is_request()),
            (&iq.from, &iq.to, &iq.id, &iq.payload, iq.is_request())
        );
    }
    assert_eq!(iq.not_understood().is_some(), iq.is_request(), "answers are never answered");
    if let Some(dtcp::Message::Request(Ok(offer)) | dtcp::Message::Answer(Ok(offer))) = dtcp::read(iq) {
        let id = iq.id.clone();
        let answer = dtcp::answer(&iq.from, &iq.to, id, &offer);
        assert_eq!(dtcp::read(&answer), Some(dtcp::Message::Answer(Ok(offer))));
    }
    if let Some(stanza) = bytestream::read(iq, bytestream::NAMESPACE) {
        let written = bytestream::write(&stanza, &iq.from, bytestream::NAMESPACE);
        let again = bytestream::read(&written, bytestream::NAMESPACE).expect("a stanza that was one");
        assert_eq!(again.id, stanza.id);
    }
}
