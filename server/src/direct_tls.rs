//! TLS of direct connections, with a certificate per process that the peer knows by its fingerprint.
//!
//! Names, dates and signers are not checked on either side. The peer proves by its handshake signature that it has the
//! certificate's key, as usual. The machine compares the certificate's fingerprint.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rendezvous_core::dtcp::Fingerprint;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use crate::failure::Failure;
use crate::trust::{self, Trust};

/// TLS 1.3 configurations for both sides with a fresh self-signed certificate (ECDSA P-256), and its fingerprint.
#[derive(Clone, Debug)]
pub struct DirectTls {
    /// For accepted connections. The peer is asked for a certificate but need not present one.
    pub server: Arc<ServerConfig>,
    /// For dialled connections.
    pub client: Arc<ClientConfig>,
    /// The fingerprint of our certificate.
    pub fingerprint: Fingerprint,
}

impl DirectTls {
    /// Generates a key and a certificate, used as long as this value exists.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if the system provides no entropy, or the provider has no TLS 1.3.
    pub fn new(provider: &Arc<CryptoProvider>) -> Result<Self, Failure> {
        let certified = Arc::new(self_signed(provider)?);
        let own = certified.cert.first().map(|own| Fingerprint::of(own));
        let fingerprint = own.ok_or_else(|| cannot(&"no certificate was made"))?;
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| cannot(&error))?
            .with_client_cert_verifier(trust::any_client(provider))
            .with_cert_resolver(resolver.clone());
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.enable_secret_extraction = true;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| cannot(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Trust::Insecure.verifier(provider)?)
            .with_client_cert_resolver(resolver);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.enable_secret_extraction = true;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), fingerprint })
    }

    /// The server name of a client: an IP address, because rustls requires a name but does not send an address.
    #[must_use]
    pub fn name() -> ServerName<'static> {
        ServerName::from(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// Makes the self-signed certificate. Its dates are rcgen's defaults and are not checked.
fn self_signed(provider: &CryptoProvider) -> Result<CertifiedKey, Failure> {
    let pair = KeyPair::generate().map_err(|error| cannot(&error))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "rendezvous");
    let certificate = params.self_signed(&pair).map_err(|error| cannot(&error))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let signing = provider.key_provider.load_private_key(key).map_err(|error| cannot(&error))?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

fn cannot(error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!("cannot make a certificate for direct connections: {error}"))
}
