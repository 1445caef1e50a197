//! Connections that are not read: their ends are detected without consuming a byte. The stream proxy has such
//! connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rendezvous::event_loop::{EventLoop, TlsSetup};
use rendezvous::net::Net;
use rendezvous::net::mio::MioNet;
use rendezvous_core::bytestream::entity::{self, Entity};
use rendezvous_core::bytestream::name::{IqId, Jid, StreamId};
use rendezvous_core::bytestream::proxy::{self, Proxy};
use rendezvous_core::bytestream::stanza::{Condition, Connection, Query, Stanza};
use rendezvous_core::machine::Machine;
use rendezvous_core::time::Span;
use socket2::SockRef;

use crate::relay::{SIZES, TIMEOUT};

const ALICE: &str = "alice@example.org/a";
const BOB: &str = "bob@example.org/b";

/// A machine over real sockets, driven by the test.
struct Turned<M: Machine>(EventLoop<MioNet, M>);

impl<M: Machine> Turned<M> {
    fn new(machine: impl FnOnce(SocketAddr) -> M) -> (Self, SocketAddr) {
        let mut net = MioNet::new().expect("descriptors");
        let at = net.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        (Self(EventLoop::new(net, machine(at), TlsSetup::default(), SIZES, 1)), at)
    }

    /// Runs turns until `what` returns a value.
    #[track_caller]
    fn until<R>(&mut self, mut what: impl FnMut(&mut Self) -> Option<R>) -> R {
        let since = self.0.net().now().mono;
        loop {
            if let Some(found) = what(self) {
                return found;
            }
            assert!(self.0.net().now().mono.since(since) < Span::from_secs(10), "it never happens");
            self.0.turn(Some(Span::from_millis(20))).expect("it turns");
        }
    }
}

impl Turned<Proxy> {
    fn proxy() -> (Self, SocketAddr) {
        Self::new(|at| {
            let mut config = proxy::Config::new(jid("proxy.example.org"));
            config.rules.listeners = vec![at];
            Proxy::new(config)
        })
    }

    fn claim(&mut self, who: &str, endpoint: SocketAddr) {
        let query = Query::Claim { sid: StreamId::new("s"), endpoint: Some(endpoint) };
        let stanza = Stanza { peer: jid(who), id: IqId::new(who).unwrap(), query };
        self.0.call(|proxy, now| proxy.handle_stanza(stanza, now));
    }

    #[track_caller]
    fn answer(&mut self) -> Stanza {
        self.until(|after_turn| after_turn.0.call(|proxy, _| proxy.poll_stanza()))
    }

    /// A socket that the proxy has accepted, claimed by this JID.
    fn claimed(&mut self, at: SocketAddr, who: &str) -> TcpStream {
        let sock = connect(at);
        let before = self.0.machine().claimed();
        self.claim(who, sock.local_addr().unwrap());
        self.until(|after_turn| (after_turn.0.machine().claimed() != before).then_some(()));
        sock
    }
}

fn jid(text: &str) -> Jid {
    Jid::new(text).expect("a JID")
}

fn connect(at: SocketAddr) -> TcpStream {
    let sock = TcpStream::connect(at).expect("it listens");
    sock.set_read_timeout(Some(TIMEOUT)).unwrap();
    sock
}

fn reset(sock: TcpStream) {
    SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn the_end_of_an_unclaimed_socket_shows_at_once() {
    let (mut proxy, at) = Turned::proxy();
    for is_reset in [false, true] {
        let sock = connect(at);
        proxy.until(|after_turn| (after_turn.0.machine().unclaimed() == 1).then_some(()));
        if is_reset {
            reset(sock);
        } else {
            drop(sock);
        }
        proxy.until(|after_turn| (after_turn.0.connections() == 0).then_some(()));
    }
}

#[test]
fn a_claimed_socket_that_dies_is_404_at_once() {
    let (mut proxy, at) = Turned::proxy();
    for is_reset in [false, true] {
        let sock = proxy.claimed(at, ALICE);
        if is_reset {
            reset(sock);
        } else {
            drop(sock);
        }
        assert_eq!(proxy.answer().query, Query::Error(Condition::ItemNotFound));
        proxy.until(|after_turn| (after_turn.0.connections() == 0).then_some(()));
    }
}

/// Unread data hides the end. Both are relayed after pairing, because peeking consumes nothing.
#[test]
fn bytes_and_an_end_that_waited_unread_cross_whole() {
    let (mut proxy, at) = Turned::proxy();
    let mut alice = proxy.claimed(at, ALICE);
    for part in [&b"ear"[..], b"ly"] {
        alice.write_all(part).unwrap();
        for _ in 0..5 {
            proxy.0.turn(Some(Span::from_millis(5))).unwrap();
        }
    }
    alice.shutdown(Shutdown::Write).unwrap();
    for _ in 0..5 {
        proxy.0.turn(Some(Span::from_millis(5))).unwrap();
    }
    assert_eq!((proxy.0.machine().claimed(), proxy.0.buffers()), (1, 0));
    let mut bob = connect(at);
    proxy.claim(BOB, bob.local_addr().unwrap());
    assert_eq!([proxy.answer().query, proxy.answer().query], [Query::CLEAR, Query::CLEAR]);
    bob.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    proxy.until(|_| match bob.read_to_end(&mut got) {
        Ok(_) => Some(()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            None
        }
    });
    assert_eq!(got, b"early");
    drop(bob);
    proxy.until(|after_turn| (after_turn.0.connections() == 0).then_some(()));
}

/// A target claims the address that it dialled, with the port that the system assigned.
#[test]
fn a_machine_learns_the_local_address_of_what_it_dialled() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let there = listener.local_addr().unwrap();
    let (mut entity, _) = Turned::new(|at| {
        let mut config = entity::Config::new(jid(ALICE));
        config.rules.listeners = vec![at];
        config.service = Some(there);
        config.dial.loopback = true;
        Entity::new(config, [3; 32])
    });
    let connections = vec![Connection { jid: jid(BOB), to: there }];
    let query = Query::Offer { sid: StreamId::new("s"), connections, malformed: 0 };
    let offer = Stanza { peer: jid(BOB), id: IqId::new("1").unwrap(), query };
    entity.0.call(|entity, now| entity.handle_stanza(offer, now));
    let claim = entity.until(|after_turn| after_turn.0.call(|entity, _| entity.poll_stanza()));
    let (_, from) = listener.accept().unwrap();
    assert_eq!(claim.query, Query::Claim { sid: StreamId::new("s"), endpoint: Some(from) });
}
