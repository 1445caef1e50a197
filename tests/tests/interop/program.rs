//! A program under test. Its output lines are collected and awaited, and it is ended by its own process ID.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The timeout for every awaited event, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    /// What the running case of this thread started and logged, printed if it fails.
    static JOURNAL: RefCell<Vec<Arc<Log>>> = const { RefCell::new(Vec::new()) };

    /// Whether this is the thread of a case, not one that a case started.
    static OF_A_CASE: Cell<bool> = const { Cell::new(false) };
}

/// The lines of one program, in order, from both of its outputs.
pub(crate) struct Log {
    name: String,
    state: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// The number of outputs that have not ended.
    open: usize,
    /// The reader thread has stopped reading.
    paused: bool,
    parked: usize,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a case with an empty journal.
pub(crate) fn forget() {
    JOURNAL.take();
    OF_A_CASE.set(true);
}

/// Adds a line to the journal of this thread's case. In a thread without a case it is printed at once.
pub(crate) fn event(line: String) {
    if !OF_A_CASE.get() {
        return eprintln!("{line}");
    }
    let lines = Lines { lines: vec![line], ..Lines::default() };
    let log = Log { name: "test".to_owned(), state: Mutex::new(lines), more: Condvar::new() };
    JOURNAL.with_borrow_mut(|journal| journal.push(Arc::new(log)));
}

/// Everything that this thread's case logged and its programs printed.
pub(crate) fn journal() -> String {
    let mut text = String::new();
    for log in JOURNAL.take() {
        let state = log.lock();
        let left_out = state.lines.len().saturating_sub(200);
        if left_out > 0 {
            let _ = writeln!(text, "[{}] … {left_out} lines left out", log.name);
        }
        for line in &state.lines[left_out..] {
            let _ = writeln!(text, "[{}] {line}", log.name);
        }
    }
    text
}

/// A running program. It is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    log: Arc<Log>,
    readers: usize,
}

/// The standard error of a program, whose reader can stop.
pub(crate) struct Stallable {
    log: Arc<Log>,
    /// The writing end of the program's pipe, non-blocking.
    writer: File,
}

impl Stallable {
    /// Stops reading, and fills the pipe: the program's next line does not fit.
    pub(crate) fn stall(&self) {
        self.log.lock().paused = true;
        self.fill();
        let mut state = self.log.lock();
        while state.parked == 0 {
            state = self.log.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.fill();
    }

    /// Continues to read.
    pub(crate) fn go_on(self) {
        self.log.lock().paused = false;
        self.log.more.notify_all();
    }

    fn fill(&self) {
        fill(&self.writer);
    }
}

fn fill(mut pipe: &File) {
    loop {
        match pipe.write(b"filler\n") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("cannot fill the pipe: {error}"),
        }
    }
}

/// A second, non-blocking description of the writing end of a pipe.
fn open_again(writer: &PipeWriter) -> File {
    const O_NONBLOCK: i32 = 0o4000;
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    File::options().write(true).custom_flags(O_NONBLOCK).open(path).expect("the pipe again")
}

/// A full pipe that nothing reads.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    fill(&open_again(&writer));
    (reader, writer)
}

impl Program {
    /// Starts it with both outputs collected and an empty standard input.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self::spawn(name, command)
    }

    /// Starts it with this standard input, and both outputs collected.
    pub(crate) fn start_with(name: &str, command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        command.stdin(stdin).stdout(Stdio::piped());
        Self::spawn(name, command)
    }

    /// Starts it with standard input and output controlled by the test. Only stderr is collected.
    pub(crate) fn start_piped(
        name: &str,
        command: &mut Command,
    ) -> (Self, ChildStdin, std::process::ChildStdout) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        (Self::gather(name, child), stdin, stdout)
    }

    /// Starts it with a standard error whose reader the test can stop.
    pub(crate) fn start_stallable(name: &str, command: &mut Command) -> (Self, Stallable) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let own = open_again(&writer);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        // The command holds the pipe too, so it would not end with the program.
        command.stderr(Stdio::null());
        let mut program = Self::gather(name, child);
        program.readers += 1;
        follow(&program.log, reader);
        let stallable = Stallable { log: Arc::clone(&program.log), writer: own };
        (program, stallable)
    }

    /// Starts it with this standard output, and its standard error collected.
    pub(crate) fn start_printing_to(name: &str, command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        command.stdin(Stdio::null()).stdout(stdout);
        Self::spawn(name, command)
    }

    /// Starts it with a file as its standard error.
    pub(crate) fn start_logging_to(name: &str, command: &mut Command, file: &Path) -> Self {
        let log = File::create(file).expect("a file can be made");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self::gather(name, child)
    }

    /// Awaits the first line of its file for which `pick` returns a value.
    pub(crate) fn until_in_file<T>(
        &mut self,
        file: &Path,
        what: &str,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(file).unwrap_or_default();
            if let Some(picked) = text.lines().find_map(&mut pick) {
                return picked;
            }
            let ended = self.child.try_wait().expect("a child can be waited for").is_some();
            assert!(!ended && Instant::now() < until, "{} never said {what}: {text}", self.log.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn spawn(name: &str, command: &mut Command) -> Self {
        command.stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self::gather(name, child)
    }

    fn gather(name: &str, mut child: Child) -> Self {
        let log = Arc::new(Log { name: name.to_owned(), state: Mutex::default(), more: Condvar::new() });
        JOURNAL.with_borrow_mut(|journal| journal.push(Arc::clone(&log)));
        let mut readers = 0;
        if let Some(out) = child.stdout.take() {
            readers += 1;
            follow(&log, out);
        }
        if let Some(err) = child.stderr.take() {
            readers += 1;
            follow(&log, err);
        }
        Self { child, log, readers }
    }

    /// Awaits the first line, from the start, for which `pick` returns a value.
    pub(crate) fn pick<T>(&self, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        self.await_lines(what, PATIENCE, |lines| lines.iter().find_map(|line| pick(line)))
    }

    /// Awaits a line that contains this text.
    pub(crate) fn expect_line(&self, text: &str) {
        self.expect_lines(text, 1);
    }

    /// Awaits this many lines that contain the text.
    pub(crate) fn expect_lines(&self, text: &str, times: usize) {
        let what = format!("{text:?} {times} times");
        self.await_lines(&what, PATIENCE, |lines| (count(lines, text) >= times).then_some(()));
    }

    /// Awaits this many lines that contain the text, and fails if there are more. Output that a program wrote before an
    /// effect that is seen elsewhere may still be in transit, so counting alone would be too early.
    pub(crate) fn expect_exactly(&self, text: &str, times: usize) {
        self.expect_lines(text, times);
        assert_eq!(self.lines(text), times, "lines with {text:?}");
    }

    /// Awaits that its lines satisfy this condition.
    pub(crate) fn until(&self, what: &str, are: impl Fn(&[String]) -> bool) {
        self.await_lines(what, PATIENCE, |lines| are(lines).then_some(()));
    }

    /// How many lines so far contain this text.
    pub(crate) fn lines(&self, text: &str) -> usize {
        count(&self.log.lock().lines, text)
    }

    /// The lines so far that contain this text.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        self.log.lock().lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Whether no line contains this text for this time: the one wait without an event to await.
    pub(crate) fn is_silent_on(&self, text: &str, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut state = self.log.lock();
        loop {
            if count(&state.lines, text) > 0 {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.log.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn await_lines<T>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&[String]) -> Option<T>,
    ) -> T {
        let until = Instant::now() + within;
        let mut state = self.log.lock();
        loop {
            if let Some(picked) = pick(&state.lines) {
                return picked;
            }
            let left = until.saturating_duration_since(Instant::now());
            let over = state.open == 0 && self.readers > 0;
            if over || left.is_zero() {
                drop(state);
                let why = if over { "ended" } else { "went on" };
                panic!("{} {why} and never said {what}", self.log.name);
            }
            state = self.log.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal (`TERM`, `INT`, `HUP`, `STOP` …).
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot signal {}", self.log.name);
    }

    /// Awaits the end of its outputs, and its exit.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        self.exit_within(PATIENCE)
    }

    /// Awaits its exit without its outputs.
    pub(crate) fn exit_unread(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < until, "{} did not end", self.log.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Awaits its exit within this time.
    pub(crate) fn exit_within(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        let mut state = self.log.lock();
        while state.open > 0 {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} did not end", self.log.name);
            state = self.log.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.child.wait().expect("a child can be waited for")
    }

    /// Kills it at once, and awaits its exit.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

fn follow(log: &Arc<Log>, from: impl Read + Send + 'static) {
    log.lock().open += 1;
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            let mut state = log.lock();
            while state.paused {
                state.parked += 1;
                log.more.notify_all();
                state = log.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.parked -= 1;
            }
            drop(state);
            if !from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                break;
            }
            log.lock().lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            log.more.notify_all();
            line.clear();
        }
        log.lock().open -= 1;
        log.more.notify_all();
    });
}

/// Runs a program to its end and returns its output, which is also added to the journal.
pub(crate) fn run(command: &mut Command) -> Output {
    run_with(command, b"")
}

/// As [`run`], with this standard input. A program that does not end in time is killed.
pub(crate) fn run_with(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let pid = child.id().to_string();
    let output = thread::scope(|scope| {
        let (over, is_over) = channel::<()>();
        scope.spawn(move || std::io::Write::write_all(&mut stdin, input));
        scope.spawn(move || {
            if is_over.recv_timeout(4 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        });
        let output = child.wait_with_output();
        drop(over);
        output
    });
    noted(command, output.expect("a child can be waited for"))
}

fn noted(command: &Command, output: Output) -> Output {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
    let line = [command.get_program()].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy);
    let line: Vec<_> = line.collect();
    event(format!("{}: {}\n{}{}", line.join(" "), output.status, text(&output.stdout), text(&output.stderr)));
    output
}
