//! The `rendezvous` binary: finds the command and runs it.

use std::process::ExitCode;

use rendezvous::build_info;
use rendezvous::command::help::overview;
use rendezvous::command::table::COMMANDS;
use rendezvous::console::{print, print_error, print_help, report_panics};
use rendezvous::daemon::{give_up_privileges, survive_file_size_limit};
use rendezvous::failure::Failure;
use rendezvous::logging;
use rendezvous::options::did_you_mean;

fn main() -> ExitCode {
    report_panics();
    let mut of = None;
    let code = match run(&mut of) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Help(text)) => match print_help(&text) {
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
    let Some((name, rest)) = args.split_first() else { return Err(Failure::Help(overview(COMMANDS))) };
    match name.as_str() {
        "-h" | "--help" => return Err(Failure::Help(overview(COMMANDS))),
        "-V" | "--version" => return version(rest),
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
            command.run(COMMANDS, rest)
        }
        None => Err(unknown(name)),
    }
}

/// Prints the version; with `--verbose`, also what this program was built from.
fn version(args: &[String]) -> Result<(), Failure> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => print(&format!("rendezvous {}\n", build_info::VERSION)),
        ["-v" | "--verbose"] => print(&build_info::text()),
        ref all => Err(Failure::Usage(format!(
            "unexpected argument '{}': --version takes only --verbose",
            all.last().copied().unwrap_or_default()
        ))),
    }
}

fn unknown(name: &str) -> Failure {
    let what = if name.starts_with('-') { "option" } else { "command" };
    let known = COMMANDS.iter().map(|command| command.name).chain(["--help", "--version"]);
    let meant = did_you_mean(name, known).map(|meant| format!("did you mean '{meant}'?"));
    let meant = meant.unwrap_or_else(|| "rendezvous --help lists the commands".to_owned());
    Failure::Usage(format!("unknown {what} '{name}': {meant}"))
}
