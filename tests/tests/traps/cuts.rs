//! Bytes after a head.

use std::cell::RefCell;
use std::rc::Rc;

use rendezvous_core::time::{Span, Time};
use tests::actors::{Actor, Behaviour, Ending, bound_registration, key_of};
use tests::model::ByteLedger;
use tests::plan::id;
use tests::run::relay_address;
use tests::sim_net::{Ep, Faults, ProcessId, WALL, World};

use crate::{CALM, client, finish, in_seconds, scene};

#[test]
fn bytes_after_a_request_follow_it_however_it_is_cut() {
    for faults in [CALM, Faults { short_recv: 1_000, ..CALM }] {
        for send_most in [1, 2, 3, 100, 170, 180, 65_536] {
            let mut run = scene(10, faults.clone(), 10, Ending::HalfClose, None);
            let behaviour = Behaviour { send_most, send_rest: Span::from_millis(3), ..Behaviour::plain(50) };
            let client = client(&mut run, behaviour, None);
            let until = in_seconds(&run, 100);
            assert!(run.until_or(until, |_| client.borrow().is_done()), "{send_most}: it never ended");
            run.wait(Span::from_secs(1));
            let flow = &run.ledger.flows()[0];
            assert!(flow.received == 50 && flow.done, "{send_most}: {flow:?}");
            finish(run);
        }
    }
}

/// Sends a CONNECT and a byte after it, in pieces, each after the previous one has certainly been read.
struct Eager {
    pieces: Vec<Vec<u8>>,
    ep: Option<Ep>,
    next: Time,
    received: Vec<u8>,
    ended: bool,
}

impl Actor for Eager {
    fn act(&mut self, who: ProcessId, world: &mut World, _: &mut ByteLedger) {
        let ep = match self.ep {
            Some(ep) => ep,
            None => *self.ep.insert(world.connect(who, relay_address()).expect("there is a descriptor")),
        };
        if self.ended || !world.connected(ep).expect("the relay listens") {
            return;
        }
        if world.now() >= self.next && !self.pieces.is_empty() {
            let piece = self.pieces.remove(0);
            assert_eq!(world.send(ep, &piece).expect("there is room"), piece.len());
            self.next = world.now() + Span::from_millis(100);
            world.sleep_until(who, self.next);
        }
        let mut buffer = [0; 1_000];
        while let Ok(n) = world.recv(ep, &mut buffer) {
            self.received.extend_from_slice(&buffer[..n]);
            if n == 0 {
                self.ended = true;
                return world.close(ep);
            }
        }
    }

    fn retire(&mut self) {}

    fn leave(&mut self, world: &mut World) {
        if let Some(ep) = self.ep.filter(|_| !self.ended) {
            world.abort(ep);
        }
    }

    fn is_done(&self) -> bool {
        self.ended
    }
}

/// A byte that came with the CONNECT is a conflict. One that came after its 200 ends the waiting connection.
#[test]
fn bytes_after_a_connect_are_judged_by_how_they_are_cut() {
    let mut run = scene(11, CALM, 10, Ending::HalfClose, None);
    let step = key_of(id(0)).step(WALL);
    for cut in 1.. {
        let mut bytes = bound_registration(id(0), step, &format!("nonce-of-the-cut-{cut:04}")).into_bytes();
        let head = bytes.len();
        bytes.push(b'!');
        if cut > bytes.len() {
            break;
        }
        let (front, back) = bytes.split_at(cut);
        let mut pieces = vec![front.to_vec()];
        pieces.extend((!back.is_empty()).then(|| back.to_vec()));
        let eager = Eager { pieces, ep: None, next: run.now(), received: Vec::new(), ended: false };
        let eager = Rc::new(RefCell::new(eager));
        run.add(Rc::clone(&eager), None);
        let until = in_seconds(&run, 3);
        assert!(run.until_or(until, |_| eager.borrow().ended), "cut at {cut}: it goes on");
        let received = String::from_utf8_lossy(&eager.borrow().received).into_owned();
        if cut == head {
            assert_eq!(received, "HTTP/1.1 200 OK\r\n\r\n", "cut at {cut}");
        } else {
            assert!(received.starts_with("HTTP/1.1 409 "), "cut at {cut}: {received}");
        }
    }
    finish(run);
}
