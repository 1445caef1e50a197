//! The commands, one file each.

pub mod agent;
pub mod check;
mod component;
pub mod connect;
pub mod demo;
pub mod dtcp;
pub mod id;
pub mod replay;
pub mod serve;
pub mod status;
mod tape;
pub mod token;
mod upstream;
