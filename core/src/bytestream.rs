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
//! forwarded early. A shell that can see the end of such a socket all the same, with nothing unread before it, should
//! tell (`handle_end`); where it can't, the deadline ends what nobody needs. In one point we leave XMPP.md's tables: an
//! end in order before 'clear to send' fails neither end's stream (I2, I4, T2), since TCP may overtake XMPP with the
//! half-close of a peer that is clear before us. At a proxy nobody is clear before it says so: there it is the end.

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
