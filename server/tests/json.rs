//! JSON, as far as the program reads and writes it.

use rendezvous::json::{Value, quote};

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.to_owned()))
}

#[test]
fn what_is_quoted_is_ascii_and_reads_back_the_same() {
    for original in ["", "home", "a\"b\\c", "\n\r\t\0\u{1b}[2J", "é ü 漢", "\u{1f980}", "\u{7f}\u{9b}"] {
        let quoted = quote(original);
        assert!(quoted.chars().all(|c| matches!(c, ' '..='~')), "{quoted}");
        assert_eq!(Value::parse(&quoted), text(original), "{quoted}");
    }
}

#[test]
fn a_document_is_read() {
    let value =
        Value::parse(" {\"a\": [1, 2 ,{}], \"b\":null,\"c\":true,\"d\":\"x\\u0041\\n\", \"e\": []}\n")
            .unwrap();
    assert_eq!(value.list("a"), [Value::Number(1), Value::Number(2), Value::Map(Vec::new())]);
    assert_eq!((value.get("b"), value.get("c")), (Some(&Value::Null), Some(&Value::Bool(true))));
    assert_eq!((value.text("d"), value.number("d"), value.number("b")), (Some("xA\n"), None, None));
    assert_eq!((value.list("e"), value.list("none"), value.get("none")), (&[][..], &[][..], None));
    assert_eq!(Value::parse("18446744073709551615"), Some(Value::Number(u64::MAX)));
}

#[test]
fn what_is_no_document_is_none() {
    for wrong in [
        "",
        "{",
        "[",
        "[1",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u+123\"",
        "\"\\ud800\"",
        "\"\n\"",
        "nul",
        "1 2",
        "-1",
        "1.5",
        "18446744073709551616",
        "{} x",
    ] {
        assert_eq!(Value::parse(wrong), None, "{wrong}");
    }
    assert_eq!(Value::parse(&"[".repeat(100_000)), None);
    assert!(Value::parse(&format!("{}{}", "[".repeat(9), "]".repeat(9))).is_some());
    assert_eq!(Value::parse(&format!("{}{}", "[".repeat(10), "]".repeat(10))), None);
}

#[test]
fn every_beginning_of_a_document_is_none() {
    let whole = r#"{"a":[1,true,null,"x\u00e9"],"b":{"c":"d"}}"#;
    for end in 0..whole.len() {
        assert_eq!(Value::parse(&whole[..end]), None, "{}", &whole[..end]);
    }
    assert!(Value::parse(whole).is_some());
}
