//! TLS configurations of both sides: TLS 1.2 and 1.3, ALPN `http/1.1`, no early data (it can be replayed).

use std::sync::Arc;

#[cfg(feature = "aws-lc-rs")]
pub(crate) use aws_lc_rs::aead;
use rendezvous_core::id::Id;
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use ring::aead;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as cryptography;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::allowed_keys::AllowedKeys;
use crate::alpn;
use crate::failure::Failure;
use crate::live_certificates::{ChallengesOr, LiveCertificates, LiveOr};
use crate::pin::Pin;
use crate::trust::{self, Trust};

/// The ALPN protocol between `connect --end-to-end` and an agent. Both require it, so that no session can serve both
/// HTTP and streams.
pub const ALPN_STREAM: &[u8] = b"rendezvous-stream";

/// The cryptography provider. It is passed as an argument; no process-wide default is set or read. The cipher that is
/// fastest on this processor comes first.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = cryptography::default_provider();
    let aes = processor_has_aes();
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), rank(suite.suite(), aes)));
    Arc::new(provider)
}

/// The client configuration of agent, connector and `check`.
///
/// Sessions are not resumed: an agent connects rarely, so a session store per relay would waste memory, and a resumed
/// session of an old key would bypass a changed pin.
///
/// # Errors
///
/// Those of [`Trust::verifier`].
pub fn client_config(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, Failure> {
    client_config_with(trust.verifier(provider)?, alpn::HTTP_1_1, provider)
}

/// The same for an agent of a group of relays.
///
/// # Errors
///
/// Those of [`client_config`].
pub fn agent_config(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, Failure> {
    client_config_with(trust.verifier(provider)?, alpn::AGENT, provider)
}

/// The same with this verifier and this application protocol.
///
/// # Errors
///
/// [`Failure::Failed`] if the provider supports no version of TLS.
pub(crate) fn client_config_with(
    verifier: Arc<dyn ServerCertVerifier>,
    protocol: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, Failure> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_is_unusable(&error))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    // The TLS 1.3 records are taken over from rustls after the handshake.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The server configuration with one certificate, for any server name or none.
///
/// # Errors
///
/// Those of [`server_config_with`].
pub fn server_config(
    certified: Arc<CertifiedKey>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, Failure> {
    server_config_with(Arc::new(SingleCertAndKey::from(certified)), None, provider)
}

/// The server configuration of the relay. `resolver` selects the certificate for each client. With `live`, its
/// certificates take precedence, and its challenge certificates serve validators of a CA.
///
/// Sessions are resumed with tickets whose key belongs to this configuration: no session is stored, and a new
/// configuration ends all sessions of the old one.
///
/// # Errors
///
/// [`Failure::Failed`] if the system provides no entropy for the ticket key.
pub fn server_config_with(
    resolver: Arc<dyn ResolvesServerCert>,
    live: Option<&Arc<LiveCertificates>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, Failure> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_is_unusable(&error))?;
    let mut protocols = vec![alpn::HTTP_1_1.to_vec(), alpn::HTTP_1_0.to_vec(), alpn::AGENT.to_vec()];
    let resolver = match live {
        None => resolver,
        Some(live) => {
            protocols.push(alpn::CHALLENGE.to_vec());
            let live_or = LiveOr { live: live.clone(), otherwise: resolver };
            Arc::new(ChallengesOr { live: live.clone(), otherwise: Some(Arc::new(live_or)) })
        }
    };
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = protocols;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = cryptography::Ticketer::new().map_err(|error| tls_is_unusable(&error))?;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    // The client's order reflects its own processor. If ours has no AES instructions, our order counts more.
    config.ignore_client_order = !processor_has_aes();
    Ok(Arc::new(config))
}

/// The server configuration for only the validators of a CA (RFC 8737 §3): TLS 1.2 and 1.3, no client certificate, no
/// resumption.
///
/// # Errors
///
/// [`Failure::Failed`] if the provider supports no version of TLS.
pub fn challenge_server_config(
    live: &Arc<LiveCertificates>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, Failure> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_is_unusable(&error))?;
    let resolver = ChallengesOr { live: live.clone(), otherwise: None };
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![alpn::CHALLENGE.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The clients whose TLS an agent terminates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndToEndClients {
    /// HTTP clients, such as browsers: TLS 1.2 and 1.3, ALPN `http/1.1` or none.
    Http,
    /// HTTP clients as above, with ALPN `h2` preferred.
    Http2,
    /// Connectors: TLS 1.3, ALPN [`ALPN_STREAM`]. The client must request one of these IDs ([`end_to_end_name`]).
    /// Otherwise a relay could pair a connector with another agent that has the same key.
    Connectors(Vec<Id>),
}

/// Which clients must present a certificate.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// None: no certificate is requested.
    Off,
    /// All clients: one whose key is listed at the time of the handshake.
    Keys(AllowedKeys),
    /// All clients: one of a CA ([`trust::signed_clients`]).
    Ca(Arc<dyn ClientCertVerifier>),
}

/// The agent's configuration for TLS that the relay does not terminate. With `live`, its certificates take precedence
/// over `certified` for HTTP clients; connectors always get `certified`, whose pin they know.
///
/// If clients must present a certificate, sessions are not resumed: resumption would admit a client whose key was
/// removed or whose certificate has expired.
///
/// # Errors
///
/// [`Failure::Failed`] if the system provides no entropy for the ticket key, or the provider has no TLS 1.3.
pub fn end_to_end_server_config(
    clients: EndToEndClients,
    certified: Arc<CertifiedKey>,
    live: Option<&Arc<LiveCertificates>>,
    client_auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, Failure> {
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = match clients {
        EndToEndClients::Http | EndToEndClients::Http2 => builder.with_safe_default_protocol_versions(),
        EndToEndClients::Connectors(_) => builder.with_protocol_versions(&[&TLS13]),
    };
    let builder = builder.map_err(|error| tls_is_unusable(&error))?;
    let resumes =
        matches!(client_auth, ClientAuth::Off) && !matches!(clients, EndToEndClients::Connectors(_));
    let builder = match client_auth {
        ClientAuth::Off => builder.with_no_client_auth(),
        ClientAuth::Keys(keys) => {
            builder.with_client_cert_verifier(trust::allowed_clients(keys.clone(), provider))
        }
        ClientAuth::Ca(verifier) => builder.with_client_cert_verifier(verifier.clone()),
    };
    let of_http = |certified| -> Arc<dyn ResolvesServerCert> {
        let own = Arc::new(SingleCertAndKey::from(certified));
        match live {
            None => own,
            Some(live) => Arc::new(LiveOr { live: live.clone(), otherwise: own }),
        }
    };
    let (resolver, alpn): (Arc<dyn ResolvesServerCert>, _) = match clients {
        EndToEndClients::Http => (of_http(certified), vec![alpn::HTTP_1_1.to_vec(), alpn::HTTP_1_0.to_vec()]),
        EndToEndClients::Http2 => {
            (of_http(certified), vec![alpn::H2.to_vec(), alpn::HTTP_1_1.to_vec(), alpn::HTTP_1_0.to_vec()])
        }
        EndToEndClients::Connectors(ids) => {
            let names = ids.iter().map(Id::to_string).collect();
            (Arc::new(ForConnectors { names, certified }), vec![ALPN_STREAM.to_vec()])
        }
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = alpn;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if resumes {
        config.ticketer = cryptography::Ticketer::new().map_err(|error| tls_is_unusable(&error))?;
    } else {
        config.send_tls13_tickets = 0;
    }
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    config.ignore_client_order = !processor_has_aes();
    Ok(Arc::new(config))
}

/// The connector's configuration for TLS inside a relayed stream: TLS 1.3 to an agent whose key has one of the pins.
/// `own` is presented if the agent requests a certificate.
///
/// # Errors
///
/// [`Failure::Failed`] if the provider has no TLS 1.3.
pub fn end_to_end_client_config(
    pins: &[Pin],
    own: Option<Arc<CertifiedKey>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, Failure> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| tls_is_unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Trust::Pins(pins.to_vec()).verifier(provider)?);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_STREAM.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The server name that a connector requests from an agent: the ID.
#[must_use]
pub fn end_to_end_name(id: Id) -> ServerName<'static> {
    // A UUID is a valid host name.
    let name = ServerName::try_from(id.to_string());
    name.unwrap_or_else(|_| ServerName::from(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)))
}

/// Serves the certificate only to connectors that request one of the names.
#[derive(Debug)]
struct ForConnectors {
    names: Vec<String>,
    certified: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ForConnectors {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls accepts a client without ALPN.
        let is_stream = hello.alpn().is_some_and(|mut offered| offered.any(|it| it == ALPN_STREAM));
        let is_ours = hello.server_name().is_some_and(|name| self.names.iter().any(|own| own == name));
        (is_stream && is_ours).then(|| self.certified.clone())
    }
}

/// The rank of a cipher suite among those of its TLS version.
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

/// Whether the processor has AES instructions. In software, AES is slow or not constant in time.
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
