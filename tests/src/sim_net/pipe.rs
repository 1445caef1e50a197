//! Simulated pipes.

use std::io;

use rendezvous::net;

/// The capacity of a pipe, in bytes: less than that of a socket, so that it is sometimes full.
const ROOM: usize = 24 * 1024;
/// The number of pipes of a process: few, so that they run out.
const MAX: usize = 3;

/// One pipe.
#[derive(Debug, Default)]
pub struct Pipe {
    bytes: Vec<u8>,
}

/// The pipes of one process.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    taken: usize,
}

impl net::Pipe for Pipe {
    fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Pipe {
    pub(super) fn fill(
        &mut self,
        at_most: usize,
        recv: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        assert!(self.bytes.is_empty(), "filled twice");
        let mut bytes = vec![0; ROOM.min(at_most)];
        let n = recv(&mut bytes)?;
        bytes.truncate(n);
        self.bytes = bytes;
        Ok(n)
    }

    pub(super) fn empty(&mut self, send: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        assert!(!self.bytes.is_empty(), "nothing to send");
        let n = send(&self.bytes)?;
        self.bytes.drain(..n);
        Ok(n)
    }
}

impl Pipes {
    pub(super) fn take(&mut self) -> Option<Pipe> {
        (self.taken < MAX).then(|| {
            self.taken += 1;
            Pipe::default()
        })
    }

    pub(super) fn give(&mut self) {
        self.taken = self.taken.checked_sub(1).expect("one was taken");
    }
}
