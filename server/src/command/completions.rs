//! `rendezvous completions`: prints the completions of a shell, made from the option tables.

mod bash;
mod fish;
mod zsh;

use super::definition::Command;
use crate::console::print;
use crate::failure::Failure;
use crate::options::{Kind, Opt, Spec, parse, value};

pub(super) const SPEC: Spec = Spec {
    command: "completions",
    operands: &["SHELL"],
    summary: "Prints a script that completes commands, options and values in a shell: bash, zsh or fish.",
    options: &[],
    footer: "\
    rendezvous completions bash > /usr/share/bash-completion/completions/rendezvous
    rendezvous completions zsh  > /usr/share/zsh/vendor-completions/_rendezvous
    rendezvous completions fish > ~/.config/fish/completions/rendezvous.fish",
};

const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure::Usage`] for an unknown shell.
pub fn run(all: &[Command], args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let shell = matches.operands().concat();
    let shell = value::one_of(SHELLS)(&shell).map_err(|why| Failure::Usage(format!("SHELL: {why}")))?;
    let render = [bash::render, zsh::render, fish::render][shell];
    print(&render(&describe(all)))
}

/// What a shell offers in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    /// Nothing: the value is free text.
    Free,
    /// These words.
    Words(Vec<String>),
    /// Files, and these words.
    Files(Vec<String>),
    Folders,
    /// The names of the enrolled hidden servers.
    Names,
}

/// A command line: a command, or one of its subcommands.
struct Line {
    /// Its words after `rendezvous`.
    words: Vec<&'static str>,
    /// What it does.
    summary: String,
    options: Vec<LineOption>,
    operands: Vec<(&'static str, Values)>,
}

struct LineOption {
    long: &'static str,
    short: Option<char>,
    help: String,
    repeats: bool,
    /// The kind of the value and what is offered for it; `None` for a flag.
    value: Option<(&'static str, Values)>,
}

/// All command lines, and the summaries of the commands.
struct Program {
    commands: Vec<(&'static str, &'static str)>,
    lines: Vec<Line>,
}

impl Program {
    /// The subcommands of a command, with their summaries.
    fn subcommands<'a>(&'a self, command: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
        let of = move |line: &&Line| line.words.len() == 2 && line.words[0] == command;
        self.lines.iter().filter(of).map(|line| (line.words[1], line.summary.as_str()))
    }
}

fn describe(all: &[Command]) -> Program {
    let commands: Vec<_> = all.iter().map(|command| (command.name, command.summary)).collect();
    let names: Vec<String> = all.iter().map(|command| command.name.to_owned()).collect();
    let lines = all.iter().flat_map(|command| (command.specs)()).map(|spec| line(spec, &names));
    Program { commands, lines: lines.collect() }
}

fn line(spec: &'static Spec, commands: &[String]) -> Line {
    let option = |opt: &'static Opt| LineOption {
        long: opt.long,
        short: opt.short,
        help: opt.help.to_owned(),
        repeats: opt.kind == Kind::Many,
        value: (opt.kind != Kind::Flag).then(|| (opt.hint, values(opt.hint))),
    };
    let mut options: Vec<_> = spec.options.iter().map(option).collect();
    options.push(LineOption {
        long: "help",
        short: Some('h'),
        help: "print a summary of the options".to_owned(),
        repeats: false,
        value: None,
    });
    let operand = |operand: &&'static str| {
        let name = operand.trim_matches(['[', ']']);
        let values = match name {
            // A new name is free text.
            "NAME" if spec.command != "id add" => Values::Names,
            "COMMAND" => Values::Words(commands.to_vec()),
            "SHELL" => Values::Words(SHELLS.iter().map(|shell| (*shell).to_owned()).collect()),
            other => values(other),
        };
        (name, values)
    };
    Line {
        words: spec.command.split(' ').collect(),
        summary: spec.summary.trim_end_matches('.').to_owned(),
        options,
        operands: spec.operands.iter().map(operand).collect(),
    }
}

/// What is offered for a value of this kind: `FILE`, `DIR`, `LEVEL`, or alternatives such as `FILE|system`.
fn values(hint: &str) -> Values {
    match hint {
        "DIR" => return Values::Folders,
        "LEVEL" => {
            let levels = ["error", "warn", "info", "debug", "trace", "off"];
            return Values::Words(levels.map(str::to_owned).to_vec());
        }
        "KIND" => {
            let kinds = ["loopback", "link-local", "private", "shared"];
            return Values::Words(kinds.map(str::to_owned).to_vec());
        }
        _ => {}
    }
    let parts: Vec<&str> = hint.split('|').collect();
    // A single word in capitals stands for a value. Of alternatives, only FILE does.
    let is_word = |part: &&&str| {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !part.is_empty();
        plain && **part != "FILE" && (parts.len() > 1 || part.chars().any(|c| c.is_ascii_lowercase()))
    };
    let words: Vec<String> = parts.iter().filter(is_word).map(|part| (*part).to_owned()).collect();
    match (parts.contains(&"FILE"), words.is_empty()) {
        (true, _) => Values::Files(words),
        (false, true) => Values::Free,
        (false, false) => Values::Words(words),
    }
}

/// A word in single quotes, for bash and zsh.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_determines_what_is_offered() {
        let words = |words: &[&str]| Values::Words(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(values("FILE"), Values::Files(Vec::new()));
        assert_eq!(values("FILE|system"), Values::Files(vec!["system".to_owned()]));
        assert_eq!(values("DIR"), Values::Folders);
        assert_eq!(values("v1|v2"), words(&["v1", "v2"]));
        assert_eq!(values("SHA1|SHA256"), words(&["SHA1", "SHA256"]));
        assert_eq!(values("strict"), words(&["strict"]));
        assert_eq!(values("LEVEL"), words(&["error", "warn", "info", "debug", "trace", "off"]));
        for free in ["N", "ADDR:PORT", "sha256//PIN", "sha256//…", "[LABEL=]HOST:PORT", "ADDR[/BITS]", "JID"]
        {
            assert_eq!(values(free), Values::Free, "{free}");
        }
        assert_eq!(quoted("a'b"), r"'a'\''b'");
    }
}
