//! `noxious-proxy LISTEN UPSTREAM [TOXIC …]`: a TCP proxy with these faults, each in the JSON of toxiproxy, until it is
//! killed. It prints `ready` once it listens.

use std::env;
use std::error::Error;

use noxious::proxy::{ProxyConfig, ProxyRunner, Runner, Toxics};
use noxious::signal::{Close, Stop};
use noxious::socket::TcpListener;
use noxious::toxic::{StreamDirection, Toxic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let (Some(listen), Some(upstream)) = (words.next(), words.next()) else {
        return Err("noxious-proxy LISTEN UPSTREAM [TOXIC …]".into());
    };
    let toxics = words.map(|json| serde_json::from_str(&json)).collect::<Result<Vec<Toxic>, _>>()?;
    let (upwards, downwards) = toxics.into_iter().partition(|it| it.direction == StreamDirection::Upstream);
    let toxics = Toxics { upstream: upwards, downstream: downwards };
    let name = "relay".to_owned();
    let config = ProxyConfig { name, listen, upstream, enabled: true, rand_seed: Some(1) };
    let (listener, shared): (TcpListener, _) = ProxyRunner::initialize_proxy(config, toxics).await?;
    println!("ready");
    // The configuration never changes, but the other ends must exist.
    let (_events, receiver) = bmrng::channel(1);
    let (stop, _stopper) = Stop::new();
    let (_close, closer) = Close::new();
    Ok(ProxyRunner::run_proxy(listener, shared, receiver, stop, closer).await?)
}
