//! `rendezvous password`, run as a user does.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use common::Folder;
use common::cli::{command, run};
use rendezvous::password_file;

/// Sets a password with this standard input.
fn set(folder: &Folder, user: &str, input: &str) -> Output {
    let mut command = command(folder, &["password", "users", user, "--cost", "4"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // The program may exit before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_password_is_set_and_set_again_in_a_file_for_its_owner_alone() {
    let folder = Folder::new();
    let path = folder.file("users");
    for (user, input) in [("anna", "first\n"), ("bert", "b\r\n"), ("anna", "second")] {
        assert!(set(&folder, user, input).status.success());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read(&path).unwrap();
    let read = password_file::parse(&text, "users").unwrap();
    assert_eq!(read.len(), 2);
    for (user, password) in [("anna", "second"), ("bert", "b")] {
        let entry = read.entry(user).unwrap();
        assert_eq!((entry.cost(), bcrypt::verify(password, entry.hash()).unwrap()), (4, true), "{user}");
    }
    assert!(!bcrypt::verify("first", read.entry("anna").unwrap().hash()).unwrap());
}

#[test]
fn what_cannot_be_a_password_or_a_user_changes_nothing() {
    let folder = Folder::new();
    assert!(set(&folder, "anna", "good\n").status.success());
    let before = fs::read(folder.file("users")).unwrap();
    let long = format!("{}\n", "x".repeat(73));
    for (user, input) in [("anna", long.as_str()), ("anna", "\n"), ("anna", "a\tb\n")] {
        let done = set(&folder, user, input);
        assert!(!done.status.success(), "{user} {input}");
        let complaint = String::from_utf8(done.stderr).unwrap();
        assert!(!complaint.contains("xxxx") && !complaint.contains("panicked"), "{complaint}");
    }
    for args in [
        &["password", "users", "a:b"][..],
        &["password", "users"],
        &["password", "users", "a", "--cost", "15"],
    ] {
        let done = run(&folder, args);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{}", done.err);
    }
    assert_eq!(fs::read(folder.file("users")).unwrap(), before);
    fs::write(folder.file("users"), "anna:plain-text\n").unwrap();
    let done = set(&folder, "bert", "good\n");
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert!(complaint.contains("users:1:") && !complaint.contains("plain-text"), "{complaint}");
}
