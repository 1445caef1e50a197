//! A pair: a client and a hidden server, or the server behind, with a relay between them.

use std::io::{Read, Write};

use crate::Failure;
use crate::end::{Below, End};
use crate::field::{Ground, Identity};
use crate::peers::{Relay, Transport};

/// Bytes that both sides exchange before a measurement.
const PROBE_BYTES: usize = 24 * 1024;

/// Both ends of it.
pub(crate) struct Pair {
    pub(crate) client: End,
    pub(crate) hidden: End,
}

impl Pair {
    /// Opens a pair, and checks that bytes sent on one side arrive on the other.
    pub(crate) fn open(relay: &Relay, ground: &Ground, transport: Transport) -> Result<Self, Failure> {
        let mut pair = if relay.kind.is_rendezvous() {
            let identity = &ground.identities[0];
            let mut hidden = wait(relay, ground, identity, transport.hidden)?;
            let mut client = End::connect(relay.entrance(transport), tls(ground, transport.client))?;
            client.write_all(identity.get().as_bytes())?;
            hand_over(&mut client, &mut hidden)?;
            Self { client, hidden }
        } else {
            let client = End::connect(relay.entrance(transport), tls(ground, transport.client))?;
            Self { client, hidden: ground.sink.accept(transport.hidden)? }
        };
        pair.prove()?;
        Ok(pair)
    }

    fn prove(&mut self) -> Result<(), Failure> {
        let said: Vec<u8> = (0..PROBE_BYTES).map(|at| (at % 251) as u8).collect();
        pass(&mut self.client, &mut self.hidden, &said)?;
        pass(&mut self.hidden, &mut self.client, &said)
    }
}

/// A hidden server's waiting connection.
pub(crate) fn wait(
    relay: &Relay,
    ground: &Ground,
    identity: &Identity,
    below: Below,
) -> Result<End, Failure> {
    let mut hidden = End::connect(relay.back_entrance(below), tls(ground, below))?;
    hidden.write_all(identity.connect()?.as_bytes())?;
    expect(&mut hidden, "HTTP/1.1 200")?;
    Ok(hidden)
}

/// Awaits the request at the hidden server, and answers it.
pub(crate) fn hand_over(client: &mut End, hidden: &mut End) -> Result<(), Failure> {
    expect(hidden, "GET / HTTP/1.1")?;
    hidden.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")?;
    expect(client, "HTTP/1.1 200")
}

/// Reads a message with this beginning.
pub(crate) fn expect(end: &mut End, with: &str) -> Result<(), Failure> {
    let head = end.read_message()?;
    if head.starts_with(with) { Ok(()) } else { Err(format!("{with} expected, {head:?} came").into()) }
}

fn tls(ground: &Ground, below: Below) -> Option<&std::sync::Arc<rustls::ClientConfig>> {
    (below == Below::Tls).then_some(&ground.client)
}

fn pass(from: &mut End, to: &mut End, said: &[u8]) -> Result<(), Failure> {
    from.write_all(said)?;
    from.flush()?;
    let mut heard = vec![0; said.len()];
    to.read_exact(&mut heard)?;
    if heard == said { Ok(()) } else { Err("what came out is not what went in".into()) }
}
