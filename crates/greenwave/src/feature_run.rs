//! Runs one feature stage by stage, and moves it between phases.

mod fallback;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use greenwave_agents::Gate;
use greenwave_scheduler::{Needs, Step};
use tokio::time::Instant;

use crate::attempt_record::AttemptRecord;
use crate::context::RunContext;
use crate::continuation;
use crate::error::{Error, FeatureError, chain};
use crate::event::{AttemptDetails, Event};
use crate::green_record::GreenRecord;
use crate::merge::{MergeQueue, Standing};
use crate::phase::{FeaturePolicy, Phase, PhaseEvent};
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::resources;
use crate::resume::Resumed;
use crate::stage::{Stage, held_answer, holds};
use crate::state::{ActiveFeature, FeatureState, StageResult, Wait};
use crate::workspace::Workspace;

/// A feature of the plan during a run.
#[derive(Debug)]
pub(crate) struct FeatureRun {
    ctx: Arc<RunContext>,
    queue: Arc<MergeQueue>,
    id: FeatureId,
    state: FeatureState,
    report: FeatureReport,
    /// The attempt of an earlier run at which the feature continues, until it does.
    continues: Option<AttemptRecord>,
    /// Number of attempts before the current round.
    before_round: u32,
    /// Whether the feature counts as working, see [`RunContext::working`].
    is_working: bool,
}

impl FeatureRun {
    pub(crate) fn new(ctx: Arc<RunContext>, queue: Arc<MergeQueue>, id: FeatureId, resumed: Resumed) -> Self {
        let Resumed { state, report, attempt } = resumed;
        Self { ctx, queue, id, state, report, continues: attempt, before_round: 0, is_working: false }
    }

    /// Returns the resources that the first stage of a feature holds.
    pub(crate) fn first_needs(&self) -> Needs {
        let ctx = &self.ctx;
        let is_new = matches!(self.state, FeatureState::Waiting { record: None });
        let apart = if is_new { resources::copy_needs(&ctx.plan) } else { None };
        let with_tests =
            || resources::needs(&ctx.plan, ctx.feature(self.id), Phase::Red, 1, ctx.is_crowded());
        apart.unwrap_or_else(with_tests)
    }

    /// Runs the next stage, and returns the scheduler's next step for the feature.
    pub(crate) async fn run_stage(&mut self) -> Step<(), FeatureError> {
        let ctx = Arc::clone(&self.ctx);
        ctx.steering.resumed(self.id).await;
        let started = Instant::now();
        let waits = self.state.phase().is_wait();
        self.ctx.steps.pass("begin a stage").await;
        // The other features of a batch wait for its merge.
        let is_merge = matches!(self.state.phase(), Phase::Queued(_) | Phase::Merging(_));
        let stopped = ctx.steering.stopped(self.id);
        // Agents and test runners are foreign code. A panic there fails this feature like any other
        // error: its workspace is removed and its failure is reported.
        let performed = tokio::select! {
            biased;
            () = stopped, if !is_merge => Ok(Err(FeatureError::Stopped)),
            performed = AssertUnwindSafe(self.perform()).catch_unwind() => performed,
        };
        let result = performed.unwrap_or_else(|panic| Err(FeatureError::of_panic(&*panic)));
        let result = self.adopt_if_passing(result).await;
        self.ctx.steps.pass("end a stage").await;
        self.ctx.note_restored_state().await;
        if !waits {
            self.report.busy += started.elapsed();
        }
        match result {
            Ok(StageResult::Completed(event)) => self.complete(event).await,
            Ok(StageResult::Refused { reason, feedback }) => self.refuse(reason, feedback).await,
            Err(error) => match self.fall_back(&error).await {
                Some(phase) => Step::Next(self.needs(phase)),
                None => self.end_with(error).await,
            },
        }
    }

    /// Ends a feature that cannot start because `ancestor` failed.
    pub(crate) fn skip(&mut self, ancestor: FeatureId) {
        let phase = self.state.phase().after(PhaseEvent::AncestorFailed, self.policy());
        self.report.reason = Some(format!("depends on `{}`, which failed", self.ctx.feature(ancestor).id));
        if phase.is_final() {
            drop(self.state.end(phase));
        }
        self.queue.set_standing(self.id, self.standing());
    }

    /// Leaves a feature for the next run because `ancestor` waits for the approval of the user.
    pub(crate) fn wait_for_held(&mut self, ancestor: FeatureId) {
        let ancestor = &self.ctx.feature(ancestor).id;
        self.report.reason = Some(format!("depends on `{ancestor}`, which waits for your approval"));
    }

    /// Returns whether the feature has ended because it waits for the approval of the user.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.state, FeatureState::Ended(Phase::Held(_)))
    }

    /// Ends a feature whose stage did not survive, unless its failure is reported already.
    pub(crate) async fn fail_if_running(&mut self, error: &FeatureError) {
        if self.state.phase() != Phase::Failed && !self.is_held() {
            let details = self.details();
            drop(self.state.end(Phase::Failed));
            self.set_working(false);
            self.report_failure(error, details).await;
        }
    }

    /// Returns whether this run made the feature green.
    pub(crate) fn became_green(&self) -> bool {
        !self.report.up_to_date && matches!(self.state.phase(), Phase::Green(_))
    }

    /// Returns the feature's report.
    pub(crate) fn report(&self) -> FeatureReport {
        let feature = self.ctx.feature(self.id).id.clone();
        FeatureReport { feature, phase: self.state.phase().label(), ..self.report.clone() }
    }

    /// Returns the feature's policy in the current round of attempts.
    fn policy(&self) -> FeaturePolicy {
        let feature = self.ctx.feature(self.id);
        let attempts_max = self.before_round.saturating_add(feature.attempts_max);
        FeaturePolicy {
            attempts_max,
            writes_tests: self.ctx.lacks_tests(self.id),
            review: feature.review.is_some() || feature.reviewer.is_some(),
            hold: holds(&self.ctx, self.id),
        }
    }

    async fn perform(&mut self) -> Result<StageResult, FeatureError> {
        self.ctx.state_home.check()?;
        if let Some(directory) = self.ctx.disk_full.directory() {
            let phase = self.state.phase();
            if matches!(phase, Phase::Waiting | Phase::Prompting(_) | Phase::Writing(_)) || phase.is_paused()
            {
                return Err(FeatureError::DiskFull { directory });
            }
        }
        if let FeatureState::Waiting { record } = &mut self.state {
            let record = record.take();
            return self.start(record).await;
        }
        self.stage()?.perform().await
    }

    async fn start(&mut self, record: Option<GreenRecord>) -> Result<StageResult, FeatureError> {
        let name = &self.ctx.feature(self.id).id;
        let workspace = Workspace::in_copies(&self.ctx.copies, name, &self.ctx.project.in_flight)?;
        workspace.add_hashes(&*self.ctx.tests);
        self.state = FeatureState::Active(Box::new(ActiveFeature::new(Phase::Waiting, workspace)));
        match record {
            Some(record) => {
                self.enter(PhaseEvent::Resumed).await;
                self.stage()?.check_resumed(&record).await
            }
            None if self.ctx.lacks_tests(self.id) && self.ctx.scope.red_only => {
                let agent = self.ctx.agent(self.id, Phase::Writing(1), 0).cloned().unwrap_or_default();
                Err(FeatureError::TestsNotWritten { agent })
            }
            None if resources::copy_needs(&self.ctx.plan).is_some() || self.ctx.lacks_tests(self.id) => {
                self.set_working(true);
                self.stage()?.prepare().await?;
                Ok(StageResult::Completed(PhaseEvent::Started))
            }
            None => {
                self.enter(PhaseEvent::Started).await;
                self.stage()?.confirm_failing().await
            }
        }
    }

    fn stage(&mut self) -> Result<Stage<'_>, FeatureError> {
        let Self { ctx, queue, id, state, report, .. } = self;
        match state {
            FeatureState::Active(active) => Ok(Stage { ctx, queue, id: *id, active, report }),
            FeatureState::Waiting { .. } | FeatureState::Ended(_) => {
                let phase = state.phase();
                Err(FeatureError::Internal(format!("a stage was started in phase {phase:?}")))
            }
        }
    }

    async fn complete(&mut self, event: PhaseEvent) -> Step<(), FeatureError> {
        if event == PhaseEvent::TestsFailed && self.ctx.scope.red_only {
            if let Some(active) = self.state.end(Phase::Red) {
                active.remove().await;
            }
            self.set_working(false);
            return Step::Done(());
        }
        if event == PhaseEvent::TestsFailed
            && let Some(record) = self.continues.take()
        {
            return match self.continue_attempts(record).await {
                Ok(phase) => Step::Next(self.needs(phase)),
                Err(error) => self.end_with(error.into()).await,
            };
        }
        let before = self.state.phase();
        if let (Phase::Confirming(attempt), PhaseEvent::TestsFailed) = (before, event) {
            self.begin_code(attempt);
        }
        let phase = self.enter(event).await;
        if matches!(phase, Phase::Writing(_))
            && let Some(record) = self.continues.take()
        {
            return match self.continue_attempts(record).await {
                Ok(phase) => Step::Next(self.needs(phase)),
                Err(error) => self.end_with(error.into()).await,
            };
        }
        let recorded = match phase {
            Phase::Testing(attempt) | Phase::Confirming(attempt) => self.record_attempt(attempt, true).await,
            Phase::Prompting(attempt) if matches!(before, Phase::Confirming(_)) => {
                self.record_attempt(attempt, false).await
            }
            // The next run asks no reviewer again who has approved it.
            _ if matches!(before, Phase::Testing(_) | Phase::Reviewing(_)) && self.has_settled() => {
                self.record_attempt(phase.attempt(), true).await
            }
            Phase::Green(_) => self.forget_attempts().await,
            _ => Ok(()),
        };
        match (phase, recorded) {
            (Phase::Green(_), _) => Step::Done(()),
            (phase, Ok(())) => Step::Next(self.needs(phase)),
            (_, Err(error)) => self.end_with(error.into()).await,
        }
    }

    /// Leaves the feature, whose tests were written in an attempt, to the agents that write the
    /// code. They have all attempts of a round.
    fn begin_code(&mut self, attempt: u32) {
        self.before_round = attempt;
        self.report.agent = None;
        if let FeatureState::Active(active) = &mut self.state {
            active.begin_code(attempt);
        }
    }

    /// Continues at the attempt of an earlier run.
    async fn continue_attempts(&mut self, mut record: AttemptRecord) -> Result<Phase, Error> {
        let attempts_max = self.ctx.feature(self.id).attempts_max;
        let new_round = !record.answered && record.begin_round(attempts_max);
        self.before_round = record.before_round;
        if !new_round {
            self.continue_with(record.agent.as_deref());
        }
        let answered = match &mut self.state {
            FeatureState::Active(active) => {
                continuation::restore(&self.ctx, self.id, active, &record).await?
            }
            FeatureState::Waiting { .. } | FeatureState::Ended(_) => false,
        };
        let (feature, attempt) = (self.ctx.feature(self.id).id.clone(), record.attempt);
        self.ctx.emit(Event::Continued { feature, attempt, answered, new_round }).await;
        let phase = self.enter(PhaseEvent::Continued(attempt)).await;
        Ok(if answered { self.enter(PhaseEvent::Answered).await } else { phase })
    }

    /// Returns whether the current answer was chosen among several or approved by a reviewer, which
    /// the next run need not repeat.
    fn has_settled(&self) -> bool {
        matches!(&self.state, FeatureState::Active(active) if active.chosen.is_some() || active.is_reviewed)
    }

    /// Records for the next run that the feature continues at an attempt.
    async fn record_attempt(&self, attempt: u32, answered: bool) -> Result<(), Error> {
        let FeatureState::Active(active) = &self.state else { return Ok(()) };
        let record = AttemptRecord::new(self.ctx.definition(self.id), attempt, self.before_round);
        let record = AttemptRecord { agent: self.report.agent.clone(), ..record };
        continuation::record(&self.ctx, self.id, active, AttemptRecord { answered, ..record }).await
    }

    /// Removes the record of the attempts of a green feature. It is of no use to later runs, so a
    /// failure is only logged.
    async fn forget_attempts(&self) -> Result<(), Error> {
        let feature = &self.ctx.feature(self.id).id;
        self.ctx.steps.pass("forget the attempts").await;
        if let Err(error) = self.ctx.journal.forget(&self.ctx.attempt_key(self.id)) {
            tracing::warn!(feature, error = chain(&error), "cannot remove the record of attempts");
        }
        if holds(&self.ctx, self.id) {
            self.ctx.approvals.forget(feature, self.ctx.definition(self.id));
        }
        Ok(())
    }

    /// Takes a feature whose tests pass before any code is written as green, if the user demands it
    /// or a receipt shows that an agent wrote the code.
    async fn adopt_if_passing(
        &mut self,
        result: Result<StageResult, FeatureError>,
    ) -> Result<StageResult, FeatureError> {
        let is_passing = matches!(result, Err(FeatureError::AlreadyPassing { .. }));
        let (definition, project) = (self.ctx.definition(self.id), self.ctx.project.dir.path());
        let is_adopted = || self.ctx.feature(self.id).adopt || self.ctx.receipts.matches(definition, project);
        if !is_passing || !is_adopted() {
            return result;
        }
        self.queue.adopt(self.id).await?;
        let feature = self.ctx.feature(self.id).id.clone();
        self.ctx.emit(Event::Adopted { feature }).await;
        Ok(StageResult::Completed(PhaseEvent::Adopted))
    }

    /// Returns a directory of the feature whose file system is full. Tests fail there with any
    /// answer.
    fn full_directory(&self) -> Option<PathBuf> {
        let FeatureState::Active(active) = &self.state else { return None };
        self.ctx.disk_full.look(&[active.workspace.root(), &std::env::temp_dir()])
    }

    async fn refuse(&mut self, reason: String, feedback: String) -> Step<(), FeatureError> {
        if let Some(directory) = self.full_directory() {
            return self.end_with(FeatureError::DiskFull { directory }).await;
        }
        let attempt = self.state.phase().attempt();
        let is_rejected = matches!(self.state.phase(), Phase::Held(_));
        if is_rejected {
            // The user demands another attempt, even if this was the last one.
            self.before_round = attempt;
        }
        if attempt > 0 {
            let feature = self.ctx.feature(self.id).id.clone();
            // A merge that fails has its output in the feedback only.
            if let FeatureState::Active(active) = &mut self.state
                && active.test_output.is_empty()
                && !is_rejected
                && feedback != reason
            {
                active.test_output = self.ctx.shown(feedback.as_bytes());
            }
            let (reason, details) = (self.ctx.shown(reason.as_bytes()), self.details());
            self.ctx.emit(Event::Refused { feature, attempt, reason, details }).await;
        }
        let mut is_repeated = false;
        if let FeatureState::Active(active) = &mut self.state {
            active.feedback = feedback;
            is_repeated = active.refuse_answer(&reason);
        }
        let is_last = self.state.phase().after(PhaseEvent::Refused, self.policy()) == Phase::Failed;
        if (is_last || is_repeated) && self.take_over(&reason).await {
            // The next agent has all attempts of a round.
            (self.before_round, is_repeated) = (attempt, false);
        }
        if attempt > 0
            && let Err(error) = self.record_attempt(attempt + 1, false).await
        {
            return self.end_with(error.into()).await;
        }
        if is_rejected {
            self.ctx.approvals.forget(&self.ctx.feature(self.id).id, self.ctx.definition(self.id));
        }
        let phase = self.state.phase().after(PhaseEvent::Refused, self.policy());
        if phase == Phase::Failed {
            return self.end_with(FeatureError::AttemptsExhausted { attempts: attempt, reason }).await;
        }
        if is_repeated {
            return self.end_with(FeatureError::Repeated { attempts: attempt, reason }).await;
        }
        self.enter(PhaseEvent::Refused).await;
        Step::Next(self.needs(phase))
    }

    /// Ends the feature with an error. A full disk is reported as such.
    async fn end_with(&mut self, error: FeatureError) -> Step<(), FeatureError> {
        let directory = match &error {
            FeatureError::Run(Error::Io { path, .. }) => path.parent().unwrap_or(path),
            _ => self.ctx.project.dir.path(),
        };
        self.ctx.disk_full.observe(&error, directory);
        match error {
            FeatureError::Held { .. } => self.leave_held(&error).await,
            _ => self.fail(&error).await,
        }
        Step::Failed(error)
    }

    /// Moves to the phase that follows `event`, reports it, and removes the workspace of a feature
    /// that ends. Its results are in the store by then.
    async fn enter(&mut self, event: PhaseEvent) -> Phase {
        let before = self.state.phase();
        let policy = self.policy();
        let phase = before.after(event, policy);
        self.report.attempts = self.report.attempts.max(phase.attempt());
        let ended = match &mut self.state {
            FeatureState::Active(active) if !phase.is_final() => {
                active.phase = phase;
                active.attempts_max = policy.attempts_max;
                if matches!(phase, Phase::Testing(_) | Phase::Confirming(_)) {
                    active.answer = Some(active.workspace.tree().clone());
                }
                None
            }
            state => state.end(phase),
        };
        self.set_working(!phase.is_final() && !matches!(phase, Phase::Held(_) | Phase::Blocked(_)));
        self.store_held(phase);
        if (before.label(), before.attempt()) != (phase.label(), phase.attempt()) {
            let feature = self.ctx.feature(self.id).id.clone();
            let event = match self.waiting_event(phase) {
                Some(waiting) => waiting,
                None => Event::Phase { feature, phase: phase.label(), attempt: phase.attempt() },
            };
            self.ctx.emit(event).await;
            if let Some(needs_you) = self.overlap(phase) {
                self.ctx.emit(needs_you).await;
            }
        }
        if let Some(active) = ended {
            active.remove().await;
        }
        phase
    }

    /// Stores an answer that waits for approval before anybody sees that it does: a decision is
    /// about the stored answer. Waiting stores it again, and reports a failure.
    fn store_held(&self, phase: Phase) {
        let (Phase::Held(attempt), FeatureState::Active(active)) = (phase, &self.state) else { return };
        let held = held_answer(&self.ctx, self.id, active, attempt);
        if let Err(error) = self.ctx.approvals.hold(&self.ctx.feature(self.id).id, &held) {
            tracing::debug!(error = chain(&error), "cannot store an answer that waits for approval");
        }
    }

    /// Returns the event for a phase in which the feature waits.
    fn waiting_event(&self, phase: Phase) -> Option<Event> {
        let FeatureState::Active(active) = &self.state else { return None };
        let feature = self.ctx.feature(self.id);
        let agent = active.agent.as_ref().or_else(|| self.ctx.agent(self.id, phase, active.fallbacks));
        let agent = agent.unwrap_or(&feature.agent);
        let remaining = self.ctx.gates.get(agent).map(Gate::remaining);
        let (reason, seconds) = match (phase, &active.waits_for) {
            (phase, Some(Wait::Agent { message, .. })) if phase.is_paused() => {
                (format!("agent `{agent}` is unavailable: {message}"), remaining)
            }
            (phase, _) if phase.is_paused() => (format!("agent `{agent}` is unavailable"), remaining),
            (Phase::Blocked(_), Some(Wait::User { path, .. })) => {
                (format!("your change of `{path}` overlaps with this feature"), None)
            }
            _ => return None,
        };
        let seconds = seconds.map(|delay| (delay.as_secs_f64() * 10.0).ceil() / 10.0);
        Some(Event::Waiting { feature: feature.id.clone(), attempt: phase.attempt(), reason, seconds })
    }

    /// Returns the event for a change of the user that the feature waits for.
    fn overlap(&self, phase: Phase) -> Option<Event> {
        let FeatureState::Active(active) = &self.state else { return None };
        let (Phase::Blocked(attempt), Some(Wait::User { path, is_new, .. })) = (phase, &active.waits_for)
        else {
            return None;
        };
        let (reason, action) = if *is_new {
            (
                format!("`{path}` exists in the project, and this feature creates it"),
                format!("move `{path}` away"),
            )
        } else {
            let reason = format!("your change of `{path}` overlaps with this feature");
            (reason, format!("move or undo your change of `{path}`"))
        };
        let feature = self.ctx.feature(self.id).id.clone();
        Some(Event::NeedsYou { feature, attempt, kind: "edit", reason, action })
    }

    fn set_working(&mut self, is_working: bool) {
        // Relaxed: the number is polled, and no other data depends on it.
        match (self.is_working, is_working) {
            (false, true) => drop(self.ctx.working.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.ctx.working.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.is_working = is_working;
        self.queue.set_standing(self.id, self.standing());
    }

    /// Returns the state of the feature, as far as merges depend on it.
    fn standing(&self) -> Standing {
        match self.state.phase() {
            Phase::Waiting if matches!(self.state, FeatureState::Waiting { .. }) => Standing::Unstarted,
            Phase::Green(_) => Standing::Green,
            Phase::Failed | Phase::Skipped => Standing::Failed,
            Phase::Red | Phase::Held(_) if matches!(self.state, FeatureState::Ended(_)) => Standing::Failed,
            phase if phase.is_paused() => Standing::Paused,
            Phase::Held(_) | Phase::Blocked(_) => Standing::Blocked,
            _ => Standing::Working,
        }
    }

    /// Ends a feature that a batch has merged and that was stopped before it could say so.
    pub(crate) async fn settle(&mut self) {
        if matches!(self.state, FeatureState::Active(_)) && self.queue.take_merged(self.id) {
            self.enter(PhaseEvent::Passed).await;
            if let Err(error) = self.forget_attempts().await {
                tracing::warn!(error = chain(&error), "cannot remove the record of attempts");
            }
        }
    }

    async fn fail(&mut self, error: &FeatureError) {
        let details = self.details();
        let active = self.state.end(Phase::Failed);
        self.set_working(false);
        if self.ctx.scope.fail_fast {
            self.queue.stop_waiting();
        }
        self.report_failure(error, details).await;
        if let Some(active) = active {
            active.remove().await;
        }
    }

    /// Ends a feature in this run that waits for the approval of the user.
    async fn leave_held(&mut self, error: &FeatureError) {
        let active = self.state.end(self.state.phase());
        self.queue.set_standing(self.id, self.standing());
        self.report.reason = Some(error.to_string());
        self.report.hint = error.hint().map(str::to_owned);
        if let Some(active) = active {
            active.remove().await;
        }
    }

    /// Returns the messages of the last attempt.
    fn details(&self) -> AttemptDetails {
        match &self.state {
            FeatureState::Active(active) => active.details(),
            FeatureState::Waiting { .. } | FeatureState::Ended(_) => AttemptDetails::default(),
        }
    }

    async fn report_failure(&mut self, error: &FeatureError, details: AttemptDetails) {
        let reason = self.ctx.shown(chain(error).as_bytes());
        self.report.reason = Some(reason.clone());
        self.report.hint = error.hint().map(str::to_owned);
        if let (Some(kind), Some(action)) = (error.needs_you(), error.hint()) {
            let (feature, attempt) = (self.ctx.feature(self.id).id.clone(), self.report.attempts.max(1));
            let (reason, action) = (reason.clone(), action.to_owned());
            self.ctx.emit(Event::NeedsYou { feature, attempt, kind, reason, action }).await;
        }
        self.ctx.emit(Event::Failed { feature: self.ctx.feature(self.id).id.clone(), reason, details }).await;
    }

    fn needs(&self, phase: Phase) -> Needs {
        let fallbacks = match &self.state {
            FeatureState::Active(active) => active.fallbacks,
            FeatureState::Waiting { .. } | FeatureState::Ended(_) => 0,
        };
        let agents = self.ctx.candidates(self.id, fallbacks).len();
        let requests = resources::requests_max(&self.ctx.settings, agents);
        let (feature, is_crowded) = (self.ctx.feature(self.id), self.ctx.is_crowded());
        resources::needs(&self.ctx.plan, feature, phase, requests, is_crowded)
    }
}
