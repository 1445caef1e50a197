//! The pages of the manual: option tables, and the prose in `server/man/`.

use super::blocks::{Block, Inline, OptionRow, inlines, parse, plain};
use crate::command::definition::Command;
use crate::options::{CONFIG, Kind, Opt, Spec};

/// The date of the pages, which the release script sets.
pub const DATE: &str = "November 30, 2026";

/// A page of the manual.
pub struct Page {
    /// Its name: `rendezvous-serve`.
    pub name: String,
    /// Its section: 1 for a command, 5 for a file, 7 for an overview.
    pub section: u8,
    /// Its summary, without a full stop.
    pub summary: String,
    /// The command lines; none for a page that is not about a command.
    pub synopsis: Vec<String>,
    /// Its text.
    pub blocks: Vec<Block>,
    /// Names and sections of related pages.
    pub see_also: Vec<(String, u8)>,
}

/// The prose of the commands. A command without prose has a page too.
const COMMANDS: &[(&str, &str)] = &[
    ("agent", include_str!("../../../man/agent.md")),
    ("check", include_str!("../../../man/check.md")),
    ("completions", include_str!("../../../man/completions.md")),
    ("connect", include_str!("../../../man/connect.md")),
    ("demo", include_str!("../../../man/demo.md")),
    ("dtcp", include_str!("../../../man/dtcp.md")),
    ("id", include_str!("../../../man/id.md")),
    ("install-units", include_str!("../../../man/install-units.md")),
    ("key", include_str!("../../../man/key.md")),
    ("kick", include_str!("../../../man/kick.md")),
    ("manual", include_str!("../../../man/manual.md")),
    ("password", include_str!("../../../man/password.md")),
    ("proxy", include_str!("../../../man/proxy.md")),
    ("replay", include_str!("../../../man/replay.md")),
    ("serve", include_str!("../../../man/serve.md")),
    ("status", include_str!("../../../man/status.md")),
    ("stream", include_str!("../../../man/stream.md")),
    ("token", include_str!("../../../man/token.md")),
    ("usage", include_str!("../../../man/usage.md")),
];

/// The pages that are not about one command: name, section, summary, other names for `rendezvous help`, and prose.
const OTHERS: &[(&str, u8, &str, &[&str], &str)] = &[
    (
        "rendezvous",
        1,
        "a relay that makes a server behind NAT reachable",
        &[],
        include_str!("../../../man/rendezvous.1.md"),
    ),
    (
        "rendezvous.conf",
        5,
        "configuration files of rendezvous",
        &["conf", "config"],
        include_str!("../../../man/rendezvous.conf.5.md"),
    ),
    (
        "rendezvous-ticket",
        5,
        "the file that makes an agent a hidden server",
        &["ticket"],
        include_str!("../../../man/rendezvous-ticket.5.md"),
    ),
    (
        "rendezvous-ids",
        5,
        "the hidden servers that are enrolled at a relay",
        &["ids"],
        include_str!("../../../man/rendezvous-ids.5.md"),
    ),
    (
        "rendezvous",
        7,
        "concepts, security, files and signals of rendezvous",
        &["concepts", "security"],
        include_str!("../../../man/rendezvous.7.md"),
    ),
];

/// All pages, those of the commands in the order of the table.
pub fn all(commands: &[Command]) -> Vec<Page> {
    let others = OTHERS.iter().map(|(name, section, summary, _, prose)| {
        let blocks = match (*name, *section) {
            ("rendezvous", 1) => overview(commands, prose),
            ("rendezvous.conf", 5) => configuration(commands, prose),
            _ => parse(prose),
        };
        let synopsis =
            if *section == 1 { vec!["rendezvous COMMAND [OPTIONS]".to_owned()] } else { Vec::new() };
        page(name, *section, summary, synopsis, blocks, &[])
    });
    others.chain(commands.iter().map(of_command)).collect()
}

/// The page of a command, or of a topic.
pub fn find(commands: &[Command], topic: &str) -> Option<Page> {
    let other = OTHERS.iter().find(|(name, section, _, names, _)| {
        names.contains(&topic)
            || topic == format!("{name}({section})")
            || topic == format!("{name}.{section}")
    });
    match other {
        Some((name, section, ..)) => {
            all(commands).into_iter().find(|page| page.name == *name && page.section == *section)
        }
        None => commands.iter().find(|command| command.name == topic).map(of_command),
    }
}

/// The words that [`find`] takes beside the names of commands.
pub fn topics() -> impl Iterator<Item = &'static str> {
    OTHERS.iter().flat_map(|(_, _, _, names, _)| names.iter().copied())
}

fn page(
    name: &str,
    section: u8,
    summary: &str,
    synopsis: Vec<String>,
    blocks: Vec<Block>,
    related: &[(&str, u8)],
) -> Page {
    let mut see_also: Vec<(String, u8)> =
        related.iter().map(|(name, section)| ((*name).to_owned(), *section)).collect();
    see_also.extend([("rendezvous".to_owned(), 1), ("rendezvous".to_owned(), 7)]);
    for text in texts(&blocks) {
        see_also.extend(references(text));
    }
    see_also.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    see_also.dedup();
    see_also.retain(|(other, its)| (other.as_str(), *its) != (name, section));
    Page { name: name.to_owned(), section, summary: summary.to_owned(), synopsis, blocks, see_also }
}

fn of_command(command: &Command) -> Page {
    let prose = COMMANDS.iter().find(|(name, _)| *name == command.name);
    let mut prose = parse(prose.map_or("", |(_, prose)| prose));
    let first_section = prose.iter().position(|block| matches!(block, Block::Section(_)));
    let mut sections = prose.split_off(first_section.unwrap_or(prose.len()));
    let specs = (command.specs)();
    let mut blocks = vec![Block::Section("DESCRIPTION".to_owned())];
    if command.has_subcommands() {
        blocks.extend(prose);
        blocks.push(Block::Section("SUBCOMMANDS".to_owned()));
        for spec in &specs {
            let words = [spec.command].iter().chain(spec.operands).copied().collect::<Vec<_>>();
            blocks.push(Block::Subsection(words.join(" ")));
            blocks.extend(summary(spec));
            blocks.extend(options(spec));
        }
    } else {
        for spec in &specs {
            blocks.extend(summary(spec));
        }
        blocks.extend(prose);
        blocks.push(Block::Section("OPTIONS".to_owned()));
        specs.iter().for_each(|spec| blocks.extend(options(spec)));
    }
    // In the order of mdoc(7), the exit status precedes the examples.
    let examples = sections.iter().position(|block| *block == Block::Section("EXAMPLES".to_owned()));
    let examples = sections.split_off(examples.unwrap_or(sections.len()));
    blocks.extend(sections);
    blocks.push(Block::Section("EXIT STATUS".to_owned()));
    blocks.push(Block::Paragraph(inlines("0 if it is done, 1 if it failed, 2 for wrong usage.")));
    blocks.extend(examples);
    let synopsis = specs.iter().map(|spec| format!("rendezvous {}", usage(spec))).collect();
    let has = |long: &str| specs.iter().any(|spec| spec.options.iter().any(|opt| opt.long == long));
    let mut related = Vec::new();
    for (long, name) in
        [("config", "rendezvous.conf"), ("ticket", "rendezvous-ticket"), ("state", "rendezvous-ids")]
    {
        related.extend(has(long).then_some((name, 5)));
    }
    page(&format!("rendezvous-{}", command.name), 1, command.summary, synopsis, blocks, &related)
}

/// The words after `rendezvous`: `id add [OPTIONS] NAME`.
fn usage(spec: &Spec) -> String {
    let mut words = vec![spec.command];
    words.extend((!spec.options.is_empty()).then_some("[OPTIONS]"));
    words.extend(spec.operands);
    words.join(" ")
}

/// The summary and the footer of `--help`.
fn summary(spec: &Spec) -> Vec<Block> {
    let mut blocks = vec![Block::Paragraph(vec![Inline::Text(spec.summary.to_owned())])];
    let mut lines = spec.footer.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let is_code = |line: &str| line.starts_with("    ");
        let code = is_code(line);
        let mut all = vec![line];
        while let Some(next) = lines.next_if(|next| !next.trim().is_empty() && is_code(next) == code) {
            all.push(next);
        }
        blocks.push(if code {
            Block::Code(all.iter().map(|line| format!("{}\n", &line[4..])).collect())
        } else {
            Block::Paragraph(vec![Inline::Text(all.join(" "))])
        });
    }
    blocks
}

fn options(spec: &Spec) -> Vec<Block> {
    let mut rows: Vec<OptionRow> = spec.options.iter().map(|opt| row(opt, "--")).collect();
    rows.push(OptionRow {
        names: vec!["-h".to_owned(), "--help".to_owned()],
        hint: String::new(),
        meaning: "Print a summary of the options.".to_owned(),
        default: String::new(),
    });
    vec![Block::Options(rows)]
}

fn row(opt: &Opt, dashes: &str) -> OptionRow {
    let mut names: Vec<String> = Vec::new();
    if !dashes.is_empty() {
        names.extend(opt.short.map(|letter| format!("-{letter}")));
    }
    names.push(format!("{dashes}{}", opt.long));
    let mut letters = opt.help.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let mut meaning: String = first.into_iter().chain(letters).collect();
    if opt.kind == Kind::Many && !meaning.ends_with("may be repeated") {
        meaning.push_str("; may be repeated");
    }
    meaning.push('.');
    OptionRow { names, hint: opt.hint.to_owned(), meaning, default: opt.default.to_owned() }
}

/// The list of commands, and the prose.
fn overview(commands: &[Command], prose: &str) -> Vec<Block> {
    let mut blocks = parse(prose);
    let end = blocks.iter().skip(1).position(|block| matches!(block, Block::Section(_)));
    let place = end.map_or(blocks.len(), |end| end + 1);
    let entry = |command: &Command| {
        let name = vec![Inline::Code(command.name.to_owned())];
        (
            name,
            vec![Inline::Text(format!("{}. See rendezvous-{}(1).", capital(command.summary), command.name))],
        )
    };
    let list = [Block::Section("COMMANDS".to_owned()), Block::Terms(commands.iter().map(entry).collect())];
    blocks.splice(place..place, list);
    blocks
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The words of each command's `--config` file, behind the prose.
fn configuration(commands: &[Command], prose: &str) -> Vec<Block> {
    let mut blocks = parse(prose);
    blocks.push(Block::Section("WORDS".to_owned()));
    for spec in commands.iter().flat_map(|command| (command.specs)()) {
        if spec.options.iter().any(|opt| opt.long == CONFIG.long) {
            blocks.push(Block::Subsection(spec.command.to_owned()));
            let words = spec.options.iter().filter(|opt| opt.long != CONFIG.long);
            blocks.push(Block::Options(words.map(|opt| row(opt, "")).collect()));
        }
    }
    blocks
}

/// The paragraphs of a page as text.
fn texts(blocks: &[Block]) -> Vec<String> {
    let mut texts = Vec::new();
    for block in blocks {
        match block {
            Block::Paragraph(inlines) => texts.push(plain(inlines)),
            Block::Bullets(items) => texts.extend(items.iter().map(|item| plain(item))),
            Block::Terms(items) => texts.extend(items.iter().map(|(_, body)| plain(body))),
            Block::Table(_, rows) => texts.extend(rows.iter().flatten().map(|cell| plain(cell))),
            Block::Section(_) | Block::Subsection(_) | Block::Code(_) | Block::Options(_) => {}
        }
    }
    texts
}

/// The pages of this manual that a text names: `rendezvous-serve(1)`.
fn references(text: String) -> Vec<(String, u8)> {
    let word = |word: &str| {
        let (name, rest) = word.split_once('(')?;
        let section = rest.split_once(')')?.0.parse().ok()?;
        name.starts_with("rendezvous").then(|| (name.to_owned(), section))
    };
    text.split([' ', ',']).filter_map(word).collect()
}
