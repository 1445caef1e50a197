//! Credentials: arbitrary bytes, and the answers of clients to our challenge.

use arbitrary::{Arbitrary, Unstructured};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use rendezvous_core::http::challenge::{Identified, identify, write_challenge};
use rendezvous_core::id::Id;

pub(crate) fn authorization(bytes: &[u8]) {
    let found = identify(bytes);
    let padded = [b" \t ", bytes, b"\t"].concat();
    assert_eq!(identify(&padded), found, "blanks around it");
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().take_while(|byte| blank(byte)).count();
    let scheme = start + bytes[start..].iter().take_while(|byte| !blank(byte)).count();
    let mut shouted = bytes.to_vec();
    shouted[..scheme].make_ascii_uppercase();
    assert_eq!(identify(&shouted), found, "the scheme has no case");
    match found {
        Identified::Id(id) => assert!(spells(bytes, &id.to_string()), "{id} came from nowhere"),
        Identified::Name(name) => assert!(spells(bytes, &name.to_lowercase()), "{name} came from nowhere"),
        Identified::Unidentified | Identified::Malformed => {}
    }
}

/// Whether the bytes contain the user name, which is in lower case: in BASE64, or with backslashes and percent signs.
fn spells(bytes: &[u8], wanted: &str) -> bool {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\\').collect();
    let mut plain = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let escaped = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let value = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        plain.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    let last = bytes.split(|byte| matches!(byte, b' ' | b'\t')).rfind(|word| !word.is_empty());
    let alphabets = [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD];
    let standard = last.map(|word| String::from_utf8_lossy(word).replace('-', "+").replace('_', "/"));
    let mut decoded = standard.iter().flat_map(|word| alphabets.iter().map(|it| it.decode(word.as_bytes())));
    let decoded = decoded.find_map(Result::ok).unwrap_or_default();
    [plain, decoded].iter().any(|it| String::from_utf8_lossy(it).to_ascii_lowercase().contains(wanted))
}

/// A client, with a correct or wrong interpretation of RFC 7616.
#[derive(Arbitrary, Debug)]
struct Client {
    nonce: [u8; 16],
    opaque: [u8; 16],
    id: u128,
    user: User,
    shout: bool,
    /// The position of the user name in the list.
    at: u8,
    comma: Comma,
    unquoted: u8,
    password: String,
    /// `qop` has a whole list, without quotes.
    lists_qop: bool,
    /// A parameter without a value.
    stale: bool,
    /// BASE64 without padding, or in the URL-safe alphabet.
    unpadded: bool,
    url_safe: bool,
    prefix: Prefix,
}

/// What is typed before the ID.
#[derive(Arbitrary, Debug)]
enum Prefix {
    Nothing,
    Space,
    Uuid,
    Urn,
}

#[derive(Arbitrary, Debug)]
enum User {
    Quoted,
    Token,
    /// A quoted-pair for every byte whose bit is set.
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
    Semicolon,
}

pub(crate) fn challenge(bytes: &[u8]) {
    let Ok(client) = Client::arbitrary(&mut Unstructured::new(bytes)) else { return };
    let mut line = Vec::new();
    write_challenge(&client.nonce, &client.opaque, &mut line);
    let line = String::from_utf8(line).expect("a challenge is text");
    let answer = client.answer(&line);
    assert_eq!(identify(answer.as_bytes()), Identified::Id(Id(client.id)), "{answer:?}");
}

impl Client {
    fn answer(&self, line: &str) -> String {
        let mut lines = line.split_terminator("\r\n").map(|it| it.strip_prefix("WWW-Authenticate: "));
        let digest = lines.next().flatten().and_then(|it| it.strip_prefix("Digest "));
        let parameters = parameters(digest.expect("one line, one scheme"));
        assert_eq!(lines.next().flatten(), Some("Basic realm=\"rendezvous\""));
        let get = |name: &str| {
            let found = parameters.iter().find(|(known, _)| known == name);
            found.unwrap_or_else(|| panic!("no {name}")).1.clone()
        };
        assert!(get("qop").split(", ").any(|it| it == "auth"), "what every client can do");
        let id = Id(self.id).to_string();
        let id = if self.shout { id.to_ascii_uppercase() } else { id };
        let typed = match self.prefix {
            Prefix::Nothing => id,
            Prefix::Space => format!(" {id} "),
            Prefix::Uuid => format!("uuid:{id}"),
            Prefix::Urn => format!("urn:uuid:{id}"),
        };
        if let User::Basic = self.user {
            let encoding = match (self.unpadded, self.url_safe) {
                (false, false) => BASE64,
                (true, false) => BASE64_NOPAD,
                (false, true) => BASE64URL,
                (true, true) => BASE64URL_NOPAD,
            };
            return format!("Basic {}", encoding.encode(format!("{typed}:{}", self.password).as_bytes()));
        }
        let mut list = vec![
            self.parameter(0, "realm", &get("realm")),
            self.parameter(1, "nonce", &get("nonce")),
            "uri=\"/a,b?c=d\"".to_owned(),
            self.parameter(2, "opaque", &get("opaque")),
            if self.lists_qop { "qop=auth, auth-int".to_owned() } else { self.parameter(3, "qop", "auth") },
            "nc=00000001".to_owned(),
            self.parameter(4, "response", "6629fae49393a05397450978507c4ef1"),
            "cnonce=\"0a\\\"4f\\\\\"".to_owned(),
        ];
        if self.stale {
            list.push("stale".to_owned());
        }
        list.insert(usize::from(self.at) % (list.len() + 1), self.user.parameter(&typed));
        let comma = match self.comma {
            Comma::Usual => ", ",
            Comma::Tight => ",",
            Comma::Wide => " \t,\t ",
            Comma::Doubled => ", ,",
            Comma::Semicolon => "; ",
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
            // A token contains no blank.
            Self::Token => format!("username={}", id.trim()),
            Self::Escaped(escaped) => {
                let text: String =
                    bits(*escaped).map(|(is, it)| if is { format!("\\{it}") } else { it.into() }).collect();
                format!("username=\"{text}\"")
            }
            Self::Extended(escaped) => {
                let encode = |(is, it)| {
                    if is || it == ' ' { format!("%{:02X}", u32::from(it)) } else { String::from(it) }
                };
                format!("username*=UTF-8''{}", bits(*escaped).map(encode).collect::<String>())
            }
        }
    }
}

/// Repeated `name="value"`; the values of our challenge contain no quote.
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
