//! What an ACME client needs of its program: keys, files, and the answers to challenges.

pub mod key;
