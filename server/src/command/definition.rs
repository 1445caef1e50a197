//! The definition of a command: what `--help`, the manual pages and the completions are made of.

use crate::failure::Failure;
use crate::options::Spec;

/// A command of the program.
pub struct Command {
    /// Its word after `rendezvous`.
    pub name: &'static str,
    /// Its summary for `rendezvous --help`, without a full stop.
    pub summary: &'static str,
    /// The arguments of the command, or of each of its subcommands (`id add`, `id list`).
    pub specs: fn() -> Vec<&'static Spec>,
    /// What runs it.
    pub run: Run,
}

/// The function that runs a command, with the arguments after its name.
#[derive(Clone, Copy)]
pub enum Run {
    /// A command that needs nothing else.
    Alone(fn(&[String]) -> Result<(), Failure>),
    /// A command that describes the other commands.
    OfAll(fn(&[Command], &[String]) -> Result<(), Failure>),
}

impl Command {
    /// Whether it has subcommands.
    pub fn has_subcommands(&self) -> bool {
        (self.specs)().iter().any(|spec| spec.command != self.name)
    }

    /// Runs it with the arguments after its name. `all` are the commands of the program.
    ///
    /// # Errors
    ///
    /// [`Failure`] for invalid arguments, or if the command failed.
    pub fn run(&self, all: &[Command], args: &[String]) -> Result<(), Failure> {
        match self.run {
            Run::Alone(run) => run(args),
            Run::OfAll(run) => run(all, args),
        }
    }
}
