//! Pages as plain text, for `rendezvous help COMMAND`.

use super::blocks::{Block, Inline, OptionRow, plain};
use super::pages::Page;
use crate::console::fill;

/// The indentation of a section's text.
const INDENT: usize = 7;

/// The text of a page.
pub fn render(page: &Page) -> String {
    let mut text = format!("NAME\n{:INDENT$}{} - {}\n", "", page.name, page.summary);
    if !page.synopsis.is_empty() {
        text.push_str("\nSYNOPSIS\n");
        page.synopsis.iter().for_each(|usage| text.push_str(&format!("{:INDENT$}{usage}\n", "")));
    }
    for (place, block) in page.blocks.iter().enumerate() {
        let after_heading =
            place > 0 && matches!(page.blocks[place - 1], Block::Section(_) | Block::Subsection(_));
        if !after_heading {
            text.push('\n');
        }
        render_block(block, &mut text);
    }
    if !page.see_also.is_empty() {
        let names: Vec<_> =
            page.see_also.iter().map(|(name, section)| format!("{name}({section})")).collect();
        text.push_str("\nSEE ALSO\n");
        fill(&names.join(", "), INDENT, &mut text);
    }
    text
}

fn render_block(block: &Block, text: &mut String) {
    match block {
        Block::Section(heading) => text.push_str(&format!("{heading}\n")),
        Block::Subsection(heading) => text.push_str(&format!("   {heading}\n")),
        Block::Paragraph(inlines) => fill(&plain(inlines), INDENT, text),
        Block::Code(code) => {
            for line in code.lines() {
                text.push_str(format!("{:1$}{line}", "", INDENT + 4).trim_end());
                text.push('\n');
            }
        }
        Block::Bullets(items) => {
            for item in items {
                let start = text.len();
                fill(&plain(item), INDENT + 2, text);
                text.replace_range(start + INDENT..=start + INDENT, "*");
            }
        }
        Block::Terms(items) => {
            for (term, body) in items {
                entry(&plain(term), &[plain(body)], text);
            }
        }
        Block::Table(head, rows) => {
            for row in rows {
                let titled = |(title, cell): (&String, &Vec<Inline>)| {
                    let cell = plain(cell);
                    let text = if head.len() == 2 { cell.clone() } else { format!("{title}: {cell}") };
                    (!cell.is_empty()).then_some(text)
                };
                let body: Vec<_> = head.iter().zip(row).skip(1).filter_map(titled).collect();
                entry(&row.first().map(|cell| plain(cell)).unwrap_or_default(), &body, text);
            }
        }
        Block::Options(options) => {
            for OptionRow { names, hint, meaning, default } in options {
                let space = if hint.is_empty() { "" } else { " " };
                let default =
                    if default.is_empty() { String::new() } else { format!(" Default: {default}.") };
                entry(&format!("{}{space}{hint}", names.join(", ")), &[format!("{meaning}{default}")], text);
            }
        }
    }
}

fn entry(term: &str, body: &[String], text: &mut String) {
    text.push_str(&format!("{:INDENT$}{term}\n", ""));
    for paragraph in body {
        fill(paragraph, INDENT + 6, text);
    }
}
