//! Asks pytest which tests a project has, with the project's settings and plugins.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{HARNESS, file_command, files};
use crate::Test;
use crate::harness::discovery::{Discovery, DiscoveryNote, SINGLE_TESTS_VARIABLE};
use crate::harness::listing::ListingContext;
use crate::harness::project::within;
use crate::plain_text::plain;
use crate::results::outcome::{ExitReason, Outcome, Status};

/// The program that collects: pytest with a plugin that writes the files that have tests to
/// [`RESULT`].
pub(super) const SCRIPT: &str = include_str!("collection.py");
/// Exit code of pytest after a collection with errors, beside 1
/// (<https://docs.pytest.org/en/stable/reference/exit-codes.html>).
const INTERRUPTED: i32 = 2;
/// Shown instead of the directory of the whole project.
const ROOT: &str = ".";

/// File in the temporary directory that the program writes.
const RESULT: &str = "greenwave-result";

/// The first line that the program writes.
#[derive(Deserialize)]
struct Header {
    /// Reason why the tests cannot be divided into files.
    whole: Vec<String>,
    /// Patterns of the files that a run writes, relative to the directory or absolute.
    outputs: Vec<String>,
    /// Arguments that make pytest use the settings of the collection for each file.
    pinned: Vec<String>,
    /// Node ids that could not be collected.
    errors: Vec<String>,
    is_finished: bool,
}

/// A file with tests.
#[derive(Deserialize)]
struct CollectedFile {
    /// Path relative to the directory.
    file: String,
    /// Node ids that pytest collects only if the command line names the file.
    #[serde(default)]
    deselect: Vec<String>,
    /// Node ids of its tests, if the collection was asked for single tests.
    #[serde(default)]
    ids: Vec<String>,
}

/// Returns the test that collects the tests of a directory. `base` has what its tests have in
/// common, and the command of the whole suite.
pub(super) fn command(base: &Test) -> Test {
    let python = base.command.first().cloned().unwrap_or_default();
    let mut command = vec![python, "-c".to_owned(), SCRIPT.to_owned()];
    command.extend(base.command.iter().skip(super::PREFIX.len() + 1).cloned());
    Test { name: format!("{} (collection)", whole_name(&base.directory)), command, ..base.clone() }
}

/// Returns whether a test is a collection.
pub(super) fn is_collection(test: &Test) -> bool {
    matches!(test.command.as_slice(), [_, flag, script, ..] if flag == "-c" && script == SCRIPT)
}

/// Returns the file whose content follows the output of a collection.
pub(super) fn result_file(test: &Test) -> Option<&'static str> {
    is_collection(test).then_some(RESULT)
}

/// Returns the tests that each collection has found; `None` if it did not run.
pub(super) fn collected(collections: &[&Test], context: &ListingContext<'_>) -> Vec<Option<Discovery>> {
    let directories: Vec<&Path> = collections.iter().map(|test| test.directory.as_path()).collect();
    let found = |test: &&Test| {
        let outcome = context.outcome(&test.name)??;
        Some(Collected::parse(outcome).discovery(test, outcome, &directories))
    };
    collections.iter().map(found).collect()
}

/// The output of a collection.
struct Collected {
    header: Option<Header>,
    files: Vec<CollectedFile>,
}

impl Collected {
    fn parse(outcome: &Outcome) -> Self {
        let text = plain(&outcome.output);
        let mut collected = Self { header: None, files: Vec::new() };
        // The lines follow everything that pytest prints.
        for line in text.lines().filter(|line| line.starts_with('{')) {
            if let Ok(header) = serde_json::from_str(line) {
                collected.header = Some(header);
                collected.files.clear();
            } else if let Ok(file) = serde_json::from_str(line) {
                collected.files.push(file);
            }
        }
        collected
    }

    fn discovery(self, collection: &Test, outcome: &Outcome, directories: &[&Path]) -> Discovery {
        let base = base(collection);
        let is_usable = outcome.status == Status::Passed || is_interrupted(outcome.status);
        let Some(header) = self.header.filter(|header| header.is_finished && is_usable) else {
            return Discovery { tests: vec![whole(&base, &[])], ..Discovery::default() };
        };
        if let Some(reason) = header.whole.first() {
            let is_empty = self.files.is_empty() && header.errors.is_empty();
            let tests = if is_empty { Vec::new() } else { vec![whole(&base, &header.outputs)] };
            let note =
                DiscoveryNote::RunsAsAWhole { test: whole_name(&base.directory), reason: reason.clone() };
            let notes = if is_empty { Vec::new() } else { vec![note] };
            return Discovery { tests, notes, ..Discovery::default() };
        }
        let own = self.files.into_iter().filter(|file| is_owner(&base.directory, &file.file, directories));
        let mut tests = tests_of(&base, &header.pinned, own.collect());
        if outcome.status != Status::Passed {
            tests.push(failing(&base, &header));
        }
        Discovery { tests, ..Discovery::default() }
    }
}

/// Returns what all tests of a collection have in common, with the command of the whole suite.
pub(super) fn base(collection: &Test) -> Test {
    let [python, _, _, arguments @ ..] = collection.command.as_slice() else { return collection.clone() };
    let mut base = Test { command: super::command(python, arguments), ..collection.clone() };
    base.set.remove(SINGLE_TESTS_VARIABLE);
    base
}

fn whole_name(directory: &Path) -> String {
    let shown = if directory.as_os_str().is_empty() { Path::new(ROOT) } else { directory };
    format!("py:{}", shown.to_string_lossy())
}

/// Returns the test that runs everything in one process.
fn whole(base: &Test, outputs: &[String]) -> Test {
    let outputs = outputs.iter().filter_map(|output| {
        let path = within(&base.directory, output)?;
        Some(format!("/{}", path.to_str()?))
    });
    let outputs = base.outputs.iter().cloned().chain(outputs).collect();
    Test { name: whole_name(&base.directory), outputs, ..base.clone() }
}

/// Returns whether a collection ended by itself, with errors of some files.
fn is_interrupted(status: Status) -> bool {
    matches!(status, Status::Failed(ExitReason::Code(1 | INTERRUPTED)))
}

/// Returns a test that fails like the collection, since pytest runs nothing after an error.
fn failing(base: &Test, header: &Header) -> Test {
    if header.errors.is_empty() {
        return whole(base, &[]);
    }
    let mut test = whole(base, &[]);
    test.name.push_str(" (collection)");
    test.command.push("--collect-only".to_owned());
    test
}

/// Returns whether no deeper collection has a file.
fn is_owner(directory: &Path, file: &str, directories: &[&Path]) -> bool {
    let Some(path) = within(directory, file) else { return true };
    let deepest =
        directories.iter().filter(|it| path.starts_with(it)).max_by_key(|it| it.components().count());
    deepest.is_none_or(|deepest| directory.starts_with(deepest))
}

/// Returns one test for each file, in the order of pytest, and one for all files that a command
/// line cannot name.
fn tests_of(base: &Test, pinned: &[String], collected: Vec<CollectedFile>) -> Vec<Test> {
    let (named, unnamed): (Vec<CollectedFile>, Vec<CollectedFile>) =
        collected.into_iter().partition(|file| files::can_be_named(&file.file));
    let name = |file: &str| {
        let path = within(&base.directory, file).unwrap_or_else(|| PathBuf::from(file));
        format!("py:{}", path.to_string_lossy())
    };
    let mut tests: Vec<Test> = Vec::new();
    for CollectedFile { file, deselect, ids } in &named {
        let deselect = deselect.iter().map(|id| format!("--deselect={id}"));
        let options: Vec<String> = pinned.iter().cloned().chain(deselect).collect();
        let command = file_command(&base.command, &options, file);
        let whole = Test { name: name(file), command, ..base.clone() };
        match files::singles(&whole, ids) {
            Some(single) => tests.extend(single),
            None => tests.push(whole),
        }
    }
    if let Some(first) = unnamed.first() {
        let mut command = base.command.clone();
        command.extend(named.iter().map(|file| format!("--ignore={}", file.file)));
        tests.push(Test { name: name(&first.file), command, ..base.clone() });
    }
    debug_assert!(tests.iter().all(|test| test.harness.as_str() == HARNESS));
    tests
}
