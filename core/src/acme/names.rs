//! The names of a certificate.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The most names of one certificate (the limit of Let's Encrypt).
pub const NAMES_MAX: usize = 100;

/// The DNS names of one certificate, at least one, in the order in which they were given.
///
/// All names are in lower case, in A-labels, without a final dot and without a wildcard; none is twice. They are the same
/// in the order, in the certificate request and in the SNI of the CA's validators.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names(Vec<String>);

impl Names {
    /// Reads names. `None` if there is none, if there are more than [`NAMES_MAX`], or if one is no DNS name of at least two
    /// labels: an address, a wildcard, a name with characters that are not ASCII. Upper case and a final dot are accepted,
    /// and repeated names are left out.
    #[must_use]
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut parsed: Vec<String> = Vec::new();
        for name in names {
            let name = normalize(name)?;
            if !parsed.contains(&name) {
                parsed.push(name);
            }
        }
        (!parsed.is_empty() && parsed.len() <= NAMES_MAX).then_some(Self(parsed))
    }

    /// The names.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// The names with spaces between them.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// A DNS name in lower case without its final dot; `None` if it is none (RFC 1123 §2.1).
fn normalize(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
    };
    let labels = name.split('.').count();
    let is_address = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|it| it.is_ascii_digit()));
    (name.len() <= 253 && labels >= 2 && !is_address && name.split('.').all(is_label)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_are_normalized_and_what_is_no_name_is_refused() {
        let names = Names::parse(["Relay.Example.COM.", "relay.example.com", "a.relay.example.com"]);
        assert_eq!(names.map(|it| it.to_string()).as_deref(), Some("relay.example.com a.relay.example.com"));
        for wrong in
            ["", ".", "com", "*.example.com", "192.0.2.1", "a..b", "-a.b", "bücher.example", "a b.c", "::1"]
        {
            assert_eq!(Names::parse([wrong]), None, "{wrong}");
        }
        assert_eq!(Names::parse([]), None);
    }
}
