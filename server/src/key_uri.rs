//! The Key URI of authenticator programs: how an ID and its secret are written in `ids` and in tickets.
//!
//! `otpauth://totp/rendezvous:UUID?secret=BASE32&algorithm=SHA256&digits=8&period=30`

use std::fmt;

use data_encoding::{BASE32_NOPAD, DecodeError};
use rendezvous_core::id::Id;
use rendezvous_core::token::{Algorithm, Key, KeyError};
use zeroize::Zeroizing;

/// Why a text is no Key URI. Its text names the part, and never holds any of it: there is a secret in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUriError {
    /// It does not begin with `otpauth://totp/`.
    Scheme,
    /// What follows is not `rendezvous:` and a UUID.
    Label,
    /// A parameter that is not known.
    Unknown,
    /// A parameter that must be there is missing.
    Missing(&'static str),
    /// A parameter that is there twice.
    Twice(&'static str),
    /// A parameter with a value that makes no sense: its name, and what it should be.
    Invalid(&'static str, &'static str),
}

impl fmt::Display for KeyUriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a Key URI: ")?;
        match self {
            KeyUriError::Scheme => f.write_str("it begins with otpauth://totp/"),
            KeyUriError::Label => f.write_str("'rendezvous:' and a UUID follow otpauth://totp/"),
            KeyUriError::Unknown => f.write_str("a parameter is none of secret, algorithm, digits, period"),
            KeyUriError::Missing(name) => write!(f, "missing '{name}'"),
            KeyUriError::Twice(name) => write!(f, "'{name}' is there twice"),
            KeyUriError::Invalid(name, meant) => write!(f, "'{name}' is to be {meant}"),
        }
    }
}

impl std::error::Error for KeyUriError {}

/// Reads a Key URI. The parameters stand in any order; those that are absent are what the Key URI format says:
/// `algorithm=SHA1`, `digits=6`, `period=30` (and not what `id add` takes by default). `issuer` and `image`, which
/// authenticator programs add, are ignored.
///
/// # Errors
///
/// Says what is missing or wrong, without repeating it.
pub fn parse(text: &str) -> Result<(Id, Key), KeyUriError> {
    const PREFIX: &str = "otpauth://totp/";
    let (prefix, rest) = text.split_at_checked(PREFIX.len()).ok_or(KeyUriError::Scheme)?;
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return Err(KeyUriError::Scheme);
    }
    let (label, query) = rest.split_once('?').unwrap_or((rest, ""));
    let id = parse_label(label).ok_or(KeyUriError::Label)?;
    let mut given = Parameters::default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        given.read(parameter)?;
    }
    Ok((id, given.into_key()?))
}

/// Writes the Key URI, with all parameters. It has the secret in it.
pub fn print(id: Id, key: &Key) -> Zeroizing<String> {
    let secret = encode_secret(key.secret());
    let algorithm = key.algorithm().name();
    // Written in one go into one piece of memory: a string that grows leaves copies of the secret behind.
    let mut uri = Zeroizing::new(String::with_capacity(secret.len() + 128));
    let tail = format!("&algorithm={algorithm}&digits={}&period={}", key.digits(), key.period());
    for part in ["otpauth://totp/rendezvous:", &id.to_string(), "?secret=", &secret, &tail] {
        uri.push_str(part);
    }
    uri
}

/// Reads a secret in BASE32: upper or lower case, with padding or without.
///
/// # Errors
///
/// [`KeyUriError::Invalid`] for anything else, and for nothing.
pub fn decode_secret(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyUriError> {
    const BAD: KeyUriError = KeyUriError::Invalid("secret", "BASE32");
    let text = text.trim_end_matches('=');
    if text.is_empty() {
        return Err(KeyUriError::Missing("secret"));
    }
    // Where the last letter has more bits than the last octet needs, programs disagree about what they are: ignored.
    let mut spec = BASE32_NOPAD.specification();
    spec.check_trailing_bits = false;
    let encoding = spec.encoding().map_err(|_| BAD)?;
    let upper = Zeroizing::new(text.to_ascii_uppercase());
    let length = encoding.decode_len(upper.len()).map_err(|_: DecodeError| BAD)?;
    let mut octets = Zeroizing::new(vec![0; length]);
    match encoding.decode_mut(upper.as_bytes(), &mut octets) {
        Ok(length) => octets.truncate(length),
        Err(_) => return Err(BAD),
    }
    Ok(octets)
}

/// Writes a secret in BASE32, upper case, without padding.
pub fn encode_secret(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(BASE32_NOPAD.encode(secret))
}

/// `rendezvous:UUID`, or the UUID alone; the colon may be escaped, and spaces may follow it, as programs that keep
/// Key URIs write them.
fn parse_label(label: &str) -> Option<Id> {
    let label = label.replace("%3A", ":").replace("%3a", ":").replace("%20", " ");
    let uuid = match label.split_once(':') {
        Some((issuer, uuid)) => issuer.eq_ignore_ascii_case("rendezvous").then_some(uuid)?,
        None => &label,
    };
    Id::parse(uuid.trim_start_matches(' ').as_bytes())
}

#[derive(Default)]
struct Parameters {
    secret: Option<Zeroizing<Vec<u8>>>,
    algorithm: Option<Algorithm>,
    digits: Option<u8>,
    period: Option<u32>,
}

impl Parameters {
    fn read(&mut self, parameter: &str) -> Result<(), KeyUriError> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "secret" => once("secret", &mut self.secret, decode_secret(&value.replace("%3D", "="))?),
            "algorithm" => {
                let algorithm = Algorithm::parse(value);
                let algorithm =
                    algorithm.ok_or(KeyUriError::Invalid("algorithm", "SHA1, SHA256 or SHA512"))?;
                once("algorithm", &mut self.algorithm, algorithm)
            }
            "digits" => once("digits", &mut self.digits, number(value).ok_or(BAD_DIGITS)?),
            "period" => once("period", &mut self.period, number(value).ok_or(BAD_PERIOD)?),
            "issuer" | "image" => Ok(()),
            _ => Err(KeyUriError::Unknown),
        }
    }

    fn into_key(self) -> Result<Key, KeyUriError> {
        let mut secret = self.secret.ok_or(KeyUriError::Missing("secret"))?;
        let digits = self.digits.unwrap_or(6);
        let period = self.period.unwrap_or(30);
        // Taken out, not copied: the key wipes it from here on.
        let octets = std::mem::take(&mut *secret);
        Key::new(octets, self.algorithm.unwrap_or(Algorithm::Sha1), digits, period).map_err(|error| {
            match error {
                KeyError::Secret => KeyUriError::Invalid("secret", "1 to 256 octets"),
                KeyError::Digits => BAD_DIGITS,
                KeyError::Period => BAD_PERIOD,
            }
        })
    }
}

const BAD_DIGITS: KeyUriError = KeyUriError::Invalid("digits", "a number from 6 to 10");
const BAD_PERIOD: KeyUriError = KeyUriError::Invalid("period", "a number of seconds from 1 to 3600");

fn once<T>(name: &'static str, place: &mut Option<T>, value: T) -> Result<(), KeyUriError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(KeyUriError::Twice(name)),
    }
}

/// Digits alone: no sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
