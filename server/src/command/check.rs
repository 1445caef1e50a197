//! `rendezvous check`: diagnoses a connection step by step, one line per step.

mod caa;
mod dial;
mod dns;
mod domain;
mod served;
mod stored;
mod way;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rendezvous_core::http::reply::NOBODY;
use rendezvous_core::http::response::{RegistrationOptions, Response, write_connect};
use rendezvous_core::http::target::Token;
use rendezvous_core::token::Challenge;

use self::dial::{Failed, race, resolve};
use self::domain::Outside;
use self::way::{Place, Way};
use self::wire::{Deadline, Wire, WireError};
use super::local::{LocalService, TO_CA, TO_INSECURE, TO_PIN, only_service};
use super::through::{self, PASSWORD, PROXY};
use crate::clock;
use crate::console::print;
use crate::entropy;
use crate::escape::Line;
use crate::failure::Failure;
use crate::options::value::{path, public_host};
use crate::options::{Opt, STATE, Spec, parse};
use crate::pin::Pin;
use crate::ticket::Ticket;
use crate::trust::Trust;
use crate::x509;

pub(super) const SPEC: Spec = Spec {
    command: "check",
    operands: &[],
    summary: "Connects like an agent (--ticket), or like a browser and a CA (--domain), step by step, and prints which \
              step fails and what to do.",
    options: &[
        Opt::one("ticket", "FILE", "", "the ticket"),
        Opt::one("to", "HOST:PORT", "not checked", "the local service; https://HOST:PORT if it speaks TLS"),
        TO_CA,
        TO_PIN,
        TO_INSECURE,
        PROXY,
        PASSWORD,
        Opt::one("domain", "DOMAIN", "", "check how this domain looks from outside"),
        Opt::many("label", "LABEL", "none", "also check LABEL.DOMAIN"),
        Opt::one("port", "PORT", "443", "the port of browsers and of CAs' validators"),
        Opt::flag("acme", "fail if a CA could not validate the names (TLS-ALPN-01) or may not issue (CAA)"),
        Opt::one("issuer", "NAME", "letsencrypt.org", "the CA's name in CAA records"),
        Opt::one("ca", "FILE", "the system's CAs", "the CAs (PEM) that clients trust"),
        STATE
            .with_default("not compared")
            .explained("compare what is served with the certificates in this folder"),
        Opt::many("cert", "FILE", "not compared", "compare what is served with this certificate"),
        Opt::one("resolver", "ADDR[:PORT]", "those in /etc/resolv.conf", "the name server to ask"),
    ],
    footer: "\
A line for each step: name look-up, TCP, proxy, TLS, certificate, clock, token, client, local service; each takes
10 s at most. Exit code 0 if none failed. The step 'token' registers a connection and closes it again. The
step 'client' sends GET / to the hidden server, to check that an agent serves it.

With --domain, a line for each name and address: DNS, CAA records, port, validation, certificate, expiry,
and whether it is the stored one. /etc/hosts is not used. Run it on another machine to see the firewall.",
};

/// Timeout of each step.
const STEP: Duration = Duration::from_secs(10);

/// Runs the command with the arguments after its name.
///
/// # Errors
/// [`Failure`] for invalid options, an unreadable ticket, or a failed step.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let file: Option<PathBuf> = matches.get_if("ticket", path)?;
    let outside = Outside::read(&matches)?;
    let to = only_service(&matches)?;
    if file.is_none() && outside.is_none() {
        return Err(Failure::Usage("--ticket FILE or --domain DOMAIN is missing".to_owned()));
    }
    if file.is_none() && matches.one(PROXY.long).is_some() {
        return Err(Failure::Usage("--proxy needs --ticket FILE: it is on the way to a relay".to_owned()));
    }
    let mut outcome = Ok(());
    if let Some(file) = file {
        let ticket = Ticket::load(&file)?;
        let way = Way::new(&ticket.relay, through::proxy(&matches, &ticket.relay)?);
        print_step("ticket", &Step::Ok(format!("{} is for {}", file.display(), ticket.relay)))?;
        outcome = check_relay(&ticket, way);
    }
    if let Some(to) = to {
        outcome = check_service(&to).and(outcome);
    }
    if let Some(outside) = outside {
        outcome = outside.check().and(outcome);
    }
    outcome.map_err(|StepFailed| Failure::Failed("some checks failed".to_owned()))
}

/// A step failed, and its line is printed.
#[derive(Clone, Copy)]
struct StepFailed;

/// The result of a step.
enum Step {
    /// Passed.
    Ok(String),
    /// Passed, but something could be better.
    Info(String),
    /// Failed: what failed, and what to do.
    Failed(String),
}

fn check_relay(ticket: &Ticket, way: Way) -> Result<(), StepFailed> {
    let (host, port) = way.first();
    let addresses = step("name", resolve(&host, port, Deadline::after(STEP)))?;
    let relay = &reach_relay(ticket, way, &addresses)?;
    let request = get(&ticket.relay.authority());
    let date = ask(ticket, relay, &request, Deadline::after(STEP)).map(|answer| answer.date);
    // Before the token step, which registers a connection that the relay could pair with this client.
    let client = check_client(ticket, relay, Deadline::after(STEP));
    // The token step shows whether the clock matters.
    let token = check_token(ticket, relay, Deadline::after(STEP));
    let clock = match date {
        Ok(date) => compare_clocks(ticket, date, matches!(token, Ok(Accepted::OverChallenge))),
        Err(why) => Step::Failed(why),
    };
    let is_clock_ok = report("clock", &clock).is_ok();
    let token = match token {
        Ok(Accepted::Timed) => Step::Ok("the relay accepts it".to_owned()),
        Ok(Accepted::OverChallenge) => Step::Ok(
            "the relay refused a token for this machine's time but accepts one for its challenge".to_owned(),
        ),
        Err(why) => Step::Failed(why),
    };
    report("token", &token)?;
    report("client", &client)?;
    if is_clock_ok { Ok(()) } else { Err(StepFailed) }
}

/// Connects to the relay at one of its addresses and completes TLS with any certificate. Then verifies the certificate
/// as the ticket requires.
fn reach_relay(ticket: &Ticket, way: Way, addresses: &[SocketAddr]) -> Result<Place, StepFailed> {
    let host = public_host(&ticket.relay.host).to_owned();
    let is_tls = ticket.relay.tls;
    let tested = way.clone();
    let (reached, failed) = race(addresses, STEP, move |stream, deadline| {
        let stream = tested.open(stream, deadline)?;
        let tls = is_tls.then_some((host.as_str(), &Trust::Insecure));
        Wire::over(stream, tls, deadline)
    });
    let connected = reached.as_ref().map(|(address, _)| *address);
    let connected = connected.or_else(|| failed.iter().find(|it| it.is_connected).map(|it| it.address));
    let address = step(
        "tcp",
        match connected {
            Some(address) => {
                let text = format!("{address} accepts connections");
                let others = failed.iter().filter(|it| it.address != address).map(shown).collect::<Vec<_>>();
                Ok((address, [vec![text], others].concat().join("; ")))
            }
            None => {
                let all = failed.iter().map(shown).collect::<Vec<_>>().join("; ");
                Err(match way.proxy() {
                    Some(_) => format!("{all}: check that the proxy runs there"),
                    None => format!("{all}: check that the relay runs and that its firewall allows the port"),
                })
            }
        },
    )?;
    let failure = failed.into_iter().find(|it| it.address == address).map(|it| it.why);
    if let Some(proxy) = way.proxy() {
        let opened = match &failure {
            Some(why @ WireError::Proxy(_)) => Err(why.to_string()),
            _ => Ok(((), format!("{proxy} opens a tunnel to {}", ticket.relay))),
        };
        step("proxy", opened)?;
    }
    let relay = Place { at: address, way };
    if !is_tls {
        let _ = print_step("tls", &Step::Ok("none: the ticket's URL begins with http://".to_owned()));
        return Ok(relay);
    }
    let wire = match (reached, failure) {
        (Some((_, wire)), _) => Ok((wire, "the handshake is complete".to_owned())),
        (None, Some(why @ (WireError::Tls(_) | WireError::Alert(_)))) => {
            Err(format!("{why}: check that this port is for HTTPS"))
        }
        (None, Some(other)) => Err(other.to_string()),
        (None, None) => Err("no answer in time".to_owned()),
    };
    let wire = step("tls", wire)?;
    check_certificate(ticket, &relay, &wire)?;
    Ok(relay)
}

fn shown(failed: &Failed) -> String {
    format!("{}: {}", failed.address, failed.why)
}

/// Verifies the presented certificate as the ticket requires.
fn check_certificate(ticket: &Ticket, relay: &Place, wire: &Wire) -> Result<(), StepFailed> {
    let host = &ticket.relay.host;
    let open = |trust: &Trust| relay.connect(Some((host, trust)), Deadline::after(STEP));
    let issuer = wire.peer_certificate().map(x509::issuer_shown).unwrap_or_default();
    let pin = wire.peer_certificate().and_then(Pin::of_certificate);
    let shown = pin.map_or_else(|| "no certificate".to_owned(), |pin| pin.to_string());
    let judged = match &ticket.trust {
        Trust::Pins(pins) if pin.is_some_and(|pin| pins.contains(&pin)) => Ok(format!("the pin is {shown}")),
        Trust::Pins(_) => Err(format!(
            "the relay's pin is {shown}, but the ticket has another: the relay has a new key (get a new ticket), or the \
             connection is intercepted; the issuer of the certificate is {issuer}"
        )),
        other => match open(other) {
            Ok(_) => Ok(format!("its certificate is trusted; its pin is {shown}")),
            Err(why @ (WireError::Tls(_) | WireError::Alert(_))) => {
                Err(format!("its certificate (pin {shown}, issuer {issuer}) is not trusted: {why}"))
            }
            Err(other) => Err(other.to_string()),
        },
    };
    step("certificate", judged.map(|text| ((), text)))
}

/// A request without a hidden server: the response contains the relay's time.
fn get(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Requests the hidden server as a client does.
fn check_client(ticket: &Ticket, relay: &Place, deadline: Deadline) -> Step {
    let host = ticket.relay.authority();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Digest username=\"{}\"\r\nAccept: application/json\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n",
        ticket.id
    );
    let answer = open(ticket, relay, request.as_bytes(), deadline).and_then(|mut wire| wire.answer());
    let (response, body) = match answer {
        Ok(answer) => answer,
        // The service may use another protocol.
        Err(error) => return Step::Info(format!("no HTTP response from the hidden server: {error}")),
    };
    match response.status {
        404 if body.windows(NOBODY.len()).any(|part| part == NOBODY.as_bytes()) => {
            Step::Info("no agent is connected: clients get 404".to_owned())
        }
        503 if response.is_offline => {
            Step::Info("the agent has just disconnected: clients get 503".to_owned())
        }
        status => Step::Ok(format!("the hidden server answers with {status}")),
    }
}

/// The kind of token that the relay accepted.
enum Accepted {
    /// The first one, bound to this machine's time.
    Timed,
    /// One over the challenge that the relay sent when it refused the first.
    OverChallenge,
}

/// Registers as an agent does: with a token for this machine's time and, if the relay refuses it with a challenge, with
/// one over that challenge.
fn check_token(ticket: &Ticket, relay: &Place, deadline: Deadline) -> Result<Accepted, String> {
    let answer = ask(ticket, relay, &registration(ticket, None)?, deadline)?;
    if answer.status == 200 {
        return Ok(Accepted::Timed);
    }
    let challenge = answer.challenge.filter(|_| matches!(answer.status, 401 | 429) && !ticket.plain);
    let Some(challenge) = challenge else { return Err(refusal(answer.status)) };
    let answer = ask(ticket, relay, &registration(ticket, Some(challenge))?, deadline)?;
    if answer.status == 200 { Ok(Accepted::OverChallenge) } else { Err(refusal(answer.status)) }
}

fn registration(ticket: &Ticket, challenge: Option<Challenge>) -> Result<Vec<u8>, String> {
    let nonce = entropy::nonce().map_err(|failure| failure.to_string())?;
    let nonce = nonce.as_bytes();
    let (key, step) = (&ticket.key, ticket.key.step(clock::wall()));
    let plain = key.plain(step);
    let token = match challenge {
        _ if ticket.plain => Token::Plain(plain.as_bytes()),
        None => Token::Bound { response: key.bound(step, nonce), nonce },
        Some(challenge) => {
            Token::Challenged { response: key.over_challenge(&challenge, nonce), nonce, challenge }
        }
    };
    let mut request = Vec::new();
    write_connect(&mut request, ticket.id, &token, &ticket.relay.authority(), RegistrationOptions::default());
    Ok(request)
}

fn ask(ticket: &Ticket, relay: &Place, request: &[u8], deadline: Deadline) -> Result<Response, String> {
    let response = open(ticket, relay, request, deadline).and_then(|mut wire| wire.response());
    response.map_err(|error| error.to_string())
}

/// Connects to the relay and sends it a request.
fn open(ticket: &Ticket, relay: &Place, request: &[u8], deadline: Deadline) -> Result<Wire, WireError> {
    let tls = ticket.relay.tls.then_some((ticket.relay.host.as_str(), &ticket.trust));
    let mut wire = relay.connect(tls, deadline)?;
    wire.send(request)?;
    Ok(wire)
}

/// Compares the clocks. `is_challenged`: the relay accepted a token over its challenge, so the clock does not matter.
fn compare_clocks(ticket: &Ticket, theirs: Option<u64>, is_challenged: bool) -> Step {
    let Some(theirs) = theirs else {
        return Step::Ok("the relay's response has no Date: cannot compare clocks".to_owned());
    };
    let ours = clock::wall();
    let apart = ours.abs_diff(theirs);
    let which = if ours > theirs { "ahead of" } else { "behind" };
    let text = format!("{apart} s {which} the relay's");
    if apart <= u64::from(ticket.key.period()) {
        Step::Ok(text)
    } else if is_challenged {
        Step::Info(format!("{text}: set this machine's clock (the agent works, with one more round trip)"))
    } else {
        Step::Failed(format!("{text}: set this machine's clock"))
    }
}

/// Explains the refusal of a token, with what to do.
fn refusal(status: u16) -> String {
    match status {
        401 => "refused: not enrolled at this relay (any more), or the secret differs; \
                run 'rendezvous id ticket NAME' there for a new ticket"
            .to_owned(),
        429 => "too many failures from this address: wait a minute".to_owned(),
        503 => "the relay is full or shutting down".to_owned(),
        other => {
            format!(
                "answer {other}: check that this is a rendezvous relay; one of 2013 needs 'token plain' in the ticket"
            )
        }
    }
}

fn check_service(to: &LocalService) -> Result<(), StepFailed> {
    let reached = resolve(&to.at.host, to.at.port, Deadline::after(STEP)).and_then(|(addresses, _)| {
        let (reached, failed) = race(&addresses, STEP, |_, _| Ok(()));
        let all = || failed.iter().map(shown).collect::<Vec<_>>().join("; ");
        reached.ok_or_else(|| format!("{}: check that the service runs and listens there", all()))
    });
    let address =
        step("service", reached.map(|(address, ())| (address, format!("{to} accepts connections"))))?;
    let Some(trust) = &to.tls else { return Ok(()) };
    let open = |trust: &Trust| Wire::connect(address, Some((&to.at.host, trust)), Deadline::after(STEP));
    let judged = match open(trust) {
        Ok(_) if *trust == Trust::Insecure => Ok("the certificate is not verified: --to-insecure".to_owned()),
        Ok(_) => Ok("its certificate is trusted".to_owned()),
        // Find out whether it uses TLS at all, and its pin.
        Err(why @ (WireError::Tls(_) | WireError::Alert(_))) => {
            Err(match open(&Trust::Insecure).map(|wire| shown_pin(&wire)) {
                Ok(pin) => format!("its certificate (pin {pin}) is not trusted: {why}"),
                Err(_) => format!("{why}: check that the service uses TLS on this port"),
            })
        }
        Err(other) => Err(other.to_string()),
    };
    step("service-tls", judged.map(|text| ((), text)))
}

/// The pin of the certificate that the peer presented.
fn shown_pin(wire: &Wire) -> String {
    let pin = wire.peer_certificate().and_then(Pin::of_certificate);
    pin.map_or_else(|| "no certificate".to_owned(), |pin| pin.to_string())
}

/// Prints the result of a step and returns its value.
fn step<T>(name: &str, result: Result<(T, String), String>) -> Result<T, StepFailed> {
    let (value, step) = match result {
        Ok((value, text)) => (Some(value), Step::Ok(text)),
        Err(text) => (None, Step::Failed(text)),
    };
    report(name, &step)?;
    value.ok_or(StepFailed)
}

fn report(name: &str, step: &Step) -> Result<(), StepFailed> {
    // A closed stdout does not matter here.
    let _ = print_step(name, step);
    if let Step::Failed(_) = step { Err(StepFailed) } else { Ok(()) }
}

fn print_step(name: &str, step: &Step) -> Result<(), Failure> {
    let (word, text) = match step {
        Step::Ok(text) => ("ok", text),
        Step::Info(text) => ("info", text),
        Step::Failed(text) => ("FAILED", text),
    };
    print(&format!("{name:<12} {word:<7} {}\n", Line(text)))
}
