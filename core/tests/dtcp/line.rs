//! Lines of DTCP.

use rendezvous_core::dtcp::line::{BYTES_MAX, Command, Found, find};

/// The only result for these bytes, with or without further bytes after them, and none before the last of them.
fn read(line: &[u8]) -> Found<'_> {
    for cut in 0..line.len() {
        assert_eq!(find(&line[..cut]), Found::Partial, "{:?} cut at {cut}", line.escape_ascii().to_string());
    }
    let whole = find(line);
    for behind in [&b"ok\n"[..], b"\n", b"\x16\x03\x01", &[b'x'; 600]] {
        let more = [line, behind].concat();
        assert_eq!(format!("{:?}", find(&more)), format!("{whole:?}"));
    }
    whole
}

fn command(line: &[u8]) -> Command<'_> {
    match read(line) {
        Found::Command { command, len } if len == line.len() => command,
        found => panic!("{:?} is {found:?}", line.escape_ascii().to_string()),
    }
}

#[test]
fn the_four_commands_are_read() {
    assert!(command(b"starttls\n") == Command::StartTls);
    assert!(command(b"key:a1b2c3d4\n") == Command::Key(b"a1b2c3d4"));
    assert!(command(b"ok\n") == Command::Ok(b""));
    assert!(command(b"ok:c7b5ea3f\n") == Command::Ok(b"c7b5ea3f"));
    assert!(command(b"error\n") == Command::Error);
}

#[test]
fn what_is_written_is_read() {
    for it in [Command::StartTls, Command::Key(b"a:b"), Command::Ok(b""), Command::Ok(b"k"), Command::Error] {
        let mut line = Vec::new();
        it.write(&mut line);
        assert!(command(&line) == it);
        assert!(!line.contains(&b'\r'));
    }
}

#[test]
fn case_18_nonsense_is_no_command() {
    for line in
        [&b"\n"[..], b"\r\n", b":\n", b"key\n", b"key:\n", b"hello\n", b"keys:a\n", b"GET / HTTP/1.1\r\n"]
    {
        assert_eq!(read(line), Found::Unknown { len: line.len() });
    }
}

#[test]
fn case_19_a_line_has_512_bytes_at_most() {
    let longest = [b"key:".as_slice(), &[b'k'; BYTES_MAX - 5], b"\n"].concat();
    assert!(command(&longest) == Command::Key(&[b'k'; BYTES_MAX - 5]));
    let longer = [b'k'; BYTES_MAX];
    assert_eq!(find(&longer[..BYTES_MAX - 1]), Found::Partial);
    assert_eq!(find(&longer), Found::TooLong);
    assert_eq!(find(&[&longer[..], b"\n"].concat()), Found::TooLong);
}

#[test]
fn case_21_only_lf_ends_a_line_and_one_cr_before_it_is_stripped() {
    assert!(command(b"ok\r\n") == Command::Ok(b""));
    assert!(command(b"key:ab\r\n") == Command::Key(b"ab"));
    assert!(command(b"key:ab\r\r\n") == Command::Key(b"ab\r"));
    assert_eq!(read(b"ok\rerror\n"), Found::Unknown { len: 9 });
    assert_eq!(read(b"ok\0\n"), Found::Unknown { len: 4 });
}

#[test]
fn case_22_an_argument_begins_behind_the_first_colon() {
    assert!(command(b"ok:\n") == Command::Ok(b""));
    assert!(command(b"starttls:\n") == Command::StartTls);
    assert!(command(b"starttls:now\n") == Command::StartTls);
    assert!(command(b"error:no such key or key active\n") == Command::Error);
    assert!(command(b"key:a:b\n") == Command::Key(b"a:b"));
}

#[test]
fn case_23_case_counts_and_nothing_is_trimmed() {
    for line in [&b"OK\n"[..], b"Key:a\n", b" ok\n", b"ok \n", b"\tok\n", b"key :a\n", b"STARTTLS\n"] {
        assert_eq!(read(line), Found::Unknown { len: line.len() });
    }
    assert!(command(b"key: a \n") == Command::Key(b" a "));
}

#[test]
fn case_24_what_is_behind_a_line_is_not_looked_at() {
    let Found::Command { command, len } = find(b"ok\nerror\n") else { panic!() };
    assert!(command == Command::Ok(b""));
    assert_eq!(len, 3);
}

#[test]
fn keys_are_not_shown() {
    assert_eq!(format!("{:?} {:?}", Command::Key(b"secret"), Command::Ok(b"secret")), "Key(…) Ok(…)");
}
