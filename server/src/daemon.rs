//! What every command that holds connections does beside its event loop: signals, notes, the service manager, the
//! orderly end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use log::Level;
use rendezvous_core::event::Event;
use rendezvous_core::machine::Machine;
use rendezvous_core::time::{Now, Span, Time};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use crate::event_loop::EventLoop;
use crate::failure::{Failure, reason};
use crate::linux;
use crate::logging::{self, Escaped};
use crate::net::mio::MioNet;
use crate::notify::Manager;

/// The event loop of a daemon.
pub type Loop<M> = EventLoop<MioNet, M>;

/// A command around its event loop.
pub trait Program {
    /// Its state machine.
    type Machine: Machine;

    /// How often [`Program::tick`] is wanted; `None`: never, and nothing wakes the process for it.
    const TICK: Option<Span>;

    /// Whether SIGHUP ends it like SIGTERM; otherwise it is [`Program::reload`].
    const HANGUP_ENDS: bool = false;

    /// Whether it is what a service manager starts, and tells it how it stands.
    const MANAGED: bool = false;

    /// Something happened.
    fn event(&mut self, event: &Event);

    /// The level of what it does in the ordinary way.
    fn default_level(&self) -> Level {
        Level::Info
    }

    /// SIGHUP. What takes time is done on another thread; [`Program::is_reloading`] until then.
    fn reload(&mut self, _: &mut Loop<Self::Machine>) {}

    /// Whether a reload has not come to its end.
    fn is_reloading(&self) -> bool {
        false
    }

    /// A turn of the event loop is over.
    fn after_turn(&mut self, _: &mut Loop<Self::Machine>) {}

    /// The time between two ticks has passed.
    fn tick(&mut self, _: &mut Loop<Self::Machine>) {}

    /// A line about its state, for the service manager.
    fn status(&self, _: &Loop<Self::Machine>) -> Option<String> {
        None
    }

    /// The first SIGINT or SIGTERM: whoever comes from now on comes to another.
    fn stopping(&mut self) {}

    /// The first SIGINT or SIGTERM, too: begin nothing new, end what only waits.
    fn drain(machine: &mut Self::Machine, now: Now);

    /// Whether there is nothing left to do; `draining` after [`Program::drain`].
    fn is_done(&self, machine: &Self::Machine, draining: bool) -> bool;
}

/// A world whose signals are taken: from now on SIGINT, SIGTERM and SIGHUP end nothing at once.
///
/// # Errors
/// The system has no descriptors left.
pub fn world() -> Result<MioNet, Failure> {
    let mut net = MioNet::new().map_err(|error| cannot("set up polling", &error))?;
    net.take_signals(&[SIGINT, SIGTERM, SIGHUP]).map_err(|error| cannot("take signals", &error))?;
    Ok(net)
}

/// Whether a program that ran to the end of its stream may report success.
///
/// # Errors
/// A peer did not acknowledge everything that was sent to it.
pub(crate) fn check_delivered<M: Machine>(event_loop: &Loop<M>) -> Result<(), Failure> {
    if event_loop.is_drained() && event_loop.undelivered() == 0 {
        return Ok(());
    }
    Err(Failure::Failed("the end of the stream was sent, and was not acknowledged in time".to_owned()))
}

/// A call of the system's that failed.
pub(crate) fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot {what}: {}", reason(error)))
}

/// From now on a file that reaches the limit of its size (RLIMIT_FSIZE) is an error of the call that writes to it, and
/// does not end the program.
///
/// # Errors
/// Those of sigaction(2).
pub fn survive_file_size_limit() -> Result<(), Failure> {
    let reached = Arc::new(AtomicBool::new(false));
    match signal_hook::flag::register(SIGXFSZ, reached) {
        Ok(_) => Ok(()),
        Err(error) => Err(cannot("take signals", &error)),
    }
}

/// Gives up what no command ever needs, before any of them reads a secret: core dumps, debuggers of the same user, and
/// programs with more rights than this one.
///
/// # Errors
/// The system refused some of it; the rest is done.
pub fn give_up_privileges() -> Result<(), Failure> {
    linux::give_up_privileges().map_err(|error| cannot("give up privileges", &error))
}

/// Says what to do instead of running as root, once everything else is in order.
pub fn warn_of_root() {
    if linux::is_root() {
        log::warn!(
            "event=root reason=\"nothing here needs root\" hint=\"give it a user of its own, as the units in server/dist do; \
             ports under 1024: a socket unit, or CAP_NET_BIND_SERVICE alone\""
        );
    }
}

/// Runs until the program is done, or until a signal ended it: in order within `patience`, then at once.
///
/// # Errors
/// The system's polling call failed.
pub fn run<P: Program>(
    program: &mut P,
    event_loop: &mut Loop<P::Machine>,
    drain_max: Span,
) -> Result<(), Failure> {
    let start = event_loop.now().mono;
    let mut program_run = ProgramRun {
        ticked: start,
        drained: None,
        reloading: false,
        drain_max,
        manager: manager::<P>(start),
    };
    program_run.manager.ready(start);
    while program_run.turn(program, event_loop)? {}
    logging::catch_up();
    if program_run.drained.is_some() {
        let stats = event_loop.stats();
        let (relayed, copied, turns) = (stats.relayed, stats.copied, stats.turns);
        log::log!(program.default_level(), "event=stopped relayed={relayed} copied={copied} turns={turns}");
    }
    Ok(())
}

/// How far a program has come.
struct ProgramRun {
    ticked: Time,
    /// Until when connections may end; `None` until it is told to stop.
    drained: Option<Time>,
    /// The service manager knows that the program reloads.
    reloading: bool,
    drain_max: Span,
    manager: Manager,
}

impl ProgramRun {
    /// One turn of the event loop, and what follows from it; whether there is another.
    fn turn<P: Program>(
        &mut self,
        program: &mut P,
        event_loop: &mut Loop<P::Machine>,
    ) -> Result<bool, Failure> {
        let until = self.wake::<P>();
        let at_most = until.map(|until| until.since(event_loop.now().mono));
        event_loop.turn(at_most).map_err(|error| cannot("wait for events", &error))?;
        let now = event_loop.now().mono;
        while let Some(signal) = event_loop.net().signal() {
            self.handle_signal(signal, program, event_loop);
        }
        if let Some(every) = P::TICK
            && self.ticked + every <= now
        {
            self.ticked = now;
            program.tick(event_loop);
            logging::catch_up();
        }
        for event in event_loop.take_events() {
            program.event(&event);
            self.manager.touch();
        }
        program.after_turn(event_loop);
        if self.reloading && !program.is_reloading() {
            self.reloading = false;
            self.manager.ready(now);
        }
        self.manager.update(now, || program.status(event_loop));
        let is_late = self.drained.is_some_and(|until| until <= now);
        if program.is_done(event_loop.machine(), self.drained.is_some()) {
            return Ok(!event_loop.is_drained() && !is_late);
        }
        if is_late {
            log::warn!("event=stopping reason=\"connections did not end in time, and are reset\"");
            event_loop.abort_all();
            return Ok(false);
        }
        Ok(true)
    }

    /// When the next turn is wanted at the latest.
    fn wake<P: Program>(&self) -> Option<Time> {
        let tick = P::TICK.map(|every| self.ticked + every);
        [tick, self.drained, self.manager.due()].into_iter().flatten().min()
    }

    fn handle_signal<P: Program>(&mut self, signal: i32, program: &mut P, event_loop: &mut Loop<P::Machine>) {
        let now = event_loop.now().mono;
        if signal == SIGHUP && !P::HANGUP_ENDS {
            self.manager.reloading(now);
            self.reloading = true;
            program.reload(event_loop);
        } else if self.drained.is_some() {
            self.drained = Some(now);
        } else {
            self.manager.stopping(now);
            event_loop.stop_accepting();
            program.stopping();
            // A reader of the log may rely on it: the listeners are closed by now.
            let within = self.drain_max.as_secs_up();
            log::log!(program.default_level(), "event=stopping connections-may-end-within={within}s");
            event_loop.call(P::drain);
            self.drained = Some(now + self.drain_max);
        }
    }
}

/// The service manager that started us; one that cannot be reached is done without.
fn manager<P: Program>(now: Time) -> Manager {
    if !P::MANAGED {
        return Manager::default();
    }
    Manager::from_environment(now).unwrap_or_else(|error| {
        log::warn!("event=no-service-manager reason={}", Escaped(&reason(&error)));
        Manager::default()
    })
}
