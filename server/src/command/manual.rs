//! `rendezvous manual`: writes the pages of the manual, for packages and for the web.

pub mod blocks;
pub mod mdoc;
pub mod pages;
pub mod text;
pub mod web;

use std::fs;
use std::path::Path;

use super::definition::Command;
use crate::console::print;
use crate::failure::Failure;
use crate::options::{Opt, Spec, parse};

pub(super) const SPEC: Spec = Spec {
    command: "manual",
    operands: &["DIR"],
    summary: "Writes all manual pages into a folder, which is made if it is missing. Existing pages are replaced.",
    options: &[Opt::flag("web", "write Markdown instead of the source of 'man'")],
    footer: "The pages come from the option tables of this program: a build without a feature has no page for its commands.",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if a file cannot be written.
pub fn run(all: &[Command], args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let folder = matches.operands().concat();
    let folder = Path::new(&folder);
    fs::create_dir_all(folder).map_err(|error| Failure::of_file("make", folder, &error))?;
    let pages = pages::all(all);
    for page in &pages {
        let (name, text) = if matches.flag("web") {
            (web::file_name(&page.name, page.section), web::render(page))
        } else {
            (format!("{}.{}", page.name, page.section), mdoc::render(page))
        };
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| Failure::of_file("write", &path, &error))?;
    }
    print(&format!("{} pages are in {}\n", pages.len(), folder.display()))
}
