//! What every command that holds connections does beside its event loop: signals, notes, the orderly end.

use log::Level;
use rendezvous_core::machine::Machine;
use rendezvous_core::note::Note;
use rendezvous_core::time::{Now, Span, Time};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::event_loop::EventLoop;
use crate::failure::{Failure, reason};
use crate::net::mio::MioNet;

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

    /// Something happened.
    fn note(&mut self, note: &Note);

    /// The level of what it does in the ordinary way.
    fn ordinary(&self) -> Level {
        Level::Info
    }

    /// SIGHUP.
    fn reload(&mut self, _: &mut Loop<Self::Machine>) {}

    /// A turn of the event loop is over.
    fn turned(&mut self, _: &mut Loop<Self::Machine>) {}

    /// The time between two ticks has passed.
    fn tick(&mut self, _: &mut Loop<Self::Machine>) {}

    /// The first SIGINT or SIGTERM: begin nothing new, end what only waits.
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

/// A call of the system's that failed.
pub(crate) fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot {what}: {}", reason(error)))
}

/// Runs until the program is done, or until a signal ended it: in order within `patience`, then at once.
///
/// # Errors
/// The system's polling call failed.
pub fn run<P: Program>(
    program: &mut P,
    event_loop: &mut Loop<P::Machine>,
    patience: Span,
) -> Result<(), Failure> {
    let mut ticked = event_loop.now().mono;
    let mut drained: Option<Time> = None;
    loop {
        let now = event_loop.now().mono;
        let tick = P::TICK.map(|every| (ticked + every).since(now));
        let drain = drained.map(|until| until.since(now));
        let at_most = [tick, drain].into_iter().flatten().min();
        event_loop.turn(at_most).map_err(|error| cannot("wait for events", &error))?;
        let now = event_loop.now().mono;
        while let Some(signal) = event_loop.net().signal() {
            match signal {
                SIGHUP if !P::HANGUP_ENDS => program.reload(event_loop),
                _ if drained.is_some() => drained = Some(now),
                _ => {
                    log::log!(
                        program.ordinary(),
                        "event=stopping connections-may-end-within={}s",
                        patience.as_secs_up()
                    );
                    event_loop.stop_accepting();
                    event_loop.tell(P::drain);
                    drained = Some(now + patience);
                }
            }
        }
        if let Some(every) = P::TICK
            && ticked + every <= now
        {
            ticked = now;
            program.tick(event_loop);
        }
        program.turned(event_loop);
        for note in event_loop.take_notes() {
            program.note(&note);
        }
        if program.is_done(event_loop.machine(), drained.is_some()) {
            break;
        }
        if drained.is_some_and(|until| until <= now) {
            log::warn!("event=stopping why=\"connections did not end in time, and are reset\"");
            event_loop.abort_all();
            break;
        }
    }
    if drained.is_some() {
        let stats = event_loop.stats();
        let (relayed, copied, turns) = (stats.relayed, stats.copied, stats.turns);
        log::log!(program.ordinary(), "event=stopped relayed={relayed} copied={copied} turns={turns}");
    }
    Ok(())
}
