//! Runs that are interrupted at random moments, by SIGKILL or SIGINT. The next run continues: green
//! features are not repeated, and the final files are those of an uninterrupted run.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::demo::{FEATURES, demo};
use crate::program::{COMPILING_BOUND, Program, until};
use crate::random::random;
use crate::test_dir::{Files, TestDir};

/// Number of interruptions of the small plan.
const ROUNDS: u64 = 12;
/// Variable with a larger number, for long runs of these tests.
const ROUNDS_VARIABLE: &str = "GREENWAVE_CRASH_ROUNDS";

/// The features that were green at the end of earlier runs.
#[derive(Default)]
struct GreenFeatures {
    green: BTreeSet<String>,
}

impl GreenFeatures {
    /// Checks a line of a run: no green feature may have another attempt or merge.
    #[track_caller]
    fn line(&self, line: &str, now: &mut BTreeSet<String>) {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let Some(feature) = event["feature"].as_str() else { return };
        let again = event["event"] == "merged" || event["phase"] == "yellow";
        assert!(!(again && self.green.contains(feature)), "repeated: {line}");
        if event["event"] == "merged" || (event["event"] == "phase" && event["phase"] == "green") {
            now.insert(feature.to_owned());
        }
    }

    /// Sends a signal to a run after a number of lines. Returns whether that ended the run.
    fn interrupt(&mut self, program: Program, lines: u64, signal: Signal) -> bool {
        let mut running = program.start();
        let mut now = BTreeSet::new();
        for _ in 0..lines {
            match running.line() {
                Some(line) => self.line(&line, &mut now),
                None => break,
            }
        }
        running.signal(signal);
        let finished = running.finish();
        // The last line may be cut off.
        for line in finished.stdout.lines().filter(|line| line.ends_with('}')) {
            self.line(line, &mut now);
        }
        self.green.append(&mut now);
        finished.status.code() != Some(0)
    }

    /// Runs a program to its end.
    #[track_caller]
    fn finish(&self, program: Program) -> Vec<Value> {
        let finished = program.run().with_code(0);
        let mut now = BTreeSet::new();
        finished.stdout.lines().for_each(|line| self.line(line, &mut now));
        finished.events()
    }
}

#[test]
fn a_killed_demo_can_be_continued() {
    let mut random = random();
    let dir = TestDir::empty();
    let start = || {
        let args = ["demo", "--dir", "demo", "--no-metrics", "--format", "json", "--pace", "0.1"];
        dir.greenwave(args).bound(COMPILING_BOUND)
    };
    let mut green = GreenFeatures::default();
    for _ in 0..3 {
        // A whole run has about 120 lines.
        green.interrupt(start(), 5 + random.below(50), Signal::KILL);
    }
    let events = green.finish(start());
    let features = events.last().unwrap()["features"].as_array().unwrap();
    assert_eq!(features.iter().filter(|feature| feature["phase"] == "green").count(), FEATURES.len());
    let up_to_date = features.iter().filter(|feature| feature["up_to_date"] == true);
    assert!(up_to_date.count() >= green.green.len(), "{:?}", green.green);
    assert_same(&dir.files("demo/project"), &demo().files);
}

/// Checks that two directories have the same files. Shows only the names of different files, since
/// contents are long.
#[track_caller]
fn assert_same(files: &Files, wanted: &Files) {
    let differs = |path: &&String| files.get(*path) != wanted.get(*path);
    let different: BTreeSet<_> = files.keys().chain(wanted.keys()).filter(differs).collect();
    assert_eq!(different, BTreeSet::new());
}

/// Returns a plan without compilers: two chains of features that write large files and edit a
/// common one.
fn small_plan() -> String {
    let mut plan = "project = \"project\"\n".to_owned();
    for feature in 0..8 {
        let after = match feature {
            0 | 1 => String::new(),
            other => format!("\"f{}\"", other - 2),
        };
        plan.push_str(&format!(
            r#"
[agents.a{feature}]
kind = "command"
command = ["sh", "-c", '''
    for file in 1 2 3 4 5 6; do
        echo '```text out/f{feature}/'$file.txt; head -c 150000 /dev/zero | tr '\0' {feature} | fold -w 79; echo; echo '```'
    done
    echo '```text list.txt'; sed 's/^line {feature}$/line {feature} done/' list.txt; echo '```' ''']

[[features]]
id = "f{feature}"
agent = "a{feature}"
depends_on = [{after}]
prompt = "Write files."
tests = [{{ command = ["grep", "-q", "^line {feature} done", "list.txt"] }}]
"#
        ));
    }
    plan
}

fn small() -> TestDir {
    // The lines are far enough apart for changes of two features to be merged.
    let list: String = (0..8).map(|line| format!("line {line}\n.\n.\n.\n.\n")).collect();
    TestDir::with_project().with("project/list.txt", list).with("plan.toml", small_plan())
}

#[test]
fn a_run_can_be_interrupted_at_any_moment() {
    let mut random = random();
    let whole = small();
    let events = whole.run_plan().with_code(0).events();
    let files = whole.files("project");
    let lines_max = events.len() as u64;
    let rounds = std::env::var(ROUNDS_VARIABLE).ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut rounds_left = rounds;
    while rounds_left > 0 {
        let dir = small();
        let mut green = GreenFeatures::default();
        while rounds_left > 0 {
            // SIGINT lets the run clean up; SIGKILL does not.
            let signal = if random.below(3) == 0 { Signal::INT } else { Signal::KILL };
            if !green.interrupt(dir.plan(), 2 + random.below(lines_max), signal) {
                break;
            }
            rounds_left -= 1;
        }
        green.finish(dir.plan());
        assert_same(&dir.files("project"), &files);
    }
}

/// The run is killed while it writes the files of a feature into the project.
#[test]
fn an_interrupted_merge_is_completed() {
    let whole = small();
    whole.run_plan().with_code(0);
    let files = whole.files("project");
    for written in ["1.txt", "3.txt", "6.txt"] {
        let dir = small();
        let mut running = dir.plan().start();
        let first = dir.path("project/out/f0").join(written);
        until("the first files are in the project", || first.exists());
        running.signal(Signal::KILL);
        running.wait();
        let mut green = GreenFeatures::default();
        while let Some(line) = running.line() {
            if line.ends_with('}') {
                let mut now = BTreeSet::new();
                green.line(&line, &mut now);
                green.green.append(&mut now);
            }
        }
        green.finish(dir.plan());
        assert_same(&dir.files("project"), &files);
    }
}

#[test]
fn temporary_directories_of_a_killed_run_are_removed_by_a_later_one() {
    let dir = TestDir::empty().with("tmp/other", "");
    let start = |number: u32| {
        let command = format!("touch $TMPDIR/file; until test -e go{number}; do sleep 0.02; done");
        dir.write("p/greenwave.toml", format!("[[test]]\nname = \"t\"\ncommand = \"{command}\"\n"));
        let program = Program::new(["test"]).within(&dir.path("p"));
        program.variable("XDG_CACHE_HOME", dir.path("cache")).variable("TMPDIR", dir.path("tmp")).start()
    };
    let in_use = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir.path("tmp")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.join("tmp/file").exists()).collect()
    };
    let age = |path: &Path| {
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        File::open(path).unwrap().set_modified(hour_ago).unwrap();
    };
    let first_run = start(1);
    until("the first test runs", || in_use().len() == 1);
    let first = in_use().remove(0);
    age(&first);
    let second_run = start(2);
    until("the second test runs", || in_use().len() == 2);
    // The lock of the first run protects its directory.
    assert!(first.join("tmp/file").exists());
    first_run.signal(Signal::KILL);
    assert_ne!(first_run.finish().status.code(), Some(0));
    assert!(first.exists());
    dir.write("p/go2", "");
    second_run.finish().with_code(0);
    age(&first);
    dir.write("p/go3", "");
    start(3).finish().with_code(0);
    assert!(!first.exists(), "{}", first.display());
    assert!(dir.path("tmp/other").exists());
}
