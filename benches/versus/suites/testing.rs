//! `greenwave test` beside programs that people run tests with: nothing to do, one file changed, first runs, eight at once.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use greenwave_benches::{Page, Row, is_measuring};
use serde_json::{Value, json};

const ABOUT: &str = "
Wall time of whole processes, from start to exit, the tools' rounds interleaved. Two workers. Each greenwave has a cache of its own. Before a run
with nothing to do, all files have been at rest for more than two seconds, and each tool has run once more.

*1,000 tests*: `cat` of one of five files, all five of them inputs; 5,000 inputs. greenwave (`cat` as a list of words), ninja (through `sh`) and
make (through `sh`; it knows times only), go-task and nx have all of them. turbo and moon have **200 tests**, a fifth of the work, since first runs would take
minutes: their figures are so much better than they ought to be. nx has its daemon. ninja and make write the output to a file, the others keep it.
*One file changed*: other contents each time.

*pytest*: 40 files of 5 tests, that do nothing or compute for 10 ms each. greenwave finds the tests itself, and starts `python -m pytest` for batches of files.
The rivals have a copy of the project, so that what they write beside the tests is no change to ours. pytest has one worker, `pytest -n 2` (pytest-xdist) has two, as greenwave.

*cargo*: 4 packages of 100 tests, that do nothing or compute for 10 ms each, built by `cargo test --no-run` before anything is measured. greenwave also knows of
documentation's tests, as `cargo test` does and nextest does not. `cargo test` runs one program after another, each with a thread for each processor.

*Eight at once*: 60 tests of 50 ms (`sleep`) that nobody has run; eight processes in the same project with one cache, until the last has ended,
beside one process.

*First run, of ...*, *Nothing to do, of ...*: medians of the same round trips divided. The share of a cached test is a run with nothing to do over all
that the 60 tests of 50 ms take one after another; with tests that take a millisecond it would be greater.";

/// What the issue asks for.
const NOTHING_OF_NINJA_PERCENT: f64 = 150.0;
const NOTHING_OF_OTHERS_PERCENT: f64 = 10.0;
const FIRST_PERCENT: f64 = 103.0;
const CACHED_PERCENT: f64 = 1.0;
const EIGHT_PERCENT: f64 = 110.0;

const TESTS: usize = 1_000;
/// Of tools that would take minutes.
const FEWER: usize = 200;
const ROUNDS: usize = 20;
const SLOW_ROUNDS: usize = 5;
/// Longer than any file system's resolution.
const RESTED: Duration = Duration::from_millis(2_300);

type Part = fn(&Path, &mut Vec<Row>);
const PARTS: [(&str, Part); 6] = [
    ("60 tests of 50 ms", eight),
    ("cargo, trivial", |program, rows| cargo(program, Work::None, rows)),
    ("cargo, 10 ms", |program, rows| cargo(program, Work::TenMilliseconds, rows)),
    ("pytest, trivial", |program, rows| pytest(program, Work::None, rows)),
    ("pytest, 10 ms", |program, rows| pytest(program, Work::TenMilliseconds, rows)),
    ("1,000 tests", thousand),
];

/// What each test does.
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
    let greenwave = build();
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        // A part that cannot be measured is seen on the page, and does not cost the others.
        let part = std::panic::AssertUnwindSafe(|| {
            let mut rows = Vec::new();
            part(&greenwave, &mut rows);
            rows
        });
        match std::panic::catch_unwind(part) {
            Ok(found) => rows.extend(found),
            Err(_) => rows.push(Row::absent(name, "could not be measured")),
        }
    }
    Page { suite: "versus-testing", about: ABOUT, rows }.publish();
}

/// The program as it is handed out.
fn build() -> PathBuf {
    let args =
        ["build", "--profile=dist", "--package=greenwave-cli", "--message-format=json-render-diagnostics"];
    let built = Command::new(env!("CARGO")).args(args).stderr(Stdio::inherit()).output();
    let built = built.expect("cargo can be started");
    assert!(built.status.success(), "the program cannot be built");
    let messages = String::from_utf8(built.stdout).expect("cargo writes text");
    let mut messages = messages.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.find_map(|message| Some(message["executable"].as_str()?.into()));
    program.expect("the package has a program")
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("greenwave-bench-").tempdir().expect("a temporary folder can be made")
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
    fs::write(path, text).expect("a file can be written");
}

/// A program in a folder, without what whoever runs us has set.
fn command(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["GREENWAVE_", "CARGO", "RUSTUP_TOOLCHAIN"].iter().any(|start| text.starts_with(start));
        if ours && text != "CARGO_HOME" {
            command.env_remove(&name);
        }
    }
    command.env_remove("GITHUB_STEP_SUMMARY").env_remove("MAKEFLAGS").env_remove("RUSTFLAGS");
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn greenwave(program: &Path, folder: &Path, cache: &Path) -> Command {
    let mut command = command(program, folder);
    command.args(["test", "--jobs", "2"]).env("XDG_CACHE_HOME", cache);
    command
}

/// Milliseconds; `None` if the program failed.
fn timed(command: &mut Command) -> Option<f64> {
    let begun = Instant::now();
    let status = command.status().ok()?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    status.success().then_some(took)
}

/// Asserts that greenwave runs as many tests as there are, or none.
fn check(command: &mut Command, known: bool) {
    let output =
        command.args(["--format", "json"]).stdout(Stdio::piped()).output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests: Vec<Value> = lines.filter(|line| line["event"] == "test").collect();
    assert!(!tests.is_empty() && tests.iter().all(|test| (test["known"] == true) == known), "{text}");
}

fn median(samples: &[f64]) -> f64 {
    Row::new("", "", samples.iter().copied()).median()
}

fn of(samples: &[f64], other: &[f64]) -> f64 {
    median(samples) / median(other) * 100.0
}

/// How a rival is called, if it is there.
type Rival<'a> = Option<&'a dyn Fn() -> Command>;

/// A tool with a project of its own.
struct Tool {
    name: &'static str,
    tests: usize,
    rounds: usize,
    folder: tempfile::TempDir,
    program: PathBuf,
    args: &'static [&'static str],
    first: Vec<f64>,
    nothing: Vec<f64>,
    changed: Vec<f64>,
}

impl Tool {
    fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn command(&self) -> Command {
        let mut command = command(&self.program, &self.project());
        command.args(self.args).env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        command.env("TURBO_TELEMETRY_DISABLED", "1").env("MOON_TELEMETRY", "false");
        command.env("NX_TUI", "false").env("NX_DAEMON", "true");
        command
    }

    fn prepare(&self) {
        let (project, text) = (self.project(), self.text());
        for test in 0..self.tests {
            for file in 0..5 {
                let content = format!("content {test} {file}\n").repeat(20);
                write(&project.join(format!("pkg{test}/f{file}.txt")), &content);
            }
        }
        for (name, text) in text {
            write(&project.join(name), &text);
        }
        if self.name == "nx" {
            let modules = self.program.ancestors().nth(2).expect("it is in node_modules/.bin");
            std::os::unix::fs::symlink(modules, project.join("node_modules")).expect("a link can be made");
        }
        if ["turbo", "nx", "moon"].contains(&self.name) {
            write(&project.join(".gitignore"), "node_modules\n.turbo\n.nx\n.moon/cache\n");
            let who = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"];
            let commit = [who.as_slice(), &["commit", "--quiet", "--no-gpg-sign", "-m", "bench"]].concat();
            for args in [&["init", "--quiet"][..], &["add", "--all"], &commit] {
                assert!(timed(command("git", &project).args(args)).is_some(), "git {args:?}");
            }
        }
    }

    /// What the tool wants to know of the tests.
    fn text(&self) -> Vec<(String, String)> {
        let one = |name: &str, text: String| vec![(name.to_owned(), text)];
        let each = |name: &str, text: &dyn Fn(usize) -> String| {
            (0..self.tests).map(|test| (format!("pkg{test}/{name}"), text(test))).collect::<Vec<_>>()
        };
        let mut text = String::new();
        match self.name {
            "greenwave" => {
                for test in 0..self.tests {
                    let _ = writeln!(
                        text,
                        "[[test]]\nname = \"t{test}\"\ncommand = [\"cat\", \"pkg{test}/f0.txt\"]\ninputs = [\"pkg{test}/**\"]\n"
                    );
                }
                one("greenwave.toml", text)
            }
            "ninja" => {
                text.push_str("rule t\n  command = cat $in > $out\n");
                for test in 0..self.tests {
                    let _ = write!(text, "build out/{test}: t pkg{test}/f0.txt |");
                    (1..5).for_each(|file| write!(text, " pkg{test}/f{file}.txt").expect("it is a string"));
                    text.push('\n');
                }
                one("build.ninja", text)
            }
            "make" => {
                text.push_str("all:");
                (0..self.tests).for_each(|test| write!(text, " out/{test}").expect("it is a string"));
                text.push('\n');
                for test in 0..self.tests {
                    let _ = write!(text, "out/{test}:");
                    (0..5).for_each(|file| write!(text, " pkg{test}/f{file}.txt").expect("it is a string"));
                    let _ = writeln!(text, "\n\t@cat pkg{test}/f0.txt > out/{test}");
                }
                vec![("Makefile".to_owned(), text), ("out/.keep".to_owned(), String::new())]
            }
            "go-task" => {
                let names: Vec<String> = (0..self.tests).map(|test| format!("t{test}")).collect();
                let _ = writeln!(text, "version: '3'\ntasks:\n  all:\n    deps: [{}]", names.join(", "));
                for test in 0..self.tests {
                    let _ = writeln!(
                        text,
                        "  t{test}:\n    cmds: [cat pkg{test}/f0.txt]\n    sources: ['pkg{test}/*.txt']"
                    );
                }
                one("Taskfile.yml", text)
            }
            "turbo" => {
                let root = json!({"name": "root", "packageManager": "npm@10.0.0", "workspaces": ["pkg*"]});
                let tasks = json!({"tasks": {"test": {"inputs": ["f*.txt"], "outputs": []}}});
                let package = |test| json!({"name": format!("pkg{test}"), "version": "1.0.0", "scripts": {"test": "cat f0.txt"}});
                let mut files = each("package.json", &|test| package(test).to_string());
                files.extend(one("package.json", root.to_string()));
                files.extend(one("turbo.json", tasks.to_string()));
                files.extend(one(
                    "package-lock.json",
                    json!({"lockfileVersion": 3, "packages": {}}).to_string(),
                ));
                files
            }
            "nx" => {
                let project = |test| {
                    let target = json!({"command": format!("cat pkg{test}/f0.txt"), "cache": true, "inputs": ["{projectRoot}/f*.txt"]});
                    json!({"name": format!("pkg{test}"), "targets": {"test": target}})
                };
                let mut files = each("project.json", &|test| project(test).to_string());
                files.extend(one("package.json", json!({"name": "root"}).to_string()));
                files.extend(one("nx.json", json!({"analytics": false}).to_string()));
                files
            }
            _ => {
                let task = "tasks:\n  test:\n    command: cat f0.txt\n    inputs: ['f*.txt']\n";
                let mut files = each("moon.yml", &|_| task.to_owned());
                files.extend(one(".moon/workspace.yml", "projects: ['pkg*']\ntelemetry: false\n".to_owned()));
                files
            }
        }
    }
}

/// The programs that there are, and the names of those that there are not.
fn tools(greenwave: &Path) -> (Vec<Tool>, Vec<&'static str>) {
    let node = std::env::var_os("PROBE_NODE").map(|node| PathBuf::from(node).join("node_modules/.bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = |name: &str| {
        let in_node = node.iter().filter(|_| !["ninja", "make"].contains(&name));
        in_node.chain(&path).map(|folder| folder.join(name)).find(|program| program.exists())
    };
    let all: [(_, Option<PathBuf>, _, _, &[&str]); 7] = [
        ("greenwave", Some(greenwave.to_owned()), TESTS, ROUNDS, &["test", "--jobs", "2"]),
        ("ninja", found("ninja"), TESTS, ROUNDS, &["-j2", "--quiet"]),
        ("make", found("make"), TESTS, ROUNDS, &["-j2", "-s", "all"]),
        // `task` elsewhere may be another program of that name.
        (
            "go-task",
            found("go-task").or(node.as_ref().map(|node| node.join("task")).filter(|it| it.exists())),
            TESTS,
            SLOW_ROUNDS,
            &["--silent", "--concurrency", "2", "all"],
        ),
        (
            "turbo",
            found("turbo"),
            FEWER,
            SLOW_ROUNDS,
            &["run", "test", "--concurrency=2", "--output-logs=errors-only"],
        ),
        (
            "nx",
            found("nx"),
            TESTS,
            SLOW_ROUNDS,
            &["run-many", "-t", "test", "--parallel=2", "--output-style=static"],
        ),
        ("moon", found("moon"), FEWER, SLOW_ROUNDS, &["run", ":test", "--concurrency", "2"]),
    ];
    let (mut here, mut absent) = (Vec::new(), Vec::new());
    for (name, program, tests, rounds, args) in all {
        let Some(program) = program else {
            absent.push(name);
            continue;
        };
        let (first, nothing, changed) = (Vec::new(), Vec::new(), Vec::new());
        here.push(Tool { name, tests, rounds, folder: folder(), program, args, first, nothing, changed });
    }
    (here, absent)
}

fn thousand(greenwave: &Path, rows: &mut Vec<Row>) {
    let (mut tools, absent) = tools(greenwave);
    for name in absent {
        rows.push(Row::absent(format!("1,000 tests, {name}"), "not installed"));
    }
    tools.iter().for_each(Tool::prepare);
    std::thread::sleep(RESTED);
    // First runs again from nothing, where that is quick.
    for tool in &mut tools {
        let rounds = if tool.rounds == ROUNDS { SLOW_ROUNDS } else { 1 };
        for _ in 0..rounds {
            let project = tool.project();
            let _ = fs::remove_dir_all(tool.folder.path().join("cache"));
            for left in [".ninja_log", ".ninja_deps"] {
                let _ = fs::remove_file(project.join(left));
            }
            let _ = fs::remove_dir_all(project.join("out"));
            if tool.name == "make" {
                write(&project.join("out/.keep"), "");
            }
            tool.first.extend(timed(&mut tool.command()));
        }
    }
    tools.retain(|tool| {
        if tool.first.is_empty() {
            rows.push(Row::absent(
                format!("{} tests, {}", tool.tests, tool.name),
                "installed, but it failed",
            ));
        }
        !tool.first.is_empty()
    });
    std::thread::sleep(RESTED);
    for tool in &tools {
        timed(&mut tool.command());
    }
    check(&mut tools[0].command(), true);
    for round in 0..ROUNDS {
        for tool in tools.iter_mut().filter(|tool| round < tool.rounds) {
            tool.nothing.extend(timed(&mut tool.command()));
        }
    }
    for round in 0..SLOW_ROUNDS {
        for tool in &mut tools {
            write(&tool.project().join("pkg0/f0.txt"), &format!("changed {round}\n"));
            tool.changed.extend(timed(&mut tool.command()));
        }
    }
    for tool in &tools {
        let name = format!("{} tests, {}", tool.tests, tool.name);
        rows.push(Row::new(format!("nothing to do, {name}"), "ms", tool.nothing.clone()));
        let mut sorted = tool.nothing.clone();
        sorted.sort_by(f64::total_cmp);
        if sorted.len() == ROUNDS {
            rows.push(Row::new(
                format!("nothing to do, {name}, 95th percentile"),
                "ms",
                [sorted[ROUNDS * 95 / 100 - 1]],
            ));
        }
        rows.push(Row::new(format!("one file changed, {name}"), "ms", tool.changed.clone()));
        rows.push(Row::new(format!("first run, {name}"), "ms", tool.first.clone()));
    }
    let (ours, others) = tools.split_first().expect("ours is there");
    for other in others {
        let share =
            Row::new(format!("nothing to do, of {}", other.name), "%", [of(&ours.nothing, &other.nothing)]);
        rows.push(match other.name {
            "ninja" => share.at_most(NOTHING_OF_NINJA_PERCENT),
            "make" => share,
            _ => share.at_most(NOTHING_OF_OTHERS_PERCENT),
        });
        if other.tests == ours.tests {
            let share = Row::new(
                format!("first run, 1,000 tests, of {}", other.name),
                "%",
                [of(&ours.first, &other.first)],
            );
            rows.push(if other.name == "ninja" { share.at_most(FIRST_PERCENT) } else { share });
        }
    }
    for tool in tools.iter().filter(|tool| tool.name == "nx") {
        let mut stop = command(&tool.program, &tool.project());
        let _ = stop.args(["daemon", "--stop"]).status();
    }
}

/// First runs and runs with nothing to do of ours, each beside a round of the rivals.
fn beside(
    what: &str,
    program: &Path,
    project: &Path,
    rivals: &[(&str, Rival<'_>)],
    own: &str,
    variables: &[(&str, std::ffi::OsString)],
    rows: &mut Vec<Row>,
) {
    let caches = folder();
    let ours = |round: usize| {
        let mut command = greenwave(program, project, &caches.path().join(round.to_string()));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command
    };
    check(&mut ours(ROUNDS), false);
    // What the check has left in the project is older than what is measured.
    std::thread::sleep(RESTED);
    check(&mut ours(ROUNDS), true);
    let mut first = Vec::new();
    let mut nothing = Vec::new();
    let mut others = vec![Vec::new(); rivals.len()];
    for round in 0..SLOW_ROUNDS {
        first.push(timed(&mut ours(round)).expect("ours passes"));
        for (samples, (_, rival)) in others.iter_mut().zip(rivals) {
            samples.extend(rival.and_then(|rival| timed(&mut rival())));
        }
    }
    std::thread::sleep(RESTED);
    timed(&mut ours(0)).expect("it ran before");
    for _ in 0..ROUNDS {
        nothing.push(timed(&mut ours(0)).expect("ours passes"));
    }
    for ((name, rival), samples) in rivals.iter().zip(&others) {
        let label = format!("{what}, {name}");
        if samples.is_empty() {
            let why = if rival.is_some() { "installed, but it failed" } else { "not installed" };
            rows.push(Row::absent(label, why));
            continue;
        }
        rows.push(Row::new(label, "ms", samples.clone()));
        if name.ends_with("nothing to do") {
            rows.push(Row::new(format!("{what}, nothing to do, of {name}"), "%", [of(&nothing, samples)]));
            continue;
        }
        let share = Row::new(format!("{what}, first run, of {name}"), "%", [of(&first, samples)]);
        rows.push(if *name == own { share.at_most(FIRST_PERCENT) } else { share });
        rows.push(Row::new(format!("{what}, nothing to do, of {name}"), "%", [of(&nothing, samples)]));
    }
    rows.push(Row::new(format!("{what}, greenwave, first run"), "ms", first));
    rows.push(Row::new(format!("{what}, greenwave, nothing to do"), "ms", nothing));
}

fn pytest(program: &Path, work: Work, rows: &mut Vec<Row>) {
    let what = &format!("pytest, 200 {}", work.name());
    let Some(python) = std::env::var_os("PROBE_PYTHON").map(PathBuf::from) else {
        rows.push(Row::absent(what.as_str(), "not installed (`PROBE_PYTHON`)"));
        return;
    };
    let place = folder();
    // The rivals have a copy of their own, so that what they write beside the tests is no change to ours.
    let (project, theirs) = (&place.path().join("ours"), &place.path().join("theirs"));
    for project in [project, theirs] {
        for file in 0..40 {
            let work = match work {
                Work::None => "",
                Work::TenMilliseconds => {
                    "    end = time.perf_counter() + 0.01\n    while time.perf_counter() < end:\n        pass\n"
                }
            };
            let tests = (0..5).map(|test| {
                format!("def test_{test}():\n{work}    assert {test} + {file} == {}\n\n", test + file)
            });
            let text = format!("import time\n\n{}", tests.collect::<String>());
            write(&project.join(format!("tests/test_f{file}.py")), &text);
        }
        write(&project.join("pytest.ini"), "[pytest]\ntestpaths = tests\n");
    }
    let has =
        |module: &str| timed(command(&python, theirs).args(["-c", &format!("import {module}")])).is_some();
    let run = |args: &[&str]| {
        let mut command = command(&python, theirs);
        command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).args(args);
        command
    };
    let plain = || run(&["-p", "no:testmon", "-p", "no:xdist"]);
    let two = || run(&["-p", "no:testmon", "-n", "2"]);
    // Its exit code says that no test ran.
    let testmon = || {
        let mut command = command("sh", theirs);
        command.args(["-c", "\"$0\" -m pytest -q --testmon; test $? = 0 -o $? = 5"]).arg(&python);
        command
    };
    if has("testmon") {
        let _ = testmon().status();
    }
    let (xdist, testmon_is_here) = (has("xdist"), has("testmon"));
    let rivals: [(&str, Rival<'_>); 3] = [
        ("pytest", Some(&plain)),
        ("pytest -n 2", xdist.then_some(&two)),
        ("testmon, nothing to do", testmon_is_here.then_some(&testmon)),
    ];
    // Our tests find this python by its folder.
    let folder_of_python = python.parent().expect("a program is in a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(folder_of_python).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).expect("it was one");
    beside(what, program, project, &rivals, "pytest -n 2", &[("PATH", path)], rows);
}

fn cargo(program: &Path, work: Work, rows: &mut Vec<Row>) {
    let what = &format!("cargo, 400 {}", work.name());
    let body = match work {
        Work::None => "",
        Work::TenMilliseconds => {
            "    let begin = std::time::Instant::now();\n    while begin.elapsed().as_millis() < 10 {}\n"
        }
    };
    let place = folder();
    let project = place.path();
    write(&project.join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"p*\"]\n");
    for package in 0..4 {
        let manifest = format!("[package]\nname = \"p{package}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        write(&project.join(format!("p{package}/Cargo.toml")), &manifest);
        let tests: String = (0..100)
            .map(|test| {
                format!("#[test]\nfn t{test}() {{\n{body}    assert_eq!({test} + 1, {});\n}}\n", test + 1)
            })
            .collect();
        write(
            &project.join(format!("p{package}/src/lib.rs")),
            &tests.replace("#[test]", "#[cfg(test)]\n#[test]"),
        );
    }
    std::thread::sleep(RESTED);
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
    let rivals: [(&str, Rival<'_>); 2] =
        [("cargo test", Some(&test)), ("cargo nextest", has_nextest.then_some(&nextest))];
    beside(what, program, project, &rivals, "cargo test", &[], rows);
}

fn eight(program: &Path, rows: &mut Vec<Row>) {
    const SLEEPERS: usize = 60;
    const EACH_MS: usize = 50;
    let place = folder();
    let project = place.path().join("project");
    let mut text = String::new();
    for test in 0..SLEEPERS {
        write(&project.join(format!("in/{test}")), &test.to_string());
        let _ = writeln!(
            text,
            "[[test]]\nname = \"s{test}\"\ncommand = [\"sleep\", \"0.05\"]\ninputs = [\"in/{test}\"]\n"
        );
    }
    write(&project.join("greenwave.toml"), &text);
    std::thread::sleep(RESTED);
    let run = |cache: &str| greenwave(program, &project, &place.path().join(cache));
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
    check(&mut run("one0"), true);
    let nothing: Vec<f64> = (0..ROUNDS).filter_map(|_| timed(&mut run("one0"))).collect();
    let own = (SLEEPERS * EACH_MS) as f64;
    let shares: Vec<f64> = nothing.iter().map(|took| took / own * 100.0).collect();
    rows.push(Row::new("a cached test of 50 ms, of its own time", "%", shares).at_most(CACHED_PERCENT));
    let shares: Vec<f64> = together.iter().zip(&alone).map(|(eight, one)| eight / one * 100.0).collect();
    rows.push(Row::new("eight at once, of one", "%", shares).at_most(EIGHT_PERCENT));
    rows.push(Row::new("60 tests of 50 ms, one process", "ms", alone));
    rows.push(Row::new("60 tests of 50 ms, eight processes at once", "ms", together));
    rows.push(Row::new("60 tests of 50 ms, nothing to do", "ms", nothing));
}
