//! Rules for the repository itself: citations exist, modules have an order, and packages are complete.

mod citations;
mod layers;
mod packages;

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
struct File {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files with one of these extensions, except those that builds and fuzzers write.
fn files(extensions: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    walk(&root(), "", extensions, &mut found);
    assert!(!found.is_empty(), "the repository is not at {}", root().display());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(folder: &Path, prefix: &str, extensions: &[&str], found: &mut Vec<File>) {
    const SKIPPED: [&str; 2] = ["fuzz/corpus", "fuzz/artifacts"];
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a folder can be read");
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("a folder can be read");
        if kind.is_dir() {
            let is_built = name.starts_with('.') || name == "target" || name == "node_modules";
            if !is_built && !SKIPPED.contains(&path.as_str()) {
                walk(&entry.path(), &format!("{path}/"), extensions, found);
            }
        } else if kind.is_file() && extensions.iter().any(|it| name.ends_with(&format!(".{it}"))) {
            let text = fs::read_to_string(entry.path()).unwrap_or_else(|error| panic!("{path}: {error}"));
            found.push(File { path, text });
        }
    }
}
