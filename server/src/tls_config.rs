//! How TLS is spoken, on both sides: TLS 1.2 and 1.3, ALPN `http/1.1`, no early data (it can be replayed).

use std::sync::Arc;

#[cfg(feature = "aws-lc-rs")]
pub(crate) use aws_lc_rs::aead;
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use ring::aead;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as cryptography;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, ClientConfig, ServerConfig};

use crate::failure::Failure;
use crate::trust::Trust;

const ALPN: &[u8] = b"http/1.1";
/// For clients of HTTP/1.0 that say so: `curl -0`.
const ALPN_OLD: &[u8] = b"http/1.0";

/// The cryptography, handed in wherever it is needed: no process-wide default is set or read. The cipher that this
/// processor is fastest with comes first.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = cryptography::default_provider();
    let aes = processor_has_aes();
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), rank(suite.suite(), aes)));
    Arc::new(provider)
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
    // The records of TLS 1.3 are ours after the handshake.
    config.enable_secret_extraction = true;
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
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_OLD.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = cryptography::Ticketer::new().map_err(|error| tls_is_unusable(&error))?;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    // The client's order says what its own processor is good at; without AES in ours, that counts more.
    config.ignore_client_order = !processor_has_aes();
    Ok(Arc::new(config))
}

/// The place of a suite among those of its version of TLS.
fn rank(suite: CipherSuite, aes: bool) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            if aes {
                3
            } else {
                0
            }
        }
        _ => 2,
    }
}

/// Whether AES takes instructions of its own here; in software it is slow, or not constant in time.
fn processor_has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn tls_is_unusable(error: &rustls::Error) -> Failure {
    Failure::Failed(format!("cannot set up TLS: {error}"))
}
