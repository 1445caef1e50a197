//! `rendezvous check`: finds out why it does not work, one step after the other, a line each.

mod wire;

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use rendezvous_core::http::response::{Response, write_connect};
use rendezvous_core::http::target::Token;

use self::wire::{Wire, WireError};
use crate::clock;
use crate::entropy;
use crate::escape::Line;
use crate::failure::{Failure, print, reason};
use crate::options::value::{HostPort, host_port, path};
use crate::options::{Opt, Spec, parse};
use crate::pin::Pin;
use crate::ticket::Ticket;
use crate::trust::Trust;

const SPEC: Spec = Spec {
    command: "check",
    operands: &[],
    summary: "Goes the agent's way step by step and says which step fails, and what to do.",
    options: &[
        Opt::one("ticket", "FILE", "", "the ticket"),
        Opt::one("to", "HOST:PORT", "not checked", "the local service"),
    ],
    notes: "\
A line for each step: name look-up, TCP, TLS, certificate, clock, token, local service. Exit code 0
if all are ok. The step 'token' registers a connection and closes it again.",
};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command with the arguments behind its name.
///
/// # Errors
/// [`Failure`] for wrong options and unreadable tickets, and where a step is not ok.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let file: PathBuf = matches
        .get_if("ticket", path)?
        .ok_or_else(|| Failure::Usage("--ticket FILE is missing".to_owned()))?;
    let to = matches.get_if("to", host_port)?;
    let ticket = Ticket::load(&file)?;
    say("ticket", &Ok(format!("{} is for {}", file.display(), ticket.relay)))?;
    let relay = check_relay(&ticket);
    let service = to.map_or(Ok(()), |to| check_service(&to));
    if relay.and(service).is_err() {
        return Err(Failure::Failed("not all is ok".to_owned()));
    }
    Ok(())
}

/// A step that failed has been said already.
struct NotOk;

/// The result of a step: what is so, or what failed and what to do.
type Step = Result<String, String>;

fn check_relay(ticket: &Ticket) -> Result<(), NotOk> {
    let (host, port) = (&ticket.relay.host, ticket.relay.port);
    let addresses = step("name", look_up(host, port))?;
    let address = step("tcp", reach(&addresses))?;
    if ticket.relay.tls {
        check_tls(ticket, address)?;
    } else {
        let _ = say("tls", &Ok("none: the ticket says http://, everything is in clear".to_owned()));
    }
    let answer = ask(ticket, address, &challenge_me(&ticket.relay.authority()));
    let clock = answer.and_then(|answer| compare_clocks(ticket, &answer));
    let clock_ok = step("clock", clock.map(|text| ((), text))).is_ok();
    let token = token_request(ticket).and_then(|request| ask(ticket, address, &request));
    step("token", token.and_then(|answer| judge_token(&answer)).map(|text| ((), text)))?;
    if clock_ok { Ok(()) } else { Err(NotOk) }
}

fn look_up(host: &str, port: u16) -> Result<(Vec<SocketAddr>, String), String> {
    let found: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|error| {
            format!("{host} does not resolve ({}): is the name right, is there a network?", reason(&error))
        })?
        .collect();
    let shown: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
    let text = format!("{host} is {}", shown.join(", "));
    Ok((found, text))
}

fn reach(addresses: &[SocketAddr]) -> Result<(SocketAddr, String), String> {
    let mut failures = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(_) => return Ok((*address, format!("{address} accepts connections"))),
            Err(error) => failures.push(format!("{address}: {}", reason(&error))),
        }
    }
    Err(format!("{}: does the relay run, is the port open in its firewall?", failures.join("; ")))
}

/// TLS as such first, with whatever certificate; then whether the certificate is the one that the ticket trusts.
fn check_tls(ticket: &Ticket, address: SocketAddr) -> Result<(), NotOk> {
    let open = |trust: &Trust| Wire::connect(address, &ticket.relay, trust, PATIENCE);
    let wire = open(&Trust::Insecure).map_err(|error| match error {
        WireError::Tls(why) => format!("{why}: is this port one for HTTPS?"),
        other => other.to_string(),
    });
    let wire = step("tls", wire.map(|wire| (wire, "the handshake is complete".to_owned())))?;
    let pin = wire.peer_certificate().and_then(Pin::of_certificate);
    let shown = pin.map_or_else(|| "no certificate".to_owned(), |pin| pin.to_string());
    let judged = match &ticket.trust {
        Trust::Pins(pins) if pin.is_some_and(|pin| pins.contains(&pin)) => Ok(format!("the pin is {shown}")),
        Trust::Pins(_) => Err(format!(
            "the relay's pin is {shown}, the ticket has another: a new key (get a new ticket), or somebody in between"
        )),
        other => match open(other) {
            Ok(_) => Ok(format!("its certificate is trusted; its pin is {shown}")),
            Err(WireError::Tls(why)) => Err(format!("its certificate (pin {shown}) is not trusted: {why}")),
            Err(other) => Err(other.to_string()),
        },
    };
    step("certificate", judged.map(|text| ((), text)))
}

fn challenge_me(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

fn token_request(ticket: &Ticket) -> Result<Vec<u8>, String> {
    let nonce = entropy::nonce().map_err(|failure| failure.to_string())?;
    let step = ticket.key.step(clock::wall());
    let plain = ticket.key.plain(step);
    let token = if ticket.plain {
        Token::Plain(plain.as_bytes())
    } else {
        Token::Bound { response: ticket.key.bound(step, nonce.as_bytes()), nonce: nonce.as_bytes() }
    };
    let mut request = Vec::new();
    write_connect(&mut request, ticket.id, &token, &ticket.relay.authority(), false);
    Ok(request)
}

fn ask(ticket: &Ticket, address: SocketAddr, request: &[u8]) -> Result<Response, String> {
    let ask = || {
        let mut wire = Wire::connect(address, &ticket.relay, &ticket.trust, PATIENCE)?;
        wire.send(request)?;
        wire.response()
    };
    ask().map_err(|error| error.to_string())
}

fn compare_clocks(ticket: &Ticket, answer: &Response) -> Step {
    let Some(theirs) = answer.date else {
        return Ok("the relay says no Date: nothing to compare with".to_owned());
    };
    let ours = clock::wall();
    let apart = ours.abs_diff(theirs);
    let which = if ours > theirs { "ahead of" } else { "behind" };
    if apart <= u64::from(ticket.key.period()) {
        return Ok(format!("{apart} s {which} the relay's"));
    }
    Err(format!(
        "{apart} s {which} the relay's: set this machine's clock (an agent goes by the relay's meanwhile)"
    ))
}

fn judge_token(answer: &Response) -> Step {
    match answer.status {
        200 => Ok("the relay accepts it".to_owned()),
        401 => Err("refused: not enrolled at this relay (any more), another secret, or clocks apart; \
                    'rendezvous id ticket NAME' there writes a new ticket"
            .to_owned()),
        429 => Err("too many failures from this address: wait a minute".to_owned()),
        503 => Err("the relay is full or shutting down".to_owned()),
        other => Err(format!(
            "answer {other}: is this a rendezvous relay? one of 2013 needs 'token plain' in the ticket"
        )),
    }
}

fn check_service(to: &HostPort) -> Result<(), NotOk> {
    let reached = look_up(&to.host, to.port).and_then(|(addresses, _)| {
        let mut last = String::new();
        for address in addresses {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(_) => return Ok(format!("{to} accepts connections")),
                Err(error) => {
                    last = format!("{to}: {}: does the service run, and listen there?", reason(&error))
                }
            }
        }
        Err(last)
    });
    step("service", reached.map(|text| ((), text)))
}

/// Says how a step went, and goes on with what it found.
fn step<T>(name: &str, result: Result<(T, String), String>) -> Result<T, NotOk> {
    let (value, text) = match result {
        Ok((value, text)) => (Some(value), Ok(text)),
        Err(text) => (None, Err(text)),
    };
    // Where stdout is gone there is nobody to tell.
    let _ = say(name, &text);
    value.ok_or(NotOk)
}

fn say(name: &str, result: &Step) -> Result<(), Failure> {
    match result {
        Ok(text) => print(&format!("{name:<12} ok      {}\n", Line(text))),
        Err(text) => print(&format!("{name:<12} FAILED  {}\n", Line(text))),
    }
}
