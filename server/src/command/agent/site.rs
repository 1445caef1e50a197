//! What an agent serves to its operator: metrics and probes.

use rendezvous_core::agent::Agent;
use rendezvous_core::time::Now;
use rendezvous_core::trace::Recorder;

use super::AgentProgram;
use crate::admin::{Method, Request, Response, SLICE, Site};
use crate::command::acme::{self, Host};
use crate::daemon::Loop;
use crate::metrics::agent::{Facts, Row};
use crate::metrics::process::Process;
use crate::metrics::{Format, Scrape};
use crate::net::mio::MioNet;

/// An agent and its event loop.
pub(super) struct AgentSite<'a> {
    pub(super) program: &'a AgentProgram,
    pub(super) event_loop: &'a mut Loop<Host<Recorder<Agent>>>,
}

impl Site for AgentSite<'_> {
    type Body = Scrape<Row>;

    fn net(&mut self) -> &mut MioNet {
        self.event_loop.net()
    }

    fn now(&self) -> Now {
        self.event_loop.now()
    }

    fn respond(&mut self, request: &Request<'_>) -> Response<Scrape<Row>> {
        match (request.method, request.path) {
            (Method::Get, "/live") => Response::text((200, "OK"), "live\n"),
            (Method::Get, "/ready") if self.program.is_reachable(self.event_loop) => {
                Response::text((200, "OK"), "ready\n")
            }
            (Method::Get, "/ready") => {
                Response::text((503, "Service Unavailable"), "no connection waits at a relay\n")
            }
            (Method::Get, "/metrics") => {
                let format = Format::preferred(&request.accept);
                Response::sliced(format.content_type(), self.scrape(format))
            }
            _ => Response::not_found(),
        }
    }

    fn slice(&mut self, scrape: &mut Scrape<Row>, out: &mut String) -> bool {
        scrape.next(out, SLICE)
    }
}

impl AgentSite<'_> {
    fn scrape(&self, format: Format) -> Scrape<Row> {
        let agent = acme::inner(self.event_loop.machine()).machine();
        let ticket = |(place, of): (u16, &crate::logging::Upstream)| {
            (of.name.clone().unwrap_or_default(), of.relay.clone(), agent.waiting(place))
        };
        Facts {
            process: Process {
                role: "agent",
                started: self.program.started,
                descriptors_max: self.program.descriptors_max,
            },
            counters: &self.program.counters,
            relayed: self.event_loop.stats().relayed,
            tickets: (0..).zip(&self.program.relays_in_logs).map(ticket).collect(),
        }
        .scrape(format)
    }
}
