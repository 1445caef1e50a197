//! What the tests of the whole have in common: a [simulated world](sim_net), [people](actors) in it, what
//! [must hold](model) there, [runs](run) of all of them together, [plans](plan) of runs, drawn from a
//! seed, [what is told](story) of a run that failed, [HTTP exchanges](exchanges) before a follower,
//! and a [client of TLS](any_certificate) for the tests with sockets.

pub mod actors;
pub mod any_certificate;
pub mod burst;
pub mod exchanges;
pub mod model;
pub mod plan;
pub mod reuse;
pub mod rng;
pub mod run;
pub mod secured;
pub mod shrinker;
pub mod siege;
pub mod sim_net;
