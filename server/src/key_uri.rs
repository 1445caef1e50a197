//! The Key URI of authenticator apps, which holds an ID and its secret in the file `ids` and in tickets.
//!
//! `otpauth://totp/rendezvous:UUID?secret=BASE32&algorithm=SHA256&digits=8&period=30`

use std::fmt;

use data_encoding::{BASE32_NOPAD, DecodeError};
use rendezvous_core::id::Id;
use rendezvous_core::token::{Algorithm, Key, KeyError};
use zeroize::Zeroizing;

/// Why a text is not a Key URI. The message names the part but never repeats it, because it may contain a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUriError {
    /// It does not begin with `otpauth://totp/`.
    Scheme,
    /// The label is not `rendezvous:` and a UUID.
    Label,
    /// An unknown parameter.
    Unknown,
    /// A required parameter is missing.
    Missing(&'static str),
    /// A parameter is repeated.
    Twice(&'static str),
    /// A parameter has an invalid value: its name and the expected value.
    Invalid(&'static str, &'static str),
}

impl fmt::Display for KeyUriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a Key URI: ")?;
        match self {
            KeyUriError::Scheme => f.write_str("it must begin with otpauth://totp/"),
            KeyUriError::Label => f.write_str("otpauth://totp/ must be followed by 'rendezvous:' and a UUID"),
            KeyUriError::Unknown => {
                f.write_str("unknown parameter (known: secret, algorithm, digits, period)")
            }
            KeyUriError::Missing(name) => write!(f, "missing '{name}'"),
            KeyUriError::Twice(name) => write!(f, "'{name}' is repeated"),
            KeyUriError::Invalid(name, meant) => write!(f, "'{name}' must be {meant}"),
        }
    }
}

impl std::error::Error for KeyUriError {}

/// Parses a Key URI. Parameters may be in any order. Absent ones have the defaults of the Key URI format,
/// `algorithm=SHA1`, `digits=6` and `period=30`, which differ from those of `id add`. `issuer` and `image`, which
/// authenticator apps add, are ignored.
///
/// # Errors
///
/// The missing or invalid part, without repeating it.
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

/// Formats a Key URI with all parameters, including the secret.
pub fn print(id: Id, key: &Key) -> Zeroizing<String> {
    let secret = encode_secret(key.secret());
    let algorithm = key.algorithm().name();
    // Allocated once with its full capacity: a growing string leaves copies of the secret in memory.
    let mut uri = Zeroizing::new(String::with_capacity(secret.len() + 128));
    let tail = format!("&algorithm={algorithm}&digits={}&period={}", key.digits(), key.period());
    for part in ["otpauth://totp/rendezvous:", &id.to_string(), "?secret=", &secret, &tail] {
        uri.push_str(part);
    }
    uri
}

/// Decodes a secret in BASE32: upper or lower case, with or without padding.
///
/// # Errors
///
/// [`KeyUriError::Invalid`] for anything else, including an empty text.
pub fn decode_secret(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyUriError> {
    const BAD: KeyUriError = KeyUriError::Invalid("secret", "BASE32");
    let text = text.trim_end_matches('=');
    if text.is_empty() {
        return Err(KeyUriError::Missing("secret"));
    }
    // Programs disagree on unused bits of the last character: ignore them.
    let mut spec = BASE32_NOPAD.specification();
    spec.check_trailing_bits = false;
    let encoding = spec.encoding().map_err(|_| BAD)?;
    let upper = Zeroizing::new(text.to_ascii_uppercase());
    let length = encoding.decode_len(upper.len()).map_err(|_: DecodeError| BAD)?;
    let mut bytes = Zeroizing::new(vec![0; length]);
    match encoding.decode_mut(upper.as_bytes(), &mut bytes) {
        Ok(length) => bytes.truncate(length),
        Err(_) => return Err(BAD),
    }
    Ok(bytes)
}

/// Encodes a secret in BASE32, upper case, without padding.
pub fn encode_secret(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(BASE32_NOPAD.encode(secret))
}

/// Parses `rendezvous:UUID` or a bare UUID. The colon may be percent-encoded and spaces may follow it, as some
/// authenticator apps write it.
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
        // Moved, not copied: the key wipes it on drop.
        let bytes = std::mem::take(&mut *secret);
        Key::new(bytes, self.algorithm.unwrap_or(Algorithm::Sha1), digits, period).map_err(
            |error| match error {
                KeyError::Secret => KeyUriError::Invalid("secret", "1 to 256 bytes"),
                KeyError::Digits => BAD_DIGITS,
                KeyError::Period => BAD_PERIOD,
            },
        )
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

/// Parses digits without a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
