//! ALPN protocol names (RFC 7301).

/// HTTP/1.1.
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";
/// HTTP/1.0, which `curl -0` offers.
pub(crate) const HTTP_1_0: &[u8] = b"http/1.0";
/// HTTP/2 over TLS.
pub(crate) const H2: &[u8] = b"h2";
pub(crate) use rendezvous_core::client_hello::AGENT_PROTOCOL as AGENT;

/// The challenge protocol of a CA that validates a name (RFC 8737 §4).
pub(crate) const CHALLENGE: &[u8] = b"acme-tls/1";
