//! The tests that the manual's Security chapter names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Case, case};

pub(crate) const CASES: &[Case] =
    &[case("every_test_that_it_names_exists", &[], every_test_that_it_names_exists)];

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The code spans in the last column of the table whose first column has this heading.
fn spans_in_table<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let rows = text.lines().skip_while(|line| !line.starts_with(&format!("| {heading} |")));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let cells = rows.filter_map(|row| row.trim_end_matches(['|', ' ']).rsplit('|').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// The names of the tests in a folder's sources.
fn gather_tests(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather_tests(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let tests =
                text.split("#[test]").skip(1).filter_map(|text| text.split_once("fn ")?.1.split('(').next());
            let cases = text
                .split("case(")
                .skip(1)
                .filter_map(|text| text.trim_start().strip_prefix('"')?.split('"').next());
            into.extend(tests.chain(cases).map(str::to_owned));
        }
    }
}

fn every_test_that_it_names_exists() {
    let manual = fs::read_to_string(root().join("server/docs/manual.md")).expect("there is a manual");
    let mut tests = BTreeSet::new();
    for folder in ["core/src", "core/tests", "server/src", "server/tests", "tests/tests"] {
        gather_tests(&root().join(folder), &mut tests);
    }
    let named = spans_in_table(&manual, "against");
    assert!(named.len() > 20, "the table of defences is missing");
    let exists = |name: &str| {
        let target = format!("fuzz/fuzz_targets/{name}.rs");
        // A program with arguments, such as `tests/attacks/run reuse`.
        let path = name.split(' ').next().unwrap_or_default();
        tests.contains(name)
            || root().join(target).is_file()
            || name.contains('/') && root().join(path).exists()
    };
    let missing: Vec<_> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "the manual names tests that do not exist: {missing:#?}");
}
