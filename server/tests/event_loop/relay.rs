//! A relay on a thread of this process, with one enrolled ID.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rendezvous::buffer::Sizes;
use rendezvous::clock;
use rendezvous::event_loop::{EventLoop, TlsSetup};
use rendezvous::live_certificates::LiveCertificates;
use rendezvous::net::Net;
use rendezvous::net::mio::MioNet;
use rendezvous::tls_config::{provider, server_config_with};
use rendezvous_core::engine::{Config, Engine, Transport};
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::Span;
use rendezvous_core::token::{Algorithm, Key};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::faulty::{Faults, Faulty};
use crate::peer::{Kind, Peer};

/// The enrolled ID.
pub(crate) const ID: Id = Id(0x1e1d_7a3c_4b5a_4c6d_8e9f_0a1b_2c3d_4e5f);
/// Another ID with the same secret.
pub(crate) const OTHER: Id = Id(0x2e1d_7a3c_4b5a_4c6d_8e9f_0a1b_2c3d_4e5f);
/// Timeout of every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The default sizes of tests.
pub(crate) const SIZES: Sizes = Sizes { head: 34 * 1024, bulk: 128 * 1024, ceiling: 64 * 1024 * 1024 };

/// Number of places in which bytes are queued.
pub(crate) fn queues<N: Net>(event_loop: &Loop<N>) -> usize {
    event_loop.buffers() + event_loop.pipes()
}

pub(crate) type Loop<N> = EventLoop<N, Engine>;
type Question<N> = Box<dyn FnMut(&mut Loop<N>, &[Event]) -> bool + Send>;

/// The relay. It ends on drop; a panic of its loop fails the test.
pub(crate) struct Relay<N: Net = MioNet> {
    tls: SocketAddr,
    clear: SocketAddr,
    live: Arc<LiveCertificates>,
    roots: Arc<RootCertStore>,
    questions: Option<Sender<Question<N>>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn start() -> Self {
        Self::with(SIZES, |_| {})
    }

    pub(crate) fn with(sizes: Sizes, change: impl FnOnce(&mut Config)) -> Self {
        Self::over(|net| net, sizes, change)
    }
}

impl Relay<Faulty<MioNet>> {
    pub(crate) fn faulty(faults: Faults) -> Self {
        Self::over(move |net| Faulty::new(net, faults), SIZES, |_| {})
    }
}

impl<N: Net + 'static> Relay<N> {
    fn over(
        wrap: impl FnOnce(MioNet) -> N + Send + 'static,
        sizes: Sizes,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config { listeners: vec![Transport::Tls, Transport::Plain], ..Config::default() };
        config.connections_per_address_max = 0;
        change(&mut config);
        let (certified, certificate) = certificate();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let live = Arc::new(LiveCertificates::default());
        let own = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let server = server_config_with(own, Some(&live), &provider()).unwrap();
        let (questions, asked) = channel();
        let (listening, addresses) = channel();
        let thread = thread::spawn(move || {
            let mut net = MioNet::new().unwrap();
            net.allow_pipes(4);
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listeners = (net.listen(loopback).unwrap(), net.listen(loopback).unwrap());
            let engine = Engine::new(config, [7; 32], net.now());
            let tls = TlsSetup { server: Some(server), ..TlsSetup::default() };
            let mut event_loop = EventLoop::new(wrap(net), engine, tls, sizes, 2);
            event_loop.call(|engine, now| engine.handle_ids(vec![enrolment(ID), enrolment(OTHER)], now));
            listening.send(listeners).unwrap();
            run(&mut event_loop, &asked);
        });
        let (tls, clear) = addresses.recv().unwrap();
        Self { tls, clear, live, roots: Arc::new(roots), questions: Some(questions), thread: Some(thread) }
    }

    /// A connection after its TLS handshake, if any, on which nothing else was sent.
    pub(crate) fn connect(&self, kind: Kind) -> Peer {
        Peer::connect(self.address(kind), kind, &self.roots)
    }

    pub(crate) fn address(&self, kind: Kind) -> SocketAddr {
        if kind == Kind::Clear { self.clear } else { self.tls }
    }

    /// The certificates that can change.
    #[cfg_attr(not(feature = "acme"), expect(dead_code, reason = "only the tests of challenges use it"))]
    pub(crate) const fn live(&self) -> &Arc<LiveCertificates> {
        &self.live
    }

    pub(crate) const fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// A waiting connection of the hidden server.
    pub(crate) fn hidden(&self, kind: Kind) -> Peer {
        self.hidden_of(ID, kind)
    }

    /// The same for this ID.
    pub(crate) fn hidden_of(&self, id: Id, kind: Kind) -> Peer {
        let hidden = self.connect(kind);
        hidden.send(&registration_of(id));
        assert_eq!(hidden.recv_exactly(ACCEPTED.len()), ACCEPTED);
        hidden
    }

    /// A paired hidden server and client; the hidden server has read the client's head.
    pub(crate) fn pair(&self, hidden: Kind, client: Kind) -> (Peer, Peer) {
        let hidden = self.hidden(hidden);
        let client = self.connect(client);
        client.send(&request("GET"));
        let head = hidden.recv_exactly(passed_on("GET").len());
        assert_eq!(head, passed_on("GET"));
        (hidden, client)
    }

    /// Runs a function on the loop's thread between two turns.
    pub(crate) fn ask<R: Send + 'static>(
        &self,
        mut question: impl FnMut(&mut Loop<N>) -> R + Send + 'static,
    ) -> R {
        let (answered, answer) = channel();
        self.question(Box::new(move |event_loop, _| {
            answered.send(question(event_loop)).unwrap();
            true
        }));
        answer.recv_timeout(TIMEOUT).expect("the loop answers")
    }

    /// Waits until the condition is true.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&mut Loop<N>) -> bool + Send + 'static) {
        self.until_noted(what, move |event_loop, _| condition(event_loop));
    }

    /// Waits until the loop's state or an event so far satisfies the condition.
    pub(crate) fn until_noted(
        &self,
        what: &str,
        mut condition: impl FnMut(&mut Loop<N>, &[Event]) -> bool + Send + 'static,
    ) {
        let (answered, answer) = channel();
        self.question(Box::new(move |event_loop, events| {
            let yes = condition(event_loop, events);
            if yes {
                answered.send(()).unwrap();
            }
            yes
        }));
        answer.recv_timeout(TIMEOUT).unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Waits until no connection and no buffer is left.
    pub(crate) fn until_empty(&self) {
        self.until("everything is given back", |event_loop| {
            event_loop.connections() == 0
                && queues(event_loop) == 0
                && event_loop.buffer_bytes() == 0
                && event_loop.machine().connections() == 0
                && event_loop.machine().pairs() == 0
        });
    }

    fn question(&self, question: Question<N>) {
        self.questions.as_ref().unwrap().send(question).expect("the loop runs");
    }
}

impl<N: Net> Drop for Relay<N> {
    fn drop(&mut self) {
        drop(self.questions.take());
        let ended = self.thread.take().unwrap().join();
        assert!(thread::panicking() || ended.is_ok(), "the loop panicked");
    }
}

fn run<N: Net>(event_loop: &mut Loop<N>, asked: &Receiver<Question<N>>) {
    let mut open: Vec<Question<N>> = Vec::new();
    let mut events = Vec::new();
    loop {
        event_loop.turn(Some(Span::from_millis(2))).unwrap();
        events.append(&mut event_loop.take_events());
        loop {
            match asked.try_recv() {
                Ok(question) => open.push(question),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        open.retain_mut(|question| !question(event_loop, &events));
    }
}

/// The response to a valid token.
pub(crate) const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

fn key() -> Key {
    Key::new(vec![0x5a; 32], Algorithm::Sha256, Key::DIGITS, Key::PERIOD_SECS).unwrap()
}

fn enrolment(id: Id) -> Enrolment {
    Enrolment::new(id, key())
}

/// A CONNECT with an unused token.
pub(crate) fn registration() -> Vec<u8> {
    registration_of(ID)
}

fn registration_of(id: Id) -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let key = key();
    let nonce = format!("nonce-of-the-tests-{:08}", COUNT.fetch_add(1, Ordering::Relaxed));
    let token = key.bound(key.step(clock::wall()), nonce.as_bytes());
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CONNECT uuid:{id}?response={token}&nonce={nonce} HTTP/1.1\r\n\r\n").into_bytes()
}

/// A client's head with the credential that names the ID.
pub(crate) fn request(method: &str) -> Vec<u8> {
    format!("{method} / HTTP/1.1\r\nHost: relay\r\n{}\r\n", credential(ID)).into_bytes()
}

/// The field line that names this ID.
pub(crate) fn credential(id: Id) -> String {
    let pair = data_encoding::BASE64.encode(format!("{id}:").as_bytes());
    format!("Authorization: Basic {pair}\r\n")
}

/// The head that the hidden server receives.
pub(crate) fn passed_on(method: &str) -> Vec<u8> {
    format!("{method} / HTTP/1.1\r\nHost: relay\r\n\r\n").into_bytes()
}

fn certificate() -> (Arc<CertifiedKey>, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let signing = provider().key_provider.load_private_key(secret).unwrap();
    (Arc::new(CertifiedKey::new(vec![certificate.clone()], signing)), certificate)
}
