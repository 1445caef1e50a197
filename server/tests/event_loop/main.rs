//! The event loop over real loopback sockets, with the relay's engine: data, ends, memory, and hostile peers.

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
mod rates;
mod relay;
mod requests;
mod traps;
#[cfg(feature = "xmpp")]
mod unread;
