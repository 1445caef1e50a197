//! The manual pages and the completions, by the programs that read them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use rendezvous::command::table::COMMANDS;
use rendezvous::options::Spec;

use crate::harness::{Case, case};
use crate::peers::{Peer, profile};
use crate::program::run;
use crate::world::{World, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("mandoc_finds_nothing_in_the_pages", &[Peer::Mandoc], mandoc_finds_nothing_in_the_pages),
    case("bash_completes_every_option", &[Peer::Bash], bash_completes_every_option),
    case("bash_completes_values", &[Peer::Bash], bash_completes_values),
    case("zsh_gets_every_option", &[Peer::Zsh], zsh_gets_every_option),
    case("fish_completes_options_and_values", &[Peer::Fish], fish_completes_options_and_values),
];

fn mandoc_finds_nothing_in_the_pages() {
    let world = World::new();
    let folder = world.folder.0.join("pages");
    assert!(run(rendezvous().arg("manual").arg(&folder)).status.success());
    let mut pages: Vec<_> =
        folder.read_dir().expect("a folder").map(|entry| entry.expect("a page").file_name()).collect();
    pages.sort();
    assert!(pages.len() > COMMANDS.len(), "{pages:?}");
    // In their folder, because references to other pages are looked up there.
    let output = run(Peer::Mandoc.command().args(["-T", "lint"]).args(&pages).current_dir(&folder));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

fn specs() -> Vec<&'static Spec> {
    COMMANDS.iter().flat_map(|command| (command.specs)()).collect()
}

/// The options of a command with their dashes.
fn options(spec: &Spec) -> BTreeSet<String> {
    spec.options.iter().map(|option| option.long).chain(["help"]).map(|long| format!("--{long}")).collect()
}

/// Writes the completions of a shell, and returns the file.
fn completions(world: &World, shell: &str) -> String {
    let output = run(rendezvous().args(["completions", shell]));
    assert!(output.status.success());
    world.folder.write(shell, &String::from_utf8_lossy(&output.stdout)).display().to_string()
}

/// Runs a script in a shell with our binary on its path, and returns the lines of its output.
fn lines(world: &World, shell: &mut Command, script: &str) -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([profile()].into_iter().chain(std::env::split_paths(&path)));
    shell.args(["-c", script]).env("PATH", path.expect("no colon in a path")).current_dir(&world.folder.0);
    shell.env("STATE_DIRECTORY", world.state()).env("HOME", &world.folder.0);
    let output = run(shell);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{script}\n{errors}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// A script that completes each of these command lines, whose last word is the one under the cursor, and prints a line
/// for each.
fn in_bash(world: &World, command_lines: &[String]) -> Vec<BTreeSet<String>> {
    let mut script = format!("source '{}'\n", completions(world, "bash"));
    for line in command_lines {
        let _ = writeln!(
            script,
            "COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _rendezvous; \
             (IFS=$'\\t'; echo \"${{COMPREPLY[*]}}\")"
        );
    }
    let answers = lines(world, &mut Peer::Bash.command(), &script);
    assert_eq!(answers.len(), command_lines.len());
    let words = |line: &String| line.split('\t').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    answers.iter().map(words).collect()
}

fn bash_completes_every_option() {
    let world = World::new();
    let specs = specs();
    let command_lines: Vec<_> = specs.iter().map(|spec| format!("rendezvous {} --", spec.command)).collect();
    for (spec, offered) in specs.iter().zip(in_bash(&world, &command_lines)) {
        let missing: Vec<_> = options(spec).difference(&offered).cloned().collect();
        assert!(missing.is_empty(), "{}: {missing:?} are missing", spec.command);
    }
}

fn bash_completes_values() {
    let world = World::new();
    world.enrol("home", &[]);
    world.folder.write("a file", "");
    // Nothing in a name, a file or a word is expanded.
    world.folder.write("$(touch expanded)", "");
    let other = world.folder.0.join("other state").display().to_string();
    let mut add = rendezvous();
    assert!(run(add.args(["id", "add", "elsewhere", "--state", &other])).status.success());
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let expected = [
        ("serv", of(&["serve"])),
        ("id r", of(&["rotate", "remove"])),
        ("id show ''", of(&["home"])),
        ("id show home ''", of(&[])),
        ("id show --state 'other state' ''", of(&["elsewhere"])),
        ("id show --state = 'other state' ''", of(&["elsewhere"])),
        ("id add ''", of(&[])),
        ("serve --log d", of(&["debug"])),
        // bash splits `--log=in` at the equals sign.
        ("serve --log = in", of(&["info"])),
        ("connect --direct r", of(&["require"])),
        ("agent --ticket 'a'", of(&["a file"])),
        ("agent --ticket '$'", of(&["$(touch expanded)"])),
        ("agent --state oth", of(&["other state"])),
        ("id add x --ca s", of(&["system", "state"])),
        ("completions ''", of(&["bash", "zsh", "fish"])),
        ("serve --domain ''", of(&[])),
    ];
    let command_lines: Vec<_> = expected.iter().map(|(line, _)| format!("rendezvous {line}")).collect();
    for ((line, expected), offered) in expected.iter().zip(in_bash(&world, &command_lines)) {
        let offered: BTreeSet<_> =
            offered.into_iter().filter(|it| it != "state" || expected.contains(it)).collect();
        let expected: BTreeSet<_> =
            expected.iter().filter(|it| *it != "state" || offered.contains(*it)).cloned().collect();
        assert_eq!(offered, expected, "{line}");
    }
    assert!(!Path::new(&world.folder.0.join("expanded")).exists());
}

/// `_arguments` needs a terminal, so this one prints what it gets.
fn zsh_gets_every_option() {
    let world = World::new();
    // The real `_arguments` of the upper levels sets `state`, and `line` to the words from there.
    let mut script = format!(
        "compdef() {{ }}\n_describe() {{ }}\n_arguments() {{\n    if [[ $* == *'->'* ]]; then\n        \
         state=arguments line=($left); shift left\n    else\n        print -rl -- \"$@\"; print END\n    fi\n}}\n\
         typeset -a left\nsource '{}'\n",
        completions(&world, "zsh")
    );
    for spec in specs() {
        let _ = writeln!(script, "left=({}); _rendezvous", spec.command);
    }
    let output = lines(&world, Peer::Zsh.command().arg("-f"), &script);
    let blocks: Vec<_> = output.split(|line| line == "END").collect();
    let specs = specs();
    assert_eq!(blocks.len(), specs.len() + 1, "{output:#?}");
    for (spec, block) in specs.iter().zip(blocks) {
        for option in options(spec) {
            let offered = |line: &&String| {
                let name = line.trim_start_matches('*');
                name.strip_prefix(&option).is_some_and(|rest| rest.starts_with(['=', '[']))
            };
            assert!(block.iter().any(|line| offered(&line)), "{}: {option}: {block:#?}", spec.command);
        }
    }
}

fn fish_completes_options_and_values() {
    let world = World::new();
    world.enrol("home", &[]);
    let mut expected: Vec<(String, BTreeSet<String>)> =
        specs().iter().map(|spec| (format!("{} --", spec.command), options(spec))).collect();
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    expected.extend([
        ("id show ".to_owned(), of(&["home"])),
        ("serve --log i".to_owned(), of(&["info"])),
        ("connect --direct r".to_owned(), of(&["require"])),
        ("id ro".to_owned(), of(&["rotate"])),
    ]);
    let mut script = format!("source '{}'\n", completions(&world, "fish"));
    for (line, _) in &expected {
        let _ = writeln!(script, "complete -C 'rendezvous {line}'; echo END");
    }
    let output = lines(&world, Peer::Fish.command().arg("--no-config"), &script);
    for ((line, expected), block) in expected.iter().zip(output.split(|line| line == "END")) {
        let offered: BTreeSet<_> =
            block.iter().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect();
        assert!(expected.is_subset(&offered), "{line}: {offered:?}, not {expected:?}");
    }
}
