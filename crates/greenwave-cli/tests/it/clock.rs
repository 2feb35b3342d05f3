//! `greenwave test` while the clock is set, during and between runs.
//!
//! A preloaded library changes the clock of the program. Timestamps of files come from the real
//! clock.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use greenwave_testkit::clock::Clock;
use rustix::fs::OFlags;

use crate::program::{Finished, Program, until};
use crate::test_dir::{STATE, TestDir};

/// A project whose runs use a clock that can be set.
pub(crate) struct Clocked {
    pub(crate) dir: TestDir,
    clock: Clock,
}

pub(crate) const HOUR: i64 = 3_600;

impl Clocked {
    fn new(script: &str, inputs: &str) -> Option<Self> {
        let config = format!("[[test]]\nname = \"t\"\ncommand = \"{script}\"\ninputs = [\"{inputs}\"]\n");
        Self::of(TestDir::empty().with("p/greenwave.toml", config).with("p/in.txt", "1"))
    }

    /// Creates the clock for a directory with a project `p`, if a C compiler is available.
    pub(crate) fn of(dir: TestDir) -> Option<Self> {
        let clock = Clock::new(&dir.path("."), dir.path("clock"))?;
        let clocked = Self { dir, clock };
        clocked.set(0);
        Some(clocked)
    }

    /// Sets the clock to this number of seconds from the real time.
    pub(crate) fn set(&self, seconds: i64) {
        self.dir.write("new-clock", format!("{seconds:+}\n"));
        // Renaming is atomic, so that no program reads half of the file.
        fs::rename(self.dir.path("new-clock"), self.dir.path("clock")).unwrap();
    }

    fn program(&self) -> Program {
        self.greenwave(["test", "--format", "json"])
    }

    /// Calls the program in the project.
    pub(crate) fn greenwave<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Program {
        let program = Program::new(args).within(&self.dir.path("p"));
        let program = program.variable("XDG_CACHE_HOME", self.dir.path("cache"));
        let program = program.variable("XDG_STATE_HOME", self.dir.path(STATE));
        let variables = self.clock.variables();
        variables.into_iter().fold(program, |program, (name, value)| program.variable(name, value))
    }

    fn run(&self, code: i32) -> TestRun {
        TestRun::of(&self.program().run().with_code(code))
    }
}

/// The result of the test in one run.
#[derive(Debug, PartialEq)]
struct TestRun {
    passed: bool,
    cached: bool,
    not_cached: Option<String>,
    /// Start of the run by its own clock, in milliseconds since the Unix epoch.
    at: i64,
}

impl TestRun {
    fn of(finished: &Finished) -> Self {
        let events = finished.report();
        let event = |kind: &str| events.iter().find(|event| event["event"] == kind).unwrap();
        let test = event("test");
        Self {
            passed: test["status"] == "passed",
            cached: test["cached"] == true,
            not_cached: test["not_stored"].as_str().map(str::to_owned),
            at: event("started")["time_ms"].as_i64().unwrap(),
        }
    }

    fn verdict(&self) -> (bool, bool, Option<&str>) {
        (self.passed, self.cached, self.not_cached.as_deref())
    }
}

#[test]
fn nothing_is_cached_if_the_clock_is_set_during_a_run() {
    for hours in [-1, 1] {
        let Some(clocked) = Clocked::new("cat in.txt; read it < ../started; read it < ../go", "/in.txt")
        else {
            return;
        };
        for name in ["started", "go"] {
            let mut command = std::process::Command::new("mkfifo");
            assert!(command.arg(clocked.dir.path(name)).status().unwrap().success());
        }
        let signal = |pipe: &str| {
            let not_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
            let open =
                || fs::File::options().write(true).custom_flags(not_waiting).open(clocked.dir.path(pipe));
            // The pipe can be opened for writing as soon as the test reads from it.
            until("the test waits", || open().is_ok_and(|mut pipe| pipe.write_all(b"\n").is_ok()));
        };
        let run_through = |is_set: bool| {
            let running = clocked.program().start();
            signal("started");
            if is_set {
                clocked.set(hours * HOUR);
            }
            signal("go");
            TestRun::of(&running.finish().with_code(0))
        };
        assert_eq!(
            run_through(true).verdict(),
            (true, false, Some("the system clock was set while the test ran (run the test again)")),
            "{hours} h"
        );
        // If the clock is behind, the pipes are from the future, as if the test had created them.
        if hours > 0 {
            assert_eq!(run_through(false).verdict(), (true, false, None), "the clock is not set");
            assert_eq!(clocked.run(0).verdict(), (true, true, None));
        } else {
            let run = run_through(false);
            assert!(run.passed && !run.cached && run.not_cached.is_some(), "{:?}", run.verdict());
        }
    }
}

#[test]
fn an_edit_is_found_if_the_clock_is_set_between_runs() {
    for (first, second) in [(HOUR, 0), (0, -HOUR), (HOUR, -HOUR), (-HOUR, HOUR)] {
        for inputs in ["/in.txt", "/greenwave.toml"] {
            let Some(clocked) = Clocked::new("grep -q 1 in.txt", inputs) else { return };
            clocked.set(first);
            let before = clocked.run(0);
            // If the clock is ahead, the files are an hour old, and the second run records their
            // timestamps.
            clocked.run(0);
            let path = clocked.dir.path("p/in.txt");
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, "2").unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
            clocked.set(second);
            let after = clocked.run(1);
            assert_eq!(after.verdict(), (false, false, None), "{inputs}: {first} s, then {second} s");
            let jump = after.at - before.at - (second - first) * 1_000;
            assert!((0..60_000).contains(&jump), "the clock was not set: {before:?}, {after:?}");
        }
    }
}

#[test]
fn a_result_from_the_future_is_valid() {
    let Some(clocked) = Clocked::new("grep -q 1 in.txt", "/in.txt") else { return };
    clocked.set(HOUR);
    assert_eq!(clocked.run(0).verdict(), (true, false, None));
    clocked.set(-HOUR);
    assert_eq!(clocked.run(0).verdict(), (true, true, None));
}
