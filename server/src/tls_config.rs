//! How TLS is spoken, on both sides: TLS 1.2 and 1.3, ALPN `http/1.1` alone, no early data (it can be replayed).

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use crate::failure::Failure;
use crate::trust::Trust;

const ALPN: &[u8] = b"http/1.1";

/// The cryptography, handed in wherever it is needed: no process-wide default is set or read.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The client side (agent, connector, `check`).
///
/// No session is resumed: an agent connects seldom, and a store of sessions for each relay would be memory for
/// nothing; a connection that takes up a session of an old key would also pass by a pin that has changed since.
///
/// # Errors
///
/// [`Failure::Failed`] of [`Trust::verifier`].
pub fn client_config(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, Failure> {
    let verifier = trust.verifier(provider)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_is_unusable(&error))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The server side (the relay): one certificate, whatever name the client asks for, and if it asks for none.
///
/// Sessions are resumed by tickets, whose key lives in this configuration: nothing is stored for a session, and a new
/// configuration (a new certificate) ends all sessions of the old one.
///
/// # Errors
///
/// [`Failure::Failed`] where the system gives no entropy for the ticket key.
pub fn server_config(
    certified: Arc<CertifiedKey>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, Failure> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_is_unusable(&error))?;
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(|error| tls_is_unusable(&error))?;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn tls_is_unusable(error: &rustls::Error) -> Failure {
    Failure::Failed(format!("cannot set up TLS: {error}"))
}
