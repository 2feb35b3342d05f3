//! `greenwave test` on a machine whose clock is set: in the middle of a run, and between runs. The clock is that of libfaketime, which stands between
//! the program and the C library; what files' times say is the system's own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::folder::Folder;
use crate::program::{Finished, Program, until};

/// A project whose runs go by a clock that can be set.
pub(crate) struct Clocked {
    pub(crate) folder: Folder,
    library: PathBuf,
}

pub(crate) const HOUR: i64 = 3_600;

impl Clocked {
    fn new(script: &str, inputs: &str) -> Option<Self> {
        let config = format!("[[test]]\nname = \"t\"\ncommand = \"{script}\"\ninputs = [\"{inputs}\"]\n");
        Self::of(Folder::empty().with("p/greenwave.toml", config).with("p/in.txt", "1"))
    }

    /// Of a folder with a project `p`. A visible skip where libfaketime is not installed, or a failure where it is required.
    pub(crate) fn of(folder: Folder) -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
        let folders = folders.chain(["/usr/lib", "/usr/local/lib"].map(PathBuf::from));
        let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
        let Some(library) = libraries.find(|library| library.exists()) else {
            assert!(std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_none(), "there is no libfaketime");
            let _ = writeln!(std::io::stderr(), "skipped: there is no libfaketime");
            return None;
        };
        let clocked = Self { folder, library };
        clocked.set(0);
        Some(clocked)
    }

    /// The clock is off by so many seconds from now on.
    pub(crate) fn set(&self, seconds: i64) {
        self.folder.write("new-clock", format!("{seconds:+}\n"));
        // At once, so that nobody reads half of it.
        fs::rename(self.folder.path("new-clock"), self.folder.path("clock")).unwrap();
    }

    fn program(&self) -> Program {
        self.greenwave(["test", "--format", "json"])
    }

    /// The program, called in the project.
    pub(crate) fn greenwave<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Program {
        let program = Program::new(args).within(&self.folder.path("p"));
        let program = program.variable("XDG_CACHE_HOME", self.folder.path("cache"));
        let program = program.variable("LD_PRELOAD", &self.library);
        let program = program.variable("FAKETIME_TIMESTAMP_FILE", self.folder.path("clock"));
        // The file is read anew each time; and only the time of day is another, as when a clock is set.
        let only =
            ["FAKETIME_NO_CACHE", "NO_FAKE_STAT", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"];
        only.iter().fold(program, |program, name| program.variable(name, "1"))
    }

    fn run(&self, code: i32) -> Told {
        Told::of(&self.program().run().with_code(code))
    }
}

/// What a run said of its test.
#[derive(Debug, PartialEq)]
struct Told {
    passed: bool,
    known: bool,
    not_kept: Option<String>,
    /// When it began by its own clock, in milliseconds since the Unix epoch.
    at: i64,
}

impl Told {
    fn of(finished: &Finished) -> Self {
        let events = finished.events();
        let event = |kind: &str| events.iter().find(|event| event["event"] == kind).unwrap();
        let test = event("test");
        Self {
            passed: test["status"] == "passed",
            known: test["known"] == true,
            not_kept: test["not_kept"].as_str().map(str::to_owned),
            at: event("started")["time_ms"].as_i64().unwrap(),
        }
    }

    fn verdict(&self) -> (bool, bool, Option<&str>) {
        (self.passed, self.known, self.not_kept.as_deref())
    }
}

#[test]
fn a_clock_that_is_set_during_a_run_keeps_nothing() {
    for hours in [-1, 1] {
        // Not even where all files are as they were.
        let Some(clocked) = Clocked::new("cat in.txt; read it < ../begun; read it < ../go", "/in.txt") else {
            return;
        };
        for name in ["begun", "go"] {
            let mut command = std::process::Command::new("mkfifo");
            assert!(command.arg(clocked.folder.path(name)).status().unwrap().success());
        }
        let tell = |pipe: &str| {
            let not_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
            let open =
                || fs::File::options().write(true).custom_flags(not_waiting).open(clocked.folder.path(pipe));
            // A pipe can be written to when the test has come to where it reads.
            until("the test waits", || open().is_ok_and(|mut pipe| pipe.write_all(b"\n").is_ok()));
        };
        let through = |is_set: bool| {
            let running = clocked.program().start();
            tell("begun");
            if is_set {
                clocked.set(hours * HOUR);
            }
            tell("go");
            Told::of(&running.finish().with_code(0))
        };
        assert_eq!(
            through(true).verdict(),
            (true, false, Some("the system clock was set while the test ran (run the test again)")),
            "{hours} h"
        );
        // To a clock that is behind, the pipes are from the future, and could have been made by the test.
        if hours > 0 {
            assert_eq!(through(false).verdict(), (true, false, None), "the same clock is no trouble");
            assert_eq!(clocked.run(0).verdict(), (true, true, None));
        } else {
            let told = through(false);
            assert!(told.passed && !told.known && told.not_kept.is_some(), "{:?}", told.verdict());
        }
    }
}

#[test]
fn a_clock_that_is_set_between_runs_hides_no_edit() {
    for (first, second) in [(HOUR, 0), (0, -HOUR), (HOUR, -HOUR), (-HOUR, HOUR)] {
        for inputs in ["/in.txt", "/greenwave.toml"] {
            let Some(clocked) = Clocked::new("grep -q 1 in.txt", inputs) else { return };
            clocked.set(first);
            let before = clocked.run(0);
            // By a clock that is ahead, what was written just now has rested for an hour. The second run learns that of stamps.
            clocked.run(0);
            let path = clocked.folder.path("p/in.txt");
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
fn what_was_kept_in_the_future_is_known() {
    let Some(clocked) = Clocked::new("grep -q 1 in.txt", "/in.txt") else { return };
    clocked.set(HOUR);
    assert_eq!(clocked.run(0).verdict(), (true, false, None));
    clocked.set(-HOUR);
    assert_eq!(clocked.run(0).verdict(), (true, true, None));
}
