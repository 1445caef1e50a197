//! The stream proxy of December 2002: two entities that talk over XMPP get a stream, with no protocol on its sockets.
//!
//! Source: 'A Proposal to the DTCP/JOBS/PASS madness', Dave Smith on standards-jig, 13 December 2002. The code follows
//! the state tables of docs/stream-proxy.md §2, §3, §4 row by row; §5 has what the mail leaves open. There are three
//! roles:
//!
//! | role | what it does | where |
//! |---|---|---|
//! | initiator | offers connections: its own address first, proxies next | [`initiator`] |
//! | target | dials what is offered, in that order, and says over XMPP which socket is its own | [`target`] |
//! | proxy | joins two sockets that were claimed with the same stream id | [`proxy`] |
//!
//! Who holds which socket is said over XMPP alone ([`matching`]). [`proxy::Proxy`] and [`entity::Entity`], which is
//! both of the other roles, are [machines](crate::machine::Machine) like the relay: the same event loop runs them, and
//! their pairs follow the same half-close table ([`crate::pair`]). What is beside the sockets comes in as
//! [`Stanza`](stanza::Stanza)s and goes out as such; [`xmpp`] reads and writes them
//! as IQs.
//!
//! Bytes that come before a stream is clear to send are left unread in the kernel
//! ([`Read { wanted: false }`](crate::machine::Output::Read)): TCP may overtake XMPP, and nothing may be lost or
//! forwarded early. An end with nothing unread in front of it shows all the same.
//!
//! # An end before 'clear to send'
//!
//! If a reset comes before, there is no stream. A FIN is different (docs/stream-proxy.md §5.9): a peer that was told
//! 'clear to send' before us may send all of its bytes and a FIN while the stanza to us is still with the XMPP server.
//! If the stream failed then, those bytes would be lost. So it depends on whether the peer can be clear already:
//!
//! | state | can the peer be clear? | a FIN is |
//! |---|---|---|
//! | a socket that nobody claimed yet, of an initiator or a proxy | no: its claim was not answered | the end |
//! | I2: the target's claim is answered, its PF5 is missing | yes, by our answer (PF7) | its half-close |
//! | I4: our claim is at the proxy | yes, if the proxy told the target first (A6.8) | its half-close |
//! | T1: connected, but not claimed yet | no | a dial that failed |
//! | T2: our claim is at the initiator or a proxy | yes: an initiator is clear as it answers (PF7) | its half-close |
//! | proxy, claimed | no: nobody is before the proxy joins the two | the end: 404 |
//!
//! Where a half-close was none, and the peer had given up, the answer that never comes is what ends it, after 60 s.

pub mod entity;
mod failures;
pub mod initiator;
pub mod matching;
pub mod name;
pub mod proxy;
pub mod role;
pub mod stanza;
mod streams;
pub mod target;
pub mod xmpp;
