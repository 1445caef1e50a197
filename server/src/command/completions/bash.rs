//! Completions of bash.

use super::{Line, Program, Values, quoted};

/// The functions that do not depend on the tables. Names of hidden servers are data: they are never expanded or split.
/// bash splits words at `=` (and at `:`), so `--log=in` arrives as three words.
const FUNCTIONS: &str = r#"# bash completion of rendezvous, printed by 'rendezvous completions bash'.

# Offers the words that begin with the first argument.
_rendezvous_words() {
    local start=$1 word
    shift
    for word; do
        [[ $word == "$start"* ]] && COMPREPLY+=("$word")
    done
}

# Offers files (-f) or folders (-d).
_rendezvous_files() {
    local file
    compopt -o filenames 2> /dev/null
    while IFS= read -r file; do
        COMPREPLY+=("$file")
    done < <(compgen "$1" -- "$2")
}

# Offers the names of the enrolled hidden servers, in the state folder of the command line.
_rendezvous_names() {
    local name rest i
    local -a state=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --state ]] || continue
        if [[ ${COMP_WORDS[i + 1]} == = ]]; then
            state=(--state "${COMP_WORDS[i + 2]}")
        else
            state=(--state "${COMP_WORDS[i + 1]}")
        fi
    done
    while read -r name rest; do
        [[ $name != NAME && $name =~ ^[A-Za-z0-9._-]+$ && $name == "$1"* ]] && COMPREPLY+=("$name")
    done < <(command rendezvous id list "${state[@]}" 2> /dev/null)
}

"#;

const START: &str = r#"_rendezvous() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} line=${COMP_WORDS[1]} first=2 operand=0 i word
    COMPREPLY=()
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]] && ((COMP_CWORD > 2)); then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if ((COMP_CWORD == 1)); then
        _rendezvous_words "$cur" COMMANDS --help --version
        return
    fi
"#;

const MIDDLE: &str = r#"    # The number of the operand in this place.
    for ((i = first; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            =) ((i++)) ;;
            -*) _rendezvous_takes_value "$line $word" && [[ ${COMP_WORDS[i + 1]} != = ]] && ((i++)) ;;
            *) ((operand++)) ;;
        esac
    done
    if [[ $cur == -* ]]; then
        case $line in
"#;

/// The script.
pub(super) fn render(program: &Program) -> String {
    let mut text = FUNCTIONS.to_owned();
    let mut patterns = String::new();
    let mut by_option = String::new();
    let mut by_operand = String::new();
    let mut options = String::new();
    for line in &program.lines {
        let words = line.words.join(" ");
        for option in &line.options {
            let Some((_, values)) = &option.value else { continue };
            let mut all = vec![quoted(&format!("{words} --{}", option.long))];
            all.extend(option.short.map(|short| quoted(&format!("{words} -{short}"))));
            let pattern = all.join(" | ");
            patterns.push_str(&format!("        {pattern}) return 0 ;;\n"));
            by_option.push_str(&format!("        {pattern}) {}return ;;\n", offer(values)));
        }
        for (place, (_, values)) in line.operands.iter().enumerate() {
            if *values != Values::Free {
                let pattern = quoted(&format!("{words} {place}"));
                by_operand.push_str(&format!("        {pattern}) {}return ;;\n", offer(values)));
            }
        }
        options.push_str(&format!(
            "            {}) _rendezvous_words \"$cur\" {} ;;\n",
            quoted(&words),
            option_words(line)
        ));
    }
    text.push_str(
        "# Whether an option of a command line takes a value.\n_rendezvous_takes_value() {\n    case $1 in\n",
    );
    text.push_str(&patterns);
    text.push_str("    esac\n    return 1\n}\n\n");
    let commands: Vec<_> = program.commands.iter().map(|(name, _)| *name).collect();
    text.push_str(&START.replace("COMMANDS", &commands.join(" ")));
    text.push_str("    case $line in\n");
    for (command, _) in &program.commands {
        let names: Vec<_> = program.subcommands(command).map(|(name, _)| name).collect();
        if !names.is_empty() {
            text.push_str(&format!(
                "        {command})\n            if ((COMP_CWORD == 2)); then\n                _rendezvous_words \"$cur\" \
                 {} --help\n                return\n            fi\n            line+=\" ${{COMP_WORDS[2]}}\" first=3\n            ;;\n",
                names.join(" ")
            ));
        }
    }
    text.push_str("    esac\n    case \"$line $prev\" in\n");
    text.push_str(&by_option);
    text.push_str("    esac\n");
    text.push_str(MIDDLE);
    text.push_str(&options);
    text.push_str("        esac\n        return\n    fi\n    case \"$line $operand\" in\n");
    text.push_str(&by_operand);
    text.push_str("    esac\n}\n\ncomplete -F _rendezvous rendezvous\n");
    text
}

fn option_words(line: &Line) -> String {
    line.options.iter().map(|option| format!("--{}", option.long)).collect::<Vec<_>>().join(" ")
}

fn offer(values: &Values) -> String {
    let of_words = |words: &[String]| match words {
        [] => String::new(),
        words => {
            let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
            format!("_rendezvous_words \"$cur\" {}; ", words.join(" "))
        }
    };
    match values {
        Values::Free => String::new(),
        Values::Words(words) => of_words(words),
        Values::Files(words) => format!("{}_rendezvous_files -f \"$cur\"; ", of_words(words)),
        Values::Folders => "_rendezvous_files -d \"$cur\"; ".to_owned(),
        Values::Names => "_rendezvous_names \"$cur\"; ".to_owned(),
    }
}
