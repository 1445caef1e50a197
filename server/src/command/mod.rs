//! The commands, one file each.

pub mod agent;
pub mod check;
mod component;
pub mod connect;
pub mod demo;
mod direct;
pub mod dtcp;
pub mod id;
pub mod proxy;
pub mod replay;
pub mod serve;
mod share;
pub mod status;
pub mod stream;
mod tape;
pub mod token;
mod upstream;
