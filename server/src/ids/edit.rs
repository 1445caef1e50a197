//! Edits of the file `ids`: under the lock, written as a whole, with all other bytes unchanged.

use std::ops::Range;
use std::path::Path;

use rendezvous_core::token::Key;
use zeroize::Zeroizing;

use super::{Entry, IDS_FILE, Ids, read, tls_word};
use crate::failure::Failure;
use crate::key_uri;
use crate::options::did_you_mean;
use crate::state::{Lock, SECRET, State};

const HEADER: &str = "# The hidden servers that this relay knows. These are secrets: keep the file to yourself (mode 600).\n\
                      # NAME  KEY-URI  [label=LABEL]...  [tokens=bound|any]  [tls=relay|end-to-end]\n\
                      # Limits, set by 'rendezvous id set': access=disabled max-pairs=N rate=BYTES/S quota=BYTES/MONTH\n\
                      # allow=ADDR/BITS... deny=ADDR/BITS...\n";

/// An edit in progress. It holds the lock of the state folder. Nothing is written before [`commit`](Edit::commit).
pub struct Edit<'a> {
    state: &'a State,
    text: Zeroizing<Vec<u8>>,
    ids: Ids,
    _lock: Lock,
}

impl std::fmt::Debug for Edit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edit").field("ids", &self.ids).finish_non_exhaustive()
    }
}

impl<'a> Edit<'a> {
    /// Takes the lock and reads the file.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if either fails. A malformed line is not an error and is kept.
    pub fn begin(state: &'a State) -> Result<Edit<'a>, Failure> {
        let lock = state.lock()?;
        let path = state.file(IDS_FILE);
        let text = match read(&path)? {
            Some(content) => content.bytes,
            None => Zeroizing::new(HEADER.as_bytes().to_vec()),
        };
        let ids = Ids::parse(&text, &path.display().to_string());
        Ok(Edit { state, text, ids, _lock: lock })
    }

    /// The content of the file, with the changes made so far.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The entry with this name.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if there is none, with the most similar name.
    pub fn get(&self, name: &str) -> Result<&Entry, Failure> {
        self.ids.get(name).ok_or_else(|| self.ids.nobody(name, &self.state.file(IDS_FILE)))
    }

    /// Appends a line.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if the name, the ID or a label is taken.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Failure> {
        if let Some(clash) = self.ids.clash(entry) {
            return Err(Failure::Failed(format!("{}: {clash}", self.state.file(IDS_FILE).display())));
        }
        let uri = key_uri::print(entry.id, &entry.key);
        let tail = tail(entry) + "\n";
        let newline = if self.text.last().is_some_and(|last| *last != b'\n') { "\n" } else { "" };
        let end = self.text.len();
        self.splice(end..end, &[newline, &entry.name, "  ", &uri, &tail]);
        Ok(())
    }

    /// Replaces the key of an ID; the rest of its line is unchanged.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if there is no such ID.
    pub fn rotate(&mut self, name: &str, key: &Key) -> Result<(), Failure> {
        let uri = key_uri::print(self.get(name)?.id, key);
        let line = self.line_of(name)?;
        let word = second_word(&self.text[line.clone()]);
        self.splice(line.start + word.start..line.start + word.end, &[&uri]);
        Ok(())
    }

    /// Replaces the name, the labels and the settings of an ID. Its ID and its secret stay.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if there is no such ID, or if the new name or a label is taken.
    pub fn replace(&mut self, name: &str, new: &Entry) -> Result<(), Failure> {
        let old = self.get(name)?;
        debug_assert!(old.id == new.id && old.key == new.key, "another hidden server");
        let mut others = Ids::default();
        others.entries.extend(self.ids.entries.iter().filter(|entry| entry.id != new.id).cloned());
        if let Some(clash) = others.clash(new) {
            return Err(Failure::Failed(format!("{}: {clash}", self.state.file(IDS_FILE).display())));
        }
        let line = self.line_of(name)?;
        let bytes = Zeroizing::new(self.text[line.clone()].to_vec());
        let word = second_word(&bytes);
        let uri = std::str::from_utf8(&bytes[word]).unwrap_or_default();
        let newline = if bytes.ends_with(b"\n") { "\n" } else { "" };
        self.splice(line, &[&new.name, "  ", uri, &tail(new), newline]);
        Ok(())
    }

    /// Removes the line of an ID.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if there is no such ID.
    pub fn remove(&mut self, name: &str) -> Result<Entry, Failure> {
        let entry = self.get(name)?.clone();
        let line = self.line_of(name)?;
        self.splice(line, &[]);
        Ok(entry)
    }

    /// The state folder.
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// Writes the file and releases the lock.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if that fails; the file is unchanged.
    pub fn commit(self) -> Result<(), Failure> {
        self.state.write(IDS_FILE, &self.text, SECRET)
    }

    /// The range of the line with this name, including its newline.
    fn line_of(&self, name: &str) -> Result<Range<usize>, Failure> {
        let place = self.ids.entries.iter().position(|entry| entry.name == name);
        let number = place.and_then(|place| self.ids.lines.get(place)).copied();
        let number = number.ok_or_else(|| self.ids.nobody(name, &self.state.file(IDS_FILE)))?;
        let mut lines = self.text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::len);
        let start = lines.by_ref().take(number).sum();
        Ok(start..start + lines.next().unwrap_or_default())
    }

    /// Replaces a range by `parts` in newly allocated memory, and wipes the old one.
    fn splice(&mut self, range: Range<usize>, parts: &[&str]) {
        let added: usize = parts.iter().map(|part| part.len()).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(self.text.len() - range.len() + added));
        text.extend_from_slice(&self.text[..range.start]);
        parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        text.extend_from_slice(&self.text[range.end..]);
        self.text = text;
        self.ids = Ids::parse(&self.text, &self.state.file(IDS_FILE).display().to_string());
    }
}

impl Ids {
    /// The failure for a name that is not in the file `path`.
    pub fn nobody(&self, name: &str, path: &Path) -> Failure {
        let meant = did_you_mean(name, self.entries.iter().map(|entry| entry.name.as_str()));
        let hint = match meant {
            Some(meant) => format!(", did you mean '{meant}'?"),
            None => " (rendezvous id list shows all)".to_owned(),
        };
        Failure::Failed(format!("no ID named '{name}' in {}{hint}", path.display()))
    }
}

/// The fields after the Key URI, each with spaces in front.
fn tail(entry: &Entry) -> String {
    let mut words: Vec<String> = entry.labels.iter().map(|label| format!("label={label}")).collect();
    words.push(format!("tokens={}", entry.tokens.name()));
    if entry.end_to_end {
        words.push(tls_word(true).to_owned());
    }
    words.extend(entry.steering.words());
    words.iter().map(|word| format!("  {word}")).collect()
}

/// The range of the second word of a line, or its end if it has none. Words are separated as in `parse_line`.
fn second_word(line: &[u8]) -> Range<usize> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let end = text.len();
    let word = text.split_whitespace().nth(1).unwrap_or(&text[end..]);
    let start = word.as_ptr() as usize - text.as_ptr() as usize;
    start..start + word.len()
}
