//! What a test is: a command, and everything its result may depend on. Knows nothing of running it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use greenwave_inputs::{InputSpec, Selection};
use serde::{Deserialize, Serialize};

/// A test: a command that ends with success or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// What it is called in output. Not part of its key: a renamed test keeps its results.
    pub name: String,
    /// The program and its arguments. Run without a shell.
    pub command: Vec<String>,
    /// Where it runs, relative to the project's folder.
    pub directory: PathBuf,
    /// Patterns of the files it reads, relative to the project's folder, in the syntax of `.gitignore`
    /// (`src/**`, `!src/generated.rs`). They count even where the project ignores them.
    pub inputs: Vec<String>,
    /// Folders, relative to the project's, of which it may read every file that the project does not ignore. With neither
    /// patterns nor folders, all files of the project count.
    pub directories: Vec<PathBuf>,
    /// Patterns of the files it writes inside the project. They are never inputs, so writing them costs it no stored result.
    pub outputs: Vec<String>,
    /// Environment variables it may see beside [`Environment::BASE`](crate::Environment::BASE).
    pub env: Vec<String>,
    /// Variables with the values that it sees in any case.
    pub set: BTreeMap<String, String>,
    /// How long it may run before it is killed.
    pub time_max: Duration,
    /// How often it is tried again after a failure. What passes only then is flaky: told, and never stored.
    pub retries: u32,
    /// Named resources that it holds while it runs, and how much of each.
    pub needs: BTreeMap<String, u32>,
    /// Whether others may run beside it.
    pub parallel_safe: bool,
    /// Who runs the tests inside the command.
    pub harness: Harness,
}

impl Harness {
    /// What a command says of itself.
    pub fn of(command: &[String]) -> Self {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        // One function of a program is run by the program all the same.
        let words = words
            .strip_suffix(&["--", "--exact", words.last().copied().unwrap_or_default()])
            .unwrap_or(&words);
        let cargo = |package: &str, kind: &str, target: &str| Harness::Cargo {
            package: package.to_owned(),
            kind: kind.to_owned(),
            target: target.to_owned(),
        };
        match words {
            ["cargo", "test", "--package", package, "--lib"] => cargo(package, "lib", ""),
            ["cargo", "test", "--package", package, "--doc"] => cargo(package, "doc", ""),
            ["cargo", "test", "--package", package, "--test", target] => cargo(package, "test", target),
            ["cargo", "test", "--package", package, "--bin", target] => cargo(package, "bin", target),
            ["cargo", "test", "--package", package, "--example", target] => cargo(package, "example", target),
            ["cargo", "test", "--package", package, "--bench", target] => cargo(package, "bench", target),
            [_, "-m", "pytest", ..] | ["pytest", ..] => Harness::Pytest,
            ["go", "test", ..] => Harness::Go,
            ["npm", ..] => Harness::Npm,
            _ => Harness::Command,
        }
    }
}

/// What is known of a command that runs tests. It decides how single tests are told apart and run alone; it never changes a verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Harness {
    /// Nothing: one command, one verdict.
    #[default]
    Command,
    /// A target of a cargo package, whose program is built before; `command` is what cargo would be told.
    Cargo {
        /// The package's name.
        package: String,
        /// The kind of target: `lib`, `bin`, `test`, `example`, `bench`, or `doc` for a library's documentation.
        kind: String,
        /// The target's name.
        target: String,
    },
    /// pytest, for one file or one test.
    Pytest,
    /// `go test` of one package.
    Go,
    /// A script of an npm package.
    Npm,
}

impl Test {
    /// Returns the files that are inputs and outputs of the test.
    pub(crate) fn input_spec(&self) -> InputSpec {
        InputSpec {
            inputs: self.inputs.clone(),
            directories: self.directories.clone(),
            outputs: self.outputs.clone(),
        }
    }

    /// Compiles the patterns of the test.
    pub(crate) fn selection(&self) -> Result<Selection, Error> {
        Ok(Selection::of(&self.input_spec()).map_err(|error| error.of_test(&self.name))?)
    }

    /// The longest that a test runs where nothing else is said.
    pub const TIME_MAX: Duration = Duration::from_secs(600);

    /// The folder whose programs have to be built before it can run.
    pub(crate) fn built_in(&self) -> Option<&Path> {
        matches!(self.harness, Harness::Cargo { .. }).then_some(self.directory.as_path())
    }

    /// The function that it is, if it is one of those in a cargo program.
    pub(crate) fn function(&self) -> Option<&str> {
        match self.program_arguments() {
            [exact, name] if exact == "--exact" => Some(name),
            _ => None,
        }
    }

    /// What a cargo program is started with: what stands behind two dashes in what cargo would be told.
    pub(crate) fn program_arguments(&self) -> &[String] {
        if !matches!(self.harness, Harness::Cargo { .. }) {
            return &[];
        }
        let dashes = self.command.iter().position(|word| word == "--");
        dashes.map_or(&[], |at| &self.command[at + 1..])
    }

    /// A function of a cargo program, in place of all of it.
    pub(crate) fn only(&self, function: &str) -> Self {
        let words = ["--", "--exact", function].map(str::to_owned);
        Self { command: self.command.iter().cloned().chain(words).collect(), ..self.clone() }
    }

    /// A test of the whole project: all files are inputs, and the usual time limit.
    pub fn new<S: Into<String>>(name: impl Into<String>, command: impl IntoIterator<Item = S>) -> Self {
        Self {
            name: name.into(),
            command: command.into_iter().map(Into::into).collect(),
            directory: PathBuf::new(),
            inputs: Vec::new(),
            directories: Vec::new(),
            outputs: Vec::new(),
            env: Vec::new(),
            set: BTreeMap::new(),
            time_max: Self::TIME_MAX,
            retries: 0,
            needs: BTreeMap::new(),
            parallel_safe: true,
            harness: Harness::Command,
        }
    }
}
