//! Runs one feature stage by stage, and moves it between phases.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use greenwave_scheduler::{Needs, Step};
use tokio::time::Instant;

use crate::context::RunContext;
use crate::error::{FeatureError, chain};
use crate::event::{AttemptDetails, Event};
use crate::green_record::GreenRecord;
use crate::merge::MergeQueue;
use crate::phase::{Phase, PhaseEvent};
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::resources;
use crate::stage::Stage;
use crate::state::{ActiveFeature, FeatureState, StageResult};
use crate::workspace::Workspace;

/// A feature of the plan during a run.
#[derive(Debug)]
pub(crate) struct FeatureRun {
    ctx: Arc<RunContext>,
    queue: Arc<MergeQueue>,
    id: FeatureId,
    state: FeatureState,
    report: FeatureReport,
}

impl FeatureRun {
    pub(crate) fn new(
        ctx: Arc<RunContext>,
        queue: Arc<MergeQueue>,
        id: FeatureId,
        state: FeatureState,
        report: FeatureReport,
    ) -> Self {
        Self { ctx, queue, id, state, report }
    }

    /// Returns the resources that the first stage of a feature holds.
    pub(crate) fn first_needs(ctx: &RunContext, id: FeatureId) -> Needs {
        resources::needs(ctx.feature(id), Phase::Red)
    }

    /// Runs the next stage, and returns the scheduler's next step for the feature.
    pub(crate) async fn run_stage(&mut self) -> Step<(), FeatureError> {
        let started = Instant::now();
        self.ctx.steps.pass("begin a stage").await;
        // Agents and test runners are foreign code. A panic there fails this feature like any other
        // error: its workspace is removed and its failure is reported.
        let performed = AssertUnwindSafe(self.perform()).catch_unwind().await;
        let result = performed.unwrap_or_else(|panic| Err(FeatureError::Internal(panic_text(&*panic))));
        self.ctx.steps.pass("end a stage").await;
        self.report.busy += started.elapsed();
        match result {
            Ok(StageResult::Completed(event)) => self.complete(event).await,
            Ok(StageResult::Refused { reason, feedback }) => self.refuse(reason, feedback).await,
            Err(error) => {
                self.fail(&error).await;
                Step::Failed(error)
            }
        }
    }

    /// Ends a feature that cannot start because `ancestor` failed.
    pub(crate) fn skip(&mut self, ancestor: FeatureId) {
        let phase = self.state.phase().after(PhaseEvent::AncestorFailed, self.ctx.policy(self.id));
        self.report.reason = Some(format!("depends on `{}`, which failed", self.ctx.feature(ancestor).id));
        if phase.is_final() {
            self.state.end(phase);
        }
    }

    /// Ends a feature whose stage did not survive, unless its failure is reported already.
    pub(crate) async fn fail_if_running(&mut self, error: &FeatureError) {
        if self.state.phase() != Phase::Failed {
            let details = self.details();
            self.state.end(Phase::Failed);
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

    async fn perform(&mut self) -> Result<StageResult, FeatureError> {
        if let FeatureState::Waiting { record } = &mut self.state {
            let record = record.take();
            return self.start(record).await;
        }
        self.stage()?.perform().await
    }

    async fn start(&mut self, record: Option<GreenRecord>) -> Result<StageResult, FeatureError> {
        let name = &self.ctx.feature(self.id).id;
        let workspace = Workspace::in_copies(&self.ctx.copies, name, &self.ctx.project.in_flight)?;
        self.state = FeatureState::Active(Box::new(ActiveFeature::new(Phase::Waiting, workspace)));
        match record {
            Some(record) => {
                self.enter(PhaseEvent::Resumed).await;
                self.stage()?.check_resumed(&record).await
            }
            None => {
                self.enter(PhaseEvent::Started).await;
                self.stage()?.confirm_failing().await
            }
        }
    }

    fn stage(&mut self) -> Result<Stage<'_>, FeatureError> {
        let Self { ctx, queue, id, state, report } = self;
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
            if let Some(workspace) = self.state.end(Phase::Red) {
                workspace.remove();
            }
            return Step::Done(());
        }
        match self.enter(event).await {
            Phase::Green(_) => Step::Done(()),
            phase => Step::Next(self.needs(phase)),
        }
    }

    async fn refuse(&mut self, reason: String, feedback: String) -> Step<(), FeatureError> {
        let attempt = self.state.phase().attempt();
        if attempt > 0 {
            let feature = self.ctx.feature(self.id).id.clone();
            // A merge that fails has its output in the feedback only.
            if let FeatureState::Active(active) = &mut self.state
                && active.test_output.is_empty()
                && feedback != reason
            {
                active.test_output = self.ctx.shown(feedback.as_bytes());
            }
            let (reason, details) = (self.ctx.shown(reason.as_bytes()), self.details());
            self.ctx.emit(Event::Refused { feature, attempt, reason, details }).await;
        }
        if let FeatureState::Active(active) = &mut self.state {
            active.feedback = feedback;
        }
        let phase = self.state.phase().after(PhaseEvent::Refused, self.ctx.policy(self.id));
        if phase == Phase::Failed {
            let error = FeatureError::AttemptsExhausted { attempts: attempt, reason };
            self.fail(&error).await;
            return Step::Failed(error);
        }
        self.enter(PhaseEvent::Refused).await;
        Step::Next(self.needs(phase))
    }

    /// Moves to the phase that follows `event`, reports it, and removes the workspace of a feature
    /// that ends. Its results are in the store by then.
    async fn enter(&mut self, event: PhaseEvent) -> Phase {
        let before = self.state.phase();
        let phase = before.after(event, self.ctx.policy(self.id));
        self.report.attempts = self.report.attempts.max(phase.attempt());
        let workspace = match &mut self.state {
            FeatureState::Active(active) if !phase.is_final() => {
                active.phase = phase;
                None
            }
            state => state.end(phase),
        };
        if (before.label(), before.attempt()) != (phase.label(), phase.attempt()) {
            let feature = self.ctx.feature(self.id).id.clone();
            self.ctx.emit(Event::Phase { feature, phase: phase.label(), attempt: phase.attempt() }).await;
        }
        if let Some(workspace) = workspace {
            workspace.tear_down().await;
            workspace.remove();
        }
        phase
    }

    async fn fail(&mut self, error: &FeatureError) {
        let details = self.details();
        let workspace = self.state.end(Phase::Failed);
        self.report_failure(error, details).await;
        if let Some(workspace) = workspace {
            workspace.tear_down().await;
            workspace.remove();
        }
    }

    /// Returns what was said in the last attempt.
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
        self.ctx.emit(Event::Failed { feature: self.ctx.feature(self.id).id.clone(), reason, details }).await;
    }

    fn needs(&self, phase: Phase) -> Needs {
        resources::needs(self.ctx.feature(self.id), phase)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("no message"))
}
