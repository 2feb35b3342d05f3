//! The processes of a batch, and the verdicts that follow from them.

use std::collections::HashMap;

use super::Results;
use crate::harness::BatchResult;
use crate::run::runner::AttemptResult;
use crate::run::test_id::TestId;

/// The processes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Processes {
    /// All tests share the process, as in the harness's own runner.
    Shared,
    /// All tests share the process that has collected them, if it waits, and else a new one.
    Continued,
    /// Each test has a separate process if the harness supports that.
    Apart,
}

/// The outcome of running several tests in one process.
pub(super) struct StartedProcess {
    attempt: AttemptResult,
    pub(super) results: HashMap<TestId, BatchResult>,
    /// Whether each test had a separate process, so that tests could not influence each other.
    ran_apart: bool,
}

impl StartedProcess {
    pub(super) fn new(
        ids: &[TestId],
        attempt: AttemptResult,
        results: Vec<Option<BatchResult>>,
        ran_apart: bool,
    ) -> Self {
        let results = ids.iter().zip(results).filter_map(|(id, result)| Some((*id, result?)));
        Self { attempt, results: results.collect(), ran_apart }
    }

    /// Returns the number of tests up to the last one that failed in a separate process.
    pub(super) fn failed_apart_up_to(&self, ids: &[TestId]) -> Option<usize> {
        let has_failed = |id: &TestId| self.results.get(id).is_some_and(|result| !result.passed);
        Some(ids.iter().rposition(has_failed).filter(|_| self.ran_apart)? + 1)
    }

    /// Returns the attempt of the test at a position if it failed in a separate process.
    pub(super) fn failed_apart(&self, ids: &[TestId], id: TestId) -> Option<AttemptResult> {
        let result = self.results.get(&id).filter(|result| self.ran_apart && !result.passed)?;
        Some(self.part(ids.iter().position(|other| *other == id)?, result))
    }

    /// Returns the attempt of the test at a position.
    fn part(&self, at: usize, result: &BatchResult) -> AttemptResult {
        let part = u32::try_from(at + 1).ok().filter(|_| self.ran_apart);
        self.attempt.share(result.clone(), part)
    }
}

/// The processes that decide on the tests of a batch.
pub(super) struct Verdicts<'b> {
    pub(super) ids: &'b [TestId],
    pub(super) first: StartedProcess,
    /// The process in which the first tests ran again after one of them had failed apart, and their
    /// number. `None` instead of the process if it could not be started.
    pub(super) again: Option<(usize, Option<StartedProcess>)>,
}

/// The verdict on a test of a batch.
pub(super) enum Verdict {
    Passed(Box<AttemptResult>),
    Failed(BatchResult),
}

impl Verdicts<'_> {
    /// Returns the verdict on a test; `None` if it did not clearly pass or fail.
    ///
    /// The process that several tests share decides. The dependencies of a test are those of its
    /// separate process, if it passed there as well.
    pub(super) fn of(&self, id: TestId) -> Option<Verdict> {
        let at = self.ids.iter().position(|other| *other == id)?;
        let decides = match &self.again {
            Some((end, again)) if at < *end => again.as_ref()?,
            _ => &self.first,
        };
        let result = decides.results.get(&id)?;
        if !result.passed {
            return Some(Verdict::Failed(result.clone()));
        }
        let apart = self.first.results.get(&id).filter(|first| first.passed);
        let attempt = match apart {
            Some(result) => self.first.part(at, result),
            None => decides.part(at, result),
        };
        Some(Verdict::Passed(Box::new(attempt)))
    }
}

/// The results of several tests in one process.
#[derive(Default)]
pub(super) struct OneProcess {
    /// Tests that passed.
    pub(super) passed: Results,
    /// Tests that failed there.
    pub(super) failed: Vec<(TestId, BatchResult)>,
    /// Whether other processes ran at the same time.
    pub(super) had_company: bool,
}
