//! Compares `greenwave test` with other programs that run tests: up-to-date runs, runs after one
//! change, first runs, and eight runs at once.

#[path = "testing/process.rs"]
mod process;
#[path = "testing/rivals.rs"]
mod rivals;
#[path = "testing/tool.rs"]
mod tool;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use greenwave_benches::{Page, Row, is_measuring};

use crate::process::{
    assert_cached, build_greenwave, command, greenwave, temporary_directory, timed, wait_for_timestamps,
    write,
};
use crate::rivals::{ROUNDS, SLOW_ROUNDS};
use crate::tool::{Tool, tools};

const ABOUT: &str = "
Wall times of whole processes, from start to exit, with two workers and interleaved rounds. Each
greenwave has a separate result store. Before up-to-date runs, no file is changed for more than two
seconds, and each tool runs once more.

*1,000 tests*: `cat` of one of five files, all of which are inputs; 5,000 inputs in total. All tests
are run by greenwave (`cat` without a shell), ninja (through `sh`), make (through `sh`; it compares
times only), go-task and nx. turbo and moon have only **200 tests**, since their first runs would
take minutes, so their times are better than they would be otherwise. nx has its daemon. ninja and
make write the output to a file, the others store it. *one file changed*: new content each time.

*pytest*: 40 files of 5 tests, which do nothing or compute for 10 ms. greenwave discovers the tests
and starts `python -m pytest` for batches of files. The rivals have a copy of the project, so that
files they write next to the tests do not change greenwave's inputs. pytest has one worker; `pytest
-n 2` (pytest-xdist) has two, like greenwave.

*cargo*: 4 packages of 100 tests, which do nothing or compute for 10 ms. `cargo test --no-run`
builds them before anything is measured. greenwave includes documentation tests, as `cargo test`
does and nextest does not. `cargo test` runs one program after another, each with one thread per
processor.

*eight at once*: 60 tests of 50 ms (`sleep`) without cached results, run by eight processes in the
same project with one result store until the last process has ended, beside a single process.

Rows with `/` divide medians of the same rounds. The share of a cached test is an up-to-date run
divided by the total duration of the 60 tests of 50 ms. It would be greater for tests that take a
millisecond.";

/// Expectations, from the issue that introduced the suite. `rivals.rs` and `rivals/ninja.rs` have
/// those for up-to-date runs.
const FIRST_PERCENT: f64 = 103.0;
const CACHED_PERCENT: f64 = 1.0;
const EIGHT_PERCENT: f64 = 110.0;

type Part = fn(&Path, &mut Vec<Row>);
const PARTS: [(&str, Part); 6] = [
    ("60 tests of 50 ms", eight_at_once),
    ("cargo, trivial", |program, rows| cargo(program, Work::None, rows)),
    ("cargo, 10 ms", |program, rows| cargo(program, Work::TenMilliseconds, rows)),
    ("pytest, trivial", |program, rows| pytest(program, Work::None, rows)),
    ("pytest, 10 ms", |program, rows| pytest(program, Work::TenMilliseconds, rows)),
    ("1,000 tests", thousand_commands),
];

/// The work of each test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    None,
    TenMilliseconds,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::None => "trivial tests",
            Work::TenMilliseconds => "tests of 10 ms",
        }
    }
}

fn main() {
    if !is_measuring() {
        return;
    }
    let greenwave = build_greenwave();
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        // A part that panics is shown on the page and does not prevent the others.
        let part = std::panic::AssertUnwindSafe(|| {
            let mut rows = Vec::new();
            part(&greenwave, &mut rows);
            rows
        });
        match std::panic::catch_unwind(part) {
            Ok(measured) => rows.extend(measured),
            Err(_) => rows.push(Row::absent(name, "could not be measured")),
        }
    }
    Page { suite: "versus-testing", about: ABOUT, rows }.publish();
}

fn median(samples: &[f64]) -> f64 {
    Row::new("", "", samples.iter().copied()).median()
}

/// Returns the ratio of two medians in percent.
fn percent(samples: &[f64], other: &[f64]) -> f64 {
    median(samples) / median(other) * 100.0
}

fn thousand_commands(greenwave: &Path, rows: &mut Vec<Row>) {
    let (mut tools, absent) = tools(greenwave);
    for name in absent {
        rows.push(Row::absent(format!("1,000 tests, {name}"), "not installed"));
    }
    tools.iter().for_each(Tool::prepare);
    wait_for_timestamps();
    measure_first_runs(&mut tools);
    tools.retain(|tool| {
        let has_passed = !tool.first.is_empty();
        if !has_passed {
            rows.push(Row::absent(tool_label(tool), "installed, but it failed"));
        }
        has_passed
    });
    wait_for_timestamps();
    measure_later_runs(&mut tools);
    tools.iter().for_each(|tool| rows.extend(rows_of_tool(tool)));
    let (greenwave, rivals) = tools.split_first().expect("greenwave is installed");
    rivals.iter().for_each(|rival| rows.extend(rows_of_ratios(greenwave, rival)));
    tools.iter().for_each(Tool::shut_down);
}

/// Measures runs without stored results, repeatedly for fast tools.
fn measure_first_runs(tools: &mut [Tool]) {
    for tool in tools {
        let rounds = if tool.rival.rounds() == ROUNDS { SLOW_ROUNDS } else { 1 };
        for _ in 0..rounds {
            tool.remove_results();
            let time = timed(&mut tool.command());
            tool.first.extend(time);
        }
    }
}

/// Measures up-to-date runs, and runs after one file changed.
fn measure_later_runs(tools: &mut [Tool]) {
    for tool in &*tools {
        timed(&mut tool.command());
    }
    assert_cached(&mut tools[0].command(), true);
    for round in 0..ROUNDS {
        for tool in tools.iter_mut().filter(|tool| round < tool.rival.rounds()) {
            let time = timed(&mut tool.command());
            tool.up_to_date.extend(time);
        }
    }
    for round in 0..SLOW_ROUNDS {
        for tool in &mut *tools {
            write(&tool.project().join("pkg0/f0.txt"), &format!("changed {round}\n"));
            let time = timed(&mut tool.command());
            tool.changed.extend(time);
        }
    }
}

fn tool_label(tool: &Tool) -> String {
    format!("{} tests, {}", tool.rival.tests(), tool.rival.name())
}

fn rows_of_tool(tool: &Tool) -> Vec<Row> {
    let label = tool_label(tool);
    let mut rows = vec![Row::new(format!("up to date, {label}"), "ms", tool.up_to_date.clone())];
    let mut sorted = tool.up_to_date.clone();
    sorted.sort_by(f64::total_cmp);
    if sorted.len() == ROUNDS {
        let percentile = sorted[ROUNDS * 95 / 100 - 1];
        rows.push(Row::new(format!("up to date, {label}, 95th percentile"), "ms", [percentile]));
    }
    rows.push(Row::new(format!("one file changed, {label}"), "ms", tool.changed.clone()));
    rows.push(Row::new(format!("first run, {label}"), "ms", tool.first.clone()));
    rows
}

fn rows_of_ratios(greenwave: &Tool, rival: &Tool) -> Vec<Row> {
    let name = rival.rival.name();
    let ratio = percent(&greenwave.up_to_date, &rival.up_to_date);
    let row = Row::new(format!("up to date, greenwave / {name}"), "%", [ratio]);
    let mut rows = vec![match rival.rival.up_to_date_percent_max() {
        Some(limit) => row.at_most(limit),
        None => row,
    }];
    if rival.rival.tests() == greenwave.rival.tests() {
        let ratio = percent(&greenwave.first, &rival.first);
        let row = Row::new(format!("first run, 1,000 tests, greenwave / {name}"), "%", [ratio]);
        rows.push(if name == "ninja" { row.at_most(FIRST_PERCENT) } else { row });
    }
    rows
}

/// A way to run the tests of a project with another tool.
struct Alternative<'a> {
    name: &'static str,
    /// Returns the command. `None` if the tool is not installed.
    command: Option<&'a dyn Fn() -> Command>,
    kind: AlternativeKind,
}

/// The comparison that an [`Alternative`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AlternativeKind {
    /// Runs all tests.
    Full,
    /// Runs all tests. The first run of greenwave is expected to take equally long.
    Equal,
    /// Runs no tests, since all are up to date.
    UpToDate,
}

/// Measures first and up-to-date runs of greenwave, and the alternatives in the same rounds.
fn compare(
    label: &str,
    greenwave: &dyn Fn(usize) -> Command,
    alternatives: &[Alternative<'_>],
    rows: &mut Vec<Row>,
) {
    assert_cached(&mut greenwave(ROUNDS), false);
    // Files that the check left in the project must be older than the measured runs.
    wait_for_timestamps();
    assert_cached(&mut greenwave(ROUNDS), true);
    let (mut first, mut up_to_date) = (Vec::new(), Vec::new());
    let mut others = vec![Vec::new(); alternatives.len()];
    for round in 0..SLOW_ROUNDS {
        first.push(timed(&mut greenwave(round)).expect("greenwave passes"));
        for (samples, alternative) in others.iter_mut().zip(alternatives) {
            samples.extend(alternative.command.and_then(|command| timed(&mut command())));
        }
    }
    wait_for_timestamps();
    timed(&mut greenwave(0)).expect("greenwave passes");
    for _ in 0..ROUNDS {
        up_to_date.push(timed(&mut greenwave(0)).expect("greenwave passes"));
    }
    for (Alternative { name, command, kind }, samples) in alternatives.iter().zip(&others) {
        if samples.is_empty() {
            let reason = if command.is_some() { "installed, but it failed" } else { "not installed" };
            rows.push(Row::absent(format!("{label}, {name}"), reason));
            continue;
        }
        rows.push(Row::new(format!("{label}, {name}"), "ms", samples.clone()));
        if *kind != AlternativeKind::UpToDate {
            let ratio = percent(&first, samples);
            let row = Row::new(format!("{label}, first run, greenwave / {name}"), "%", [ratio]);
            rows.push(if *kind == AlternativeKind::Equal { row.at_most(FIRST_PERCENT) } else { row });
        }
        let ratio = percent(&up_to_date, samples);
        rows.push(Row::new(format!("{label}, up to date, greenwave / {name}"), "%", [ratio]));
    }
    rows.push(Row::new(format!("{label}, greenwave, first run"), "ms", first));
    rows.push(Row::new(format!("{label}, greenwave, up to date"), "ms", up_to_date));
}

fn pytest(program: &Path, work: Work, rows: &mut Vec<Row>) {
    let label = &format!("pytest, 200 {}", work.name());
    let Some(python) = std::env::var_os("PROBE_PYTHON").map(PathBuf::from) else {
        rows.push(Row::absent(label.as_str(), "not installed (`PROBE_PYTHON`)"));
        return;
    };
    let directory = temporary_directory();
    let (project, copy) = (&directory.path().join("project"), &directory.path().join("copy"));
    write_pytest_project(project, work);
    write_pytest_project(copy, work);
    let has =
        |module: &str| timed(command(&python, copy).args(["-c", &format!("import {module}")])).is_some();
    let run = |args: &[&str]| {
        let mut command = command(&python, copy);
        command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).args(args);
        command
    };
    let plain = || run(&["-p", "no:testmon", "-p", "no:xdist"]);
    let two = || run(&["-p", "no:testmon", "-n", "2"]);
    // Exit code 5 means that no test ran.
    let testmon = || {
        let mut command = command("sh", copy);
        command.args(["-c", "\"$0\" -m pytest -q --testmon; test $? = 0 -o $? = 5"]).arg(&python);
        command
    };
    let (has_xdist, has_testmon) = (has("xdist"), has("testmon"));
    if has_testmon {
        let _ = testmon().status();
    }
    let alternative = |name, command, kind| Alternative { name, command, kind };
    let alternatives = [
        alternative("pytest", Some(&plain), AlternativeKind::Full),
        alternative("pytest -n 2", has_xdist.then_some(&two as _), AlternativeKind::Equal),
        alternative("testmon, up to date", has_testmon.then_some(&testmon as _), AlternativeKind::UpToDate),
    ];
    let (caches, path) = (temporary_directory(), path_with(&python));
    let greenwave = |round: usize| {
        let mut command = greenwave(program, project, &caches.path().join(round.to_string()));
        command.env("PATH", &path);
        command
    };
    compare(label, &greenwave, &alternatives, rows);
}

/// Writes 40 files of 5 tests.
fn write_pytest_project(project: &Path, work: Work) {
    let work = match work {
        Work::None => "",
        Work::TenMilliseconds => {
            "    end = time.perf_counter() + 0.01\n    while time.perf_counter() < end:\n        pass\n"
        }
    };
    for file in 0..40 {
        let tests = (0..5).map(|test| {
            format!("def test_{test}():\n{work}    assert {test} + {file} == {}\n\n", test + file)
        });
        let text = format!("import time\n\n{}", tests.collect::<String>());
        write(&project.join(format!("tests/test_f{file}.py")), &text);
    }
    write(&project.join("pytest.ini"), "[pytest]\ntestpaths = tests\n");
}

/// Returns the `PATH` with the directory of a program in front.
fn path_with(program: &Path) -> OsString {
    let directory = program.parent().expect("the path has a parent").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(directory).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).expect("directories of a `PATH` have no colon")
}

fn cargo(program: &Path, work: Work, rows: &mut Vec<Row>) {
    let label = &format!("cargo, 400 {}", work.name());
    let directory = temporary_directory();
    let project = directory.path();
    write_cargo_project(project, work);
    wait_for_timestamps();
    for args in [&["generate-lockfile", "--offline"][..], &["test", "--no-run", "--quiet"]] {
        assert!(timed(command("cargo", project).args(args)).is_some(), "cargo {args:?}");
    }
    let run = |args: &[&str]| {
        let mut command = command("cargo", project);
        command.args(args);
        command
    };
    let test = || run(&["test", "-q"]);
    let nextest = || run(&["nextest", "run", "-j", "2"]);
    let has_nextest = timed(&mut run(&["nextest", "--version"])).is_some();
    let alternative = |name, command, kind| Alternative { name, command, kind };
    let alternatives = [
        alternative("cargo test", Some(&test), AlternativeKind::Equal),
        alternative("cargo nextest", has_nextest.then_some(&nextest as _), AlternativeKind::Full),
    ];
    let caches = temporary_directory();
    let greenwave = |round: usize| greenwave(program, project, &caches.path().join(round.to_string()));
    compare(label, &greenwave, &alternatives, rows);
}

/// Writes a workspace with 4 packages of 100 tests.
fn write_cargo_project(project: &Path, work: Work) {
    let body = match work {
        Work::None => "",
        Work::TenMilliseconds => {
            "    let begin = std::time::Instant::now();\n    while begin.elapsed().as_millis() < 10 {}\n"
        }
    };
    write(&project.join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"p*\"]\n");
    for package in 0..4 {
        let manifest = format!("[package]\nname = \"p{package}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        write(&project.join(format!("p{package}/Cargo.toml")), &manifest);
        let test = |test: usize| {
            let sum = test + 1;
            format!("#[cfg(test)]\n#[test]\nfn t{test}() {{\n{body}    assert_eq!({test} + 1, {sum});\n}}\n")
        };
        let tests: String = (0..100).map(test).collect();
        write(&project.join(format!("p{package}/src/lib.rs")), &tests);
    }
}

fn eight_at_once(program: &Path, rows: &mut Vec<Row>) {
    const SLEEPERS: usize = 60;
    const EACH_MS: usize = 50;
    let directory = temporary_directory();
    let project = directory.path().join("project");
    let mut text = String::new();
    for test in 0..SLEEPERS {
        write(&project.join(format!("in/{test}")), &test.to_string());
        let _ = writeln!(
            text,
            "[[test]]\nname = \"s{test}\"\ncommand = [\"sleep\", \"0.05\"]\ninputs = [\"in/{test}\"]\n"
        );
    }
    write(&project.join("greenwave.toml"), &text);
    wait_for_timestamps();
    let run = |cache: &str| greenwave(program, &project, &directory.path().join(cache));
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for round in 0..SLOW_ROUNDS {
        alone.push(timed(&mut run(&format!("one{round}"))).expect("the tests pass"));
        let begun = Instant::now();
        let children: Vec<Child> =
            (0..8).map(|_| run(&format!("eight{round}")).spawn().expect("it can be started")).collect();
        for mut child in children {
            assert!(child.wait().expect("a child can be waited for").success());
        }
        together.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    assert_cached(&mut run("one0"), true);
    let up_to_date: Vec<f64> = (0..ROUNDS).filter_map(|_| timed(&mut run("one0"))).collect();
    let total = (SLEEPERS * EACH_MS) as f64;
    let shares: Vec<f64> = up_to_date.iter().map(|took| took / total * 100.0).collect();
    rows.push(Row::new("cached test of 50 ms / its duration", "%", shares).at_most(CACHED_PERCENT));
    let shares: Vec<f64> = together.iter().zip(&alone).map(|(eight, one)| eight / one * 100.0).collect();
    rows.push(Row::new("eight at once / one", "%", shares).at_most(EIGHT_PERCENT));
    rows.push(Row::new("60 tests of 50 ms, one process", "ms", alone));
    rows.push(Row::new("60 tests of 50 ms, eight processes at once", "ms", together));
    rows.push(Row::new("60 tests of 50 ms, up to date", "ms", up_to_date));
}
