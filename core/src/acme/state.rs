//! The stored state of a client: one document for each directory URL (`docs/acme.md §3`).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::action::{Challenge, Proof};
use super::attempts::{Attempts, Faults};
use super::json::{Json, Part, join, quoted};
use super::names::Names;
use super::renewal::Window;
use super::url::Url;

/// The version of the document.
const VERSION: u64 = 1;

/// The stored state of a client for one directory URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The thumbprint of the account's key.
    pub(super) key: String,
    pub(super) account: Account,
    /// Failures of the CA, or of the path to it.
    pub(super) faults: Faults,
    /// How many times in a row the program began to use the CA, and has not stored since then that it stopped.
    pub(super) unfinished: u32,
    /// New orders wait until this time, in seconds since 1970, because a limit of the CA was reached.
    pub(super) orders_from: u64,
    /// Hash of the settings whose change allows an early attempt.
    pub(super) config: String,
    pub(super) entries: BTreeMap<Names, Entry>,
}

/// The state of the account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Account {
    /// It was never registered.
    #[default]
    None,
    /// Its registration was sent and the response is not known, or the CA no longer knows its URL.
    Asked,
    /// Its URL.
    Known(String),
}

/// The stored state of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) attempts: Attempts,
    pub(super) order: Option<StoredOrder>,
    pub(super) window: Option<Window>,
    /// When renewal information is asked for next, in seconds since 1970.
    pub(super) look_at: u64,
    /// The renewal id of the certificate that was issued last, and the account that got it.
    pub(super) issued: Option<(String, String)>,
}

/// An order that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredOrder {
    pub(super) url: Url,
    pub(super) expires: Option<u64>,
    /// The certificate request in base64url, once the driver has made it.
    pub(super) csr: Option<String>,
    /// The URL of the certificate, once it is issued.
    pub(super) certificate: Option<Url>,
    /// The challenge that validators may request.
    pub(super) challenge: Option<Challenge>,
}

/// Why a stored document cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Why, for the log.
    pub why: &'static str,
}

impl State {
    /// Reads a stored document.
    ///
    /// # Errors
    ///
    /// It is damaged, of another version, or of another CA than `directory`. The driver sets it aside, and starts with
    /// [`State::default`].
    pub fn parse(document: &str, directory: &Url) -> Result<Self, Unreadable> {
        let json = Json::parse_any(document.as_bytes()).ok_or(Unreadable { why: "it is no JSON" })?;
        match json.root().number("version") {
            Some(VERSION) => {}
            Some(_) => return Err(Unreadable { why: "its version is not known" }),
            None => return Err(Unreadable { why: "it has no version" }),
        }
        if json.str("directory") != Some(directory.as_str()) {
            return Err(Unreadable { why: "it is of another CA" });
        }
        read(json.root(), directory).ok_or(Unreadable { why: "it is damaged" })
    }

    /// The document.
    #[must_use]
    pub fn to_document(&self, directory: &Url) -> String {
        let account = match &self.account {
            Account::None => String::from("null"),
            Account::Asked => quoted(""),
            Account::Known(url) => quoted(url),
        };
        format!(
            "{{\"version\":{VERSION},\"directory\":{},\n\"key\":{},\"account\":{account},\n\"faults\":{},\n\"unfinished\":{},\
             \"orders_from\":{},\"config\":{},\n\"certificates\":[{}]}}\n",
            quoted(directory.as_str()),
            quoted(&self.key),
            write_faults(&self.faults),
            self.unfinished,
            self.orders_from,
            quoted(&self.config),
            join(self.entries.iter().map(|(names, entry)| write_entry(names, entry))),
        )
    }

    /// The entry of these names, if there is one.
    pub(super) fn entry(&self, names: &Names) -> Option<&Entry> {
        self.entries.get(names)
    }

    /// The entry of these names.
    pub(super) fn entry_mut(&mut self, names: &Names) -> &mut Entry {
        self.entries.entry(names.clone()).or_default()
    }
}

fn read(json: Part<'_>, directory: &Url) -> Option<State> {
    let mut entries = BTreeMap::new();
    for part in json.get("certificates")?.items() {
        let names: Vec<&str> = part.list("names").map(|it| it.as_str()).collect::<Option<_>>()?;
        entries.insert(Names::parse(names)?, read_entry(part, directory)?);
    }
    Some(State {
        key: json.str("key")?.into(),
        account: match json.get("account")?.as_str() {
            None => Account::None,
            Some("") => Account::Asked,
            Some(url) => {
                Account::Known(Url::parse(url).filter(|it| it.is_same_origin(directory))?.to_string())
            }
        },
        faults: read_faults(json.get("faults")?)?,
        // Documents of version 0.1.0 may lack it.
        unfinished: json.number("unfinished").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        orders_from: json.number("orders_from")?,
        config: json.str("config")?.into(),
        entries,
    })
}

fn write_attempts(it: &Attempts) -> String {
    format!(
        "{{\"failures\":{},\"last\":{},\"next\":{},\"recent\":[{}],\"why\":{}}}",
        it.failures,
        it.last,
        it.next,
        join(it.recent.iter().map(u64::to_string)),
        quoted(&it.why)
    )
}

fn read_attempts(part: Part<'_>) -> Option<Attempts> {
    let recent = part.list("recent").map(Part::as_number);
    let mut attempts = Attempts {
        failures: u32::try_from(part.number("failures")?).ok()?,
        last: part.number("last")?,
        next: part.number("next")?,
        recent: recent.collect::<Option<_>>()?,
        why: part.str("why")?.into(),
    };
    attempts.recent.truncate(8);
    Some(attempts)
}

fn write_faults(it: &Faults) -> String {
    format!(
        "{{\"failures\":{},\"last\":{},\"next\":{},\"asked\":{},\"why\":{}}}",
        it.failures,
        it.last,
        it.next,
        it.asked,
        quoted(&it.why)
    )
}

fn read_faults(part: Part<'_>) -> Option<Faults> {
    Some(Faults {
        failures: u32::try_from(part.number("failures")?).ok()?,
        last: part.number("last")?,
        next: part.number("next")?,
        asked: part.number("asked")?,
        why: part.str("why")?.into(),
    })
}

fn write_entry(names: &Names, entry: &Entry) -> String {
    let mut text = format!(
        "\n{{\"names\":[{}],\"attempts\":{}",
        join(names.as_slice().iter().map(|it| quoted(it))),
        write_attempts(&entry.attempts)
    );
    if let Some(order) = &entry.order {
        text.push_str(",\n \"order\":");
        text.push_str(&write_order(order));
    }
    if let Some(it) = &entry.window {
        text.push_str(&format!(
            ",\n \"window\":{{\"id\":{},\"start\":{},\"end\":{},\"at\":{},\"checked\":{}}}",
            quoted(&it.id),
            it.start,
            it.end,
            it.at,
            it.checked
        ));
    }
    if let Some((id, account)) = &entry.issued {
        text.push_str(&format!(",\n \"issued\":{{\"id\":{},\"account\":{}}}", quoted(id), quoted(account)));
    }
    text.push_str(&format!(",\"look_at\":{}}}", entry.look_at));
    text
}

fn read_entry(part: Part<'_>, directory: &Url) -> Option<Entry> {
    let order = match part.get("order") {
        Some(order) => Some(read_order(order, directory)?),
        None => None,
    };
    let window = match part.get("window") {
        Some(it) => Some(Window {
            id: it.str("id")?.into(),
            start: it.number("start")?,
            end: it.number("end")?,
            at: it.number("at")?,
            checked: it.number("checked")?,
        }),
        None => None,
    };
    let issued = match part.get("issued") {
        Some(it) => Some((it.str("id")?.into(), it.str("account")?.into())),
        None => None,
    };
    Some(Entry {
        attempts: read_attempts(part.get("attempts")?)?,
        order,
        window,
        look_at: part.number("look_at")?,
        issued,
    })
}

fn write_order(it: &StoredOrder) -> String {
    let mut text = format!("{{\"url\":{}", quoted(it.url.as_str()));
    if let Some(expires) = it.expires {
        text.push_str(&format!(",\"expires\":{expires}"));
    }
    if let Some(csr) = &it.csr {
        text.push_str(&format!(",\"csr\":{}", quoted(csr)));
    }
    if let Some(url) = &it.certificate {
        text.push_str(&format!(",\"certificate\":{}", quoted(url.as_str())));
    }
    if let Some(challenge) = &it.challenge {
        text.push_str(&format!(",\"challenge\":{}", write_challenge(challenge)));
    }
    text.push('}');
    text
}

fn read_order(part: Part<'_>, directory: &Url) -> Option<StoredOrder> {
    let url = |text: &str| Url::parse(text).filter(|it| it.is_same_origin(directory));
    let certificate = match part.str("certificate") {
        Some(text) => Some(url(text)?),
        None => None,
    };
    let challenge = match part.get("challenge") {
        Some(it) => Some(read_challenge(it)?),
        None => None,
    };
    Some(StoredOrder {
        url: url(part.str("url")?)?,
        expires: part.number("expires"),
        csr: part.str("csr").map(String::from),
        certificate,
        challenge,
    })
}

fn write_challenge(it: &Challenge) -> String {
    let name = quoted(&it.name);
    match &it.proof {
        Proof::TlsAlpn01 { digest } => {
            format!("{{\"name\":{name},\"digest\":\"{}\"}}", data_encoding::HEXLOWER.encode(digest))
        }
        Proof::Http01 { token, key_authorization } => {
            format!(
                "{{\"name\":{name},\"token\":{},\"content\":{}}}",
                quoted(token),
                quoted(key_authorization)
            )
        }
    }
}

fn read_challenge(part: Part<'_>) -> Option<Challenge> {
    let proof = match part.str("digest") {
        Some(digest) => {
            let digest = data_encoding::HEXLOWER.decode(digest.as_bytes()).ok()?;
            Proof::TlsAlpn01 { digest: digest.try_into().ok()? }
        }
        None => {
            Proof::Http01 { token: part.str("token")?.into(), key_authorization: part.str("content")?.into() }
        }
    };
    Some(Challenge { name: part.str("name")?.into(), proof })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (State, Url) {
        let directory = Url::parse("https://ca.example/dir").expect("a URL");
        let names = |text: &str| Names::parse(text.split(' ')).expect("names");
        let url = |text: &str| Url::parse(text).expect("a URL");
        let attempts =
            Attempts { failures: 2, last: 5, next: 65, recent: [4, 5].into(), why: "a \"b\"\n".into() };
        let order = StoredOrder {
            url: url("https://ca.example/o/1"),
            expires: Some(9),
            csr: Some("AAA".into()),
            certificate: Some(url("https://ca.example/c/1")),
            challenge: Some(Challenge {
                name: "a.example".into(),
                proof: Proof::TlsAlpn01 { digest: [7; 32] },
            }),
        };
        let http = Proof::Http01 { token: "t".into(), key_authorization: "t.x".into() };
        let other = StoredOrder {
            challenge: Some(Challenge { name: "b.example".into(), proof: http }),
            csr: None,
            certificate: None,
            expires: None,
            ..order.clone()
        };
        let window = Window { id: "a.b".into(), start: 1, end: 9, at: 4, checked: 3 };
        let entry = Entry {
            attempts,
            order: Some(order),
            window: Some(window),
            look_at: 77,
            issued: Some(("a.b".into(), "https://ca.example/acct/1".into())),
        };
        let entries = BTreeMap::from([
            (names("a.example b.example"), entry),
            (names("b.example"), Entry { order: Some(other), ..Entry::default() }),
            (names("c.example"), Entry::default()),
        ]);
        let state = State {
            key: "thumb".into(),
            account: Account::Known("https://ca.example/acct/1".into()),
            faults: Faults { failures: 3, last: 4, next: 9, asked: 8, why: "c".into() },
            unfinished: 7,
            orders_from: 6,
            config: "c".into(),
            entries,
        };
        (state, directory)
    }

    #[test]
    fn a_document_reads_as_it_was_written() {
        let (state, directory) = full();
        assert_eq!(State::parse(&state.to_document(&directory), &directory), Ok(state));
        for account in [Account::None, Account::Asked] {
            let state = State { account, ..State::default() };
            assert_eq!(State::parse(&state.to_document(&directory), &directory), Ok(state));
        }
    }

    #[test]
    fn a_document_that_is_cut_or_of_another_ca_or_version_is_not_used() {
        let (state, directory) = full();
        let text = state.to_document(&directory);
        let end = text.trim_end().len();
        assert!((0..end).all(|at| State::parse(&text[..at], &directory).is_err()));
        let other = Url::parse("https://other.example/dir").expect("a URL");
        assert_eq!(State::parse(&text, &other), Err(Unreadable { why: "it is of another CA" }));
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert_eq!(State::parse(&newer, &directory), Err(Unreadable { why: "its version is not known" }));
        let damaged = text.replace("\"names\":[\"c.example\"]", "\"names\":[\"-\"]");
        assert_eq!(State::parse(&damaged, &directory), Err(Unreadable { why: "it is damaged" }));
    }
}
