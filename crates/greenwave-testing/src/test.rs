//! The description of a test: a command, and everything that its result may depend on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use greenwave_inputs::{InputSpec, Selection};
use serde::{Deserialize, Serialize};

/// A command whose exit code is the verdict of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Name in output. Not part of the test's key, so a renamed test keeps its cached result.
    pub name: String,
    /// Program and arguments, run without a shell.
    pub command: Vec<String>,
    /// Working directory, relative to the project.
    pub directory: PathBuf,
    /// Patterns of the files that the test reads, relative to the project, in the syntax of
    /// `.gitignore` (`src/**`, `!src/generated.rs`). They match files that the project ignores,
    /// too.
    pub inputs: Vec<String>,
    /// Directories, relative to the project, whose files are inputs unless the project ignores
    /// them. Without `inputs` and `directories`, all files of the project are inputs.
    pub directories: Vec<PathBuf>,
    /// Patterns of the files that the test writes inside the project. They are never inputs, so
    /// writing them does not prevent the result from being stored.
    pub outputs: Vec<String>,
    /// Environment variables that the test sees beside
    /// [`Environment::BASE`](crate::Environment::BASE).
    pub env: Vec<String>,
    /// Variables with fixed values.
    pub set: BTreeMap<String, String>,
    /// Servers that the test may exchange data with although it does not start them, in the syntax
    /// of [`is_server`](crate::is_server). Their answers must depend on nothing but the test.
    #[serde(default)]
    pub servers: Vec<String>,
    /// Time limit, after which the test is killed.
    pub time_max: Duration,
    /// Number of further attempts after a failure; values above 1000 count as 1000. A test that
    /// passes only then is flaky, and its result is not stored.
    pub retries: u32,
    /// Named resources that the test holds while it runs, with the amount of each.
    pub needs: BTreeMap<String, u32>,
    /// Whether other tests may run at the same time.
    pub parallel_safe: bool,
    /// Name of the harness that runs the tests inside the command.
    pub harness: HarnessName,
    /// Reports in JUnit XML that the command writes, and that decide the result.
    #[serde(default)]
    pub reports: Option<JunitReports>,
}

/// Reports in JUnit XML that the command of a test writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JunitReports {
    /// Glob patterns of the reports, relative to the working directory of the test. Empty if the
    /// command has the [placeholder](Self::PLACEHOLDER).
    pub paths: Vec<String>,
    /// Further arguments with which the command runs a single case. `{name}` stands for the name of
    /// the case, `{regex}` for the name with escaped special characters, `{class}` for its class
    /// and `{file}` for its file. Empty if cases cannot be selected.
    pub select: Vec<String>,
}

impl JunitReports {
    /// The placeholder of the path of a private report in the arguments of a command.
    pub const PLACEHOLDER: &str = "{report}";

    /// Returns whether a text is a pattern that [`paths`](Self::paths) may have.
    pub fn is_pattern(text: &str) -> bool {
        globset::Glob::new(text).is_ok()
    }
}

/// The name of a [`Harness`](crate::Harness).
///
/// A name that no registered harness has denotes a plain command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HarnessName(Cow<'static, str>);

impl HarnessName {
    /// Name of the harness of plain commands.
    pub const COMMAND: &str = "command";

    /// Creates the name of a harness.
    pub fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HarnessName {
    fn default() -> Self {
        Self::new(Self::COMMAND)
    }
}

impl fmt::Display for HarnessName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Test {
    /// Default time limit.
    pub const TIME_MAX: Duration = Duration::from_secs(600);

    /// Creates a test of the whole project: all files are inputs, and [`TIME_MAX`](Self::TIME_MAX)
    /// is the time limit.
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
            servers: Vec::new(),
            time_max: Self::TIME_MAX,
            retries: 0,
            needs: BTreeMap::new(),
            parallel_safe: true,
            harness: HarnessName::default(),
            reports: None,
        }
    }

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
        Ok(Selection::of(&self.input_spec()).map_err(|error| error.for_test(&self.name))?)
    }
}
