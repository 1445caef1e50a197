//! The file that `--trace` writes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, reason};
use crate::logging::Escaped;
use crate::options::Opt;
use crate::state::SECRET;

/// `--trace FILE`.
pub(super) const TRACE: Opt = Opt::one(
    "trace",
    "FILE",
    "none",
    "record what happens, for 'rendezvous replay', into a new file: no secrets, but addresses and IDs; it grows without bound",
);

/// A trace under way.
pub(super) struct Tape {
    path: PathBuf,
    /// `None` once it could not be written: the program goes on without it.
    file: Option<File>,
}

impl Tape {
    /// Makes the file, for its owner alone.
    ///
    /// # Errors
    /// It cannot be made; or it exists, and what is in it may be worth something.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(path);
        let file = file.map_err(|error| Failure::of_file("make", path, &error))?;
        log::warn!(
            "event=trace file={} reason=\"all that happens is recorded\"",
            Escaped(&path.to_string_lossy())
        );
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    /// Adds to it. A full disk ends the recording, and nothing else.
    pub(super) fn write(&mut self, text: &str) {
        let Some(file) = self.file.as_mut().filter(|_| !text.is_empty()) else { return };
        if let Err(error) = file.write_all(text.as_bytes()) {
            let path = self.path.to_string_lossy();
            log::error!("event=trace-ended file={} reason={}", Escaped(&path), Escaped(&reason(&error)));
            self.file = None;
        }
    }
}
