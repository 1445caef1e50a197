//! Texts for reasons and errors, in logs and messages.

use rendezvous_core::event::{ConnectError, ConnectFailure, NotDirect, WaitingEnd};
use rendezvous_core::machine::{DialFailure, End, TlsFailure};
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::tunnel::ProxyError;

/// A hint for an agent's operator about a refusal.
pub(super) fn refusal_hint(status: u16) -> Option<&'static str> {
    match status {
        401 => Some("unknown ID or wrong token: compare the ticket with 'rendezvous id list' at the relay"),
        403 => Some(
            "the relay's operator has disabled this ID; or it is a node-rendezvous relay: add 'token plain' to the ticket",
        ),
        407 | 400 => Some("if this is a node-rendezvous relay, add 'token plain' to the ticket"),
        421 => Some(
            "this is one of several relays (--group): the ticket needs a line 'sni LABEL.DOMAIN' with the ID's first label",
        ),
        429 => Some("too many failures from this address"),
        503 => Some("the relay is full or shutting down"),
        _ => None,
    }
}

/// The reason why a waiting connection was not paired, as one word.
#[must_use]
pub const fn waiting_end(why: WaitingEnd) -> &'static str {
    match why {
        WaitingEnd::Ended(End::Clean) => "ended",
        WaitingEnd::Ended(End::Truncated) => "cut",
        WaitingEnd::Ended(End::Reset) => "reset",
        WaitingEnd::UnexpectedBytes => "talked-while-waiting",
        WaitingEnd::Replaced => "replaced",
        WaitingEnd::Revoked => "revoked",
        WaitingEnd::Drained => "shutdown",
        WaitingEnd::Operator => "ended-by-operator",
    }
}

/// The reason why a pair ended, as one word.
pub(super) const fn pair_end(why: EndReason) -> &'static str {
    match why {
        EndReason::Done => "done",
        EndReason::Truncated(Side::Hidden) => "cut-by-hidden",
        EndReason::Truncated(Side::Client) => "cut-by-client",
        EndReason::Reset(Side::Hidden) => "reset-by-hidden",
        EndReason::Reset(Side::Client) => "reset-by-client",
        EndReason::HalfClosed => "half-closed-too-long",
        EndReason::Idle => "idle-too-long",
        EndReason::Unreachable(Side::Hidden) => "hidden-unreachable",
        EndReason::Unreachable(Side::Client) => "client-unreachable",
        EndReason::SlowReader(_) => "slow-reader",
        EndReason::KeyRemoved => "key-removed",
        EndReason::Operator => "ended-by-operator",
    }
}

/// The reason why a TLS handshake failed.
#[must_use]
pub const fn tls(why: TlsFailure) -> &'static str {
    match why {
        TlsFailure::Certificate => "its certificate is not the one that is trusted (compare pin or CA)",
        TlsFailure::CertificateExpired => "its certificate has expired, or this machine's clock is ahead",
        TlsFailure::CertificateNotYetValid => {
            "its certificate is not valid yet, or this machine's clock is behind"
        }
        TlsFailure::CertificateName => "its certificate is for another name",
        TlsFailure::CertificateIssuer => {
            "no trusted CA signed its certificate (a self-signed one needs its pin), or it does not send the intermediate \
             certificate"
        }
        TlsFailure::Ended => "it ended the connection in the TLS handshake",
        TlsFailure::PlainHttp => "plain HTTP instead of TLS: one side uses http:// and the other https://",
        TlsFailure::Version => "no common version of TLS: 1.2 or 1.3 is needed",
        TlsFailure::Alpn => "no common application protocol (ALPN): http/1.1 or http/1.0 is needed",
        TlsFailure::Cipher => "no common cipher suite, group or signature scheme",
        TlsFailure::TooLong => {
            "a handshake message exceeds the limit (server: 16 KiB; client: 64 KiB, for example a long certificate chain)"
        }
        TlsFailure::Protocol => "not TLS, or malformed TLS",
    }
}

/// The reason why a host could not be reached.
#[must_use]
pub const fn dial(why: DialFailure) -> &'static str {
    match why {
        DialFailure::Name => "its name does not resolve",
        DialFailure::Refused => "connection refused",
        DialFailure::Unreachable => "no answer, or no route",
        DialFailure::Local => "this machine could not connect",
    }
}

/// How a connection ended.
pub(super) const fn end_text(end: End) -> &'static str {
    match end {
        End::Clean => "it ended the connection",
        End::Truncated => "the connection was cut",
        End::Reset => "the connection was reset",
    }
}

/// The reason why an HTTP proxy opened no tunnel to the relay.
#[must_use]
pub(crate) fn proxy(why: ProxyError) -> String {
    let text = match why {
        ProxyError::Refused(403) => {
            "the proxy refuses CONNECT to the relay's port with 403: many allow only port 443, or only some hosts"
        }
        ProxyError::Refused(status) => {
            return format!("the proxy refuses the tunnel to the relay with {status}");
        }
        ProxyError::NoCredentials => {
            "the proxy asks for a user name and a password: --proxy http://USER@HOST:PORT --proxy-password-file FILE"
        }
        ProxyError::WrongCredentials => "the proxy does not accept the user name and the password",
        ProxyError::Ntlm => {
            "the proxy accepts only NTLM or Negotiate, which are not supported: Basic or Digest is needed"
        }
        ProxyError::UnknownScheme => {
            "the proxy asks for a kind of authentication that is neither Basic nor Digest"
        }
        ProxyError::NotHttp => "the answer of the proxy is not HTTP: compare host and port of --proxy",
        ProxyError::Ended => "the proxy ended the connection before its answer",
        ProxyError::TimedOut => "the proxy did not answer in time",
        ProxyError::Unreachable(why) => return format!("the proxy: {}", dial(why)),
    };
    text.to_owned()
}

/// The reason why a connector's connection failed.
#[must_use]
pub fn connect_failure(why: ConnectFailure) -> String {
    match why {
        ConnectFailure::Refused(404) => {
            "the hidden server is offline, or there is none with this ID".to_owned()
        }
        ConnectFailure::Refused(101) => {
            "the answer switches to another protocol than octet-stream: compare host and port of the relay".to_owned()
        }
        ConnectFailure::Refused(502) => "the hidden server's agent could not reach its service".to_owned(),
        ConnectFailure::Refused(421) => {
            "the relay's host name is the label of another hidden server than this ID; use the relay's own name, or the \
             ID of the label"
                .to_owned()
        }
        ConnectFailure::Refused(503) => "the relay or the hidden server is busy; try again".to_owned(),
        ConnectFailure::Offline => {
            "the hidden server is offline: it was connected a short time ago; try again".to_owned()
        }
        ConnectFailure::Refused(status) => format!("the answer was {status}, not 101: {}", not_upgraded(status)),
        ConnectFailure::NotHttp => "the answer is not HTTP".to_owned(),
        ConnectFailure::Ended(end) => format!("the relay: {}", end_text(end)),
        ConnectFailure::TimedOut => "no answer in time".to_owned(),
        ConnectFailure::Tls(why) => format!("the relay: {}", tls(why)),
        ConnectFailure::Unreachable(why) => format!("the relay: {}", dial(why)),
        ConnectFailure::Proxy(why) => proxy(why),
        ConnectFailure::InvalidOffer => {
            "the agent's answer about the direct connection is malformed; try --direct off".to_owned()
        }
        ConnectFailure::NotDirect(why) => format!("no direct connection: {}", not_direct(why)),
        ConnectFailure::NotSealed(status) => format!("not end to end: {}", not_sealed(status)),
        ConnectFailure::EndToEnd(TlsFailure::Certificate) => {
            "the key at the other end is not the pinned one: the relay may be putting itself between, or the agent has a \
             new key; ask the agent's owner for its pin"
                .to_owned()
        }
        ConnectFailure::EndToEnd(TlsFailure::Alpn) => {
            "what answers end to end is not an agent of rendezvous for this ID (ALPN rendezvous-stream)".to_owned()
        }
        ConnectFailure::EndToEnd(why) => format!("end to end, the agent: {}", tls(why)),
        ConnectFailure::NotAllowed(how) => format!(
            "{} before the agent's answer: the agent may not allow this key; the pin that 'rendezvous key FILE' prints of \
             --key FILE belongs in the agent's --allow-key",
            end_text(how)
        ),
    }
}

/// The likely reason for an answer without an upgrade.
const fn not_upgraded(status: u16) -> &'static str {
    match status {
        300..=399 => "a redirect; use https:// if the relay has TLS, and compare host and port",
        403 => {
            "the hidden server is end-to-end and needs --end-to-end, or the relay's operator has disabled the ID or admits \
             no clients from this address"
        }
        _ => "check that the agent has a --stream service",
    }
}

/// The reason why a stream does not continue with TLS between its ends.
const fn not_sealed(status: u16) -> &'static str {
    match status {
        404 => "the hidden server is offline, there is none with this ID, or its agent has no --end-to-end",
        101 => {
            "the stream would start without TLS to the agent: the agent has no --end-to-end, or the relay removes it"
        }
        403 => {
            "refused: the relay's operator has disabled the ID, or admits no clients from this address; otherwise check \
             that the agent has --end-to-end and --stream"
        }
        502 => "the hidden server's agent has no --end-to-end, or it disconnected",
        _ => "unexpected answer: check that the agent has --end-to-end and --stream",
    }
}

/// The reason why there is no direct connection.
pub(super) const fn not_direct(why: NotDirect) -> &'static str {
    match why {
        NotDirect::Unsupported => "the hidden server's agent does not offer it (--direct)",
        NotDirect::NoAddress => "neither side has an address that the other may dial (--direct-allow)",
        NotDirect::Busy => "the hidden server's agent is setting up too many direct connections",
        NotDirect::TimedOut => "it took too long (--direct-timeout)",
        NotDirect::Declined => "the client stays on the relay",
        NotDirect::Failed(why) => connect_error(why),
    }
}

/// The reason why a direct connection failed.
#[must_use]
pub const fn connect_error(why: ConnectError) -> &'static str {
    match why {
        ConnectError::Dial(why) => dial(why),
        ConnectError::Budget => "too many addresses were dialled within a minute",
        ConnectError::Handshake => "another host answered at the dialled address",
        ConnectError::Tls(TlsFailure::Certificate) => {
            "its certificate is not the announced one: the connection may be intercepted"
        }
        ConnectError::Tls(why) => tls(why),
        ConnectError::NoTls => "one side requires TLS, and the other has TLS off",
    }
}
