//! Runs the built program with a bound on its time: what has not ended by then is killed, and the test fails.
//! Knows nothing of plans or of what is printed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than any run of a test takes, on the slowest machine that is at work on other things as well.
const BOUND: Duration = Duration::from_secs(60);
/// The same for runs that compile.
pub(crate) const COMPILING_BOUND: Duration = Duration::from_secs(240);
/// How long a condition is waited for that should come true at once.
const CONDITION_BOUND: Duration = Duration::from_secs(20);
/// Between two looks at a condition, so that looking leaves the processors to those who bring it about.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Variables of this process that the program gets: what shells and tool chains cannot do without. Nothing that
/// is meant for greenwave, and nothing that cargo sets for tests.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "TMPDIR", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// A call of the program that has not begun.
pub(crate) struct Program {
    command: Command,
    bound: Duration,
    lines_max: usize,
}

/// A call of the program that is under way. Dropping it kills it.
pub(crate) struct Running {
    id: Pid,
    deadline: Instant,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    ended: Receiver<ExitStatus>,
    lines: Vec<String>,
    status: Option<ExitStatus>,
}

/// What a call of the program came to.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// The greenwave that cargo has built for this test.
    pub(crate) fn new<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenwave"));
        command.args(args);
        Self::of(command)
    }

    /// Any other program, under the same rules.
    pub(crate) fn of(mut command: Command) -> Self {
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in PASSED_ON {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        Self { command, bound: BOUND, lines_max: usize::MAX }
    }

    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
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

    /// Closes the pipe to its standard output after so many lines, as `head` does.
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

    /// Runs it as another user.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.command.uid(id).gid(id);
        self
    }

    pub(crate) fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("the program is there");
        let id = Pid::from_child(&child);
        let stdout = lines_of(child.stdout.take(), self.lines_max);
        let stderr = lines_of(child.stderr.take(), usize::MAX);
        let deadline = Instant::now() + self.bound;
        Running { id, deadline, stdout, stderr, ended: end_of(child), lines: Vec::new(), status: None }
    }

    pub(crate) fn run(self) -> Finished {
        self.start().finish()
    }
}

/// The lines of a stream as they come, read by a thread until the stream ends.
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
                // The receiver is gone when the test is: nobody is left to tell.
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
    /// The next line of its standard output; `None` when there is no more.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.stdout.recv_timeout(self.left()) {
            Ok(line) => {
                self.lines.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.too_long(),
        }
    }

    /// Reads lines until one holds the text.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        while let Some(line) = self.line() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("the output ended without {text:?}:\n{}", self.lines.join("\n"));
    }

    /// Sends it a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        match kill_process(self.id, signal) {
            Err(error) if error != Errno::SRCH => panic!("{error}"),
            _ => {}
        }
    }

    /// Reads the rest of its output and waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        while self.line().is_some() {}
        let mut stderr = Vec::new();
        loop {
            match self.stderr.recv_timeout(self.left()) {
                Ok(line) => stderr.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.too_long(),
            }
        }
        let status = self.ended.recv_timeout(self.left()).unwrap_or_else(|_| self.too_long());
        self.status = Some(status);
        Finished { status, stdout: text_of(&self.lines), stderr: text_of(&stderr) }
    }

    /// Waits for its end, whatever becomes of its output: a process that it has left behind may hold the pipe.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.ended.recv_timeout(self.left()).unwrap_or_else(|_| self.too_long());
        self.status = Some(status);
        status
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn too_long(&self) -> ! {
        panic!("the program had to be killed: it did not end in time. It said:\n{}", self.lines.join("\n"))
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
    /// The exit code; the test fails on another, with all that was printed.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.told());
        self
    }

    /// What it printed as events, each line one JSON object.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    fn told(&self) -> String {
        let signal = self.status.signal();
        format!("{} {signal:?}\n--- stdout\n{}--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Waits until something is so in another process, looking again and again; fails when it does not come about.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + CONDITION_BOUND;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(LOOK_AGAIN);
    }
}
