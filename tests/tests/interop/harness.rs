//! Runs the cases and prints the output of cargo's own harness, with 'ignored' for a case whose peer is missing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;
use std::{env, io, thread};

use crate::peers::{self, Peer};
use crate::program;

/// One test.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Peer],
    pub(crate) run: fn(),
}

/// A test with this name; the function's own name if the function needs no parameter.
pub(crate) const fn case(name: &'static str, needs: &'static [Peer], run: fn()) -> Case {
    Case { name, needs, run }
}

/// Set in the namespaces of a case that runs itself again there.
const INSIDE: &str = "RENDEZVOUS_IN_NAMESPACE";

/// Runs `body` in namespaces of its own. `namespaces` are options of `unshare`. The test program runs again there, for
/// the case `name` only.
pub(crate) fn in_own_namespaces(namespaces: &[&str], name: &str, body: fn()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let own = env::current_exe().expect("a program has a path");
    let mut again = Command::new("unshare");
    again.args(namespaces).arg(own).args(["--exact", name]);
    // The binary is built already, and there is no network to build it with.
    let output = program::run(again.env(INSIDE, "yes").env_remove("CARGO"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The result of a case.
enum Verdict {
    Passed,
    Ignored(String),
    Failed(String),
}

/// The options of `cargo test -- …`. Options without a meaning here are accepted and ignored.
#[derive(Default)]
struct Options {
    list: bool,
    exact: bool,
    only_ignored: bool,
    threads: Option<usize>,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Self {
        let threads = env::var("RUST_TEST_THREADS").ok().and_then(|n| n.parse().ok());
        let mut options = Self { threads, ..Self::default() };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                "--ignored" => options.only_ignored = true,
                "--skip" => options.skip.extend(args.next()),
                "--test-threads" => options.threads = args.next().and_then(|n| n.parse().ok()),
                "--format" | "--color" | "--logfile" | "-Z" => drop(args.next()),
                other => match other.strip_prefix("--test-threads=") {
                    Some(n) => options.threads = n.parse().ok(),
                    None if other.starts_with('-') => {}
                    None => options.filters.push(other.to_owned()),
                },
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skip.iter().any(hit)
    }
}

/// Runs the selected cases. The exit status is 101 if a case failed, as with cargo's harness.
pub(crate) fn main(groups: &[(&str, &[Case])]) -> ExitCode {
    let options = Options::read(env::args().skip(1));
    let all: Vec<(String, &Case)> = groups
        .iter()
        .flat_map(|(group, cases)| cases.iter().map(move |case| (format!("{group}::{}", case.name), case)))
        .collect();
    let count = all.len();
    let wanted: VecDeque<_> = all.into_iter().filter(|(name, _)| options.wants(name)).collect();
    if options.list {
        for (name, _) in &wanted {
            print(&format!("{name}: test\n"));
        }
        print(&format!("\n{} tests, 0 benchmarks\n", wanted.len()));
        return ExitCode::SUCCESS;
    }
    peers::build();
    // No case is marked 'ignored' by default, so selecting only those selects none.
    let wanted = if options.only_ignored { VecDeque::new() } else { wanted };
    let left_out = count - wanted.len();
    run_all(wanted, options.threads, left_out, required())
}

/// Whether a missing peer is a failure.
fn required() -> bool {
    env::var_os("RENDEZVOUS_PEERS").is_some_and(|value| value == "required")
}

fn run_all(
    wanted: VecDeque<(String, &Case)>,
    threads: Option<usize>,
    left_out: usize,
    required: bool,
) -> ExitCode {
    let started = Instant::now();
    // Most cases wait for programs and timeouts, so more of them than processors run at once.
    let cases_at_once = || thread::available_parallelism().map_or(4, |processors| 2 * processors.get());
    let threads = threads.unwrap_or_else(cases_at_once).max(1);
    print(&format!("\nrunning {} tests\n", wanted.len()));
    // A panic is printed with its case, not between the lines of another.
    panic::set_hook(Box::new(|info| program::event(format!("{info}"))));
    let queue = Mutex::new(wanted);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((name, case)) = queue.lock().expect("no case panics outside").pop_front() else {
                        break;
                    };
                    let verdict = run(case, required);
                    print(&line(&name, &verdict));
                    done.lock().expect("no case panics outside").push((name, verdict));
                }
            });
        }
    });
    let done = done.into_inner().expect("no case panics outside");
    finish(&done, left_out, started.elapsed().as_secs_f64())
}

fn run(case: &Case, required: bool) -> Verdict {
    let missing: Vec<_> =
        case.needs.iter().filter_map(|peer| peer.find().err().map(|why| (why, peer.is_optional()))).collect();
    if let Some((why, _)) = missing.iter().find(|(_, is_optional)| required && !is_optional) {
        return Verdict::Failed(format!("{why}, and RENDEZVOUS_PEERS=required\n"));
    }
    if let Some((why, _)) = missing.first() {
        return Verdict::Ignored(why.clone());
    }
    program::forget();
    match panic::catch_unwind(AssertUnwindSafe(case.run)) {
        Ok(()) => Verdict::Passed,
        Err(_) => Verdict::Failed(program::journal()),
    }
}

fn line(name: &str, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => format!("test {name} ... ok\n"),
        Verdict::Ignored(why) => format!("test {name} ... ignored, {why}\n"),
        Verdict::Failed(_) => format!("test {name} ... FAILED\n"),
    }
}

fn finish(done: &[(String, Verdict)], left_out: usize, seconds: f64) -> ExitCode {
    let failed: Vec<_> = done
        .iter()
        .filter_map(
            |(name, verdict)| if let Verdict::Failed(why) = verdict { Some((name, why)) } else { None },
        )
        .collect();
    let ignored = done.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Ignored(_))).count();
    let passed = done.len() - failed.len() - ignored;
    let mut text = String::new();
    if !failed.is_empty() {
        text.push_str("\nfailures:\n");
        for (name, why) in &failed {
            let _ = write!(text, "\n---- {name} ----\n{why}");
        }
        text.push_str("\nfailures:\n");
        for (name, _) in &failed {
            let _ = writeln!(text, "    {name}");
        }
    }
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    let _ = write!(
        text,
        "\ntest result: {result}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {left_out} filtered out; \
         finished in {seconds:.2}s\n\n",
        failed.len()
    );
    print(&text);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// One write per piece, so that lines of several threads stay whole.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    // The reader may have closed the pipe.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The harness's own tests.
pub(crate) const CASES: &[Case] = &[
    case("a_missing_peer_is_ignored_by_name", &[], a_missing_peer_is_ignored_by_name),
    case("a_missing_peer_fails_where_peers_are_required", &[], a_missing_peer_fails_where_peers_are_required),
];

const OF_NO_PEER: Case = case("of no peer", &[Peer::Nobody], || {});

fn a_missing_peer_is_ignored_by_name() {
    let verdict = run(&OF_NO_PEER, false);
    assert_eq!(line("x", &verdict), "test x ... ignored, nobody-has-this is not installed\n");
}

fn a_missing_peer_fails_where_peers_are_required() {
    let verdict = run(&OF_NO_PEER, true);
    assert_eq!(line("x", &verdict), "test x ... FAILED\n");
}
