//! Lines of DTCP's handshake.

use rendezvous_core::dtcp::line::{BYTES_MAX, Command, Found, find};

pub(crate) fn run(bytes: &[u8]) {
    let found = find(bytes);
    for len in 0..bytes.len().min(BYTES_MAX + 2) {
        let front = find(&bytes[..len]);
        assert!(front == Found::Partial || front == found, "what comes behind changes nothing");
    }
    match found {
        Found::Partial => {
            assert!(bytes.len() < BYTES_MAX && !bytes.contains(&b'\n'));
        }
        Found::TooLong => {
            assert!(bytes.len() >= BYTES_MAX && !bytes[..BYTES_MAX].contains(&b'\n'));
        }
        Found::Unknown { len } => {
            assert!(whole(bytes, len));
            assert_eq!(parse_line(&bytes[..len]), None);
        }
        Found::Command { command, len } => {
            assert!(whole(bytes, len));
            assert_eq!(Some(command), parse_line(&bytes[..len]));
            // No key may end in CR, which would be parsed as the end of the line.
            if !matches!(command, Command::Key([.., b'\r']) | Command::Ok([.., b'\r'])) {
                let mut written = Vec::new();
                command.write(&mut written);
                assert_eq!(find(&written), Found::Command { command, len: written.len() });
            }
        }
    }
}

fn whole(bytes: &[u8], len: usize) -> bool {
    len <= BYTES_MAX && bytes.iter().position(|byte| *byte == b'\n') == Some(len - 1)
}

/// A simple implementation of the document's rules for a line.
fn parse_line(line: &[u8]) -> Option<Command<'_>> {
    let line = line.strip_suffix(b"\n").expect("a line ends");
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(2, |byte| *byte == b':');
    let word = words.next().unwrap_or_default();
    let argument = words.next().unwrap_or_default();
    match (word, argument) {
        (b"starttls", _) => Some(Command::StartTls),
        (b"error", _) => Some(Command::Error),
        (b"ok", argument) => Some(Command::Ok(argument)),
        (b"key", b"") => None,
        (b"key", argument) => Some(Command::Key(argument)),
        _ => None,
    }
}
