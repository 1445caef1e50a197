//! The frame of every long-running command around its event loop: signals, events, the service manager and graceful
//! shutdown.

use log::Level;
use rendezvous_core::event::Event;
use rendezvous_core::machine::Machine;
use rendezvous_core::time::{Now, Span, Time};

use crate::event_loop::EventLoop;
use crate::failure::{Failure, reason};
use crate::linux;
use crate::linux::signals::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use crate::logging::{self, Escaped};
use crate::net::mio::MioNet;
use crate::notify::Manager;

/// The event loop of a daemon.
pub type Loop<M> = EventLoop<MioNet, M>;

/// A command that runs an event loop.
pub trait Program {
    /// The command's state machine.
    type Machine: Machine;

    /// Interval of [`Program::tick`]; `None` if it is never called.
    const TICK: Option<Span>;

    /// Whether SIGHUP shuts the program down like SIGTERM. Otherwise it calls [`Program::reload`].
    const HANGUP_ENDS: bool = false;

    /// Whether SIGUSR2 calls [`Program::upgrade`]. Otherwise it is ignored, as SIGUSR1 always is: a signal that is meant
    /// for another process of the same name must not end this one.
    const UPGRADES: bool = false;

    /// Whether the program reports its state to a service manager.
    const MANAGED: bool = false;

    /// Handles an event of the machine.
    fn event(&mut self, event: &Event);

    /// The log level of ordinary events.
    fn default_level(&self) -> Level {
        Level::Info
    }

    /// Handles SIGHUP. Slow work runs on another thread; [`Program::is_reloading`] returns true until it is done.
    fn reload(&mut self, _: &mut Loop<Self::Machine>) {}

    /// Whether a reload is in progress.
    fn is_reloading(&self) -> bool {
        false
    }

    /// Called after each turn of the event loop.
    fn after_turn(&mut self, _: &mut Loop<Self::Machine>) {}

    /// When the program needs a turn for its own work, at the latest.
    fn due(&self, _: Time) -> Option<Time> {
        None
    }

    /// Called at the interval [`Program::TICK`].
    fn tick(&mut self, _: &mut Loop<Self::Machine>) {}

    /// Handles SIGUSR2 if [`Program::UPGRADES`]: starts a new process that takes over.
    /// [`Program::is_reloading`] returns true until that is done.
    fn upgrade(&mut self, _: &mut Loop<Self::Machine>) {}

    /// The process that has taken over from this one, and for how long connections may continue.
    fn successor(&self) -> Option<Successor> {
        None
    }

    /// The status line for the service manager.
    fn status(&self, _: &Loop<Self::Machine>) -> Option<String> {
        None
    }

    /// Called at the first SIGINT or SIGTERM, after the listeners are closed.
    fn stopping(&mut self) {}

    /// Called at the first SIGINT or SIGTERM, after [`Program::stopping`]: starts nothing new and ends idle
    /// connections.
    fn drain(machine: &mut Self::Machine, now: Now);

    /// Whether nothing is left to do. `draining` is true after [`Program::drain`].
    fn is_done(&self, machine: &Self::Machine, draining: bool) -> bool;
}

/// A process that has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its ID.
    pub pid: u32,
    /// How long connections may continue; `None`: until they end.
    pub drain_max: Option<Span>,
}

/// Makes the network of a daemon, which handles SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 from now on.
///
/// # Errors
/// Polling or the signal handlers cannot be set up.
pub fn world() -> Result<MioNet, Failure> {
    let mut net = MioNet::new().map_err(|error| cannot("set up polling", &error))?;
    net.take_signals(&[SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2])
        .map_err(|error| cannot("take signals", &error))?;
    Ok(net)
}

/// Checks that the peers acknowledged all data before a program reports success.
///
/// # Errors
/// A peer did not acknowledge everything that was sent to it.
pub(crate) fn check_delivered<M: Machine>(event_loop: &Loop<M>) -> Result<(), Failure> {
    if event_loop.is_drained() && event_loop.undelivered() == 0 {
        return Ok(());
    }
    Err(Failure::Failed("the end of the stream was not acknowledged in time".to_owned()))
}

/// Makes the failure of a system call: `cannot WHAT: reason`.
pub(crate) fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot {what}: {}", reason(error)))
}

/// Ignores SIGXFSZ, so that a write beyond the file size limit (RLIMIT_FSIZE) fails instead of ending the program.
///
/// # Errors
/// Those of sigaction(2).
pub fn survive_file_size_limit() -> Result<(), Failure> {
    linux::survive_file_size_limit().map_err(|error| cannot("take signals", &error))
}

/// Drops privileges that no command needs, before any secret is read: core dumps, debuggers of the same user, and
/// gaining rights through child programs.
///
/// # Errors
/// The first system call that failed; the others were made.
pub fn give_up_privileges() -> Result<(), Failure> {
    linux::give_up_privileges().map_err(|error| cannot("give up privileges", &error))
}

/// Logs a warning if the program runs as root.
pub fn warn_of_root() {
    if linux::is_root() {
        log::warn!(
            "event=root reason=\"nothing here needs root\" hint=\"run it as a user of its own, as the systemd units do; a port \
             under 1024 needs a socket unit or CAP_NET_BIND_SERVICE\""
        );
    }
}

/// Runs until the program is done or a signal ends it. After a signal, connections may end within `timeout`; then they
/// are reset.
///
/// # Errors
/// The polling call failed.
pub fn run<P: Program>(
    program: &mut P,
    event_loop: &mut Loop<P::Machine>,
    drain_max: Span,
) -> Result<(), Failure> {
    let start = event_loop.now().mono;
    let mut program_run = ProgramRun {
        ticked: start,
        phase: Phase::Running,
        reloading: false,
        drain_max,
        manager: manager::<P>(start),
    };
    program_run.manager.ready(start);
    while program_run.turn(program, event_loop)? {}
    logging::catch_up();
    if program_run.phase != Phase::Running {
        let stats = event_loop.stats();
        let (relayed, copied, turns) = (stats.relayed, stats.copied, stats.turns);
        log::log!(program.default_level(), "event=stopped relayed={relayed} copied={copied} turns={turns}");
    }
    Ok(())
}

/// Whether a program is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Another process has taken over. Connections may continue until this time, or without limit.
    Replaced {
        until: Option<Time>,
    },
    /// A signal ended it. Connections may continue until this time.
    Draining {
        until: Time,
    },
}

impl Phase {
    /// When the remaining connections are reset.
    const fn until(self) -> Option<Time> {
        match self {
            Self::Running => None,
            Self::Replaced { until } => until,
            Self::Draining { until } => Some(until),
        }
    }
}

/// State of a running program.
struct ProgramRun {
    ticked: Time,
    phase: Phase,
    /// Whether a reload was reported to the service manager.
    reloading: bool,
    drain_max: Span,
    manager: Manager,
}

impl ProgramRun {
    /// Runs one turn of the event loop and handles its results. Returns whether to continue.
    fn turn<P: Program>(
        &mut self,
        program: &mut P,
        event_loop: &mut Loop<P::Machine>,
    ) -> Result<bool, Failure> {
        let now = event_loop.now().mono;
        let until = self.wake::<P>().into_iter().chain(program.due(now)).min();
        let at_most = until.map(|until| until.since(now));
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
        if self.phase == Phase::Running
            && let Some(successor) = program.successor()
        {
            self.manager.hand_over(successor.pid, now);
            self.phase = Phase::Replaced { until: successor.drain_max.map(|max| now + max) };
        }
        if self.reloading && !program.is_reloading() {
            self.reloading = false;
            self.manager.ready(now);
        }
        self.manager.update(now, || program.status(event_loop));
        let is_late = self.phase.until().is_some_and(|until| until <= now);
        if program.is_done(event_loop.machine(), self.phase != Phase::Running) {
            return Ok(!event_loop.is_drained() && !is_late);
        }
        if is_late {
            log::warn!("event=stopping reason=\"connections did not end in time and are reset\"");
            event_loop.abort_all();
            return Ok(false);
        }
        Ok(true)
    }

    /// When the next turn is needed at the latest.
    fn wake<P: Program>(&self) -> Option<Time> {
        let tick = P::TICK.map(|every| self.ticked + every);
        [tick, self.phase.until(), self.manager.due()].into_iter().flatten().min()
    }

    fn handle_signal<P: Program>(&mut self, signal: i32, program: &mut P, event_loop: &mut Loop<P::Machine>) {
        let now = event_loop.now().mono;
        if signal == SIGHUP && !P::HANGUP_ENDS {
            self.manager.reloading(now);
            self.reloading = true;
            program.reload(event_loop);
        } else if signal == SIGUSR2 && P::UPGRADES {
            self.manager.reloading(now);
            self.reloading = true;
            program.upgrade(event_loop);
        } else if signal == SIGUSR1 || signal == SIGUSR2 {
            log::log!(program.default_level(), "event=signal-ignored number={signal}");
        } else if let Phase::Draining { .. } = self.phase {
            self.phase = Phase::Draining { until: now };
        } else {
            self.manager.stopping(now);
            event_loop.stop_accepting();
            event_loop.net().close_status();
            program.stopping();
            // Log readers may rely on this line: the listeners are closed by now.
            let within = self.drain_max.as_secs_up();
            let hint = "a second signal ends the remaining connections at once";
            log::log!(program.default_level(), "event=stopping timeout={within}s hint=\"{hint}\"");
            event_loop.call(P::drain);
            self.phase = Phase::Draining { until: now + self.drain_max };
        }
    }
}

/// Connects to the service manager that started this process. Returns an inactive one if that fails.
fn manager<P: Program>(now: Time) -> Manager {
    if !P::MANAGED {
        return Manager::default();
    }
    Manager::from_environment(now).unwrap_or_else(|error| {
        log::warn!("event=no-service-manager reason={}", Escaped(&reason(&error)));
        Manager::default()
    })
}
