//! Certificates that change at runtime: those from a CA, and those for the CA's challenges.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::alpn;
use crate::cert::Identity;

/// A store of certificates by server name, shared by all TLS configurations that serve from it. A change applies to
/// later handshakes; existing connections are unaffected.
///
/// Its lock is held only for one look-up or insertion.
#[derive(Debug, Default)]
pub struct LiveCertificates {
    shared: RwLock<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By name in lower case, without wildcards.
    certificates: BTreeMap<String, Identity>,
    /// The certificates for validators (RFC 8737 §3), by the validated name.
    challenges: BTreeMap<String, Arc<CertifiedKey>>,
}

impl LiveCertificates {
    /// Serves a certificate for `name` from now on.
    pub fn set(&self, name: &str, identity: Identity) {
        self.write().certificates.insert(name.to_ascii_lowercase(), identity);
    }

    /// Removes the certificates whose name `keeps` rejects.
    pub fn retain(&self, keeps: impl Fn(&str) -> bool) {
        self.write().certificates.retain(|name, _| keeps(name));
    }

    /// The certificate for `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Identity> {
        self.read().certificates.get(name.trim_end_matches('.').to_ascii_lowercase().as_str()).cloned()
    }

    /// Presents `certified` to validators of `name` from now on.
    pub fn provide(&self, name: &str, certified: Arc<CertifiedKey>) {
        self.write().challenges.insert(name.to_ascii_lowercase(), certified);
    }

    /// Refuses validators of `name` with an alert from now on.
    pub fn withdraw(&self, name: &str) {
        self.write().challenges.remove(name.to_ascii_lowercase().as_str());
    }

    /// The certificate for validators of `name`.
    #[must_use]
    pub fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.read().challenges.get(name.to_ascii_lowercase().as_str()).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the live certificates, or else what `otherwise` selects.
#[derive(Debug)]
pub(crate) struct LiveOr {
    pub(crate) live: Arc<LiveCertificates>,
    pub(crate) otherwise: Arc<dyn ResolvesServerCert>,
}

impl ResolvesServerCert for LiveOr {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let live = hello.server_name().and_then(|name| self.live.get(name));
        match live.filter(|it| it.certified.key.choose_scheme(hello.signature_schemes()).is_some()) {
            Some(identity) => Some(identity.certified),
            None => self.otherwise.resolve(hello),
        }
    }
}

/// Presents the challenge certificates only to clients whose only protocol is `acme-tls/1` (RFC 8737 §3). Other clients
/// get what `otherwise` selects, or are refused without it.
#[derive(Debug)]
pub(crate) struct ChallengesOr {
    pub(crate) live: Arc<LiveCertificates>,
    pub(crate) otherwise: Option<Arc<dyn ResolvesServerCert>>,
}

impl ResolvesServerCert for ChallengesOr {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered: Vec<&[u8]> = hello.alpn().map(Iterator::collect).unwrap_or_default();
        if offered == [alpn::CHALLENGE] {
            return self.live.challenge(hello.server_name()?);
        }
        // The usual certificate must not be used with that protocol, which would be negotiated here.
        let is_only_common = offered.contains(&alpn::CHALLENGE)
            && !offered.contains(&alpn::HTTP_1_1)
            && !offered.contains(&alpn::HTTP_1_0);
        if is_only_common { None } else { self.otherwise.as_ref()?.resolve(hello) }
    }
}
