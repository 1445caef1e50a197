//! The take-over of a running relay by a new process, without dropping connections.
//!
//! The new process connects to a socket in the state folder. It gets the listening sockets, the tokens that were used and
//! the unwritten traffic, and then serves. The old process keeps its pairs until they end.
//!
//! ```text
//! new process                               old process
//!   Hello ─────────────────────────────────▶  checks the user and the version
//!   ◀────────────────────────────── Sockets   the listeners, each with a label
//!   loads everything, opens the rest
//!   Ready ─────────────────────────────────▶  stops accepting; once no client is held and no
//!                                             request is on its way, accepts no registration
//!   ◀────────────────────── Tokens, Traffic   the used tokens; the records of traffic that are not written
//!   ◀─────────────────────────────── Commit
//!   Taken ─────────────────────────────────▶  closes its listeners, and releases waiting connections
//!   accepts connections
//!   gives its own sockets their names
//!   Settled ───────────────────────────────▶  closes the sockets that commands connect to
//!   ◀────────────────────── Report, Traffic   once a second, until its last pair has ended
//!   Kick ──────────────────────────────────▶
//! ```
//!
//! `Taken` decides: a process that has sent it serves, and the other one that has read it does not. If the new process
//! times out, the old one shuts the connection down and reads what was sent before. So exactly one of both serves.
//!
//! A process that was taken over from connects again if its successor is gone, with `Older` as its first message: it
//! reports to the process that owns the socket then. If there is none, it writes its traffic itself.

pub use self::channel::{Channel, ChannelError};
pub use self::handed::{Handed, HandedError};
pub use self::label::{Label, Role};
pub use self::links::{Links, Place, Received};
pub use self::message::{
    DESCRIPTORS_MAX, FrameError, Kind, MOVED_MAX, Message, RECORDS_MAX, TOKENS_MAX, VERSION,
};
pub use self::successor::{Receiver, Step};

mod channel;
mod handed;
mod label;
mod links;
mod message;
mod successor;

/// The name of the socket in the state folder.
pub const NAME: &str = "take-over.sock";
