//! The client keys that an agent accepts: `--allow-key` and the file of `--allow-keys`.
//!
//! ```text
//! # one pin a line, and a comment behind it
//! sha256//CkjRtbnzTHoYyqR2gDoeQ5pUkeh3cHJ7ApdhcGvEeXc= laptop of Anna
//! ```
//!
//! An empty list admits no client.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::pin::Pin;

/// The accepted keys. All clones share one set, which a reload replaces.
#[derive(Clone, Debug)]
pub struct AllowedKeys(Arc<RwLock<Vec<Pin>>>);

impl AllowedKeys {
    /// Makes a set of these pins.
    #[must_use]
    pub fn new(pins: Vec<Pin>) -> Self {
        Self(Arc::new(RwLock::new(in_order(pins))))
    }

    /// Whether a key with this pin is accepted.
    #[must_use]
    pub fn contains(&self, pin: &Pin) -> bool {
        // The set is replaced in one assignment, so it is consistent even after a panic elsewhere.
        self.0.read().unwrap_or_else(PoisonError::into_inner).binary_search(pin).is_ok()
    }

    /// Number of accepted keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no key is accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces the set for handshakes that end later. Returns the keys that are no longer accepted.
    pub fn replace(&self, pins: Vec<Pin>) -> Vec<Pin> {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut removed = std::mem::replace(&mut *keys, in_order(pins));
        removed.retain(|pin| keys.binary_search(pin).is_err());
        removed
    }
}

/// The sources of the keys, and the set that was read last.
#[derive(Clone, Debug)]
pub struct KeyList {
    given: Vec<Pin>,
    file: Option<PathBuf>,
    keys: AllowedKeys,
}

impl KeyList {
    /// Reads the keys of `--allow-key` and those of the file, if there is one.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if the file cannot be read, if other users can write to it, or if a line is malformed.
    pub fn load(given: Vec<Pin>, file: Option<PathBuf>) -> Result<Self, Failure> {
        let keys = AllowedKeys::new(read(&given, file.as_deref())?);
        Ok(Self { given, file, keys })
    }

    /// The set, which [`KeyList::reload`] updates.
    #[must_use]
    pub fn keys(&self) -> AllowedKeys {
        self.keys.clone()
    }

    /// Reads the file again. Returns the keys that are no longer accepted.
    ///
    /// # Errors
    ///
    /// Those of [`KeyList::load`]; the set is unchanged.
    pub fn reload(&self) -> Result<Vec<Pin>, Failure> {
        Ok(self.keys.replace(read(&self.given, self.file.as_deref())?))
    }
}

fn read(given: &[Pin], file: Option<&Path>) -> Result<Vec<Pin>, Failure> {
    let mut pins = given.to_vec();
    if let Some(path) = file {
        let bytes = files::read(path, FileKind::ALLOWED_KEYS)?;
        pins.extend(parse(&bytes, &path.display().to_string())?);
    }
    Ok(pins)
}

/// Parses the text of a file of keys; `shown` is its name in messages.
///
/// # Errors
///
/// [`Failure::Failed`] for the first malformed line, with its number.
pub fn parse(bytes: &[u8], shown: &str) -> Result<Vec<Pin>, Failure> {
    let mut pins = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match read_line(line) {
            Ok(pin) => pins.extend(pin),
            Err(why) => return Err(Failure::Failed(format!("{shown}:{number}: {why}"))),
        }
    }
    Ok(pins)
}

/// The pin of a line; `None` for an empty line or a comment. The comment after a pin may be in any encoding.
fn read_line(line: &[u8]) -> Result<Option<Pin>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    // The word is not repeated: a private key may have been pasted here.
    let pin = std::str::from_utf8(word).ok().and_then(|word| Pin::parse(word).ok());
    pin.map(Some).ok_or(
        "the line does not begin with a pin, sha256// and 44 characters of BASE64 (rendezvous key prints it)",
    )
}

fn in_order(mut pins: Vec<Pin>) -> Vec<Pin> {
    pins.sort_unstable();
    pins.dedup();
    pins
}
