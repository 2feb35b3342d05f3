//! The tools that run a thousand commands, each in a file with its project.

#[path = "rivals/go_task.rs"]
mod go_task;
#[path = "rivals/greenwave.rs"]
mod greenwave;
#[path = "rivals/make.rs"]
mod make;
#[path = "rivals/moon.rs"]
mod moon;
#[path = "rivals/ninja.rs"]
mod ninja;
#[path = "rivals/nx.rs"]
mod nx;
#[path = "rivals/turbo.rs"]
mod turbo;

use std::path::{Path, PathBuf};

use crate::process::{command, timed, write};

/// Number of tests in a project.
const TESTS: usize = 1_000;
/// Number of tests of tools whose first run would take minutes.
const TESTS_OF_SLOW_TOOLS: usize = 200;
/// Number of input files per test.
pub(crate) const FILES: usize = 5;
/// Number of up-to-date runs.
pub(crate) const ROUNDS: usize = 20;
/// Number of runs where each takes longer.
pub(crate) const SLOW_ROUNDS: usize = 5;

/// Expected percentage of the time of a rival, if everything is up to date.
const UP_TO_DATE_PERCENT: f64 = 10.0;

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
        Some(UP_TO_DATE_PERCENT)
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

/// Returns all tools, Greenwave first.
pub(crate) fn all(greenwave: &Path) -> [Box<dyn Rival>; 7] {
    [
        Box::new(greenwave::Greenwave { program: greenwave.to_owned() }),
        Box::new(ninja::Ninja),
        Box::new(make::Make),
        Box::new(go_task::GoTask),
        Box::new(turbo::Turbo),
        Box::new(nx::Nx),
        Box::new(moon::Moon),
    ]
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
