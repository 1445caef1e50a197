//! Completions of zsh.

use super::{Line, LineOption, Program, Values, quoted};

const START: &str = r#"#compdef rendezvous
# zsh completion of rendezvous, printed by 'rendezvous completions zsh'.

# Offers the names of the enrolled hidden servers, in the state folder of the command line.
_rendezvous_names() {
    local -a state names
    local i=${words[(i)--state]}
    (( i < $#words )) && state=(--state "${(Q)words[i + 1]}")
    names=(${${(f)"$(command rendezvous id list $state 2> /dev/null)"}[2,-1]%% *})
    compadd -a names
}

_rendezvous() {
    local context state state_descr line curcontext=$curcontext
    typeset -A opt_args
    local -a commands
    _arguments -C '(- *)'{-h,--help}'[print help]' '(- *)'{-V,--version}'[print the version]' \
        '1:command:->command' '*::argument:->arguments'
    case $state in
        command)
            commands=(
"#;

/// The script.
pub(super) fn render(program: &Program) -> String {
    let mut text = START.to_owned();
    text.push_str(&described("                ", program.commands.iter().copied()));
    text.push_str("            )\n            _describe command commands\n            ;;\n        arguments)\n            case $line[1] in\n");
    for (command, _) in &program.commands {
        text.push_str(&format!("                {command})\n"));
        if program.subcommands(command).next().is_none() {
            let lines = program.lines.iter().filter(|line| line.words[0] == *command);
            lines.for_each(|line| text.push_str(&arguments(line, "                    ")));
        } else {
            text.push_str(&format!(
                "                    _arguments -C '1:command:->command' '*::argument:->arguments'\n                    \
                 case $state in\n                        command)\n                            commands=(\n{}                            \
                 )\n                            _describe command commands\n                            ;;\n                        \
                 arguments)\n                            case $line[1] in\n",
                described("                                ", program.subcommands(command))
            ));
            for line in program.lines.iter().filter(|line| line.words[0] == *command) {
                text.push_str(&format!("                                {})\n", line.words[1]));
                text.push_str(&arguments(line, "                                    "));
                text.push_str("                                    ;;\n");
            }
            text.push_str("                            esac\n                            ;;\n                    esac\n");
        }
        text.push_str("                    ;;\n");
    }
    text.push_str("            esac\n            ;;\n    esac\n}\n\n");
    // Loaded by compinit, the file is the function's body; a sourced file only defines it.
    text.push_str("if [[ $funcstack[1] == _rendezvous ]]; then\n    _rendezvous \"$@\"\nelse\n    compdef _rendezvous rendezvous\nfi\n");
    text
}

fn described<'a>(indent: &str, items: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    items
        .map(|(name, summary)| format!("{indent}{}\n", quoted(&format!("{name}:{}", escaped(summary)))))
        .collect()
}

fn arguments(line: &Line, indent: &str) -> String {
    let mut text = format!("{indent}_arguments");
    let options = line.options.iter().map(option);
    let operands = line.operands.iter().enumerate().map(|(place, (name, values))| {
        quoted(&format!("{}:{}:{}", place + 1, escaped(name), action(values)))
    });
    for argument in options.chain(operands) {
        text.push_str(&format!(" \\\n{indent}    {argument}"));
    }
    text.push('\n');
    text
}

fn option(option: &LineOption) -> String {
    let star = if option.repeats { "*" } else { "" };
    let help = escaped(&option.help);
    let value = match &option.value {
        None => String::new(),
        Some((hint, values)) => format!(":{}:{}", escaped(hint), action(values)),
    };
    let equals = if option.value.is_some() { "=" } else { "" };
    quoted(&format!("{star}--{}{equals}[{help}]{value}", option.long))
}

fn action(values: &Values) -> String {
    match values {
        Values::Free => " ".to_owned(),
        Values::Words(words) => format!("({})", words.join(" ")),
        Values::Files(words) if words.is_empty() => "_files".to_owned(),
        Values::Files(words) => format!("{{ compadd {}; _files }}", words.join(" ")),
        Values::Folders => "_files -/".to_owned(),
        Values::Names => "_rendezvous_names".to_owned(),
    }
}

/// Text within a specification: colons and brackets would end its parts.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if matches!(letter, ':' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
