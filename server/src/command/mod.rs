//! The commands, one file each.

pub mod id;
pub mod serve;
pub mod token;
