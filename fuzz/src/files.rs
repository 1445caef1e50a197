//! Files of agent and relay: tickets, the list of IDs, and the keys that an agent accepts.

use data_encoding::BASE32_NOPAD;
use rendezvous::allowed_keys;
use rendezvous::ids::{Ids, is_label, is_name};
use rendezvous::key_uri;
use rendezvous::password_file;
use rendezvous::ticket::Ticket;
use rendezvous_core::token::Key;

pub(crate) fn ticket(bytes: &[u8]) {
    match Ticket::parse(bytes, "t") {
        Ok(ticket) => {
            let text = ticket.to_text("someone");
            let again = Ticket::parse(text.as_bytes(), "t").expect("what we write, we read");
            // An address may be written in another spelling, but always in the same one.
            assert_eq!(again.to_text("someone"), text);
            assert_eq!((&again.trust, again.id, &again.key), (&ticket.trust, ticket.id, &ticket.key));
            assert_hides(&format!("{ticket:?}"), &ticket.key);
        }
        Err(failure) => assert_tells_no_secret(&format!("{failure:?}")),
    }
}

pub(crate) fn ids(bytes: &[u8]) {
    let ids = Ids::parse(bytes, "ids");
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(ids.entries.len() + ids.errors.len() <= lines, "one verdict a line");
    let mut text = String::new();
    for entry in &ids.entries {
        assert!(is_name(&entry.name) && entry.labels.iter().all(|label| is_label(label)));
        assert_hides(&format!("{entry:?}{entry}"), &entry.key);
        assert_eq!(ids.get(&entry.name).map(|it| it.id), Some(entry.id), "a name means one");
        let uri = key_uri::print(entry.id, &entry.key);
        let (id, key) = key_uri::parse(&uri).expect("what we write, we read");
        assert_eq!((id, &key), (entry.id, &entry.key));
        text.push_str(&format!("{} {} tokens={}", entry.name, *uri, entry.tokens.name()));
        entry.labels.iter().for_each(|label| text.push_str(&format!(" label={label}")));
        text.push('\n');
    }
    let again = Ids::parse(text.as_bytes(), "ids");
    assert_eq!((again.entries, again.errors), (ids.entries, Vec::new()));
    for complaint in &ids.errors {
        assert!(complaint.starts_with("ids:"), "{complaint:?}");
        assert_tells_no_secret(complaint);
        // A word that begins a line may be a secret without what stood before it.
        let lone = complaint.strip_suffix("has no Key URI (otpauth://…)").unwrap_or_default();
        let shown = lone.split('\'').nth(1).unwrap_or_default();
        assert!(shown.len() < 16, "{complaint:?} may tell a secret");
    }
}

pub(crate) fn allowed_keys(bytes: &[u8]) {
    match allowed_keys::parse(bytes, "keys") {
        Ok(pins) => {
            let is_pin = |line: &&[u8]| line.trim_ascii().starts_with(b"sha256//");
            assert_eq!(bytes.split(|byte| *byte == b'\n').filter(is_pin).count(), pins.len(), "a pin a line");
            let text: String = pins.iter().map(|pin| format!("{pin} comment\n")).collect();
            assert_eq!(allowed_keys::parse(text.as_bytes(), "keys"), Ok(pins), "what we write, we read");
        }
        Err(failure) => {
            let failure = failure.to_string();
            let number = failure.split(':').nth(1).and_then(|number| number.parse::<usize>().ok());
            let line = number.and_then(|number| bytes.split(|byte| *byte == b'\n').nth(number - 1));
            let line = line.expect("the number of a line").trim_ascii();
            assert!(!line.is_empty() && !line.starts_with(b"#"), "a comment is refused");
        }
    }
}

fn assert_hides(shown: &str, key: &Key) {
    let secret = BASE32_NOPAD.encode(key.secret());
    assert!(secret.len() < 16 || !shown.contains(&secret), "a secret is shown");
}

/// No part of a Key URI is repeated.
fn assert_tells_no_secret(message: &str) {
    assert!(!message.contains("secret="), "{message:?} tells a secret");
}

pub(crate) fn password_file(bytes: &[u8]) {
    const HASH: &str = "$2y$10$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa";
    match password_file::parse(bytes, "passwords") {
        Ok(passwords) => {
            let is_entry = |line: &&[u8]| !line.trim_ascii().is_empty() && !line.starts_with(b"#");
            let lines = bytes.split(|byte| *byte == b'\n').filter(is_entry).count();
            assert_eq!(passwords.len(), lines, "an entry a line");
            let changed = password_file::with_entry(bytes, "anna", HASH);
            let read = password_file::parse(&changed, "passwords").expect("what is set is read");
            assert_eq!(read.entry("anna").map(|entry| entry.hash()), Some(HASH));
            let is_new = passwords.entry("anna").is_none();
            assert_eq!(read.len(), passwords.len() + usize::from(is_new), "the others stay");
        }
        Err(failure) => {
            let failure = failure.to_string();
            let number = failure.split(':').nth(1).and_then(|number| number.parse::<usize>().ok());
            let line = number.and_then(|number| bytes.split(|byte| *byte == b'\n').nth(number - 1));
            assert!(line.is_some_and(|line| !line.trim_ascii().is_empty()), "the number of a line");
        }
    }
}
