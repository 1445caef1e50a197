//! Offers of a direct connection ([`dtcp`](crate::dtcp)) in the heads with which connector and agent set up a stream:
//! three fields of the request, and of its 101.
//!
//! ```text
//! DTCP-Key: 0123456789abcdef0123456789abcdef
//! DTCP-Host: 192.0.2.7:8022
//! DTCP-Host: [2001:db8::7]:8022
//! DTCP-Fingerprint: 64 hexadecimal digits, the SHA-256 of the certificate (DER)
//! ```
//!
//! If an agent that supports direct connections refuses one, its 101 has the reason instead of an offer: `busy`, or
//! `unreachable` if neither side has a host.
//!
//! ```text
//! DTCP-Refused: busy
//! ```
//!
//! `DTCP-Host` is a list: it may be absent, be repeated, or have several members. An intermediary may merge the
//! lines, and write the names in lower case. Peers without this extension ignore the fields.

use alloc::string::String;
use alloc::vec::Vec;

use super::fields::{self, Fields};
use super::head::split_line;
use super::syntax::trim;
use crate::fingerprint::Fingerprint;
use crate::offer::{HOSTS_MAX, Key, Offer, Refusal};

const KEY: &str = "DTCP-Key";
const HOST: &str = "DTCP-Host";
const FINGERPRINT: &str = "DTCP-Fingerprint";
const REFUSED: &str = "DTCP-Refused";

/// The offer in a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Neither `DTCP-Key` nor a valid `DTCP-Refused`.
    Nothing,
    /// There is no offer, for this reason.
    Refused(Refusal),
    /// An offer. It has a fingerprint, and at most [`HOSTS_MAX`] hosts, usable or not.
    Offer(Offer),
    /// There is a `DTCP-Key`, but a field is missing, repeated or malformed.
    Malformed,
}

/// Appends the fields of an offer, which [`read`] parses.
pub fn write(offer: &Offer, out: &mut Vec<u8>) {
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    field(KEY, offer.key.as_bytes());
    for host in offer.hosts.iter().take(HOSTS_MAX) {
        field(HOST, host.as_bytes());
    }
    if let Some(fingerprint) = offer.fingerprint {
        field(FINGERPRINT, alloc::format!("{fingerprint}").as_bytes());
    }
}

/// Appends the field with the reason why there is no offer.
pub fn write_refusal(refusal: Refusal, out: &mut Vec<u8>) {
    let word: &[u8] = match refusal {
        Refusal::Busy | Refusal::Conflict => b"busy",
        Refusal::Unreachable => b"unreachable",
    };
    for part in [REFUSED.as_bytes(), b": ", word, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Parses the offer in a complete head, of a request or of a response.
#[must_use]
pub fn read(head: &[u8]) -> Offered {
    let raw = head.strip_prefix(b"\r\n").unwrap_or(head);
    let Some((_, lines)) = split_line(raw) else { return Offered::Nothing };
    let mut room = fields::room();
    match Fields::parse(lines, &mut room) {
        Ok(fields) if fields.has(KEY) => of(&fields).map_or(Offered::Malformed, Offered::Offer),
        Ok(fields) => match fields.only(REFUSED, super::head::Refusal::FieldValue) {
            Ok(Some(b"busy")) => Offered::Refused(Refusal::Busy),
            Ok(Some(b"unreachable")) => Offered::Refused(Refusal::Unreachable),
            _ => Offered::Nothing,
        },
        Err(_) => Offered::Nothing,
    }
}

fn of(fields: &Fields<'_, '_>) -> Option<Offer> {
    let only = |name| fields.only(name, super::head::Refusal::FieldValue).ok().flatten();
    let key = only(KEY)?;
    // Merged keys are refused.
    let is_one = key.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
    let key = Key::new(key).ok().filter(|_| is_one)?;
    let fingerprint = Fingerprint::parse(only(FINGERPRINT)?)?;
    let listed = fields.all(HOST).flat_map(|value| value.split(|byte| *byte == b','));
    let hosts = listed.map(trim).filter(|host| !host.is_empty()).take(HOSTS_MAX);
    let hosts = hosts.map(|host| String::from_utf8_lossy(host).into_owned()).collect();
    Some(Offer { key, hosts, fingerprint: Some(fingerprint) })
}
