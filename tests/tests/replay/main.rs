//! Replays traces: the corpus, each case whole, cut, and with more bytes after it, and one from a live relay.

mod corpus;
mod cut;
mod live;
mod recorded;

use std::fs;
use std::path::{Path, PathBuf};

use rendezvous_core::trace::Trace;

/// The folder of the cases.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Every case: its name, its text, and its trace.
fn cases() -> Vec<(String, String, Trace)> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder()).expect("the corpus is there") {
        let path = entry.expect("a folder can be listed").path();
        if path.extension().is_none_or(|extension| extension != "trace") {
            continue;
        }
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a trace is text");
        let trace = Trace::parse(&text).unwrap_or_else(|error| panic!("{name}.trace: {error}"));
        cases.push((name, text, trace));
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(cases.len() >= 40, "a corpus of {}", cases.len());
    cases
}

/// Runs `check` over every case, and fails with all its messages.
fn each_case(check: impl Fn(&str, &str, &Trace) -> Result<(), String>) {
    let cases = cases();
    let complaints = cases.iter().filter_map(|(name, text, trace)| {
        check(name, text, trace).err().map(|complaint| format!("{name}.trace:{complaint}\n"))
    });
    let complaints: String = complaints.collect();
    assert!(complaints.is_empty(), "{complaints}");
}
