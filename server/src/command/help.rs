//! `rendezvous help`: the list of commands, or the manual page of one.

use super::definition::Command;
#[cfg(feature = "manual")]
use super::manual::{pages, text};
#[cfg(feature = "manual")]
use crate::console::print;
use crate::console::print_help;
use crate::failure::Failure;
use crate::options::{Spec, did_you_mean, parse};

pub(super) const SPEC: Spec = Spec {
    command: "help",
    operands: &["[COMMAND]", "[SUBCOMMAND]"],
    summary: "Shows the manual page of a command, or the list of commands.",
    options: &[],
    footer: "Other pages: conf, ticket, ids, and concepts (security, files, signals, environment).",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure::Help`] with the list; [`Failure::Usage`] for an unknown command.
pub fn run(all: &[Command], args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let Some(topic) = matches.operands().first() else { return Err(Failure::Help(overview(all))) };
    #[cfg(feature = "manual")]
    if let Some(page) = pages::find(all, topic) {
        return print(&text::render(&page));
    }
    if let Some(command) = all.iter().find(|command| command.name == topic) {
        // A build without the manual.
        let rest = matches.operands()[1..].iter().cloned().chain(["--help".to_owned()]);
        return match command.run(all, &rest.collect::<Vec<_>>()) {
            Err(Failure::Help(text)) => print_help(&text),
            other => other,
        };
    }
    let known = all.iter().map(|command| command.name);
    #[cfg(feature = "manual")]
    let known = known.chain(pages::topics());
    let meant = did_you_mean(topic, known).map(|meant| format!("did you mean '{meant}'?"));
    let meant = meant.unwrap_or_else(|| "rendezvous help lists the commands".to_owned());
    Err(Failure::Usage(format!("no page is about '{topic}': {meant}")))
}

/// The list of commands: `rendezvous --help`.
pub fn overview(all: &[Command]) -> String {
    let mut text = String::from(
        "Usage: rendezvous COMMAND [OPTIONS]\n\n\
         Reaches a server behind NAT from anywhere, through a relay of your own.\n\nCommands:\n",
    );
    for command in all {
        text.push_str(&format!("    {:<14} {}\n", command.name, command.summary));
    }
    text.push_str(
        "\nMore:\n    \
         rendezvous COMMAND --help  lists its options\n    \
         rendezvous help COMMAND    shows its manual page\n    \
         rendezvous --version       with --verbose also how the program was built\n",
    );
    text
}
