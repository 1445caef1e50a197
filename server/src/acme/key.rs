//! Keys for ACME accounts and certificates: ECDSA with P-256.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
    SigningKey,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::x509;

/// A private key.
pub struct Key(KeyPair);

/// Why a key could not be made or used; a text for logs that contains no part of the key.
pub type Error = String;

impl Key {
    /// Generates a key.
    ///
    /// # Errors
    /// The system provides no entropy.
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(|error| cannot("make a key", &error))
    }

    /// Parses PKCS#8 in PEM (RFC 7468 §10).
    ///
    /// # Errors
    /// It is not a key of this kind. The text quotes nothing of it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let wrong = || "it is not an ECDSA P-256 private key in PKCS#8 (PEM)".to_owned();
        let text = std::str::from_utf8(pem).map_err(|_| wrong())?;
        match KeyPair::from_pem(text) {
            Ok(pair) if pair.is_compatible(&PKCS_ECDSA_P256_SHA256) => Ok(Self(pair)),
            Ok(_) | Err(_) => Err(wrong()),
        }
    }

    /// The key as PKCS#8 in PEM.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The coordinates of the public key, big-endian.
    ///
    /// # Errors
    /// The point is not in the uncompressed form, which does not happen.
    pub fn public(&self) -> Result<([u8; 32], [u8; 32]), Error> {
        // Uncompressed: 4, x, y (SEC 1 §2.3.3).
        let point = self.0.public_key_raw();
        let parts = point.strip_prefix(&[4]).and_then(|rest| {
            let (x, y) = rest.split_at_checked(32)?;
            Some((x.try_into().ok()?, y.try_into().ok()?))
        });
        parts.ok_or_else(|| "a public key that is not on P-256".to_owned())
    }

    /// Whether `spki` (DER) is its public key.
    #[must_use]
    pub fn is_of(&self, spki: &[u8]) -> bool {
        x509::public_key(spki).is_some_and(|(_, point)| point == self.0.public_key_raw())
    }

    /// Signs with ES256: r and s, 32 bytes each (RFC 7518 §3.4).
    ///
    /// # Errors
    /// Signing fails.
    pub fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], Error> {
        let signature = self.0.sign(bytes).map_err(|error| cannot("sign", &error))?;
        x509::ecdsa_signature(&signature).ok_or_else(|| "a signature that cannot be read".to_owned())
    }

    /// A certificate request (RFC 2986, DER) with these names as SAN, no subject and no other extension.
    ///
    /// # Errors
    /// A name is not a DNS name.
    pub fn request(&self, names: &[String]) -> Result<Vec<u8>, Error> {
        let made = parameters(names)?.serialize_request(&self.0);
        Ok(made.map_err(|error| cannot("make a certificate request", &error))?.der().to_vec())
    }

    /// Makes the certificate for TLS-ALPN-01 of `name` (RFC 8737 §3): self-signed, with the name as its only SAN and
    /// the digest of the key authorization in a critical extension.
    ///
    /// # Errors
    /// `name` is not a DNS name.
    pub fn challenge(
        &self,
        name: &str,
        digest: &[u8; 32],
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, Error> {
        let failed = |error: &dyn fmt::Display| cannot("make the certificate of a challenge", error);
        let mut parameters = parameters(&[name.to_owned()])?;
        parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = parameters.self_signed(&self.0).map_err(|error| failed(&error))?;
        let secret = PrivateKeyDer::try_from(self.0.serialize_der()).map_err(|error| failed(&error))?;
        let signing = provider.key_provider.load_private_key(secret).map_err(|error| failed(&error))?;
        Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

fn parameters(names: &[String]) -> Result<CertificateParams, Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    for name in names {
        let name = name.as_str().try_into().map_err(|error: rcgen::Error| cannot("use a name", &error))?;
        parameters.subject_alt_names.push(SanType::DnsName(name));
    }
    Ok(parameters)
}

fn cannot(what: &str, error: &dyn fmt::Display) -> Error {
    format!("cannot {what}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem_and_other_kinds_of_keys_are_refused() {
        let key = Key::generate().unwrap();
        let same = Key::from_pem(key.to_pem().as_bytes()).unwrap();
        assert_eq!(same.public(), key.public());
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        for wrong in [
            other.as_bytes(),
            b"",
            b"\xff",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(Key::from_pem(wrong).is_err());
        }
    }

    #[test]
    fn a_signature_has_32_bytes_for_each_number_whatever_their_size() {
        let key = Key::generate().unwrap();
        // With so many signatures, some numbers have leading zeros and some have a high bit.
        for count in 0..600_u32 {
            let signature = key.sign(&count.to_be_bytes()).unwrap();
            assert_ne!(signature[..32], [0; 32]);
            assert_ne!(signature[32..], [0; 32]);
        }
    }

    #[test]
    fn a_request_has_names_and_no_subject() {
        let key = Key::generate().unwrap();
        let names = ["relay.example.com".to_owned(), "a.relay.example.com".to_owned()];
        let request = key.request(&names).unwrap();
        for name in &names {
            assert!(request.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
        }
        let common_name = [0x06, 0x03, 0x55, 0x04, 0x03];
        assert!(!request.windows(5).any(|part| part == common_name), "a common name");
    }

    #[test]
    fn the_certificate_of_a_challenge_has_the_name_alone_and_the_critical_digest() {
        let key = Key::generate().unwrap();
        let made = key.challenge("a.example.com", &[7; 32], &crate::tls_config::provider()).unwrap();
        let leaf = made.cert.first().unwrap();
        assert_eq!(crate::cert::names_of(leaf), ["a.example.com"]);
        let mut extension =
            vec![0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 1, 31, 0x01, 0x01, 0xff, 0x04, 0x22, 0x04, 0x20];
        extension.extend([7; 32]);
        assert!(leaf.windows(extension.len()).any(|part| part == extension));
    }
}
