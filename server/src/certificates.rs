//! The certificates of a server, selected by the server name (SNI, RFC 6066 §3) of each ClientHello.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert::{self, Identity};
use crate::pin::Pin;
use crate::x509;

/// The certificates of a server, in the order given. There is at least one.
///
/// A client gets the first certificate for its server name, else the first with a matching wildcard (RFC 6125 §6.4.3:
/// one label), else the first of all. Among several for one name, those with a key that the client can verify are
/// preferred.
#[derive(Debug)]
pub struct Certificates {
    first: Named,
    others: Vec<Named>,
}

#[derive(Debug)]
struct Named {
    /// In lower case; wildcards begin with `*.`.
    names: Vec<String>,
    identity: Identity,
}

impl Certificates {
    /// The certificates `first` and `others`.
    #[must_use]
    pub fn new(first: Identity, others: Vec<Identity>) -> Self {
        let named = |identity: Identity| {
            let names = identity.certified.cert.first().map(|leaf| cert::names_of(leaf));
            Named { names: names.unwrap_or_default(), identity }
        };
        Self { first: named(first), others: others.into_iter().map(named).collect() }
    }

    /// The first certificate.
    #[must_use]
    pub fn into_first(self) -> Identity {
        self.first.identity
    }

    /// Whether one of the certificates is for `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.all().any(|it| it.is_for(name) || it.is_wildcard_for(name))
    }

    /// The pin of the certificate that a client gets for `name`, or without a server name.
    #[must_use]
    pub fn pin(&self, name: Option<&str>) -> Pin {
        self.select(name, |_| true).identity.pin
    }

    /// The end of validity of each certificate, in seconds since 1970, by its first name. Of several for one name, the
    /// earliest.
    #[must_use]
    pub fn expiries(&self) -> BTreeMap<String, u64> {
        let mut expiries = BTreeMap::new();
        for it in self.all() {
            let leaf = it.identity.certified.cert.first();
            let validity = leaf.and_then(|leaf| x509::parts(leaf)?.validity());
            let Some((_, not_after)) = validity else { continue };
            let name = it.names.first().cloned().unwrap_or_default();
            let expiry: &mut u64 = expiries.entry(name).or_insert(not_after);
            *expiry = not_after.min(*expiry);
        }
        expiries
    }

    /// The pins of all certificates, in order.
    pub fn pins(&self) -> impl Iterator<Item = Pin> {
        self.all().map(|it| it.identity.pin)
    }

    fn all(&self) -> impl Iterator<Item = &Named> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn select(&self, name: Option<&str>, can_verify: impl Fn(&CertifiedKey) -> bool) -> &Named {
        let name = name.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let best = |fits: &dyn Fn(&Named) -> bool| {
            let mut fitting = self.all().filter(|it| fits(it)).peekable();
            let first = fitting.peek().copied();
            fitting.find(|it| can_verify(&it.identity.certified)).or(first)
        };
        let exact = best(&|it| it.is_for(&name));
        exact.or_else(|| best(&|it| it.is_wildcard_for(&name))).unwrap_or(&self.first)
    }
}

impl Named {
    fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    fn is_wildcard_for(&self, name: &str) -> bool {
        let Some((_, parent)) = name.split_once('.') else { return false };
        self.names.iter().any(|own| own.strip_prefix("*.") == Some(parent))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let selected =
            self.select(hello.server_name(), |certified| certified.key.choose_scheme(schemes).is_some());
        Some(selected.identity.certified.clone())
    }
}

impl From<Identity> for Certificates {
    fn from(identity: Identity) -> Self {
        Self::new(identity, Vec::new())
    }
}
