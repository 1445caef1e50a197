//! A relay that the test controls, and the agent that waits there.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use rendezvous::pin::Pin;
use rendezvous::tls_config::{end_to_end_client_config, end_to_end_name, provider};
use rendezvous_core::id::Id;
use rustls::{ClientConnection, StreamOwned};

use crate::hidden::{Raw, read_head};
use crate::program::{PATIENCE, Program};
use crate::wire::Below;
use crate::world::{Enrolled, World, start_agent};

/// The pin of an end-to-end agent, from its log.
pub(crate) fn pin_of(agent: &Program) -> String {
    agent.pick("its pin", |line| {
        let pin = line.split_once("event=end-to-end pin=")?.1;
        Some(pin.split([' ', '"']).next()?.to_owned())
    })
}

/// A relay in the test's hand, in clear, and an agent with a stream service that waits there.
pub(crate) struct Cheat {
    /// Keeps its folder.
    _world: World,
    listener: TcpListener,
    pub(crate) service: Raw,
    home: Enrolled,
    pub(crate) agent: Program,
}

impl Cheat {
    pub(crate) fn start(options: &[&str]) -> Self {
        let world = World::new();
        let home = world.enrol("home", &["--label", "home", "--end-to-end"]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let service = Raw::start();
        let real = world.relay(&[]);
        let ticket = world.ticket_with(&real, &home, Below::Clear, |line| {
            Some(if line.starts_with("relay ") { format!("relay http://{at}") } else { line.to_owned() })
        });
        let state = world.folder.0.join("agent").display().to_string();
        let to = service.address.to_string();
        let own = ["--to", &to, "--stream", &to, "--end-to-end", "--state", &state, "--pool", "1"];
        let agent = start_agent(&ticket, &[&own, options].concat());
        Self { _world: world, listener, service, home, agent }
    }

    /// A connection of the agent's that waits.
    pub(crate) fn accept(&self) -> TcpStream {
        let (mut wire, _) = self.listener.accept().expect("the agent comes");
        wire.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let connect = String::from_utf8_lossy(&read_head(&mut wire)).into_owned();
        assert!(connect.contains("&raw=1 HTTP/1.1\r\n"), "{connect}");
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("it can be written");
        wire
    }

    pub(crate) fn id(&self) -> Id {
        Id::parse(self.home.id.as_bytes()).expect("an ID")
    }

    /// A connector's stream inside TLS, by way of this relay: the service's end of it too. The relay sees the ciphertext
    /// alone, and has the socket.
    pub(crate) fn stream(&self) -> (StreamOwned<ClientConnection, TcpStream>, TcpStream) {
        let mut tls = self.tls(&pin_of(&self.agent), self.id());
        tls.write_all(b"GET / HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n")
            .expect("the handshake succeeds");
        let service = self.service.accept();
        read_head(&mut tls);
        (tls, service)
    }

    pub(crate) fn tls(&self, pin: &str, id: Id) -> StreamOwned<ClientConnection, TcpStream> {
        let mut wire = self.accept();
        wire.write_all(SEALED).expect("it can be written");
        read_head(&mut wire);
        let pins = [Pin::parse(pin).expect("a pin")];
        let config = end_to_end_client_config(&pins, None, &provider()).expect("a configuration");
        let client = ClientConnection::new(config, end_to_end_name(id)).expect("a configuration that fits");
        StreamOwned::new(client, wire)
    }
}

/// Asks for a stream inside TLS to the agent.
const SEALED: &[u8] =
    b"GET / HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: octet-stream+tls\r\n\r\n";
