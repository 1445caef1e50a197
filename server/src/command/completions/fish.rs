//! Completions of fish.

use super::{Line, Program, Values};

const START: &str = r#"# fish completion of rendezvous, printed by 'rendezvous completions fish'.

# Whether the command line begins with these words after 'rendezvous'.
function __rendezvous_is
    set -l words (commandline -opc)
    set -l last (math (count $argv) + 1)
    test "$words[2..$last]" = "$argv"
end

# Whether exactly these words stand between 'rendezvous' and the cursor.
function __rendezvous_is_only
    set -l words (commandline -opc)
    test (count $words) -eq (math (count $argv) + 1); and test "$words[2..]" = "$argv"
end

# Prints the names of the enrolled hidden servers, in the state folder of the command line.
function __rendezvous_names
    set -l words (commandline -opc)
    set -l state
    set -l at (contains -i -- --state $words)
    and test $at -lt (count $words)
    and set state --state $words[(math $at + 1)]
    command rendezvous id list $state 2>/dev/null | string match -rv '^NAME ' | string match -r '^[A-Za-z0-9._-]+'
end

complete -c rendezvous -f
complete -c rendezvous -n __rendezvous_is_only -l help -s h -d 'print help'
complete -c rendezvous -n __rendezvous_is_only -l version -s V -d 'print the version'
"#;

/// The script.
pub(super) fn render(program: &Program) -> String {
    let mut text = START.to_owned();
    for (name, summary) in &program.commands {
        text.push_str(&format!(
            "complete -c rendezvous -n __rendezvous_is_only -a {name} -d {}\n",
            quoted(summary)
        ));
        for (sub, summary) in program.subcommands(name) {
            text.push_str(&format!(
                "complete -c rendezvous -n '__rendezvous_is_only {name}' -a {sub} -d {}\n",
                quoted(summary)
            ));
        }
    }
    program.lines.iter().for_each(|line| render_line(line, &mut text));
    text
}

fn render_line(line: &Line, text: &mut String) {
    let here = format!("complete -c rendezvous -n '__rendezvous_is {}'", line.words.join(" "));
    for option in &line.options {
        text.push_str(&format!("{here} -l {}", option.long));
        if let Some(short) = option.short {
            text.push_str(&format!(" -s {short}"));
        }
        if let Some((_, values)) = &option.value {
            text.push_str(&format!(" -r{}", offer(values)));
        }
        text.push_str(&format!(" -d {}\n", quoted(&option.help)));
    }
    for (name, values) in &line.operands {
        if *values != Values::Free {
            text.push_str(&format!("{here}{} -d {}\n", offer(values), quoted(name)));
        }
    }
}

fn offer(values: &Values) -> String {
    match values {
        Values::Free => " -f".to_owned(),
        Values::Words(words) => format!(" -f -a {}", quoted(&words.join(" "))),
        Values::Files(words) if words.is_empty() => " -F".to_owned(),
        Values::Files(words) => format!(" -F -a {}", quoted(&words.join(" "))),
        Values::Folders => " -f -a '(__fish_complete_directories)'".to_owned(),
        Values::Names => " -f -a '(__rendezvous_names)'".to_owned(),
    }
}

/// A word in single quotes, in which fish interprets `\` and `'`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
