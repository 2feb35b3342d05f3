//! Ends a feature whose tests or review cannot run.

use greenwave_testing::{Outcome, Test};

use super::Stage;
use crate::error::{Error, FeatureError};
use crate::red::{self, FailedTest, Obstacle, ProjectNames};
use crate::tree;

impl Stage<'_> {
    /// Checks that a test which failed before the code exists is red.
    ///
    /// # Errors
    /// [`FeatureError::CouldNotRun`] if the test could not run.
    pub(super) async fn check_red(&self, test: &str, outcome: &Outcome) -> Result<(), FeatureError> {
        let feature = self.feature();
        let Some(test) = feature.tests.iter().find(|other| other.name == test) else { return Ok(()) };
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
