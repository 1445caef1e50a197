//! How `check` connects to the relay: directly, or through an HTTP proxy.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rendezvous_core::endpoint::Host;
use rendezvous_core::http::head::Limits;
use rendezvous_core::relay_client::HostPort;
use rendezvous_core::tunnel::{Proxy, ProxyError, Step, Tunnel};

use super::wire::{Deadline, Timed, Wire, WireError};
use crate::command::upstream;
use crate::proxy_url;
use crate::relay_url::RelayUrl;
use crate::trust::Trust;

/// The way to a relay.
#[derive(Clone)]
pub(super) struct Way {
    through: Option<Arc<Proxy>>,
    relay: HostPort,
}

/// An address of the relay, or of the proxy on the way to it.
pub(super) struct Place {
    pub(super) at: SocketAddr,
    pub(super) way: Way,
}

impl Way {
    pub(super) fn new(relay: &RelayUrl, proxy: Option<Proxy>) -> Self {
        Self { through: proxy.map(Arc::new), relay: upstream::relay(relay).place }
    }

    /// The host and the port to connect to.
    pub(super) fn first(&self) -> (String, u16) {
        let place = self.through.as_ref().map_or(&self.relay, |proxy| &proxy.place);
        let host = match &place.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        (host, place.port)
    }

    /// The proxy's host and port, if there is one.
    pub(super) fn proxy(&self) -> Option<String> {
        self.through.as_deref().map(proxy_url::shown)
    }

    /// Makes a connection to the first host one to the relay.
    pub(super) fn open(&self, stream: TcpStream, deadline: Deadline) -> Result<TcpStream, WireError> {
        let Some(proxy) = &self.through else { return Ok(stream) };
        let failed = |why| Err(WireError::Proxy(why));
        let mut tunnel = Tunnel::new(proxy, &self.relay);
        let mut to_proxy = Timed { stream, deadline };
        to_proxy.write_all(tunnel.begin().as_bytes())?;
        let (mut received, mut bytes) = (Vec::new(), [0; 4096]);
        loop {
            let count = match to_proxy.read(&mut bytes) {
                Ok(0) => return failed(ProxyError::Ended),
                Ok(count) => count,
                Err(_) if deadline.left().is_zero() => return failed(ProxyError::TimedOut),
                Err(error) => return Err(error.into()),
            };
            received.extend_from_slice(&bytes[..count]);
            loop {
                let (used, step) = tunnel.read(&received, &Limits::default());
                received.drain(..used);
                match step {
                    Step::More => break,
                    Step::Send(text) => to_proxy.write_all(text.as_bytes())?,
                    Step::Reconnect => {
                        to_proxy.stream = connect(to_proxy.stream.peer_addr()?, deadline)?;
                        received.clear();
                        to_proxy.write_all(tunnel.begin().as_bytes())?;
                    }
                    // The relay sends nothing before it has received something.
                    Step::Open => return Ok(to_proxy.stream),
                    Step::Failed(why) => return failed(why),
                }
            }
        }
    }
}

impl Place {
    /// Connects to the relay, and completes the TLS handshake if `tls` has the server's name and trust.
    pub(super) fn connect(&self, tls: Option<(&str, &Trust)>, deadline: Deadline) -> Result<Wire, WireError> {
        let stream = self.way.open(connect(self.at, deadline)?, deadline)?;
        Wire::over(stream, tls, deadline)
    }
}

fn connect(to: SocketAddr, deadline: Deadline) -> Result<TcpStream, WireError> {
    Ok(TcpStream::connect_timeout(&to, deadline.left().max(Duration::from_millis(1)))?)
}
