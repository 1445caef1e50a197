//! The `rendezvous` binary: finds the command and runs it.

use std::process::ExitCode;

use rendezvous::command;
use rendezvous::console::{print, print_error, report_panics};
use rendezvous::daemon::{give_up_privileges, survive_file_size_limit};
use rendezvous::failure::Failure;
use rendezvous::logging;
use rendezvous::options::did_you_mean;

/// A command: its name, its summary for `--help`, and the function that runs it with the remaining arguments.
struct Command {
    name: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        summary: "a quick start: relay, hidden page and agent in one process",
        run: command::demo::run,
    },
    Command { name: "serve", summary: "run the relay", run: command::serve::run },
    Command { name: "id", summary: "enrol hidden servers and write their tickets", run: command::id::run },
    Command { name: "agent", summary: "connect a hidden server to its relay", run: command::agent::run },
    Command {
        name: "connect",
        summary: "connect a client that does not speak HTTP",
        run: command::connect::run,
    },
    Command {
        name: "key",
        summary: "make a key for 'connect --key', or print the pin of a key or certificate",
        run: command::key::run,
    },
    Command {
        name: "password",
        summary: "set a password for 'agent --password-file'",
        run: command::password::run,
    },
    #[cfg(feature = "xmpp")]
    Command { name: "dtcp", summary: "open a direct connection to an XMPP peer", run: command::dtcp::run },
    #[cfg(feature = "xmpp")]
    Command { name: "proxy", summary: "run a stream proxy for an XMPP server", run: command::proxy::run },
    #[cfg(feature = "xmpp")]
    Command {
        name: "stream",
        summary: "open or accept a stream between two XMPP entities",
        run: command::stream::run,
    },
    Command { name: "status", summary: "show the state of a running relay", run: command::status::run },
    Command {
        name: "check",
        summary: "diagnose the connection of a hidden server",
        run: command::check::run,
    },
    #[cfg(feature = "replay")]
    Command {
        name: "replay",
        summary: "replay a trace of 'serve --trace' or 'agent --trace'",
        run: command::replay::run,
    },
    Command { name: "token", summary: "print a token", run: command::token::run },
];

fn main() -> ExitCode {
    report_panics();
    let mut of = None;
    let code = match run(&mut of) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Help(text)) => match print(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(failure) => {
            print_error(of, &failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    };
    logging::flush();
    code
}

/// Runs the command in the arguments, and sets `of` to its name once it is known.
fn run(of: &mut Option<&'static str>) -> Result<(), Failure> {
    let mut args = Vec::new();
    for (place, arg) in std::env::args_os().enumerate().skip(1) {
        args.push(arg.into_string().map_err(|arg| {
            Failure::Usage(format!("argument {place} is not UTF-8: '{}'", arg.to_string_lossy()))
        })?);
    }
    let Some((name, rest)) = args.split_first() else { return Err(Failure::Help(help())) };
    match name.as_str() {
        "-h" | "--help" | "help" => return Err(Failure::Help(help())),
        "-V" | "--version" => return print(concat!("rendezvous ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => {}
    }
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => {
            *of = Some(command.name);
            for done in [give_up_privileges(), survive_file_size_limit()] {
                if let Err(failure) = done {
                    print_error(*of, &format!("warning: {failure}"));
                }
            }
            (command.run)(rest)
        }
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Failure {
    let what = if name.starts_with('-') { "option" } else { "command" };
    let known = COMMANDS.iter().map(|command| command.name).chain(["--help", "--version"]);
    let meant = did_you_mean(name, known).map(|meant| format!("did you mean '{meant}'?"));
    let meant = meant.unwrap_or_else(|| "rendezvous --help lists the commands".to_owned());
    Failure::Usage(format!("unknown {what} '{name}': {meant}"))
}

fn help() -> String {
    let mut text = String::from(
        "Usage: rendezvous COMMAND [OPTIONS]\n\n\
         A relay that lets anyone reach a server hidden behind NAT, with nothing but HTTPS.\n\nCommands:\n",
    );
    for command in COMMANDS {
        text.push_str(&format!("    {:<10} {}\n", command.name, command.summary));
    }
    text.push_str(
        "\n'rendezvous COMMAND --help' lists the options; 'rendezvous --version' prints the version.\n",
    );
    text
}
