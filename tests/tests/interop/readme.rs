//! Runs the shell blocks of the README and the manual, as they stand or with names of this machine. A block that no test
//! runs is listed with the reason. Links between the documents are checked too.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::pebble::{Pebble, Special};
use crate::peers::{Peer, profile};
use crate::program::{Program, run};
use crate::wire::Below;
use crate::world::{Folder, World, lines, usual_port};

pub(crate) const CASES: &[Case] = &[
    case("the_quick_start_works_as_it_stands", &[Peer::Bash, Peer::Curl], the_quick_start_works_as_it_stands),
    case("the_page_with_a_lock_works", PAGE_NEEDS, the_page_with_a_lock_works),
    case("every_block_of_shell_is_run_or_listed", &[], every_block_of_shell_is_run_or_listed),
    case("the_demo_works", &[Peer::Bash], the_demo_works),
    case("a_hidden_server_by_hand_works", &[Peer::Bash, Peer::Openssl], a_hidden_server_by_hand_works),
    case("the_commands_for_systemd_work", &[Peer::Bash], the_commands_for_systemd_work),
    case("commands_that_need_others_are_accepted", &[Peer::Bash], commands_that_need_others_are_accepted),
    case("blocks_are_found_by_their_fence", &[], blocks_are_found_by_their_fence),
    case("every_link_leads_to_a_file_and_a_heading", &[], every_link_leads_to_a_file_and_a_heading),
    case("the_readme_has_at_most_250_lines", &[], the_readme_has_at_most_250_lines),
];

const PAGE_NEEDS: &[Peer] = &[Peer::Bash, Peer::Pebble, Peer::Curl];

/// The documents with commands, relative to the repository.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "server/docs/manual.md",
    "server/docs/benchmarks.md",
    "server/docs/comparison.md",
];

/// How a block of shell is tested.
enum Use {
    /// The quick start, which runs as it stands.
    QuickStart,
    /// A case of its own runs it with other names.
    OwnCase,
    /// Only the options are checked, because the block needs an XMPP server, a router or another host. Other cases run the
    /// same commands with replacements for those.
    Options,
    /// It is not run, for this reason.
    None(&'static str),
}

/// The first line of each block, and how it is tested.
const BLOCKS: &[(&str, Use)] = &[
    (DEMO, Use::OwnCase),
    (
        "# 1. The relay: enrol a hidden server named 'home', and start. The ticket is in home.ticket.",
        Use::QuickStart,
    ),
    (LOCK, Use::OwnCase),
    (SYSTEMD, Use::OwnCase),
    (BY_HAND, Use::OwnCase),
    // The cases of `end_to_end`.
    (
        "# The hidden server was enrolled with 'id add home --end-to-end'. The agent logs the pin of its key.",
        Use::OwnCase,
    ),
    // The cases of `take_over`.
    (
        "kill -USR2 \"$(pidof -s rendezvous)\"                     # the running process starts the new one, with its own arguments",
        Use::OwnCase,
    ),
    ("# Where one can be reached, at 192.0.2.7:8000 …", Use::Options),
    ("# The agent can be reached, by a port of the router's that leads to it:", Use::Options),
    ("# Somewhere that both can reach. Its log says what to give as --via.", Use::Options),
    (
        "tests/run        # fetches the programs that the tests need (curl, node, python …), then runs everything",
        Use::None("it runs this test and takes hours"),
    ),
    (
        "cargo build --profile small --no-default-features --features ring -p rendezvous-relay",
        Use::None("it rebuilds everything; CI runs it"),
    ),
    (
        "rendezvous password users anna                                    # asks for it; `htpasswd -B -C 12 users anna` does as well",
        Use::None("it reads from a terminal; the cases of password_protected.rs do the same without one"),
    ),
    (
        "cargo bench -p tests --bench relay    # the relay beside HAProxy, nginx and rathole, on the same loads",
        Use::None("it takes hours on an idle machine"),
    ),
];

const DEMO: &str = "cargo install --path server      # Rust 1.89 or later and a C compiler; puts `rendezvous` into ~/.cargo/bin";
const LOCK: &str = "# On the relay. After some seconds its log shows event=certificate-installed.";
const SYSTEMD: &str =
    "rendezvous install-units                                          # not with a package";
const BY_HAND: &str = "DIGITS=$(rendezvous token --ticket home.ticket --plain)";

/// The folder of the repository.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the project has a folder")
}

/// Every fenced block of shell: the rest of the line after `sh`, and the text.
fn blocks_of(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let block: String =
            lines.by_ref().take_while(|line| line.trim() != "```").flat_map(|line| [line, "\n"]).collect();
        let mut words = info.split_whitespace();
        if matches!(words.next(), Some("sh" | "bash" | "shell" | "console")) {
            blocks.push((words.collect::<Vec<_>>().join(" "), block));
        }
    }
    blocks
}

fn document(name: &str) -> String {
    fs::read_to_string(project().join(name)).unwrap_or_else(|error| panic!("cannot read {name}: {error}"))
}

/// The shell blocks of all documents.
fn blocks() -> Vec<(String, String)> {
    DOCUMENTS.iter().flat_map(|name| blocks_of(&document(name))).collect()
}

fn first_line(block: &str) -> &str {
    block.lines().next().unwrap_or_default()
}

/// The block with this first line.
fn block(first: &str) -> String {
    let found = blocks().into_iter().find(|(_, block)| first_line(block) == first);
    found.unwrap_or_else(|| panic!("no document has a block with the first line: {first}")).1
}

/// A bash that runs the script in the folder. The path begins with `stand_ins` and the folder of our binary. The shell
/// prints each line before it runs it, and kills its background jobs when it ends.
fn bash(folder: &Folder, stand_ins: Option<&Path>, script: &str) -> Command {
    let script =
        format!("trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\nset -xeuo pipefail\n{script}");
    let path = env::var_os("PATH").unwrap_or_default();
    let own = stand_ins.map(Path::to_owned).into_iter().chain([profile()]);
    let path = env::join_paths(own.chain(env::split_paths(&path))).expect("no colon in a path");
    let mut bash = Peer::Bash.command();
    bash.arg(folder.write("script", &script))
        .current_dir(&folder.0)
        .env("PATH", path)
        .env("HOME", &folder.0)
        .env_remove("XDG_STATE_HOME")
        .env_remove("STATE_DIRECTORY");
    bash
}

fn runs(bash: &mut Command) {
    let output = run(bash);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Writes a script that replaces the program `name`, and returns its folder for the path.
fn stand_in(folder: &Folder, name: &str, script: &str) -> PathBuf {
    let programs = folder.0.join("programs");
    fs::create_dir_all(&programs).expect("a folder can be made");
    let program = programs.join(name);
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a file can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    programs
}

fn the_quick_start_works_as_it_stands() {
    let blocks: Vec<_> = blocks().into_iter().filter(|(mark, _)| mark == "quickstart").collect();
    assert!(!blocks.is_empty(), "no document has a block marked ```sh quickstart");
    let script: String = blocks.into_iter().map(|(_, block)| block).collect();
    let _port = usual_port();
    runs(&mut bash(&Folder::new(), None, &script));
}

fn every_block_of_shell_is_run_or_listed() {
    let blocks = blocks();
    for (mark, block) in &blocks {
        let first = first_line(block);
        let listed = BLOCKS.iter().find(|(line, _)| *line == first);
        let (_, how) = listed.unwrap_or_else(|| {
            panic!("no test runs the block with the first line: {first}\nAdd it to BLOCKS, and run it")
        });
        let marked = mark == "quickstart";
        assert_eq!(matches!(how, Use::QuickStart), marked, "{first}");
    }
    for (line, how) in BLOCKS {
        assert!(
            blocks.iter().any(|(_, block)| first_line(block) == *line),
            "no document has the block: {line}"
        );
        assert!(!matches!(how, Use::None("")), "{line}: no reason given");
    }
}

/// A script replaces `cargo`, because `cargo install` would rebuild everything.
fn the_demo_works() {
    let folder = Folder::new();
    let programs = stand_in(&folder, "cargo", "exit 0");
    let _port = usual_port();
    let script = block(DEMO).replace("rendezvous demo ", "rendezvous demo --once ");
    assert!(script.contains("--once"), "{script}");
    runs(&mut bash(&folder, Some(&programs), &script));
}

/// Pebble is the CA. Its validators come to another port, and the agent connects to this machine.
fn the_page_with_a_lock_works() {
    let pebble = Pebble::start(Special::default());
    let (folder, port, service) = (Folder::new(), pebble.validated, page());
    let ca = folder.0.join(".local/state/rendezvous/relay.crt");
    let script = block(LOCK)
        .replace("[::]:443", &format!("127.0.0.1:{port}"))
        .replace("--acme --acme-agree-tos", &pebble.options().join(" "))
        .replace("https://relay.example.com", &format!("https://localhost:{port} --ca {}", ca.display()))
        // Killing the shell ends the program then.
        .replace("rendezvous serve", "exec rendezvous serve")
        .replace("rendezvous agent", "exec rendezvous agent")
        .replace("127.0.0.1:8080", &service.to_string());
    let (serve, rest) = script.split_once("# On the relay, in a second terminal:\n").expect("two terminals");
    let (add, agent) = rest.split_once("# At home").expect("two machines");
    let relay = Program::start("relay", &mut bash(&folder, None, serve));
    relay.expect_line("event=certificate-installed name=\"relay.example.com\" ");
    runs(&mut bash(&folder, None, add));
    relay.expect_line("event=certificate-installed name=\"home.relay.example.com\" ");
    let agent = Program::start("agent", &mut bash(&folder, None, &format!("# {agent}")));
    agent.expect_line(lines::WAITING);
    let opened = pebble.open_at(port, "home.relay.example.com");
    assert!(opened.is_ok(), "{opened:?}");
}

fn a_hidden_server_by_hand_works() {
    let world = World::new();
    let home = world.enrol("home", &["--tokens", "any"]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let script = block(BY_HAND)
        .replace("home.ticket", &ticket.display().to_string())
        .replace("uuid:ID", &format!("uuid:{}", home.id))
        .replace("relay.example.com:8443", &relay.tls.to_string());
    let by_hand = Program::start("by hand", &mut bash(&world.folder, None, &script));
    by_hand.expect_line("HTTP/1.1 200 OK");
    relay.program.expect_line(lines::WAITING);
}

/// A script replaces `systemctl` and starts the relay as its unit does.
fn the_commands_for_systemd_work() {
    let folder = Folder::new();
    let state = folder.0.join("state").display().to_string();
    let units = folder.0.join("root/etc/systemd/system");
    let enable = format!(
        "for unit in \"$@\"; do case $unit in\n\
         daemon-reload) test -f '{units}/rendezvous.service';;\n\
         rendezvous.service) timeout 60 rendezvous serve --state '{state}' --listen 127.0.0.1:0 > relay.log 2>&1 &\n\
         until rendezvous status --state '{state}' > /dev/null 2>&1; do kill -0 $! || exit 1; done;;\n\
         rendezvous*.service) test -f \"{units}/$(echo $unit | sed s/@.*[.]/@./)\";;\n\
         esac; done",
        units = units.display()
    );
    let programs = stand_in(&folder, "systemctl", &enable);
    let script = block(SYSTEMD)
        .replace("install-units ", &format!("install-units --root '{}/root' ", folder.0.display()))
        .replace("/var/lib/rendezvous", &state);
    // The relay is not a child of this shell, so the trap of `bash` does not kill it.
    let script = format!(
        "{script}kill $(rendezvous status --json --state '{state}' | grep -o '\"pid\":[0-9]*' | cut -d: -f2)\n"
    );
    runs(&mut bash(&folder, Some(&programs), &script));
}

/// The program accepts every command line. The commands may still fail, because the other hosts do not exist.
fn commands_that_need_others_are_accepted() {
    let folder = Folder::new();
    let mut add = Command::new(profile().join("rendezvous"));
    add.args(["id", "add", "home", "--state", "state", "--relay", "https://127.0.0.1:1"])
        .current_dir(&folder.0);
    assert!(run(&mut add).status.success());
    for name in ["secret", "proxy.secret", "a.secret", "b.secret"] {
        folder.write(name, "secret\n");
    }
    let rendezvous = profile().join("rendezvous");
    // Exit code 2 is wrong usage. A program that still runs after a second has accepted its options.
    let program = format!(
        "echo \"$*\" >> '{0}/ran'\ntimeout 1 '{1}' \"$@\" < /dev/null\n[ $? != 2 ] || echo \"$*\" >> '{0}/refused'\ncat > /dev/null",
        folder.0.display(),
        rendezvous.display()
    );
    stand_in(&folder, "rendezvous", &program);
    stand_in(&folder, "tar", "echo archive");
    let programs = stand_in(&folder, "ssh", "sh -c \"$(echo \"${2#ProxyCommand=}\" | tr '\\n' ' ')\"");
    let mut wanted = 0;
    for (first, how) in BLOCKS {
        if !matches!(how, Use::Options) {
            continue;
        }
        let script = block(first)
            .replace(" ID ", " 2f402f80-da50-41e1-9b23-0123456789ab ")
            .replace("sha256//…", "sha256//CkjRtbnzTHoYyqR2gDoeQ5pUkeh3cHJ7ApdhcGvEeXc=")
            .replace("relay.example.com:8443", "127.0.0.1:1")
            .replace("localhost:5347", "127.0.0.1:1")
            .replace("127.0.0.1:5347", "127.0.0.1:1");
        wanted += script.matches("rendezvous ").count();
        runs(&mut bash(&folder, Some(&programs), &script));
    }
    let read = |name: &str| fs::read_to_string(folder.0.join(name)).unwrap_or_default();
    assert_eq!(read("refused"), "", "wrong usage");
    assert_eq!(read("ran").lines().count(), wanted, "{}", read("ran"));
}

fn blocks_are_found_by_their_fence() {
    let text =
        "a\n```sh quickstart\none\ntwo\n```\n```lua\nthree\n```\n  ```sh\nfour\n  ```\n```\nfive\n```\n";
    let found = [("quickstart", "one\ntwo\n"), ("", "four\n")];
    assert_eq!(blocks_of(text), found.map(|(mark, block)| (mark.to_owned(), block.to_owned())));
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    };
    headings.map(anchor).collect()
}

fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for name in DOCUMENTS.iter().chain(&["SECURITY.md", "CHANGELOG.md"]) {
        let text = document(name);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(name).parent().expect("a file has a folder");
            let file = if file.is_empty() { PathBuf::from(name) } else { folder.join(file) };
            let linked = fs::read_to_string(project().join(file));
            let found =
                linked.is_ok_and(|text| heading.is_empty() || anchors(&text).iter().any(|it| it == heading));
            if !found {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken links: {broken:#?}");
    assert_eq!(anchors("# A\n## `b C`, d\n"), ["a", "b-c-d"]);
}

/// Reference material belongs in the manual.
fn the_readme_has_at_most_250_lines() {
    let lines = document("README.md").lines().count();
    assert!(lines <= 250, "README.md has {lines} lines");
}
