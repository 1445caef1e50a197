//! The validators of the small CA: three at once, with split ClientHellos.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rendezvous::tls_config::provider;
use rendezvous::trust::Trust;
use rustls::{ClientConfig, ClientConnection};
use sha2::{Digest as _, Sha256};

use super::{Shared, TIMEOUT};

/// How a validator sends its ClientHello.
#[derive(Clone, Copy)]
enum Pieces {
    /// In two segments.
    Halves,
    /// Byte by byte.
    Bytes,
    /// In many records, each in a segment of its own.
    Records,
}

/// Three validators come at once.
pub(super) fn validate(shared: &Shared, index: usize) {
    let (name, token, thumbprint) = {
        let state = shared.lock();
        let it = &state.authorizations[index];
        (it.name.clone(), it.token.clone(), state.accounts[it.account].clone())
    };
    let digest: [u8; 32] = Sha256::digest(format!("{token}.{thumbprint}")).into();
    let succeeded = thread::scope(|scope| {
        let all = [Pieces::Halves, Pieces::Bytes, Pieces::Records];
        let (name, digest) = (&name, &digest);
        let all = all.map(|pieces| scope.spawn(move || connect(shared.validated, name, digest, pieces)));
        all.into_iter().map(|it| it.join().unwrap_or(false)).filter(|it| *it).count()
    });
    let mut state = shared.lock();
    state.authorizations[index].result = Some(succeeded == 3);
    state.validations.push((name, succeeded));
    state.validating -= 1;
}

/// Whether the relay presents the certificate for this challenge (RFC 8737 §3).
fn connect(port: u16, name: &str, digest: &[u8; 32], pieces: Pieces) -> bool {
    let try_it = || -> Option<bool> {
        let verifier = Trust::Insecure.verifier(&provider()).ok()?;
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().ok()?;
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let mut connection =
            ClientConnection::new(Arc::new(config), name.to_owned().try_into().ok()?).ok()?;
        // The relay may be about to start again.
        let mut tries = (0..200).filter_map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port));
            stream.map_err(|_| thread::sleep(Duration::from_millis(100))).ok()
        });
        let mut stream = tries.next()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).ok()?;
        for piece in split(&hello, pieces) {
            stream.write_all(&piece).ok()?;
        }
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).ok()?;
        }
        let leaf = connection.peer_certificates()?.first()?.to_vec();
        let value = [&[4, 32][..], digest].concat();
        let is_right = leaf.windows(value.len()).any(|it| it == value);
        Some(is_right && connection.alpn_protocol() == Some(b"acme-tls/1"))
    };
    try_it().unwrap_or(false)
}

fn split(hello: &[u8], pieces: Pieces) -> Vec<Vec<u8>> {
    match pieces {
        Pieces::Halves => hello.chunks(hello.len().div_ceil(2)).map(<[u8]>::to_vec).collect(),
        Pieces::Bytes => hello.iter().map(|byte| vec![*byte]).collect(),
        Pieces::Records => {
            let (header, message) = hello.split_at(5);
            let record = |part: &[u8]| {
                let len = u16::try_from(part.len()).expect("short").to_be_bytes();
                [&header[..3], &len, part].concat()
            };
            message.chunks(50).map(record).collect()
        }
    }
}
