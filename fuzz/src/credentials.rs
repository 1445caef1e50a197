//! Credentials: any octets, and what clients make of our challenge.

use arbitrary::{Arbitrary, Unstructured};
use data_encoding::BASE64;
use rendezvous_core::http::challenge::{Identified, identify, write_challenge};
use rendezvous_core::id::Id;

pub(crate) fn authorization(octets: &[u8]) {
    let found = identify(octets);
    let padded = [b" \t ", octets, b"\t"].concat();
    assert_eq!(identify(&padded), found, "blanks around it");
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let start = octets.iter().take_while(|octet| blank(octet)).count();
    let scheme = start + octets[start..].iter().take_while(|octet| !blank(octet)).count();
    let mut shouted = octets.to_vec();
    shouted[..scheme].make_ascii_uppercase();
    assert_eq!(identify(&shouted), found, "the scheme has no case");
    if let Identified::Id(id) = found {
        assert!(spells(octets, id), "{id} came from nowhere");
    }
}

/// Whether the octets hold the ID: in BASE64, or behind backslashes and percent signs.
fn spells(octets: &[u8], id: Id) -> bool {
    let text: Vec<u8> = octets.iter().copied().filter(|octet| *octet != b'\\').collect();
    let mut plain = Vec::new();
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        let escaped = (octet == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let value = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        plain.push(value.unwrap_or(octet));
        at += if value.is_some() { 3 } else { 1 };
    }
    let last = octets.split(|octet| matches!(octet, b' ' | b'\t')).rfind(|word| !word.is_empty());
    let decoded = last.and_then(|word| BASE64.decode(word).ok()).unwrap_or_default();
    let wanted = id.to_string();
    [plain, decoded].iter().any(|it| String::from_utf8_lossy(it).to_ascii_lowercase().contains(&wanted))
}

/// A client, as its author understood RFC 7616.
#[derive(Arbitrary, Debug)]
struct Client {
    nonce: [u8; 16],
    opaque: [u8; 16],
    id: u128,
    user: User,
    shout: bool,
    /// Where in the list the user name stands.
    at: u8,
    comma: Comma,
    unquoted: u8,
    password: String,
}

#[derive(Arbitrary, Debug)]
enum User {
    Quoted,
    Token,
    /// A quoted-pair before every octet whose bit is set.
    Escaped(u64),
    /// `username*`; percent-encoded where the bit is set.
    Extended(u64),
    Basic,
}

#[derive(Arbitrary, Debug)]
enum Comma {
    Usual,
    Tight,
    Wide,
    Doubled,
}

pub(crate) fn challenge(octets: &[u8]) {
    let Ok(client) = Client::arbitrary(&mut Unstructured::new(octets)) else { return };
    let mut line = Vec::new();
    write_challenge(&client.nonce, &client.opaque, &mut line);
    let line = String::from_utf8(line).expect("a challenge is text");
    let answer = client.answer(&line);
    assert_eq!(identify(answer.as_bytes()), Identified::Id(Id(client.id)), "{answer:?}");
}

impl Client {
    fn answer(&self, line: &str) -> String {
        let value = line.strip_prefix("WWW-Authenticate: Digest ").and_then(|it| it.strip_suffix("\r\n"));
        let parameters = parameters(value.expect("one line, one scheme"));
        let get = |name: &str| {
            let found = parameters.iter().find(|(known, _)| known == name);
            found.unwrap_or_else(|| panic!("no {name}")).1.clone()
        };
        assert!(get("qop").split(", ").any(|it| it == "auth"), "what every client can do");
        let id = Id(self.id).to_string();
        let id = if self.shout { id.to_ascii_uppercase() } else { id };
        if let User::Basic = self.user {
            return format!("Basic {}", BASE64.encode(format!("{id}:{}", self.password).as_bytes()));
        }
        let mut list = vec![
            self.parameter(0, "realm", &get("realm")),
            self.parameter(1, "nonce", &get("nonce")),
            "uri=\"/a,b?c=d\"".to_owned(),
            self.parameter(2, "opaque", &get("opaque")),
            self.parameter(3, "qop", "auth"),
            "nc=00000001".to_owned(),
            self.parameter(4, "response", "6629fae49393a05397450978507c4ef1"),
            "cnonce=\"0a\\\"4f\\\\\"".to_owned(),
        ];
        list.insert(usize::from(self.at) % (list.len() + 1), self.user.parameter(&id));
        let comma = match self.comma {
            Comma::Usual => ", ",
            Comma::Tight => ",",
            Comma::Wide => " \t,\t ",
            Comma::Doubled => ", ,",
        };
        format!("Digest {}", list.join(comma))
    }

    fn parameter(&self, bit: u8, name: &str, value: &str) -> String {
        if self.unquoted >> bit & 1 == 1 { format!("{name}={value}") } else { format!("{name}=\"{value}\"") }
    }
}

impl User {
    fn parameter(&self, id: &str) -> String {
        let bits = |bits: u64| id.chars().enumerate().map(move |(at, it)| (bits >> at & 1 == 1, it));
        match self {
            Self::Quoted | Self::Basic => format!("username=\"{id}\""),
            Self::Token => format!("username={id}"),
            Self::Escaped(escaped) => {
                let text: String =
                    bits(*escaped).map(|(is, it)| if is { format!("\\{it}") } else { it.into() }).collect();
                format!("username=\"{text}\"")
            }
            Self::Extended(escaped) => {
                let encode = |(is, it)| if is { format!("%{:02X}", u32::from(it)) } else { String::from(it) };
                format!("username*=UTF-8''{}", bits(*escaped).map(encode).collect::<String>())
            }
        }
    }
}

/// `name="value"` over and over; the values of our challenge hold no quote.
fn parameters(list: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = list;
    while let Some((name, behind)) = rest.split_once("=\"") {
        let (value, behind) = behind.split_once('"').expect("a string has an end");
        found.push((name.trim_start_matches([',', ' ']).to_owned(), value.to_owned()));
        rest = behind;
    }
    assert_eq!(rest, "", "nothing behind the last parameter");
    found
}
