//! The ACME client against a CA in memory.

mod ca;
mod connections;
mod interleavings;
mod misbehaviour;
mod orders;
mod world;
mod years;
