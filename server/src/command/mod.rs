//! The commands, one file each.

pub mod agent;
pub mod check;
pub mod connect;
pub mod demo;
mod direct;
pub mod id;
pub mod replay;
pub mod serve;
pub mod status;
mod tape;
pub mod token;
mod upstream;
