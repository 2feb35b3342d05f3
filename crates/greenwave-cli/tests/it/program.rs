//! Runs the built program with a time limit. A program that exceeds it is killed, and the test
//! fails.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use greenwave_testkit::schema::Schema;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Time limit of a run; no run takes that long, even on a slow and busy machine.
const BOUND: Duration = Duration::from_secs(60);
/// Time limit of a run that compiles.
pub(crate) const COMPILING_BOUND: Duration = Duration::from_secs(240);
/// Maximum time to wait for a condition that becomes true soon.
const CONDITION_BOUND: Duration = Duration::from_secs(20);
/// Pause between two checks of a condition, which leaves the CPUs to the processes that are waited
/// for.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Variables that the program inherits, because shells and toolchains need them. Settings of
/// greenwave and variables that cargo sets for tests are not among them.
const INHERITED: [&str; 6] = ["PATH", "HOME", "TMPDIR", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// A call of the program that has not started.
pub(crate) struct Program {
    command: Command,
    bound: Duration,
    lines_max: usize,
}

/// A running call of the program. Dropping it kills the program.
pub(crate) struct Running {
    id: Pid,
    deadline: Instant,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    ended: Receiver<ExitStatus>,
    lines: Vec<String>,
    status: Option<ExitStatus>,
}

/// The output and exit status of a call.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// Creates a call of the `greenwave` that cargo has built for these tests.
    pub(crate) fn new<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenwave"));
        command.args(args);
        Self::of(command)
    }

    /// Any other program, with the same inherited variables and time limit.
    pub(crate) fn of(mut command: Command) -> Self {
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in INHERITED {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        // Copies of tests do not belong into the home of the user.
        command.env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
        Self { command, bound: BOUND, lines_max: usize::MAX }
    }

    pub(crate) fn within(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Closes the pipe to its standard output after this number of lines, as `head` does.
    pub(crate) fn read_lines(mut self, lines: usize) -> Self {
        self.lines_max = lines;
        self
    }

    pub(crate) fn stdin(mut self, from: File) -> Self {
        self.command.stdin(from);
        self
    }

    pub(crate) fn stdout(mut self, to: File) -> Self {
        self.command.stdout(to);
        self
    }

    pub(crate) fn stderr(mut self, to: File) -> Self {
        self.command.stderr(to);
        self
    }

    /// Runs the program as another user.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.command.uid(id).gid(id);
        self
    }

    pub(crate) fn start(mut self) -> Running {
        let mut child = self.spawn();
        let id = Pid::from_child(&child);
        let stdout = lines_of(child.stdout.take(), self.lines_max);
        let stderr = lines_of(child.stderr.take(), usize::MAX);
        let deadline = Instant::now() + self.bound;
        Running { id, deadline, stdout, stderr, ended: end_of(child), lines: Vec::new(), status: None }
    }

    /// Spawns the process. A program that was copied a moment ago can still be open for writing in
    /// a process that another thread has forked meanwhile.
    fn spawn(&mut self) -> Child {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match self.command.spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                child => return child.expect("the program exists"),
            }
        }
    }

    pub(crate) fn run(self) -> Finished {
        self.start().finish()
    }
}

/// Returns the lines of a stream as they arrive. A thread reads them until the stream ends.
fn lines_of(stream: Option<impl Read + Send + 'static>, lines_max: usize) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stream) = stream {
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            for _ in 0..lines_max {
                line.clear();
                if stream.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                    return;
                }
                // The receiver is dropped when the test ends.
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
            }
        });
    }
    receiver
}

fn end_of(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(child.wait().expect("a child can be waited for")));
    receiver
}

impl Running {
    /// Returns the number of the process.
    pub(crate) fn id(&self) -> i32 {
        self.id.as_raw_nonzero().get()
    }

    /// Returns the next line of standard output; `None` at its end.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.stdout.recv_timeout(self.left()) {
            Ok(line) => {
                self.lines.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.timed_out(),
        }
    }

    /// Reads lines until one contains the text.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        while let Some(line) = self.line() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("the output ended without {text:?}:\n{}", self.lines.join("\n"));
    }

    /// Sends a signal, unless the program has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        match kill_process(self.id, signal) {
            Err(error) if error != Errno::SRCH => panic!("{error}"),
            _ => {}
        }
    }

    /// Reads the rest of the output and waits for the end.
    pub(crate) fn finish(mut self) -> Finished {
        while self.line().is_some() {}
        let mut stderr = Vec::new();
        loop {
            match self.stderr.recv_timeout(self.left()) {
                Ok(line) => stderr.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.timed_out(),
            }
        }
        let status = self.ended.recv_timeout(self.left()).unwrap_or_else(|_| self.timed_out());
        self.status = Some(status);
        Finished { status, stdout: text_of(&self.lines), stderr: text_of(&stderr) }
    }

    /// Waits for the end of the program without reading its output: a process that it left behind
    /// may hold the pipe open.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.ended.recv_timeout(self.left()).unwrap_or_else(|_| self.timed_out());
        self.status = Some(status);
        status
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn timed_out(&self) -> ! {
        panic!("the program was killed after its time limit. Its output:\n{}", self.lines.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() && self.ended.try_recv().is_err() {
            self.signal(Signal::KILL);
        }
    }
}

fn text_of(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

impl Finished {
    /// Fails the test, with all output, unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.describe());
        self
    }

    /// Parses standard output as events, one JSON object per line. Each event of a run must match
    /// their schema.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let events: Vec<Value> = self.stdout.lines().map(parse).collect();
        if events.first().is_some_and(|first| first["event"] == "settings") {
            check_events(include_str!("../../../../docs/formats/run-events.schema.json"), &events);
        }
        events
    }

    /// Parses standard output as the JSON report of a test run. Each line must match the report's
    /// schema.
    #[track_caller]
    pub(crate) fn report(&self) -> Vec<Value> {
        let events = self.events();
        check_events(include_str!("../../../../docs/formats/report.schema.json"), &events);
        events
    }

    pub(crate) fn describe(&self) -> String {
        let signal = self.status.signal();
        format!("{} {signal:?}\n--- stdout\n{}--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

#[track_caller]
fn check_events(schema: &str, events: &[Value]) {
    let schema = Schema::parse(schema);
    for event in events {
        schema.check(event).unwrap_or_else(|problem| panic!("{problem}: {event}"));
    }
}

/// Waits until a condition holds, which another process brings about. Fails the test if that takes
/// too long.
#[track_caller]
pub(crate) fn until(condition: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + CONDITION_BOUND;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {condition}");
        thread::sleep(POLL_INTERVAL);
    }
}
