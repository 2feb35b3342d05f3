//! Runs that a signal stops: SIGINT from Ctrl-C, SIGTERM from service managers.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;

use crate::program::until;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Number of runs to stop; processes that survive do so only in some of them.
const ROUNDS: usize = 8;

/// A plan whose agent and test never end, and hold the FIFO open while they live.
const ENDLESS: &str = r#"
project = "project"
resources = { turn = 1 }

[agents.endless]
kind = "command"
command = ["sh", "-c", "exec > \"$FIFO\"; echo agent; exec sleep 50"]

[agents.quick]
kind = "command"
command = ["printf", "```text quick.txt\nquick\n```\n"]

[[features]]
id = "asking"
agent = "endless"
prompt = "Never answer."
tests = [{ command = ["test", "-f", "asking.txt"] }]

[[features]]
id = "testing"
agent = "quick"
prompt = "Be quick."
[[features.tests]]
command = ["sh", "-c", "test -f quick.txt || exit 1; exec > \"$FIFO\"; echo test; sleep 50 & exec sleep 50"]
env = ["FIFO"]
"#;

/// The reading end of a FIFO.
struct Fifo(File);

impl Fifo {
    fn new(dir: &TestDir, name: &str) -> Self {
        let path = dir.path(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap().into())
    }

    /// Appends the available text. Returns whether a process still holds the other end open.
    fn read(&mut self, text: &mut String) -> bool {
        let mut block = [0; 64];
        loop {
            match self.0.read(&mut block) {
                Ok(0) => return false,
                Ok(count) => text.push_str(&String::from_utf8_lossy(&block[..count])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Stops a run by a signal while an agent and a test run.
fn check(signal: Signal, code: i32) {
    for round in 0..ROUNDS {
        let dir = TestDir::with_project().with("plan.toml", ENDLESS);
        let mut fifo = Fifo::new(&dir, "fifo");
        let plan = dir.greenwave(["run", "plan.toml", "--no-metrics"]);
        let mut running = plan.variable("FIFO", dir.path("fifo")).start();
        let mut said = String::new();
        until("an agent and a test run", || {
            fifo.read(&mut said);
            said.contains("agent") && said.contains("test")
        });
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(code));
        let mut lines = Vec::new();
        while let Some(line) = running.line() {
            lines.push(line);
        }
        let last = lines.last().unwrap();
        assert_eq!(last, "Stopped; green features stay green. To continue: greenwave run plan.toml");
        until(&format!("all processes of round {round} are gone"), || !fifo.read(&mut said));
        assert_eq!(dir.files("project").into_keys().collect::<Vec<_>>(), ["keep.txt"]);
    }
}

#[test]
fn sigint_stops_agents_and_tests() {
    check(Signal::INT, 130);
}

#[test]
fn sigterm_stops_agents_and_tests() {
    check(Signal::TERM, 143);
}

#[test]
fn a_stopped_run_can_be_continued() {
    let dir = TestDir::with_project();
    let go = dir.path("go");
    let first = ShellFeature::new("first", "answer first.txt 1", "test -f first.txt");
    let script = format!("test -e '{}' && answer second.txt 2 || exec sleep 50", go.display());
    let second = ShellFeature::new("second", &script, "test -f second.txt").after("first");
    dir.write("plan.toml", shell_plan::plan(&[first, second]));
    let mut running = dir.plan().start();
    running.read_until(r#""event":"phase","feature":"second","phase":"yellow""#);
    running.signal(Signal::INT);
    let stopped = running.finish().with_code(130);
    assert_eq!(stopped.events().last().unwrap()["event"], "stopped");

    dir.write("go", "");
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(report.phases(), [("first", "green"), ("second", "green")]);
    assert_eq!((report.feature("first")["up_to_date"].clone(), report.requests()), (true.into(), 1));
}

/// A reader that pauses, such as a pager, blocks the output of a run.
#[test]
fn a_run_whose_output_is_blocked_can_be_stopped() {
    let dir = TestDir::with_project();
    let (mut plan, prompt) = (String::from("project = \"project\"\n"), "p ".repeat(100));
    // More output than a pipe holds, which is 64 KiB.
    for feature in 0..900 {
        plan.push_str(&format!(
            "[agents.{long}]\nkind = \"command\"\ncommand = [\"true\"]\n[[features]]\nid = \"{long}\"\nagent = \"{long}\"\n\
             prompt = \"{prompt}\"\nattempts = 1\ntests = [{{ command = [\"false\"] }}]\n",
            long = format!("f{feature}-{}", "x".repeat(90)),
        ));
    }
    dir.write("plan.toml", plan);
    let (reader, writer) = std::io::pipe().unwrap();
    let full = || rustix::io::ioctl_fionread(&reader).unwrap() > 60_000;
    let mut running =
        dir.plan().bound(Duration::from_secs(20)).stdout(std::os::fd::OwnedFd::from(writer).into()).start();
    until("the pipe is full", full);
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
}
