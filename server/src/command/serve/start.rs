//! The start of a relay: alone, or as the process that takes over from a running one.

use std::path::{Path, PathBuf};

use rendezvous_core::engine::Engine;
use rendezvous_core::trace::Recorder;

use super::settings::TAKE_OVER;
use super::{Relay, site};
use crate::admin::{self, Address, Replaces};
use crate::command::acme::{self, Host};
use crate::daemon::{self, Loop};
use crate::failure::{Failure, reason};
use crate::logging::Escaped;
use crate::options::Matches;
use crate::socket_file::{self, SocketFile, UnixListener};
use crate::state::State;
use crate::status::{control, socket};
use crate::take_over::{Handed, Receiver, Step};

/// How a relay starts.
pub(super) enum Start {
    /// No other relay runs. Has the status socket, unless the state folder is read-only.
    Alone(Option<UnixListener>),
    /// Another one hands over.
    TakingOver(Receiver),
}

impl Start {
    /// Opens the status socket, or gets the sockets of the running relay.
    ///
    /// # Errors
    /// Another relay runs and is not to be taken over from, or there is none that is.
    pub(super) fn begin(matches: &Matches, state: &State) -> Result<(Self, Handed), Failure> {
        if matches.flag(TAKE_OVER.long) {
            let (receiver, handed) = Receiver::connect(state.folder())?;
            Ok((Self::TakingOver(receiver), handed))
        } else {
            Ok((Self::Alone(socket::open(state)?), Handed::default()))
        }
    }

    /// The file of `--trace`. The running relay has a file of that name already.
    pub(super) fn trace(&self, option: Option<&Path>) -> Option<PathBuf> {
        let path = option?;
        match self {
            Self::Alone(_) => Some(path.to_owned()),
            Self::TakingOver(_) => {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".{}", std::process::id()));
                Some(name.into())
            }
        }
    }

    /// Everything is loaded and the listeners are open. After this the relay serves.
    ///
    /// # Errors
    /// The other relay has given up, or a file cannot be read.
    pub(super) fn finish(
        self,
        state: &State,
        relay: &mut Relay,
        event_loop: &mut Loop<Host<Recorder<Engine>>>,
    ) -> Result<(), Failure> {
        match self {
            Self::Alone(status) => {
                relay.usage = site::open_usage(state, "", relay.usage_interval, event_loop)?;
                let Some(listener) = status else {
                    return relay.open_metrics_sockets(event_loop, Replaces::Dead);
                };
                take_status(listener, state, relay, event_loop)?;
                relay.open_metrics_sockets(event_loop, Replaces::Dead)?;
                relay.open_own_sockets(state, event_loop);
            }
            Self::TakingOver(mut receiver) => {
                receiver.ready()?;
                let mut records = String::new();
                loop {
                    match receiver.next_step()? {
                        Step::Tokens(tokens) => event_loop
                            .call(|host, now| acme::inner_mut(host).handle_used_tokens(&tokens, now)),
                        Step::Records(lines) => records.push_str(&lines),
                        Step::Commit => break,
                    }
                }
                relay.usage = site::open_usage(state, &records, relay.usage_interval, event_loop)?;
                receiver.take()?;
                // This process serves from here on, so nothing may end it.
                match socket_file::bind(&state.file(socket::NAME)) {
                    Ok(listener) => take_status(listener, state, relay, event_loop)?,
                    Err(error) => {
                        log::warn!("event=no-status-socket reason={}", Escaped(&reason(&error)));
                    }
                }
                relay.open_metrics_sockets(event_loop, Replaces::Any)?;
                relay.open_own_sockets(state, event_loop);
                log::info!("event=took-over");
                let now = event_loop.now().mono;
                match (receiver.into_link(), &mut relay.take_over) {
                    (Ok(link), Some(take_over)) => take_over.settled(event_loop.net(), link, now),
                    (Err(error), _) => {
                        log::warn!("event=older-process-lost reason={}", Escaped(&reason(&error)));
                    }
                    (Ok(_), None) => {}
                }
            }
        }
        Ok(())
    }
}

fn take_status(
    listener: UnixListener,
    state: &State,
    relay: &mut Relay,
    event_loop: &mut Loop<Host<Recorder<Engine>>>,
) -> Result<(), Failure> {
    let taken = event_loop.net().take_status(listener);
    taken.map_err(|error| daemon::cannot("watch the status socket", &error))?;
    relay.socket_file = SocketFile::of(&state.file(socket::NAME));
    Ok(())
}

impl Relay {
    /// Opens the sockets of the file system for metrics.
    fn open_metrics_sockets(
        &mut self,
        event_loop: &mut Loop<Host<Recorder<Engine>>>,
        replaces: Replaces,
    ) -> Result<(), Failure> {
        let Some(admin) = &mut self.admin else { return Ok(()) };
        let opened = self.metrics.open_sockets(admin, event_loop.net(), replaces);
        match opened {
            Err(failure) if replaces == Replaces::Any => {
                log::error!("event=no-metrics-socket reason={}", Escaped(&failure.to_string()));
                Ok(())
            }
            other => other,
        }
    }

    /// Opens the sockets in the state folder, apart from the status socket.
    fn open_own_sockets(&mut self, state: &State, event_loop: &mut Loop<Host<Recorder<Engine>>>) {
        let address = Address::Unix(state.file(control::NAME));
        if let Some(admin) = &mut self.admin
            && let Err(failure) =
                admin::open_listener(admin, event_loop.net(), &address, None, Replaces::Any, true)
        {
            log::warn!("event=no-control-socket reason={}", Escaped(&failure.to_string()));
        }
        if let Some(take_over) = &mut self.take_over {
            take_over.listen(event_loop.net());
        }
    }
}

/// Closes the sockets that no option of this relay asks for.
pub(super) fn drop_unused(mut handed: Handed) {
    while let Some(label) = handed.take_unused() {
        log::info!(
            "event=listener-closed reason=\"no option asks for it\" on={}",
            Escaped(&label.to_string())
        );
    }
}
