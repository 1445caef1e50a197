//! Notifications to a service manager: there is none of this kind.

use std::io;

use rendezvous_core::time::Time;

/// The connection to the service manager: none.
#[derive(Debug, Default)]
pub struct Manager;

impl Manager {
    /// Connects to no manager.
    ///
    /// # Errors
    /// None.
    pub const fn from_environment(_: Time) -> io::Result<Self> {
        Ok(Self)
    }

    /// Reports that the program has started, or has reloaded.
    pub const fn ready(&mut self, _: Time) {}

    /// Reports a reload.
    pub const fn reloading(&mut self, _: Time) {}

    /// Reports that the program is shutting down.
    pub const fn stopping(&mut self, _: Time) {}

    /// Reports that another process is the main process.
    pub const fn hand_over(&mut self, _: u32, _: Time) {}

    /// Marks the status line as possibly changed.
    pub const fn touch(&mut self) {}

    /// Sends the messages that are due: none.
    pub fn update(&mut self, _: Time, _: impl FnOnce() -> Option<String>) {}

    /// When a message is due: never.
    #[must_use]
    pub const fn due(&self) -> Option<Time> {
        None
    }
}
