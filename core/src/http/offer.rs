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
//! `DTCP-Host` is a list: there may be none, several, or one with several members. Whoever takes part in between may
//! merge the lines, and write the names in lower case. Peers that know nothing of this see fields they do not know.

use alloc::string::String;
use alloc::vec::Vec;

use super::fields::{self, Fields};
use super::head::{Refusal, split_line};
use super::syntax::trim;
use crate::dtcp::{Fingerprint, HOSTS_MAX, Key, Offer};

const KEY: &str = "DTCP-Key";
const HOST: &str = "DTCP-Host";
const FINGERPRINT: &str = "DTCP-Fingerprint";

/// What a head says of direct connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It has no `DTCP-Key`.
    Nothing,
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

/// Reads the offer in a complete head, of a request or of an answer.
#[must_use]
pub fn read(head: &[u8]) -> Offered {
    let raw = head.strip_prefix(b"\r\n").unwrap_or(head);
    let Some((_, lines)) = split_line(raw) else { return Offered::Nothing };
    let mut room = fields::room();
    match Fields::parse(lines, &mut room) {
        Ok(fields) if fields.has(KEY) => of(&fields).map_or(Offered::Malformed, Offered::Offer),
        _ => Offered::Nothing,
    }
}

fn of(fields: &Fields<'_, '_>) -> Option<Offer> {
    let only = |name| fields.only(name, Refusal::FieldValue).ok().flatten();
    let key = only(KEY)?;
    // Two that were merged are two.
    let is_one = key.iter().all(|octet| octet.is_ascii_graphic() && *octet != b',');
    let key = Key::new(key).ok().filter(|_| is_one)?;
    let fingerprint = Fingerprint::parse(only(FINGERPRINT)?)?;
    let listed = fields.all(HOST).flat_map(|value| value.split(|octet| *octet == b','));
    let hosts = listed.map(trim).filter(|host| !host.is_empty()).take(HOSTS_MAX);
    let hosts = hosts.map(|host| String::from_utf8_lossy(host).into_owned()).collect();
    Some(Offer { key, hosts, fingerprint: Some(fingerprint) })
}
