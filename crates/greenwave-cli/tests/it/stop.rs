//! Runs that are asked to stop: Ctrl-C, and the signal that service managers send.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, mknodat, open};
use rustix::process::Signal;

use crate::folder::Folder;
use crate::program::until;
use crate::sketch::{self, Report, Sketch};

/// How often a run is stopped: what is left over is left over by chance.
const ROUNDS: usize = 8;

/// A plan whose agent and test never end, and hold the fifo open while they live.
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

/// A fifo's reading end: it ends when nobody holds the other end any more.
struct Fifo(File);

impl Fifo {
    fn new(folder: &Folder, name: &str) -> Self {
        let path = folder.path(name);
        mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        Self(open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap().into())
    }

    /// What has come, and whether somebody still holds the other end.
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

/// Stops a run by a signal while an agent and a test are at work.
fn check(signal: Signal, code: i32) {
    for round in 0..ROUNDS {
        let folder = Folder::with_project().with("plan.toml", ENDLESS);
        let mut fifo = Fifo::new(&folder, "fifo");
        let plan = folder.greenwave(["run", "plan.toml", "--no-metrics"]);
        let mut running = plan.variable("FIFO", folder.path("fifo")).start();
        let mut said = String::new();
        until("an agent and a test are at work", || {
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
        assert_eq!(last, "Stopped. What is green stays green; to go on: greenwave run plan.toml");
        until(&format!("nothing that it started is left, in round {round}"), || !fifo.read(&mut said));
        assert_eq!(folder.files("project").into_keys().collect::<Vec<_>>(), ["keep.txt"]);
    }
}

#[test]
fn an_interrupt_stops_everything() {
    check(Signal::INT, 130);
}

#[test]
fn a_request_to_end_stops_everything() {
    check(Signal::TERM, 143);
}

#[test]
fn a_stopped_run_goes_on() {
    let folder = Folder::with_project();
    let go = folder.path("go");
    let first = Sketch::new("first", "answer first.txt 1", "test -f first.txt");
    let script = format!("test -e '{}' && answer second.txt 2 || exec sleep 50", go.display());
    let second = Sketch::new("second", &script, "test -f second.txt").after("first");
    folder.write("plan.toml", sketch::plan(&[first, second]));
    let mut running = folder.plan().start();
    running.read_until(r#""event":"phase","feature":"second","phase":"yellow""#);
    running.signal(Signal::INT);
    let stopped = running.finish().with_code(130);
    assert_eq!(stopped.events().last().unwrap()["event"], "stopped");

    folder.write("go", "");
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!(report.phases(), [("first", "green"), ("second", "green")]);
    assert_eq!((report.feature("first")["up_to_date"].clone(), report.questions()), (true.into(), 1));
}

/// A reader that does not read any more, as a pager does, holds the run up but not the wish to end it.
#[test]
fn a_run_that_nobody_reads_can_be_stopped() {
    let folder = Folder::with_project();
    let (mut plan, prompt) = (String::from("project = \"project\"\n"), "p ".repeat(100));
    // Enough to fill a pipe, which holds 64 KiB.
    for feature in 0..900 {
        plan.push_str(&format!(
            "[agents.{long}]\nkind = \"command\"\ncommand = [\"true\"]\n[[features]]\nid = \"{long}\"\nagent = \"{long}\"\n\
             prompt = \"{prompt}\"\nattempts = 1\ntests = [{{ command = [\"false\"] }}]\n",
            long = format!("f{feature}-{}", "x".repeat(90)),
        ));
    }
    folder.write("plan.toml", plan);
    let (reader, writer) = std::io::pipe().unwrap();
    let full = || rustix::io::ioctl_fionread(&reader).unwrap() > 60_000;
    let mut running = folder
        .plan()
        .bound(Duration::from_secs(20))
        .stdout(std::os::fd::OwnedFd::from(writer).into())
        .start();
    until("the pipe is full", full);
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
}
