//! The structure of a page, and the parser of its prose. Prose is a subset of Markdown: headings (`#`, `##`), paragraphs,
//! bullets (`*`), fenced code, tables, and within a paragraph `` `code` ``, `**strong**` and `*emphasis*`.

/// A piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inline {
    /// Plain text.
    Text(String),
    /// A literal: a command, an option, a file.
    Code(String),
    /// Strong emphasis.
    Strong(String),
    /// Emphasis; also a word that stands for a value.
    Emph(String),
}

impl Inline {
    /// The text without its kind.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Code(text) | Self::Strong(text) | Self::Emph(text) => text,
        }
    }
}

/// An option, or a similar entry with a name, a meaning and a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionRow {
    /// The forms in which it is written: `-v`, `--verbose`.
    pub names: Vec<String>,
    /// The kind of its value; empty for a flag.
    pub hint: String,
    /// What it does, in a sentence.
    pub meaning: String,
    /// Its default; may be empty.
    pub default: String,
}

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// The heading of a section.
    Section(String),
    /// The heading of a subsection.
    Subsection(String),
    /// A paragraph.
    Paragraph(Vec<Inline>),
    /// Lines that are shown as they are.
    Code(String),
    /// Entries without a term.
    Bullets(Vec<Vec<Inline>>),
    /// Entries with a term.
    Terms(Vec<(Vec<Inline>, Vec<Inline>)>),
    /// Options.
    Options(Vec<OptionRow>),
    /// A table: its head, and its rows.
    Table(Vec<String>, Vec<Vec<Vec<Inline>>>),
}

/// Parses the prose of a page.
pub fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            blocks.push(Block::Subsection(heading.to_owned()));
        } else if let Some(heading) = line.strip_prefix("# ") {
            blocks.push(Block::Section(heading.to_owned()));
        } else if line.starts_with("```") {
            let code = lines.by_ref().take_while(|line| !line.starts_with("```"));
            blocks.push(Block::Code(code.flat_map(|line| [line, "\n"]).collect()));
        } else if line.starts_with('|') {
            let mut rows = vec![cells(line)];
            while let Some(row) = lines.next_if(|next| next.starts_with('|')) {
                rows.push(cells(row));
            }
            let head = rows.remove(0).iter().map(|cell| plain(cell)).collect();
            // The row of dashes.
            rows.remove(0);
            blocks.push(Block::Table(head, rows));
        } else if let Some(first) = line.strip_prefix("* ") {
            let mut items = vec![paragraph(first, &mut lines)];
            while let Some(next) = lines.next_if(|next| next.starts_with("* ")) {
                items.push(paragraph(next.trim_start_matches("* "), &mut lines));
            }
            blocks.push(Block::Bullets(items));
        } else if !line.trim().is_empty() {
            blocks.push(Block::Paragraph(paragraph(line, &mut lines)));
        }
    }
    blocks
}

/// The rest of a paragraph that begins with `first`: the lines up to an empty one or another block.
fn paragraph<'a>(first: &str, lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Vec<Inline> {
    let mut text = first.trim().to_owned();
    let goes_on = |line: &&str| {
        !line.trim().is_empty()
            && !["# ", "## ", "* ", "```", "|"].iter().any(|start| line.starts_with(start))
    };
    while let Some(line) = lines.next_if(goes_on) {
        text.push(' ');
        text.push_str(line.trim());
    }
    inlines(&text)
}

fn cells(row: &str) -> Vec<Vec<Inline>> {
    // `\|` is a bar within a cell.
    let row = row.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{1}");
    row.split('|').map(|cell| inlines(&cell.trim().replace('\u{1}', "|"))).collect()
}

/// The text of inlines without their kinds.
pub fn plain(inlines: &[Inline]) -> String {
    inlines.iter().map(Inline::text).collect()
}

type Kind = fn(String) -> Inline;

/// Parses the inner structure of a paragraph.
pub fn inlines(text: &str) -> Vec<Inline> {
    let mut found = Vec::new();
    let mut pending = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let marks: [(&str, Kind); 3] = [("`", Inline::Code), ("**", Inline::Strong), ("*", Inline::Emph)];
        let marked = marks.iter().find_map(|(mark, kind)| {
            let (inner, after) = rest.strip_prefix(mark)?.split_once(mark)?;
            // A star between spaces is a star.
            (!inner.is_empty() && !inner.starts_with(' ')).then(|| (kind(inner.to_owned()), after))
        });
        if let Some((inline, after)) = marked {
            if !pending.is_empty() {
                found.push(Inline::Text(std::mem::take(&mut pending)));
            }
            found.push(inline);
            rest = after;
        } else {
            let mut letters = rest.chars();
            pending.extend(letters.next());
            rest = letters.as_str();
        }
    }
    if !pending.is_empty() {
        found.push(Inline::Text(pending));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_read_with_all_its_kinds_of_blocks() {
        let text = "One `--two *x*` three.\nFour **five** *six* 7 * 8.\n\n# NINE\n## ten\n* a\n  b\n* c\n\n```sh\n# code\n\n* d\n```\n\
                    | who | what |\n|---|---|\n| `a\\|b` | c |\n";
        let of = |text: &str| inlines(text);
        assert_eq!(
            parse(text),
            [
                Block::Paragraph(vec![
                    Inline::Text("One ".to_owned()),
                    Inline::Code("--two *x*".to_owned()),
                    Inline::Text(" three. Four ".to_owned()),
                    Inline::Strong("five".to_owned()),
                    Inline::Text(" ".to_owned()),
                    Inline::Emph("six".to_owned()),
                    Inline::Text(" 7 * 8.".to_owned()),
                ]),
                Block::Section("NINE".to_owned()),
                Block::Subsection("ten".to_owned()),
                Block::Bullets(vec![of("a b"), of("c")]),
                Block::Code("# code\n\n* d\n".to_owned()),
                Block::Table(vec!["who".to_owned(), "what".to_owned()], vec![vec![of("`a|b`"), of("c")]]),
            ]
        );
    }
}
