//! XMPP as far as signalling needs it: an external component (XEP-0114) for any number of machines' JIDs. The stanzas
//! of DTCP and of the stream proxy are defined with these ([`dtcp::xmpp`](crate::dtcp::xmpp),
//! [`bytestream::xmpp`](crate::bytestream::xmpp)). Sources: RFC 6120, RFC 7622, XEP-0114, XEP-0086 for the numbers of
//! errors; docs/dtcp.md §7 for the behaviour of servers.
//!
//! ```text
//!                 bytes                       IQs
//!   XMPP server ◀────────▶ component ◀─ component_host ─▶ a machine that handles IQs ◀──▶ its own sockets
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`stream`] | bytes to elements, within limits |
//! | `stanza_framer` | finds the end of a stanza, without a buffer |
//! | [`element`] | a small XML tree |
//! | [`jid`] | names of entities and of IQs |
//! | [`iq`] | IQs, the only kind of stanza that is used |
//! | [`condition`] | conditions of stanza errors and stream errors |
//! | [`component`] | the client's side of XEP-0114 |
//!
//! There is no TLS on such a stream, and only the secret protects it. The server belongs on the same machine, or in
//! the same trusted network.

pub mod component;
pub mod condition;
pub mod element;
pub mod iq;
pub mod jid;
mod stanza_framer;
pub mod stream;
