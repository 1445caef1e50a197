//! Standard error, as the log thread writes it.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::background_writer::Sink;
use crate::linux;

/// Number of lines lost since the start.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// Number of lines lost since the start because they were not read in time or could not be written.
pub(super) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed) as u64
}

/// Standard error. Lines that cannot be written are counted; the count is written as soon as possible.
pub(super) struct Output {
    file: File,
    /// Makes the line that reports lost lines.
    notice: fn(u64) -> String,
    /// Lost lines that were not reported yet.
    missing: u64,
    /// Whether the output ends with a complete line.
    at_line_start: bool,
    /// Whether the bytes up to the next line feed belong to a line that was counted as lost.
    is_skipping: bool,
}

impl Output {
    /// Opens standard error; `notice` makes the line that reports lost lines.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(super) fn stderr(notice: fn(u64) -> String) -> io::Result<Self> {
        // Does not use the standard library's handle, whose lock would be held during a blocking call.
        Ok(Self::new(linux::stderr()?, notice))
    }

    fn new(file: File, notice: fn(u64) -> String) -> Self {
        Self { file, notice, missing: 0, at_line_start: true, is_skipping: false }
    }

    fn count(&mut self, lines: u64) {
        self.missing += lines;
        LOST.fetch_add(lines as usize, Ordering::Relaxed);
    }

    /// Reports the lost lines. Returns whether all are reported.
    fn report_missing(&mut self) -> bool {
        if self.missing == 0 {
            return true;
        }
        // The incomplete line was counted as lost: end it.
        if !self.at_line_start && self.put(b"\n") > 0 {
            return false;
        }
        let notice = (self.notice)(self.missing);
        if self.put(notice.as_bytes()) == 0 {
            self.missing = 0;
        }
        self.missing == 0
    }

    /// Writes bytes. Returns how many could not be written.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut left = bytes;
        while !left.is_empty() {
            match self.file.write(left) {
                Ok(0) => break,
                Ok(n) => {
                    self.at_line_start = left[n - 1] == b'\n';
                    left = &left[n..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process that shares stderr has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if linux::wait_writable(&self.file).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        left.len()
    }
}

impl Sink for Output {
    fn write(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if self.is_skipping {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
            bytes = &bytes[end + 1..];
            self.is_skipping = false;
        }
        let failed = if self.report_missing() { self.put(bytes) } else { bytes.len() };
        let failed = &bytes[bytes.len() - failed..];
        self.is_skipping = failed.last().is_some_and(|last| *last != b'\n');
        let lines = failed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.count(lines + u64::from(self.is_skipping));
    }

    fn lost(&mut self, records: u64) {
        self.count(records);
        self.report_missing();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn notice(lines: u64) -> String {
        format!("{lines} missing\n")
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted() {
        // Every write to /dev/full fails as on a full disk.
        let mut output = Output::new(File::options().write(true).open("/dev/full").unwrap(), notice);
        output.write(b"one\ntwo\nthr");
        assert_eq!(output.missing, 3);
        output.write(b"ee");
        output.write(b"\nfour\nfive");
        assert_eq!(output.missing, 5);
        // Now there is room again.
        let path = std::env::temp_dir().join(format!("rendezvous-output-{}", std::process::id()));
        output.file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        output.write(b"\nsix\n");
        output.lost(2);
        let mut text = String::new();
        output.file.rewind().unwrap();
        output.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "5 missing\nsix\n2 missing\n");
    }

    #[test]
    fn a_line_that_broke_off_is_ended_before_the_count() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut output = Output::new(File::from(OwnedFd::from(ours)), notice);
        output.write(b"one\ntw");
        output.at_line_start = false;
        output.count(1);
        output.is_skipping = true;
        output.write(b"o\nthree\n");
        drop(output);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntw\n1 missing\nthree\n");
    }

    #[test]
    fn standard_error_that_another_process_made_non_blocking_loses_nothing() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut output = Output::new(File::from(OwnedFd::from(ours)), notice);
        let writer = std::thread::spawn(move || {
            (0..10_000).for_each(|_| output.write(b"a line of some length\n"));
            output.missing
        });
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!((text.lines().count(), writer.join().unwrap()), (10_000, 0));
    }
}
