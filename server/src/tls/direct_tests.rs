//! Sessions of direct connections: what each side learns about the other, and what is refused.

use std::sync::Arc;

use rendezvous_core::dtcp::Fingerprint;
use rendezvous_core::machine::TlsFailure;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::PrivateKeyDer;

use super::tests::{End, shake_hands};
use crate::direct_tls::DirectTls;
use crate::tls_config::provider;
use crate::trust::{self, Trust};

fn direct() -> DirectTls {
    DirectTls::new(&provider()).expect("a certificate")
}

fn shown(end: &End) -> Option<Fingerprint> {
    end.tls.peer_certificate().map(Fingerprint::of)
}

/// The certificate of one key with another key.
fn stolen() -> Arc<SingleCertAndKey> {
    let made = || rcgen::generate_simple_self_signed(["peer".to_owned()]).expect("a certificate");
    let secret = PrivateKeyDer::try_from(made().signing_key.serialize_der()).expect("a key");
    let signing = provider().key_provider.load_private_key(secret).expect("a key of a known kind");
    let certified = CertifiedKey::new(vec![made().cert.der().clone()], signing);
    Arc::new(SingleCertAndKey::from(Arc::new(certified)))
}

#[test]
fn each_side_learns_the_others_certificate() {
    let (one, other) = (direct(), direct());
    assert_ne!(one.fingerprint, other.fingerprint);
    let (server, client) =
        shake_hands(one.server, other.client, DirectTls::name()).expect("any certificate will do");
    assert_eq!(shown(&client), Some(one.fingerprint));
    assert_eq!(shown(&server), Some(other.fingerprint));
}

#[test]
fn a_client_may_show_none() {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("a version that the provider has")
        .dangerous()
        .with_custom_certificate_verifier(Trust::Insecure.verifier(&provider()).expect("no file is read"))
        .with_no_client_auth();
    let (server, _) = shake_hands(direct().server, Arc::new(config), DirectTls::name())
        .expect("it is for the machine to judge");
    assert_eq!(shown(&server), None);
}

#[test]
fn a_certificate_is_worth_nothing_without_its_key() {
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("a version that the provider has")
        .dangerous()
        .with_custom_certificate_verifier(Trust::Insecure.verifier(&provider()).expect("no file is read"))
        .with_client_cert_resolver(stolen());
    let refused = shake_hands(direct().server, Arc::new(client), DirectTls::name());
    assert_eq!(refused.err().map(|error| error.failure()), Some(TlsFailure::Certificate));

    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("a version that the provider has")
        .with_client_cert_verifier(trust::any_client(&provider()))
        .with_cert_resolver(stolen());
    let refused = shake_hands(Arc::new(server), direct().client, DirectTls::name());
    assert_eq!(refused.err().map(|error| error.failure()), Some(TlsFailure::Certificate));
}

#[test]
fn an_older_version_is_refused() {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .expect("a version that the provider has")
        .dangerous()
        .with_custom_certificate_verifier(Trust::Insecure.verifier(&provider()).expect("no file is read"))
        .with_no_client_auth();
    let refused = shake_hands(direct().server, Arc::new(config), DirectTls::name());
    assert_eq!(refused.err().map(|error| error.failure()), Some(TlsFailure::Version));
}
