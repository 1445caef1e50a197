//! `rendezvous token`: prints a token, for scripts and other agents.

use std::path::Path;

use data_encoding::HEXLOWER;
use rendezvous_core::token::{Challenge, Key};

use crate::clock;
use crate::console::print;
use crate::entropy;
use crate::failure::Failure;
use crate::options::{Opt, Spec, parse, value};
use crate::ticket::Ticket;

pub(super) const SPEC: Spec = Spec {
    command: "token",
    operands: &[],
    summary: "Prints a token for the hidden server of a ticket, valid for about half a minute.",
    options: &[
        Opt::one("ticket", "FILE", "", "the ticket"),
        Opt::one(
            "challenge",
            "CHALLENGE",
            "none",
            "make the token for this 'Rendezvous-Challenge' of the relay instead of the time",
        ),
        Opt::flag(
            "plain",
            "print only the digits (RFC 6238, like oathtool); the default with 'token plain' in the ticket",
        ),
    ],
    footer: "\
The output is the query of a CONNECT request with a fresh nonce, valid for one connection:

    CONNECT uuid:ID?response=TOKEN&nonce=NONCE HTTP/1.1

With --challenge the query contains it as 'challenge=', and this machine's clock does not matter. The relay
sends a challenge with each 401, and with the 407 for a CONNECT without a token.
With --plain the output is only the value of 'response', which a relay accepts if the ID was enrolled
with 'id add --tokens any'.",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if the ticket cannot be read.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let path = matches.get_if("ticket", value::path)?;
    let path = path.ok_or_else(|| Failure::Usage("--ticket FILE is missing".to_owned()))?;
    let challenge = matches.get_if("challenge", challenge)?;
    if challenge.is_some() && matches.flag("plain") {
        return Err(Failure::Usage("--challenge and --plain exclude each other".to_owned()));
    }
    print(&token(&path, challenge, matches.flag("plain"))?)
}

fn challenge(text: &str) -> Result<Challenge, String> {
    Challenge::parse(text.as_bytes())
        .ok_or_else(|| format!("'{text}' is not a challenge: expected 16 to 64 letters, digits, '-' and '_'"))
}

fn token(path: &Path, challenge: Option<Challenge>, plain: bool) -> Result<String, Failure> {
    let ticket = Ticket::load(path)?;
    if let Some(challenge) = challenge {
        let nonce = entropy::nonce()?;
        let token = HEXLOWER.encode(&ticket.key.over_challenge(&challenge, nonce.as_bytes()));
        return Ok(format!("response={token}&nonce={nonce}&challenge={challenge}\n"));
    }
    let step = ticket.key.step(clock::wall());
    if plain || ticket.plain {
        let digits = ticket.key.plain(step);
        return Ok(format!("{}\n", String::from_utf8_lossy(digits.as_bytes())));
    }
    bound(&ticket.key, step)
}

fn bound(key: &Key, step: u64) -> Result<String, Failure> {
    let nonce = entropy::nonce()?;
    let token = HEXLOWER.encode(&key.bound(step, nonce.as_bytes()));
    Ok(format!("response={token}&nonce={nonce}\n"))
}
