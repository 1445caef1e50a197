//! Parses bytes to stanzas, however they are cut; and what is refused.

use rendezvous_core::xmpp::condition::StreamCondition;
use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::stream::{DEPTH_MAX, Part, STANZA_BYTES_MAX, Stream};

use super::HEADER;

/// All parts of these bytes, passed in pieces of `cut`.
fn parts(bytes: &[u8], cut: usize) -> (Vec<Part>, Option<StreamCondition>) {
    let mut stream = Stream::new();
    let mut parts = Vec::new();
    for piece in bytes.chunks(cut) {
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
    for _ in 0..4 * STANZA_BYTES_MAX {
        assert_eq!(stream.read(&mut &b" "[..]), Ok(None));
    }
    assert!(matches!(stream.read(&mut &b"<iq/>"[..]), Ok(Some(Part::Stanza(_)))));
}

/// The start of the only stanza that is skipped; the one after it was parsed.
fn skipped((parts, condition): (Vec<Part>, Option<StreamCondition>)) -> Option<Element> {
    assert_eq!(condition, None);
    match &parts[..] {
        [Part::Header(_), Part::Excess(start), Part::Stanza(next)] if next.name() == "next" => start.clone(),
        _ => panic!("{parts:?}"),
    }
}

#[test]
fn a_stanza_of_more_than_sixteen_kib_is_skipped() {
    let of = |bytes: usize| format!("<a b='c'>{}</a>", "x".repeat(bytes - 13));
    let most = STANZA_BYTES_MAX;
    for cut in [1, 100, 1023, 1024, 1025, 20_000] {
        let (all, condition) =
            parts([HEADER, &of(most), &of(most + 1), &of(most), &of(100_000)].concat().as_bytes(), cut);
        let [
            Part::Header(_),
            Part::Stanza(_),
            Part::Excess(Some(one)),
            Part::Stanza(_),
            Part::Excess(Some(other)),
        ] = &all[..]
        else {
            panic!("{all:?} in pieces of {cut}")
        };
        assert_eq!(condition, None);
        assert_eq!((one, one), (other, &Element::new("jabber:component:accept", "a").with("b", "c")));
    }
}

#[test]
fn a_stanza_whose_first_tag_is_too_long_is_skipped_unknown() {
    let attributes: String = (0..3000).map(|at| format!(" a{at}='1'")).collect();
    let text = [HEADER, "<a", &attributes, "/><next/>"].concat();
    for cut in [1, 512, text.len()] {
        assert_eq!(skipped(parts(text.as_bytes(), cut)), None);
    }
    let long = |bytes: usize| [HEADER, "<a b='", &"x".repeat(bytes - 9), "'/><next/>"].concat();
    assert_eq!(skipped(parts(long(STANZA_BYTES_MAX + 1).as_bytes(), 512)), None);
    let (all, condition) = parts(long(STANZA_BYTES_MAX).as_bytes(), 512);
    assert!(matches!(&all[..], [Part::Header(_), Part::Stanza(_), Part::Stanza(_)]), "{condition:?}");
}

#[test]
fn elements_nest_so_deep_and_no_deeper() {
    let nested =
        |depth: usize| [HEADER, &"<a>".repeat(depth), "<b/>", &"</a>".repeat(depth), "<next/>"].concat();
    let whole = all(&nested(DEPTH_MAX - 2));
    assert!(matches!(&whole.0[..], [_, Part::Stanza(_), Part::Stanza(_)]) && whole.1.is_none());
    for depth in [DEPTH_MAX - 1, DEPTH_MAX, 10 * DEPTH_MAX] {
        assert_eq!(skipped(all(&nested(depth))), Some(Element::new("jabber:component:accept", "a")));
    }
}

#[test]
fn what_is_skipped_ends_where_its_first_tag_does() {
    let inner =
        "<q a='/a>' b=\"'/>\"/><![CDATA[</a></stream:stream>]] >]>]]]><a\n>&lt;/a></a  ><p:ü xmlns:p='x' />";
    let deep = ["<a>", &"<b>".repeat(40), inner, &"</b>".repeat(40), inner, "</a>"].concat();
    assert!(skipped(all(&[HEADER, &deep, "\n<next/>"].concat())).is_some());
}

#[test]
fn nothing_is_kept_of_what_is_skipped() {
    let mut stream = Stream::new();
    assert!(stream.read(&mut HEADER.as_bytes()).unwrap().is_some());
    assert!(stream.read(&mut ["<a>", &"x".repeat(STANZA_BYTES_MAX)].concat().as_bytes()).unwrap().is_some());
    for _ in 0..10_000 {
        assert_eq!(stream.read(&mut &b"<b c='x'>x<d/>"[..]), Ok(None));
        let shown = format!("{stream:?}");
        assert!(shown.contains("frame: 0"), "{shown}");
    }
}

#[test]
fn what_is_skipped_has_no_comment_either() {
    let deep = "<a>".repeat(40);
    for (odd, wanted) in [
        ("<!-- -->", StreamCondition::RestrictedXml),
        ("<?php ?>", StreamCondition::RestrictedXml),
        ("<!DOCTYPE a>", StreamCondition::RestrictedXml),
        ("<![CDATX[", StreamCondition::NotWellFormed),
        ("<a b='<'/>", StreamCondition::NotWellFormed),
        ("<a <b/>", StreamCondition::NotWellFormed),
        ("<1/>", StreamCondition::NotWellFormed),
        ("<a/ >", StreamCondition::NotWellFormed),
        ("</a <", StreamCondition::NotWellFormed),
    ] {
        let (parts, condition) = all(&[HEADER, &deep, odd].concat());
        assert!(matches!(parts[..], [Part::Header(_), Part::Excess(_)]), "{parts:?}");
        assert_eq!(condition, Some(wanted), "{odd}");
    }
    let (_, condition) = all(&[HEADER, "<a a='1' a='1'>", &deep].concat());
    assert_eq!(condition, Some(StreamCondition::NotWellFormed), "the first tag is parsed");
}

#[test]
fn a_header_has_sixteen_kib_and_no_end_and_nothing_before_it() {
    let of = |text: &str| all(text);
    let long = HEADER.replace("id=", &format!("a='{}' id=", "x".repeat(STANZA_BYTES_MAX)));
    let (none, condition) = parts(long.as_bytes(), 512);
    assert_eq!((none, condition), (vec![], Some(StreamCondition::PolicyViolation)));
    for (text, wanted) in [
        ("HTTP/1.1 400 Bad Request\r\n", StreamCondition::NotWellFormed),
        ("</stream:stream>", StreamCondition::NotWellFormed),
        (" <?xml version='1.0'?>", StreamCondition::NotWellFormed),
        ("<!DOCTYPE a>", StreamCondition::RestrictedXml),
    ] {
        let (none, condition) = of(&[text, HEADER].concat());
        assert_eq!((none, condition), (vec![], Some(wanted)), "{text}");
    }
    let empty = HEADER.replace("id='3BF96D32'>", "/>");
    assert_eq!(of(&empty), (vec![], Some(StreamCondition::BadFormat)));
    let end = [HEADER, "</stream:stream", &" ".repeat(STANZA_BYTES_MAX), ">"].concat();
    assert_eq!(parts(end.as_bytes(), 512).1, Some(StreamCondition::PolicyViolation));
}

/// As the documentation of the module says.
#[test]
fn a_reference_of_more_than_eight_digits_is_no_xml_to_us() {
    assert!(
        matches!(&all(&[HEADER, "<a>&#00000065;</a>"].concat()).0[..], [_, Part::Stanza(a)] if a.text() == "A")
    );
    assert_eq!(refused("<a>&#000000065;</a>"), StreamCondition::NotWellFormed);
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
