//! Runs single tests again that have failed according to a report.

use super::attempt::TestJob;
use crate::harness::junit::xml::JunitCase;
use crate::results::outcome::Status;
use crate::run::process::ProcessResult;
use crate::run::reported;
use crate::{CaseStatus, Error, Test};

/// Maximum number of failed cases that run by themselves; with more, the whole command runs again.
const CASES_RERUN_MAX: usize = 20;

impl TestJob<'_> {
    /// Returns whether the next attempt runs only the failed cases.
    pub(super) fn can_rerun_cases(&self, process: &ProcessResult) -> bool {
        let failed = process.junit.iter().filter(|case| case.report.status == CaseStatus::Failed).count();
        let can_select = self.test.reports.as_ref().is_some_and(|reports| !reports.select.is_empty());
        can_select && process.is_explained && failed <= CASES_RERUN_MAX
    }

    /// Runs each failed case of an earlier attempt by itself, and returns the attempt with the new
    /// results.
    pub(super) async fn rerun_cases(&self, mut process: ProcessResult) -> Result<ProcessResult, Error> {
        let Some(reports) = &self.test.reports else { return Ok(process) };
        let mut has_failed = false;
        for at in 0..process.junit.len() {
            if process.junit[at].report.status != CaseStatus::Failed {
                continue;
            }
            let selection = reports.selection(&process.junit[at]);
            let command = self.test.command.iter().cloned().chain(selection).collect();
            let test = Test { command, ..self.test.clone() };
            let job = TestJob { test: &test, ..*self };
            let isolation = self.runner.lend_isolation()?;
            let alone = job.run_once(&self.launch(&test)?, &isolation).await?;
            self.runner.take_back(isolation, &alone);
            process.output = [process.output.as_ref(), b"\n", alone.output.as_ref()].concat().into();
            process.duration += alone.duration;
            let (name, class) = (&process.junit[at].name, &process.junit[at].class);
            let passed = |case: &&JunitCase| case.report.status == CaseStatus::Passed;
            let case = alone.junit.iter().filter(passed).find(|it| it.name == *name && it.class == *class);
            match case.filter(|_| alone.status == Status::Passed) {
                Some(case) => process.junit[at] = case.clone(),
                None => has_failed = true,
            }
        }
        if !has_failed {
            process.status = Status::Passed;
        }
        process.count = Some(reported::count(&process.junit));
        Ok(process)
    }
}
