//! The tools that run a thousand commands, each with its project.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::process::{command, temporary_directory, timed, write};

/// Number of tests in a project.
const TESTS: usize = 1_000;
/// Number of tests of tools whose first run would take minutes.
const TESTS_OF_SLOW_TOOLS: usize = 200;
/// Number of input files per test.
const FILES: usize = 5;
/// Number of up-to-date runs.
pub(crate) const ROUNDS: usize = 20;
/// Number of runs where each takes longer.
pub(crate) const SLOW_ROUNDS: usize = 5;

/// Expected percentages of the time of a rival, if everything is up to date.
const UP_TO_DATE_PERCENT_OF_NINJA: f64 = 150.0;
const UP_TO_DATE_PERCENT_OF_OTHERS: f64 = 10.0;

/// Files with their text, by path in the project.
type Files = Vec<(String, String)>;

/// A tool that runs commands and skips those whose inputs are unchanged.
pub(crate) trait Rival {
    /// Returns the name in rows.
    fn name(&self) -> &'static str;

    /// Returns the path of the tool's program, or `None` if it is not installed.
    fn find(&self, installed: &Installed) -> Option<PathBuf>;

    /// Returns the arguments that run all tests with two workers.
    fn arguments(&self) -> &'static [&'static str];

    /// Returns the files that define a number of tests. Each test runs `cat` on the first of
    /// its input files.
    fn files(&self, tests: usize) -> Files;

    /// Returns the number of tests in the tool's project.
    fn tests(&self) -> usize {
        TESTS
    }

    /// Returns the number of up-to-date runs.
    fn rounds(&self) -> usize {
        SLOW_ROUNDS
    }

    /// Returns the expected time of Greenwave's up-to-date runs, in percent of this tool's.
    fn up_to_date_percent_max(&self) -> Option<f64> {
        Some(UP_TO_DATE_PERCENT_OF_OTHERS)
    }

    /// Completes a project whose files have been written.
    fn prepare(&self, _program: &Path, _project: &Path) {}

    /// Removes what earlier runs stored in the project.
    fn remove_results(&self, _project: &Path) {}

    /// Ends background processes.
    fn shut_down(&self, _program: &Path, _project: &Path) {}
}

/// The places where tools are installed.
pub(crate) struct Installed {
    /// Directory of the programs of node packages (`PROBE_NODE`).
    node: Option<PathBuf>,
    path: Vec<PathBuf>,
}

impl Installed {
    pub(crate) fn new() -> Self {
        let node = std::env::var_os("PROBE_NODE").map(|node| PathBuf::from(node).join("node_modules/.bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self { node, path: std::env::split_paths(&path).collect() }
    }

    /// Finds a program on the `PATH`.
    fn on_path(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|directory| directory.join(name)).find(|program| program.exists())
    }

    /// Finds the program of a node package.
    fn in_node(&self, name: &str) -> Option<PathBuf> {
        self.node.as_ref().map(|node| node.join(name)).filter(|program| program.exists())
    }

    /// Finds the program of a node package, or one on the `PATH`.
    fn anywhere(&self, name: &str) -> Option<PathBuf> {
        self.in_node(name).or_else(|| self.on_path(name))
    }
}

/// A tool with a project and its measurements.
pub(crate) struct Tool {
    pub(crate) rival: Box<dyn Rival>,
    directory: tempfile::TempDir,
    program: PathBuf,
    pub(crate) first: Vec<f64>,
    pub(crate) up_to_date: Vec<f64>,
    pub(crate) changed: Vec<f64>,
}

impl Tool {
    pub(crate) fn new(rival: Box<dyn Rival>, program: PathBuf) -> Self {
        let (first, up_to_date, changed) = (Vec::new(), Vec::new(), Vec::new());
        Self { rival, directory: temporary_directory(), program, first, up_to_date, changed }
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    /// Returns the command that runs all tests.
    pub(crate) fn command(&self) -> Command {
        let mut command = command(&self.program, &self.project());
        command.args(self.rival.arguments()).env("XDG_CACHE_HOME", self.directory.path().join("cache"));
        command.env("TURBO_TELEMETRY_DISABLED", "1").env("MOON_TELEMETRY", "false");
        command.env("NX_TUI", "false").env("NX_DAEMON", "true");
        command
    }

    /// Writes the project.
    pub(crate) fn prepare(&self) {
        let (project, tests) = (self.project(), self.rival.tests());
        for test in 0..tests {
            for file in 0..FILES {
                let content = format!("content {test} {file}\n").repeat(20);
                write(&project.join(format!("pkg{test}/f{file}.txt")), &content);
            }
        }
        for (name, text) in self.rival.files(tests) {
            write(&project.join(name), &text);
        }
        self.rival.prepare(&self.program, &project);
    }

    /// Removes everything that earlier runs have stored.
    pub(crate) fn remove_results(&self) {
        let _ = fs::remove_dir_all(self.directory.path().join("cache"));
        self.rival.remove_results(&self.project());
    }

    pub(crate) fn shut_down(&self) {
        self.rival.shut_down(&self.program, &self.project());
    }
}

/// Returns the installed tools, Greenwave first, and the names of the others.
pub(crate) fn tools(greenwave: &Path) -> (Vec<Tool>, Vec<&'static str>) {
    let rivals: [Box<dyn Rival>; 7] = [
        Box::new(Greenwave { program: greenwave.to_owned() }),
        Box::new(Ninja),
        Box::new(Make),
        Box::new(GoTask),
        Box::new(Turbo),
        Box::new(Nx),
        Box::new(Moon),
    ];
    let installed = Installed::new();
    let (mut tools, mut absent) = (Vec::new(), Vec::new());
    for rival in rivals {
        match rival.find(&installed) {
            Some(program) => tools.push(Tool::new(rival, program)),
            None => absent.push(rival.name()),
        }
    }
    (tools, absent)
}

/// `greenwave test`.
struct Greenwave {
    program: PathBuf,
}

impl Rival for Greenwave {
    fn name(&self) -> &'static str {
        "greenwave"
    }

    fn find(&self, _: &Installed) -> Option<PathBuf> {
        Some(self.program.clone())
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["test", "--jobs", "2"]
    }

    fn files(&self, tests: usize) -> Files {
        let table = |test| {
            format!(
                "[[test]]\nname = \"t{test}\"\ncommand = [\"cat\", \"pkg{test}/f0.txt\"]\ninputs = [\"pkg{test}/**\"]\n\n"
            )
        };
        file("greenwave.toml", (0..tests).map(table).collect())
    }

    fn rounds(&self) -> usize {
        ROUNDS
    }
}

/// ninja, which runs commands through `sh` and compares modification times.
struct Ninja;

impl Rival for Ninja {
    fn name(&self) -> &'static str {
        "ninja"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.on_path("ninja")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["-j2", "--quiet"]
    }

    fn files(&self, tests: usize) -> Files {
        let mut text = String::from("rule t\n  command = cat $in > $out\n");
        for test in 0..tests {
            let inputs: String = (1..FILES).map(|number| format!(" pkg{test}/f{number}.txt")).collect();
            let _ = writeln!(text, "build out/{test}: t pkg{test}/f0.txt |{inputs}");
        }
        file("build.ninja", text)
    }

    fn rounds(&self) -> usize {
        ROUNDS
    }

    fn up_to_date_percent_max(&self) -> Option<f64> {
        Some(UP_TO_DATE_PERCENT_OF_NINJA)
    }

    fn remove_results(&self, project: &Path) {
        for log in [".ninja_log", ".ninja_deps"] {
            let _ = fs::remove_file(project.join(log));
        }
        let _ = fs::remove_dir_all(project.join("out"));
    }
}

/// GNU make, which compares modification times.
struct Make;

/// A file that makes the output directory exist, since make does not create it.
const OUTPUT_DIRECTORY: &str = "out/.keep";

impl Rival for Make {
    fn name(&self) -> &'static str {
        "make"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.on_path("make")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["-j2", "-s", "all"]
    }

    fn files(&self, tests: usize) -> Files {
        let outputs: String = (0..tests).map(|test| format!(" out/{test}")).collect();
        let mut text = format!("all:{outputs}\n");
        for test in 0..tests {
            let inputs: String = (0..FILES).map(|number| format!(" pkg{test}/f{number}.txt")).collect();
            let _ = writeln!(text, "out/{test}:{inputs}\n\t@cat pkg{test}/f0.txt > out/{test}");
        }
        vec![("Makefile".to_owned(), text), (OUTPUT_DIRECTORY.to_owned(), String::new())]
    }

    fn rounds(&self) -> usize {
        ROUNDS
    }

    fn up_to_date_percent_max(&self) -> Option<f64> {
        None
    }

    fn remove_results(&self, project: &Path) {
        let _ = fs::remove_dir_all(project.join("out"));
        write(&project.join(OUTPUT_DIRECTORY), "");
    }
}

/// go-task, which compares checksums of sources.
struct GoTask;

impl Rival for GoTask {
    fn name(&self) -> &'static str {
        "go-task"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        // On the `PATH`, `task` may be another program of that name.
        installed.anywhere("go-task").or_else(|| installed.in_node("task"))
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["--silent", "--concurrency", "2", "all"]
    }

    fn files(&self, tests: usize) -> Files {
        let names: Vec<String> = (0..tests).map(|test| format!("t{test}")).collect();
        let mut text = format!("version: '3'\ntasks:\n  all:\n    deps: [{}]\n", names.join(", "));
        for test in 0..tests {
            let _ = writeln!(
                text,
                "  t{test}:\n    cmds: [cat pkg{test}/f0.txt]\n    sources: ['pkg{test}/*.txt']"
            );
        }
        file("Taskfile.yml", text)
    }
}

/// turbo, which caches the output of packages' scripts.
struct Turbo;

impl Rival for Turbo {
    fn name(&self) -> &'static str {
        "turbo"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.anywhere("turbo")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["run", "test", "--concurrency=2", "--output-logs=errors-only"]
    }

    fn files(&self, tests: usize) -> Files {
        let root = json!({"name": "root", "packageManager": "npm@10.0.0", "workspaces": ["pkg*"]});
        let tasks = json!({"tasks": {"test": {"inputs": ["f*.txt"], "outputs": []}}});
        let lock = json!({"lockfileVersion": 3, "packages": {}});
        let scripts = json!({"test": "cat f0.txt"});
        let package = |test| json!({"name": format!("pkg{test}"), "version": "1.0.0", "scripts": scripts});
        let mut files = file_of_each(tests, "package.json", |test| package(test).to_string());
        files.extend(file("package.json", root.to_string()));
        files.extend(file("turbo.json", tasks.to_string()));
        files.extend(file("package-lock.json", lock.to_string()));
        files
    }

    fn tests(&self) -> usize {
        TESTS_OF_SLOW_TOOLS
    }

    fn prepare(&self, _: &Path, project: &Path) {
        commit_all(project);
    }
}

/// nx, which caches the output of targets, with a daemon.
struct Nx;

impl Rival for Nx {
    fn name(&self) -> &'static str {
        "nx"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.anywhere("nx")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["run-many", "-t", "test", "--parallel=2", "--output-style=static"]
    }

    fn files(&self, tests: usize) -> Files {
        let inputs = ["{projectRoot}/f*.txt"];
        let project = |test: usize| {
            let target = json!({"command": format!("cat pkg{test}/f0.txt"), "cache": true, "inputs": inputs});
            json!({"name": format!("pkg{test}"), "targets": {"test": target}})
        };
        let mut files = file_of_each(tests, "project.json", |test| project(test).to_string());
        files.extend(file("package.json", json!({"name": "root"}).to_string()));
        files.extend(file("nx.json", json!({"analytics": false}).to_string()));
        files
    }

    fn prepare(&self, program: &Path, project: &Path) {
        let modules = program.ancestors().nth(2).expect("the program is in node_modules/.bin");
        let link = std::os::unix::fs::symlink(modules, project.join("node_modules"));
        link.expect("a symbolic link can be created");
        commit_all(project);
    }

    fn shut_down(&self, program: &Path, project: &Path) {
        let _ = command(program, project).args(["daemon", "--stop"]).status();
    }
}

/// moon, which caches the output of tasks.
struct Moon;

impl Rival for Moon {
    fn name(&self) -> &'static str {
        "moon"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.anywhere("moon")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["run", ":test", "--concurrency", "2"]
    }

    fn files(&self, tests: usize) -> Files {
        let task = "tasks:\n  test:\n    command: cat f0.txt\n    inputs: ['f*.txt']\n";
        let mut files = file_of_each(tests, "moon.yml", |_| task.to_owned());
        files.extend(file(".moon/workspace.yml", "projects: ['pkg*']\ntelemetry: false\n".to_owned()));
        files
    }

    fn tests(&self) -> usize {
        TESTS_OF_SLOW_TOOLS
    }

    fn prepare(&self, _: &Path, project: &Path) {
        commit_all(project);
    }
}

fn file(name: &str, text: String) -> Files {
    vec![(name.to_owned(), text)]
}

/// Returns a file in the directory of each test.
fn file_of_each(tests: usize, name: &str, text: impl Fn(usize) -> String) -> Files {
    (0..tests).map(|test| (format!("pkg{test}/{name}"), text(test))).collect()
}

/// Commits the project to a new git repository, for tools that ask git for the hashes of files.
fn commit_all(project: &Path) {
    write(&project.join(".gitignore"), "node_modules\n.turbo\n.nx\n.moon/cache\n");
    let user = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"];
    let commit = [user.as_slice(), &["commit", "--quiet", "--no-gpg-sign", "-m", "bench"]].concat();
    for args in [&["init", "--quiet"][..], &["add", "--all"], &commit] {
        assert!(timed(command("git", project).args(args)).is_some(), "git {args:?}");
    }
}
