//! Shared parts of the tests: a [simulated network](sim_net), [actors] in it, [invariants](model), [runs](run)
//! of all of them, [plans](plan) of runs that are drawn from a seed, a [shrinker] for failed runs, [HTTP
//! exchanges](exchanges) before a follower, and a [TLS verifier](any_certificate) for the tests with sockets.

pub mod absence;
pub mod actors;
pub mod any_certificate;
pub mod burst;
pub mod exchanges;
#[path = "../../core/tests/common/hello.rs"]
mod hello;
pub mod model;
pub mod plan;
pub mod reuse;
pub mod rng;
pub mod run;
pub mod secured;
pub mod shrinker;
pub mod siege;
pub mod sim_net;
pub mod upgrade;
