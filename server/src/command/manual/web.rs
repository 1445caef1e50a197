//! Pages as Markdown, for the web.

use super::blocks::{Block, Inline};
use super::pages::Page;

/// The name of a page's file.
pub fn file_name(name: &str, section: u8) -> String {
    format!("{name}.{section}.md")
}

/// The text of a page.
pub fn render(page: &Page) -> String {
    let mut text = format!("# {}({})\n\n{}\n", page.name, page.section, capitalised(&page.summary));
    if !page.synopsis.is_empty() {
        text.push_str("\n```text\n");
        page.synopsis.iter().for_each(|usage| text.push_str(&format!("{usage}\n")));
        text.push_str("```\n");
    }
    for block in &page.blocks {
        text.push('\n');
        match block {
            Block::Section(heading) => text.push_str(&format!("## {}\n", in_lower_case(heading))),
            Block::Subsection(heading) => text.push_str(&format!("### {heading}\n")),
            Block::Paragraph(inlines) => text.push_str(&format!("{}\n", markdown(inlines))),
            Block::Code(code) => text.push_str(&format!("```text\n{code}```\n")),
            Block::Bullets(items) => {
                items.iter().for_each(|item| text.push_str(&format!("* {}\n", markdown(item))));
            }
            Block::Terms(items) => {
                for (term, body) in items {
                    text.push_str(&format!("* {}: {}\n", markdown(term), markdown(body)));
                }
            }
            Block::Table(head, rows) => {
                text.push_str(&row(head.iter().cloned()));
                text.push_str(&format!("|{}\n", "---|".repeat(head.len())));
                for cells in rows {
                    text.push_str(&row(cells.iter().map(|cell| markdown(cell))));
                }
            }
            Block::Options(options) => {
                text.push_str("| option | meaning | default |\n|---|---|---|\n");
                for option in options {
                    let names = option.names.iter().map(|name| {
                        let space = if option.hint.is_empty() { "" } else { " " };
                        format!("`{name}{space}{}`", option.hint)
                    });
                    let names = names.collect::<Vec<_>>().join(", ");
                    let cells = [names, escaped(&option.meaning), escaped(&option.default)];
                    text.push_str(&row(cells.into_iter()));
                }
            }
        }
    }
    if !page.see_also.is_empty() {
        let link =
            |(name, section): &(String, u8)| format!("[{name}({section})]({})", file_name(name, *section));
        let links: Vec<_> = page.see_also.iter().map(link).collect();
        text.push_str(&format!("\n## See also\n\n{}\n", links.join(", ")));
    }
    text
}

fn row(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<_> = cells.map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn markdown(inlines: &[Inline]) -> String {
    let one = |inline: &Inline| match inline {
        Inline::Text(text) => escaped(text),
        Inline::Code(text) => format!("`{text}`"),
        Inline::Strong(text) => format!("**{text}**"),
        Inline::Emph(text) => format!("*{text}*"),
    };
    inlines.iter().map(one).collect()
}

/// Text that Markdown shows as it is.
fn escaped(text: &str) -> String {
    text.replace('*', "\\*").replace('<', "&lt;")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn in_lower_case(heading: &str) -> String {
    capitalised(&heading.to_lowercase())
}
