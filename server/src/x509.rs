//! A parser for the parts of X.509 certificates that are needed for pins, names and subjects. It does not verify
//! anything, and accepts certificates that a verifier may refuse (version 1, expired), because a pin depends only on
//! the key.

use std::net::IpAddr;

use data_encoding::HEXUPPER;
use rendezvous_core::http::date::days_since_1970;
use rendezvous_core::subject::Subject;

/// The organisation in certificates made by this program, which identifies them later.
pub(crate) const MADE_HERE: &str = "self-signed by rendezvous";

/// Parts of a certificate, as DER.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// The content of the serial number's INTEGER.
    #[cfg_attr(not(feature = "acme"), expect(dead_code))]
    pub(crate) serial: &'a [u8],
    /// The whole Name.
    pub(crate) issuer: &'a [u8],
    /// The whole Name.
    pub(crate) subject: &'a [u8],
    /// The whole SubjectPublicKeyInfo.
    pub(crate) spki: &'a [u8],
    /// The content of the Validity.
    validity: &'a [u8],
    /// The content of the SEQUENCE of extensions, if any.
    extensions: &'a [u8],
}

/// Parses a certificate; `None` if it is malformed.
pub(crate) fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let mut certificate = Der(Der(certificate).expect(SEQUENCE)?.content);
    let mut tbs = Der(certificate.expect(SEQUENCE)?.content);
    tbs.skip_if(VERSION);
    let serial = tbs.expect(INTEGER)?.content;
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
    Some(Parts { serial, issuer, subject, spki, validity, extensions })
}

impl Parts<'_> {
    /// The first and last second of its validity, since 1970 (RFC 5280 §4.1.2.5).
    pub(crate) fn validity(&self) -> Option<(u64, u64)> {
        let mut times = Der(self.validity);
        Some((time(&times.next()?)?, time(&times.next()?)?))
    }

    /// The host names (in lower case) and addresses in it.
    pub(crate) fn names(&self) -> Vec<String> {
        self.alt_names().unwrap_or_default()
    }

    /// The subject as text (RFC 4514), in printable ASCII with everything else escaped. `None` if it is malformed or
    /// too long.
    pub(crate) fn subject_text(&self) -> Option<Subject> {
        name_text(self.subject)
    }

    fn alt_names(&self) -> Option<Vec<String>> {
        let mut names = Der(Der(self.extension(SUBJECT_ALT_NAME)?).expect(SEQUENCE)?.content);
        let mut all = Vec::new();
        while let Some(name) = names.next() {
            all.extend(match name.tag {
                DNS_NAME => std::str::from_utf8(name.content).ok().map(str::to_ascii_lowercase),
                IP_ADDRESS => address(name.content).map(|address| address.to_string()),
                _ => None,
            });
        }
        Some(all)
    }

    /// The keyIdentifier of the Authority Key Identifier (RFC 5280 §4.2.1.1).
    #[cfg(feature = "acme")]
    pub(crate) fn authority_key_id(&self) -> Option<&[u8]> {
        let mut fields = Der(Der(self.extension(AUTHORITY_KEY_ID)?).expect(SEQUENCE)?.content);
        Some(fields.expect(KEY_IDENTIFIER)?.content)
    }

    /// The value of an extension: the content of its OCTET STRING.
    fn extension(&self, wanted: &[u8]) -> Option<&[u8]> {
        let mut extensions = Der(self.extensions);
        while let Some(extension) = extensions.next() {
            let mut extension = Der(extension.content);
            if extension.expect(OBJECT_ID)?.content == wanted {
                extension.skip_if(BOOLEAN); // critical
                return Some(extension.expect(OCTET_STRING)?.content);
            }
        }
        None
    }
}

/// The issuer of a certificate in quotes, for messages: an intercepting proxy can be recognized by it. Everything but
/// printable ASCII is escaped.
pub(crate) fn issuer_shown(certificate: &[u8]) -> String {
    let issuer = parts(certificate).and_then(|parts| name_text(parts.issuer));
    issuer.map_or_else(|| "unreadable".to_owned(), |issuer| format!("{:?}", issuer.as_str()))
}

/// Formats a Name (RFC 4514).
fn name_text(name: &[u8]) -> Option<Subject> {
    let mut names = Vec::new();
    let mut rest = Der(Der(name).expect(SEQUENCE)?.content);
    while !rest.0.is_empty() {
        names.push(relative_name(rest.expect(SET)?.content)?);
    }
    // The text begins with the last one (RFC 4514 §2.1).
    names.reverse();
    Subject::new(&names.join(","))
}

/// Formats a RelativeDistinguishedName: its attributes, joined by `+`.
fn relative_name(set: &[u8]) -> Option<String> {
    let mut attributes = Vec::new();
    let mut rest = Der(set);
    while !rest.0.is_empty() {
        let mut attribute = Der(rest.expect(SEQUENCE)?.content);
        let kind = attribute.expect(OBJECT_ID)?.content;
        let value = attribute.next().filter(|_| attribute.0.is_empty())?;
        attributes.push(attribute_text(kind, &value)?);
    }
    Some(attributes.join("+"))
}

/// Formats an attribute of a name. If its type has no short name or its value is not a string, the value is formatted
/// as hexadecimal DER (RFC 4514 §2.4).
fn attribute_text(kind: &[u8], value: &Value<'_>) -> Option<String> {
    let name = SHORT_NAMES.iter().find(|(known, _)| *known == kind);
    match name.map(|(_, name)| (name, string(value))) {
        Some((name, Some(text))) => Some(format!("{name}={}", escaped(&text))),
        Some((name, None)) => Some(format!("{name}=#{}", HEXUPPER.encode(value.whole))),
        None => Some(format!("{}=#{}", dotted(kind)?, HEXUPPER.encode(value.whole))),
    }
}

/// The text of a DirectoryString or IA5String (RFC 5280 §4.1.2.4); `None` if it is another type or malformed.
fn string(value: &Value<'_>) -> Option<String> {
    let content = value.content;
    match value.tag {
        UTF8_STRING => std::str::from_utf8(content).ok().map(str::to_owned),
        NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING | VISIBLE_STRING => {
            content.is_ascii().then(|| content.iter().copied().map(char::from).collect())
        }
        BMP_STRING => {
            let (units, rest) = content.as_chunks();
            let units = units.iter().copied().map(u16::from_be_bytes);
            let text = char::decode_utf16(units).collect::<Result<String, _>>().ok();
            text.filter(|_| rest.is_empty())
        }
        UNIVERSAL_STRING => {
            let (units, rest) = content.as_chunks();
            let text =
                units.iter().copied().map(u32::from_be_bytes).map(char::from_u32).collect::<Option<String>>();
            text.filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// Escapes special characters of a name (RFC 4514 §2.4) and everything that is not printable ASCII, the latter as `\\`
/// and two hexadecimal digits per byte of its UTF-8 encoding.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (at, byte) in text.bytes().enumerate() {
        let is_edge = at == 0 || at + 1 == text.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' ' if is_edge => out.push_str("\\ "),
            b'#' if at == 0 => out.push_str("\\#"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.extend(["\\", &HEXUPPER.encode(&[byte])]),
        }
    }
    out
}

/// An object identifier in dotted decimals; `None` if it is malformed or has an arc above 2³².
fn dotted(content: &[u8]) -> Option<String> {
    let mut arcs = Vec::new();
    let mut arc = 0_u64;
    for (at, byte) in content.iter().enumerate() {
        arc = arc << 7 | u64::from(byte & 0x7f);
        if arc > u64::from(u32::MAX) {
            return None;
        }
        if byte & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
        } else if at + 1 == content.len() {
            return None;
        }
    }
    // The first two arcs share a number (X.690 §8.19.4).
    let first = *arcs.first()?;
    let root = (first / 40).min(2);
    let mut text = format!("{root}.{}", first - 40 * root);
    arcs.iter().skip(1).for_each(|arc| text += &format!(".{arc}"));
    Some(text)
}

/// The algorithm (content of the AlgorithmIdentifier) and the key's bytes of a SubjectPublicKeyInfo.
pub(crate) fn public_key(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Der(Der(spki).expect(SEQUENCE)?.content);
    let algorithm = fields.expect(SEQUENCE)?.content;
    match fields.expect(BIT_STRING)?.content.split_first()? {
        (0, key) => Some((algorithm, key)),
        _ => None,
    }
}

/// The last common name in a Name (DER); `None` if it has none.
pub(crate) fn common_name(name: &[u8]) -> Option<String> {
    let mut sets = Der(Der(name).expect(SEQUENCE)?.content);
    let mut found = None;
    while let Some(set) = sets.next() {
        let mut attributes = Der(set.content);
        while let Some(attribute) = attributes.next() {
            let mut fields = Der(attribute.content);
            if fields.expect(OBJECT_ID)?.content == COMMON_NAME {
                found = fields.next().map(|value| String::from_utf8_lossy(value.content).into_owned());
            }
        }
    }
    found
}

/// Converts an ECDSA P-256 signature in DER (RFC 3279 §2.2.3) to r and s, 32 bytes each, big-endian.
#[cfg(feature = "acme")]
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

/// Parses a UTCTime or GeneralizedTime in the forms of RFC 5280 §4.1.2.5, in seconds since 1970. Earlier times count as
/// the first day of 1970.
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
const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const VISIBLE_STRING: u8 = 0x1a;
const UNIVERSAL_STRING: u8 = 0x1c;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// Short names of RFC 4514 §3, and others that are registered (RFC 4520) and common in certificates.
const SHORT_NAMES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "sn"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "givenName"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
#[cfg(feature = "acme")]
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
#[cfg(feature = "acme")]
const KEY_IDENTIFIER: u8 = 0x80;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The unread rest.
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

    /// Reads the next value: tag, length (short, or in one to three bytes), content.
    fn next(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Value { tag, whole, content })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::string::BmpString;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::{issuer_shown, parts};

    fn certificate(names: Vec<(DnType, DnValue)>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        names.into_iter().for_each(|(kind, value)| subject.push(kind, value));
        params.distinguished_name = subject;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn text(names: Vec<(DnType, DnValue)>) -> Option<String> {
        let der = certificate(names);
        parts(&der).unwrap().subject_text().map(|subject| subject.to_string())
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn a_subject_is_shown_from_its_last_name_to_its_first() {
        let names = vec![
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::OrganizationName, utf8("Example, Inc.")),
            (DnType::CommonName, utf8("anna")),
        ];
        assert_eq!(text(names).unwrap(), r"CN=anna,O=Example\, Inc.,C=DE");
        assert_eq!(text(Vec::new()).unwrap(), "");
    }

    #[test]
    fn what_could_stand_for_something_else_is_escaped() {
        for (value, shown) in [
            ("a,CN=root", r"a\,CN\=root"),
            (r#"a"+;<>\b"#, r#"a\"\+\;\<\>\\b"#),
            (" #a #", r"\ #a #"),
            ("#a ", r"\#a\ "),
            (" ", r"\ "),
            ("a\r\nX: y\0", r"a\0D\0AX: y\00"),
            ("é", r"\C3\A9"),
        ] {
            assert_eq!(text(vec![(DnType::CommonName, utf8(value))]).unwrap(), format!("CN={shown}"));
        }
        let wide = DnValue::BmpString(BmpString::try_from("é").unwrap());
        assert_eq!(text(vec![(DnType::CommonName, wide)]).unwrap(), r"CN=\C3\A9");
    }

    #[test]
    fn a_type_without_a_short_name_is_shown_by_its_number_and_its_der() {
        let kind = DnType::CustomDnType(vec![1, 2, 840, 113_549]);
        assert_eq!(text(vec![(kind, utf8("CN=x"))]).unwrap(), "1.2.840.113549=#0C04434E3D78");
    }

    #[test]
    fn a_subject_that_is_too_long_is_not_shown() {
        assert!(text(vec![(DnType::CommonName, utf8(&"a".repeat(2_045)))]).is_some());
        assert!(text(vec![(DnType::CommonName, utf8(&"a".repeat(2_046)))]).is_none());
    }

    #[test]
    fn an_issuer_is_shown_on_one_line_in_plain_letters() {
        let der = certificate(vec![(DnType::CommonName, utf8("F\u{201c}\r\nevent=x \u{1b}[31m"))]);
        assert_eq!(issuer_shown(&der), r#""CN=F\\E2\\80\\9C\\0D\\0Aevent\\=x \\1B[31m""#);
        assert_eq!(issuer_shown(b"rubbish"), "unreadable");
    }

    #[test]
    fn rubbish_is_refused_or_shown_in_plain_letters() {
        let names = vec![
            (DnType::OrganizationName, utf8("Example, Inc.")),
            (DnType::CommonName, DnValue::BmpString(BmpString::try_from("anna").unwrap())),
        ];
        let whole = certificate(names);
        let show = |der: &[u8]| {
            let subject = parts(der).and_then(|parts| parts.subject_text());
            assert!(subject.is_none_or(|it| it.as_str().bytes().all(|byte| matches!(byte, b' '..=b'~'))));
        };
        for at in 0..whole.len() {
            show(&whole[..at]);
            for value in [0x00, 0x01, 0x0c, 0x1c, 0x1e, 0x30, 0x31, 0x80, 0x83, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                show(&changed);
            }
        }
    }
}
