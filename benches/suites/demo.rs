//! Measures the demo as users run it: sequentially without caches, in parallel, and a second time.
//! Runs real processes of the program as it is handed out, with the recorded delays.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use greenwave_benches::{Page, Row, is_measuring};
use serde_json::Value;

const ABOUT: &str = "
`greenwave demo` implements ten features of a calculator. Eleven recorded responses are replayed
with their delays, and cargo compiles and runs the tests in each feature's copy of the project.
Times are wall times of the whole process. Every first run has a new directory, and rounds are
interleaved.

- *sequential*: `--workers 1 --agents 1 --features 1 --no-cache`. Without a cache, every merge runs
  the tests of all green features again. The saving of *default* is therefore due to both
  parallelism and the cache.
- *sequential, cached*: with the cache enabled, to separate the two effects. It has no expectation.
- *default*: no flags.
- *second run*: `greenwave run` of the plan that *default* created, twenty times after each round.

The delays of the responses are modeled at about 300 tokens per second, not recorded
(`xtask/src/demo_script.rs`). Peak memory is that of the program's own process, without the
compilers that the tests start.";

/// Expectations, from the issue that introduced the demo.
const SHARE_PERCENT: f64 = 40.0;
const SECOND_RUN_MS: f64 = 150.0;
const PEAK_MB: f64 = 64.0;

const ROUNDS: usize = 3;
const SECOND_RUNS: usize = 20;

const SEQUENTIAL: [&str; 6] = ["--workers", "1", "--agents", "1", "--features", "1"];

/// A finished run of the program.
struct Run {
    seconds: f64,
    totals: Value,
}

fn main() {
    if !is_measuring() {
        return;
    }
    let program = build();
    let without_cache: Vec<&str> = SEQUENTIAL.into_iter().chain(["--no-cache"]).collect();
    let (mut sequential, mut cached, mut default, mut second) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        sequential.push(demo(&program, &temporary_directory(), &without_cache));
        cached.push(demo(&program, &temporary_directory(), &SEQUENTIAL));
        let directory = temporary_directory();
        default.push(demo(&program, &directory, &[]));
        let plan = directory.path().join("plan.toml");
        second.extend((0..SECOND_RUNS).map(|_| second_run(&program, &plan)));
    }
    Page { suite: "demo", about: ABOUT, rows: rows(&sequential, &cached, &default, &second) }.publish();
}

fn rows(sequential: &[Run], cached: &[Run], default: &[Run], second: &[Run]) -> Vec<Row> {
    let seconds = |name: &str, runs: &[Run]| Row::new(name, "s", runs.iter().map(|run| run.seconds));
    let count = |name: &str, runs: &[Run]| {
        let row = |runs: &[Run]| runs.iter().map(|run| run.number("tests_run")).collect::<Vec<_>>();
        Row::new(name, "commands", row(runs))
    };
    let share = |of: &[Run]| {
        default.iter().zip(of).map(|(run, other)| run.seconds / other.seconds * 100.0).collect::<Vec<_>>()
    };
    let peaks = |runs: &[Run]| runs.iter().map(|run| run.number("memory_peak_mb")).collect::<Vec<_>>();
    vec![
        seconds("sequential", sequential),
        seconds("sequential, cached", cached),
        seconds("default", default),
        Row::new("default / sequential", "%", share(sequential)).at_most(SHARE_PERCENT),
        Row::new("default / sequential, cached", "%", share(cached)),
        Row::new("second run", "ms", second.iter().map(|run| run.seconds * 1e3)).at_most(SECOND_RUN_MS),
        Row::new("peak memory of default", "MB", peaks(default)).at_most(PEAK_MB),
        Row::new("peak memory of second run", "MB", peaks(second)).at_most(PEAK_MB),
        count("test commands, sequential", sequential),
        count("test commands, default", default),
    ]
}

/// Builds the program as it is released, and returns its path.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args =
        ["build", "--profile=dist", "--package", "greenwave-cli", "--message-format=json-render-diagnostics"];
    let built =
        Command::new(cargo).args(args).stderr(Stdio::inherit()).output().expect("cargo can be started");
    assert!(built.status.success(), "cannot build the program");
    let messages = String::from_utf8(built.stdout).expect("the messages are UTF-8");
    let mut executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "greenwave")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables.next().expect("the package has a program `greenwave`")
}

fn temporary_directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("greenwave-bench-")
        .tempdir()
        .expect("a temporary directory can be created")
}

fn demo(program: &Path, directory: &tempfile::TempDir, flags: &[&str]) -> Run {
    let directory = directory.path().to_str().expect("the path is UTF-8");
    let run = Run::of(program, &[&["demo", "--dir", directory], flags].concat());
    assert_eq!(run.number("requests"), 11.0, "each response is requested");
    run
}

fn second_run(program: &Path, plan: &Path) -> Run {
    let run = Run::of(program, &["run", plan.to_str().expect("the path is UTF-8")]);
    assert_eq!(
        (run.number("requests"), run.number("tests_run")),
        (0.0, 0.0),
        "no request is sent and no test runs"
    );
    run
}

impl Run {
    /// Runs the program without the caller's settings, and reads its last event.
    fn of(program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GREENWAVE_"))
        {
            command.env_remove(name);
        }
        command.args(args).args(["--format", "json", "--metrics-port", "0"]).stderr(Stdio::inherit());
        let started = Instant::now();
        let output = command.output().expect("the program can be started");
        let seconds = started.elapsed().as_secs_f64();
        assert!(output.status.success(), "{args:?} ended with {}", output.status);
        let events = String::from_utf8(output.stdout).expect("events are UTF-8");
        let report: Value =
            serde_json::from_str(events.lines().last().unwrap_or_default()).expect("events are JSON");
        assert_eq!(report["event"], "finished", "the last event is the report");
        Self { seconds, totals: report["totals"].clone() }
    }

    fn number(&self, key: &str) -> f64 {
        self.totals[key].as_f64().unwrap_or_else(|| panic!("the report has no `totals.{key}`"))
    }
}
