//! The state folder, and files that are replaced atomically.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use common::Folder;
use common::cli::{command, run};
use rendezvous::state::{self, PUBLIC, SECRET, State};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn open(folder: &Folder) -> State {
    State::open(folder.file("deep/state").to_str()).unwrap()
}

#[test]
fn a_missing_folder_is_made_for_its_owner_alone() {
    let folder = Folder::new();
    let state = open(&folder);
    assert_eq!(mode(state.folder()), 0o700);
    fs::write(folder.file("a file"), "").unwrap();
    let error = State::open(folder.file("a file").to_str()).unwrap_err().to_string();
    assert!(error.contains("cannot make the folder") && error.contains("a file"), "{error}");
    assert!(State::open(Some("")).is_err());
    let missing = run(&folder, &["id", "list", "--state", "/nonexistent"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.err.contains("cannot use the state folder /nonexistent: no such file"),
        "{}",
        missing.err
    );
}

#[test]
fn the_folder_is_found_by_option_then_systemd_then_xdg_then_home() {
    let folder = Folder::new();
    let listed = |set: &[(&str, &str)], args: &[&str]| {
        let mut command = command(&folder, &[&["id", "list"], args].concat());
        command.env_clear().envs(set.iter().copied());
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let (systemd, xdg, home) = (("STATE_DIRECTORY", "/s1:/s2"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h"));
    assert!(listed(&[systemd, xdg, home], &["--state", "/o"]).contains(" /o: "));
    assert!(listed(&[systemd, xdg, home], &[]).contains(" /s1: "));
    assert!(listed(&[xdg, home], &[]).contains(" /x/rendezvous: "));
    assert!(listed(&[("XDG_STATE_HOME", "relative"), home], &[]).contains(" /h/.local/state/rendezvous: "));
    assert!(listed(&[], &[]).contains("give --state DIR"));
}

#[test]
fn a_file_is_written_whole_with_its_mode_and_leaves_nothing_beside_it() {
    let folder = Folder::new();
    let state = open(&folder);
    state.write("ids", b"one", SECRET).unwrap();
    state.write("ids", b"two", SECRET).unwrap();
    state::write_whole(&state.file("relay.crt"), b"three", PUBLIC).unwrap();
    assert_eq!(fs::read(state.file("ids")).unwrap(), b"two");
    assert_eq!((mode(&state.file("ids")), mode(&state.file("relay.crt"))), (0o600, 0o644));
    assert_eq!(fs::read_dir(state.folder()).unwrap().count(), 2);
    assert!(state::write_whole(Path::new("/nowhere/at/all"), b"", SECRET).is_err());
    assert!(state::write_whole(Path::new("/"), b"", SECRET).is_err());
}

#[test]
fn a_new_file_is_never_written_over_another_whoever_comes_first() {
    let folder = Folder::new();
    let path = folder.file("home.ticket");
    let won = AtomicU32::new(0);
    thread::scope(|scope| {
        for number in 0..16 {
            let (path, won) = (&path, &won);
            scope.spawn(move || {
                let text = format!("{number}").repeat(1000);
                if state::write_new(path, text.as_bytes(), SECRET).is_ok() {
                    won.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
    assert_eq!(mode(&path), 0o600);
    assert!(fs::read(&path).unwrap().len() >= 1000);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    let dangling = folder.file("link");
    symlink(folder.file("nowhere"), &dangling).unwrap();
    let error = state::write_new(&dangling, b"", SECRET).unwrap_err().to_string();
    assert!(error.contains("exists and is not overwritten"), "{error}");
}

#[test]
fn the_lock_lets_one_in_at_a_time() {
    let folder = Folder::new();
    let state = open(&folder);
    let counter = state.file("counter");
    fs::write(&counter, "0").unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let _lock = state.lock().unwrap();
                    let number: u32 = fs::read_to_string(&counter).unwrap().parse().unwrap();
                    fs::write(&counter, (number + 1).to_string()).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(&counter).unwrap(), "200");
    assert_eq!(mode(&state.file("lock")), 0o600);
    fs::remove_file(state.file("lock")).unwrap();
    symlink("/etc/passwd", state.file("lock")).unwrap();
    assert!(state.lock().is_err(), "a link is not followed");
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let folder = Folder::new();
    assert_eq!(run(&folder, &["id", "add", "home"]).code, 0);
    let mut child = command(&folder, &["id", "list"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
