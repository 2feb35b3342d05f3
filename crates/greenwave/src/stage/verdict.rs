//! Ends a feature whose tests or review cannot run, and refuses attempts that change tests.

use std::collections::{BTreeSet, HashSet};

use greenwave_dir::refused;
use greenwave_testing::{EntryKind, Outcome, Test};

use super::Stage;
use crate::error::{Error, FeatureError};
use crate::protection::{FileChange, Links, Protection};
use crate::red::{self, FailedTest, Obstacle, ProjectNames};
use crate::tree::{self, Change, File, Tree};

/// Minimum number of deleted files that can be most of a project.
const DELETED_MIN: usize = 10;
/// Maximum number of refused files that the next prompt names.
const VIOLATIONS_MAX: usize = 20;

/// Result of the tests of an answer.
#[derive(Debug)]
pub(super) enum Verdict {
    /// All tests pass.
    Passed,
    /// The answer changes what it may not change, or a single test no longer runs.
    Refused {
        /// One line for the user.
        reason: String,
        /// Text for the next prompt.
        feedback: String,
    },
    /// A test failed.
    Failed {
        /// One line for the user.
        reason: String,
        /// Text for the next prompt.
        feedback: String,
        /// Index of the test in the feature.
        at: usize,
        /// Number of single tests that failed, if the runner counts them.
        failed: Option<u32>,
    },
}

impl Stage<'_> {
    /// Checks that a test which failed before the code exists is red.
    ///
    /// # Errors
    /// [`FeatureError::CouldNotRun`] if the test could not run.
    pub(super) async fn check_red(&self, test: &Test, outcome: &Outcome) -> Result<(), FeatureError> {
        let feature = self.feature();
        let output = red::plain_output(outcome);
        let failed = FailedTest { command: &test.command, status: outcome.status, output: &output };
        match red::obstacle(&failed, &self.project_names().await?, feature.red.as_deref()) {
            None => Ok(()),
            Some(Obstacle { problem, hint, .. }) => {
                Err(FeatureError::CouldNotRun { role: "test", test: test.name.clone(), problem, hint })
            }
        }
    }

    /// Checks that a review which did not pass has run. Another attempt would not cure it.
    ///
    /// # Errors
    /// [`FeatureError::CouldNotRun`] if the review could not run.
    pub(super) fn check_review(&self, review: &Test, outcome: &Outcome) -> Result<(), FeatureError> {
        if !red::is_broken_command(outcome.status) {
            return Ok(());
        }
        let problem = outcome.status.to_string();
        let hint = "run the review's command by hand, and correct it".to_owned();
        Err(FeatureError::CouldNotRun {
            role: "review",
            test: review.name.clone(),
            problem,
            hint: Some(hint),
        })
    }

    /// Refuses an attempt that changes protected files, or files that cannot be merged, and
    /// restores them. The other changes stay. Returns the reason and the feedback.
    pub(super) async fn refuse_protected(&mut self) -> Result<Option<(String, String)>, FeatureError> {
        let ctx = self.ctx;
        let links = self.links().await?;
        let protection =
            Protection::new(self.feature(), ctx.tests_of(self.id), &ctx.protection).with_links(&links);
        let mut violations: Vec<(Change, String)> = Vec::new();
        let changes = tree::changes(&self.base_with_tests(), self.active.workspace.tree());
        let removed: BTreeSet<&str> = tree::removed_by(&changes);
        for change in changes.iter().cloned() {
            let obstacle = self.obstacle(&change, &removed);
            let violation = match obstacle {
                Some(_) => obstacle,
                None => self.violation(&protection, &change).await?,
            };
            if let Some(problem) = violation {
                violations.push((change, problem));
            }
        }
        if violations.is_empty() {
            violations = self.wholesale_deletion(&protection, &changes);
        }
        let help = "Make the tests pass by changing the code that they test.";
        self.restore(&violations, help).await
    }

    /// Restores files that an attempt must not have changed, with the reasons. Returns the reason
    /// and the feedback, which ends with `help`, if a file is restored.
    pub(super) async fn restore(
        &mut self,
        violations: &[(Change, String)],
        help: &str,
    ) -> Result<Option<(String, String)>, FeatureError> {
        let Some((first, problem)) = violations.first() else { return Ok(None) };
        let reason = match violations.len() {
            1 => format!("`{}` {problem}: the agent may not change it", first.path),
            count => format!(
                "`{}` {problem}: the agent may not change it, nor {} other files",
                first.path,
                count - 1
            ),
        };
        let lines = violations.iter().map(|(change, problem)| format!("- `{}` {problem}\n", change.path));
        let mut lines: Vec<String> = lines.take(VIOLATIONS_MAX).collect();
        if let Some(more) = violations.len().checked_sub(VIOLATIONS_MAX).filter(|more| *more > 0) {
            lines.push(format!("- {more} more files\n"));
        }
        let feedback = format!(
            "The answer changes files that you may not change:\n\n{}\nThey are restored. {help}",
            lines.concat()
        );
        let mut restored = self.active.workspace.tree().clone();
        let inverse: Vec<Change> = violations.iter().map(|(change, _)| change.inverse()).collect();
        tree::apply(&mut restored, &inverse);
        make_room(&mut restored, &inverse);
        self.active.workspace.reset(&restored, &self.ctx.store).await?;
        Ok(Some((reason, feedback)))
    }

    /// Returns the files that an attempt deletes if they are most of the project's. That is an
    /// accident, such as `rm -rf *` in the wrong directory, which few tests would notice. Files
    /// that are elsewhere afterwards were moved.
    fn wholesale_deletion(&self, protection: &Protection<'_>, changes: &[Change]) -> Vec<(Change, String)> {
        let after: HashSet<_> = changes.iter().filter_map(|change| Some(change.after?.blob)).collect();
        let is_deleted = |change: &&Change| {
            let is_moved = change.before.is_some_and(|file| after.contains(&file.blob));
            change.after.is_none() && !is_moved && !protection.may_edit(&change.path)
        };
        let deleted: Vec<&Change> = changes.iter().filter(is_deleted).collect();
        if deleted.len() < DELETED_MIN || deleted.len() * 2 <= self.active.base.len() {
            return Vec::new();
        }
        let problem = "is deleted, as are most files of the project";
        deleted.into_iter().map(|change| (change.clone(), problem.to_owned())).collect()
    }

    /// Refuses an attempt after which a single test no longer runs that ran before.
    pub(super) fn refuse_missing_case(&self) -> Option<Verdict> {
        if !self.feature().may_edit.is_empty() {
            return None;
        }
        let problem = self.active.cases.missing()?;
        let reason = format!("{problem}: every test that ran before must still run and pass");
        Some(Verdict::Refused { feedback: reason.clone(), reason })
    }

    pub(super) async fn violation(
        &self,
        protection: &Protection<'_>,
        change: &Change,
    ) -> Result<Option<String>, Error> {
        let (before, after) = if protection.needs_content(&change.path) {
            (self.content(change.before).await?, self.content(change.after).await?)
        } else {
            // Only whether the file exists matters.
            (change.before.map(|_| bytes::Bytes::new()), change.after.map(|_| bytes::Bytes::new()))
        };
        let change = FileChange { path: &change.path, before: before.as_deref(), after: after.as_deref() };
        Ok(protection.violation(&change))
    }

    /// Returns why a file could not be written into the project: something that working copies do
    /// not have is in its place, or in the place of its directory. A file that the attempt removes
    /// is no obstacle.
    pub(super) fn obstacle(&self, change: &Change, removed: &BTreeSet<&str>) -> Option<String> {
        change.after.filter(|_| self.ctx.branch.is_none())?;
        match self.ctx.project.dir.metadata(&change.path) {
            Ok(now) if now.kind().is_special() => Some(format!("is {} in the project", now.kind())),
            Ok(_) => None,
            Err(error) => {
                let refused = refused(&error)?;
                let path = refused.path().display().to_string();
                if removed.contains(path.as_str()) {
                    return None;
                }
                Some(format!(
                    "is behind `{}`, which is {} in the project",
                    path.escape_debug(),
                    refused.kind()
                ))
            }
        }
    }

    /// Returns the symbolic links of the files that the attempt started from, and those at the top
    /// of the project that git ignores.
    pub(super) async fn links(&self) -> Result<Links, Error> {
        let mut links = self.links_at_top();
        for (path, file) in &self.active.base {
            if file.kind == EntryKind::Symlink {
                let target = tree::content(&self.ctx.store, &file.blob).await?;
                links.insert(path.clone(), String::from_utf8_lossy(&target).into_owned());
            }
        }
        Ok(links)
    }

    fn links_at_top(&self) -> Links {
        let dir = &self.ctx.project.dir;
        let entries = dir.entries().unwrap_or_default().into_iter();
        let link = |entry: greenwave_dir::DirEntry| {
            let target = dir.read_link(&entry.name).ok()?;
            Some((entry.name.into_string().ok()?, target.to_str()?.to_owned()))
        };
        entries.filter_map(link).collect()
    }

    async fn content(&self, file: Option<File>) -> Result<Option<bytes::Bytes>, Error> {
        match file {
            Some(file) => tree::content(&self.ctx.store, &file.blob).await.map(Some),
            None => Ok(None),
        }
    }

    /// Collects the names that the project and the feature could provide.
    async fn project_names(&self) -> Result<ProjectNames, Error> {
        let (feature, tree) = (self.feature(), self.active.workspace.tree());
        let root = self.active.workspace.root();
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let text = format!("{}\n{}\n{}", feature.id, feature.title, feature.prompt);
        let mut names = ProjectNames::new(&root.to_string_lossy(), tree.keys().map(String::as_str), &text);
        for (path, file) in tree.iter().filter(|(path, _)| red::is_manifest(path)) {
            let content = tree::content(&self.ctx.store, &file.blob).await?;
            names.add_manifest(path, &String::from_utf8_lossy(&content));
        }
        Ok(names)
    }
}

/// Removes the files of a tree that lie where restored files have a directory, or the other way
/// round.
fn make_room(tree: &mut Tree, restored: &[Change]) {
    for Change { path, .. } in restored.iter().filter(|change| change.after.is_some()) {
        if tree::clashes(tree, path) {
            let is_below =
                |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
            tree.retain(|other, _| !is_below(other, path) && !is_below(path, other));
        }
    }
}
