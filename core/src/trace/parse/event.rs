//! What happened, as words.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::super::words::{Words, address, number, span};
use super::super::{Event, Octets, config, show};
use super::Parser;
use crate::agent::Verdict;
use crate::dtcp::Fingerprint;
use crate::engine;
use crate::machine::{DialFailure, End, Listener, Secured, TlsFailure};

impl Parser {
    /// What stands behind the time.
    pub(super) fn event(&self, words: &mut Words<'_>) -> Result<Event, String> {
        let word = words.next().ok_or("an event is missing")?;
        let event = match word {
            "start" => Event::Start,
            "open" => Event::Open {
                on: Listener(words.read("a listener's number", number)?),
                from: words.read("an address with a port", address)?,
            },
            "found" => Event::Found { on: words.conn()?, addresses: addresses(words)? },
            "resolved" => Event::Resolved { on: words.conn()?, addresses: addresses(words)? },
            "connected" => Event::Connected { on: words.conn()? },
            "dial-failed" => {
                Event::DialFailed { on: words.conn()?, why: words.read("a reason", dial_failure)? }
            }
            "secured" => {
                let on = words.conn()?;
                let mut tls = Secured::default();
                while let Some(word) = words.next() {
                    match word.split_once('=') {
                        None if word == "h2" => tls.is_h2 = true,
                        Some(("certificate", digits)) => {
                            let read = Fingerprint::parse(digits.as_bytes());
                            tls.certificate =
                                Some(read.ok_or_else(|| format!("'{digits}' is no fingerprint"))?);
                        }
                        _ => return Err(format!("unexpected '{word}': certificate= or h2")),
                    }
                }
                Event::Secured { on, tls }
            }
            "tls-failed" => Event::TlsFailed { on: words.conn()?, why: words.read("a reason", tls_failure)? },
            "in" => {
                let (on, mut octets) = (words.conn()?, Octets::default());
                octets.read(words.rest)?;
                return Ok(Event::In { on, octets });
            }
            "last-bytes" => Event::LastBytes { on: words.conn()? },
            "moved" => Event::Moved {
                on: words.conn()?,
                read: words.keyed("read", number)?,
                queued: words.keyed("queued", number)?,
            },
            "flushed" => Event::Flushed { on: words.conn()? },
            "round-trip" => Event::RoundTrip { on: words.conn()?, round_trip: words.read("a time", span)? },
            "acked" => Event::Acked {
                on: words.conn()?,
                age: words.read("'none' or a time", |word| {
                    if word == "none" { Some(None) } else { span(word).map(Some) }
                })?,
            },
            "end" => Event::End { on: words.conn()?, how: words.read("clean, truncated or reset", end)? },
            "write-failed" => Event::WriteFailed { on: words.conn()? },
            "stalled" => Event::Stalled { on: words.conn()? },
            "closed" => Event::Closed { on: words.conn()? },
            "timeout" => Event::Timeout,
            "ids" => {
                let mut names = Vec::new();
                while let Some(name) = words.next() {
                    self.check_name(name)?;
                    names.push(name.to_owned());
                }
                Event::Ids { names }
            }
            "config" => {
                let mut config = Box::<engine::Config>::default();
                config::read(words, &mut *config)?;
                Event::Config { config }
            }
            "drain" => Event::Drain,
            "path-changed" => Event::PathChanged,
            "verified" => Event::Verified {
                on: words.conn()?,
                ticket: words.read("the number of a check", number)?,
                verdict: words.read("right, wrong or busy=N", verdict)?,
            },
            _ => return Err(format!("there is no event '{word}'")),
        };
        words.end()?;
        Ok(event)
    }
}

/// At least one address, up to the end of the line.
fn addresses(words: &mut Words<'_>) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    while !words.rest.is_empty() || addresses.is_empty() {
        addresses.push(words.read("an address with a port", address)?);
    }
    Ok(addresses)
}

fn end(word: &str) -> Option<End> {
    [End::Clean, End::Truncated, End::Reset].into_iter().find(|it| show::end(*it) == word)
}

fn dial_failure(word: &str) -> Option<DialFailure> {
    use DialFailure::{Local, Name, Refused, Unreachable};
    [Name, Refused, Unreachable, Local].into_iter().find(|it| show::dial(*it) == word)
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
    TlsFailure::ALL.into_iter().find(|it| show::tls(*it) == word)
}
