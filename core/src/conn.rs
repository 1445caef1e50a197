//! The vocabulary of connections: ids, listeners, ends, closes, TLS roles and failures.

use crate::fingerprint::Fingerprint;
use crate::subject::Subject;

/// The id of a connection: an index and a generation. An event of a closed connection cannot reach the connection that
/// has its index now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The index in the machine's table. Small, and reused.
    pub index: u32,
    /// Distinguishes the connections that have had this index. Not reused before 2³² connections.
    pub generation: u32,
}

/// The listening socket that a connection was accepted on: the index in the driver's list of listeners. The machine's
/// configuration has the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener(pub u16);

/// How a client's connection named the hidden server that it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamedBy {
    /// It has not named one.
    #[default]
    Nothing,
    /// The label in `Host`.
    Label,
    /// The user name in `Authorization`.
    UserName,
    /// `?rendezvous=ID` in the target.
    Parameter,
    /// The server name in its ClientHello.
    ServerName,
    /// The port that it came through.
    Port,
    /// It is a hidden server's own connection.
    Token,
}

/// How a connection came to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The number of the [`Listener`] that accepted it.
    pub(crate) listener: u16,
    pub(crate) named_by: NamedBy,
}

/// How the reading side of a connection ended. No bytes are received after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// close_notify on TLS, FIN in clear: all bytes have arrived.
    Clean,
    /// FIN on TLS without close_notify (RFC 8446 §6.1): bytes may be missing.
    Truncated,
    /// A reset, a TLS error after the handshake, or another error of the socket.
    Reset,
}

/// How a connection is closed. In all cases bytes that still arrive are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Sends what is queued, close_notify on TLS and FIN, then reads and discards until the peer's end, so that no reset
    /// destroys what was sent (RFC 9112 §9.6). May be followed by `Abort`, after a timeout.
    Linger,
    /// Sends what is queued, then FIN without close_notify on TLS, a reset in clear: the peer can tell that bytes are
    /// missing. May be followed by `Abort`.
    Truncate,
    /// Resets at once. If the FIN was sent before, a plain close, so that the kernel still delivers what it has.
    Abort,
}

/// The side of TLS that a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRole {
    /// The server, with the driver's certificate.
    Server,
    /// The client, with the server name and the trust anchors of entry `upstream` of the driver's list.
    Client {
        /// The index in the list. It begins with the upstreams of the machine's configuration; local services that speak
        /// TLS follow.
        upstream: u16,
    },
    /// The server for a client of HTTP whose TLS the agent terminates, with the certificate of the hidden server. On a
    /// connection that has TLS already, it is TLS inside of that TLS.
    EndToEnd,
    /// The same for a connector.
    EndToEndStream,
    /// The server of a direct connection, with the driver's self-signed certificate. TLS 1.3 only. The peer is asked for
    /// its certificate, and any is accepted: the machine checks the fingerprint.
    DirectServer,
    /// The client of a direct connection, likewise. Our certificate is sent if the peer asks for it.
    DirectClient,
}

/// What a TLS handshake has proved about the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// Its certificate, if it sent one. The peer has the private key.
    pub certificate: Option<Fingerprint>,
    /// The SHA-256 of its public key (SubjectPublicKeyInfo), if clients have to show a listed one ([`TlsRole::EndToEnd`],
    /// [`TlsRole::EndToEndStream`]).
    pub key: Option<Fingerprint>,
    /// Both sides speak HTTP/2 (ALPN `h2`, RFC 9113 §3.2).
    pub is_h2: bool,
    /// The subject of its certificate, if clients have to show one of a CA
    /// ([`TlsRole::EndToEnd`]).
    pub subject: Option<Subject>,
}

/// Why a name or an address could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// The name does not resolve.
    Name,
    /// Connection refused.
    Refused,
    /// No route, or a timeout.
    Unreachable,
    /// Anything else: no descriptors, no permission.
    Local,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The key of the peer's certificate does not match the pin, or the certificate is unacceptable for another reason.
    Certificate,
    /// The peer's certificate has expired.
    CertificateExpired,
    /// The peer's certificate is not valid yet.
    CertificateNotYetValid,
    /// The peer's certificate is for another name.
    CertificateName,
    /// No trusted CA signed the peer's certificate, or an intermediate certificate is missing.
    CertificateIssuer,
    /// The peer ended or reset the connection during the handshake.
    Ended,
    /// The peer speaks HTTP without TLS. On the side of [`TlsRole::Server`] the connection is in clear from now on. The
    /// driver offers what was received ([`Machine::handle_bytes`](crate::machine::Machine::handle_bytes)), so that the
    /// machine can answer.
    PlainHttp,
    /// The peer speaks neither TLS 1.2 nor 1.3.
    Version,
    /// The peer wants another application protocol (ALPN, RFC 7301).
    Alpn,
    /// There is no common cipher suite, group or signature scheme.
    Cipher,
    /// A message of the handshake is longer than is accepted, as with a very long certificate chain.
    TooLong,
    /// Anything else: the peer does not speak TLS, or violates it.
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
