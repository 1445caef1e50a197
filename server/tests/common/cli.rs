//! Runs the program as a user does.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use super::Folder;

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The command in the folder, with its state in `state` there.
pub(crate) fn command<S: AsRef<OsStr>>(folder: &Folder, args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rendezvous"));
    command.args(args).current_dir(folder.path()).stdin(Stdio::null());
    command.env_clear().env("STATE_DIRECTORY", folder.file("state"));
    command
}

/// Runs the command. It must not panic, and its error must be one line.
pub(crate) fn run<S: AsRef<OsStr>>(folder: &Folder, args: &[S]) -> Done {
    let output = command(folder, args).output().expect("the program runs");
    let done = Done {
        code: output.status.code().expect("no signal ended it"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    };
    assert!(!done.err.contains("panicked"), "{}", done.err);
    assert!(done.code == 0 || done.err.lines().count() == 1, "one line: {}", done.err);
    assert!(done.code != 2 || done.out.is_empty(), "nothing on stdout: {}", done.out);
    done
}
