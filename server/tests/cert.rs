//! The relay's certificate, and its verification by clients.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use common::Folder;
use common::cli::run;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rendezvous::cert::{self, Identity};
use rendezvous::certificates::Certificates;
use rendezvous::pin::Pin;
use rendezvous::state::State;
use rendezvous::tls_config::{client_config, provider, server_config, server_config_with};
use rendezvous::trust::Trust;
use rustls::{ClientConnection, ServerConfig, ServerConnection, version};

/// A version 1 certificate, which webpki does not parse. Relays of 2013 have such certificates.
const OLD_CERT: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBAzCBqgIBATAKBggqhkjOPQQDAjAOMQwwCgYDVQQDDANvbGQwHhcNMjYxMTIx\n\
MDUxNTA0WhcNMjYxMTIyMDUxNTA0WjAOMQwwCgYDVQQDDANvbGQwWTATBgcqhkjO\n\
PQIBBggqhkjOPQMBBwNCAATcbUy9tZv9f/QG/YNI9S5lRybPTBSEUxH7d75GSv1r\n\
stc0IkXuz4+ADTTsT4yJth2tJ06L9HaHyBBQC2WyWDzUMAoGCCqGSM49BAMCA0gA\n\
MEUCIBG5x321pEe9Z6h6Hy4XdW9HWbMYMjEUpS1Db9eMa76PAiEA2pIKF7befhd5\n\
83LBBUA/2GKenjmhXqTJZ0RTsbVLqlw=\n\
-----END CERTIFICATE-----\n\
";
const OLD_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgsmjVax7aOSfFBNTe\n\
G9rERczSGh7+1WNMlRHlYLuX7+2hRANCAATcbUy9tZv9f/QG/YNI9S5lRybPTBSE\n\
UxH7d75GSv1rstc0IkXuz4+ADTTsT4yJth2tJ06L9HaHyBBQC2WyWDzU\n\
-----END PRIVATE KEY-----\n\
";

fn ensure(folder: &Folder, names: &[&str]) -> (Identity, Option<String>) {
    let state = State::open(folder.file("state").to_str()).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    cert::ensure(&state, cert::PairFiles::RELAY, &names, &provider()).unwrap()
}

fn names(identity: &Identity) -> Vec<String> {
    cert::names_of(&identity.certified.cert[0])
}

/// Makes a self-signed certificate for `localhost` in files of the folder.
fn make(folder: &Folder, change: impl Fn(&mut CertificateParams)) -> Identity {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    change(&mut params);
    fs::write(folder.file("crt"), params.self_signed(&pair).unwrap().pem()).unwrap();
    fs::write(folder.file("key"), pair.serialize_pem()).unwrap();
    fs::set_permissions(folder.file("key"), Permissions::from_mode(0o600)).unwrap();
    cert::load(&folder.file("crt"), &folder.file("key"), &provider()).unwrap()
}

/// A handshake in memory. Returns the client's error.
fn handshake(
    server: Arc<ServerConfig>,
    trust: &Trust,
    name: &'static str,
) -> Result<Option<Vec<u8>>, String> {
    let client = client_config(trust, &provider()).map_err(|error| error.to_string())?;
    let mut client = ClientConnection::new(client, name.try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(client.alpn_protocol().map(<[u8]>::to_vec));
        }
    }
    Err("no end".to_owned())
}

fn accepts(identity: &Identity, trust: &Trust, name: &'static str) -> Result<(), String> {
    let server = server_config(identity.certified.clone(), &provider()).unwrap();
    let alpn = handshake(server, trust, name)?;
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    // The same with TLS 1.2 alone.
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS12]).unwrap();
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(identity.certified.clone()));
    handshake(Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver)), trust, name).map(|_| ())
}

#[test]
fn a_certificate_is_made_once_and_keeps_its_key_when_names_are_added() {
    let folder = Folder::new();
    let (first, warning) = ensure(&folder, &["localhost", "127.0.0.1"]);
    assert_eq!((names(&first).len(), warning), (2, None));
    let mode = |name: &str| fs::metadata(folder.file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state/relay.key"), mode("state/relay.crt")), (0o600, 0o644));
    let (same, _) = ensure(&folder, &["LOCALHOST."]);
    assert_eq!(same.certified.cert, first.certified.cert, "nothing was missing");
    let (more, _) = ensure(&folder, &["*.hidden.example.com", "0:0::1", "not a name"]);
    assert_eq!(names(&more), ["*.hidden.example.com", "127.0.0.1", "::1", "localhost"]);
    assert_eq!(more.pin, first.pin);
    fs::remove_file(folder.file("state/relay.crt")).unwrap();
    assert_eq!(ensure(&folder, &[]).0.pin, first.pin, "made again with the key that is there");
}

#[test]
fn a_certificate_of_the_users_own_is_left_alone() {
    let folder = Folder::new();
    make(&folder, |_| {});
    fs::create_dir(folder.file("state")).unwrap();
    fs::copy(folder.file("crt"), folder.file("state/relay.crt")).unwrap();
    fs::copy(folder.file("key"), folder.file("state/relay.key")).unwrap();
    fs::set_permissions(folder.file("state/relay.key"), Permissions::from_mode(0o600)).unwrap();
    let (identity, warning) = ensure(&folder, &["localhost", "relay.example.com"]);
    assert_eq!(names(&identity), ["localhost"]);
    let warning = warning.unwrap();
    assert!(
        warning.contains("not made by rendezvous") && warning.ends_with(": relay.example.com"),
        "{warning}"
    );
}

#[test]
fn what_is_wrong_with_files_is_said() {
    let folder = Folder::new();
    make(&folder, |_| {});
    let (crt, key) = (folder.file("crt"), folder.file("key"));
    let error = |crt: &Path, key: &Path| cert::load(crt, key, &provider()).unwrap_err().to_string();
    fs::copy(&key, folder.file("other")).unwrap();
    make(&folder, |_| {});
    assert!(error(&crt, &folder.file("other")).contains("other is not the key of the certificate in"));
    assert!(error(&folder.file("none"), &key).contains("cannot read"));
    assert!(error(&key, &key).contains("key contains no certificate (PEM)"));
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    assert!(error(&crt, &key).contains("others may open it (mode 0644): chmod 600"));
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let pem = fs::read_to_string(&key).unwrap();
    fs::write(&key, format!("\u{feff}{pem}")).unwrap();
    assert!(cert::load(&crt, &key, &provider()).is_ok(), "a byte order mark is left out");
    for encrypted in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n",
    ] {
        fs::write(&key, encrypted).unwrap();
        assert!(error(&crt, &key).contains("key is encrypted: decrypt it with 'openssl pkey"));
    }
    fs::write(&key, fs::read(&crt).unwrap()).unwrap();
    assert!(error(&crt, &key).contains("key contains no private key (PEM)"));
    fs::write(&key, pem).unwrap();
    fs::write(&crt, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(error(&crt, &key).contains("crt: the first certificate is malformed"));
    fs::write(&crt, "-----BEGIN CERTIFICATE-----\n????\n").unwrap();
    assert!(error(&crt, &key).contains("crt is not in PEM format"));
    let folder = Folder::new();
    ensure(&folder, &["localhost"]);
    fs::set_permissions(folder.file("state/relay.key"), Permissions::from_mode(0o644)).unwrap();
    let done = run(&folder, &["id", "add", "home", "--relay", "https://x.example"]);
    assert!(
        done.code == 1 && done.err.contains("chmod 600") && done.err.contains("relay.key"),
        "{}",
        done.err
    );
    fs::remove_file(folder.file("state/relay.key")).unwrap();
    let done = run(&folder, &["id", "add", "home", "--relay", "https://x.example"]);
    assert!(done.code == 1 && done.err.contains("relay.crt has no key"), "{}", done.err);
}

#[test]
fn the_hosts_name_and_the_domain_are_among_the_names() {
    let names = cert::default_names(Some("hidden.example.com"));
    for name in ["localhost", "127.0.0.1", "::1", "hidden.example.com", "*.hidden.example.com"] {
        assert!(names.iter().any(|there| there == name), "{name}");
    }
}

#[test]
fn a_pin_is_about_the_key_alone_whatever_else_is_wrong() {
    let folder = Folder::new();
    let identity = make(&folder, |params| params.not_after = rcgen::date_time_ymd(2011, 1, 1));
    let other = Pin([0; 32]);
    assert_eq!(accepts(&identity, &Trust::Pins(vec![other, identity.pin]), "elsewhere.example"), Ok(()));
    assert!(accepts(&identity, &Trust::Pins(vec![other]), "localhost").is_err());
    assert!(accepts(&identity, &Trust::Pins(vec![]), "localhost").is_err());
    assert_eq!(accepts(&identity, &Trust::Insecure, "elsewhere.example"), Ok(()));
    fs::write(folder.file("crt"), OLD_CERT).unwrap();
    fs::write(folder.file("key"), OLD_KEY).unwrap();
    let old = cert::load(&folder.file("crt"), &folder.file("key"), &provider()).unwrap();
    assert_eq!(accepts(&old, &Trust::Pins(vec![old.pin]), "localhost"), Ok(()));
    assert!(accepts(&old, &Trust::Pins(vec![identity.pin]), "localhost").is_err());
}

#[test]
fn a_pin_does_not_help_who_has_not_the_key() {
    let folder = Folder::new();
    let pinned = make(&folder, |_| {});
    let thief = make(&folder, |_| {});
    let stolen = rustls::sign::CertifiedKey::new(pinned.certified.cert.clone(), thief.certified.key.clone());
    let stolen = Identity { certified: Arc::new(stolen), pin: pinned.pin };
    assert!(accepts(&stolen, &Trust::Pins(vec![pinned.pin]), "localhost").is_err());
    let server =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS12]).unwrap();
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen.certified.clone()));
    let server = Arc::new(server.with_no_client_auth().with_cert_resolver(resolver));
    assert!(handshake(server, &Trust::Insecure, "localhost").is_err());
}

#[test]
fn a_ca_file_accepts_what_is_in_it_for_its_name_and_within_its_dates() {
    let folder = Folder::new();
    let file = Trust::CaFile(folder.file("crt"));
    let ca = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (own, _) = ensure(&folder, &["localhost"]);
    let own_file = Trust::CaFile(folder.file("state/relay.crt"));
    assert_eq!(accepts(&own, &own_file, "localhost"), Ok(()), "our own, as its own CA");
    assert!(accepts(&own, &own_file, "elsewhere.example").is_err());
    let identity = make(&folder, ca);
    assert_eq!(accepts(&identity, &file, "localhost"), Ok(()), "as openssl req -x509 makes them");
    assert!(accepts(&identity, &file, "elsewhere.example").is_err());
    assert!(accepts(&identity, &own_file, "localhost").is_err());
    let expired = make(&folder, |params| {
        ca(params);
        params.not_after = rcgen::date_time_ymd(2011, 1, 1);
    });
    assert!(accepts(&expired, &file, "localhost").unwrap_err().contains("xpired"));
    let same_name = make(&folder, ca);
    make(&folder, ca);
    assert!(
        accepts(&same_name, &file, "localhost").is_err(),
        "of the same name, but not the one in the file"
    );
    fs::write(folder.file("crt"), "nothing").unwrap();
    assert!(accepts(&identity, &file, "localhost").unwrap_err().contains("contains no certificate (PEM)"));
}

#[test]
fn a_certificate_outside_its_dates_or_near_their_end_is_warned_of() {
    let folder = Folder::new();
    let identity = make(&folder, |params| {
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2051, 3, 1);
    });
    let leaf = &identity.certified.cert[0];
    let warning = |now: u64| cert::validity_warning(leaf, now).unwrap_or_default();
    // 2024-02-29 and 2051-03-01, as `date -u -d … +%s` prints them: a UTCTime and a GeneralizedTime.
    let (first, last) = (1_709_164_800, 2_561_241_600);
    assert!(warning(first - 1).contains("becomes valid in"));
    assert_eq!((warning(first), warning(last - 15 * 86_400)), (String::new(), String::new()));
    assert_eq!(warning(last - 3 * 86_400), "the certificate expires in 3 days");
    assert!(warning(last + 2 * 86_400).contains("expired 2 days ago"));
}

#[test]
fn no_bytes_of_a_certificate_make_it_panic() {
    let folder = Folder::new();
    let (identity, _) = ensure(&folder, &["localhost", "127.0.0.1", "::1"]);
    let der = identity.certified.cert[0].to_vec();
    for at in 0..der.len() {
        for byte in [0, 0x30, 0x7f, 0x80, 0x81, 0x83, 0x84, 0xff] {
            let mut changed = der.clone();
            changed[at] = byte;
            let _ = (Pin::of_certificate(&changed), cert::names_of(&changed));
        }
        assert_eq!(Pin::of_certificate(&der[..at]), None);
    }
}

/// The names of the certificate that a client receives for the server name `for_name` (no SNI if it is an address).
fn served(certificates: &Arc<Certificates>, for_name: &'static str) -> Vec<String> {
    let mut server =
        ServerConnection::new(server_config_with(certificates.clone(), None, &provider()).unwrap()).unwrap();
    let client = client_config(&Trust::Insecure, &provider()).unwrap();
    let mut client = ClientConnection::new(client, for_name.try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut wire = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    client.read_tls(&mut wire.as_slice()).unwrap();
    client.process_new_packets().unwrap();
    cert::names_of(&client.peer_certificates().unwrap()[0])
}

#[test]
fn a_client_gets_the_certificate_for_the_name_it_asks_for() {
    let folder = Folder::new();
    let named = |names: &[&str]| {
        let names: Vec<_> =
            names.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap())).collect();
        make(&folder, |params| params.subject_alt_names = names.clone())
    };
    let first = named(&["first.example"]);
    let others = vec![named(&["*.home.example"]), named(&["a.home.example", "B.other.example"])];
    let certificates = Arc::new(Certificates::new(first, others));
    let a = ["a.home.example", "b.other.example"];
    assert_eq!(served(&certificates, "a.home.example"), a, "an exact name goes before a wildcard");
    assert_eq!(served(&certificates, "b.OTHER.example"), a, "letter case does not matter");
    assert_eq!(served(&certificates, "x.home.example"), ["*.home.example"]);
    for other in ["home.example", "y.x.home.example", "other.example", "first.example", "127.0.0.1"] {
        assert_eq!(served(&certificates, other), ["first.example"], "{other}");
    }
    assert!(certificates.has("x.home.example") && !certificates.has("y.x.home.example"));
}

#[test]
fn a_client_that_cannot_verify_one_kind_of_key_gets_the_other() {
    let folder = Folder::new();
    let of_kind = |algorithm| {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(["relay.example".to_owned()]).unwrap();
        fs::write(folder.file("crt"), params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(folder.file("key"), pair.serialize_pem()).unwrap();
        fs::set_permissions(folder.file("key"), Permissions::from_mode(0o600)).unwrap();
        cert::load(&folder.file("crt"), &folder.file("key"), &provider()).unwrap()
    };
    let (edwards, ecdsa) = (of_kind(&rcgen::PKCS_ED25519), of_kind(&rcgen::PKCS_ECDSA_P256_SHA256));
    let wanted = ecdsa.pin;
    let certificates = Arc::new(Certificates::new(edwards, vec![ecdsa]));
    let server = server_config_with(certificates, None, &provider()).unwrap();
    // A client without Ed25519 refuses any other key.
    let mut provider = (*provider()).clone();
    let algorithms = &mut provider.signature_verification_algorithms;
    algorithms.mapping = &algorithms.mapping[..3];
    let pinned = Trust::Pins(vec![wanted]).verifier(&Arc::new(provider.clone())).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), "relay.example".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut wire = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    client.read_tls(&mut wire.as_slice()).unwrap();
    client.process_new_packets().unwrap();
}

#[test]
fn each_certificate_has_its_own_key() {
    let folder = Folder::new();
    for (args, said) in [
        (&["--cert", "a"][..], "--cert needs --key FILE"),
        (&["--key", "a"], "--key needs --cert FILE"),
        (&["--cert", "a", "--key", "a", "--cert", "b"], "--cert is given 2 times and --key 1 times"),
    ] {
        let done = run(&folder, &[&["serve"], args].concat());
        assert_eq!(done.code, 2, "{args:?}: {}", done.err);
        assert!(done.err.contains(said), "{args:?}: {}", done.err);
    }
    // The second pair is read as well.
    make(&folder, |_| {});
    let done = run(&folder, &["serve", "--cert", "crt", "--key", "key", "--cert", "none", "--key", "none"]);
    assert!(done.code == 1 && done.err.contains("none"), "{}", done.err);
}
