//! Reading files: what is refused, and that it never blocks.

mod common;

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::Folder;
use common::cli::run;
use rendezvous::files::{FileKind, check_folder, read, read_if_exists, read_text};

/// A user without files.
const NOBODY: u32 = 65_534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn secret(path: PathBuf) -> PathBuf {
    fs::write(&path, "secret").unwrap();
    set_mode(&path, 0o600);
    path
}

fn folder_in(folder: &Folder, name: &str, mode: u32) -> PathBuf {
    let path = folder.file(name);
    fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    set_mode(&path, mode);
    path
}

fn fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is NUL-terminated.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

fn refusal(path: &Path, kind: FileKind) -> String {
    read(path, kind).expect_err("it is refused").to_string()
}

/// Starts a copied program. Retries while another test's child has the copy open between its fork and exec.
fn spawn(command: &mut Command) -> Child {
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            spawned => return spawned.unwrap(),
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_the_command_that_helps() {
    let folder = Folder::new();
    let path = secret(folder.file("secret"));
    for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
        set_mode(&path, mode);
        let read = read(&path, FileKind::SECRET);
        assert_eq!(read.is_ok(), fine, "{mode:o}");
        if let Err(error) = read {
            let path = path.display();
            let expected =
                format!("cannot read secret {path}: others may open it (mode {mode:04o}): chmod 600 {path}");
            assert_eq!(error.to_string(), expected);
        }
    }
    assert!(refusal(&folder.file("missing"), FileKind::SECRET).contains("no such file"));
    assert!(read_if_exists(&folder.file("missing"), FileKind::IDS).unwrap().is_none());
}

#[test]
fn what_is_not_a_regular_file_is_refused_at_once() {
    let folder = Folder::new();
    fifo(&folder.file("fifo"));
    symlink(folder.file("fifo"), folder.file("link")).unwrap();
    let _socket = UnixListener::bind(folder.file("socket")).unwrap();
    let cases = [
        (folder.file("fifo"), "a FIFO"),
        (folder.file("link"), "a FIFO"),
        (folder.file("socket"), "a socket"),
        (PathBuf::from("/dev/zero"), "a device"),
        (folder.path().to_owned(), "a folder"),
    ];
    for (path, what) in &cases {
        for kind in [FileKind::CONFIG, FileKind::CERTIFICATE, FileKind::TICKET, FileKind::KEY, FileKind::IDS]
        {
            let error = refusal(path, kind);
            assert!(error.ends_with(&format!(": it is {what}, not a regular file")), "{error}");
        }
    }
}

#[test]
fn an_empty_file_name_is_called_empty() {
    assert_eq!(refusal(Path::new(""), FileKind::TICKET), "cannot read ticket: the file name is empty");
}

#[test]
fn every_option_that_takes_a_file_refuses_a_device_and_a_fifo() {
    let folder = Folder::new();
    let name = |name: &str| folder.file(name).to_str().unwrap().to_owned();
    fifo(&folder.file("fifo"));
    let key_uri = "otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    fs::write(folder.file("ca.ticket"), format!("relay https://127.0.0.1:1\nca fifo\nid {key_uri}\n"))
        .unwrap();
    set_mode(&folder.file("ca.ticket"), 0o600);
    let id = "2f402f80-da50-41e1-9b23-0123456789ab";
    let xmpp = ["--xmpp", "127.0.0.1:1", "--component", "a.example.org", "--as", "a@a.example.org/a"];
    for file in ["/dev/zero", &name("fifo")] {
        let dtcp = [&["dtcp", "accept"][..], &xmpp, &["--secret-file", file]].concat();
        let stream = [&["stream", "accept"][..], &xmpp, &["--secret-file", file]].concat();
        let cases: [&[&str]; 10] = [
            &["serve", "--config", file],
            &["serve", "--listen", "127.0.0.1:0", "--cert", file, "--key", file],
            &["agent", "--config", file],
            &["agent", "--ticket", file, "--to", "127.0.0.1:1"],
            &["check", "--ticket", file],
            &["token", "--ticket", file],
            &["connect", "https://127.0.0.1:1", id, "--ca", file],
            &["id", "add", "home", "--secret-file", file],
            &dtcp,
            &stream,
        ];
        for args in cases {
            let done = run(&folder, args);
            assert_eq!(done.code, 1, "{args:?}: {}", done.err);
            assert!(done.err.contains("not a regular file"), "{args:?}: {}", done.err);
        }
    }
    let done = run(&folder, &["agent", "--ticket", &name("ca.ticket"), "--to", "127.0.0.1:1"]);
    assert!(done.err.contains("fifo: it is a FIFO, not a regular file"), "{}", done.err);
}

#[test]
fn a_file_that_is_too_large_is_refused_with_its_limit() {
    let folder = Folder::new();
    let path = folder.file("file");
    fs::File::create(&path).unwrap().set_len((64 << 10) + 1).unwrap();
    set_mode(&path, 0o600);
    assert!(refusal(&path, FileKind::TICKET).ends_with(": it is larger than 64 KiB"));
    assert!(read(&path, FileKind::CONFIG).is_ok());
    fs::File::options().write(true).open(&path).unwrap().set_len((16 << 20) + 1).unwrap();
    assert!(refusal(&path, FileKind::CONFIG).ends_with(": it is larger than 1 MiB"));
    assert!(refusal(&path, FileKind::CERTIFICATE).ends_with(": it is larger than 16 MiB"));
    // Files without a size are limited as well.
    assert!(read(Path::new("/proc/self/status"), FileKind::CONFIG).is_ok());
}

#[test]
fn a_byte_order_mark_is_left_out_and_utf_16_is_refused() {
    let folder = Folder::new();
    let path = folder.file("file");
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        set_mode(&path, 0o600);
    };
    write(b"\xef\xbb\xbflog off\n");
    assert_eq!(read_text(&path, FileKind::CONFIG).unwrap().unwrap(), "log off\n");
    for utf_16 in [&b"\xff\xfel\0o\0g\0"[..], b"\xfe\xff\0l\0o\0g"] {
        write(utf_16);
        assert!(refusal(&path, FileKind::TICKET).ends_with(": it is UTF-16: save it as UTF-8"));
    }
    write(b"one\ntwo\n\xff\n");
    assert_eq!(read_text(&path, FileKind::CONFIG).unwrap(), Err(3), "the line");
}

#[test]
fn a_secret_in_a_folder_that_others_can_write_to_is_refused() {
    let folder = Folder::new();
    for (mode, why) in [
        (0o777, Some("everybody can write to the folder")),
        (0o703, Some("everybody can write to the folder")),
        (0o1777, None),
        (0o755, None),
    ] {
        let open = folder_in(&folder, &format!("{mode:o}"), mode);
        let inner = open.join("inner");
        fs::create_dir(&inner).unwrap();
        for path in [secret(open.join("secret")), secret(inner.join("secret"))] {
            match (read(&path, FileKind::TICKET), why) {
                (Ok(_), None) => {}
                (Err(error), Some(why)) => {
                    let error = error.to_string();
                    let help = format!("(mode {mode:04o}): chmod o-w {}", open.display());
                    assert!(error.contains(why) && error.ends_with(&help), "{error}");
                }
                (read, why) => panic!("{mode:o}: {read:?}, not {why:?}"),
            }
            assert!(read(&path, FileKind::CONFIG).is_ok(), "it holds no secret");
        }
        assert_eq!(check_folder(&open, false).is_err(), why.is_some());
    }
}

#[test]
fn a_link_of_ones_own_is_followed_and_its_folders_are_checked() {
    let folder = Folder::new();
    // The layout of Kubernetes secrets.
    let mount = folder_in(&folder, "mount", 0o1777);
    let data = mount.join("..2026_11_30");
    fs::create_dir(&data).unwrap();
    secret(data.join("ticket"));
    symlink("..2026_11_30", mount.join("..data")).unwrap();
    symlink("..data/ticket", mount.join("ticket")).unwrap();
    assert_eq!(*read(&mount.join("ticket"), FileKind::TICKET).unwrap(), b"secret");
    // The folder of the link is writable, or that of its target.
    let open = folder_in(&folder, "open", 0o777);
    symlink(data.join("ticket"), open.join("ticket")).unwrap();
    assert!(refusal(&open.join("ticket"), FileKind::TICKET).contains("everybody can write"));
    secret(open.join("target"));
    symlink(open.join("target"), mount.join("to-open")).unwrap();
    assert!(refusal(&mount.join("to-open"), FileKind::TICKET).contains("everybody can write"));
    symlink("circle", mount.join("circle")).unwrap();
    assert!(read(&mount.join("circle"), FileKind::TICKET).is_err());
}

#[test]
fn secrets_folders_and_links_of_another_user_are_refused() {
    if !is_root() {
        return; // nobody else can give files away
    }
    let folder = Folder::new();
    set_mode(folder.path(), 0o755);
    let path = secret(folder.file("secret"));
    chown(&path, Some(NOBODY), None).unwrap();
    let shown = path.display();
    assert_eq!(
        refusal(&path, FileKind::TICKET),
        format!(
            "cannot read ticket {shown}: it belongs to nobody, not to root (mode 0600): chown root {shown}"
        )
    );
    for kind in [FileKind::SECRET, FileKind::KEY, FileKind::IDS, FileKind::STATE_KEY] {
        assert!(refusal(&path, kind).contains("it belongs to nobody"));
    }
    let theirs = folder_in(&folder, "theirs", 0o755);
    let own = secret(theirs.join("secret"));
    chown(&theirs, Some(NOBODY), None).unwrap();
    assert!(refusal(&own, FileKind::TICKET).ends_with("theirs belongs to nobody"));
    assert!(check_folder(&theirs, false).is_err());
    chown(&path, Some(0), None).unwrap();
    let link = folder.file("link");
    symlink(&path, &link).unwrap();
    assert!(read(&link, FileKind::TICKET).is_ok());
    lchown(&link, Some(NOBODY), None).unwrap();
    assert!(refusal(&link, FileKind::TICKET).ends_with("link belongs to nobody"));
}

#[test]
fn a_group_may_read_a_key_of_roots_alone() {
    if !is_root() {
        return; // nobody else can give files away
    }
    let folder = Folder::new();
    let path = secret(folder.file("key"));
    for (mode, fine) in [(0o640, true), (0o660, false), (0o644, false)] {
        set_mode(&path, mode);
        assert_eq!(read(&path, FileKind::KEY).is_ok(), fine, "{mode:o}");
        assert!(read(&path, FileKind::TICKET).is_err(), "{mode:o}");
    }
}

#[test]
fn root_enrols_for_the_user_of_the_state_folder_but_does_not_serve_from_it() {
    if !is_root() {
        return; // nobody else acts for others
    }
    let folder = Folder::new();
    set_mode(folder.path(), 0o755);
    assert_eq!(run(&folder, &["id", "add", "home", "--relay", "https://127.0.0.1:1"]).code, 0);
    let state = folder.file("state");
    for entry in fs::read_dir(&state).unwrap() {
        chown(entry.unwrap().path(), Some(NOBODY), None).unwrap();
    }
    let refused = run(&folder, &["id", "list"]);
    assert!(refused.err.contains("it belongs to nobody"), "the folder is still root's: {}", refused.err);
    chown(&state, Some(NOBODY), None).unwrap();
    assert_eq!(run(&folder, &["id", "list"]).code, 0);
    assert_eq!(run(&folder, &["id", "add", "b", "--relay", "https://127.0.0.1:1"]).code, 0);
    assert_eq!(fs::metadata(state.join("ids")).unwrap().uid(), NOBODY);
    let refused = run(&folder, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.err.contains("state belongs to nobody"), "{}", refused.err);
    // A link in it may point to root's own files.
    fs::rename(state.join("ids"), folder.file("elsewhere")).unwrap();
    chown(folder.file("elsewhere"), Some(0), None).unwrap();
    symlink(folder.file("elsewhere"), state.join("ids")).unwrap();
    lchown(state.join("ids"), Some(NOBODY), None).unwrap();
    let refused = run(&folder, &["id", "list"]);
    assert!(refused.err.contains("the symbolic link"), "{}", refused.err);
}

#[test]
fn a_state_folder_that_everybody_can_write_to_is_refused() {
    let folder = Folder::new();
    assert_eq!(run(&folder, &["id", "add", "home"]).code, 0);
    set_mode(&folder.file("state"), 0o777);
    for args in [&["id", "list"][..], &["id", "add", "b"], &["serve", "--listen", "127.0.0.1:0"]] {
        let done = run(&folder, args);
        assert_eq!(done.code, 1);
        assert!(done.err.contains("(mode 0777): chmod o-w"), "{}", done.err);
    }
}

#[test]
fn permission_denied_names_the_mode_and_the_owner() {
    if !is_root() {
        return; // nobody else becomes another user
    }
    let folder = Folder::new();
    set_mode(folder.path(), 0o755);
    secret(folder.file("home.ticket"));
    // A program that the other user may run.
    let program = folder.file("rendezvous");
    fs::copy(env!("CARGO_BIN_EXE_rendezvous"), &program).unwrap();
    set_mode(&program, 0o755);
    let mut token = Command::new(&program);
    token.args(["token", "--ticket", "home.ticket"]).current_dir(folder.path()).uid(NOBODY).gid(NOBODY);
    token.stdout(Stdio::null()).stderr(Stdio::piped());
    let output = spawn(&mut token).wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "rendezvous: token: cannot read ticket home.ticket: permission denied (mode 0600, owner root)\n"
    );
    // The user's own ticket is read in the same folder, and so is one of root's that the user can read.
    chown(folder.file("home.ticket"), Some(NOBODY), None).unwrap();
    let output = spawn(&mut token).wait_with_output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("home.ticket:1: "));
}

#[test]
fn every_command_gives_up_its_privileges() {
    let folder = Folder::new();
    set_mode(folder.path(), 0o777);
    let program = folder.file("rendezvous");
    fs::copy(env!("CARGO_BIN_EXE_rendezvous"), &program).unwrap();
    set_mode(&program, 0o755);
    fs::create_dir(folder.file("own")).unwrap();
    let secret = secret(folder.file("own/secret"));
    let user = if is_root() { NOBODY } else { fs::metadata("/proc/self").unwrap().uid() };
    for own in [&folder.file("own"), &secret] {
        chown(own, Some(user), None).unwrap();
    }
    set_mode(folder.path(), 0o755);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let id = "2f402f80-da50-41e1-9b23-0123456789ab";
    let relay = format!("http://{at}");
    let xmpp = ["--xmpp", &at, "--component", "a.example.org", "--as", "a@a.example.org/a"];
    let xmpp = [&xmpp[..], &["--secret-file", "secret"]].concat();
    // Each one waits: for standard input, for a server, for connections.
    let commands = [
        vec!["id", "add", "home", "--state", "state", "--secret-file", "-"],
        vec!["connect", &relay, id, "--listen", "127.0.0.1:0"],
        [&["dtcp", "accept"][..], &xmpp].concat(),
        [&["stream", "accept"][..], &xmpp].concat(),
        vec!["demo"],
    ];
    for args in commands {
        let mut command = Command::new(&program);
        command.args(&args).current_dir(folder.file("own")).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = spawn(&mut command);
        let of = |name: &str| format!("/proc/{}/{name}", child.id());
        let status = loop {
            let status = fs::read_to_string(of("status")).unwrap();
            let has_ended = status.contains("State:\tZ");
            if status.contains("NoNewPrivs:\t1") || has_ended {
                break status;
            }
            std::thread::yield_now();
        };
        let limits = fs::read_to_string(of("limits")).unwrap();
        // The files of a process that cannot be dumped belong to root (proc(5)).
        let owner = fs::metadata(of("status")).unwrap().uid();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{args:?}: {status}");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{args:?}: {core}");
        assert_eq!(owner, 0, "{args:?}: it can be dumped");
    }
}
