//! TLS between connectors or browsers and an agent, and the agent's list of accepted keys.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use common::Folder;
use common::cli::run;
use rendezvous::allowed_keys::{AllowedKeys, KeyList, parse};
use rendezvous::cert::{self, Identity};
use rendezvous::pin::Pin;
use rendezvous::tls_config::{
    ALPN_STREAM, ClientAuth, EndToEndClients, client_config, end_to_end_client_config, end_to_end_name,
    end_to_end_server_config, provider,
};
use rendezvous::trust::Trust;
use rendezvous_core::id::Id;
use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SignatureScheme};
use rustls_pki_types::ServerName;

const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
const OTHER_ID: Id = Id(7);

fn identity(folder: &Folder, name: &str) -> Identity {
    let path = folder.file(name);
    if !path.exists() {
        cert::make_key(&path).unwrap();
    }
    cert::of_key(&path, &provider()).unwrap()
}

/// The result of a handshake at the server: in TLS 1.3 the client finishes first.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: ServerName<'static>,
) -> Result<(ClientConnection, ServerConnection), String> {
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().map_err(|error| format!("client: {error}"))?;
        }
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            return Ok((client, server));
        }
    }
    Err("no end".to_owned())
}

fn client_auth(allowed: Option<&AllowedKeys>) -> ClientAuth {
    allowed.map_or(ClientAuth::Off, |keys| ClientAuth::Keys(keys.clone()))
}

fn for_connectors(agent: &Identity, allowed: Option<&AllowedKeys>) -> Arc<ServerConfig> {
    let clients = EndToEndClients::Connectors(vec![OTHER_ID, ID]);
    end_to_end_server_config(clients, agent.certified.clone(), None, &client_auth(allowed), &provider())
        .unwrap()
}

fn for_http(agent: &Identity, allowed: Option<&AllowedKeys>) -> Arc<ServerConfig> {
    let (http, certified) = (EndToEndClients::Http, agent.certified.clone());
    end_to_end_server_config(http, certified, None, &client_auth(allowed), &provider()).unwrap()
}

fn connector(pin: Pin, own: Option<&Identity>) -> Arc<ClientConfig> {
    end_to_end_client_config(&[pin], own.map(|own| own.certified.clone()), &provider()).unwrap()
}

fn lets_in(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(), String> {
    handshake(client, server, end_to_end_name(ID)).map(|_| ())
}

#[test]
fn a_connector_and_an_agent_agree_on_the_protocol_of_streams() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let (client, server) =
        handshake(&connector(agent.pin, None), &for_connectors(&agent, None), end_to_end_name(ID)).unwrap();
    assert_eq!(client.alpn_protocol(), Some(ALPN_STREAM));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(server.server_name(), Some(ID.to_string().as_str()));
}

#[test]
fn every_id_is_a_server_name() {
    for id in [0, 1, u128::MAX, 0x1111_1111_1111_1111_1111_1111_1111_1111, ID.0] {
        assert_eq!(end_to_end_name(Id(id)).to_str(), Id(id).to_string());
    }
}

#[test]
fn a_connector_refuses_a_key_that_is_not_pinned() {
    let folder = Folder::new();
    let (agent, relay) = (identity(&folder, "agent.key"), identity(&folder, "relay.key"));
    let refused = lets_in(&connector(agent.pin, None), &for_connectors(&relay, None)).unwrap_err();
    assert!(refused.starts_with("client: invalid peer certificate"), "{refused}");
}

/// A relay that presents the agent's certificate does not have its key.
#[test]
fn a_certificate_without_its_key_is_refused_on_both_sides() {
    let folder = Folder::new();
    let (agent, other) = (identity(&folder, "agent.key"), identity(&folder, "other.key"));
    let stolen = |owner: &Identity| Identity {
        certified: Arc::new(CertifiedKey::new(owner.certified.cert.clone(), other.certified.key.clone())),
        pin: owner.pin,
    };
    let refused = lets_in(&connector(agent.pin, None), &for_connectors(&stolen(&agent), None)).unwrap_err();
    assert!(refused.starts_with("client: "), "{refused}");

    let user = identity(&folder, "user.key");
    let server = for_connectors(&agent, Some(&AllowedKeys::new(vec![user.pin])));
    assert_eq!(lets_in(&connector(agent.pin, Some(&user)), &server), Ok(()));
    let refused = lets_in(&connector(agent.pin, Some(&stolen(&user))), &server).unwrap_err();
    assert!(refused.starts_with("server: "), "{refused}");
}

#[test]
fn a_listed_key_is_let_in_and_no_other_and_none_is_not() {
    let folder = Folder::new();
    let names = ["agent.key", "user.key", "stranger.key"];
    let [agent, user, stranger] = names.map(|name| identity(&folder, name));
    let allowed = AllowedKeys::new(vec![user.pin]);
    for server in [for_connectors(&agent, Some(&allowed)), for_http(&agent, Some(&allowed))] {
        let is_http = server.alpn_protocols != [ALPN_STREAM];
        let client = |own: Option<&Identity>| {
            let mut client = ClientConfig::clone(&connector(agent.pin, own));
            if is_http {
                client.alpn_protocols = vec![b"http/1.1".to_vec()];
            }
            Arc::new(client)
        };
        assert_eq!(lets_in(&client(Some(&user)), &server), Ok(()));
        for own in [None, Some(&stranger)] {
            let refused = lets_in(&client(own), &server).unwrap_err();
            assert!(refused.starts_with("server: "), "{refused}");
        }
    }
}

#[test]
fn a_reload_is_seen_by_the_next_handshake_and_an_empty_list_means_nobody() {
    let folder = Folder::new();
    let (agent, user) = (identity(&folder, "agent.key"), identity(&folder, "user.key"));
    let allowed = AllowedKeys::new(Vec::new());
    let server = for_connectors(&agent, Some(&allowed));
    let client = connector(agent.pin, Some(&user));
    assert!(lets_in(&client, &server).unwrap_err().starts_with("server: "));
    allowed.replace(vec![agent.pin, user.pin, user.pin]);
    assert_eq!((allowed.len(), lets_in(&client, &server)), (2, Ok(())));
    allowed.replace(Vec::new());
    assert!(allowed.is_empty() && lets_in(&client, &server).is_err());
}

/// A resumed session would bypass a list that has changed since.
#[test]
fn no_session_is_resumed_where_keys_are_required() {
    let folder = Folder::new();
    let (agent, user) = (identity(&folder, "agent.key"), identity(&folder, "user.key"));
    let allowed = AllowedKeys::new(vec![user.pin]);
    for server in [for_connectors(&agent, Some(&allowed)), for_connectors(&agent, None)] {
        assert_eq!((server.send_tls13_tickets, server.ticketer.enabled()), (0, false));
        assert!(!server.session_storage.can_cache());
    }
    let server = for_http(&agent, Some(&allowed));
    assert_eq!((server.send_tls13_tickets, server.ticketer.enabled()), (0, false));
    assert!(!server.session_storage.can_cache());
    assert!(for_http(&agent, None).ticketer.enabled(), "browsers without keys resume");
}

#[test]
fn no_session_serves_both_http_and_streams() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let trust = Trust::Pins(vec![agent.pin]);
    let browser = client_config(&trust, &provider()).unwrap();
    let mut without = ClientConfig::clone(&browser);
    without.alpn_protocols = Vec::new();
    let without = Arc::new(without);
    assert_eq!(lets_in(&browser, &for_http(&agent, None)), Ok(()));
    assert_eq!(lets_in(&without, &for_http(&agent, None)), Ok(()));
    for client in [&browser, &without] {
        assert!(lets_in(client, &for_connectors(&agent, None)).unwrap_err().starts_with("server: "));
    }
    let refused = lets_in(&connector(agent.pin, None), &for_http(&agent, None)).unwrap_err();
    assert!(refused.starts_with("server: "), "{refused}");
}

#[test]
fn a_connector_of_another_id_is_refused() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let (client, server) = (connector(agent.pin, None), for_connectors(&agent, None));
    assert!(handshake(&client, &server, end_to_end_name(OTHER_ID)).is_ok());
    let nobody: [ServerName<'static>; 3] = [
        end_to_end_name(Id(8)),
        "home.example".try_into().unwrap(),
        std::net::IpAddr::from([127, 0, 0, 1]).into(),
    ];
    for name in nobody {
        assert!(handshake(&client, &server, name).is_err());
    }
}

/// Records the server's certificate request.
#[derive(Debug)]
struct WithoutHints(SingleCertAndKey);

impl ResolvesClientCert for WithoutHints {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        assert!(hints.is_empty(), "names of CAs");
        self.0.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn no_names_of_cas_are_sent_to_clients() {
    let folder = Folder::new();
    let (agent, user) = (identity(&folder, "agent.key"), identity(&folder, "user.key"));
    let mut client = ClientConfig::clone(&connector(agent.pin, None));
    client.client_auth_cert_resolver = Arc::new(WithoutHints(SingleCertAndKey::from(user.certified.clone())));
    let server = for_connectors(&agent, Some(&AllowedKeys::new(vec![user.pin])));
    assert_eq!(lets_in(&Arc::new(client), &server), Ok(()));
}

const A: &str = "sha256//CkjRtbnzTHoYyqR2gDoeQ5pUkeh3cHJ7ApdhcGvEeXc=";
const B: &str = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn a_list_has_a_pin_a_line_with_comments_behind_and_between() {
    let (a, b) = (Pin::parse(A).unwrap(), Pin::parse(B).unwrap());
    let text = format!("# keys\r\n\n  {A}\tlaptop of Anna\n  # {B}\n{B} # phone\r\n{A}");
    assert_eq!(parse(text.as_bytes(), "keys"), Ok(vec![a, b, a]));
    assert_eq!(parse(&[B.as_bytes(), b" caf\xe9\n"].concat(), "keys"), Ok(vec![b]));
    assert_eq!(parse(b"", "keys"), Ok(Vec::new()));
}

#[test]
fn a_malformed_line_is_named_and_not_repeated() {
    let bad = ["ssh-ed25519 AAAA anna", &A[..A.len() - 1], &A[8..], &format!("{A}#c"), "SHA256//", "\u{e9}"];
    for bad in bad {
        let failure = parse(format!("{A}\n\n{bad}\n{B}\n").as_bytes(), "keys").unwrap_err().to_string();
        assert!(failure.starts_with("keys:3: the line does not begin with a pin"), "{failure}");
        assert!(!failure.contains(bad), "{failure}");
    }
}

#[test]
fn a_reload_that_fails_keeps_the_old_list() {
    let folder = Folder::new();
    let path = folder.file("keys");
    let (a, b) = (Pin::parse(A).unwrap(), Pin::parse(B).unwrap());
    fs::write(&path, format!("{A} anna\n")).unwrap();
    let list = KeyList::load(vec![b], Some(path.clone())).unwrap();
    let keys = list.keys();
    assert!(keys.contains(&a) && keys.contains(&b));

    fs::write(&path, format!("# only\n{A} anna\nnonsense\n")).unwrap();
    let failure = list.reload().unwrap_err().to_string();
    assert!(failure.contains("keys:3: "), "{failure}");
    assert_eq!(keys.len(), 2);

    fs::remove_file(&path).unwrap();
    assert!(list.reload().is_err() && keys.len() == 2, "the file is gone");

    fs::write(&path, "# nobody of the file\n").unwrap();
    assert_eq!(list.reload(), Ok(vec![a]));
    assert!(!keys.contains(&a) && keys.contains(&b), "those of the command line stay");
}

#[test]
fn a_list_that_others_can_write_to_is_refused_and_may_be_read_by_all() {
    let folder = Folder::new();
    let path = folder.file("keys");
    fs::write(&path, A).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(KeyList::load(Vec::new(), Some(path.clone())).is_ok());
    for mode in [0o664, 0o646] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let failure = KeyList::load(Vec::new(), Some(path.clone())).unwrap_err().to_string();
        assert!(failure.contains("others may write to it") && failure.contains("chmod go-w"), "{failure}");
    }
}

#[test]
fn a_key_is_made_once_for_its_owner_alone_and_its_pin_is_printed() {
    let folder = Folder::new();
    let made = run(&folder, &["key", "my.key"]);
    assert_eq!((made.code, made.err.as_str()), (0, "rendezvous: key: made the key my.key\n"));
    let pin = Pin::parse(made.out.trim_end()).unwrap();
    assert_eq!(pin, identity(&folder, "my.key").pin);
    let path = folder.file("my.key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read(&path).unwrap();
    assert!(text.starts_with(b"-----BEGIN PRIVATE KEY-----"));

    let again = run(&folder, &["key", "my.key"]);
    assert_eq!((again.code, &again.out, again.err.as_str()), (0, &made.out, ""));
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[test]
fn without_a_file_the_key_is_in_the_state_folder() {
    let folder = Folder::new();
    let made = run(&folder, &["key"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert_eq!(Pin::parse(made.out.trim_end()), Ok(identity(&folder, "state/connect.key").pin));
    assert_eq!(fs::metadata(folder.file("state")).unwrap().permissions().mode() & 0o7777, 0o700);
    let without = common::cli::command(&folder, &["key"]).env_remove("STATE_DIRECTORY").output().unwrap();
    assert_eq!(without.status.code(), Some(2));
}

#[test]
fn keys_of_a_relay_and_certificates_have_pins_too() {
    let folder = Folder::new();
    let state = rendezvous::state::State::open(folder.file("state").to_str()).unwrap();
    let (relay, _) =
        cert::ensure(&state, cert::PairFiles::RELAY, &["localhost".to_owned()], &provider()).unwrap();
    for file in ["state/relay.key", "state/relay.crt"] {
        assert_eq!(run(&folder, &["key", file]).out, format!("{}\n", relay.pin));
    }
    fs::set_permissions(folder.file("state/relay.crt"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(run(&folder, &["key", "state/relay.crt"]).code, 0);
}

#[test]
fn no_key_is_made_where_others_could_replace_it_and_no_open_key_is_used() {
    let folder = Folder::new();
    let open = folder.file("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let refused = run(&folder, &["key", "open/my.key"]);
    assert!(refused.code == 1 && refused.err.contains("everybody can write"), "{}", refused.err);
    assert!(!open.join("my.key").exists());

    run(&folder, &["key", "my.key"]);
    fs::set_permissions(folder.file("my.key"), Permissions::from_mode(0o644)).unwrap();
    let refused = run(&folder, &["key", "my.key"]);
    assert!(refused.code == 1 && refused.err.contains("chmod 600"), "{}", refused.err);

    fs::write(folder.file("text"), "hello").unwrap();
    fs::set_permissions(folder.file("text"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run(&folder, &["key", "text"]).code, 1);
    assert_eq!(run(&folder, &["key", "missing/my.key"]).code, 1);
    assert_eq!(run(&folder, &["key", ""]).code, 2);
    assert_eq!(run(&folder, &["key", "a", "b"]).code, 2);
}
