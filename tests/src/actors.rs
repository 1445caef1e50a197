//! Actors at the other ends of simulated sockets, well-behaved and hostile.

use std::cell::RefCell;
use std::rc::Rc;

use rendezvous_core::id::Id;
use rendezvous_core::time::Span;
use rendezvous_core::token::{Algorithm, Key};

pub use self::channel::{Channel, Received, Tls};
pub use self::client::{Client, Program};
pub use self::greedy::Greedy;
pub use self::hidden::{Hidden, Style, bound_registration};
pub use self::scanner::Scanner;
pub use self::script::{Behaviour, Ending, Script, field};
use crate::model::ByteLedger;
use crate::rng::Rng;
use crate::sim_net::{ProcessId, World};

mod channel;
mod client;
mod greedy;
mod hidden;
mod scanner;
mod script;

/// A scripted participant of a simulation.
pub trait Actor {
    /// Called after an event or at the requested time: performs the next steps of the script.
    fn act(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger);

    /// Starts nothing new. Connections that exist continue.
    fn retire(&mut self);

    /// Resets all open connections.
    fn leave(&mut self, world: &mut World);

    /// Whether it has nothing more to do unless a peer connects.
    fn is_done(&self) -> bool;
}

/// An actor that a test inspects afterwards.
impl<A: Actor> Actor for Rc<RefCell<A>> {
    fn act(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger) {
        self.borrow_mut().act(who, world, ledger);
    }

    fn retire(&mut self) {
        self.borrow_mut().retire();
    }

    fn leave(&mut self, world: &mut World) {
        self.borrow_mut().leave(world);
    }

    fn is_done(&self) -> bool {
        self.borrow().is_done()
    }
}

/// The secret of an ID.
///
/// # Panics
/// Never: a secret of 20 bytes is valid.
#[must_use]
pub fn key_of(id: Id) -> Key {
    let mut secret = id.0.to_be_bytes().to_vec();
    secret.extend_from_slice(b"salt");
    Key::new(secret, Algorithm::Sha256, 8, 30).expect("a good secret")
}

/// A random time span of at most `most` microseconds.
fn moment(rng: &mut Rng, most: u64) -> Span {
    Span(rng.below(most + 1))
}
