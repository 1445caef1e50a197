//! The documents and sections that comments and documents cite exist.
//!
//! A citation is `docs/dtcp.md §6.17`, or a list: `docs/dtcp.md §6.33, §6.34`. It means the document in `core/docs`. In
//! a document, a section alone means that document's own. Sections of RFCs are not checked.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, files, root};

/// The sections of each document, by its name without `.md`.
type Sections = BTreeMap<String, BTreeSet<String>>;

/// What a section sign refers to.
#[derive(Clone, PartialEq, Eq)]
enum Cited {
    /// The document with the sign.
    Own,
    /// A document of `core/docs`.
    Document(String),
    /// A specification.
    Elsewhere,
}

/// The documents of `core/docs`. Their numbered headings are their sections.
fn sections() -> Sections {
    let mut sections = Sections::new();
    for File { path, text } in files(&["md"]) {
        let Some(name) = path.strip_prefix("core/docs/").and_then(|name| name.strip_suffix(".md")) else {
            continue;
        };
        let headings = text.lines().filter(|line| line.starts_with('#'));
        let numbers = headings.filter_map(|line| line.trim_start_matches('#').split_whitespace().next());
        let numbers = numbers.map(|number| number.trim_end_matches('.'));
        let numbers = numbers.filter(|number| number.starts_with(|it: char| it.is_ascii_digit()));
        sections.insert(name.into(), numbers.map(String::from).collect());
    }
    sections
}

/// The prose of a file, each word with the number of its line: a document's text, or the comments of a program.
fn words(File { path, text }: &File) -> Vec<(usize, &str)> {
    let is_document = path.ends_with(".md");
    let marks: &[&str] = if path.ends_with(".rs") { &["//!", "///", "//"] } else { &["#", "\"\"\""] };
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let comment = marks.iter().find_map(|mark| line.find(mark).map(|at| &line[at + mark.len()..]));
        let prose = if is_document { Some(line) } else { comment };
        words.extend(prose.into_iter().flat_map(str::split_whitespace).map(|word| (number + 1, word)));
    }
    words
}

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|it: char| !it.is_alphanumeric() && it != '§' && it != '/' && it != '#')
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|it| it.is_ascii_digit())
}

/// All faulty citations of a file.
fn faults(file: &File, sections: &Sections) -> Vec<String> {
    let own = file.path.strip_prefix("core/docs/").and_then(|name| name.strip_suffix(".md"));
    let mut faults = Vec::new();
    let mut cited = Cited::Own;
    let mut before = "";
    for (line, written) in words(file) {
        let mut fault = |what: String| faults.push(format!("{}:{line}: {what}", file.path));
        // Punctuation around a citation is removed, such as in `(XEP-0046 §3.1;`. Of a Markdown link only the target counts.
        let word = bare(written.rsplit("](").next().unwrap_or(written));
        if let Some(section) = word.strip_prefix('§') {
            let section = section.trim_end_matches(|it: char| !it.is_ascii_digit());
            let document = match &cited {
                Cited::Own => own,
                Cited::Document(name) => Some(name.as_str()),
                Cited::Elsewhere => None,
            };
            if let Some(known) = document.and_then(|name| sections.get(name))
                && section != "X"
                && !known.contains(section)
                && !word.contains("§6.N")
            {
                fault(format!("{} has no section {section}", document.unwrap_or_default()));
            }
            let is_name = before.len() > 2 && before.chars().all(|it| it.is_ascii_uppercase());
            if is_name && before != "RFC" && written.starts_with('§') {
                fault(format!("'{before} {word}' is no document of this repository"));
            }
        } else if let Some(name) = word.strip_prefix("docs/").and_then(|name| name.strip_suffix(".md")) {
            if !sections.contains_key(name) {
                fault(format!("there is no core/docs/{name}.md"));
            }
            cited = Cited::Document(name.into());
        } else if is_number(word) && before == "RFC" || word.starts_with("XEP-") || word.starts_with("BCP") {
            cited = Cited::Elsewhere;
        } else if !matches!(word, "and" | "to" | "or" | "") {
            cited = Cited::Own;
        }
        if is_number(word) && matches!(before, "case" | "cases" | "reading" | "readings") {
            fault(format!("'{before} {word}' is no section; write docs/dtcp.md §6.{word}, for instance"));
        }
        if word.ends_with(".md") && !word.starts_with("docs/") && !exists(file, word) {
            fault(format!("there is no {word}"));
        }
        before = word;
    }
    faults
}

/// Whether a named file exists: in the repository, or beside the file that names it.
fn exists(file: &File, name: &str) -> bool {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let name = name.split('#').next().unwrap_or(name);
    root().join(name).exists() || root().join(folder).join(name).exists()
}

#[test]
fn citations_of_comments_and_documents_exist() {
    let sections = sections();
    assert!(sections.values().all(|numbers| numbers.len() > 3), "a document without sections: {sections:?}");
    let files = files(&["rs", "md", "py", "sh", "toml", "trace", "yml"]);
    let this = "tests/tests/repository/citations.rs";
    let faults: Vec<String> =
        files.iter().filter(|file| file.path != this).flat_map(|file| faults(file, &sections)).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn a_wrong_citation_is_found() {
    let sections = Sections::from([("dtcp".into(), BTreeSet::from(["6".into(), "6.17".into()]))]);
    let found =
        |path: &str, text: &str| faults(&File { path: path.into(), text: text.into() }, &sections).len();
    for (text, expected) in [
        ("//! As docs/dtcp.md §6.17 has it (RFC 9112 §99.9).", 0),
        ("let a = 1; // docs/dtcp.md §6, §6.17.", 0),
        ("/// (docs/dtcp.md §6.18)", 1),
        ("/// (docs/dtcp.md §6.17,\n/// §6.99)", 1),
        ("// See docs/other.md §1.", 1),
        ("// See OTHER.md §1.", 1),
        ("// The table of OTHER §1.", 1),
        ("// Not answered (case 17).", 1),
        ("// XEP-0046 §3.1 and §3.2", 0),
        ("// [The list](core/docs/other.md)", 1),
        ("let text = \"docs/dtcp.md §7\";", 0),
    ] {
        assert_eq!(found("core/src/a.rs", text), expected, "{text}");
    }
    assert_eq!(found("core/docs/dtcp.md", "See §6.17 and §9.9. (RFC 1 §9.9)"), 1);
}
