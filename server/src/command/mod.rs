//! The commands, one file each.

pub mod check;
pub mod id;
pub mod serve;
pub mod token;
