//! Records written by a background thread, so that a full pipe or a slow disk blocks no other thread.
//!
//! Records wait in a bounded queue. A record that does not fit is counted and dropped, and so is every record after it
//! until the thread takes the queue: the missing records are one gap at a known place.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Limit of the delay at exit while remaining records are written.
pub(crate) const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Limit of bytes that the thread writes in one call, after which there is room for as many again.
const CHUNK_MAX: usize = 64 * 1024;
/// Stack size of the thread. It needs little, and routers have little memory.
const STACK: usize = 256 * 1024;

/// The destination of a [`BackgroundWriter`]. Each call may block.
pub(crate) trait Sink: Send + 'static {
    /// Writes bytes, which may begin or end within a record. The sink handles errors itself.
    fn write(&mut self, bytes: &[u8]);

    /// Reports that this many records after those written were dropped.
    fn lost(&mut self, records: u64);
}

/// A bounded queue of records and the thread that writes them. On drop, the thread writes the rest and ends, and the
/// drop does not wait for it (see [`BackgroundWriter::flush`]).
#[derive(Debug)]
pub(crate) struct BackgroundWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    capacity: usize,
    /// Notified when there is work for the thread.
    filled: Condvar,
    /// Notified when the thread has finished all work.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Bytes that the thread has taken but not written yet.
    in_flight: usize,
    /// Records dropped since the thread last took bytes.
    lost: u64,
    /// Whether the thread is reporting dropped records to its sink.
    is_reporting: bool,
    is_closed: bool,
}

impl Queue {
    fn is_drained(&self) -> bool {
        self.bytes.is_empty() && self.in_flight == 0 && self.lost == 0 && !self.is_reporting
    }
}

impl BackgroundWriter {
    /// Starts the thread. `capacity` limits the waiting bytes, including those that are being written.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(crate) fn start(name: &str, capacity: usize, sink: impl Sink) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            capacity,
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || of_thread.run(sink))?;
        Ok(Self { shared })
    }

    /// Queues one record. Returns false if it was dropped.
    pub(crate) fn push(&self, record: &[u8]) -> bool {
        let mut queue = self.shared.lock();
        let is_lost =
            queue.lost > 0 || queue.bytes.len() + queue.in_flight + record.len() > self.shared.capacity;
        if is_lost {
            queue.lost += 1;
        } else {
            queue.bytes.extend(record);
        }
        drop(queue);
        self.shared.filled.notify_one();
        !is_lost
    }

    /// Waits until everything is written, for at most `timeout`. Returns whether it is.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let queue = self.shared.lock();
        let (queue, _) = self
            .shared
            .drained
            .wait_timeout_while(queue, timeout, |queue| !queue.is_drained())
            .unwrap_or_else(PoisonError::into_inner);
        queue.is_drained()
    }
}

impl Drop for BackgroundWriter {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.filled.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut sink: impl Sink) {
        let mut chunk = Vec::new();
        let mut queue = self.lock();
        loop {
            if !queue.bytes.is_empty() {
                let taken = queue.bytes.len().min(CHUNK_MAX);
                chunk.clear();
                chunk.extend(queue.bytes.drain(..taken));
                queue.in_flight = taken;
                drop(queue);
                sink.write(&chunk);
                queue = self.lock();
                queue.in_flight = 0;
            } else if queue.lost > 0 {
                let lost = std::mem::take(&mut queue.lost);
                queue.is_reporting = true;
                drop(queue);
                sink.lost(lost);
                queue = self.lock();
                queue.is_reporting = false;
            } else {
                self.drained.notify_all();
                if queue.is_closed {
                    return;
                }
                // Release the capacity that a burst needed.
                queue.bytes = VecDeque::new();
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// The written bytes, or the number of dropped records.
    type Call = Result<Vec<u8>, u64>;

    /// Reports its calls to the test and returns when the test allows it.
    struct Scripted {
        calls: Sender<Call>,
        go_on: Receiver<()>,
    }

    impl Sink for Scripted {
        fn write(&mut self, bytes: &[u8]) {
            let _ = self.calls.send(Ok(bytes.to_vec()));
            let _ = self.go_on.recv();
        }

        fn lost(&mut self, records: u64) {
            let _ = self.calls.send(Err(records));
            let _ = self.go_on.recv();
        }
    }

    fn scripted(capacity: usize) -> (BackgroundWriter, Receiver<Call>, Sender<()>) {
        let ((calls, called), (go, go_on)) = (channel(), channel());
        let writer = BackgroundWriter::start("test", capacity, Scripted { calls, go_on }).unwrap();
        (writer, called, go)
    }

    #[test]
    fn records_that_do_not_fit_are_counted_where_they_are_missing() {
        let (writer, called, go) = scripted(10);
        assert!(writer.push(b"12345\n"));
        assert_eq!(called.recv(), Ok(Ok(b"12345\n".to_vec())));
        // The first record is still being written.
        assert!(writer.push(b"abc\n"));
        assert!(!writer.push(b"d\n"));
        assert!(!writer.push(b""), "nothing is queued behind a gap");
        go.send(()).unwrap();
        assert_eq!(called.recv(), Ok(Ok(b"abc\n".to_vec())));
        go.send(()).unwrap();
        assert_eq!(called.recv(), Ok(Err(2)));
        assert!(writer.push(b"e\n"), "there is room again");
        go.send(()).unwrap();
        assert_eq!(called.recv(), Ok(Ok(b"e\n".to_vec())));
        go.send(()).unwrap();
        assert!(writer.flush(Duration::from_secs(60)));
    }

    #[test]
    fn a_flush_ends_in_time_whatever_holds_up_the_thread() {
        let (writer, called, go) = scripted(10);
        assert!(writer.flush(Duration::ZERO), "there is nothing to write");
        writer.push(b"1\n");
        assert!(called.recv().is_ok());
        assert!(!writer.flush(Duration::from_millis(1)));
        go.send(()).unwrap();
        assert!(writer.flush(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_queued_when_the_writer_is_dropped_is_written() {
        let (writer, called, go) = scripted(100);
        writer.push(b"1\n");
        assert!(called.recv().is_ok());
        writer.push(b"2\n");
        drop(writer);
        go.send(()).unwrap();
        assert_eq!(called.recv(), Ok(Ok(b"2\n".to_vec())));
        go.send(()).unwrap();
        assert!(called.recv().is_err(), "the thread has ended");
    }

    #[test]
    fn a_long_queue_is_written_in_pieces() {
        let (writer, called, go) = scripted(3 * CHUNK_MAX);
        writer.push(b"1");
        assert!(called.recv().is_ok());
        let long = vec![b'x'; CHUNK_MAX + 1];
        writer.push(&long);
        go.send(()).unwrap();
        assert_eq!(called.recv(), Ok(Ok(long[..CHUNK_MAX].to_vec())));
        go.send(()).unwrap();
        assert_eq!(called.recv(), Ok(Ok(b"x".to_vec())));
        go.send(()).unwrap();
    }
}
