//! What happened, as words.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::super::tokenizer::{Tokenizer, address, conn, number, span};
use super::super::{Bytes, Input, config, display};
use super::Parser;
use crate::agent::Verdict;
use crate::dtcp::Fingerprint;
use crate::engine::{self, Kick, TakeOver};
use crate::id::Id;
use crate::machine::{DialFailure, End, Listener, Secured, TlsFailure};
use crate::subject::Subject;

impl Parser {
    /// What stands behind the time.
    pub(super) fn event(&self, tokenizer: &mut Tokenizer<'_>) -> Result<Input, String> {
        let word = tokenizer.next().ok_or("an event is missing")?;
        let event = match word {
            "start" => Input::Start,
            "open" => Input::Open {
                on: Listener(tokenizer.read("a listener's number", number)?),
                from: tokenizer.read("an address with a port", address)?,
            },
            "found" => Input::Found { on: tokenizer.conn()?, addresses: addresses(tokenizer)? },
            "resolved" => Input::Resolved { on: tokenizer.conn()?, addresses: addresses(tokenizer)? },
            "connected" => Input::Connected { on: tokenizer.conn()? },
            "dial-failed" => {
                Input::DialFailed { on: tokenizer.conn()?, why: tokenizer.read("a reason", dial_failure)? }
            }
            "secured" => {
                let on = tokenizer.conn()?;
                let mut tls = Secured::default();
                while let Some(word) = tokenizer.next() {
                    match word.split_once('=') {
                        None if word == "h2" => tls.is_h2 = true,
                        Some(("certificate", digits)) => tls.certificate = Some(fingerprint(digits)?),
                        Some(("key", digits)) => tls.key = Some(fingerprint(digits)?),
                        Some(("subject", len)) => {
                            let read = number(len).and_then(Subject::stand_in);
                            tls.subject =
                                Some(read.ok_or_else(|| format!("'{len}' is no length of a subject"))?);
                        }
                        _ => return Err(format!("unexpected '{word}': certificate=, key=, h2 or subject=")),
                    }
                }
                Input::Secured { on, tls }
            }
            "tls-failed" => {
                Input::TlsFailed { on: tokenizer.conn()?, why: tokenizer.read("a reason", tls_failure)? }
            }
            "in" => {
                let (on, mut bytes) = (tokenizer.conn()?, Bytes::default());
                bytes.read(tokenizer.rest)?;
                return Ok(Input::In { on, bytes });
            }
            "last-bytes" => Input::LastBytes { on: tokenizer.conn()? },
            "moved" => Input::Moved {
                on: tokenizer.conn()?,
                read: tokenizer.keyed("read", number)?,
                queued: tokenizer.keyed("queued", number)?,
            },
            "flushed" => Input::Flushed { on: tokenizer.conn()? },
            "round-trip" => {
                Input::RoundTrip { on: tokenizer.conn()?, round_trip: tokenizer.read("a time", span)? }
            }
            "acked" => Input::Acked {
                on: tokenizer.conn()?,
                age: tokenizer.read("'none' or a time", |word| {
                    if word == "none" { Some(None) } else { span(word).map(Some) }
                })?,
            },
            "end" => {
                Input::End { on: tokenizer.conn()?, how: tokenizer.read("clean, truncated or reset", end)? }
            }
            "write-failed" => Input::WriteFailed { on: tokenizer.conn()? },
            "stalled" => Input::Stalled { on: tokenizer.conn()? },
            "closed" => Input::Closed { on: tokenizer.conn()? },
            "timeout" => Input::Timeout,
            "ids" => {
                let mut names = Vec::new();
                while let Some(name) = tokenizer.next() {
                    self.check_name(name)?;
                    names.push(name.to_owned());
                }
                Input::Ids { names }
            }
            "config" => {
                let mut config = Box::<engine::Config>::default();
                config::read(tokenizer, &mut *config)?;
                Input::Config { config }
            }
            "kick" => {
                let what = tokenizer.read("conn=CONN, id=UUID or from=PREFIX", kick)?;
                Input::Kick { what }
            }
            "take-over" => Input::TakeOver { step: tokenizer.read("freeze, cancel or retire", take_over)? },
            "drain" => Input::Drain,
            "path-changed" => Input::PathChanged,
            "keys-removed" => {
                let mut keys = Vec::new();
                while let Some(digits) = tokenizer.next() {
                    keys.push(fingerprint(digits)?);
                }
                Input::KeysRemoved { keys }
            }
            "ticket" => {
                let upstream = tokenizer.read("the number of an upstream", number)?;
                let name = tokenizer.next().ok_or("the name of an identity is missing")?;
                self.check_name(name)?;
                Input::Ticket { upstream, name: name.to_owned() }
            }
            "verified" => Input::Verified {
                on: tokenizer.conn()?,
                ticket: tokenizer.read("the number of a check", number)?,
                verdict: tokenizer.read("right, wrong or busy=N", verdict)?,
            },
            _ => return Err(format!("there is no event '{word}'")),
        };
        tokenizer.end()?;
        Ok(event)
    }
}

/// At least one address, up to the end of the line.
fn addresses(tokenizer: &mut Tokenizer<'_>) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    while !tokenizer.rest.is_empty() || addresses.is_empty() {
        addresses.push(tokenizer.read("an address with a port", address)?);
    }
    Ok(addresses)
}

fn kick(word: &str) -> Option<Kick> {
    match word.split_once('=')? {
        ("conn", on) => conn(on).map(Kick::Conn),
        ("id", id) => Id::parse(id.as_bytes()).map(Kick::Id),
        ("from", prefix) => prefix.parse().ok().map(Kick::From),
        _ => None,
    }
}

fn take_over(word: &str) -> Option<TakeOver> {
    use TakeOver::{Cancel, Freeze, Retire};
    [Freeze, Cancel, Retire].into_iter().find(|it| display::take_over(*it) == word)
}

fn end(word: &str) -> Option<End> {
    [End::Clean, End::Truncated, End::Reset].into_iter().find(|it| display::end(*it) == word)
}

fn dial_failure(word: &str) -> Option<DialFailure> {
    use DialFailure::{Local, Name, Refused, Unreachable};
    [Name, Refused, Unreachable, Local].into_iter().find(|it| display::dial(*it) == word)
}

fn verdict(word: &str) -> Option<Verdict> {
    match word.split_once('=').unwrap_or((word, "")) {
        ("right", "") => Some(Verdict::Right),
        ("wrong", "") => Some(Verdict::Wrong),
        ("busy", seconds) => Some(Verdict::Busy { retry_after: number(seconds)? }),
        _ => None,
    }
}

fn tls_failure(word: &str) -> Option<TlsFailure> {
    TlsFailure::ALL.into_iter().find(|it| display::tls(*it) == word)
}

fn fingerprint(digits: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(digits.as_bytes()).ok_or_else(|| format!("'{digits}' is no fingerprint"))
}
