//! The README's own commands: each block marked `sh quickstart` is run as it stands, line by line in one shell, in an
//! empty folder, with our binary on the path.

use std::env;
use std::fs;
use std::path::Path;

use crate::harness::{Case, case};
use crate::peers::{Peer, profile};
use crate::program::run;
use crate::world::{Folder, usual_port};

pub(crate) const CASES: &[Case] = &[
    case("the_quick_start_works_as_it_stands", &[Peer::Bash, Peer::Curl], the_quick_start_works_as_it_stands),
    case("blocks_are_found_by_their_mark", &[], blocks_are_found_by_their_mark),
];

/// The text of every fenced block with this after its fence.
fn blocks(text: &str, mark: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let block: String =
            lines.by_ref().take_while(|line| line.trim() != "```").flat_map(|line| [line, "\n"]).collect();
        if info.trim() == mark {
            blocks.push(block);
        }
    }
    blocks
}

fn the_quick_start_works_as_it_stands() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("there is a README.md");
    let blocks = blocks(&readme, "sh quickstart");
    assert!(!blocks.is_empty(), "no block of README.md is marked ```sh quickstart");
    let _port = usual_port();
    let folder = Folder::new();
    // What runs on behind a block ends with its shell; each line is shown before it is run.
    let script =
        format!("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\nset -xeuo pipefail\n{}", blocks.concat());
    let path = env::var_os("PATH").unwrap_or_default();
    let path =
        env::join_paths([profile()].into_iter().chain(env::split_paths(&path))).expect("no colon in a path");
    let mut bash = Peer::Bash.command();
    bash.arg(folder.write("quickstart", &script))
        .current_dir(&folder.0)
        .env("PATH", path)
        .env("HOME", &folder.0)
        .env_remove("XDG_STATE_HOME");
    let output = run(&mut bash);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn blocks_are_found_by_their_mark() {
    let text = "a\n```sh quickstart\none\ntwo\n```\n```sh\nthree\n```\n  ```sh quickstart\nfour\n  ```\n";
    assert_eq!(blocks(text, "sh quickstart"), ["one\ntwo\n", "four\n"]);
}
