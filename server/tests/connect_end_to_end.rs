//! `connect --end-to-end` with relays and agents of the test: honest ones, and a relay that intercepts.

mod common;

use std::io::{self, PipeReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::Folder;
use common::cli::{command, run};
use rendezvous::allowed_keys::AllowedKeys;
use rendezvous::cert::{self, Identity};
use rendezvous::tls_config::{ClientAuth, EndToEndClients, end_to_end_server_config, provider};
use rendezvous_core::id::Id;
use rustls::{ServerConfig, ServerConnection, Stream};

const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
const SEALED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream+tls\r\n\r\n";
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";
/// The bytes that the local program sends.
const MARKER: &[u8] = b"MARKER of the local program\n";

fn identity(folder: &Folder, name: &str) -> Identity {
    let path = folder.file(name);
    if !path.exists() {
        cert::make_key(&path).unwrap();
    }
    cert::of_key(&path, &provider()).unwrap()
}

fn agent_config(agent: &Identity, client_auth: ClientAuth) -> Arc<ServerConfig> {
    let clients = EndToEndClients::Connectors(vec![ID]);
    end_to_end_server_config(clients, agent.certified.clone(), None, &client_auth, &provider()).unwrap()
}

/// A running connector with the marker at its standard input.
struct Connector {
    child: Child,
    listener: TcpListener,
    /// Another reader of its standard input.
    stdin: PipeReader,
}

impl Connector {
    fn start(folder: &Folder, options: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = format!("http://{}", listener.local_addr().unwrap());
        let (stdin, mut writer) = io::pipe().unwrap();
        writer.write_all(MARKER).unwrap();
        drop(writer);
        let id = ID.to_string();
        let args = [&["connect", relay.as_str(), id.as_str(), "--log", "error"], options].concat();
        let child = command(folder, &args)
            .stdin(Stdio::from(OwnedFd::from(stdin.try_clone().unwrap())))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, listener, stdin }
    }

    /// Accepts its connection at the relay and reads its request.
    fn accept(&self) -> (Wire, String) {
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut wire = Wire { socket, seen: Vec::new() };
        let head = read_head(&mut wire);
        (wire, head)
    }

    fn end(self) -> (Output, PipeReader) {
        (self.child.wait_with_output().unwrap(), self.stdin)
    }

    /// Asserts that it failed with these texts in its one line, and that it did not read the local program's bytes.
    fn assert_failed(self, parts: &[&str]) -> String {
        let (output, mut stdin) = self.end();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
        for part in parts {
            assert!(complaint.contains(part), "{part}: {complaint}");
        }
        let mut left = Vec::new();
        stdin.read_to_end(&mut left).unwrap();
        assert_eq!(
            (left.as_slice(), output.stdout.as_slice()),
            (MARKER, &b""[..]),
            "something was read or written"
        );
        complaint
    }
}

/// The relay's end of a connection, with everything that the relay has seen on it.
struct Wire {
    socket: TcpStream,
    seen: Vec<u8>,
}

impl Wire {
    fn saw(&self, what: &[u8]) -> bool {
        self.seen.windows(what.len()).any(|part| part == what)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.socket.read(buffer)?;
        self.seen.extend_from_slice(&buffer[..len]);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.socket.write(bytes)?;
        self.seen.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

fn read_head(from: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Ends a connection cleanly: first the connector, then the relay, so that no reset discards data in flight.
fn ended(mut wire: Wire) -> Wire {
    let _ = wire.read_to_end(&mut Vec::new());
    wire.socket.shutdown(Shutdown::Both).ok();
    wire
}

/// Serves one stream like an agent behind an honest relay, and echoes everything. Returns the relay's end.
fn serve(mut wire: Wire, config: Arc<ServerConfig>, fields: &str) -> Wire {
    wire.write_all(SEALED).unwrap();
    let mut tls = ServerConnection::new(config).unwrap();
    let mut stream = Stream::new(&mut tls, &mut wire);
    let request = read_head(&mut stream);
    assert!(request.contains("\r\nUpgrade: octet-stream\r\n"), "{request}");
    let head = [&SWITCHING[..SWITCHING.len() - 2], fields.as_bytes(), b"\r\n"].concat();
    stream.write_all(&head).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    stream.write_all(&got).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    wire.socket.shutdown(Shutdown::Write).unwrap();
    wire
}

#[test]
fn the_stream_crosses_and_the_relay_reads_nothing_of_it() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let connector = Connector::start(&folder, &["--end-to-end", &agent.pin.to_string()]);
    let (wire, head) = connector.accept();
    assert!(head.contains("\r\nUpgrade: octet-stream+tls\r\n") && !head.contains("DTCP"), "{head}");
    let wire = serve(wire, agent_config(&agent, ClientAuth::Off), "");
    assert!(wire.saw(b"octet-stream+tls") && !wire.saw(b"MARKER") && !wire.saw(b"DTCP"));
    let (output, _) = connector.end();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, MARKER);
}

/// Key rotation: the old key and the new one.
#[test]
fn one_of_several_pins_is_enough() {
    let folder = Folder::new();
    let (old, new) = (identity(&folder, "old.key"), identity(&folder, "new.key"));
    let pins = [old.pin.to_string(), new.pin.to_string()];
    let connector = Connector::start(&folder, &["--end-to-end", &pins[0], "--end-to-end", &pins[1]]);
    serve(connector.accept().0, agent_config(&new, ClientAuth::Off), "");
    assert_eq!(connector.end().0.stdout, MARKER);
}

#[test]
fn a_relay_that_substitutes_the_key_is_refused_and_the_message_says_what_to_do() {
    let folder = Folder::new();
    let (agent, relay) = (identity(&folder, "agent.key"), identity(&folder, "relay.key"));
    let connector = Connector::start(&folder, &["--end-to-end", &agent.pin.to_string()]);
    let (mut wire, _) = connector.accept();
    wire.write_all(SEALED).unwrap();
    let mut tls = ServerConnection::new(agent_config(&relay, ClientAuth::Off)).unwrap();
    let refused = Stream::new(&mut tls, &mut wire).read(&mut [0; 100]).unwrap_err().to_string();
    assert!(refused.contains("alert"), "{refused}");
    drop(wire);
    let expected = agent.pin.to_string();
    let parts = ["the relay may be putting itself between", "ask the agent's owner for its pin", &expected];
    let complaint = connector.assert_failed(&parts);
    assert!(!complaint.contains(&relay.pin.to_string()), "the received pin is shown: {complaint}");
}

#[test]
fn a_relay_that_shows_the_agent_s_certificate_without_its_key_is_refused() {
    let folder = Folder::new();
    let (agent, relay) = (identity(&folder, "agent.key"), identity(&folder, "relay.key"));
    let key = relay.certified.key.clone();
    let certified = rustls::sign::CertifiedKey::new(agent.certified.cert.clone(), key);
    let forged = Identity { certified: Arc::new(certified), pin: agent.pin };
    let connector = Connector::start(&folder, &["--end-to-end", &agent.pin.to_string()]);
    let (mut wire, _) = connector.accept();
    wire.write_all(SEALED).unwrap();
    let mut tls = ServerConnection::new(agent_config(&forged, ClientAuth::Off)).unwrap();
    assert!(Stream::new(&mut tls, &mut wire).read(&mut [0; 100]).is_err());
    drop(wire);
    connector.assert_failed(&["the relay may be putting itself between"]);
}

/// Another server may have the agent's key: a connector's stream is for the agent alone.
#[test]
fn a_server_that_selects_no_protocol_is_refused_even_if_it_has_the_key() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let connector = Connector::start(&folder, &["--end-to-end", &agent.pin.to_string()]);
    let (mut wire, _) = connector.accept();
    wire.write_all(SEALED).unwrap();
    let mut config = ServerConfig::clone(&agent_config(&agent, ClientAuth::Off));
    config.alpn_protocols = Vec::new();
    let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
    let read = Stream::new(&mut tls, &mut wire).read(&mut [0; 100]);
    assert!(read.is_err(), "{read:?}");
    drop(wire);
    connector.assert_failed(&["end to end"]);
}

/// The relay also announces an address of its own, which must not be dialled.
#[test]
fn a_relay_that_strips_tls_is_refused() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let offer = format!(
        "DTCP-Key: theirs\r\nDTCP-Host: {}\r\nDTCP-Fingerprint: {}\r\n\r\n",
        own.local_addr().unwrap(),
        "00".repeat(32)
    );
    let options = ["--end-to-end", &agent.pin.to_string(), "--direct-allow", "loopback"];
    let connector = Connector::start(&folder, &options);
    let (mut wire, _) = connector.accept();
    wire.write_all(&[&SWITCHING[..SWITCHING.len() - 2], offer.as_bytes()].concat()).unwrap();
    let wire = ended(wire);
    connector.assert_failed(&["not end to end", "without TLS to the agent"]);
    own.set_nonblocking(true).unwrap();
    assert_eq!(own.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "the relay was dialled");
    assert!(!wire.saw(b"MARKER"));
}

/// After the 101, the relay sends in clear what the agent would send inside TLS.
#[test]
fn an_answer_in_clear_behind_the_101_is_not_taken_for_the_agent_s() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let connector = Connector::start(&folder, &["--end-to-end", &agent.pin.to_string()]);
    let (mut wire, _) = connector.accept();
    wire.write_all(&[SEALED, SWITCHING].concat()).unwrap();
    ended(wire);
    connector.assert_failed(&["end to end, the agent"]);
}

#[test]
fn other_answers_are_explained() {
    let folder = Folder::new();
    let agent = identity(&folder, "agent.key");
    let answers = [
        ("200 OK", "check that the agent has --end-to-end and --stream"),
        ("403 Forbidden", "check that the agent has --end-to-end and --stream"),
        ("404 Not Found", "its agent has no --end-to-end"),
        ("502 Bad Gateway", "has no --end-to-end, or it disconnected"),
        ("503 Service Unavailable", "busy"),
    ];
    for (status, part) in answers {
        let connector = Connector::start(&folder, &["--end-to-end", &agent.pin.to_string()]);
        let (mut wire, _) = connector.accept();
        wire.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        ended(wire);
        connector.assert_failed(&[part]);
    }
}

#[test]
fn the_agent_lets_in_a_listed_key_and_no_other() {
    let folder = Folder::new();
    let names = ["agent.key", "user.key", "stranger.key"];
    let [agent, user, stranger] = names.map(|name| identity(&folder, name));
    let allowed = AllowedKeys::new(vec![user.pin]);
    let pin = agent.pin.to_string();

    let connector = Connector::start(&folder, &["--end-to-end", &pin, "--key", "user.key"]);
    serve(connector.accept().0, agent_config(&agent, ClientAuth::Keys(allowed.clone())), "");
    assert_eq!(connector.end().0.stdout, MARKER);

    let refused: [(&[&str], String); 2] = [
        (&["--key", "stranger.key"], format!("this key: {}", stranger.pin)),
        (&[], "no --key was given".to_owned()),
    ];
    for (options, part) in refused {
        let connector = Connector::start(&folder, &[&["--end-to-end", pin.as_str()], options].concat());
        let (mut wire, _) = connector.accept();
        wire.write_all(SEALED).unwrap();
        let mut tls = ServerConnection::new(agent_config(&agent, ClientAuth::Keys(allowed.clone()))).unwrap();
        let mut stream = Stream::new(&mut tls, &mut wire);
        assert!(stream.read(&mut [0; 100]).is_err(), "let in");
        ended(wire);
        connector.assert_failed(&["the agent may not allow this key", "--allow-key", &part]);
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    let pin = identity(&folder, "my.key").pin.to_string();
    let id = ID.to_string();
    let start = ["connect", "http://127.0.0.1:1", id.as_str()];
    let wrong: [(&[&str], i32, &str); 4] = [
        (&["--key", "my.key"], 2, "--key needs --end-to-end"),
        (&["--end-to-end", "sha256//x"], 2, "not a pin"),
        (&["--end-to-end", &pin, "--key", "missing.key"], 1, "missing.key"),
        (&["--end-to-end", &pin, "--key", ""], 2, "the file name is empty"),
    ];
    for (options, code, part) in wrong {
        let done = run(&folder, &[&start[..], options].concat());
        assert!(done.code == code && done.err.contains(part), "{options:?}: {}", done.err);
    }
}
