//! The table of commands, from which help, manual pages and completions are made.

mod common;

use std::collections::BTreeSet;

use common::Folder;
use common::cli::run;
use rendezvous::command::table::COMMANDS;
use rendezvous::failure::Failure;

#[test]
fn a_command_with_subcommands_lists_each_of_them_in_its_help() {
    let mut seen = 0;
    for command in COMMANDS.iter().filter(|command| command.has_subcommands()) {
        let Err(Failure::Help(help)) = command.run(COMMANDS, &["--help".to_owned()]) else {
            panic!("{} --help is help", command.name)
        };
        let start = format!("    {} ", command.name);
        let listed = help.lines().filter_map(|line| line.strip_prefix(&start)?.split(' ').next());
        let listed: BTreeSet<&str> = listed.collect();
        let specs = (command.specs)();
        let known: BTreeSet<&str> =
            specs.iter().filter_map(|spec| spec.command.split_once(' ')).map(|(_, name)| name).collect();
        assert_eq!(listed, known, "{help}");
        seen += known.len();
    }
    assert!(seen >= 7, "{seen}");
}

#[test]
fn a_relay_with_a_timeout_that_no_client_can_meet_does_not_start() {
    let folder = Folder::new();
    for option in ["--head-timeout", "--handshake-timeout", "--half-closed-timeout"] {
        let done = run(&folder, &["serve", "--listen", "127.0.0.1:0", option, "0"]);
        let expected = format!("rendezvous: serve: {option}: '0' is less than 0.1s\n");
        assert_eq!((done.code, done.err), (2, expected));
    }
}

#[test]
fn help_has_the_width_of_a_terminal() {
    let folder = Folder::new();
    let all = COMMANDS.iter().flat_map(|command| (command.specs)().into_iter().map(|spec| spec.command));
    let groups = COMMANDS.iter().filter(|command| command.has_subcommands()).map(|command| command.name);
    for command in all.chain(groups).chain([""]) {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let output = run(&folder, &args);
        for line in output.out.lines() {
            assert!(line.chars().count() < 80, "{command}: {line}");
        }
    }
}

#[test]
fn the_names_in_the_table_are_those_of_its_specs() {
    for command in COMMANDS {
        for spec in (command.specs)() {
            let (first, rest) = spec.command.split_once(' ').unwrap_or((spec.command, ""));
            assert_eq!(first, command.name);
            assert_eq!(!rest.is_empty(), command.has_subcommands(), "{}", spec.command);
        }
        assert!(!command.summary.ends_with('.'), "{}", command.name);
    }
}

#[test]
fn the_verbose_version_has_commit_features_cryptography_and_target() {
    let folder = Folder::new();
    let brief = run(&folder, &["--version"]).out;
    assert_eq!(brief, concat!("rendezvous ", env!("CARGO_PKG_VERSION"), "\n"));
    for args in [["--version", "--verbose"], ["-V", "-v"]] {
        let done = run(&folder, &args);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let mut lines = done.out.lines();
        assert_eq!(lines.next(), Some(brief.trim()));
        let values: Vec<_> = lines.map(|line| line.split_once(": ").expect("a name and a value")).collect();
        let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["commit", "features", "cryptography", "target"]);
        assert!(values.iter().all(|(_, value)| !value.is_empty()), "{values:?}");
        let features: Vec<_> = values[1].1.split(", ").collect();
        assert_eq!(features.contains(&"xmpp"), cfg!(feature = "xmpp"), "{features:?}");
        assert_eq!(features.contains(&"acme"), cfg!(feature = "acme"), "{features:?}");
        assert!(!features.contains(&"default"), "{features:?}");
        assert!(values[3].1.contains("-"), "{values:?}");
    }
    let wrong = run(&folder, &["--version", "--verbos"]);
    assert_eq!(wrong.code, 2);
    assert_eq!(
        wrong.err.trim(),
        "rendezvous: unexpected argument '--verbos': --version takes only --verbose"
    );
}

/// All commands are compiled.
#[cfg(all(feature = "acme", feature = "manual", feature = "replay", feature = "units", feature = "xmpp"))]
mod of_all_features {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The values of `command:` in the sources, which are those of the option tables.
    fn tables_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                tables_in(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("\n    command: \"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_option_table_of_the_sources_belongs_to_a_command() {
        let mut sources = BTreeSet::new();
        tables_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/command"), &mut sources);
        let specs = COMMANDS.iter().flat_map(|command| (command.specs)());
        let table: BTreeSet<String> = specs.map(|spec| spec.command.to_owned()).collect();
        assert!(table.len() > 15, "{table:?}");
        assert_eq!(sources, table, "a Spec is missing in server/src/command/table.rs");
    }
}
