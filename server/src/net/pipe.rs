//! Kernel pipes between two sockets (splice(2)), for the bytes of a cleartext pair. Only Linux has splice(2).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::linux;
use crate::net;

/// Requested capacity of a pipe, in bytes.
const SIZE: i32 = 512 * 1024;
/// Limit of empty pipes that are kept for reuse.
const SPARE_MAX: usize = 16;

/// One pipe: two descriptors.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

/// The pool of pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    spare: Vec<Pipe>,
    made: usize,
    max: usize,
}

impl net::Pipe for Pipe {
    fn len(&self) -> usize {
        self.held
    }
}

impl Pipes {
    /// Sets the limit of pipes; each uses two descriptors.
    pub(super) const fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub(super) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.spare.pop() {
            return Some(pipe);
        }
        if self.made >= self.max {
            return None;
        }
        let pipe = Pipe::new().ok()?;
        self.made += 1;
        Some(pipe)
    }

    pub(super) fn give(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.spare.len() < SPARE_MAX {
            self.spare.push(pipe);
        } else {
            self.made -= 1;
        }
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = linux::pipe(SIZE)?;
        Ok(Self { read, write, held: 0 })
    }

    /// Receives from a socket into the empty pipe, as much as fits and at most `at_most` bytes.
    pub(super) fn fill(&mut self, from: &impl AsFd, at_most: usize) -> io::Result<usize> {
        debug_assert!(self.held == 0, "no room and nothing to receive would look the same");
        let n = linux::splice(from, &self.write, at_most.min(SIZE as usize))?;
        self.held = n;
        Ok(n)
    }

    /// Sends from the pipe to a socket, as much as it accepts.
    pub(super) fn empty(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let n = linux::splice(&self.read, to, self.held)?;
        self.held -= n;
        Ok(n)
    }
}
