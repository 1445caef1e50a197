//! The event loop over real sockets on loopback, with the relay's engine in it: what it moves, how it ends, what it
//! keeps, and what its peers can do to it.

mod bulk;
#[cfg(feature = "acme")]
mod challenges;
mod crafted;
mod ends;
mod faulty;
mod follow;
mod hand_over;
mod hostile;
mod peer;
mod pressure;
mod relay;
mod requests;
mod traps;
mod unread;
