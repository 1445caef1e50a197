//! Runs the checked-in corpora of the fuzz targets as plain tests, with this compiler and its assertions.

use std::fs;
use std::path::Path;

use rendezvous_fuzz::TARGETS;

/// Runs every input in the corpus of a target.
fn run(target: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.expect("a folder can be read").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        // The last line before a panic names the input.
        println!("{}", file.display());
        rendezvous_fuzz::run(target, &fs::read(&file).expect("a file can be read"));
    }
}

macro_rules! corpora {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target));
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($target)),*];
    };
}

corpora! {
    acme_answers agent allowed_keys authorization challenge client_hello connector date dtcp_handshake dtcp_line dtcp_negotiation engine follower head ids matching pair password_file proxy_header response sim stanzas target ticket token trace xmpp
}

#[test]
fn every_target_has_its_corpus_and_its_binary() {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, TESTED);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for name in names {
        let binary = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).expect("a binary");
        assert!(binary.starts_with("//! Invariant: "), "{name} states its invariant in its first line");
    }
}
