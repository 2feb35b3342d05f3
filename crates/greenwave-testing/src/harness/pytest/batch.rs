//! Runs many pytest files in one process, and separates their results with a plugin.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use greenwave_dir::Dir;
use serde::{Deserialize, Serialize};

use crate::harness::batch::{Batch, BatchCommand, BatchResult};
use crate::harness::junit::xml::CASES_MAX;
use crate::harness::launch::LaunchSpec;
use crate::results::outcome::{ExitReason, Status};
use crate::{CaseReport, CaseStatus, Environment, Error, Test, TestCount};

/// Files of pytest in one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct PytestBatch;

/// A pytest plugin that writes the results of each file.
const PLUGIN: &str = include_str!("batch.py");
/// Module name of the plugin, which must not collide with a module of the project.
pub(super) const PLUGIN_NAME: &str = "greenwave_batch";
/// A pytest plugin that runs each file in a forked process.
pub(super) const FORKS: &str = include_str!("forks.py");
pub(super) const FORKS_NAME: &str = "greenwave_forks";
/// File with the files that this plugin runs.
const WORDS: &str = "words";
/// File that this plugin creates after each file had a process to itself.
const APART: &str = "apart";
/// File that the plugin writes.
const RESULTS: &str = "results";
/// Maximum size of that file, in bytes.
const RESULTS_BYTES_MAX: u64 = 64 << 20;
const PYTHON_PATH: &str = "PYTHONPATH";
/// Variable with options that pytest puts before those of its command line
/// (<https://docs.pytest.org/en/stable/reference/reference.html#environment-variables>).
const OPTIONS: &str = "PYTEST_ADDOPTS";

impl Batch for PytestBatch {
    fn prepare(
        &self,
        tests: &[&Test],
        directory: &Path,
        environment: &Environment,
    ) -> Result<BatchCommand, Error> {
        let Some(first) = tests.first() else { return Ok(BatchCommand::default()) };
        let variables = vec![write_plugin(first, directory, environment)?];
        Ok(BatchCommand { arguments: arguments(first, tests), variables })
    }

    fn prepare_apart(
        &self,
        tests: &[&Test],
        directory: &Path,
        environment: &Environment,
    ) -> Result<Option<BatchCommand>, Error> {
        let Some(first) = tests.first() else { return Ok(None) };
        // The plugin imports the other one.
        write_module(directory, FORKS_NAME, FORKS)?;
        let variables = vec![write_plugin(first, directory, environment)?];
        let words = Words::of(tests);
        write_file(directory, WORDS, &serde_json::to_vec(&words).unwrap_or_default())?;
        let mut arguments = arguments(first, &[]);
        arguments.extend(["-p", FORKS_NAME].into_iter().chain(words.directories).map(OsString::from));
        Ok(Some(BatchCommand { arguments, variables }))
    }

    fn ran_apart(&self, directory: &Path) -> bool {
        directory.join(APART).exists()
    }

    fn results(&self, tests: &[&Test], status: Status, directory: &Path) -> Vec<Option<BatchResult>> {
        let results = session_results(directory).filter(|_| has_finished(status)).unwrap_or_default();
        let may_deselect = tests.first().is_some_and(|test| !super::deselects(test));
        let result = |test: &&Test| {
            let word = test.command.last()?;
            let result = results.files.get(word.strip_prefix("./").unwrap_or(word))?;
            let has_passed = result.has_passed() || (may_deselect && result.is_deselected());
            // pytest stops before the last test with `-x`.
            let is_complete = !results.is_stopped || result.left == 0;
            let has_passed = has_passed && is_complete;
            (has_passed || result.failed > 0).then(|| result.to_batch_result(has_passed))
        };
        tests.iter().map(result).collect()
    }
}

/// Returns the results of all single tests in a process that the plugin has written to its
/// directory.
pub(super) fn read_cases(directory: &Path) -> Vec<CaseReport> {
    let files = session_results(directory).map(|results| results.files).unwrap_or_default();
    files.into_values().flat_map(|file| file.cases).map(CaseResult::into_report).take(CASES_MAX).collect()
}

/// Reads the file of the plugin. A test may have replaced it by anything.
fn session_results(directory: &Path) -> Option<SessionResults> {
    let text = Dir::open(directory).and_then(|directory| directory.read(RESULTS, RESULTS_BYTES_MAX));
    serde_json::from_slice(&text.ok()?).ok()
}

/// Returns whether the session of pytest in the process with this private directory has ended, or
/// had never begun: the plugin creates an empty file when it begins.
pub(in crate::harness) fn has_ended(directory: &Path) -> bool {
    std::fs::metadata(directory.join(RESULTS)).map_or(true, |file| file.len() > 0)
}

/// Adds the plugin to the process of a test that runs alone.
///
/// # Errors
/// [`Error::Io`] if the plugin cannot be written.
pub(super) fn equip(
    test: &Test,
    mut command: LaunchSpec,
    directory: &Path,
    environment: &Environment,
) -> Result<LaunchSpec, Error> {
    // The words of the user come last, since theirs may be files.
    let at = if command.arguments.first().is_some_and(|word| word == "-m") { 2 } else { 0 };
    let at = at.min(command.arguments.len());
    command.arguments.splice(at..at, ["-p", PLUGIN_NAME].map(OsString::from));
    let variable = write_plugin(test, directory, environment)?;
    Ok(command.replace_variables([variable]))
}

/// Adds the plugin to every process of pytest that a command starts, by variables alone: where they
/// do not reach, such as in a container, pytest runs without the plugin. Leaves a command as it is
/// if it does not name pytest, or if only one of the variables might reach pytest.
///
/// # Errors
/// [`Error::Io`] if the plugin cannot be written.
pub(in crate::harness) fn equip_by_variables(
    test: &Test,
    command: LaunchSpec,
    directory: &Path,
    environment: &Environment,
) -> Result<LaunchSpec, Error> {
    let words = || test.command.iter().flat_map(|word| word.split_whitespace());
    if !words().any(|word| word.contains("pytest")) || words().any(separates_variables) {
        return Ok(command);
    }
    let mut options = OsString::from(format!("-p {PLUGIN_NAME}"));
    if let Some(own) = variable(test, environment, OPTIONS) {
        options.push(" ");
        options.push(own);
    }
    let path = write_plugin(test, directory, environment)?;
    Ok(command.replace_variables([path, (OPTIONS.into(), options)]))
}

/// Returns whether a word of a command can be tox, which removes variables, or Python's flag `-E`
/// or `-I`, which makes it ignore `PYTHONPATH`.
fn separates_variables(word: &str) -> bool {
    let flags = word.strip_prefix('-').unwrap_or_default();
    let is_isolating = flags.contains(['E', 'I']) && flags.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_isolating || Path::new(word).file_name().is_some_and(|name| name == "tox")
}

/// Writes the plugin, and returns the variable with which Python finds it.
pub(super) fn write_plugin(
    test: &Test,
    directory: &Path,
    environment: &Environment,
) -> Result<(OsString, OsString), Error> {
    write_module(directory, PLUGIN_NAME, PLUGIN)?;
    Ok((PYTHON_PATH.into(), python_path(test, directory, environment)))
}

pub(super) fn write_module(directory: &Path, name: &str, source: &str) -> Result<(), Error> {
    write_file(directory, &format!("{name}.py"), source.as_bytes())
}

fn write_file(directory: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let written = Dir::open(directory).and_then(|dir| dir.replace_file(name, content, 0o600));
    written.map_err(Error::io("write", directory.join(name)))
}

/// Returns the module path that contains the plugin, followed by that of the test.
fn python_path(test: &Test, directory: &Path, environment: &Environment) -> OsString {
    let mut path = directory.as_os_str().to_owned();
    if let Some(own) = variable(test, environment, PYTHON_PATH) {
        path.push(":");
        path.push(own);
    }
    path
}

/// Returns the value that a variable has in a test by itself; `None` if it is empty.
fn variable<'v>(test: &'v Test, environment: &'v Environment, name: &str) -> Option<&'v OsStr> {
    let is_visible = test.env.iter().any(|visible| visible == name);
    let own = test.set.get(name).map(OsStr::new);
    own.or(environment.get(name).filter(|_| is_visible)).filter(|own| !own.is_empty())
}

/// Returns the arguments with which one process runs all files.
fn arguments(first: &Test, tests: &[&Test]) -> Vec<OsString> {
    let common = first.command.get(1..first.command.len().saturating_sub(1)).unwrap_or_default();
    let mut arguments: Vec<OsString> = common.iter().map(OsString::from).collect();
    arguments.extend(["-p", PLUGIN_NAME].map(OsString::from));
    arguments.extend(tests.iter().filter_map(|test| test.command.last()).map(OsString::from));
    arguments
}

/// Returns whether pytest ended by itself: exit code 1 if tests failed, 2 if it stopped early, 5 if
/// there were none (<https://docs.pytest.org/en/stable/reference/exit-codes.html>).
fn has_finished(status: Status) -> bool {
    matches!(status, Status::Passed | Status::NoTests | Status::Failed(ExitReason::Code(1 | 2 | 5)))
}

/// The files that the plugin runs.
#[derive(Debug, PartialEq, Serialize)]
struct Words<'t> {
    /// Paths of the files, relative to the working directory.
    files: Vec<&'t str>,
    /// Directories of the files. pytest finds the same settings with them as with the files.
    directories: Vec<&'t str>,
}

impl<'t> Words<'t> {
    fn of(tests: &[&'t Test]) -> Self {
        let files: Vec<&str> =
            tests.iter().filter_map(|test| test.command.last()).map(String::as_str).collect();
        let mut directories: Vec<&str> = Vec::new();
        for file in &files {
            let directory = file.rsplit_once('/').map_or(".", |(directory, _)| directory);
            let directory = if directory.is_empty() { "/" } else { directory };
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        Self { files, directories }
    }
}

/// The results of a session.
#[derive(Debug, Default, Deserialize)]
struct SessionResults {
    /// Whether the session ended before all tests had run.
    is_stopped: bool,
    /// Results by the path of the file, relative to the working directory.
    files: BTreeMap<String, FileResult>,
}

/// The result of one file among several.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct FileResult {
    passed: u32,
    skipped: u32,
    failed: u32,
    /// Number of tests that were collected and have not run. Negative if other processes collected
    /// them.
    left: i64,
    seconds: f64,
    #[serde(default)]
    deselected: bool,
    text: String,
    #[serde(default)]
    cases: Vec<CaseResult>,
}

/// The result of a single test.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct CaseResult {
    /// pytest's node id.
    name: String,
    status: CaseWord,
    seconds: f64,
    /// Message of pytest about a failure.
    output: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CaseWord {
    Passed,
    Failed,
    Skipped,
}

impl CaseResult {
    fn into_report(self) -> CaseReport {
        let status = match self.status {
            CaseWord::Passed => CaseStatus::Passed,
            CaseWord::Failed => CaseStatus::Failed,
            CaseWord::Skipped => CaseStatus::Skipped,
        };
        let duration = Duration::try_from_secs_f64(self.seconds).ok();
        CaseReport { name: self.name, status, duration, output: self.output.map(Into::into) }
    }
}

impl FileResult {
    /// Returns whether the file clearly passed.
    fn has_passed(&self) -> bool {
        self.failed == 0 && self.passed + self.skipped > 0 && self.left <= 0
    }

    /// Returns whether all tests of the file were deselected.
    fn is_deselected(&self) -> bool {
        self.deselected && self.failed + self.passed + self.skipped == 0 && self.left <= 0
    }

    fn to_batch_result(&self, passed: bool) -> BatchResult {
        BatchResult {
            passed,
            count: TestCount { passed: self.passed, failed: self.failed },
            cases: self.cases.iter().take(CASES_MAX).cloned().map(CaseResult::into_report).collect(),
            output: self.output(),
            duration: Duration::try_from_secs_f64(self.seconds).unwrap_or_default(),
        }
    }

    /// Returns a line for each test of the file, since the process's output covers all files.
    fn output(&self) -> String {
        if self.is_deselected() {
            return "all its tests are deselected by pytest's settings\n".to_owned();
        }
        let counts = [(self.failed, "failed"), (self.passed, "passed"), (self.skipped, "skipped")];
        let counts = counts.iter().filter(|(count, word)| *count > 0 || *word == "passed");
        let counts: Vec<String> = counts.map(|(count, word)| format!("{count} {word}")).collect();
        format!("{}{} in {:.2}s\n", self.text, counts.join(", "), self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HarnessName;

    fn results(text: &str, status: Status) -> Vec<Option<String>> {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        std::fs::write(directory.path().join(RESULTS), text).expect("the directory is writable");
        let test = |file: &str| Test {
            harness: HarnessName::new("pytest"),
            ..Test::new(file, ["python3", "-m", "pytest", file])
        };
        let tests = [test("a.py"), test("b.py"), test("c.py")];
        let results = PytestBatch.results(&tests.each_ref(), status, directory.path());
        results.into_iter().map(|result| Some(result?.output)).collect()
    }

    #[test]
    fn the_words_have_each_directory_once() {
        let test = |file: &str| Test::new(file, ["python3", "-m", "pytest", file]);
        let tests = [test("a.py"), test("d/e/b.py"), test("./c.py"), test("d/e/f.py"), test("/g.py")];
        let words = Words::of(&tests.each_ref());
        assert_eq!(words.files, ["a.py", "d/e/b.py", "./c.py", "d/e/f.py", "/g.py"]);
        assert_eq!(words.directories, [".", "d/e", "/"]);
    }

    #[test]
    fn results_are_separated_by_file() {
        let text = r#"{"is_stopped": false, "files": {
            "a.py": {"passed": 1, "skipped": 1, "failed": 0, "left": 0, "seconds": 0.75, "text": "a.py::one PASSED\n"},
            "b.py": {"passed": 1, "skipped": 0, "failed": 1, "left": 0, "seconds": 1, "text": ""},
            "c.py": {"passed": 0, "skipped": 0, "failed": 0, "left": 0, "seconds": 0, "text": "", "deselected": true}}}"#;
        let passed = Some("a.py::one PASSED\n1 passed, 1 skipped in 0.75s\n".to_owned());
        let deselected = Some("all its tests are deselected by pytest's settings\n".to_owned());
        let failed = Status::Failed(ExitReason::Code(1));
        let second = Some("1 failed, 1 passed in 1.00s\n".to_owned());
        assert_eq!(results(text, failed), [passed, second, deselected]);
        assert_eq!(results(text, Status::Failed(ExitReason::Signal(9))), [None, None, None]);
        assert_eq!(results(&text[..text.len() / 2], failed), [None, None, None]);
    }

    #[test]
    fn results_in_anything_but_a_file_are_not_read() {
        for name in ["zero", "pipe"] {
            let directory = tempfile::tempdir().expect("a temporary directory can be created");
            let path = directory.path().join(RESULTS);
            if name == "zero" {
                std::os::unix::fs::symlink("/dev/zero", &path).expect("the directory is writable");
            } else {
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU)
                    .expect("the directory is writable");
            }
            assert_eq!(read_cases(directory.path()), [], "{name}");
        }
    }

    #[test]
    fn a_file_that_a_stopped_session_did_not_finish_has_no_result() {
        let text = r#"{"is_stopped": true, "files": {
            "a.py": {"passed": 1, "skipped": 0, "failed": 0, "left": 0, "seconds": 0, "text": ""},
            "b.py": {"passed": 1, "skipped": 0, "failed": 0, "left": 2, "seconds": 0, "text": ""}}}"#;
        let found = results(text, Status::Failed(ExitReason::Code(2)));
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    }
}
