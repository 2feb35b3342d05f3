//! Makes the first events of a run and its report.

use std::time::Duration;

use greenwave_scheduler::{ScheduleStats, TaskFailure};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::context::RunContext;
use crate::error::{FeatureError, chain};
use crate::event::Event;
use crate::feature_run::FeatureRun;
use crate::plan::ResultKind;
use crate::preflight::Problem;
use crate::report::{BranchReport, FeatureReport, Report, Totals};
use crate::resources::{self, WORKERS};

/// Returns the event that reports a problem of the plan.
pub(super) fn note_event(problem: &Problem) -> Event {
    Event::Note {
        code: problem.code,
        feature: problem.feature().map(str::to_owned),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}

/// Returns the first event of a run.
pub(super) fn started_event(ctx: &RunContext) -> Event {
    let mut agent_kinds: Vec<String> = ctx.agents.values().map(|agent| agent.kind().to_owned()).collect();
    agent_kinds.sort_unstable();
    agent_kinds.dedup();
    Event::Started {
        plan: ctx.plan.name.clone(),
        features: ctx.selected.len(),
        workers: ctx.settings.parallel.workers,
        agents: ctx.settings.parallel.agents,
        agent_kinds,
    }
}

/// Returns the report of a run.
pub(super) async fn report(
    ctx: &RunContext,
    features: &[AsyncMutex<FeatureRun>],
    started: Instant,
    stats: &ScheduleStats,
) -> Report {
    let mut reports = Vec::new();
    for id in &ctx.selected {
        reports.push(features[id.index()].lock().await.report());
    }
    let busy: Duration = reports.iter().map(|report: &FeatureReport| report.busy).sum();
    let storage = ctx.store.stats();
    let counted = ctx.totals.lock().clone();
    let totals = Totals {
        wall: started.elapsed(),
        // One after another, no test would wait for others.
        sequential: busy.saturating_sub(ctx.slots.waited()),
        efficiency: resources::efficiency(stats),
        workers_peak: stats.pool(WORKERS).map_or(0, |pool| pool.peak.min(ctx.settings.parallel.workers)),
        memory_peak_mb: greenwave_telemetry::memory_usage(false).peak_mb,
        storage_peak_bytes: storage.memory_bytes_peak,
        storage_spilled: storage.spilled_blobs,
        storage_stored_bytes: storage.cold.stored_bytes.unwrap_or(0),
        storage_raw_bytes: storage.cold.raw_bytes.unwrap_or(0),
        storage_codec: storage.cold.codec,
        ..counted
    };
    Report { plan: ctx.plan.name.clone(), features: reports, totals, branch: branch_report(ctx).await }
}

/// Returns the branch of the results for a pull request.
async fn branch_report(ctx: &RunContext) -> Option<BranchReport> {
    let branch = ctx.branch.clone().filter(|_| ctx.plan.result == ResultKind::PullRequest)?;
    let report = ctx.blocking(move || branch.report()).await;
    report.inspect_err(|error| tracing::warn!(error = chain(error), "cannot read the results")).ok()
}

/// Returns the error of a feature whose task has failed.
pub(super) fn feature_error(failure: TaskFailure<FeatureError>) -> FeatureError {
    match failure {
        TaskFailure::Task(error) => error,
        TaskFailure::Panicked(text) => FeatureError::Internal(text),
        TaskFailure::TimedOut(limit) => FeatureError::TimedOut(limit),
        TaskFailure::Unschedulable(error) => FeatureError::Run(error.into()),
    }
}
