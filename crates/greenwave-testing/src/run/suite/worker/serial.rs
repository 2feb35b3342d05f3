//! Gives tests the verdict of a runner that runs them one after another in one process.
//!
//! Tests of such a runner may share a port or a file, or what earlier tests leave in the process.
//! A test that fails runs again under the conditions of the runner, unless this takes too long.

use std::time::Duration;

use futures_util::future::join_all;

use super::processes::{OneProcess, Processes, StartedProcess};
use super::{ProjectWorkspace, Results};
use crate::harness::batch_plan::can_share;
use crate::results::outcome::{CacheDecision, ExitReason, Interference, Outcome, Source, Status};
use crate::run::runner::TestRun;
use crate::run::test_id::TestId;
use crate::{BatchResult, Error};

/// Maximum expected duration of the tests before one that failed alone. If they take longer, the
/// test fails without a run after them.
const BEFORE_TIME_MAX: Duration = Duration::from_secs(15);

/// Minimum number of tests that run in processes which are forked from a common one.
const FORKED_MIN: usize = 3;

impl ProjectWorkspace<'_> {
    /// Returns whether the last result of a test depended on the tests before it.
    pub(super) fn runs_in_order(&self, id: TestId) -> bool {
        self.inputs.earlier.get(&id).is_some_and(|it| it.depends_on_order)
    }

    /// Runs tests after their predecessors, in one process and without company.
    pub(super) async fn run_in_order(&self, batch: &[TestId]) -> Results {
        let mut results = Results::new();
        let ran = self.run_up_to(batch).await.unwrap_or_default();
        results.extend(ran.passed);
        for (id, result) in ran.failed {
            let found = Interference::FailsAfterOthers;
            let run = self
                .run_uncached(id)
                .await
                .map(|alone| if alone.outcome.passed() { failed(alone, result, found) } else { alone });
            results.push((id, run));
        }
        for id in batch {
            if !results.iter().any(|(done, _)| done == id) {
                results.push((*id, self.run_one(*id).await));
            }
        }
        results
    }

    /// Returns the result of a test that ran alone in its process: a failure counts only if the
    /// test fails without company and after the tests before it, too.
    pub(super) async fn confirm(&self, id: TestId, mut run: TestRun, had_company: bool) -> TestRun {
        if !self.is_doubtful(id, &run.outcome) {
            return run;
        }
        let context = &self.inputs.context;
        if had_company {
            let alone = self.inputs.company.alone().await;
            let Ok(again) = context.runner.run_in(self, context.test(id)).await else { return run };
            drop(alone);
            if again.outcome.passed() {
                return with(again, Interference::FailsBesideOthers);
            }
            run = again;
        }
        if self.is_worth_an_order(id)
            && let Ok(mut ran) = self.run_up_to(&[id]).await
            && let Some((_, Ok(passed))) = ran.passed.pop()
        {
            return with(passed, Interference::NeedsOthers);
        }
        run
    }

    /// Returns the results of tests that failed in one process with others.
    pub(super) async fn confirm_failed(&self, failed: &[TestId], had_company: bool) -> Results {
        let [first, ..] = failed else { return Results::new() };
        let context = &self.inputs.context;
        let is_serial = context.runner.harness(context.test(*first)).is_serial(context.test(*first));
        if !is_serial || context.runner.options().cache_failures {
            return Results::new();
        }
        // Tests that pass now, and failed with others.
        let mut doubtful: Vec<(TestId, Option<TestRun>)> = Vec::new();
        let mut open = failed.to_vec();
        if had_company && open.len() > 1 {
            let passed = self.passing_without_company(&open).await;
            open.retain(|id| !passed.contains(id));
            doubtful.extend(passed.into_iter().map(|id| (id, None)));
        }
        let mut results = self.failing_apart(&open).await.unwrap_or_default();
        open.retain(|id| !results.iter().any(|(failed, _)| failed == id));
        for id in open {
            let run = if had_company && failed.len() == 1 {
                let _alone = self.inputs.company.alone().await;
                self.run_uncached(id).await
            } else {
                let _companion = self.inputs.company.join().await;
                self.run_uncached(id).await
            };
            match run {
                Ok(run) if run.outcome.passed() => doubtful.push((id, Some(run))),
                run => results.push((id, run)),
            }
        }
        results.extend(self.decide(doubtful, had_company).await);
        results
    }

    /// Returns the results of tests that fail in separate processes, too, if these can be forked
    /// from a common one: starting one for each takes several times as long.
    async fn failing_apart(&self, ids: &[TestId]) -> Result<Results, Error> {
        let context = &self.inputs.context;
        let may_be_retried = || ids.iter().any(|id| context.test(*id).retries > 0);
        if ids.len() < FORKED_MIN || may_be_retried() {
            return Ok(Results::new());
        }
        let missing = self.missing(ids).await?;
        let Some((_, prepared, _)) = missing.first() else { return Ok(Results::new()) };
        let companion = self.inputs.company.join().await;
        let started = self.start_process(ids, prepared, Processes::Apart).await?;
        drop(companion);
        let Some(started) = started else { return Ok(Results::new()) };
        let committing =
            missing.iter().filter_map(|(id, prepared, chain)| {
                let attempt = started.failed_apart(ids, *id)?;
                let test = context.test(*id);
                Some(async move {
                    (*id, context.runner.commit_batched(self, test, prepared, chain, attempt).await)
                })
            });
        Ok(join_all(committing.collect::<Vec<_>>()).await)
    }

    /// Decides on tests that failed with others and passed without them.
    async fn decide(&self, doubtful: Vec<(TestId, Option<TestRun>)>, had_company: bool) -> Results {
        let mut results = Results::new();
        if doubtful.is_empty() {
            return results;
        }
        let ids: Vec<TestId> = doubtful.iter().map(|(id, _)| *id).collect();
        let OneProcess { passed, failed: still, .. } = self.run_up_to(&ids).await.unwrap_or_default();
        let found = if had_company { Interference::FailsBesideOthers } else { Interference::FailsAfterSome };
        results.extend(passed.into_iter().map(|(id, run)| (id, run.map(|run| with(run, found)))));
        for (id, alone) in doubtful {
            if results.iter().any(|(done, _)| *done == id) {
                continue;
            }
            let run = match alone {
                Some(run) => Ok(run),
                None => self.run_uncached(id).await,
            };
            let result = still.iter().find(|(other, _)| *other == id).map(|(_, result)| result.clone());
            let run = run.map(|run| match result {
                Some(result) if run.outcome.passed() => failed(run, result, Interference::FailsAfterOthers),
                _ => run,
            });
            results.push((id, run));
        }
        results
    }

    /// Returns the tests that pass in one process without company. Stores nothing.
    async fn passing_without_company(&self, ids: &[TestId]) -> Vec<TestId> {
        let [first, ..] = ids else { return Vec::new() };
        let context = &self.inputs.context;
        let Ok(prepared) = context.runner.prepare(self, context.test(*first)).await else {
            return Vec::new();
        };
        let alone = self.inputs.company.alone().await;
        let ran = self.start_process(ids, &prepared, Processes::Shared).await;
        drop(alone);
        let Ok(Some(StartedProcess { results, .. })) = ran else { return Vec::new() };
        let has_passed = |id: &&TestId| results.get(id).is_some_and(|result| result.passed);
        ids.iter().filter(has_passed).copied().collect()
    }

    /// Runs the tests up to the last of `ids` in the order of their runner, in one process and
    /// without company. Returns the results of `ids`.
    async fn run_up_to(&self, ids: &[TestId]) -> Result<OneProcess, Error> {
        let Some(last) = ids.iter().max() else { return Ok(OneProcess::default()) };
        let mut all = self.before(*last);
        all.push(*last);
        all.sort_unstable();
        let wanted = self.missing(ids).await?;
        let _alone = self.inputs.company.alone().await;
        self.run_process(&all, wanted, Processes::Shared).await
    }

    /// Returns the tests that precede one and can share its process.
    fn before(&self, id: TestId) -> Vec<TestId> {
        let context = &self.inputs.context;
        let harnesses = &context.runner.options().harnesses;
        let test = context.test(id);
        context
            .ids()
            .filter(|other| *other < id && can_share(harnesses, test, context.test(*other)))
            .collect()
    }

    fn is_doubtful(&self, id: TestId, outcome: &Outcome) -> bool {
        let context = &self.inputs.context;
        let test = context.test(id);
        matches!(outcome.status, Status::Failed(_))
            && !outcome.is_cached()
            && !context.runner.options().cache_failures
            && context.runner.harness(test).is_serial(test)
    }

    /// Returns whether a test that failed alone is worth a run after the tests before it: its last
    /// result was a pass, and they take little time.
    fn is_worth_an_order(&self, id: TestId) -> bool {
        let earlier = &self.inputs.earlier;
        let before = self.before(id);
        let seconds = |id: &TestId| earlier.get(id).map_or(0.0, |it| it.seconds);
        let total: f64 = before.iter().map(seconds).sum();
        !before.is_empty()
            && total <= BEFORE_TIME_MAX.as_secs_f64()
            && earlier.get(&id).is_none_or(|it| !it.failed_last)
    }

    async fn run_uncached(&self, id: TestId) -> Result<TestRun, Error> {
        let context = &self.inputs.context;
        context.runner.run_again(self, context.test(id)).await
    }
}

fn with(run: TestRun, found: Interference) -> TestRun {
    let outcome = Outcome { interference: Some(found), ..run.outcome };
    TestRun { outcome, ..run }
}

/// Returns the failure of a test after others, in place of its pass alone.
fn failed(alone: TestRun, result: BatchResult, found: Interference) -> TestRun {
    let outcome = Outcome {
        status: Status::Failed(ExitReason::Code(1)),
        count: Some(result.count),
        output: result.output.into(),
        duration: result.duration,
        source: Source::Ran(CacheDecision::NotAPass),
        interference: Some(found),
        ..alone.outcome
    };
    TestRun { outcome, ..alone }
}
