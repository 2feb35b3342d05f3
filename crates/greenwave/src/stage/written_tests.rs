//! Accepts the tests that an agent has written for a feature: new files of tests, which a harness
//! finds, and which fail because the feature is missing.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use greenwave_storage::AttemptOutcome;
use greenwave_testing::{Outcome, Status, Test};

use super::{Stage, describe_status};
use crate::cases::CaseLog;
use crate::error::FeatureError;
use crate::event::Event;
use crate::phase::PhaseEvent;
use crate::prompt;
use crate::protection::Protection;
use crate::state::StageResult;
use crate::test_files::{has_test_name, is_test_file};
use crate::test_results::{discovered_tests, try_test};
use crate::tree::{self, Change};
use crate::written_tests::WrittenTests;

/// The instruction for an agent that changed other files.
const HELP: &str = "Write new files of tests, and nothing else. Another agent writes the code, and your tests fail until then.";
/// Harnesses whose commands name files. A file that none of them names is not run.
const PRECISE: [&str; 3] = ["cargo", "pytest", "go"];

impl Stage<'_> {
    /// Composes the prompt of an attempt.
    pub(super) async fn prompt(&self, attempt: u32) -> String {
        let (feature, feedback) = (self.feature(), &self.active.feedback);
        let number = (attempt, self.active.attempts_max);
        if !self.active.phase.is_about_tests() {
            let first = self.active.first_attempt;
            let written = self.ctx.written_tests(self.id).map_or(&[][..], |written| &written.changes);
            return prompt::compose(feature, (first, number), feedback, self.edits(), written);
        }
        let found = discovered_tests(self.ctx, self.active.workspace.root()).await.unwrap_or_default();
        prompt::compose_for_tests(feature, number, feedback, self.edits(), &found)
    }

    /// Finds and runs the tests that an agent has written. Each of them must fail as a test of a
    /// feature that is missing.
    pub(super) async fn confirm_written(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        if let Some((reason, feedback)) = self.refuse_other_files().await? {
            return Ok(StageResult::Refused { reason, feedback });
        }
        self.active.workspace.restore_included().await?;
        self.active.cases = CaseLog::default();
        let tests = match self.find_written().await? {
            Ok(tests) => tests,
            Err(reason) => return self.refuse_tests(reason, String::new()).await,
        };
        let mut first = None;
        for (index, test) in tests.iter().enumerate() {
            let outcome = self.run_test(test, "red").await?;
            self.active.cases.record("red", index, &outcome);
            if let Some(problem) = self.problem(test, &outcome).await? {
                self.active.test_output = self.ctx.shown(&outcome.output);
                let text = self.feedback(&outcome.output).text;
                return self.refuse_tests(format!("test `{}` {problem}", test.name), text).await;
            }
            first.get_or_insert((test.name.clone(), outcome));
        }
        if let Some((test, outcome)) = first {
            self.active.test_output = self.ctx.shown(&outcome.output);
            self.active.red = describe_status(&test, &outcome);
            let feedback = self.feedback(&outcome.output);
            (self.active.failing, self.active.feedback) = (feedback.failing, feedback.text);
        }
        self.accept_tests(attempt, tests).await
    }

    /// Takes the tests in the workspace as those of the feature.
    async fn accept_tests(&mut self, attempt: u32, tests: Vec<Test>) -> Result<StageResult, FeatureError> {
        let (feature, agent) = (self.feature().id.clone(), self.agent().clone());
        let changes = tree::changes(&self.active.base, self.active.workspace.tree());
        let names: Vec<String> = tests.iter().map(|test| test.name.clone()).collect();
        let note = self.active.test_output.clone();
        self.record_attempt(AttemptOutcome::Red, String::new(), note).await?;
        let files = changes.iter().map(|change| change.path.clone()).collect();
        self.ctx.emit(Event::TestsWritten { feature, attempt, agent, tests: names, files }).await;
        self.ctx.take_written_tests(self.id, WrittenTests { tests, changes });
        Ok(StageResult::Completed(PhaseEvent::TestsFailed))
    }

    /// Refuses tests that prove nothing, and stores them as an attempt.
    async fn refuse_tests(&mut self, reason: String, output: String) -> Result<StageResult, FeatureError> {
        let (shown, note) = (self.ctx.shown(reason.as_bytes()), self.active.test_output.clone());
        self.record_attempt(AttemptOutcome::Failed, shown, note).await?;
        let feedback = format!(
            "{reason}.\n\n{output}\n\nThe files are as you left them. Correct the tests. Each of them must run, \
             and fail because the feature is missing."
        );
        Ok(StageResult::Refused { reason, feedback })
    }

    /// Refuses an attempt that changes anything but files of tests, and restores the rest.
    async fn refuse_other_files(&mut self) -> Result<Option<(String, String)>, FeatureError> {
        let ctx = self.ctx;
        let links = self.links().await?;
        let protection = Protection::new(self.feature(), &[], &ctx.protection).with_links(&links);
        let changes = tree::changes(&self.active.base, self.active.workspace.tree());
        let removed: BTreeSet<&str> = tree::removed_by(&changes);
        let mut violations = Vec::new();
        for change in &changes {
            let problem = match self.of_project(&change.path) {
                None => Some("is outside of the project".to_owned()),
                Some(path) if !is_test_file(path) => Some("is no file of tests".to_owned()),
                Some(_) => match self.obstacle(change, &removed) {
                    None => self.violation(&protection, change).await?,
                    obstacle => obstacle,
                },
            };
            violations.extend(problem.map(|problem| (change.clone(), problem)));
        }
        self.restore(&violations, HELP).await
    }

    /// Finds the tests that run the agent's files: new ones, and earlier ones that run a new file.
    /// The inner error is the reason why no test is found.
    async fn find_written(&mut self) -> Result<Result<Vec<Test>, String>, FeatureError> {
        let ctx = self.ctx;
        ctx.steps.pass("find written tests").await;
        let (base, files) = (self.active.base.clone(), self.active.workspace.tree().clone());
        let root = self.active.workspace.root().to_owned();
        let after = match discovered_tests(ctx, &root).await {
            Ok(after) => after,
            Err(message) => return Ok(Err(message)),
        };
        self.active.workspace.reset(&base, &ctx.store).await?;
        let before = discovered_tests(ctx, &root).await.unwrap_or_default();
        let changes = tree::changes(&base, &files);
        let found = written(&before, &after, &changes);
        let mut failing = None;
        for test in found.iter().flatten().filter(|test| is_among(&before, test)) {
            let outcome = try_test(ctx, self.id, test, &root).await?;
            if !outcome.passed() && outcome.status != Status::NoTests {
                failing = Some(test.name.clone());
                break;
            }
        }
        self.active.workspace.reset(&files, &ctx.store).await?;
        Ok(match failing {
            None => found,
            Some(name) => Err(format!(
                "test `{name}` fails already without the new files, so its failure proves nothing"
            )),
        })
    }

    /// Returns why the result of a written test proves nothing, as the rest of a sentence about it.
    async fn problem(&self, test: &Test, outcome: &Outcome) -> Result<Option<String>, FeatureError> {
        Ok(match outcome.status {
            Status::Passed => Some("passes before the feature exists, so it proves nothing".to_owned()),
            Status::NoTests => Some("runs no tests, so it proves nothing".to_owned()),
            _ => match self.check_red(test, outcome).await {
                Ok(()) => None,
                Err(FeatureError::CouldNotRun { problem, .. }) => Some(problem),
                Err(error) => return Err(error),
            },
        })
    }

    /// Returns a path relative to the project; `None` if it is outside.
    fn of_project<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self.active.workspace.project() {
            project if project.is_empty() => Some(path),
            project => path.strip_prefix(project.as_str())?.strip_prefix('/'),
        }
    }
}

/// Returns the tests after the changes that run changed files. The error is the reason why no test
/// is found, or why a file is not run.
fn written(before: &[Test], after: &[Test], changes: &[Change]) -> Result<Vec<Test>, String> {
    let files: Vec<&str> =
        changes.iter().filter(|change| change.after.is_some()).map(|change| change.path.as_str()).collect();
    let mut found: Vec<&Test> = Vec::new();
    for test in after {
        if !is_among(before, test) || files.iter().any(|file| names(test, file)) {
            found.push(test);
        }
    }
    for file in &files {
        let is_needed = found.is_empty() || has_test_name(file);
        if !is_needed || found.iter().any(|test| covers(test, file, &files)) {
            continue;
        }
        let whole = after.iter().filter(|test| !PRECISE.contains(&test.harness.as_str()));
        let whole = whole.filter(|test| Path::new(file).starts_with(&test.directory));
        let whole = whole.filter(|test| !names_single_file(test));
        match whole.max_by_key(|test| test.directory.components().count()) {
            Some(test) if !is_among_these(&found, test) => found.push(test),
            Some(_) => {}
            None if has_test_name(file) => {
                return Err(format!("`{file}` is no test that the project's test runner finds"));
            }
            None => {}
        }
    }
    match found[..] {
        [] => Err("no test runner of the project finds a test in what was written".to_owned()),
        _ => Ok(found.into_iter().cloned().collect()),
    }
}

/// Returns whether a test that was found may run one of the files: the command names it, or names
/// no file and leaves the choice to the harness.
fn covers(test: &Test, file: &str, files: &[&str]) -> bool {
    if names(test, file) {
        return true;
    }
    match test.harness.as_str() {
        "cargo" => names_target(test, file),
        name if PRECISE.contains(&name) => false,
        _ => Path::new(file).starts_with(&test.directory) && !files.iter().any(|file| names(test, file)),
    }
}

/// Returns whether the command of a test names a file or the directory of a Go package.
fn names(test: &Test, file: &str) -> bool {
    let named = |word: &str| -> Option<PathBuf> {
        let word = word.split("::").next().unwrap_or(word);
        let parts = Path::new(word).components().filter(|part| *part != Component::CurDir);
        let is_plain = parts.clone().all(|part| matches!(part, Component::Normal(_)));
        is_plain.then(|| test.directory.join(parts.collect::<PathBuf>()))
    };
    let target = match test.harness.as_str() {
        "go" => Path::new(file).parent().unwrap_or(Path::new("")),
        _ => Path::new(file),
    };
    let words = test.command.iter().skip(1);
    words.filter_map(|word| named(word)).any(|path| path.components().eq(target.components()))
}

/// Returns whether the command of a test names a test file, so that it runs no other one.
fn names_single_file(test: &Test) -> bool {
    let files = test.command.iter().skip(1).filter_map(|word| word.split("::").next());
    let has_extension = |word: &str| word.rsplit('/').next().is_some_and(|name| name.contains('.'));
    files.into_iter().any(|word| has_extension(word) && is_test_file(word))
}

/// Returns whether a command of cargo selects the test program of a file in `tests`.
fn names_target(test: &Test, file: &str) -> bool {
    let Some(name) = test.command.iter().skip_while(|word| *word != "--test").nth(1) else { return false };
    let Ok(inside) = Path::new(file).strip_prefix(test.directory.join("tests")) else { return false };
    let first = inside.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    first.is_some_and(|first| first.strip_suffix(".rs").unwrap_or(&first) == name)
}

fn is_among(tests: &[Test], test: &Test) -> bool {
    is_among_these(&tests.iter().collect::<Vec<_>>(), test)
}

fn is_among_these(tests: &[&Test], test: &Test) -> bool {
    tests.iter().any(|other| other.command == test.command && other.directory == test.directory)
}

#[cfg(test)]
mod tests {
    use greenwave_storage::BlobId;
    use greenwave_testing::{EntryKind, HarnessName};

    use super::*;
    use crate::tree::File;

    fn test(harness: &'static str, directory: &str, command: &str) -> Test {
        Test {
            directory: directory.into(),
            harness: HarnessName::new(harness),
            ..Test::new(command, command.split(' '))
        }
    }

    fn found(before: &[Test], new: &[Test], files: &[&str]) -> Result<String, String> {
        let after = Some(File { kind: EntryKind::Regular, blob: BlobId::of(b"") });
        let change = |path: &&str| Change { path: (*path).to_owned(), before: None, after };
        let changes: Vec<Change> = files.iter().map(change).collect();
        let all = [before, new].concat();
        let names = written(before, &all, &changes)?.into_iter().map(|test| test.name);
        Ok(names.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn tests_that_run_new_files_are_found() {
        let pytest = |file| test("pytest", "app", &format!("python3 -m pytest {file}"));
        let old = [pytest("tests/test_a.py")];
        let new = [pytest("tests/test_b.py")];
        let files = ["app/tests/test_b.py", "app/tests/data.json"];
        assert_eq!(found(&old, &new, &files).unwrap(), "python3 -m pytest tests/test_b.py");
        assert_eq!(found(&old, &[], &["app/tests/test_a.py"]).unwrap(), "python3 -m pytest tests/test_a.py");
        let go = [test("go", "", "go test -count=1 ./pkg"), test("go", "", "go test -count=1 .")];
        assert_eq!(found(&go, &[], &["pkg/new_test.go"]).unwrap(), "go test -count=1 ./pkg");
        assert_eq!(found(&go, &[], &["new_test.go"]).unwrap(), "go test -count=1 .");
        let cargo = [test("cargo", "", "cargo test --package a --test one")];
        assert_eq!(found(&[], &cargo, &["tests/one.rs"]).unwrap(), "cargo test --package a --test one");
        let files = ["tests/one/main.rs", "tests/one/more_test.rs"];
        assert_eq!(found(&[], &cargo, &files).unwrap(), "cargo test --package a --test one");
    }

    #[test]
    fn a_script_for_all_files_runs_what_nothing_else_does() {
        let npm = [test("npm", "", "npm test"), test("npm", "web", "npm test -w web")];
        assert_eq!(found(&npm, &[], &["web/a.test.js", "web/b.test.js"]).unwrap(), "npm test -w web");
        assert_eq!(found(&npm, &[], &["lib/a.test.js"]).unwrap(), "npm test");
        assert_eq!(found(&npm[..1], &npm[1..], &["web/a.test.js"]).unwrap(), "npm test -w web");
        let single = [test("npm", "", "node --test a.test.js")];
        let both = "node --test a.test.js, npm test";
        assert_eq!(found(&npm[..1], &single, &["a.test.js", "b.test.js"]).unwrap(), both);
        // Data of a test that was found, beside the test of another feature.
        let other = [test("npm", "", "node --test c.test.js")];
        let files = ["a.test.js", "test/data.json"];
        assert_eq!(found(&other, &single, &files).unwrap(), "node --test a.test.js");
    }

    #[test]
    fn files_that_nothing_runs_are_reported() {
        let reason = found(&[], &[], &["tests/data.txt"]).unwrap_err();
        assert_eq!(reason, "no test runner of the project finds a test in what was written");
        let cargo = [test("cargo", "", "cargo test --package a --lib")];
        let reason = found(&cargo, &[], &["src/parser/tests.rs"]).unwrap_err();
        assert_eq!(reason, "`src/parser/tests.rs` is no test that the project's test runner finds");
    }
}
