//! The file `ids`: the hidden servers that a relay knows, one per line, made to be read and edited by hand.
//!
//! ```text
//! home  otpauth://totp/rendezvous:UUID?secret=BASE32&algorithm=SHA256&digits=8&period=30  label=home  tokens=bound  tls=relay
//! ```
//!
//! The fields are a name, a Key URI, any number of labels for `LABEL.DOMAIN`, the accepted tokens (`bound` by default),
//! and whether the relay terminates the clients' TLS (`relay` by default; with `end-to-end`, the agent or its local
//! service does). Further fields limit the hidden server and its clients: `access=disabled`, `max-pairs=N`, `rate=BYTES`
//! per second, `quota=BYTES` per month, and any number of `allow=ADDR/BITS` and `deny=ADDR/BITS`. Empty lines and lines
//! that begin with `#` are ignored.

mod edit;
pub mod steering;

use std::fmt;
use std::fs::Metadata;
use std::path::Path;

use rendezvous_core::id::Id;
use rendezvous_core::token::Key;

use crate::failure::Failure;
use crate::files::{self, Content, FileKind};
use crate::key_uri;
use crate::linux::files::MetadataExt;
pub use edit::Edit;
pub use steering::Steering;

/// Name of the file in the state folder.
pub const IDS_FILE: &str = "ids";

/// The tokens that a relay accepts for an ID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokens {
    /// Only tokens bound to a nonce.
    #[default]
    Bound,
    /// Plain tokens as well.
    Any,
}

impl Tokens {
    /// Parses `bound` or `any`.
    pub fn parse(text: &str) -> Option<Tokens> {
        [Tokens::Bound, Tokens::Any].into_iter().find(|tokens| tokens.name() == text)
    }

    /// `bound` or `any`.
    pub fn name(self) -> &'static str {
        match self {
            Tokens::Bound => "bound",
            Tokens::Any => "any",
        }
    }
}

/// A hidden server. `Debug` does not show the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The operator's name for it; see [`is_name`].
    pub name: String,
    /// Its ID.
    pub id: Id,
    /// The key that its tokens are made with.
    pub key: Key,
    /// Its labels under the relay's domain; see [`is_label`].
    pub labels: Vec<String>,
    /// The tokens that it may send.
    pub tokens: Tokens,
    /// Whether its clients' TLS is terminated by the agent or its local service instead of the relay.
    pub end_to_end: bool,
    /// Its limits.
    pub steering: Steering,
}

impl Entry {
    /// Whether this is its name or one of its labels.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.labels.iter().any(|label| label == name)
    }
}

/// The field of the file for [`Entry::end_to_end`].
fn tls_word(end_to_end: bool) -> &'static str {
    if end_to_end { "tls=end-to-end" } else { "tls=relay" }
}

/// Whether a name is valid: 1 to 64 letters, digits, `-`, `_`, `.`, the first of them not a dot or dash.
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with(['.', '-'])
}

/// Whether a label is valid: 1 to 63 lower-case letters, digits and dashes, no dash at either end (RFC 1123), and not a
/// UUID, which would be another hidden server's ID.
pub fn is_label(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(fits)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && Id::parse(text.as_bytes()).is_none()
}

/// The content of the file.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// The hidden servers, in order of their lines.
    pub entries: Vec<Entry>,
    /// Errors of malformed lines: `ids:7: …`. Such lines are skipped.
    pub errors: Vec<String>,
    /// The line (counted from 0) of each entry.
    lines: Vec<usize>,
    /// Whether there is a file, and it is not empty.
    has_content: bool,
    stamp: Stamp,
}

impl Ids {
    /// Reads the file. A missing file has no entries.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if the file cannot be read, or if users other than its owner can read it.
    pub fn load(path: &Path) -> Result<Ids, Failure> {
        let Some(content) = read(path)? else { return Ok(Ids::default()) };
        let mut ids = Ids::parse(&content.bytes, &path.display().to_string());
        // Taken before the file was read, so that a change in between is detected.
        ids.stamp = Stamp::from(&content.metadata);
        Ok(ids)
    }

    /// Parses the text of such a file; `shown` is its name in messages.
    pub fn parse(bytes: &[u8], shown: &str) -> Ids {
        let mut ids = Ids { has_content: !bytes.is_empty(), ..Ids::default() };
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            match parse_line(line).and_then(|entry| ids.check_unique(entry)) {
                Ok(None) => {}
                Ok(Some(entry)) => {
                    ids.entries.push(entry);
                    ids.lines.push(number);
                }
                Err(why) => ids.errors.push(format!("{shown}:{}: {why}", number + 1)),
            }
        }
        ids
    }

    /// Whether a running relay may replace `old` by this content of the file `path`.
    ///
    /// # Errors
    ///
    /// The reason not to: it lacks an ID of `old`, and it is missing or empty, or has more malformed lines than `old`. An
    /// editor that is saving it, a full disk or a typing error must not end the connections of enrolled hidden servers.
    pub fn check_successor_of(&self, old: &Ids, path: &Path) -> Result<(), Failure> {
        let is_listed = |entry: &Entry| self.entries.iter().any(|new| new.id == entry.id);
        if old.entries.iter().all(is_listed) {
            return Ok(());
        }
        match self.errors.first().filter(|_| self.errors.len() > old.errors.len()) {
            Some(first) => {
                Err(Failure::Failed(format!("{first}: the old IDs stay in force until it is corrected")))
            }
            None if self.has_content => Ok(()),
            None => Err(Failure::Failed(format!(
                "{} is missing or empty: the old IDs stay in force (remove them with 'rendezvous id remove')",
                path.display()
            ))),
        }
    }

    /// Whether the file has changed since it was read: one call of `stat`, cheap enough to poll.
    pub fn has_changed(&self, path: &Path) -> bool {
        Stamp::of(path) != self.stamp
    }

    /// The stamp of the file when it was read.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The entry with this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn check_unique(&self, entry: Option<Entry>) -> Result<Option<Entry>, String> {
        entry.map(|entry| self.clash(&entry).map_or(Ok(entry), Err)).transpose()
    }

    /// The conflict between `new` and the other entries, if any.
    fn clash(&self, new: &Entry) -> Option<String> {
        for old in &self.entries {
            if old.name == new.name {
                return Some(format!("'{}' already exists", new.name));
            }
            if old.id == new.id {
                return Some(format!("'{}' has the same ID as '{}'", new.name, old.name));
            }
            if let Some(label) = new.labels.iter().find(|label| old.labels.contains(label)) {
                return Some(format!("'{}' already has the label '{label}'", old.name));
            }
        }
        None
    }
}

/// Identifies a state of a file by its device, inode, size and times. A file that is replaced gets a new inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 7]>);

impl Stamp {
    /// The present stamp of a file. All missing files have the same stamp.
    pub fn of(path: &Path) -> Stamp {
        std::fs::metadata(path).map_or(Stamp(None), |metadata| Stamp::from(&metadata))
    }
}

impl fmt::Display for Stamp {
    /// Formats as digits, signs and colons; `-` if there is no file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(numbers) = self.0 else { return f.write_str("-") };
        f.write_str(&numbers.map(|number| number.to_string()).join(":"))
    }
}

impl From<&Metadata> for Stamp {
    fn from(of: &Metadata) -> Stamp {
        let numbers = [of.dev(), of.ino(), of.size()].map(|number| number as i64);
        let [dev, ino, size] = numbers;
        Stamp(Some([dev, ino, size, of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()]))
    }
}

impl fmt::Display for Entry {
    /// Formats the entry without its secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.id)
    }
}

/// Reads the file; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Content>, Failure> {
    files::read_if_exists(path, FileKind::IDS)
}

/// Parses one line; `None` for a comment. Errors repeat nothing that may be a secret.
fn parse_line(line: &[u8]) -> Result<Option<Entry>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let mut words = line.split_whitespace();
    let Some(name) = words.next().filter(|word| !word.starts_with('#')) else { return Ok(None) };
    if !is_name(name) {
        return Err("the line must begin with a name: 1 to 64 letters, digits, - _ .".to_owned());
    }
    let uri = words.next().ok_or_else(|| no_uri(name))?;
    let (id, key) = key_uri::parse(uri).map_err(|error| error.to_string())?;
    let mut entry = Entry {
        name: name.to_owned(),
        id,
        key,
        labels: Vec::new(),
        tokens: Tokens::default(),
        end_to_end: false,
        steering: Steering::default(),
    };
    let (mut tokens, mut end_to_end) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("label", label)) => add_label(&mut entry.labels, label)?,
            Some(("tokens", _)) if tokens.is_some() => return Err("'tokens=' is repeated".to_owned()),
            Some(("tokens", value)) => {
                let value = Tokens::parse(value).ok_or("'tokens=' must be followed by bound or any")?;
                tokens = Some(value);
            }
            Some(("tls", _)) if end_to_end.is_some() => return Err("'tls=' is repeated".to_owned()),
            Some(("tls", value)) => {
                let values = [false, true].into_iter();
                let value = values.into_iter().find(|it| tls_word(*it) == format!("tls={value}"));
                end_to_end = Some(value.ok_or("'tls=' must be followed by relay or end-to-end")?);
            }
            _ if entry.steering.read(word)? => {}
            _ => return Err(unknown(word)),
        }
    }
    entry.tokens = tokens.unwrap_or_default();
    entry.end_to_end = end_to_end.unwrap_or_default();
    Ok(Some(entry))
}

fn add_label(labels: &mut Vec<String>, label: &str) -> Result<(), String> {
    if !is_label(label) {
        return Err(
            "a label must have 1 to 63 lower-case letters, digits and dashes, and must not be a UUID"
                .to_owned(),
        );
    }
    if labels.iter().any(|there| there == label) {
        return Err(format!("the label '{label}' is repeated"));
    }
    labels.push(label.to_owned());
    Ok(())
}

/// Shows the name only if it is too short for a secret: a Key URI may have been wrapped just before it.
fn no_uri(name: &str) -> String {
    let shown = if name.len() < 16 { format!("'{name}'") } else { "a name".to_owned() };
    format!("{shown} has no Key URI (otpauth://…)")
}

/// Shows the word up to the `=` only if it looks like a keyword: it may be part of a Key URI that was cut in two.
fn unknown(word: &str) -> String {
    let word = word.split('=').next().unwrap_or_default();
    let harmless = word.len() <= 16 && word.bytes().all(|b| b.is_ascii_lowercase());
    let shown = if harmless && !word.is_empty() { format!(" '{word}'") } else { String::new() };
    format!(
        "unknown field{shown} after the Key URI: expected label=, tokens=, tls=, access=, max-pairs=, rate=, quota=, allow= or deny="
    )
}
