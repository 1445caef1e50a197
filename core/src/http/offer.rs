//! Offers of a direct connection ([`dtcp`](crate::dtcp)) in the heads by which a connector and an agent agree on a
//! stream: three fields of the request, and of its 101.
//!
//! ```text
//! DTCP-Key: 0123456789abcdef0123456789abcdef
//! DTCP-Host: 192.0.2.7:8022
//! DTCP-Host: [2001:db8::7]:8022
//! DTCP-Fingerprint: 64 hexadecimal digits, the SHA-256 of the certificate (DER)
//! ```
//!
//! An agent that takes part but refuses this time says why, and its 101 has no offer: `busy`, or `unreachable` where
//! neither side has a host.
//!
//! ```text
//! DTCP-Refused: busy
//! ```
//!
//! `DTCP-Host` is a list: there may be none, several, or one with several members. Whoever takes part in between may
//! merge the lines, and write the names in lower case. Peers that know nothing of this see fields they do not know.

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

/// What a head says of direct connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It has neither `DTCP-Key` nor a `DTCP-Refused` that can be read.
    Nothing,
    /// There is no offer, and this is why.
    Refused(Refusal),
    /// An offer. It has a fingerprint, and [`HOSTS_MAX`] hosts at most, usable or not.
    Offer(Offer),
    /// It has a `DTCP-Key`, but is no offer: something is missing, repeated, or can't be read.
    Malformed,
}

/// Appends the fields of an offer, of what [`read`] reads.
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

/// Appends the field that says why there is no offer.
pub fn write_refusal(refusal: Refusal, out: &mut Vec<u8>) {
    let word: &[u8] = match refusal {
        Refusal::Busy | Refusal::Conflict => b"busy",
        Refusal::Unreachable => b"unreachable",
    };
    for part in [REFUSED.as_bytes(), b": ", word, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Reads the offer in a complete head, of a request or of an answer.
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
    // Two that were merged are two.
    let is_one = key.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
    let key = Key::new(key).ok().filter(|_| is_one)?;
    let fingerprint = Fingerprint::parse(only(FINGERPRINT)?)?;
    let listed = fields.all(HOST).flat_map(|value| value.split(|byte| *byte == b','));
    let hosts = listed.map(trim).filter(|host| !host.is_empty()).take(HOSTS_MAX);
    let hosts = hosts.map(|host| String::from_utf8_lossy(host).into_owned()).collect();
    Some(Offer { key, hosts, fingerprint: Some(fingerprint) })
}
