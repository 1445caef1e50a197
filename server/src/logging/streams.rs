//! Log lines of the stream proxy and of stream endpoints. JIDs come from peers and are escaped.

use std::fmt;

use rendezvous_core::bytestream::role::Failure;
use rendezvous_core::bytestream::{entity, proxy};
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::xmpp::condition::Condition;

use super::{Conn, Escaped, Level, Millis};

/// Logs an event of a proxy.
pub fn proxy(event: &proxy::ProxyEvent) {
    let level = match event {
        proxy::ProxyEvent::Refused { .. } => Level::Warn,
        proxy::ProxyEvent::Paired { .. } | proxy::ProxyEvent::Ended { .. } => Level::Info,
    };
    log::log!(level, "{}", OfProxy(event));
}

/// Logs an event of a stream endpoint; ordinary events at `default_level`.
pub fn entity(event: &entity::StreamEvent, default_level: Level) {
    let level = match event {
        entity::StreamEvent::Failed { .. } | entity::StreamEvent::NoService { .. } => {
            default_level.max(Level::Warn)
        }
        entity::StreamEvent::Clear { .. } | entity::StreamEvent::Ended { .. } => default_level,
        // The peer chose the address: log it in any case.
        entity::StreamEvent::Dialled { .. } => Level::Info,
    };
    log::log!(level, "{}", OfEntity(event));
}

struct OfProxy<'a>(&'a proxy::ProxyEvent);

impl fmt::Display for OfProxy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            proxy::ProxyEvent::Paired { first, first_on, second, second_on } => write!(
                f,
                "event=paired first_conn={} second_conn={} first={} second={}",
                Conn(*first_on),
                Conn(*second_on),
                Escaped(first.as_str()),
                Escaped(second.as_str())
            ),
            proxy::ProxyEvent::Ended { first_on, second_on, from_first, from_second, after, why } => write!(
                f,
                "event=pair-ended first_conn={} second_conn={} bytes_in={from_first} bytes_out={from_second} \
                 duration={} reason={}",
                Conn(*first_on),
                Conn(*second_on),
                Millis(*after),
                ended(*why, ["first", "second"])
            ),
            proxy::ProxyEvent::Refused { from, condition } => {
                let (from, why) = (Escaped(from.as_str()), Escaped(refused(*condition)));
                write!(f, "event=claim-refused peer={from} reason={why}")
            }
        }
    }
}

struct OfEntity<'a>(&'a entity::StreamEvent);

impl fmt::Display for OfEntity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            entity::StreamEvent::Clear { peer, on } => {
                write!(f, "event=clear-to-send conn={} peer={}", Conn(*on), Escaped(peer.as_str()))
            }
            entity::StreamEvent::Dialled { peer, to } => {
                write!(f, "event=direct-dial peer={} to={to}", Escaped(peer.as_str()))
            }
            entity::StreamEvent::Failed { peer, why } => {
                write!(
                    f,
                    "event=no-stream peer={} reason={}",
                    Escaped(peer.as_str()),
                    Escaped(&failure(*why))
                )
            }
            entity::StreamEvent::NoService { on } => {
                write!(f, "event=no-service conn={} reason={}", Conn(*on), Escaped(NO_SERVICE))
            }
            entity::StreamEvent::Ended { on, from_peer, to_peer, why } => write!(
                f,
                "event=stream-ended conn={} bytes_in={from_peer} bytes_out={to_peer} reason={}",
                Conn(*on),
                ended(*why, ["peer", "us"])
            ),
        }
    }
}

/// The reason logged for a stream whose local service is unreachable.
pub const NO_SERVICE: &str = "the local service cannot be reached";

/// The reason why a pair ended, as one word, with names for the two sides.
fn ended(why: EndReason, [hidden, client]: [&str; 2]) -> String {
    let name = |side| if side == Side::Hidden { hidden } else { client };
    match why {
        EndReason::Done => "done".to_owned(),
        EndReason::Truncated(side) => format!("cut-by-{}", name(side)),
        EndReason::Reset(side) => format!("reset-by-{}", name(side)),
        EndReason::HalfClosed => "half-closed-too-long".to_owned(),
        EndReason::Idle => "idle-too-long".to_owned(),
        EndReason::Unreachable(side) => format!("{}-unreachable", name(side)),
        EndReason::SlowReader(_) => "slow-reader".to_owned(),
        EndReason::KeyRemoved => "key-removed".to_owned(),
        EndReason::Operator => "ended-by-operator".to_owned(),
    }
}

/// The reason why a claim was refused.
const fn refused(condition: Condition) -> &'static str {
    match condition {
        Condition::BadRequest => "400: malformed claim",
        Condition::Forbidden => "403: not in --allow",
        Condition::ItemNotFound => "404: no open socket matches: a NAT may rewrite ports",
        Condition::NotAcceptable => "406: not requested",
        Condition::Conflict => "409: the stream id is taken",
        Condition::ResourceConstraint => "500: too many claims or failures",
        Condition::ServiceUnavailable => "503: shutting down",
        Condition::RemoteServerTimeout => "504: the other side did not connect",
        _ => "refused",
    }
}

/// The reason why there is no stream.
#[must_use]
pub fn failure(why: Failure) -> String {
    let text = match why {
        Failure::Refused(Condition::NotAcceptable) => "the peer declined the stream",
        Failure::Refused(Condition::Forbidden) => "the peer or a server on the way does not allow us (403)",
        Failure::Refused(Condition::ItemNotFound) => "the peer cannot reach any of our addresses and proxies",
        Failure::Refused(Condition::RemoteServerNotFound) => "the peer's domain has no XMPP server",
        Failure::Refused(Condition::RemoteServerTimeout) => {
            "the XMPP server of the peer's domain does not answer (504)"
        }
        Failure::Refused(Condition::ServiceUnavailable) => "the peer is offline or shutting down",
        Failure::Refused(condition) => return format!("the peer refused{}", Number(condition)),
        Failure::Disowned(Condition::ItemNotFound) => {
            "the peer has no socket that matches ours: a NAT may rewrite ports"
        }
        Failure::Disowned(Condition::RemoteServerTimeout) => "the peer did not connect to the proxy",
        Failure::Disowned(condition) => {
            return format!("the connection was not accepted as ours{}", Number(condition));
        }
        Failure::Unreachable => "no offered address could be reached",
        Failure::UnknownConnection => "the peer uses a connection that was not offered",
        Failure::Replaced => "the peer started another stream instead",
        Failure::Reset => "the connection was reset before the stream began",
        Failure::TimedOut => "no answer in time",
        Failure::Cancelled => "cancelled",
    };
    text.to_owned()
}

struct Number(Condition);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Condition::Undefined => Ok(()),
            condition => write!(f, " ({})", condition.code()),
        }
    }
}
