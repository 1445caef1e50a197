//! A live relay on real sockets, recorded and replayed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Secrets that must not be in the file.
const PASSWORD: &str = "open-sesame";
const COOKIE: &str = "c00k1e-0f-the-client";
const PATH_SECRET: &str = "s3cr3t-path";

/// The program of this build, built once, because `cargo test -p tests` alone would use an old one, or none.
fn rendezvous() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let own = std::env::current_exe().expect("a program has a path");
        let profile = own.ancestors().nth(2).expect("a folder").to_path_buf();
        if let Some(cargo) = std::env::var_os("CARGO") {
            let name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
            let name = if name == "debug" { "dev" } else { name };
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--workspace", "--bins", "--profile", name, "--manifest-path"]);
            build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
            let built = build.arg("--target-dir").arg(profile.parent().expect("a folder")).status();
            assert!(built.is_ok_and(|status| status.success()), "the program cannot be built");
        }
        profile.join("rendezvous")
    });
    let mut command = Command::new(program);
    command.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").env_remove("JOURNAL_STREAM");
    command
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rendezvous-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A relay with a listener without TLS, and its address.
fn serve(state: &Path, trace: &Path) -> (Killed, String) {
    let mut command = rendezvous();
    command.args(["serve", "--listen-plain", "127.0.0.1:0", "--state"]).arg(state).arg("--trace").arg(trace);
    let mut child = Killed(command.stderr(Stdio::piped()).spawn().expect("it can be run"));
    let mut lines = BufReader::new(child.0.stderr.take().expect("it is piped"));
    let mut address = None;
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0), "the relay ended");
        if let Some((_, on)) = line.split_once("event=listening on=") {
            address = on.split(' ').next().map(str::to_owned);
        }
        if line.contains("event=ready") {
            break;
        }
    }
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (child, address.expect("it listens"))
}

fn dial(address: &str) -> TcpStream {
    let tcp = TcpStream::connect(address).expect("the relay listens");
    tcp.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    tcp
}

fn read(from: &mut TcpStream, bytes: usize) -> String {
    let mut all = vec![0; bytes];
    from.read_exact(&mut all).expect("it comes");
    text(&all)
}

fn read_to_end(from: &mut TcpStream) -> String {
    let mut all = Vec::new();
    from.read_to_end(&mut all).expect("it ends");
    text(&all)
}

#[test]
fn the_trace_of_a_live_relay_replays_and_contains_no_secret() {
    const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
    let folder = Folder::new("replay");
    let (state, trace) = (folder.0.join("state"), folder.0.join("relay.trace"));
    let ticket = folder.0.join("home.ticket");
    let mut add = rendezvous();
    add.args(["id", "add", "home", "--relay", "https://localhost:8443", "--tokens", "any", "--state"]);
    let added = run(add.arg(&state).arg("--out").arg(&ticket));
    assert!(added.status.success(), "{}", text(&added.stderr));
    let uri = fs::read_to_string(&ticket).expect("a ticket");
    let value = |key: &str| {
        let (_, rest) = uri.split_once(key).expect("it is in the ticket");
        rest.split(['&', '\n', ' ']).next().unwrap_or_default().to_owned()
    };
    let secret = value("secret=");
    let ids = fs::read_to_string(state.join("ids")).expect("the ids");
    let id = rendezvous_id(&ids);
    let token = |plain: bool| {
        let mut command = rendezvous();
        command.arg("token").arg("--ticket").arg(&ticket).args(plain.then_some("--plain"));
        text(&run(&mut command).stdout).trim().to_owned()
    };

    let (mut relay, address) = serve(&state, &trace);
    // A token by hand, in two pieces; a wrong one; a plain one.
    let bound = token(false);
    let mut hidden = dial(&address);
    let connect = format!("CONNECT uuid:{id}?{bound} HTTP/1.1\r\nHost: relay\r\n\r\n");
    let (front, back) = connect.split_at(80);
    hidden.write_all(front.as_bytes()).expect("it is taken");
    std::thread::sleep(Duration::from_millis(50));
    hidden.write_all(back.as_bytes()).expect("it is taken");
    assert_eq!(read(&mut hidden, OK.len()), OK);
    let mut again = dial(&address);
    again.write_all(connect.as_bytes()).expect("it is taken");
    assert!(read_to_end(&mut again).starts_with("HTTP/1.1 401 "));
    drop(again);

    // A client: challenged, then with its ID; a body after the head, and the ends one after the other.
    let mut client = dial(&address);
    let fields = format!("Host: relay\r\nCookie: session={COOKIE}\r\n");
    write!(client, "GET /{PATH_SECRET}?q={PATH_SECRET} HTTP/1.1\r\n{fields}\r\n").expect("it is taken");
    let mut challenge = Vec::new();
    while !challenge.ends_with(b"}}\n") {
        challenge.extend_from_slice(read(&mut client, 1).as_bytes());
    }
    let basic = base64(format!("{id}:{PASSWORD}").as_bytes());
    write!(
        client,
        "POST /{PATH_SECRET} HTTP/1.1\r\n{fields}Authorization: Basic {basic}\r\nContent-Length: 11\r\n\r\n{PASSWORD}"
    )
    .expect("it is taken");
    let expected = format!("POST /{PATH_SECRET} HTTP/1.1\r\n{fields}Content-Length: 11\r\n\r\n{PASSWORD}");
    assert_eq!(read(&mut hidden, expected.len()), expected);
    client.shutdown(Shutdown::Write).expect("it can end");
    assert_eq!(read_to_end(&mut hidden), "");
    hidden.write_all("x".repeat(100_000).as_bytes()).expect("it is taken");
    drop(hidden);
    assert_eq!(read_to_end(&mut client).len(), 100_000);
    drop(client);

    // A plain token, and the relay's shutdown.
    let plain = token(true);
    let mut old = dial(&address);
    write!(old, "CONNECT uuid:{id}?response={plain} HTTP/1.1\r\n\r\n").expect("it is taken");
    assert_eq!(read(&mut old, OK.len()), OK);
    let told = Command::new("kill").arg("-TERM").arg(relay.0.id().to_string()).status();
    assert!(told.is_ok_and(|status| status.success()));
    assert_eq!(read_to_end(&mut old), "");
    drop(old);
    assert!(relay.0.wait().is_ok_and(|status| status.success()));

    let mode = fs::metadata(&trace).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let recorded = fs::read_to_string(&trace).expect("it is text");
    let bound = bound.trim_start_matches("response=").split('&').next().unwrap_or_default().to_owned();
    assert_eq!(bound.len(), 32);
    for forbidden in [&*secret, &*bound, &bound[..16], &*plain, &*basic, PASSWORD, COOKIE, PATH_SECRET] {
        assert!(!recorded.contains(forbidden), "{forbidden} is in the trace:\n{recorded}");
    }
    assert!(recorded.contains("    -> pair ") && recorded.contains(" drain\n"), "{recorded}");

    let checked = run(rendezvous().arg("replay").arg(&trace).arg("--check"));
    assert!(checked.status.success(), "{}\n{recorded}", text(&checked.stderr));
    let played = run(rendezvous().arg("replay").arg(&trace));
    assert_eq!(text(&played.stdout), recorded);

    // A second trace does not overwrite the first, and differs from it.
    let mut second = rendezvous();
    second.args(["serve", "--listen-plain", "127.0.0.1:0", "--state"]).arg(&state);
    let refused = run(second.arg("--trace").arg(&trace));
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    fs::write(&trace, recorded.replacen("-> pair ", "-> pair 7", 1)).expect("it is ours");
    let differs = run(rendezvous().arg("replay").arg(&trace).arg("--check"));
    assert_eq!(differs.status.code(), Some(1));
    let complaint = text(&differs.stderr);
    let line = recorded.lines().position(|line| line.contains("-> pair ")).expect("it is there") + 1;
    assert!(complaint.contains(&format!("relay.trace:{line}: expected: pair 7")), "{complaint}");
}

/// The UUID in the file of a relay's IDs, which has one line that is not a comment.
fn rendezvous_id(ids: &str) -> String {
    let is_id = |word: &&str| rendezvous_core::id::Id::parse(word.as_bytes()).is_some();
    let mut words = ids.split(|letter: char| !(letter.is_ascii_hexdigit() || letter == '-'));
    words.find(is_id).expect("an ID").to_owned()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let value = (0..3).fold(0, |value, at| value << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = usize::try_from(value >> (18 - 6 * at) & 63).expect("six bits");
            text.push(if at <= chunk.len() { char::from(LETTERS[letter]) } else { '=' });
        }
    }
    text
}
