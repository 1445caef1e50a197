//! Actions of a machine as text.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::net::SocketAddr;

use super::tokenizer::{ConnText as Conn, SpanText};
use crate::engine::TakeOver;
use crate::event::{ConnectError, ConnectFailure, Event, NotDirect, RelayLoss, Target, WaitingEnd};
use crate::machine::{Close, DialFailure, End, Output, PASS_ALL, TlsFailure, TlsRole};
use crate::pair::{EndReason, Side};
use crate::tunnel::ProxyError;

/// The first words of actions. The text after an arrow begins with one of them.
pub(super) const VERBS: &[&str] = &[
    "conn",
    "took",
    "send",
    "read",
    "pair",
    "gate",
    "pass",
    "start-tls",
    "resolve",
    "dial",
    "user-timeout",
    "check-ack",
    "local-address",
    "close-write",
    "close",
    "note",
];

/// An output, without the bytes of a `Send`.
pub(super) fn output(output: &Output) -> String {
    match output {
        Output::Send { to, .. } => format!("send {}", Conn(*to)),
        Output::Read { on, wanted } => format!("read {} {}", Conn(*on), if *wanted { "on" } else { "off" }),
        Output::Pair { hidden, client } => format!("pair {} {}", Conn(*hidden), Conn(*client)),
        Output::Gate { on } => format!("gate {}", Conn(*on)),
        Output::Pass { from, bytes: PASS_ALL } => format!("pass {} all", Conn(*from)),
        Output::Pass { from, bytes } => format!("pass {} {bytes}", Conn(*from)),
        Output::StartTls { on, role: TlsRole::Server } => format!("start-tls {} server", Conn(*on)),
        Output::StartTls { on, role: TlsRole::Client { upstream } } => {
            format!("start-tls {} client upstream={upstream}", Conn(*on))
        }
        Output::StartTls { on, role: TlsRole::EndToEnd } => format!("start-tls {} end-to-end", Conn(*on)),
        Output::StartTls { on, role: TlsRole::EndToEndStream } => {
            format!("start-tls {} end-to-end-stream", Conn(*on))
        }
        Output::StartTls { on, role: TlsRole::DirectServer } => {
            format!("start-tls {} direct-server", Conn(*on))
        }
        Output::StartTls { on, role: TlsRole::DirectClient } => {
            format!("start-tls {} direct-client", Conn(*on))
        }
        Output::Resolve { on, host, port } => format!("resolve {} {host}:{port}", Conn(*on)),
        Output::Dial { on, to } => format!("dial {} {to}", Conn(*on)),
        Output::UserTimeout { on, after } => match after {
            Some(after) => format!("user-timeout {} {}", Conn(*on), SpanText(*after)),
            None => format!("user-timeout {} none", Conn(*on)),
        },
        Output::CheckAck { on } => format!("check-ack {}", Conn(*on)),
        Output::LocalAddress { on } => format!("local-address {}", Conn(*on)),
        Output::CloseWrite { on } => format!("close-write {}", Conn(*on)),
        Output::Close { on, how } => format!("close {} {}", Conn(*on), close(*how)),
        Output::Event(it) => format!("note {}", event(it)),
        Output::Idle { .. } => String::new(),
    }
}

fn event(event: &Event) -> String {
    match event {
        Event::Waiting { on, from, id, waiting } => {
            format!("waiting {}{} id={id} waiting={waiting}", Conn(*on), source(*from))
        }
        Event::WaitingEnded { on, id, why, after } => {
            format!(
                "waiting-ended {} id={id} why={} after={}",
                Conn(*on),
                waiting_end(*why),
                SpanText(*after)
            )
        }
        Event::Refused { on, from, id, status, why } => {
            let (from, id) = (source(*from), maybe("id", *id));
            format!("refused {}{from}{id} status={} why=\"{why}\"", Conn(*on), status.code())
        }
        Event::Challenged { on, from } => format!("challenged {}{}", Conn(*on), source(*from)),
        Event::Held { on, id } => format!("held {} id={id}", Conn(*on)),
        Event::Paired { hidden, client, from, id } => {
            format!("paired {} {}{} id={id}", Conn(*hidden), Conn(*client), source(*from))
        }
        Event::HandOverFailed { hidden, client, id, retried } => {
            format!("hand-over-failed {} {} id={id} retried={}", Conn(*hidden), Conn(*client), yes(*retried))
        }
        // The address is in the line of the pair's beginning.
        Event::PairEnded { hidden, client, from: _, id, from_client, from_hidden, after, why } => format!(
            "pair-ended {} {} id={id} from-client={from_client} from-hidden={from_hidden} after={} why={}",
            Conn(*hidden),
            Conn(*client),
            SpanText(*after),
            pair_end(*why)
        ),
        Event::Dropped { on, from, why, upstream: _ } => {
            format!("dropped {}{} why=\"{why}\"", Conn(*on), source(*from))
        }
        Event::TlsFailed { on, from, why, upstream: _ } => {
            format!("tls-failed {}{} why={}", Conn(*on), source(*from), tls(*why))
        }
        Event::DialFailed { on, what, why, again } => {
            let what = match what {
                Target::Relay(upstream) => format!("relay={upstream}"),
                Target::Service(upstream) => format!("service={upstream}"),
                Target::Stream(upstream) => format!("stream={upstream}"),
            };
            let again = maybe("again", again.map(SpanText));
            format!("dial-failed {} {what} why={}{again}", Conn(*on), dial(*why))
        }
        Event::ServiceTlsFailed { on, upstream, why } => {
            format!("service-tls-failed {} upstream={upstream} why={}", Conn(*on), tls(*why))
        }
        Event::Registered { on, upstream, waiting } => {
            format!("registered {} upstream={upstream} waiting={waiting}", Conn(*on))
        }
        Event::RelayLost { on, upstream, why, again } => {
            let why = match why {
                RelayLoss::Refused(status) => format!("refused status={status}"),
                RelayLoss::Challenged => "challenged".to_string(),
                RelayLoss::Released => "released".to_string(),
                RelayLoss::NotHttp => "garbled".to_string(),
                RelayLoss::Ended(how) => end(*how).to_string(),
                RelayLoss::TimedOut => "silent".to_string(),
                RelayLoss::Tls(why) => format!("tls-{}", tls(*why)),
                RelayLoss::Unreachable(why) => format!("unreachable-{}", dial(*why)),
                RelayLoss::Proxy(why) => proxy(*why),
            };
            format!("relay-lost {} upstream={upstream} why={why} again={}", Conn(*on), SpanText(*again))
        }
        Event::Slowed { upstream, pause } => {
            format!("slowed upstream={upstream} pause={}", SpanText(*pause))
        }
        Event::ClientRefused { on, from, id, why } => {
            format!("client-refused {}{} id={id} why=\"{why}\"", Conn(*on), source(*from))
        }
        Event::DirectDial { on, id, to } => {
            format!("direct-dial {} id={id} to={to}", Conn(*on))
        }
        Event::Served { relay, local, upstream, stream } => {
            let stream = yes(*stream);
            format!("served {} {} upstream={upstream} stream={stream}", Conn(*relay), Conn(*local))
        }
        Event::Direct { on, local, upstream, with } => {
            let with = maybe("with", *with);
            format!("direct {} {} upstream={upstream}{with}", Conn(*on), Conn(*local))
        }
        Event::Relayed { relay, local, upstream, why } => {
            let why = not_direct(*why);
            format!("relayed {} {} upstream={upstream} why={why}", Conn(*relay), Conn(*local))
        }
        Event::ConnectFailed { local, why } => {
            let why = match why {
                ConnectFailure::Refused(status) => format!("refused status={status}"),
                ConnectFailure::Offline => "offline".to_string(),
                ConnectFailure::NotHttp => "garbled".to_string(),
                ConnectFailure::Ended(how) => end(*how).to_string(),
                ConnectFailure::TimedOut => "silent".to_string(),
                ConnectFailure::Tls(why) => format!("tls-{}", tls(*why)),
                ConnectFailure::Unreachable(why) => format!("unreachable-{}", dial(*why)),
                ConnectFailure::Proxy(why) => proxy(*why),
                ConnectFailure::InvalidOffer => "misspoken".to_string(),
                ConnectFailure::NotDirect(why) => format!("not-direct-{}", not_direct(*why)),
                ConnectFailure::NotSealed(status) => format!("not-sealed status={status}"),
                ConnectFailure::EndToEnd(why) => format!("end-to-end-tls-{}", tls(*why)),
                ConnectFailure::NotAllowed(how) => format!("not-allowed-{}", end(*how)),
            };
            format!("connect-failed {} why={why}", Conn(*local))
        }
        // The machines behind XMPP have no traces.
        #[cfg(feature = "xmpp")]
        Event::Component(_) | Event::Dtcp(_) | Event::Stream(_) | Event::StreamProxy(_) => "xmpp".to_string(),
    }
}

fn not_direct(why: NotDirect) -> String {
    match why {
        NotDirect::Unsupported => "unsupported".to_string(),
        NotDirect::NoAddress => "nowhere".to_string(),
        NotDirect::Busy => "busy".to_string(),
        NotDirect::TimedOut => "late".to_string(),
        NotDirect::Declined => "declined".to_string(),
        NotDirect::Failed(ConnectError::Dial(why)) => format!("unreachable-{}", dial(why)),
        NotDirect::Failed(ConnectError::Budget) => "budget".to_string(),
        NotDirect::Failed(ConnectError::NoTls) => "no-tls".to_string(),
        NotDirect::Failed(ConnectError::Handshake) => "handshake".to_string(),
        NotDirect::Failed(ConnectError::Tls(why)) => format!("tls-{}", tls(why)),
    }
}

fn source(from: Option<SocketAddr>) -> String {
    maybe("from", from)
}

fn maybe(key: &str, value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| format!(" {key}={value}"))
}

const fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

const fn close(how: Close) -> &'static str {
    match how {
        Close::Linger => "linger",
        Close::Truncate => "truncate",
        Close::Abort => "abort",
    }
}

pub(super) const fn take_over(step: TakeOver) -> &'static str {
    match step {
        TakeOver::Freeze => "freeze",
        TakeOver::Cancel => "cancel",
        TakeOver::Retire => "retire",
    }
}

pub(super) const fn end(how: End) -> &'static str {
    match how {
        End::Clean => "clean",
        End::Truncated => "truncated",
        End::Reset => "reset",
    }
}

pub(super) const fn tls(why: TlsFailure) -> &'static str {
    match why {
        TlsFailure::Certificate => "certificate",
        TlsFailure::CertificateExpired => "certificate-expired",
        TlsFailure::CertificateNotYetValid => "certificate-not-yet-valid",
        TlsFailure::CertificateName => "certificate-name",
        TlsFailure::CertificateIssuer => "certificate-issuer",
        TlsFailure::Ended => "ended",
        TlsFailure::PlainHttp => "plain-http",
        TlsFailure::Version => "version",
        TlsFailure::Alpn => "alpn",
        TlsFailure::Cipher => "cipher",
        TlsFailure::TooLong => "too-long",
        TlsFailure::Protocol => "protocol",
    }
}

pub(super) const fn dial(why: DialFailure) -> &'static str {
    match why {
        DialFailure::Name => "name",
        DialFailure::Refused => "refused",
        DialFailure::Unreachable => "unreachable",
        DialFailure::Local => "local",
    }
}

const fn waiting_end(why: WaitingEnd) -> &'static str {
    match why {
        WaitingEnd::Ended(how) => end(how),
        WaitingEnd::UnexpectedBytes => "talked",
        WaitingEnd::Replaced => "replaced",
        WaitingEnd::Revoked => "revoked",
        WaitingEnd::Drained => "drained",
        WaitingEnd::Operator => "operator",
    }
}

const fn pair_end(why: EndReason) -> &'static str {
    match why {
        EndReason::Done => "done",
        EndReason::Truncated(Side::Hidden) => "hidden-truncated",
        EndReason::Truncated(Side::Client) => "client-truncated",
        EndReason::Reset(Side::Hidden) => "hidden-reset",
        EndReason::Reset(Side::Client) => "client-reset",
        EndReason::HalfClosed => "half-closed",
        EndReason::Idle => "idle",
        EndReason::Unreachable(Side::Hidden) => "hidden-silent",
        EndReason::Unreachable(Side::Client) => "client-silent",
        EndReason::SlowReader(Side::Hidden) => "hidden-slow-reader",
        EndReason::SlowReader(Side::Client) => "client-slow-reader",
        EndReason::KeyRemoved => "key-removed",
        EndReason::Operator => "operator",
    }
}

fn proxy(why: ProxyError) -> String {
    match why {
        ProxyError::Refused(status) => format!("proxy-refused status={status}"),
        ProxyError::NoCredentials => "proxy-no-credentials".to_string(),
        ProxyError::WrongCredentials => "proxy-wrong-credentials".to_string(),
        ProxyError::Ntlm => "proxy-ntlm".to_string(),
        ProxyError::UnknownScheme => "proxy-unknown-scheme".to_string(),
        ProxyError::NotHttp => "proxy-garbled".to_string(),
        ProxyError::Ended => "proxy-ended".to_string(),
        ProxyError::TimedOut => "proxy-silent".to_string(),
        ProxyError::Unreachable(why) => format!("proxy-unreachable-{}", dial(why)),
    }
}
