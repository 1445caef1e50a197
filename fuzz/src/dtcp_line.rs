//! Lines of DTCP's handshake.

use rendezvous_core::dtcp::line::{Command, Found, OCTETS_MAX, find};

pub(crate) fn run(octets: &[u8]) {
    let found = find(octets);
    for len in 0..octets.len().min(OCTETS_MAX + 2) {
        let front = find(&octets[..len]);
        assert!(front == Found::Partial || front == found, "what comes behind changes nothing");
    }
    match found {
        Found::Partial => {
            assert!(octets.len() < OCTETS_MAX && !octets.contains(&b'\n'));
        }
        Found::TooLong => {
            assert!(octets.len() >= OCTETS_MAX && !octets[..OCTETS_MAX].contains(&b'\n'));
        }
        Found::Unknown { len } => {
            assert!(whole(octets, len));
            assert_eq!(said(&octets[..len]), None);
        }
        Found::Command { command, len } => {
            assert!(whole(octets, len));
            assert_eq!(Some(command), said(&octets[..len]));
            // No key has a CR in it, so that none is written whose last octet would be taken for the line's.
            if !matches!(command, Command::Key([.., b'\r']) | Command::Ok([.., b'\r'])) {
                let mut written = Vec::new();
                command.write(&mut written);
                assert_eq!(find(&written), Found::Command { command, len: written.len() });
            }
        }
    }
}

fn whole(octets: &[u8], len: usize) -> bool {
    len <= OCTETS_MAX && octets.iter().position(|octet| *octet == b'\n') == Some(len - 1)
}

/// What the document says of a line, read by its words.
fn said(line: &[u8]) -> Option<Command<'_>> {
    let line = line.strip_suffix(b"\n").expect("a line ends");
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(2, |octet| *octet == b':');
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
