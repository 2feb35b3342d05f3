//! The tests that harnesses discover, and the dependencies of a discovery.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Environment, Error, Test};

/// Environment variable that asks a collection for single tests instead of files, with the value
/// `tests`.
pub(crate) const SINGLE_TESTS_VARIABLE: &str = "GREENWAVE_COLLECT";

/// The tests that were discovered in a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Tests, ordered by harness and path. No two have the same name.
    pub tests: Vec<Test>,
    /// Commands that ask a harness's own tool which tests there are.
    ///
    /// [`Discovery::collect`] replaces `tests` by what they find. Until then, `tests` is what the
    /// harness finds without running code of the project.
    #[serde(default)]
    pub collections: Vec<Test>,
    /// Remarks for the user.
    pub notes: Vec<DiscoveryNote>,
}

/// A remark for the user about the tests that were discovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DiscoveryNote {
    /// A program is missing. The tests that need it are listed, and cannot run.
    MissingProgram {
        /// Name of the program.
        program: String,
        /// Number of tests that need it.
        tests: usize,
    },
    /// A script is left out, since it only runs the scripts of packages that are listed themselves.
    WorkspaceScript {
        /// Directory of the package, relative to the project.
        directory: PathBuf,
        /// Text of the script.
        script: String,
    },
    /// A script runs as one test, and so do the tests of the packages that it runs.
    WholeScript {
        /// Directory of the package, relative to the project.
        directory: PathBuf,
        /// Text of the script.
        script: String,
        /// Reason, a sentence whose subject is the script.
        reason: String,
    },
    /// The tests of a package are left out, since a workspace excludes it.
    ExcludedPackage {
        /// Directory of the package, relative to the project.
        directory: PathBuf,
        /// Manifest of the workspace, relative to the project.
        manifest: PathBuf,
        /// Pattern that excludes the package.
        pattern: String,
    },
    /// Tests of packages run without the tool that would build their dependencies.
    NothingBuilt {
        /// Directory of the workspace, relative to the project.
        directory: PathBuf,
        /// Text of the script that runs the tool.
        script: String,
        /// Name of the tool, which is not installed.
        tool: String,
    },
    /// A script was changed so that it does not watch files indefinitely.
    WatchMode {
        /// Name of the test.
        test: String,
        /// Change, as in "without `--watch`".
        change: String,
    },
    /// Packages that tests need are not installed.
    NotInstalled {
        /// Directory to install them in, relative to the project.
        directory: PathBuf,
        /// Command that installs them.
        command: String,
    },
    /// A manifest cannot be read, so nothing in it was discovered.
    UnreadableManifest {
        /// Path of the manifest, relative to the project.
        manifest: PathBuf,
        /// Reason.
        problem: String,
    },
    /// The single tests in a test could not be listed, so it runs as a whole.
    ListingFailed {
        /// Name of the test.
        test: String,
        /// Reason.
        problem: String,
    },
    /// Tests run with an interpreter that is not the first one on the `PATH`.
    Interpreter {
        /// Path of the interpreter.
        program: String,
        /// Origin of the interpreter.
        origin: String,
    },
    /// A lock file describes a virtual environment that does not exist in the project.
    NoVirtualEnvironment {
        /// Command that creates it, or runs with it.
        command: String,
    },
    /// All tests of a suite run in one process.
    RunsAsAWhole {
        /// Name of the test.
        test: String,
        /// Reason.
        reason: String,
    },
    /// A package depends on a directory outside the project, whose files cannot be inputs.
    OutsideDependency {
        /// Manifest with the dependency, relative to the project.
        manifest: PathBuf,
        /// Directory as the manifest names it.
        directory: String,
    },
    /// Stored discoveries in the project were not used, because somebody else made them.
    ForeignState,
}

/// Everything that the discovery of a harness depends on, beside the names of the project's files.
#[derive(Debug, Clone, Copy)]
pub struct DiscoveryInputs {
    /// Names of files whose content it reads, in any directory.
    pub manifests: &'static [&'static str],
    /// Programs that it runs, or reports as missing.
    pub programs: &'static [&'static str],
    /// Environment variables that its programs read.
    pub variables: &'static [&'static str],
    /// Paths relative to the directories of its manifests. Their existence counts, even if the
    /// project ignores them.
    pub checked: &'static [&'static str],
    /// Returns whether its programs read this file. Such files are compared by timestamp.
    pub is_source: fn(&Path) -> bool,
    /// Returns files outside the project with settings that its programs read.
    pub settings: fn(&Environment) -> Vec<PathBuf>,
}

impl Default for DiscoveryInputs {
    fn default() -> Self {
        Self {
            manifests: &[],
            programs: &[],
            variables: &[],
            checked: &[],
            is_source: |_| false,
            settings: |_| Vec::new(),
        }
    }
}

impl Discovery {
    /// Appends what another harness has found.
    pub(super) fn extend(&mut self, other: Self) {
        self.tests.extend(other.tests);
        self.collections.extend(other.collections);
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Appends the directory to names that are taken.
    pub(super) fn make_names_unique(&mut self) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for test in &mut self.tests {
            let count = seen.entry(test.name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                test.name = format!("{} ({})", test.name, test.directory.display());
            }
        }
    }
}

impl DiscoveryNote {
    /// Creates the note that a manifest cannot be read.
    pub(super) fn unreadable(manifest: &Path, error: &Error) -> Self {
        // The error itself names the harness and the directory.
        let cause = error.source().unwrap_or(error);
        Self::UnreadableManifest { manifest: manifest.to_owned(), problem: cause.to_string() }
    }

    /// Returns whether the note says that a manifest cannot be read.
    pub(super) fn is_unreadable_manifest(&self) -> bool {
        matches!(self, Self::UnreadableManifest { .. })
    }

    /// Formats a note about a script of a package.
    fn fmt_script(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoveryNote::WholeScript { directory, script, reason } => write!(
                formatter,
                "{} runs as one test, `{script}`: {reason}",
                directory.join("package.json").display()
            ),
            DiscoveryNote::ExcludedPackage { directory, manifest, pattern } => write!(
                formatter,
                "{} is left out: {} excludes it by `{pattern}`",
                directory.join("package.json").display(),
                manifest.display()
            ),
            DiscoveryNote::NothingBuilt { directory, script, tool } => write!(
                formatter,
                "{}: `{script}` cannot run, since `{tool}` is not installed: the tests of packages run by \
                 themselves, and nothing builds what they need",
                directory.join("package.json").display()
            ),
            DiscoveryNote::WatchMode { test, change } => {
                write!(formatter, "{test} runs {change}, since it would not end")
            }
            DiscoveryNote::NotInstalled { directory, command } if directory.as_os_str().is_empty() => {
                write!(formatter, "the packages that tests need are not installed: run `{command}`")
            }
            DiscoveryNote::NotInstalled { directory, command } => write!(
                formatter,
                "the packages that tests need are not installed: run `{command}` in {}",
                directory.display()
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for DiscoveryNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoveryNote::MissingProgram { program, tests: 1 } => {
                write!(formatter, "`{program}` is not installed, and a test needs it")
            }
            DiscoveryNote::MissingProgram { program, tests } => {
                write!(formatter, "`{program}` is not installed, and {tests} tests need it")
            }
            DiscoveryNote::WorkspaceScript { directory, script } => write!(
                formatter,
                "{} is left out: `{script}` runs the tests of packages that are listed themselves",
                directory.join("package.json").display()
            ),
            DiscoveryNote::WholeScript { .. }
            | DiscoveryNote::ExcludedPackage { .. }
            | DiscoveryNote::NothingBuilt { .. }
            | DiscoveryNote::WatchMode { .. }
            | DiscoveryNote::NotInstalled { .. } => self.fmt_script(formatter),
            DiscoveryNote::UnreadableManifest { manifest, problem } => {
                write!(formatter, "{} is skipped: {problem}", manifest.display())
            }
            DiscoveryNote::ListingFailed { test, problem } => {
                write!(
                    formatter,
                    "the single tests of {test} cannot be listed, so it runs as a whole: {problem}"
                )
            }
            DiscoveryNote::Interpreter { program, origin } => {
                write!(formatter, "tests run with {program}, {origin}")
            }
            DiscoveryNote::NoVirtualEnvironment { command } => {
                write!(formatter, "the project has a lock file, but no virtual environment: run `{command}`")
            }
            DiscoveryNote::RunsAsAWhole { test, reason } => {
                write!(formatter, "{test} runs in one process: {reason}")
            }
            DiscoveryNote::ForeignState => {
                formatter.write_str("the state in .greenwave was not made here by this user, and is replaced")
            }
            DiscoveryNote::OutsideDependency { manifest, directory } => write!(
                formatter,
                "{} depends on {directory}, which is outside the project: changes there are not noticed without tracing",
                manifest.display()
            ),
        }
    }
}
