//! As much of X.509 as a pin and a list of names need. Nothing here is trusted: it reads certificates that a
//! validator may refuse (version 1, expired), because a pin is about the key alone.

use std::net::IpAddr;

use rendezvous_core::http::date::days_since_1970;

/// Parts of a certificate, as DER.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// The whole Name.
    pub(crate) issuer: &'a [u8],
    /// The whole Name.
    pub(crate) subject: &'a [u8],
    /// The whole SubjectPublicKeyInfo.
    pub(crate) spki: &'a [u8],
    /// The content of the Validity.
    validity: &'a [u8],
    /// The extensions, if any: the content of their SEQUENCE.
    extensions: &'a [u8],
}

/// Takes a certificate apart; `None` for what is none.
pub(crate) fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let mut certificate = Der(Der(certificate).expect(SEQUENCE)?.content);
    let mut tbs = Der(certificate.expect(SEQUENCE)?.content);
    tbs.skip_if(VERSION);
    tbs.expect(INTEGER)?; // the serial number
    tbs.expect(SEQUENCE)?; // the signature's algorithm
    let issuer = tbs.expect(SEQUENCE)?.whole;
    let validity = tbs.expect(SEQUENCE)?.content;
    let subject = tbs.expect(SEQUENCE)?.whole;
    let spki = tbs.expect(SEQUENCE)?.whole;
    let mut extensions: &[u8] = &[];
    while let Some(field) = tbs.next() {
        if field.tag == EXTENSIONS {
            extensions = Der(field.content).expect(SEQUENCE)?.content;
        }
    }
    Some(Parts { issuer, subject, spki, validity, extensions })
}

impl Parts<'_> {
    /// The first and the last second in which it is valid, since 1970 (RFC 5280 §4.1.2.5).
    pub(crate) fn validity(&self) -> Option<(u64, u64)> {
        let mut times = Der(self.validity);
        Some((time(&times.next()?)?, time(&times.next()?)?))
    }

    /// The host names (in lower case) and addresses that it is for.
    pub(crate) fn names(&self) -> Vec<String> {
        self.alt_names().unwrap_or_default()
    }

    fn alt_names(&self) -> Option<Vec<String>> {
        let mut extensions = Der(self.extensions);
        while let Some(extension) = extensions.next() {
            let mut extension = Der(extension.content);
            if extension.expect(OBJECT_ID)?.content != SUBJECT_ALT_NAME {
                continue;
            }
            extension.skip_if(BOOLEAN); // critical
            let mut names = Der(Der(extension.expect(OCTET_STRING)?.content).expect(SEQUENCE)?.content);
            let mut all = Vec::new();
            while let Some(name) = names.next() {
                all.extend(match name.tag {
                    DNS_NAME => std::str::from_utf8(name.content).ok().map(str::to_ascii_lowercase),
                    IP_ADDRESS => address(name.content).map(|address| address.to_string()),
                    _ => None,
                });
            }
            return Some(all);
        }
        None
    }
}

/// The algorithm (content of the AlgorithmIdentifier) and the key's octets of a SubjectPublicKeyInfo.
pub(crate) fn public_key(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Der(Der(spki).expect(SEQUENCE)?.content);
    let algorithm = fields.expect(SEQUENCE)?.content;
    match fields.expect(BIT_STRING)?.content.split_first()? {
        (0, key) => Some((algorithm, key)),
        _ => None,
    }
}

/// An ECDSA signature of P-256 in DER (RFC 3279 §2.2.3) as r and s, 32 bytes each, big-endian.
pub(crate) fn ecdsa_signature(der: &[u8]) -> Option<[u8; 64]> {
    let mut numbers = Der(Der(der).expect(SEQUENCE)?.content);
    let mut signature = [0; 64];
    for half in signature.chunks_exact_mut(32) {
        let content = numbers.expect(INTEGER)?.content;
        let digits = content.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &content[first..]);
        let start = half.len().checked_sub(digits.len())?;
        half[start..].copy_from_slice(digits);
    }
    Some(signature)
}

/// A UTCTime or GeneralizedTime in the forms of RFC 5280 §4.1.2.5, in seconds since 1970. What is
/// before 1970 counts as its first day.
fn time(value: &Value<'_>) -> Option<u64> {
    let text = std::str::from_utf8(value.content).ok()?.strip_suffix('Z')?;
    let (year, rest) = match value.tag {
        UTC_TIME => {
            let (year, rest) = (number(text, 0, 2)?, text.get(2..)?);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => (number(text, 0, 4)?, text.get(4..)?),
        _ => return None,
    };
    let field = |at| number(rest, at, 2);
    let (month, day, hour, minute, second) = (field(0)?, field(2)?, field(4)?, field(6)?, field(8)?);
    if rest.len() != 10 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_since_1970(year, month - 1, day).unwrap_or(0);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(text: &str, at: usize, len: usize) -> Option<u64> {
    let digits = text.get(at..at + len)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

struct Value<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
}

impl<'a> Der<'a> {
    fn expect(&mut self, tag: u8) -> Option<Value<'a>> {
        self.next().filter(|value| value.tag == tag)
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }

    /// The next value: tag, length (short, or in one to three octets), content.
    fn next(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Value { tag, whole, content })
    }
}
