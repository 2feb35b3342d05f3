//! The work of each phase: confirms that the tests fail, requests an answer, tests and reviews it.

mod agent_review;
mod agent_tests;
mod answer;
mod approval;
mod candidates;
mod context;
mod needed_files;
mod pause;
mod request;
mod turn_waits;
mod usage;
mod verdict;
mod written_tests;

use std::collections::BTreeMap;
use std::path::Path;

use greenwave_storage::{AttemptOutcome, NewAttempt, Store};
use greenwave_testing::{FailureText, Outcome, Status, Test};

use crate::context::RunContext;
use crate::error::{Error, FeatureError};
use crate::feedback::{FileChange, describe_progress, failure_text};
use crate::green_record::GreenRecord;
use crate::merge::MergeQueue;
use crate::phase::{Phase, PhaseEvent};
use crate::plan::{AgentSpec, Feature, FeatureId};
use crate::report::FeatureReport;
use crate::state::{ActiveFeature, Candidate, StageResult};
use crate::test_results::{add_counts, run_test};
use crate::tree::{self, Change, File, Tree};

#[cfg(feature = "conformance")]
pub(crate) use answer::check::check as check_answers;
pub(crate) use approval::{held_answer, holds};
use verdict::Verdict;

/// Maximum number of changed files that are compared for a prompt.
const CHANGED_FILES_MAX: usize = 20;
/// Maximum number of times that tests run again because ignored files were copied for them.
const NEEDED_ROUNDS_MAX: usize = 8;

/// One stage of an active feature.
pub(crate) struct Stage<'a> {
    pub(crate) ctx: &'a RunContext,
    pub(crate) queue: &'a MergeQueue,
    pub(crate) id: FeatureId,
    pub(crate) active: &'a mut ActiveFeature,
    pub(crate) report: &'a mut FeatureReport,
}

impl Stage<'_> {
    /// Does the work of the feature's phase.
    pub(crate) async fn perform(&mut self) -> Result<StageResult, FeatureError> {
        match self.active.phase {
            Phase::Writing(attempt) => self.request(attempt).await,
            Phase::Confirming(attempt) => self.confirm_written(attempt).await,
            Phase::Red => self.confirm_failing().await,
            Phase::Prompting(attempt) if self.asks_several() => self.request_candidates(attempt).await,
            Phase::Prompting(attempt) => self.request(attempt).await,
            Phase::Testing(attempt) if !self.active.candidates.is_empty() => self.choose(attempt).await,
            Phase::Testing(attempt) => self.test(attempt).await,
            Phase::Reviewing(attempt) => self.review(attempt).await,
            Phase::Held(attempt) => self.wait_for_approval(attempt).await,
            Phase::Queued(_) => self.queue.wait_in_line(self.id, self.active, self.report).await,
            Phase::Merging(_) => self.queue.merge(self.id, self.active, self.report).await,
            Phase::WritingPaused(_) | Phase::ReviewPaused(_) => self.wait_for_agent().await,
            Phase::Paused(_) => {
                let waited = self.wait_for_agent().await;
                self.leave_out_unavailable(waited).await
            }
            Phase::Blocked(_) => self.queue.wait_for_user(self.active).await,
            phase @ (Phase::Waiting | Phase::Checking | Phase::Green(_) | Phase::Failed | Phase::Skipped) => {
                Err(FeatureError::Internal(format!("phase {phase:?} has no stage")))
            }
        }
    }

    /// Runs the tests of a feature that an earlier run made green, on the project as it is now.
    pub(crate) async fn check_resumed(&mut self, record: &GreenRecord) -> Result<StageResult, FeatureError> {
        self.active.reset_to(self.queue.tree().await, &self.ctx.store).await?;
        if self.run_tests("checking").await?.is_some() {
            self.ctx.steps.pass("forget a feature").await;
            self.ctx.journal.forget(&self.ctx.green_key(self.id))?;
            return Ok(StageResult::refused("it was green in an earlier run, and its tests fail now"));
        }
        self.queue.add_resumed(self.id).await;
        self.report.attempts = record.attempts;
        self.report.up_to_date = true;
        Ok(StageResult::Completed(PhaseEvent::Passed))
    }

    /// Writes the files that the feature starts from into its workspace.
    pub(crate) async fn prepare(&mut self) -> Result<(), FeatureError> {
        let base = self.queue.base_of(self.id).await?;
        let mut files = base.clone();
        if let Some(written) = self.ctx.written_tests(self.id) {
            written.add_to(&mut files);
        }
        self.active.reset_to(files, &self.ctx.store).await?;
        self.active.base = base;
        self.active.is_prepared = true;
        Ok(())
    }

    /// Runs the tests before any code is written. They must fail, or they prove nothing.
    pub(crate) async fn confirm_failing(&mut self) -> Result<StageResult, FeatureError> {
        if !self.active.is_prepared {
            self.prepare().await?;
        }
        match self.run_tests("red").await? {
            None => {
                let tests = self.ctx.tests_of(self.id).iter().map(|test| test.name.clone()).collect();
                Err(FeatureError::AlreadyPassing { tests })
            }
            Some((test, outcome)) if outcome.status == Status::NoTests => Err(FeatureError::NoTests { test }),
            Some((test, outcome)) => {
                if let Some(test) = self.ctx.tests_of(self.id).iter().find(|other| other.name == test) {
                    self.check_red(test, &outcome).await?;
                }
                self.active.test_output = self.ctx.shown(&outcome.output);
                self.active.red = describe_status(&test, &outcome);
                let feedback = self.feedback(&outcome.output);
                self.active.failing = feedback.failing;
                self.active.feedback = feedback.text;
                Ok(StageResult::Completed(PhaseEvent::TestsFailed))
            }
        }
    }

    /// Runs the tests on the agent's answer.
    async fn test(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        match self.judge().await? {
            Verdict::Passed => {
                if !self.was_held() {
                    self.record_attempt(AttemptOutcome::Passed, String::new(), String::new()).await?;
                }
                Ok(StageResult::Completed(PhaseEvent::Passed))
            }
            Verdict::Refused { reason, feedback } => Ok(StageResult::Refused { reason, feedback }),
            Verdict::Failed { reason, feedback, .. } => {
                tracing::debug!(feature = self.feature().id, attempt, reason, "attempt refused");
                let note = self.active.test_output.clone();
                self.record_attempt(AttemptOutcome::Failed, reason.clone(), note).await?;
                Ok(StageResult::Refused { reason, feedback })
            }
        }
    }

    /// Runs the tests on the answer in the workspace.
    async fn judge(&mut self) -> Result<Verdict, FeatureError> {
        if let Some((reason, feedback)) = self.refuse_protected().await? {
            return Ok(Verdict::Refused { reason, feedback });
        }
        self.active.workspace.restore_included().await?;
        let Some((test, outcome)) = self.run_tests("yellow").await? else {
            return Ok(self.refuse_missing_case().unwrap_or(Verdict::Passed));
        };
        self.active.test_output = self.ctx.shown(&outcome.output);
        let reason = describe_status(&test, &outcome);
        // The test may have failed because parts of files in the answer were ignored.
        let ignored = self.active.partial.iter().map(|problem| format!("\n\nNot taken: {problem}."));
        let ignored: String = ignored.collect();
        let feedback = self.describe_failure(&reason, &outcome.output).await?;
        let at = self.ctx.tests_of(self.id).iter().position(|other| other.name == test).unwrap_or_default();
        let failed = outcome.count.map(|count| count.failed);
        Ok(Verdict::Failed { reason, feedback: format!("{feedback}{ignored}"), at, failed })
    }

    async fn review(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        let ctx = self.ctx;
        if self.was_held() {
            // The review approved exactly this answer in an earlier run.
            return Ok(StageResult::Completed(PhaseEvent::Passed));
        }
        let Some(review) = &ctx.feature(self.id).review else {
            return self.review_by_agent(attempt).await;
        };
        let outcome = self.run_test(review, "review").await?;
        if outcome.status == Status::Passed || outcome.status == Status::NoTests {
            return self.review_by_agent(attempt).await;
        }
        self.check_review(review, &outcome)?;
        self.active.test_output = self.ctx.shown(&outcome.output);
        let reason = format!("review `{}` {}", review.name, outcome.status);
        let feedback = self.describe_failure(&reason, &outcome.output).await?;
        Ok(StageResult::Refused { reason, feedback })
    }

    /// Extracts what matters from the output of a failing test.
    fn feedback(&self, output: &[u8]) -> FailureText {
        failure_text(output, &[self.active.workspace.root(), self.ctx.project.dir.path()])
    }

    /// Describes a failing test, and what changed since the last refused answer.
    async fn describe_failure(&mut self, reason: &str, output: &[u8]) -> Result<String, Error> {
        let feedback = self.feedback(output);
        let mut changed = Vec::new();
        if let Some((refused, _)) = &self.active.refused {
            let changes = tree::changes(refused, self.active.workspace.tree());
            for change in changes.into_iter().take(CHANGED_FILES_MAX) {
                changed.push(file_change(&self.ctx.store, change).await?);
            }
        }
        let progress = describe_progress(&self.active.failing, &feedback.failing, &changed);
        self.active.failing.clone_from(&feedback.failing);
        let parts = [reason, progress.as_str(), feedback.text.as_str()];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Ok(parts.join("\n\n"))
    }

    /// Returns the files that the code is written for: the base, and the tests that an agent has
    /// written.
    fn base_with_tests(&self) -> Tree {
        let mut files = self.active.base.clone();
        if let Some(written) = self.ctx.written_tests(self.id) {
            written.add_to(&mut files);
        }
        files
    }

    fn feature(&self) -> &Feature {
        self.ctx.feature(self.id)
    }

    /// Returns the name of the agent that works on the feature.
    fn agent(&self) -> &String {
        let agent = self.active.agent.as_ref();
        let agent = agent.or_else(|| self.ctx.agent(self.id, self.active.phase, self.active.fallbacks));
        agent.unwrap_or(&self.ctx.feature(self.id).agent)
    }

    /// Returns whether an attempt asks for several answers.
    fn asks_several(&self) -> bool {
        self.ctx.candidates(self.id, self.active.fallbacks).len() > 1 || !self.active.candidates.is_empty()
    }

    /// Returns the configuration of that agent.
    fn agent_spec(&self) -> Option<&AgentSpec> {
        self.ctx.plan.agents.get(self.agent())
    }

    /// Returns whether another agent would take over, or the answer of another candidate can be
    /// used.
    fn has_fallback(&self) -> bool {
        self.ctx.agent(self.id, self.active.phase, self.active.fallbacks + 1).is_some()
            || self.active.candidates.iter().any(Candidate::is_answered)
    }

    /// Runs the feature's tests in its workspace, and returns the first that does not pass.
    ///
    /// Before an agent has written anything, ignored files that a test misses are copied, and the
    /// tests run again.
    async fn run_tests(&mut self, phase: &'static str) -> Result<Option<(String, Outcome)>, FeatureError> {
        // Tests that an agent has written could name any file.
        let may_copy = phase != "yellow" && self.ctx.written_tests(self.id).is_none();
        for _ in 0..NEEDED_ROUNDS_MAX {
            let failed = self.run_each_test(phase).await?;
            let Some((test, outcome)) = &failed else { return Ok(None) };
            let is_needed = self.take_needed_files(test, &outcome.output, may_copy).await?;
            if !is_needed || !may_copy {
                return Ok(failed);
            }
        }
        self.run_each_test(phase).await
    }

    async fn run_each_test(
        &mut self,
        phase: &'static str,
    ) -> Result<Option<(String, Outcome)>, FeatureError> {
        let ctx = self.ctx;
        let (mut passed, mut outputs) = (None, Vec::new());
        for (index, test) in ctx.tests_of(self.id).iter().enumerate() {
            let outcome = self.run_test(test, phase).await?;
            self.active.cases.record(phase, index, &outcome);
            if !outcome.passed() {
                return Ok(Some((test.name.clone(), outcome)));
            }
            if phase == "yellow" {
                outputs.push(ctx.shown(&outcome.output));
            }
            passed = add_counts(passed, outcome.count.map(|count| count.passed));
        }
        self.report.tests = passed;
        self.active.passing_output = outputs.join("\n");
        Ok(None)
    }

    async fn run_test(&mut self, test: &Test, phase: &'static str) -> Result<Outcome, FeatureError> {
        let root: &Path = self.active.workspace.root();
        run_test(self.ctx, self.id, self.report, test, root, phase).await
    }

    /// Stores the files of an attempt with its outcome.
    async fn record_attempt(
        &self,
        outcome: AttemptOutcome,
        reason: String,
        note: String,
    ) -> Result<(), Error> {
        let ctx = self.ctx;
        let (mut stored, mut base) = (BTreeMap::new(), BTreeMap::new());
        for change in tree::changes(&self.base_with_tests(), self.active.workspace.tree()) {
            base.extend(change.before.map(|file| (change.path.clone(), file.blob)));
            stored.extend(change.after.map(|file| (change.path, file.blob)));
        }
        ctx.steps.pass("record an attempt").await;
        let transcript = self.active.transcript.clone();
        let figures = self.active.figures;
        let attempt =
            NewAttempt { stored, base, outcome, reason, note, transcript, figures, ..NewAttempt::default() };
        let recorded = ctx.attempts.record(&self.feature().id, attempt).await;
        recorded.map_err(Error::store("write to"))?;
        ctx.flusher.flush().await
    }
}

/// Describes how a test failed, with the number of its single tests that did.
fn describe_status(test: &str, outcome: &Outcome) -> String {
    let count = outcome.count.filter(|count| count.total() > 0);
    let count = count.map(|count| format!(" ({} of {} tests)", count.failed, count.total()));
    format!("test `{test}` {}{}", outcome.status, count.unwrap_or_default())
}

/// Reads both sides of a change, as far as they are text.
async fn file_change(store: &Store, change: Change) -> Result<FileChange, Error> {
    let mut texts = [None, None];
    for (text, file) in texts.iter_mut().zip([change.before, change.after]) {
        if let Some(File { blob, .. }) = file {
            *text = String::from_utf8(tree::content(store, &blob).await?.to_vec()).ok();
        }
    }
    let [before, after] = texts;
    Ok(FileChange { path: change.path, before, after })
}
