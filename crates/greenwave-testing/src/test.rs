//! What a test is: a command, and everything its result may depend on. Knows nothing of running it.

use std::path::PathBuf;
use std::time::Duration;

/// A test: a command that ends with success or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// What it is called in output. Not part of its key: a renamed test keeps its results.
    pub name: String,
    /// The program and its arguments. Run without a shell.
    pub command: Vec<String>,
    /// Where it runs, relative to the project's folder.
    pub directory: PathBuf,
    /// Patterns of the files it reads, relative to the project's folder, in the syntax of `.gitignore`
    /// (`src/**`, `!src/generated.rs`). None for all files of the project.
    pub inputs: Vec<String>,
    /// Environment variables it may see beside [`Environment::BASE`](crate::Environment::BASE).
    pub env: Vec<String>,
    /// How long it may run before it is killed.
    pub time_max: Duration,
}

impl Test {
    /// The longest that a test runs where nothing else is said.
    pub const TIME_MAX: Duration = Duration::from_secs(600);

    /// A test of the whole project: all files are inputs, and the usual time limit.
    pub fn new<S: Into<String>>(name: impl Into<String>, command: impl IntoIterator<Item = S>) -> Self {
        Self {
            name: name.into(),
            command: command.into_iter().map(Into::into).collect(),
            directory: PathBuf::new(),
            inputs: Vec::new(),
            env: Vec::new(),
            time_max: Self::TIME_MAX,
        }
    }
}
