//! The stream proxy of December 2002: two entities that talk over XMPP get a stream, with no protocol on its sockets.
//!
//! Source: 'A Proposal to the DTCP/JOBS/PASS madness', Dave Smith on standards-jig, 13 December 2002 (seed 003); what
//! it leaves open is read as in XMPP.md §6, whose state tables (I0–I9, T0–T9 and the proxy's) the code follows row by
//! row. There are three roles:
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
//! [`Stanza`](stanza::Stanza)s and goes out as such; XML is for others.
//!
//! Octets that come before a stream is clear to send are left unread in the kernel
//! ([`Read { wanted: false }`](crate::machine::Output::Read)): TCP may overtake XMPP, and nothing may be lost or
//! forwarded early. An end with nothing unread in front of it shows all the same.
//!
//! # An end before 'clear to send'
//!
//! Where a reset comes before, there is no stream. A FIN is another matter: in one point we leave XMPP.md's tables,
//! which have a stream fail by it. A peer that was told 'clear to send' before us may send everything that it has, and
//! its FIN behind, while the word to us is still with the XMPP server: to fail would lose those octets. So each state
//! asks whether the peer can be clear already:
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
