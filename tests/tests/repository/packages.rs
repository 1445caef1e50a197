//! Packages for the registry: each has its licences and its README, and every file that its sources include. `cargo
//! package` alone would notice a missing file only after it has compiled the package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::root;

/// The packages, and their folders.
const PACKAGES: [(&str, &str); 2] = [("rendezvous-core", "core"), ("rendezvous-relay", "server")];

/// The files of a package, relative to its folder.
fn packaged(package: &str) -> BTreeSet<PathBuf> {
    let listed = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "--quiet", "--package", package])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(listed.status.success(), "{package}: {}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).expect("names are UTF-8").lines().map(PathBuf::from).collect()
}

/// The files that a source includes (`include_str!`, `include_bytes!`), relative to the folder of the package.
fn included(source: &Path, text: &str) -> Vec<PathBuf> {
    let folder = source.parent().unwrap_or(Path::new(""));
    let after = ["include_str!(\"", "include_bytes!(\""].map(|start| text.split(start).skip(1));
    after
        .into_iter()
        .flatten()
        .filter_map(|rest| rest.split_once("\")"))
        .map(|(name, _)| normalized(&folder.join(name)))
        .collect()
}

/// A path without `..`. One that leaves the package starts with `..`.
fn normalized(path: &Path) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir if parts.last().is_some_and(|last| *last != Component::ParentDir) => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.into_iter().collect()
}

#[test]
fn packages_for_the_registry_are_complete() {
    for (package, folder) in PACKAGES {
        let files = packaged(package);
        for name in ["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"] {
            assert!(files.contains(Path::new(name)), "{package} lacks {name}");
        }
        for source in files.iter().filter(|file| file.extension().is_some_and(|it| it == "rs")) {
            let text = fs::read_to_string(root().join(folder).join(source)).expect("listed files exist");
            for needed in included(source, &text) {
                assert!(
                    files.contains(&needed),
                    "{package}: {} needs {}",
                    source.display(),
                    needed.display()
                );
            }
        }
    }
}

#[test]
fn an_included_file_outside_of_the_package_is_found() {
    let of = |text| included(Path::new("src/command/help.rs"), text);
    assert_eq!(of(r#"include_str!("../../man/help.md")"#), [Path::new("man/help.md")]);
    assert_eq!(
        of(r#"include_bytes!("page.html"), include_str!("../../../README.md")"#)[0],
        Path::new("../README.md")
    );
}
