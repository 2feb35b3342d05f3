//! Examines the tests of a project without running any of its code.

use std::path::Path;

use greenwave_testing::{Inspection, TestId};

use super::args::TestArgs;
use super::suite;
use crate::error::CliError;

/// Traces of earlier runs of the tests of a project.
#[derive(Debug, Default)]
pub(in crate::cli) struct KnownTests {
    /// Number of tests.
    pub(in crate::cli) count: usize,
    /// Tests that passed without their result being stored, with the reasons.
    pub(in crate::cli) not_stored: Vec<(String, String)>,
    /// Tests whose cached results depend on all files of the project, with the reasons.
    pub(in crate::cli) coarse: Vec<(String, String)>,
}

impl KnownTests {
    /// Looks up the results of all tests.
    ///
    /// # Errors
    /// Those of `greenwave test --dry-run`.
    pub(in crate::cli) async fn inspect(project: &Path) -> Result<Self, CliError> {
        let args = TestArgs { dry_run: true, ..TestArgs::silent(Some(project.to_owned())) };
        let suite = suite::load(project, &args).await?.suite;
        let named = |(test, reason): (TestId, String)| (suite.tests()[test.index()].name.clone(), reason);
        let not_stored = suite.not_stored().into_iter().map(|it| named((it.test, it.reason))).collect();
        let reason = |found| match found {
            Ok(Inspection::Cached(outcome) | Inspection::DependsOnBuild(outcome)) => outcome.coarse,
            _ => None,
        };
        let inspected = suite.inspect().await?;
        let coarse = suite.ids().zip(inspected).filter_map(|(id, found)| Some((id, reason(found)?)));
        Ok(Self { count: suite.tests().len(), not_stored, coarse: coarse.map(named).collect() })
    }
}
