//! The other end of a connection to the relay: a blocking socket, with or without TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rendezvous::tls_config::provider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;

use crate::relay::TIMEOUT;

/// The protocol between a peer and the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Clear,
    Tls12,
    Tls13,
}

/// How the relay ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// close_notify, or FIN in clear.
    Clean,
    /// FIN without close_notify.
    Cut,
    Reset,
}

/// One connection. A clone is the same connection, for another thread.
#[derive(Clone)]
pub(crate) struct Peer {
    sock: Arc<TcpStream>,
    tls: Option<Arc<Mutex<ClientConnection>>>,
    /// Received bytes that were not returned yet.
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Peer {
    pub(crate) fn connect(to: SocketAddr, kind: Kind, roots: &Arc<RootCertStore>) -> Self {
        let sock = socket(to);
        if kind == Kind::Clear {
            return Self { sock: Arc::new(sock), tls: None, kept: Arc::default() };
        }
        let config = Arc::new(client_config(kind, roots));
        let mut conn = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        while conn.is_handshaking() {
            conn.complete_io(&mut &sock).expect("a handshake");
        }
        Self { sock: Arc::new(sock), tls: Some(Arc::new(Mutex::new(conn))), kept: Arc::default() }
    }

    /// The socket beneath TLS.
    pub(crate) fn sock(&self) -> &TcpStream {
        &self.sock
    }

    /// Sends all bytes.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.try_send(bytes).expect("the relay reads");
    }

    pub(crate) fn try_send(&self, bytes: &[u8]) -> std::io::Result<()> {
        if self.tls.is_none() {
            return (&*self.sock).write_all(bytes);
        }
        for chunk in bytes.chunks(32 * 1024) {
            let mut wire = Vec::new();
            {
                let mut tls = self.tls().unwrap();
                tls.writer().write_all(chunk)?;
                while tls.wants_write() {
                    tls.write_tls(&mut wire)?;
                }
            }
            (&*self.sock).write_all(&wire)?;
        }
        Ok(())
    }

    /// Sends zeroes in clear until the relay accepts no more. Returns how many.
    pub(crate) fn fill(&self) -> usize {
        assert!(self.tls.is_none());
        self.sock.set_nonblocking(true).unwrap();
        let mut bytes = 0;
        let mut full = 0;
        // Repeated, because the relay continues reading until its own buffers are full too.
        while full < 3 {
            match (&*self.sock).write(&[0; 64 * 1024]) {
                Ok(n) => {
                    bytes += n;
                    full = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(10));
                    full += 1;
                }
                Err(error) => panic!("the relay reads: {error}"),
            }
        }
        self.sock.set_nonblocking(false).unwrap();
        bytes
    }

    /// Receives the next bytes.
    pub(crate) fn recv(&self) -> Result<Vec<u8>, Ending> {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        if !kept.is_empty() {
            return Ok(kept);
        }
        let mut wire = vec![0; 64 * 1024];
        loop {
            if let Some(mut tls) = self.tls()
                && let Some(got) = plaintext(&mut tls)
            {
                return got;
            }
            let n = match (&*self.sock).read(&mut wire) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Ending::Reset),
                Err(error) => panic!("nothing comes: {error}"),
            };
            let Some(mut tls) = self.tls() else {
                return if n == 0 { Err(Ending::Clean) } else { Ok(wire[..n].to_vec()) };
            };
            if n == 0 {
                return plaintext(&mut tls).unwrap_or(Err(Ending::Cut));
            }
            let mut rest = &wire[..n];
            let mut plain = Vec::new();
            while !rest.is_empty() {
                tls.read_tls(&mut rest).unwrap();
                tls.process_new_packets().expect("the relay speaks TLS");
                match plaintext(&mut tls) {
                    Some(Ok(bytes)) => plain.extend(bytes),
                    Some(Err(ending)) if plain.is_empty() => return Err(ending),
                    Some(Err(_)) => break,
                    None => {}
                }
            }
            if !plain.is_empty() {
                return Ok(plain);
            }
        }
    }

    pub(crate) fn recv_exactly(&self, bytes: usize) -> Vec<u8> {
        let mut all = std::mem::take(&mut *self.kept.lock().unwrap());
        while all.len() < bytes {
            match self.recv() {
                Ok(more) => all.extend(more),
                Err(ending) => panic!("{ending:?} after {:?}", String::from_utf8_lossy(&all)),
            }
        }
        *self.kept.lock().unwrap() = all.split_off(bytes);
        all
    }

    /// Receives everything until the end. Returns it with the kind of end.
    pub(crate) fn recv_all(&self) -> (Vec<u8>, Ending) {
        let mut all = Vec::new();
        loop {
            match self.recv() {
                Ok(more) => all.extend(more),
                Err(ending) => return (all, ending),
            }
        }
    }

    /// Ends our side cleanly: close_notify, FIN.
    pub(crate) fn end(&self) {
        self.close_notify();
        self.cut();
    }

    /// Sends close_notify without FIN.
    pub(crate) fn close_notify(&self) {
        let mut wire = Vec::new();
        if let Some(mut tls) = self.tls() {
            tls.send_close_notify();
            while tls.wants_write() {
                tls.write_tls(&mut wire).unwrap();
            }
        }
        (&*self.sock).write_all(&wire).expect("the relay reads");
    }

    /// Sends FIN without close_notify.
    pub(crate) fn cut(&self) {
        // It fails if the connection was reset.
        let _ = self.sock.shutdown(Shutdown::Write);
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        SockRef::from(&*self.sock).set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(Arc::strong_count(&self.sock), 1, "nobody else holds the socket");
    }

    fn tls(&self) -> Option<MutexGuard<'_, ClientConnection>> {
        self.tls.as_ref().map(|tls| tls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A blocking socket with a timeout.
pub(crate) fn socket(to: SocketAddr) -> TcpStream {
    let sock = TcpStream::connect(to).unwrap();
    sock.set_nodelay(true).unwrap();
    sock.set_read_timeout(Some(TIMEOUT)).unwrap();
    sock.set_write_timeout(Some(TIMEOUT)).unwrap();
    sock
}

pub(crate) fn client_config(kind: Kind, roots: &Arc<RootCertStore>) -> ClientConfig {
    let version = if kind == Kind::Tls12 { &TLS12 } else { &TLS13 };
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth()
}

/// Decrypted bytes, the clean end, or nothing yet.
fn plaintext(tls: &mut ClientConnection) -> Option<Result<Vec<u8>, Ending>> {
    let mut bytes = vec![0; 32 * 1024];
    match tls.reader().read(&mut bytes) {
        Ok(0) => Some(Err(Ending::Clean)),
        Ok(n) => {
            bytes.truncate(n);
            Some(Ok(bytes))
        }
        Err(_) => None,
    }
}
