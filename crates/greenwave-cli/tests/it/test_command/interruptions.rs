//! Concurrent runs, killed and interrupted ones, and processes that outlive their test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::{greenwave, run, verdicts};
use crate::program::until;
use crate::test_dir::TestDir;

/// Tests that record each of their runs through a pipe, which is not a file that a result could
/// depend on.
struct RecordedTests {
    dir: TestDir,
    runs: Arc<Mutex<Vec<usize>>>,
}

impl RecordedTests {
    fn new(count: usize, script: &str) -> Self {
        let dir = TestDir::empty();
        let pipe = dir.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut config = String::new();
        for number in 0..count {
            dir.write(&format!("p/{number}/in.txt"), number.to_string());
            config.push_str(&format!(
                "[[test]]\nname = \"t{number}\"\ncommand = \"cat {number}/in.txt; {script}; echo {number} > ../pipe\"\n\
                 inputs = [\"/{number}/**\"]\n"
            ));
        }
        let runs: Arc<Mutex<Vec<usize>>> = Arc::default();
        let into = Arc::clone(&runs);
        // Also open for writing, so that the pipe does not end between two tests.
        let pipe = fs::File::options().read(true).write(true).open(pipe).unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                into.lock().unwrap().push(line.unwrap().parse().unwrap());
            }
        });
        Self { dir: dir.with("p/greenwave.toml", config), runs }
    }

    fn sorted(&self) -> Vec<usize> {
        let mut runs = self.runs.lock().unwrap().clone();
        runs.sort_unstable();
        runs
    }
}

#[test]
fn concurrent_processes_run_each_test_once() {
    let recorded = RecordedTests::new(12, "sleep 0.05");
    let dir = &recorded.dir;
    let running: Vec<_> = (0..8).map(|_| greenwave(dir, "p", ["--format", "json"]).start()).collect();
    for running in running {
        let found = verdicts(&running.finish().with_code(0));
        assert_eq!(found.len(), 12);
        assert!(found.iter().all(|(_, passed, _)| *passed));
    }
    assert_eq!(recorded.sorted(), (0..12).collect::<Vec<_>>());
}

#[test]
fn passes_before_a_kill_are_cached() {
    let recorded = RecordedTests::new(3, "true");
    let dir = &recorded.dir;
    let config = dir.read("p/greenwave.toml") + "[[test]]\nname = \"long\"\ncommand = \"sleep 600\"\n";
    dir.write("p/greenwave.toml", config.replace("sleep 600", "echo $$ > ../started; exec sleep 600"));
    let args = ["--format", "json", "--set", "testing.follow_load=false", "--jobs", "2"];
    let mut running = greenwave(dir, "p", args).start();
    for _ in 0..3 {
        running.read_until(r#""status":"passed""#);
    }
    let started = || fs::read_to_string(dir.path("started")).is_ok_and(|text| text.ends_with('\n'));
    until("the long test runs", started);
    running.signal(Signal::KILL);
    running.wait();
    let left = dir.read("started").trim().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    // The supervisor of the killed program ends the test.
    until("the long test has ended", || rustix::process::test_kill_process(left).is_err());
    dir.write("p/greenwave.toml", config.replace("sleep 600", "true"));
    let after = run(dir, "p");
    assert_eq!(after.iter().filter(|(_, passed, cached)| *passed && *cached).count(), 3, "{after:?}");
    assert_eq!(recorded.sorted(), [0, 1, 2]);
}

#[test]
fn an_interrupt_kills_running_tests() {
    let config = "[[test]]\nname = \"long\"\ncommand = \"echo $$ > ../id; sleep 600\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config);
    let running = greenwave(&dir, "p", ["--format", "json"]).start();
    let id = || fs::read_to_string(dir.path("id")).unwrap_or_default();
    until("the test runs", || id().ends_with('\n'));
    running.signal(Signal::INT);
    let finished = running.finish().with_code(130);
    assert!(finished.stdout.contains(r#""event":"stopped""#), "{}", finished.stdout);
    until("the test is gone", || is_gone(&id()));
}

#[test]
fn an_interrupt_kills_builds() {
    let script = "fn main() {\n    std::fs::write(\"../id\", format!(\"{}\\n\", std::process::id())).unwrap();\n    \
                  std::thread::sleep(std::time::Duration::from_secs(600));\n}\n";
    let dir = TestDir::empty()
        .with("p/Cargo.toml", "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
        .with("p/build.rs", script)
        .with("p/src/lib.rs", "#[test] fn t() {}\n");
    let running = greenwave(&dir, "p", ["--format", "json"]).start();
    let id = || fs::read_to_string(dir.path("id")).unwrap_or_default();
    until("the build script runs", || id().ends_with('\n'));
    running.signal(Signal::INT);
    let finished = running.finish().with_code(130);
    assert!(finished.stdout.contains(r#""event":"stopped""#), "{}", finished.stdout);
    until("the build script is gone", || is_gone(&id()));
}

/// Returns whether a process has ended, whether its parent has waited for it or not.
fn is_gone(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn a_test_that_exceeds_its_time_limit_is_killed_with_its_children() {
    let config =
        "[[test]]\nname = \"t\"\ntimeout = \"300ms\"\ncommand = \"sleep 600 & echo $! > ../id; wait\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config);
    let finished = greenwave(&dir, "p", []).run().with_code(1);
    assert!(finished.stdout.contains("did not end within 300ms and was killed"), "{}", finished.stdout);
    let id = dir.read("id");
    until("its child is gone", || is_gone(&id));
}

#[test]
fn a_process_in_another_session_is_left_behind() {
    // The test ends once the process has started: before, it has no name that can be read.
    let started = "$TMPDIR/started";
    let process = format!("setsid sh -c 'touch {started}; exec sleep 3' >/dev/null 2>&1 &");
    let command = format!("{process} until test -e {started}; do sleep 0.01; done");
    let test = format!("[[test]]\nname = \"t\"\ncommand = \"{command}\"\n");
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let ran = greenwave(&dir, "p", []).run().with_code(0);
    // The process may not have started its last program yet.
    let names = ["sleep", "touch", "sh"];
    let is_named = |name| ran.stdout.contains(&format!("left processes behind: {name} (end them"));
    assert!(names.into_iter().any(is_named), "{}", ran.stdout);
    assert!(!ran.stdout.contains("clock"), "{}", ran.stdout);
}
