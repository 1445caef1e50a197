//! How a client verifies a server's certificate, and the verifiers for rustls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};

use crate::allowed_keys::AllowedKeys;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::pin::Pin;
use crate::x509::{self, MADE_HERE};

/// The requirements for a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its public key is one of these. Its names, dates and signer are not checked.
    Pins(Vec<Pin>),
    /// It is valid for the server's name and signed by a CA in this PEM file, or is itself in the file. The latter may
    /// even be marked as a CA, as `openssl req -x509` makes them.
    CaFile(PathBuf),
    /// It is valid for the server's name and signed by a CA that the system trusts.
    System,
    /// Nothing is checked; for diagnosis only.
    Insecure,
}

impl Trust {
    /// Makes the verifier for [`tls_config::client_config`](crate::tls_config::client_config).
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if the CA file cannot be read or contains no certificate, or if the system has none.
    pub fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
        let algorithms = provider.signature_verification_algorithms;
        Ok(match self {
            Trust::Pins(pins) => Arc::new(ByKey::new(Keys::Pinned(pins.clone()), provider)),
            Trust::Insecure => Arc::new(ByKey::new(Keys::Any, provider)),
            Trust::CaFile(path) => {
                let listed = read_certificates(path)?;
                let mut roots = RootCertStore::empty();
                for certificate in &listed {
                    roots.add(certificate.clone()).map_err(|error| {
                        Failure::Failed(format!(
                            "{} contains an unusable certificate: {error}",
                            path.display()
                        ))
                    })?;
                }
                Arc::new(ByAuthority { roots, listed, algorithms, refused: Refused::default() })
            }
            Trust::System => Arc::new(ByAuthority {
                roots: system_roots()?,
                listed: Vec::new(),
                algorithms,
                refused: Refused::default(),
            }),
        })
    }
}

/// Reads the certificates of a PEM file.
///
/// # Errors
///
/// [`Failure::Failed`] if it cannot be read, is not PEM or contains no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let text = files::read(path, FileKind::CERTIFICATE)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => {
            Err(Failure::Failed(format!("{} contains no certificate (PEM)", path.display())))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(Failure::Failed(format!("{} is not in PEM format: {error}", path.display()))),
    }
}

fn system_roots() -> Result<RootCertStore, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may contain malformed certificates, which are skipped.
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(Failure::Failed(format!(
        "this system has no CA certificates{why}: install ca-certificates, or use a pin or a CA file"
    )))
}

/// Verifies only the public key, or nothing. The handshake signature, which proves that the server has the key, is
/// always checked, but without webpki's parser, because it refuses the certificates of old relays.
struct ByKey {
    keys: Keys,
    algorithms: WebPkiSupportedAlgorithms,
    refused: Refused,
}

/// The accepted keys.
#[derive(Debug)]
enum Keys {
    Any,
    Pinned(Vec<Pin>),
    /// Keys that are listed at the time of the handshake. A client must present one.
    Listed(AllowedKeys),
}

impl Keys {
    fn accept(&self, pin: &Pin) -> bool {
        match self {
            Self::Any => true,
            Self::Pinned(pins) => pins.contains(pin),
            Self::Listed(keys) => keys.contains(pin),
        }
    }
}

impl ByKey {
    fn new(keys: Keys, provider: &CryptoProvider) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { keys, algorithms, refused: Refused::default() }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let pin = Pin::of_certificate(certificate).ok_or(CertificateError::BadEncoding)?;
        match self.keys.accept(&pin) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.check(end_entity).map(|()| ServerCertVerified::assertion());
        let expected = if let Keys::Pinned(pins) = &self.keys { &pins[..] } else { &[] };
        self.refused.update(&verdict, end_entity, expected, OTHER_KEY);
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(&self.algorithms, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(&self.algorithms, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Makes a verifier that requests a client certificate but accepts any or none. The handshake signature proves that the
/// client has its key.
pub(crate) fn any_client(provider: &CryptoProvider) -> Arc<dyn ClientCertVerifier> {
    Arc::new(ByKey::new(Keys::Any, provider))
}

/// Makes a verifier that requires a client certificate whose key is listed at the time of the handshake. Names, dates
/// and signers are not checked. The handshake signature proves that the client has the key.
pub(crate) fn allowed_clients(keys: AllowedKeys, provider: &CryptoProvider) -> Arc<dyn ClientCertVerifier> {
    Arc::new(ByKey::new(Keys::Listed(keys), provider))
}

/// Makes a verifier that requires a client certificate signed, for clients, by a CA of this PEM file, with a subject
/// that can be displayed. The names of the CAs are sent to clients, so that browsers offer matching certificates.
///
/// # Errors
///
/// [`Failure::Failed`] if the file cannot be read or contains no certificate.
pub fn signed_clients(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    let mut roots = RootCertStore::empty();
    let unusable = |error: &dyn fmt::Display| {
        Failure::Failed(format!("{} contains an unusable certificate: {error}", path.display()))
    };
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    Ok(Arc::new(WithSubject(verifier.map_err(|error| unusable(&error))?)))
}

/// A verifier of clients that also refuses certificates whose subject cannot be displayed.
#[derive(Debug)]
struct WithSubject(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for WithSubject {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        let subject = x509::parts(end_entity).and_then(|parts| parts.subject_text());
        subject.map(|_| verified).ok_or_else(|| CertificateError::BadEncoding.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Verifies clients. If any key is accepted, the machine decides after the handshake.
impl ClientCertVerifier for ByKey {
    fn client_auth_mandatory(&self) -> bool {
        matches!(self.keys, Keys::Listed(_))
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(&self.algorithms, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(&self.algorithms, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for ByKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKey").field("keys", &self.keys).finish_non_exhaustive()
    }
}

fn verify_tls13(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let parts = x509::parts(cert).ok_or(CertificateError::BadEncoding)?;
    let spki = SubjectPublicKeyInfoDer::from(parts.spki);
    verify_tls13_signature_with_raw_key(message, &spki, dss, algorithms)
}

/// In TLS 1.2 a signature scheme is a family of algorithms; the key selects one of them.
fn verify_tls12(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = x509::parts(cert).and_then(|parts| x509::public_key(parts.spki));
    let (kind, key) = key.ok_or(CertificateError::BadEncoding)?;
    let family = algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
    let (_, family) = family.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let fits = family.iter().find(|algorithm| algorithm.public_key_alg_id().as_ref() == kind);
    match fits.map(|algorithm| algorithm.verify_signature(key, message, dss.signature())) {
        Some(Ok(())) => Ok(HandshakeSignatureValid::assertion()),
        _ => Err(CertificateError::BadSignature.into()),
    }
}

/// Verifies by CAs, and by certificates that are listed themselves. rustls's verifier for CAs also supports revocation
/// lists, which are not used here; this is the same without the code for them.
#[derive(Debug)]
struct ByAuthority {
    roots: RootCertStore,
    listed: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    refused: Refused,
}

impl ByAuthority {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let all = self.algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, all) {
            // 'This CA is not a server' has no error of its own. webpki checks the dates first and reports them with
            // their own errors.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.listed.iter().any(|listed| listed == end_entity) => {}
            verdict => verdict?,
        }
        verify_server_name(&certificate, server_name)?;
        Ok(ServerCertVerified::assertion())
    }
}

/// The certificate that was refused last. It is logged once, not for each address of the server and each retry.
#[derive(Debug, Default)]
struct Refused(Mutex<Option<Pin>>);

const OTHER_KEY: &str = "its key is not the pinned one: if the key was replaced, use the new pin (that of a relay is in a new \
                         ticket: rendezvous id ticket NAME); if the issuer is a proxy or a firewall of your network, let it \
                         pass these connections unchanged";
const SELF_SIGNED: &str = "rendezvous has made this self-signed certificate: a relay with --acme has none of the CA yet (see \
                           its log); otherwise get the pin from the owner of the key";
const INTERCEPTED: &str = "if the issuer is a proxy or a firewall of your network, it intercepts TLS: let it pass the \
                           relay's connections unchanged";

impl Refused {
    /// Logs whose certificate a server presented, if it was refused and if it is not the one that was refused before.
    /// Behind an intercepting proxy it is that of the proxy. Its own pin is not logged: users would copy it into a ticket or
    /// a command, but an attacker may have chosen it.
    fn update<T>(
        &self,
        verdict: &Result<T, Error>,
        certificate: &CertificateDer<'_>,
        expected: &[Pin],
        hint: &str,
    ) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if verdict.is_ok() {
            *last = None;
            return;
        }
        let pin = Pin::of_certificate(certificate);
        if pin.is_some() && *last == pin {
            return;
        }
        let shown = expected.iter().map(|pin| format!(" expected={pin}")).collect::<String>();
        let issuer = x509::issuer_shown(certificate);
        log::warn!("event=certificate-refused issuer={issuer}{shown} hint=\"{hint}\"");
        *last = pin;
    }
}

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.check(end_entity, intermediates, server_name, now);
        let made_here = x509::issuer_shown(end_entity).contains(MADE_HERE);
        self.refused.update(&verdict, end_entity, &[], if made_here { SELF_SIGNED } else { INTERCEPTED });
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
