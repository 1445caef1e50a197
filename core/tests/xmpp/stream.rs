//! Octets to stanzas, however they are cut; and what is refused.

use rendezvous_core::xmpp::condition::StreamCondition;
use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::stream::{DEPTH_MAX, Part, STANZA_OCTETS_MAX, Stream, TOKEN_OCTETS_MAX};

use super::HEADER;

/// Everything that comes of these octets, given in pieces of `cut`.
fn parts(octets: &[u8], cut: usize) -> (Vec<Part>, Option<StreamCondition>) {
    let mut stream = Stream::new();
    let mut parts = Vec::new();
    for piece in octets.chunks(cut) {
        let mut piece = piece;
        loop {
            match stream.read(&mut piece) {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => break assert!(piece.is_empty(), "octets are left"),
                Err(condition) => {
                    assert_eq!(stream.read(&mut piece), Err(condition), "an error stays");
                    return (parts, Some(condition));
                }
            }
        }
    }
    (parts, None)
}

fn all(text: &str) -> (Vec<Part>, Option<StreamCondition>) {
    let whole = parts(text.as_bytes(), text.len());
    for cut in 1..text.len().min(200) {
        assert_eq!(parts(text.as_bytes(), cut), whole, "in pieces of {cut}");
    }
    whole
}

fn refused(behind_header: &str) -> StreamCondition {
    let (parts, condition) = all(&[HEADER, behind_header].concat());
    assert_eq!(parts.len(), 1, "the header, and nothing else of {behind_header}");
    condition.unwrap_or_else(|| panic!("not refused: {behind_header}"))
}

#[test]
fn a_stream_is_the_same_however_it_is_cut() {
    let text = [
        HEADER,
        "<handshake/>\n \t<iq type='set' id='a&amp;b' to=\"x@y/z\"><query xmlns='n' a='&#60;ü&#x1F4A9;'><key>k&lt;\
         <![CDATA[<raw>]]>ü</key><p:host xmlns:p='q'/></query></iq> <presence/></stream:stream>",
    ]
    .concat();
    let (parts, condition) = all(&text);
    assert_eq!(condition, None);
    let [Part::Header(header), Part::Stanza(handshake), Part::Stanza(iq), Part::Stanza(_), Part::End] =
        &parts[..]
    else {
        panic!("{parts:?}")
    };
    assert_eq!(header.attribute("id"), Some("3BF96D32"));
    assert_eq!(header.attribute("lang"), None);
    assert!(handshake.is("jabber:component:accept", "handshake"));
    assert_eq!(iq.attribute("id"), Some("a&b"));
    let query = &iq.children()[0];
    assert!(query.is("n", "query"));
    assert_eq!(query.attribute("a"), Some("<ü💩"));
    assert_eq!(query.each("key").next().unwrap().text(), "k<<raw>ü");
    assert_eq!(query.each("host").count(), 0, "of another namespace");
    assert!(query.children()[1].is("q", "host"));
}

#[test]
fn nothing_is_read_behind_the_end() {
    let text = [HEADER, "</stream:stream><iq/>"].concat();
    assert!(matches!(&all(&text), (parts, None) if matches!(parts[..], [Part::Header(_), Part::End])));
}

#[test]
fn another_root_is_refused() {
    let (parts, condition) = all("<stream:stream xmlns:stream='jabber:client'>");
    assert_eq!((parts, condition), (vec![], Some(StreamCondition::InvalidNamespace)));
}

#[test]
fn what_xmpp_does_not_have_is_refused() {
    for text in ["<!-- -->", "<?php ?>", "<!DOCTYPE a [<!ENTITY x 'y'>]>"] {
        let condition = refused(text);
        let known = [StreamCondition::RestrictedXml, StreamCondition::NotWellFormed];
        assert!(known.contains(&condition), "{condition:?} of {text}");
    }
    for text in
        ["<a>&x;</a>", "<a>\u{1}</a>", "<a></b>", "<a b='1' b='2'/>", "<a b='<'/>", "<p:a/>", "<a>]]></a>"]
    {
        assert_eq!(refused(text), StreamCondition::NotWellFormed, "{text}");
    }
    assert_eq!(
        parts(&[HEADER.as_bytes(), b"<a>\xff</a>"].concat(), 7).1,
        Some(StreamCondition::NotWellFormed)
    );
}

#[test]
fn text_between_stanzas_is_refused_unless_it_is_white_space() {
    assert_eq!(refused("  hello <iq/>"), StreamCondition::BadFormat);
}

#[test]
fn white_space_for_years_is_no_stanza() {
    let mut stream = Stream::new();
    assert!(stream.read(&mut HEADER.as_bytes()).unwrap().is_some());
    for _ in 0..4 * STANZA_OCTETS_MAX {
        assert_eq!(stream.read(&mut &b" "[..]), Ok(None));
    }
    assert!(matches!(stream.read(&mut &b"<iq/>"[..]), Ok(Some(Part::Stanza(_)))));
}

#[test]
fn a_stanza_has_sixteen_kib_at_most() {
    let of = |octets: usize| format!("<a>{}</a>", "x".repeat(octets - 7));
    let most = usize::try_from(STANZA_OCTETS_MAX).unwrap();
    for cut in [1, 100, 1023, 1024, 1025, 20_000] {
        let text = [HEADER, &of(most), &of(most), &of(most + 1)].concat();
        let (parts, condition) = parts(text.as_bytes(), cut);
        assert_eq!(
            (parts.len(), condition),
            (3, Some(StreamCondition::PolicyViolation)),
            "in pieces of {cut}"
        );
    }
}

#[test]
fn a_tag_without_end_is_refused() {
    let attributes: String = (0..3000).map(|at| format!(" a{at}='1'")).collect();
    let text = [HEADER, "<a", &attributes].concat();
    assert_eq!(parts(text.as_bytes(), 512).1, Some(StreamCondition::PolicyViolation));
    let long = [HEADER, "<a b='", &"x".repeat(TOKEN_OCTETS_MAX + 1), "'/>"].concat();
    assert_eq!(parts(long.as_bytes(), 512).1, Some(StreamCondition::RestrictedXml));
}

#[test]
fn elements_nest_so_deep_and_no_deeper() {
    let nested = |depth: usize| [HEADER, &"<a>".repeat(depth), &"</a>".repeat(depth)].concat();
    assert_eq!(all(&nested(DEPTH_MAX - 1)).1, None);
    assert_eq!(all(&nested(DEPTH_MAX)).1, Some(StreamCondition::PolicyViolation));
}

#[test]
fn what_is_written_is_read() {
    let text = "a<b>&'\"\t\n\r ü]]>💩";
    let inner = Element::new("other", "inner").with_text(text);
    let element =
        Element::new("n", "outer").with("x", text).with_child(inner).with_child(Element::new("n", "e"));
    let mut out = HEADER.as_bytes().to_vec();
    element.write("jabber:component:accept", &mut out);
    let whole = parts(&out, out.len());
    assert_eq!(whole.0[1..], [Part::Stanza(element)]);
    assert_eq!(parts(&out, 1), whole);
}

#[test]
fn what_no_xml_can_say_is_written_as_a_replacement() {
    let mut out = Vec::new();
    Element::new("", "a").with_text("\0x\u{1b}\u{ffff}").write("", &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "<a>\u{fffd}x\u{fffd}\u{fffd}</a>");
}

#[test]
fn values_are_not_shown() {
    let element = Element::new("n", "key").with("sid", "secret").with_text("secret");
    assert!(!format!("{element:?}").contains("secret"));
}
