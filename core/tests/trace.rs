//! Traces as text: parsing and errors.

#![cfg(feature = "trace")]

use rendezvous_core::trace::{Bytes, ParseError, Trace};

const HEADER: &str = "rendezvous-trace 1\nmachine relay\nlisten plain\n\
    id home 6ba7b810-9dad-41d1-80b4-00c04fd430c8 secret=JBSWY3DPEHPK3PXP\n";
const START: &str = "@5s wall=1795219200 start\n";

fn bytes(written: &str) -> Result<Vec<u8>, ParseError> {
    let trace = Trace::parse(&format!("{HEADER}{START}@+0 in 0.1 {written}\n"))?;
    Ok(trace.bytes(&trace.steps[1]))
}

#[test]
fn bytes_are_written_as_a_person_would() {
    assert_eq!(bytes(r#""a\r\n\t\"\\\$\x00\xff""#), Ok(b"a\r\n\t\"\\$\x00\xff".to_vec()));
    assert_eq!(bytes("\"one\" \"two\"\n    \"three\"   # and a comment"), Ok(b"onetwothree".to_vec()));
    assert_eq!(bytes(r#""$times(x,3)-$times(\x00,2)""#), Ok(b"xxx-\0\0".to_vec()));
    assert_eq!(bytes(r#""<$id(home)>""#), Ok(b"<6ba7b810-9dad-41d1-80b4-00c04fd430c8>".to_vec()));
    assert_eq!(bytes(r#""$date""#), Ok(b"Sat, 21 Nov 2026 00:00:00 GMT".to_vec()));
    assert_eq!(
        bytes(r#""$basic(home,pw)""#),
        Ok(b"NmJhN2I4MTAtOWRhZC00MWQxLTgwYjQtMDBjMDRmZDQzMGM4OnB3".to_vec())
    );
    let tokens = bytes(r#""$totp(home)$totp(home,-1)$bound(home,nonce-of-sixteen)""#).expect("tokens");
    assert_eq!(tokens.len(), 8 + 8 + 32);
}

/// However the repetitions of one event are distributed, they have at most a mebibyte; anything longer is written
/// out.
#[test]
fn repetitions_are_bounded_together() {
    let half = "$times(x,524288)";
    assert_eq!(bytes(&format!("\"{half}-{half}\"")).map(|it| it.len()), Ok((1 << 20) + 1));
    for written in
        [format!("\"{half}{half}$times(y,1)\""), format!("\"{half}\" \"{half}\"\n    \"$times(y,48)\"")]
    {
        let error = bytes(&written).map(|it| it.len()).expect_err("more than there may be");
        assert!(error.why.contains("$times"), "{error}");
    }
    for blank in ["", "Sat, 21 Nov 2026 00:00:00 GMT"] {
        let large = [vec![b'x'; 1 << 20], blank.into(), vec![b'y'; 100], vec![b'z'; 1 << 20]].concat();
        let dated = Bytes::dated(&large, 1_795_219_200);
        let again = bytes(&dated.to_string()).map(|again| again == large);
        assert_eq!(again, Ok(true));
    }
}

#[test]
fn time_goes_on_and_the_wall_clock_with_it() {
    let text = format!("{HEADER}{START}@+1500ms timeout\n@7s timeout\n@+0 wall=7 timeout\n@+1s timeout\n");
    let trace = Trace::parse(&text).expect("a trace");
    let times: Vec<(u64, u64)> = trace.steps.iter().map(|step| (step.now.mono.0, step.now.wall)).collect();
    assert_eq!(
        times,
        [
            (5_000_000, 1_795_219_200),
            (6_500_000, 1_795_219_201),
            (7_000_000, 1_795_219_202),
            (7_000_000, 7),
            (8_000_000, 8)
        ]
    );
    assert_eq!(Trace::parse(&trace.to_string()), Ok(trace));
}

/// The error and its line.
#[test]
fn errors_name_the_line_and_the_fault() {
    for (text, line, why) in [
        ("", 1, "rendezvous-trace 1"),
        ("# nothing else\n", 1, "rendezvous-trace 1"),
        ("rendezvous-trace 2\n", 1, "rendezvous-trace 1"),
        ("rendezvous-trace 1\n", 1, "machine relay"),
        ("rendezvous-trace 1\nmachine toaster\n", 2, "toaster"),
        ("rendezvous-trace 1\nlisten plain\n", 2, "comes first"),
        ("rendezvous-trace 1\nmachine relay\nconfig holt=5s\n", 3, "holt"),
        ("rendezvous-trace 1\nmachine relay\nconfig hold=5\n", 3, "hold"),
        ("rendezvous-trace 1\nmachine relay\nseed 0g\n", 3, "seed"),
        ("rendezvous-trace 1\nmachine relay\nid home 1 secret=A\n", 3, "UUID"),
        ("rendezvous-trace 1\nmachine relay\n\n@0 start\n", 4, "wall="),
        ("rendezvous-trace 1\nmachine relay\n@0 wall=1 timeout\n", 3, "start"),
        ("rendezvous-trace 1\nmachine relay\n-> send 0.1\n", 3, "follow an event"),
    ] {
        let error = Trace::parse(text).expect_err(text);
        assert!(error.line == line && error.why.contains(why), "{text:?}: {error}");
    }
    for (line, why) in [
        ("@4s timeout", "earlier"),
        ("@+5 timeout", "+5"),
        ("@+0 start", "first event"),
        ("@+0 dance 0.1", "dance"),
        ("@+0 open 0 here", "here"),
        ("@+0 closed 0,1", "0,1"),
        ("@+0 closed 0.1 0.2", "unexpected"),
        ("@+0 moved 0.1 read=1", "queued"),
        ("@+0 end 0.1 softly", "softly"),
        ("@+0 ids away", "away"),
        ("@+0 wall=99999999999999 timeout", "wall="),
        ("@+0 in 0.1 GET", "quoted"),
        ("@+0 in 0.1 \"GET", "closing quote"),
        ("@+0 in 0.1 \"\\q\"", "escape"),
        ("@+0 in 0.1 \"\\xg0\"", "hexadecimal"),
        ("@+0 in 0.1 \"ä\"", "\\xHH"),
        ("@+0 in 0.1 \"$nonce\"", "only allowed in actions"),
        ("@+0 in 0.1 \"$times(x,2000000)\"", "count"),
        ("@+0 in 0.1 \"$id(home\"", "closed"),
        ("@+0 in 0.1 \"$id(away)\"", "away"),
        ("@+0 in 0.1 \"$moon\"", "$moon"),
        ("@+0 in 0.1 \"$totp(home,+3)\"", "+3"),
        ("-> dance 0.1", "dance"),
        ("-> send 0.1 \"", "closing quote"),
        ("\"bytes of nothing\"", "only allowed after"),
        ("listen tls", "neither an event"),
    ] {
        let text = format!("{HEADER}{START}{line}\n");
        let error = Trace::parse(&text).expect_err(line);
        assert!(error.line == 6 && error.why.contains(why), "{line:?}: {error}");
    }
}

/// An impossible event is refused, whatever its effect on the machine would be.
#[test]
fn an_event_that_cannot_happen_is_refused() {
    use rendezvous_core::trace::Replay;
    for line in [
        "@+0 open 1 192.0.2.1:1",
        "@+0 closed 0.1",
        "@+0 flushed 7.7",
        "@+0 secured 0.1",
        "@+0 connected 0.1",
        "@+0 resolved 0.1 192.0.2.1:1",
        "@+0 moved 0.1 read=1 queued=0",
        "@+0 in 0.1 \"G\"",
    ] {
        let text = format!(
            "{HEADER}{START}@+0 open 0 192.0.2.1:1\n    -> conn 0.1\n@+0 in 0.1 \"GET\"\n{line}\n    -> took 1\n"
        );
        let trace = Trace::parse(&text).expect("a trace");
        let refused: Vec<_> = Replay::new(&trace).filter(|played| played.actions.is_err()).collect();
        assert!(refused.len() == 1 && refused[0].step.line == 9, "{line}: {refused:?}");
        assert_eq!(refused[0].difference().map(|it| it.line), Some(9));
    }
}
