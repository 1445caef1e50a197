//! Log lines of the machines behind a component of an XMPP server. JIDs and texts of errors come from peers and are
//! escaped.

use std::fmt::{self, Display as _};

use log::Level;
use rendezvous_core::event::{
    ComponentEvent, ConnectError, DtcpEvent, Event, ProxyEvent, Refused, SessionFailure, StreamEvent,
    StreamFailure,
};
use rendezvous_core::machine::End;
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::xmpp::component::Loss;
use rendezvous_core::xmpp::condition::{Condition, StreamCondition};

use super::{Conn, Escaped, Line, Millis, Names, connect_error, dial};

/// Logs an event of a command whose ordinary events have the level `default_level`; `server` is its XMPP server.
pub fn event(event: &Event, server: &str, default_level: Level) {
    event_at(level(event, default_level), event, server);
}

/// Logs an event at a level.
pub fn event_at(level: Level, event: &Event, server: &str) {
    let line = Line { event, names: &Names::default(), upstreams: &[], xmpp_server: server };
    log::log!(level, "{line}");
}

/// The level of an event. Commands that report a failed stream when they exit have `default_level` debug.
pub(super) fn level(event: &Event, default_level: Level) -> Level {
    match event {
        Event::Component(ComponentEvent::Up) => default_level,
        Event::Component(_) => Level::Warn,
        // The peer chose the address: it is logged in any case.
        Event::Dtcp(DtcpEvent::Dialled { .. }) | Event::Stream(StreamEvent::Dialled { .. }) => Level::Info,
        Event::Dtcp(DtcpEvent::Declined { .. } | DtcpEvent::Failed { .. })
        | Event::StreamProxy(ProxyEvent::Refused { .. }) => Level::Warn,
        Event::Dtcp(_) | Event::Stream(_) | Event::StreamProxy(_) => default_level,
        event => super::level(event).max(default_level),
    }
}

/// Writes an event of these machines; for any other event, nothing.
pub(super) fn write(event: &Event, server: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        Event::Component(event) => OfComponent { event, server }.fmt(f),
        Event::Dtcp(event) => OfDtcp(event).fmt(f),
        Event::Stream(event) => OfStream(event).fmt(f),
        Event::StreamProxy(event) => OfProxy(event).fmt(f),
        _ => Ok(()),
    }
}

struct OfComponent<'a> {
    event: &'a ComponentEvent,
    server: &'a str,
}

impl fmt::Display for OfComponent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server;
        match self.event {
            ComponentEvent::Up => write!(f, "event=xmpp-up server={server}"),
            ComponentEvent::Down { why, again } => {
                let again = again.as_secs_up();
                write!(f, "event=xmpp-down server={server} reason={} retry_in={again}s", LossText(*why))
            }
            ComponentEvent::Full => write!(
                f,
                "event=xmpp-queue-full server={server} reason=\"the server does not read or is not connected: IQs are dropped\""
            ),
            ComponentEvent::Misrouted { to, total } => write!(
                f,
                "event=xmpp-misrouted server={server} to={} total={total} reason=\"the server sends us stanzas for \
                 another domain\" hint=\"ejabberd: global_routes: false for each component's listener\"",
                Escaped(to.as_str())
            ),
            ComponentEvent::Excess { total } => write!(
                f,
                "event=xmpp-excess server={server} total={total} reason=\"skipped stanzas that are too long or \
                 nested too deep\""
            ),
        }
    }
}

struct OfDtcp<'a>(&'a DtcpEvent);

impl fmt::Display for OfDtcp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DtcpEvent::Begun { peer } => write!(f, "event=dtcp-begun peer={}", Escaped(peer.as_str())),
            DtcpEvent::Dialled { peer, to } => {
                write!(f, "event=direct-dial peer={} to={to}", Escaped(peer.as_str()))
            }
            DtcpEvent::Declined { peer, condition } => {
                write!(
                    f,
                    "event=dtcp-declined peer={} condition={}",
                    Escaped(peer.as_str()),
                    condition.name()
                )
            }
            DtcpEvent::Established { peer, tls } => {
                let tls = if *tls { "yes" } else { "no" };
                write!(f, "event=dtcp-established peer={} tls={tls}", Escaped(peer.as_str()))
            }
            DtcpEvent::Failed { peer, refused } => {
                let (peer, why) = (Escaped(peer.as_str()), no_session(refused));
                write!(f, "event=dtcp-failed peer={peer} reason={}", Escaped(&why))
            }
            DtcpEvent::Ended { from_peer, to_peer, why } => write!(
                f,
                "event=dtcp-ended bytes_in={from_peer} bytes_out={to_peer} reason={}",
                Escaped(dtcp_end(*why))
            ),
        }
    }
}

struct OfProxy<'a>(&'a ProxyEvent);

impl fmt::Display for OfProxy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ProxyEvent::Paired { first, first_on, second, second_on } => write!(
                f,
                "event=paired first_conn={} second_conn={} first={} second={}",
                Conn(*first_on),
                Conn(*second_on),
                Escaped(first.as_str()),
                Escaped(second.as_str())
            ),
            ProxyEvent::Ended { first_on, second_on, from_first, from_second, after, why } => write!(
                f,
                "event=pair-ended first_conn={} second_conn={} bytes_in={from_first} bytes_out={from_second} \
                 duration={} reason={}",
                Conn(*first_on),
                Conn(*second_on),
                Millis(*after),
                ended(*why, ["first", "second"])
            ),
            ProxyEvent::Refused { from, condition } => {
                let (from, why) = (Escaped(from.as_str()), Escaped(refused(*condition)));
                write!(f, "event=claim-refused peer={from} reason={why}")
            }
        }
    }
}

struct OfStream<'a>(&'a StreamEvent);

impl fmt::Display for OfStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StreamEvent::Clear { peer, on } => {
                write!(f, "event=clear-to-send conn={} peer={}", Conn(*on), Escaped(peer.as_str()))
            }
            StreamEvent::Dialled { peer, to } => {
                write!(f, "event=direct-dial peer={} to={to}", Escaped(peer.as_str()))
            }
            StreamEvent::Failed { peer, why } => {
                write!(
                    f,
                    "event=no-stream peer={} reason={}",
                    Escaped(peer.as_str()),
                    Escaped(&no_stream(*why))
                )
            }
            StreamEvent::NoService { on } => {
                write!(f, "event=no-service conn={} reason={}", Conn(*on), Escaped(NO_SERVICE))
            }
            StreamEvent::Ended { on, from_peer, to_peer, why } => write!(
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
pub fn no_stream(why: StreamFailure) -> String {
    let text = match why {
        StreamFailure::Refused(Condition::NotAcceptable) => "the peer declined the stream",
        StreamFailure::Refused(Condition::Forbidden) => {
            "the peer or a server on the way does not allow us (403)"
        }
        StreamFailure::Refused(Condition::ItemNotFound) => {
            "the peer cannot reach any of our addresses and proxies"
        }
        StreamFailure::Refused(Condition::RemoteServerNotFound) => "the peer's domain has no XMPP server",
        StreamFailure::Refused(Condition::RemoteServerTimeout) => {
            "the XMPP server of the peer's domain does not answer (504)"
        }
        StreamFailure::Refused(Condition::ServiceUnavailable) => "the peer is offline or shutting down",
        StreamFailure::Refused(condition) => return format!("the peer refused{}", Number(condition)),
        StreamFailure::Disowned(Condition::ItemNotFound) => {
            "the peer has no socket that matches ours: a NAT may rewrite ports"
        }
        StreamFailure::Disowned(Condition::RemoteServerTimeout) => "the peer did not connect to the proxy",
        StreamFailure::Disowned(condition) => {
            return format!("the connection was not accepted as ours{}", Number(condition));
        }
        StreamFailure::Unreachable => "no offered address could be reached",
        StreamFailure::UnknownConnection => "the peer uses a connection that was not offered",
        StreamFailure::Replaced => "the peer started another stream instead",
        StreamFailure::Reset => "the connection was reset before the stream began",
        StreamFailure::TimedOut => "no answer in time",
        StreamFailure::Cancelled => "cancelled",
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

/// Why there is no direct connection, including the peer's own text.
pub fn no_session(refused: &Refused) -> String {
    match (refused.why, &refused.error) {
        (SessionFailure::Refused, Some(error)) => {
            let text = if error.text.is_empty() { String::new() } else { format!(" ({})", error.text) };
            format!("the peer refused with {} {}{text}", error.condition.code(), error.condition.name())
        }
        (SessionFailure::Refused, None) => "the answer is malformed".to_owned(),
        (SessionFailure::Unreachable, _) if refused.connect_error == Some(ConnectError::NoTls) => {
            "503, one side requires TLS and the other has it off: both need the same --tls".to_owned()
        }
        (SessionFailure::Unreachable, _) if refused.connect_error == Some(ConnectError::Handshake) => {
            "503, the dialled host did not accept us: it is another peer, or it requires TLS and we have --tls off"
                .to_owned()
        }
        (SessionFailure::Unreachable, _) => {
            let met = refused.connect_error.map(|error| format!(" ({})", connect_error(error)));
            format!(
                "503, neither side could reach the other{}: one needs --listen, and the other must be allowed to dial it (--allow)",
                met.unwrap_or_default()
            )
        }
        (SessionFailure::Deadline, _) => "timeout".to_owned(),
        (SessionFailure::Busy, _) => "another one is in progress".to_owned(),
    }
}

/// How a direct connection ended.
pub const fn dtcp_end(why: EndReason) -> &'static str {
    match why {
        EndReason::Done => "done",
        EndReason::Truncated(Side::Hidden) | EndReason::Reset(Side::Hidden) => {
            "the other side closed the connection uncleanly"
        }
        EndReason::Truncated(Side::Client) | EndReason::Reset(Side::Client) => {
            "standard input or output failed"
        }
        EndReason::Unreachable(_) => "the other side stopped responding",
        EndReason::HalfClosed | EndReason::Idle => "idle timeout",
        EndReason::SlowReader(_) => "memory was short, and one side read too slowly",
        EndReason::KeyRemoved => "the key was removed from the list",
        EndReason::Operator => "the operator ended it",
    }
}

/// Why the XMPP server is not connected, as a quoted value of a log line.
pub struct LossText(pub Loss);

impl fmt::Display for LossText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Loss::Unreachable(why) => write!(f, "{}", Escaped(dial(why))),
            Loss::TimedOut => f.write_str("\"it did not respond in time\""),
            Loss::Closed => f.write_str("\"it ended the stream\""),
            Loss::Ended(End::Clean | End::Truncated) => f.write_str("\"it ended the connection\""),
            Loss::Ended(End::Reset) => f.write_str("\"the connection was reset\""),
            Loss::Refused(condition) => write!(f, "{}{}", Escaped(condition.name()), hint(condition)),
            Loss::Malformed(condition) => {
                write!(
                    f,
                    "{}",
                    Escaped(&format!("its stream was not valid and was ended: {}", condition.name()))
                )
            }
        }
    }
}

/// A hint for the operator.
const fn hint(condition: StreamCondition) -> &'static str {
    match condition {
        StreamCondition::NotAuthorized => {
            " hint=\"compare --secret-file with the server's component_secret\""
        }
        StreamCondition::HostUnknown => {
            " hint=\"the server does not know the component: compare --component\""
        }
        StreamCondition::Conflict => {
            " hint=\"another process has this component's name, or our last connection still has\""
        }
        _ => "",
    }
}
