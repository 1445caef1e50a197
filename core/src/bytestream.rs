//! The stream proxy of December 2002: two entities that communicate over XMPP get a stream, with no protocol on its
//! sockets.
//!
//! Source: 'A Proposal to the DTCP/JOBS/PASS madness', Dave Smith on standards-jig, 13 December 2002. The code
//! follows the state tables of docs/stream-proxy.md §2, §3, §4 row by row; §5 resolves what the mail leaves open.
//! There are three roles:
//!
//! | role | what it does | where |
//! |---|---|---|
//! | initiator | offers connections: its own address first, proxies next | [`initiator`] |
//! | target | dials the offered connections in that order, and claims its socket over XMPP | [`target`] |
//! | proxy | joins two sockets that were claimed with the same stream id | [`proxy`] |
//!
//! Sockets are claimed over XMPP only ([`matching`]). [`proxy::Proxy`] and [`entity::Entity`], which has both other
//! roles, are [machines](crate::machine::Machine) like the relay: the same event loop runs them, and their pairs
//! follow the same half-close table ([`crate::pair`]). In addition to the sockets they consume and emit
//! [`Stanza`](stanza::Stanza)s, which [`xmpp`] parses from IQs and writes as IQs.
//!
//! Bytes that arrive before a stream is clear to send are left unread in the kernel ([`Read { wanted: false
//! }`](crate::machine::Output::Read)): TCP may overtake XMPP, and no byte may be lost or forwarded early. An end
//! without unread bytes before it is still reported.
//!
//! # An end before 'clear to send'
//!
//! A reset before 'clear to send' ends the stream. A FIN is different (docs/stream-proxy.md §5.9): a peer that got
//! 'clear to send' before us may send all of its bytes and a FIN while the stanza to us is still at the XMPP server.
//! If the stream failed then, those bytes would be lost. So it depends on whether the peer can be clear already:
//!
//! | state | can the peer be clear? | a FIN is |
//! |---|---|---|
//! | an unclaimed socket of an initiator or a proxy | no: its claim was not answered | the end |
//! | I2: the target's claim is answered, its PF5 is missing | yes, by our answer (PF7) | its half-close |
//! | I4: our claim is at the proxy | yes, if the proxy told the target first (A6.8) | its half-close |
//! | T1: connected, but not claimed yet | no | a dial that failed |
//! | T2: our claim is at the initiator or a proxy | yes: an initiator is clear as it answers (PF7) | its half-close |
//! | proxy, claimed | no: nobody is before the proxy joins the two | the end: 404 |
//!
//! If it was not a half-close and the peer has given up, the stream fails after 60 s, because the answer never comes.

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
