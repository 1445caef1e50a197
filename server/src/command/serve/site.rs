//! What a relay serves to its operator: metrics, probes, the page and its documents.

use std::collections::BTreeMap;

use miniserde::json;
use rendezvous_core::engine::Engine;
use rendezvous_core::id::Id;
use rendezvous_core::time::{Now, Span};
use rendezvous_core::trace::Recorder;

use super::Relay;
use super::settings::Settings;
use crate::admin::{Access, Method, Remote, Request, Response, SLICE, Site, page};
use crate::clock;
use crate::command::acme::{self, Host};
use crate::daemon::Loop;
use crate::event_loop::TlsSetup;
use crate::failure::Failure;
use crate::logging;
use crate::metrics::process::Process;
use crate::metrics::relay::{Facts, Row};
use crate::metrics::{Format, Scrape};
use crate::net::mio::MioNet;
use crate::password_check::PasswordChecker;
use crate::state::State;
use crate::status::kick;
use crate::status::listing::Listing;
use crate::status::slices::Slices;
use crate::usage::{Usage, write_heading, write_record};

const JSON: &str = "application/json";

/// What sliced responses are made from.
pub(super) enum Body {
    Metrics(Scrape<Row>),
    Status(Box<Slices>),
    Connections(Listing),
    /// The ID whose record is next; `None` before the first.
    Usage(Option<Id>),
}

/// Opens the record of traffic. With an interval of zero it is in memory only. `records` are those that another process has
/// not written.
pub(super) fn open_usage(
    state: &State,
    records: &str,
    interval: Span,
    event_loop: &mut Loop<Host<Recorder<Engine>>>,
) -> Result<Usage, Failure> {
    let now = event_loop.now().mono;
    if interval == Span::ZERO {
        return Ok(Usage::in_memory(records, now));
    }
    Usage::start_with(records, state.clone(), interval, event_loop.net().waker(), now)
}

/// How other machines are served, if they are.
///
/// # Errors
/// The system has no entropy or cannot start a thread.
pub(super) fn remote(
    settings: &mut Settings,
    tls: &TlsSetup,
    net: &MioNet,
) -> Result<Option<Remote>, Failure> {
    let Some((passwords, tls)) = settings.admin_passwords.take().zip(tls.server.clone()) else {
        return Ok(None);
    };
    let checker = PasswordChecker::start(passwords, net.waker())?;
    Ok(Some(Remote { tls, checker, names: settings.admin_names() }))
}

impl Relay {
    /// Puts new certificates and passwords in force for other machines.
    pub(super) fn serve_operators(&mut self, settings: &mut Settings, tls: &TlsSetup) {
        if let (Some(admin), Some(tls)) = (&mut self.admin, &tls.server) {
            admin.reload(tls, settings.admin_names(), settings.admin_passwords.take());
        }
    }

    /// Adds to the usage what has moved.
    pub(super) fn keep_usage(&mut self, event_loop: &Loop<Host<Recorder<Engine>>>) {
        let now = Now { wall: clock::wall(), ..event_loop.now() };
        self.usage.gather(&acme::inner(event_loop.machine()).machine().snapshot(now).ids, now);
    }
}

/// A relay and its event loop.
pub(super) struct RelaySite<'a> {
    pub(super) relay: &'a mut Relay,
    pub(super) event_loop: &'a mut Loop<Host<Recorder<Engine>>>,
}

impl Site for RelaySite<'_> {
    type Body = Body;

    fn net(&mut self) -> &mut MioNet {
        self.event_loop.net()
    }

    fn now(&self) -> Now {
        self.event_loop.now()
    }

    fn respond(&mut self, request: &Request<'_>) -> Response<Body> {
        match (request.method, request.path) {
            (Method::Get, "/") => page::respond(),
            (Method::Get, "/live") => Response::text((200, "OK"), "live\n"),
            (Method::Get, "/ready") => match self.not_ready() {
                None => Response::text((200, "OK"), "ready\n"),
                Some(why) => Response::text((503, "Service Unavailable"), format!("{why}\n")),
            },
            (Method::Get, "/metrics") => {
                let format = Format::preferred(&request.accept);
                Response::sliced(format.content_type(), Body::Metrics(self.scrape(format)))
            }
            (Method::Get, "/api/status") => {
                // An ID is a capability, and other users of this machine can connect by TCP.
                let shows_ids = request.access == Access::Socket;
                self.relay.keep_usage(self.event_loop);
                let slices = self.relay.report(self.event_loop).slices(shows_ids);
                Response::sliced(JSON, Body::Status(Box::new(slices)))
            }
            (Method::Get, "/api/connections") => {
                Response::sliced(JSON, Body::Connections(Listing::default()))
            }
            (Method::Get, "/api/usage") if request.access == Access::Socket => {
                self.relay.keep_usage(self.event_loop);
                Response::sliced("text/plain; charset=utf-8", Body::Usage(None))
            }
            (Method::Post, "/api/kick") => self.kick(request.body),
            _ => Response::not_found(),
        }
    }

    fn slice(&mut self, body: &mut Body, out: &mut String) -> bool {
        match body {
            Body::Metrics(scrape) => scrape.next(out, SLICE),
            Body::Status(slices) => slices.next(out, SLICE),
            Body::Connections(listing) => {
                let engine = acme::inner(self.event_loop.machine()).machine();
                listing.next(engine, &self.relay.names, self.event_loop.now(), out, SLICE)
            }
            Body::Usage(next) => self.usage(next, out),
        }
    }
}

impl RelaySite<'_> {
    /// Ends the connections that a request names.
    fn kick(&mut self, body: &[u8]) -> Response<Body> {
        let request =
            std::str::from_utf8(body).ok().and_then(|text| json::from_str::<kick::Request>(text).ok());
        let what = request.as_ref().and_then(|request| request.resolve(&self.relay.names));
        let (Some(request), Some(what)) = (request, what) else {
            return Response::text((400, "Bad Request"), "no such connection, name or address\n");
        };
        let ended = self.event_loop.call(|host, now| acme::inner_mut(host).handle_kick(&what, now));
        log::info!("event=kicked count={ended}");
        let older = self.relay.take_over.as_mut().map(|take_over| take_over.kick_older(&request));
        let text = kick::Ended { ended, older: older.filter(|older| *older > 0) }.text();
        Response { content_type: JSON, ..Response::text((200, "OK"), text) }
    }

    /// Why new connections should go elsewhere, if they should.
    fn not_ready(&self) -> Option<&'static str> {
        let engine = acme::inner(self.event_loop.machine()).machine();
        let now = clock::wall();
        let certificates = self.certificates();
        match () {
            () if engine.is_draining() => Some("shutting down"),
            () if certificates.values().any(|not_after| *not_after > now) => None,
            () if !self.relay.needs_certificate => None,
            () if certificates.is_empty() => Some("there is no certificate yet"),
            () => Some("the certificate has expired"),
        }
    }

    /// The end of validity of each certificate, by its name.
    fn certificates(&self) -> BTreeMap<String, u64> {
        let mut all = self.relay.served.expiries.clone();
        for certificate in self.relay.acme.report(self.event_loop.machine()) {
            if let Some(not_after) = certificate.not_after {
                all.insert(certificate.name, not_after);
            }
        }
        all
    }

    fn scrape(&self, format: Format) -> Scrape<Row> {
        let now = self.event_loop.now();
        let facts = Facts {
            process: Process {
                role: "relay",
                started: self.relay.started_wall,
                descriptors_max: self.relay.descriptors_max,
            },
            snapshot: acme::inner(self.event_loop.machine()).machine().snapshot(now),
            stats: self.event_loop.stats(),
            counters: &self.relay.counters,
            buffers: (self.event_loop.buffer_bytes(), self.relay.buffer_bytes_max),
            log_lines: (logging::left_out(), logging::lost()),
            certificates: self.certificates(),
            is_ready: self.not_ready().is_none(),
        };
        facts.scrape(format, |of| self.relay.names.0.get(&of.id).cloned())
    }

    fn usage(&self, next: &mut Option<Id>, out: &mut String) -> bool {
        if next.is_none() {
            write_heading(out);
        }
        if !self.relay.usage.is_kept() {
            return false;
        }
        for (id, record) in self.relay.usage.table().records(next.unwrap_or(Id(0))) {
            if out.len() >= SLICE {
                *next = Some(id);
                return true;
            }
            write_record(id, record, out);
        }
        false
    }
}
