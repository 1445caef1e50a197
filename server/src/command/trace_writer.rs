//! Writes the file of `--trace`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::background_writer::{BackgroundWriter, FLUSH_MAX, Sink};
use crate::failure::{Failure, reason};
use crate::linux::files::OpenOptionsExt;
use crate::logging::Escaped;
use crate::options::Opt;
use crate::state::SECRET;

/// `--trace FILE`.
pub(super) const TRACE: Opt = Opt::one(
    "trace",
    "FILE",
    "none",
    "record all events into a new file, for 'rendezvous replay'; it contains addresses and IDs but no secrets, and grows without limit",
);

/// Limit of bytes that wait to be written to disk.
const QUEUE: usize = 8 << 20;

/// A trace that is being recorded. A thread writes it, so that a slow disk blocks nothing else. A trace has no gaps: if
/// something cannot be recorded, the recording ends, and the log and the last line of the file say so.
pub(super) struct TraceWriter {
    path: PathBuf,
    writer: BackgroundWriter,
}

impl TraceWriter {
    /// Makes the file, private to its owner.
    ///
    /// # Errors
    /// It cannot be made, or it already exists.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(path);
        let file = file.map_err(|error| Failure::of_file("make", path, &error))?;
        log::warn!(
            "event=trace file={} reason=\"all events are recorded\"",
            Escaped(&path.to_string_lossy())
        );
        let writer = BackgroundWriter::start("trace", QUEUE, TraceFile::new(path.to_owned(), file))
            .map_err(|error| Failure::of_file("write", path, &error))?;
        Ok(Self { path: path.to_owned(), writer })
    }

    /// Appends whole lines. A full disk ends only the recording.
    pub(super) fn write(&mut self, text: &str) {
        if !text.is_empty() {
            self.writer.push(text.as_bytes());
        }
    }
}

impl Drop for TraceWriter {
    fn drop(&mut self) {
        if !self.writer.flush(FLUSH_MAX) {
            log_end(&self.path, "the rest could not be written to disk in time");
        }
    }
}

fn log_end(path: &Path, why: &str) {
    log::error!("event=trace-ended file={} reason={}", Escaped(&path.to_string_lossy()), Escaped(why));
}

/// The file, owned by the writer thread.
struct TraceFile {
    path: PathBuf,
    /// `None` once the recording has ended.
    file: Option<File>,
    /// Length of the file in bytes.
    len: u64,
    /// Offset of the last event in the file; its actions follow it.
    last_event: u64,
    at_line_start: bool,
}

impl TraceFile {
    const fn new(path: PathBuf, file: File) -> Self {
        Self { path, file: Some(file), len: 0, last_event: 0, at_line_start: true }
    }

    /// Updates the offsets after these bytes were written.
    fn note_written(&mut self, written: &[u8]) {
        let Some(last) = written.last() else { return };
        let behind = written.windows(2).rposition(|bytes| bytes == b"\n@").map(|at| at + 1);
        if let Some(at) = behind.or((self.at_line_start && written[0] == b'@').then_some(0)) {
            self.last_event = self.len + at as u64;
        }
        self.at_line_start = *last == b'\n';
        self.len += written.len() as u64;
    }

    /// Ends the recording after the first `len` bytes of the file.
    fn end(&mut self, len: u64, why: &str) {
        let Some(mut file) = self.file.take() else { return };
        // If this line does not fit either, only the log has it.
        let _ = file
            .set_len(len)
            .and_then(|()| file.seek(SeekFrom::Start(len)))
            .and_then(|_| writeln!(file, "# The recording ends: {why}."));
        log_end(&self.path, why);
    }
}

impl Sink for TraceFile {
    fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let mut left = bytes;
        let error = loop {
            if left.is_empty() {
                break None;
            }
            match file.write(left) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(n) => left = &left[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        self.note_written(&bytes[..bytes.len() - left.len()]);
        if let Some(error) = error {
            // An event without all its actions would be a gap: cut before the last event.
            self.end(self.last_event, &reason(&error));
        }
    }

    fn lost(&mut self, _: u64) {
        self.end(self.len, "the disk is too slow");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of the file after these calls.
    fn written(calls: impl FnOnce(&mut TraceFile)) -> String {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rendezvous-tape-{}-{number}", std::process::id()));
        calls(&mut TraceFile::new(path.clone(), File::create(&path).unwrap()));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        text
    }

    #[test]
    fn a_trace_ends_where_something_is_missing() {
        let text = written(|file| {
            file.write(b"head\n@0 start\n");
            file.lost(3);
            file.write(b"@7 open\n");
        });
        assert_eq!(text, "head\n@0 start\n# The recording ends: the disk is too slow.\n");
    }

    #[test]
    fn an_event_that_is_cut_is_removed() {
        let text = written(|file| {
            file.write(b"head\n@0 start\n    -> idle\n@");
            file.write(b"7 open\n    -> conn");
            file.end(file.last_event, "no space left on device");
        });
        assert_eq!(text, "head\n@0 start\n    -> idle\n# The recording ends: no space left on device.\n");
    }
}
