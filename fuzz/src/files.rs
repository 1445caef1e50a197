//! The files that hold secrets: tickets, and the list of IDs.

use data_encoding::BASE32_NOPAD;
use rendezvous::ids::{Ids, is_label, is_name};
use rendezvous::key_uri;
use rendezvous::ticket::Ticket;
use rendezvous_core::token::Key;

pub(crate) fn ticket(octets: &[u8]) {
    match Ticket::parse(octets, "t") {
        Ok(ticket) => {
            let text = ticket.to_text("someone");
            let again = Ticket::parse(text.as_bytes(), "t").expect("what we write, we read");
            assert_eq!(again, ticket);
            assert_hides(&format!("{ticket:?}"), &ticket.key);
        }
        Err(failure) => assert_tells_no_secret(&format!("{failure:?}"), octets),
    }
}

pub(crate) fn ids(octets: &[u8]) {
    let ids = Ids::parse(octets, "ids");
    let lines = octets.split(|octet| *octet == b'\n').count();
    assert!(ids.entries.len() + ids.complaints.len() <= lines, "one verdict a line");
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
    assert_eq!((again.entries, again.complaints), (ids.entries, Vec::new()));
    for complaint in &ids.complaints {
        assert!(complaint.starts_with("ids:"), "{complaint:?}");
        assert_tells_no_secret(complaint, octets);
    }
}

fn assert_hides(shown: &str, key: &Key) {
    let secret = BASE32_NOPAD.encode(key.secret());
    assert!(secret.len() < 16 || !shown.contains(&secret), "a secret is shown");
}

/// What stands behind `secret=` anywhere in the file, where it is long enough to be one, is not repeated.
fn assert_tells_no_secret(message: &str, octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    for behind in text.split("secret=").skip(1) {
        let secret: String = behind.chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(secret.len() < 20 || !message.contains(&secret), "{message:?} tells a secret");
    }
}
