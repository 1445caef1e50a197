//! Certificate chains from a CA: parsing them, and checking that they match the order.

use std::time::Duration;

use rendezvous_core::acme::{Certificate, Names};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::{self, PemObject};
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
        Err(pem::Error::MissingSectionEnd { .. }) => Err("it is cut off in the middle".to_owned()),
        Err(_) => Err("it is not in PEM format".to_owned()),
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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;
    use crate::tls_config::provider;

    const FROM: u64 = 1_800_000_000;
    const UNTIL: u64 = FROM + 90 * 86_400;

    fn authority(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    /// A key, and a certificate for `a.example` with its two intermediates.
    fn made() -> (Key, [CertificateDer<'static>; 3]) {
        let generate = || KeyPair::generate().expect("a key");
        let date = |at| date_time_ymd(1970, 1, 1) + Duration::from_secs(at);
        let root = Issuer::new(authority("Root"), generate());
        let (first_key, second_key, own) = (generate(), generate(), generate());
        let first = authority("First").signed_by(&first_key, &root).expect("an intermediate");
        let issuer = Issuer::new(authority("First"), first_key);
        let second = authority("Second").signed_by(&second_key, &issuer).expect("an intermediate");
        let mut leaf = CertificateParams::new(["a.example".to_owned()]).expect("a name");
        (leaf.not_before, leaf.not_after) = (date(FROM), date(UNTIL));
        let leaf =
            leaf.signed_by(&own, &Issuer::new(authority("Second"), second_key)).expect("a certificate");
        let key = Key::from_pem(own.serialize_pem().as_bytes()).expect("a key of P-256");
        (key, [leaf, second, first].map(|it| it.der().clone()))
    }

    fn outcome(chain: &[CertificateDer<'_>], key: &Key, name: &str, now: u64) -> Result<(u64, u64), String> {
        let names = Names::parse([name]).expect("a name");
        check(chain, key, &names, now, &provider()).map(|it| (it.not_before, it.not_after))
    }

    #[test]
    fn a_certificate_is_used_for_its_key_its_names_and_its_time() {
        let (key, chain) = made();
        let at = |now| outcome(&chain, &key, "a.example", now);
        assert_eq!(at(FROM), Ok((FROM, UNTIL)));
        assert_eq!(at(FROM - AHEAD_MAX), Ok((FROM, UNTIL)), "another clock is a little ahead");
        assert!(at(FROM - AHEAD_MAX - 1).is_err_and(|why| why.contains("not valid yet")));
        assert_eq!(at(UNTIL - 1), Ok((FROM, UNTIL)));
        assert!(at(UNTIL).is_err_and(|why| why.contains("expired")));
        assert!(outcome(&chain, &key, "b.example", FROM).is_err_and(|why| why.contains("a.example")));
        let other = Key::generate().expect("a key");
        assert!(outcome(&chain, &other, "a.example", FROM).is_err_and(|why| why.contains("another key")));
        assert!(outcome(&[], &key, "a.example", FROM).is_err());
    }

    #[test]
    fn the_certificates_of_a_chain_sign_each_other() {
        let (key, [leaf, second, first]) = made();
        let (_, [_, stranger, _]) = made();
        let is_used = |chain: &[&CertificateDer<'static>]| {
            let chain: Vec<_> = chain.iter().map(|it| (*it).clone()).collect();
            outcome(&chain, &key, "a.example", FROM).is_ok()
        };
        assert!(is_used(&[&leaf]) && is_used(&[&leaf, &second]) && is_used(&[&leaf, &second, &first]));
        assert!(!is_used(&[&leaf, &first]), "one is missing");
        assert!(!is_used(&[&leaf, &stranger]) && !is_used(&[&leaf, &second, &stranger]));
        assert!(!is_used(&[&second, &leaf, &first]), "the end-entity certificate comes first");
    }
}
