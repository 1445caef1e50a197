//! The standard input and output of `connect`: all kinds, also shared with other programs.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::connect::Stream;
use crate::harness::{Case, case};
use crate::hidden::{expect, noise};
use crate::peers::Peer;
use crate::program::run;

pub(crate) const CASES: &[Case] = &[
    case("shared_pipes_stay_blocking", &[], shared_pipes_stay_blocking),
    case("shared_sockets_stay_blocking", &[], shared_sockets_stay_blocking),
    case("a_shared_terminal_stays_blocking", &[Peer::Python], a_terminal_stays_blocking),
    case("files_are_read_and_written_completely", &[], files_are_read_and_written_completely),
    case("pipes_of_another_user_work", &[Peer::Namespaces], pipes_of_another_user_work),
    case("a_full_disk_is_a_failure", &[], a_full_disk_is_a_failure),
    case("no_device_is_needed", &[Peer::Namespaces], no_device_is_needed),
];

/// Whether the open file description of this descriptor is non-blocking.
fn is_nonblocking(fd: &impl AsRawFd) -> bool {
    const O_NONBLOCK: u32 = 0o4000;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).expect("it is open");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags");
    u32::from_str_radix(flags.trim(), 8).expect("an octal number") & O_NONBLOCK != 0
}

fn start(stream: &Stream, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Child {
    let mut command = stream.command();
    command.stdin(stdin).stdout(stdout);
    command.spawn().expect("it starts")
}

fn shared_pipes_stay_blocking() {
    let stream = Stream::start();
    let (stdin, mut to) = io::pipe().expect("a pipe");
    let (mut from, stdout) = io::pipe().expect("a pipe");
    let shared = (stdin.try_clone().expect("a descriptor"), stdout.try_clone().expect("a descriptor"));
    let mut connect = start(&stream, stdin, stdout);
    let mut hidden = stream.service.accept();
    to.write_all(b"a question").expect("can write");
    expect(&mut hidden, b"a question");
    hidden.write_all(b"an answer").expect("can write");
    expect(&mut from, b"an answer");
    assert!(!is_nonblocking(&shared.0) && !is_nonblocking(&shared.1));
    connect.kill().expect("it runs");
    connect.wait().expect("a child can be waited for");
    assert!(!is_nonblocking(&shared.0) && !is_nonblocking(&shared.1));
}

fn shared_sockets_stay_blocking() {
    let stream = Stream::start();
    let (stdio, mut ours) = UnixStream::pair().expect("a pair of sockets");
    let stdin: OwnedFd = stdio.try_clone().expect("a descriptor").into();
    let stdout: OwnedFd = stdio.try_clone().expect("a descriptor").into();
    let mut connect = start(&stream, stdin, stdout);
    let mut hidden = stream.service.accept();
    let bulk = noise(3, 4 << 20);
    thread::scope(|scope| {
        scope.spawn(|| ours.try_clone().expect("a descriptor").write_all(&bulk).expect("can write"));
        let mut got = vec![0; bulk.len()];
        hidden.read_exact(&mut got).expect("all of it");
        assert!(got == bulk);
        hidden.write_all(b"an answer").expect("can write");
    });
    expect(&mut ours, b"an answer");
    assert!(!is_nonblocking(&stdio));
    drop(hidden);
    // The end of standard output is visible although other processes hold the socket.
    assert_eq!(ours.read(&mut [0]).expect("a clean end"), 0);
    ours.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert!(connect.wait().expect("a child can be waited for").success());
    assert!(!is_nonblocking(&stdio));
}

/// Python makes the terminal, because the standard library cannot.
fn a_terminal_stays_blocking() {
    const SCRIPT: &str = "
import os, pty, subprocess, sys, termios, fcntl
master, slave = pty.openpty()
mode = termios.tcgetattr(slave)
mode[1] &= ~termios.OPOST
mode[3] &= ~(termios.ECHO | termios.ICANON)
termios.tcsetattr(slave, termios.TCSANOW, mode)
program = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave)
os.write(master, b'a question')
got = b''
while len(got) < 9:
    got += os.read(master, 100)
assert got == b'an answer', got
assert not fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK
program.kill()
program.wait()
assert not fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK
";
    let stream = Stream::start();
    let command = stream.command();
    let mut python = Peer::Python.command();
    python.args(["-c", SCRIPT]).arg(command.get_program()).args(command.get_args());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut hidden = stream.service.accept();
            expect(&mut hidden, b"a question");
            hidden.write_all(b"an answer").expect("can write");
        });
        assert!(run(&mut python).status.success());
    });
}

fn files_are_read_and_written_completely() {
    let stream = Stream::start();
    let (question, answer) = (noise(1, 3 << 20), noise(2, 5 << 20));
    let stdin = stream.world.folder.write("question", "");
    fs::write(&stdin, &question).expect("a file can be written");
    let mut stdout = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(stream.world.folder.0.join("answer"))
        .expect("a new file");
    let stdin = File::open(stdin).expect("it exists");
    let mut connect = start(&stream, stdin, stdout.try_clone().expect("a descriptor"));
    let mut hidden = stream.service.accept();
    let mut got = Vec::new();
    hidden.read_to_end(&mut got).expect("a clean end");
    assert!(got == question);
    hidden.write_all(&answer).expect("can write");
    drop(hidden);
    assert!(connect.wait().expect("a child can be waited for").success());
    let mut got = Vec::new();
    stdout.rewind().expect("a file");
    stdout.read_to_end(&mut got).expect("a file");
    assert!(got == answer, "{} of {} bytes", got.len(), answer.len());
}

/// Pipes that may not be opened again: root's pipes, for a program of another user.
fn pipes_of_another_user_work() {
    let stream = Stream::start();
    let command = stream.command();
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    // The program may be in a folder that only root can enter.
    let program = fs::read(command.get_program()).expect("it is built");
    let path = std::env::temp_dir().join(format!("rendezvous-connect-{}", std::process::id()));
    fs::write(&path, program).expect("a file can be written");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("its mode can be set");
    other.arg(&path).args(command.get_args());
    let (stdin, mut to) = io::pipe().expect("a pipe");
    let (mut from, stdout) = io::pipe().expect("a pipe");
    let shared = (stdin.try_clone().expect("a descriptor"), stdout.try_clone().expect("a descriptor"));
    let child = other.stdin(stdin).stdout(stdout).spawn();
    drop(other);
    let mut connect = child.expect("it starts");
    let mut hidden = stream.service.accept();
    let bulk = noise(4, 2 << 20);
    thread::scope(|scope| {
        scope.spawn(|| to.write_all(&bulk).expect("can write"));
        let mut got = vec![0; bulk.len()];
        hidden.read_exact(&mut got).expect("all of it");
        assert!(got == bulk);
    });
    drop(to);
    let (stdin, stdout) = shared;
    assert!(!is_nonblocking(&stdin) && !is_nonblocking(&stdout));
    drop((stdin, stdout));
    hidden.write_all(&bulk).expect("can write");
    drop(hidden);
    let mut got = Vec::new();
    from.read_to_end(&mut got).expect("a clean end");
    assert!(got == bulk);
    assert!(connect.wait().expect("a child can be waited for").success());
    fs::remove_file(path).expect("it is there");
}

fn a_full_disk_is_a_failure() {
    let stream = Stream::start();
    let full = File::options().write(true).open("/dev/full").expect("a device");
    let mut connect = start(&stream, Stdio::null(), full);
    let mut hidden = stream.service.accept();
    let _ = hidden.write_all(&noise(5, 1 << 20));
    drop(hidden);
    assert_eq!(connect.wait().expect("a child can be waited for").code(), Some(1));
}

fn no_device_is_needed() {
    let stream = Stream::start();
    let command = stream.command();
    let mut bare = Command::new("unshare");
    let script = "mount -t tmpfs none /dev && exec \"$0\" \"$@\"";
    bare.args(["--mount", "sh", "-c", script]).arg(command.get_program()).args(command.get_args());
    crate::connect::greets(&stream.service, &mut bare);
}
