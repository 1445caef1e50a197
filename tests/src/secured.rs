//! Certificates and TLS configurations of a simulated world.

use std::sync::Arc;

use rendezvous::event_loop::TlsSetup;
use rendezvous::tls_config::{provider, server_config};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A relay's certificate, and the configurations that trust it.
pub struct Secured {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Secured {
    /// A new certificate for a relay with the name `relay`.
    ///
    /// # Panics
    /// No entropy.
    #[must_use]
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["relay".to_owned()]).expect("a certificate");
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let signing = provider().key_provider.load_private_key(secret).expect("a key of a known kind");
        let certified = Arc::new(CertifiedKey::new(vec![certificate.clone()], signing));
        let server = server_config(certified, &provider()).expect("a server's configuration");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // As in our own configuration: the loop handles the records after the handshake.
        client.enable_secret_extraction = true;
        Self { server, client: Arc::new(client) }
    }

    /// The relay's TLS setup.
    #[must_use]
    pub fn server(&self, tls: bool) -> TlsSetup {
        TlsSetup { server: tls.then(|| Arc::clone(&self.server)), ..TlsSetup::default() }
    }

    /// An agent's or a connector's TLS setup.
    ///
    /// # Panics
    /// Never: the name is valid.
    #[must_use]
    pub fn peer(&self, tls: bool) -> TlsSetup {
        let name = ServerName::try_from("relay").expect("a good name");
        let upstreams = if tls { vec![(Arc::clone(&self.client), name)] } else { Vec::new() };
        TlsSetup { upstreams, ..TlsSetup::default() }
    }

    /// An actor's TLS configuration.
    #[must_use]
    pub fn client(&self, tls: bool) -> Option<Arc<ClientConfig>> {
        tls.then(|| Arc::clone(&self.client))
    }
}

impl Default for Secured {
    fn default() -> Self {
        Self::new()
    }
}
