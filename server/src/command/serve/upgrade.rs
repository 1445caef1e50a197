//! SIGUSR2: this process starts a new one that takes over, with the same arguments and `--take-over`.

use std::env;
use std::ffi::OsString;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use mio::Waker;

use super::settings::TAKE_OVER;
use crate::failure::reason;

/// The variables of the service manager that the new process needs, and that this one has removed from its environment.
static MANAGER: Mutex<Vec<(&str, OsString)>> = Mutex::new(Vec::new());

/// Remembers how the service manager is reached. Call it before the variables are removed.
pub(super) fn remember_manager() {
    let variables = ["NOTIFY_SOCKET", "WATCHDOG_USEC"].into_iter();
    let found = variables.filter_map(|name| Some((name, env::var_os(name)?)));
    *MANAGER.lock().unwrap_or_else(PoisonError::into_inner) = found.collect();
}

/// A process that was started.
pub(super) struct Upgrade {
    /// Has the reason once it has ended.
    ended: Receiver<String>,
}

impl Upgrade {
    /// Starts it on a thread, which waits for its end.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn start(waker: Arc<Waker>) -> Result<Self, String> {
        if std::process::id() == 1 {
            return Err(
                "this is process 1, whose end would end its successor: start another container".to_owned()
            );
        }
        let mut arguments = env::args_os();
        let program = arguments.next().ok_or("the name of the program is unknown")?;
        let mut arguments: Vec<OsString> = arguments.collect();
        let option = format!("--{}", TAKE_OVER.long);
        if !arguments.iter().any(|argument| *argument == *option) {
            arguments.push(option.into());
        }
        let mut command = Command::new(program);
        // Neither LISTEN_FDS, because it gets the sockets from this process, nor WATCHDOG_PID, which is not known yet.
        let manager = MANAGER.lock().unwrap_or_else(PoisonError::into_inner).clone();
        command.args(arguments).envs(manager).env_remove("WATCHDOG_PID");
        let (ended, is_ended) = channel();
        let run = move || {
            let why = match command.status() {
                Ok(status) => format!("the new process has ended: {status}"),
                Err(error) => format!("cannot start {}: {}", command.get_program().display(), reason(&error)),
            };
            let _ = ended.send(why);
            let _ = waker.wake();
        };
        match thread::Builder::new().name("take-over".to_owned()).spawn(run) {
            Ok(_) => Ok(Self { ended: is_ended }),
            Err(error) => Err(format!("cannot start a thread: {}", reason(&error))),
        }
    }

    /// Why it has ended, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        self.ended.try_recv().ok()
    }
}
