//! The ticket files of an agent, which SIGHUP reads again.

use std::path::PathBuf;

use rendezvous_core::token::Key;

use super::upstream;
use crate::event_loop::ClientTls;
use crate::failure::Failure;
use crate::ticket::Ticket;

/// The files, in the order of the agent's upstreams, with the tickets that were read last.
#[derive(Debug, Default)]
pub(super) struct Tickets(Vec<(PathBuf, Ticket)>);

/// What a ticket changes when it is read again.
pub(super) struct Renewed {
    /// The secret.
    pub(super) key: Key,
    /// How the relay's certificate is checked.
    pub(super) tls: ClientTls,
}

impl Tickets {
    /// Adds the file of the next upstream.
    pub(super) fn add(&mut self, file: PathBuf, ticket: Ticket) {
        self.0.push((file, ticket));
    }

    /// Reads all files again. Secrets and trusted certificates may change, and nothing else.
    ///
    /// # Errors
    /// A file cannot be read, or something else has changed in it. The tickets stay as they are then, all of them.
    pub(super) fn reload(&mut self) -> Result<Vec<Renewed>, Failure> {
        let mut tickets = Vec::new();
        let mut renewed = Vec::new();
        for (file, old) in &self.0 {
            let ticket = Ticket::load(file)?;
            let other = if ticket.id != old.id {
                "ID"
            } else if ticket.relay != old.relay {
                "relay"
            } else if ticket.plain != old.plain {
                "kind of token"
            } else {
                ""
            };
            if !other.is_empty() {
                let file = file.display();
                return Err(Failure::Failed(format!(
                    "cannot take ticket {file} while running: it has another {other} than at the start; restart the agent"
                )));
            }
            let tls = upstream::tls_of(&ticket)?;
            renewed.push(Renewed { key: ticket.key.clone(), tls });
            tickets.push((file.clone(), ticket));
        }
        self.0 = tickets;
        Ok(renewed)
    }
}
