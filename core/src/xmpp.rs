//! XMPP, as much of it as signalling needs: an external component (XEP-0114) that any number of machines' JIDs may
//! live behind. The stanzas of DTCP and of the stream proxy are beside these ([`dtcp::xmpp`](crate::dtcp::xmpp),
//! [`bytestream::xmpp`](crate::bytestream::xmpp)). Sources: RFC 6120 and RFC 7622, XEP-0114,
//! XEP-0086 for the numbers of errors; docs/dtcp.md §7 for what servers really do.
//!
//! ```text
//!                 bytes                       IQs
//!   XMPP server ◀────────▶ component ◀─ hosted ────▶ a machine that handles IQs ◀──▶ its own sockets
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`stream`] | bytes to elements, within budgets |
//! | `outline` | where a stanza ends, without keeping any of it |
//! | [`element`] | a small tree, read or to be written |
//! | [`jid`] | names of entities and of IQs |
//! | [`iq`] | the one kind of stanza that is used here |
//! | [`condition`] | what stanza errors and stream errors say |
//! | [`component`] | the client's side of XEP-0114 |
//! | [`component_host`] | a machine behind such a component: what a command runs |
//!
//! There is no TLS on such a stream and the secret is all that guards it: the server belongs on the same machine, or
//! in the same trusted network.

pub mod component;
pub mod component_host;
pub mod condition;
pub mod element;
pub mod iq;
pub mod jid;
mod stanza_framer;
pub mod stream;
