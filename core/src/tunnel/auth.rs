//! The answers to a 407: Basic (RFC 7617) and Digest (RFC 7616).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::{BASE64, HEXLOWER};
use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::{Credentials, ProxyError};

/// A challenge that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: Scheme,
    /// The nonce of the last answer had expired; the password may be right.
    pub(super) is_stale: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Basic,
    Digest(Digest),
}

/// The parameters of a Digest challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    /// The name of the algorithm as the proxy has sent it.
    algorithm_name: Option<String>,
    /// Whether `qop=auth` is offered (RFC 7616 §3.3); without it the answer is that of RFC 2069.
    has_qop: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

/// The strongest challenge that can be answered.
pub(super) fn choose<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Challenge, ProxyError> {
    let mut best: Option<Challenge> = None;
    let mut has_ntlm = false;
    for (scheme, parameters) in fields.flat_map(challenges) {
        let rank = |challenge: &Challenge| match &challenge.scheme {
            Scheme::Basic => 0,
            Scheme::Digest(Digest { algorithm: Algorithm::Md5, .. }) => 1,
            Scheme::Digest(Digest { algorithm: Algorithm::Sha256, .. }) => 2,
        };
        let challenge = if scheme.eq_ignore_ascii_case("Basic") {
            Some(Challenge { scheme: Scheme::Basic, is_stale: false })
        } else if scheme.eq_ignore_ascii_case("Digest") {
            digest(&parameters)
        } else {
            has_ntlm |= ["NTLM", "Negotiate"].iter().any(|it| scheme.eq_ignore_ascii_case(it));
            None
        };
        if let Some(challenge) = challenge
            && best.as_ref().is_none_or(|best| rank(best) < rank(&challenge))
        {
            best = Some(challenge);
        }
    }
    best.ok_or(if has_ntlm { ProxyError::Ntlm } else { ProxyError::UnknownScheme })
}

/// The value of `Proxy-Authorization` for Basic.
pub(super) fn basic(credentials: &Credentials) -> String {
    let Credentials { user, password } = credentials;
    format!("Basic {}", BASE64.encode(format!("{user}:{}", password.0).as_bytes()))
}

impl Digest {
    /// The value of `Proxy-Authorization` for the `count`th request with this nonce.
    pub(super) fn answer(
        &self,
        credentials: &Credentials,
        target: &str,
        count: u32,
        seed: &[u8; 16],
    ) -> String {
        let Self { realm, nonce, opaque, algorithm, algorithm_name, has_qop } = self;
        let Credentials { user, password } = credentials;
        let hash = |text: String| match algorithm {
            Algorithm::Md5 => HEXLOWER.encode(&Md5::digest(text.as_bytes())),
            Algorithm::Sha256 => HEXLOWER.encode(&Sha256::digest(text.as_bytes())),
        };
        let secret = hash(format!("{user}:{realm}:{}", password.0));
        let request = hash(format!("CONNECT:{target}"));
        let client = HEXLOWER.encode(seed);
        let response = if *has_qop {
            hash(format!("{secret}:{nonce}:{count:08x}:{client}:auth:{request}"))
        } else {
            hash(format!("{secret}:{nonce}:{request}"))
        };
        let mut value = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            quoted(user),
            quoted(realm),
            quoted(nonce),
            quoted(target)
        );
        if let Some(name) = algorithm_name {
            value.push_str(&format!(", algorithm={name}"));
        }
        if let Some(opaque) = opaque {
            value.push_str(&format!(", opaque={}", quoted(opaque)));
        }
        if *has_qop {
            value.push_str(&format!(", qop=auth, nc={count:08x}, cnonce=\"{client}\""));
        }
        value
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn digest(parameters: &[(&str, String)]) -> Option<Challenge> {
    let get =
        |name: &str| parameters.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let algorithm = match get("algorithm").map(String::as_str) {
        None => Algorithm::Md5,
        Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
        Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
        Some(_) => return None,
    };
    let has_qop = match get("qop") {
        None => false,
        Some(list) if list.split(',').any(|it| it.trim().eq_ignore_ascii_case("auth")) => true,
        Some(_) => return None,
    };
    Some(Challenge {
        is_stale: get("stale").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        scheme: Scheme::Digest(Digest {
            realm: get("realm")?.clone(),
            nonce: get("nonce")?.clone(),
            opaque: get("opaque").cloned(),
            algorithm,
            algorithm_name: get("algorithm").cloned(),
            has_qop,
        }),
    })
}

/// Splits a field into challenges: each a scheme with its parameters (RFC 9110 §11.6.1). Malformed parts are skipped.
fn challenges(field: &str) -> Vec<(&str, Vec<(&str, String)>)> {
    let mut found: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some(end) = rest.find([' ', '\t', ',', '=']).or(Some(rest.len())).filter(|end| *end > 0) else {
            return found;
        };
        let (word, behind) = rest.split_at(end);
        let after = behind.trim_start_matches([' ', '\t']);
        match after.strip_prefix('=') {
            // A second `=`: padding of a token68, as in `Negotiate YII=`.
            Some(value) if !value.starts_with('=') || value.starts_with("=\"") => {
                let (value, behind) = value_of(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word, value));
                }
                rest = behind;
            }
            Some(padding) => rest = padding.trim_start_matches('='),
            None => {
                found.push((word, Vec::new()));
                rest = behind;
            }
        }
    }
}

/// A quoted string or a token, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (token, behind) = text.split_at(end);
        return (token.to_owned(), behind);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    (value, "")
}
