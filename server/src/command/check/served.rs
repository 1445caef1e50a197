//! What a server presents in a TLS handshake, whether it is trusted or not.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{AlertDescription, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::wire::{Deadline, Wire, WireError};
use crate::alpn;
use crate::cert;
use crate::clock;
use crate::escape::Shown;
use crate::failure::Failure;
use crate::pin::Pin;
use crate::tls::Protocol;
use crate::tls_config::{client_config_with, provider};
use crate::trust::Trust;
use crate::x509;

/// A chain of certificates, the end-entity certificate first.
pub(super) type Chain = Vec<CertificateDer<'static>>;

/// A verifier that accepts every chain and keeps it.
#[derive(Debug)]
struct ChainRecorder {
    chain: Mutex<Chain>,
    signatures: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for ChainRecorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain = chain.map(|it| it.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

/// The chain that a server presents to HTTP clients for this name.
pub(super) fn chain(stream: TcpStream, name: &str, deadline: Deadline) -> Result<Chain, WireError> {
    handshake(stream, name, alpn::HTTP_1_1, deadline).map(|(chain, _)| chain)
}

/// Whether a server answers a CA's validators (RFC 8737).
pub(super) enum Validation {
    /// It refuses them, as the relay does while it has no order for the name.
    Refused,
    /// It answers them: an order is in progress.
    Answered,
    /// It does not know the protocol.
    Unknown(String),
}

/// Connects as a validator does.
pub(super) fn validation(to: SocketAddr, name: &str, step: Duration) -> Validation {
    let handshake = TcpStream::connect_timeout(&to, step)
        .map_err(WireError::from)
        .and_then(|stream| handshake(stream, name, alpn::CHALLENGE, Deadline::after(step)));
    match handshake {
        Err(WireError::Alert(AlertDescription::AccessDenied)) => Validation::Refused,
        Ok((_, Protocol::Challenge)) => Validation::Answered,
        Ok((chain, _)) => Validation::Unknown(format!(
            "it ignores the protocol acme-tls/1 and presents the certificate {}",
            described(&chain)
        )),
        Err(error) => Validation::Unknown(error.to_string()),
    }
}

fn handshake(
    stream: TcpStream,
    name: &str,
    protocol: &[u8],
    deadline: Deadline,
) -> Result<(Chain, Protocol), WireError> {
    let provider = provider();
    let signatures = Trust::Insecure.verifier(&provider).map_err(WireError::Setup)?;
    let recorder = Arc::new(ChainRecorder { chain: Mutex::default(), signatures });
    let config = client_config_with(recorder.clone(), protocol, &provider).map_err(WireError::Setup)?;
    let wire = Wire::with_config(stream, name, config, deadline)?;
    let chain = std::mem::take(&mut *recorder.chain.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((chain, wire.protocol()))
}

/// Verifies a chain for a name at this time, as a client with this trust does.
pub(super) fn verify(chain: &Chain, name: &str, trust: &Trust) -> Result<Result<(), Error>, Failure> {
    let verifier = trust.verifier(&provider())?;
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Ok(Err(Error::NoCertificatesPresented));
    };
    let Ok(name) = ServerName::try_from(name) else { return Ok(Err(Error::UnsupportedNameType)) };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(clock::wall()));
    Ok(verifier.verify_server_cert(leaf, intermediates, &name, &[], now).map(|_| ()))
}

/// A chain in short: names, issuer, length and pin.
pub(super) fn described(chain: &[CertificateDer<'_>]) -> String {
    let Some(leaf) = chain.first() else { return "no certificate".to_owned() };
    let names = cert::names_of(leaf);
    let common_name = |of: fn(&x509::Parts<'_>) -> Option<String>, der: &CertificateDer<'_>| {
        x509::parts(der).and_then(|parts| of(&parts)).unwrap_or_else(|| "-".to_owned())
    };
    let issuer = common_name(|parts| x509::common_name(parts.issuer), leaf);
    let top = chain.last().map(|top| common_name(|parts| x509::common_name(parts.issuer), top));
    let pin = Pin::of_certificate(leaf).map_or_else(|| "no pin".to_owned(), |pin| pin.to_string());
    let up_to = match (chain.len(), top) {
        (1, _) | (_, None) => "no intermediates".to_owned(),
        (len, Some(top)) => format!("{len} certificates up to '{}'", Shown(&top)),
    };
    format!("for {}, issued by '{}', {up_to}, pin {pin}", Shown(&names.join(", ")), Shown(&issuer))
}
