//! The manual pages and completions, which are made from the option tables.
#![cfg(feature = "manual")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::Folder;
use common::cli::run;
use rendezvous::command::manual::{mdoc, pages, text, web};
use rendezvous::command::table::COMMANDS;
use rendezvous::options::Spec;

fn specs() -> Vec<&'static Spec> {
    COMMANDS.iter().flat_map(|command| (command.specs)()).collect()
}

#[test]
fn every_option_is_in_the_page_of_its_command_in_every_form() {
    let mut seen = 0;
    for command in COMMANDS {
        let page = pages::find(COMMANDS, command.name).expect("a command has a page");
        let (source, shown, web) = (mdoc::render(&page), text::render(&page), web::render(&page));
        for spec in (command.specs)() {
            assert!(shown.contains(&format!("rendezvous {}", spec.command)), "{shown}");
            for option in spec.options {
                seen += 1;
                let long = option.long.replace('-', "\\-");
                assert!(source.contains(&format!(" Fl \\-{long}")), "--{} in {source}", option.long);
                assert!(shown.contains(&format!("--{}", option.long)), "--{} in {shown}", option.long);
                assert!(web.contains(&format!("`--{}", option.long)), "--{} in {web}", option.long);
            }
            for operand in spec.operands {
                assert!(shown.contains(operand), "{operand} in {shown}");
            }
        }
    }
    assert!(seen > 100, "{seen}");
    let overview = text::render(&pages::find(COMMANDS, "rendezvous(1)").expect("an overview"));
    for command in COMMANDS {
        assert!(overview.contains(&format!("rendezvous-{}(1)", command.name)), "{}", command.name);
    }
}

#[test]
fn every_word_of_a_configuration_file_is_in_its_page() {
    let page = text::render(&pages::find(COMMANDS, "conf").expect("a page"));
    for spec in specs().into_iter().filter(|spec| spec.options.iter().any(|option| option.long == "config")) {
        for option in spec.options.iter().filter(|option| option.long != "config") {
            let space = if option.hint.is_empty() { "" } else { " " };
            let line = format!("\n       {}{space}{}\n", option.long, option.hint);
            assert!(page.contains(&line), "{line}");
        }
    }
}

/// The prose names no option that no command has, and no page that does not exist.
#[test]
#[cfg(all(feature = "acme", feature = "replay", feature = "units", feature = "xmpp"))]
fn the_prose_names_options_and_pages_that_exist() {
    // Those of other programs.
    const OTHERS: &[&str] = &["now", "pinnedpubkey"];
    let known: BTreeSet<&str> =
        specs().iter().flat_map(|spec| spec.options).map(|option| option.long).collect();
    let general = ["help", "version", "verbose"];
    let names: BTreeSet<String> =
        pages::all(COMMANDS).iter().map(|page| format!("{}({})", page.name, page.section)).collect();
    let mut files = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).expect("a folder of prose") {
        let path = entry.expect("an entry").path();
        let prose = fs::read_to_string(&path).expect("prose");
        files += 1;
        for rest in prose.split("--").skip(1) {
            let is_part = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
            let word: String = rest.chars().take_while(is_part).collect();
            let exists = word.trim_matches('-').is_empty()
                || known.contains(word.as_str())
                || general.contains(&word.as_str())
                || OTHERS.contains(&word.as_str());
            assert!(exists, "{}: --{word}", path.display());
        }
        for word in
            prose.split([' ', '\n', ',']).filter(|word| word.starts_with("rendezvous") && word.contains('('))
        {
            let word = word.split_inclusive(')').next().expect("a part");
            assert!(names.contains(word), "{}: {word}", path.display());
        }
    }
    assert!(files > 20, "{files}");
}

#[test]
fn help_shows_the_page_of_a_command_and_of_a_topic() {
    let folder = Folder::new();
    for (args, parts) in [
        (
            &["help", "serve"][..],
            &["NAME\n       rendezvous-serve - run the relay\n", "--listen ADDR:PORT", "SEE ALSO"][..],
        ),
        (&["help", "id", "add"], &["rendezvous id add [OPTIONS] NAME", "--label LABEL"]),
        (&["help", "ticket"], &["rendezvous-ticket - ", "relay URL"]),
        (&["help", "concepts"], &["WHAT EACH SECRET IS WORTH", "SIGHUP"]),
        (&["help", "help"], &["rendezvous-help"]),
        (&["help"], &["Usage: rendezvous COMMAND", "\n    serve "]),
    ] {
        let done = run(&folder, args);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
        for part in parts {
            assert!(done.out.contains(part), "{part} in {}", done.out);
        }
        assert!(!done.out.contains('`') && !done.out.contains("**"), "{}", done.out);
    }
    let wrong = run(&folder, &["help", "srve"]);
    assert_eq!(wrong.code, 2);
    assert_eq!(wrong.err.trim(), "rendezvous: help: no page is about 'srve': did you mean 'serve'?");
}

#[test]
fn the_pages_are_written_as_files_for_man_and_for_the_web() {
    let folder = Folder::new();
    let all = pages::all(COMMANDS);
    assert_eq!(all.len(), COMMANDS.len() + 5);
    for (args, name) in
        [(&["manual", "out"][..], "rendezvous.conf.5"), (&["manual", "--web", "web"], "rendezvous.7.md")]
    {
        let done = run(&folder, args);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let written = folder.file(args.last().expect("a folder"));
        assert_eq!(fs::read_dir(&written).expect("a folder").count(), all.len());
        assert!(fs::read_to_string(written.join(name)).expect("a page").len() > 500);
    }
}

#[test]
fn the_completions_have_every_command_and_every_option() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let done = run(&folder, &["completions", shell]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        for option in specs().iter().flat_map(|spec| spec.options) {
            let written =
                if shell == "fish" { format!(" -l {}", option.long) } else { format!("--{}", option.long) };
            assert!(done.out.contains(&written), "{shell}: {written}");
        }
    }
    let wrong = run(&folder, &["completions", "csh"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
}

/// The pages for the web are kept in the repository, so that they can be read there.
#[test]
#[cfg(all(feature = "acme", feature = "qr", feature = "replay", feature = "units", feature = "xmpp"))]
fn the_pages_in_the_repository_are_those_of_this_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pages");
    let pages = pages::all(COMMANDS);
    for page in &pages {
        let name = web::file_name(&page.name, page.section);
        let kept = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            kept == web::render(page),
            "server/docs/pages/{name} is not current. Run: cargo run --bin rendezvous -- manual --web server/docs/pages"
        );
    }
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), pages.len(), "a page of no command is left");
}
