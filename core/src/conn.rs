//! What is said of a connection: its name, its listener, how it ends, how it is closed, and why it could not be made.

use crate::fingerprint::Fingerprint;

/// A connection's name: a slab index and a generation, so that what is said of a closed connection cannot reach the
/// one that has its index now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The place in the machine's table; small numbers, used again.
    pub index: u32,
    /// Which tenant of that place; not used again before 2³² connections.
    pub generation: u32,
}

/// Which listening socket a connection was accepted on: the position in the shell's list of listeners, which the
/// machine's configuration describes in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener(pub u16);

/// How the reading side of a connection ended. Nothing can be received after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// close_notify on TLS, FIN in clear: everything that was sent has arrived.
    Clean,
    /// FIN on TLS without close_notify (RFC 8446 §6.1): something may be missing.
    Truncated,
    /// A reset, a TLS error after the handshake, or any other error of the socket.
    Reset,
}

/// How a connection is to be closed. Its reading side is over in all cases: octets that still come are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// In order: send what is queued, close_notify on TLS, FIN, then read and drop until the peer's end, so that no
    /// reset eats what was sent (RFC 9112 §9.6). May be followed by `Abort` when the machine's patience ends.
    Linger,
    /// So that the peer can tell that something is missing: send what is queued, then FIN without close_notify on
    /// TLS, a reset in clear. May be followed by `Abort`.
    Truncate,
    /// At once. A reset; a plain close where the FIN was sent before (the kernel goes on delivering).
    Abort,
}

/// Which side of TLS a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRole {
    /// With the shell's certificate.
    Server,
    /// With the name and the trust of entry `upstream` of the shell's list.
    Client {
        /// The position in the list: a relay's is its upstream's in the machine's configuration; behind the relays stand
        /// the local services that speak TLS.
        upstream: u16,
    },
    /// Of a direct connection that we accepted: with the shell's self-signed certificate; the peer is asked for its
    /// own. TLS 1.3 alone, and any certificate will do: it is for the machine to judge, by its fingerprint.
    DirectServer,
    /// Of a direct connection that we dialled: the same, and ours is shown if the peer asks for it.
    DirectClient,
}

/// What a TLS handshake has shown of the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// The certificate that it showed, if it did; that it has the key to it was proved.
    pub certificate: Option<Fingerprint>,
}

/// Why a name or an address could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// The name does not resolve.
    Name,
    /// Connection refused.
    Refused,
    /// No route, or no answer in time.
    Unreachable,
    /// Anything else: no descriptors, no permission.
    Local,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The peer's certificate has another key than the pin says, or is not acceptable for a reason that is not listed.
    Certificate,
    /// The peer's certificate has expired.
    CertificateExpired,
    /// The peer's certificate is not valid yet.
    CertificateNotYetValid,
    /// The peer's certificate is for another name.
    CertificateName,
    /// No trusted CA signed the peer's certificate, or an intermediate certificate is missing.
    CertificateIssuer,
    /// The peer ended or reset the connection in the middle.
    Ended,
    /// The peer speaks HTTP without TLS. On the side of [`TlsRole::Server`] the connection is in clear from now on, and
    /// what was received is offered ([`Machine::handle_bytes`](crate::machine::Machine::handle_bytes)), so that it can be answered.
    PlainHttp,
    /// The peer speaks neither TLS 1.2 nor 1.3.
    Version,
    /// The peer wants another application protocol (ALPN, RFC 7301).
    Alpn,
    /// There is no common cipher suite, group or signature scheme.
    Cipher,
    /// A message of the handshake is longer than is accepted, as with a very long certificate chain.
    TooLong,
    /// Anything else: the peer speaks something else than TLS, or breaks it.
    Protocol,
}

impl TlsFailure {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Certificate,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateName,
        Self::CertificateIssuer,
        Self::Ended,
        Self::PlainHttp,
        Self::Version,
        Self::Alpn,
        Self::Cipher,
        Self::TooLong,
        Self::Protocol,
    ];
}
