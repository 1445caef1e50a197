//! What a client stores.

use alloc::string::String;

/// What a client has stored. One for each directory URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {}

impl State {
    /// Reads a stored document.
    ///
    /// # Errors
    ///
    /// It is damaged, of another version, or of another CA than `directory`. The driver sets it aside, and starts with
    /// [`State::default`].
    pub fn parse(document: &str, directory: &super::Url) -> Result<Self, Unreadable> {
        let _ = directory;
        if document.is_empty() { Err(Unreadable { why: "it is empty" }) } else { Ok(Self::default()) }
    }

    /// The document.
    #[must_use]
    pub fn to_document(&self) -> String {
        String::from("{}")
    }
}

/// Why a stored document cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Why, for the log.
    pub why: &'static str,
}
