//! Certificate chains from a CA: parsing them, and checking that they match the order.

use std::time::Duration;

use rendezvous_core::acme::{Certificate, Names};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::key::Key;
use crate::x509;

/// How many seconds in the future a certificate's validity may begin, because clocks differ and not every CA backdates.
const AHEAD_MAX: u64 = 60 * 60;

/// Parses the certificates of a PEM text, the end-entity certificate first.
///
/// # Errors
/// The text contains no certificate, or a malformed one.
pub(super) fn parse(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("it contains no certificate".to_owned()),
        Ok(chain) if chain.iter().any(|it| x509::parts(it).is_none()) => {
            Err("a malformed certificate".to_owned())
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("it is not in PEM format: {error}")),
    }
}

/// The common name of the topmost certificate's issuer; empty if it has none.
pub(super) fn topmost_issuer(chain: &[CertificateDer<'_>]) -> String {
    let issuer =
        chain.last().and_then(|top| x509::parts(top)).and_then(|parts| x509::common_name(parts.issuer));
    issuer.unwrap_or_default()
}

/// The properties of the end-entity certificate.
pub(super) fn describe(chain: &[CertificateDer<'_>]) -> Option<Certificate> {
    let parts = x509::parts(chain.first()?)?;
    let (not_before, not_after) = parts.validity()?;
    Some(Certificate {
        not_before,
        not_after,
        authority_key_id: parts.authority_key_id().unwrap_or_default().to_vec(),
        serial: parts.serial.to_vec(),
    })
}

/// Checks that the chain can be used for `names` with this key at `now`, in seconds since 1970.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn check(
    chain: &[CertificateDer<'_>],
    key: &Key,
    names: &Names,
    now: u64,
    provider: &CryptoProvider,
) -> Result<Certificate, String> {
    let malformed = || "a malformed certificate".to_owned();
    let leaf = chain.first().ok_or_else(malformed)?;
    let parts = x509::parts(leaf).ok_or_else(malformed)?;
    if !key.is_of(parts.spki) {
        return Err("the certificate is for another key".to_owned());
    }
    let has = parts.names();
    let wanted = names.as_slice();
    if wanted.iter().any(|name| !has.contains(name)) || has.iter().any(|name| !wanted.contains(name)) {
        return Err(format!("the certificate is for other names: {}", has.join(", ")));
    }
    let described = describe(chain).ok_or_else(malformed)?;
    if described.not_after <= now {
        return Err("the certificate has expired, or this machine's clock is wrong".to_owned());
    }
    if described.not_before > now + AHEAD_MAX {
        return Err("the certificate is not valid yet, or this machine's clock is wrong".to_owned());
    }
    if let [leaf, intermediates @ .., top] = chain {
        let failed = |error: rustls::Error| format!("the certificates do not sign each other: {error}");
        let mut roots = RootCertStore::empty();
        roots.add(top.clone().into_owned()).map_err(failed)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(failed)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.max(described.not_before)));
        let algorithms = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, at, algorithms)
            .map_err(failed)?;
    }
    Ok(described)
}
