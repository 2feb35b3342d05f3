//! Gives a dashboard what it shows of a run.

use std::sync::Arc;

use greenwave_telemetry::Dashboard;
use serde_json::{Value, json};

use crate::attempt_details::attempt_details;
use crate::attempt_log::AttemptLog;
use crate::context::RunContext;
use crate::error::{Error, chain};
use crate::live_feed::LiveFeed;
use crate::run_record::{RUNS, RunRecord};

/// Returns a dashboard of a run.
pub(super) fn dashboard(ctx: &Arc<RunContext>) -> Dashboard {
    let feed = live(ctx).feed();
    let ctx = Arc::clone(ctx);
    Dashboard::new(feed).with_details(move |feature| {
        let ctx = Arc::clone(&ctx);
        async move {
            ctx.plan.features.iter().find(|it| it.id == feature)?;
            attempt_details(&AttemptLog::of(ctx.attempts.clone()), &feature).await
        }
    })
}

/// Records the events of a run in the state of its project. A run that cannot be recorded runs
/// without a record.
pub(super) fn record(ctx: &RunContext) {
    let directory = ctx.state_home.part(RUNS);
    let created = directory.and_then(|part| {
        let directory = part.into_directory();
        RunRecord::create(&directory).map_err(Error::io("create a record in", directory.path()))
    });
    match created {
        Ok(record) => live(ctx).record_to(record),
        Err(error) => tracing::warn!(error = chain(&error), "cannot record the run"),
    }
}

/// Collects the newest lines of the agents of a run.
pub(super) fn watch(ctx: &RunContext) {
    live(ctx);
}

fn live(ctx: &RunContext) -> &Arc<LiveFeed> {
    ctx.live.get_or_init(|| {
        let features = ctx.selected.iter().map(|id| {
            let feature = ctx.feature(*id);
            let after = ctx.dependencies.direct(*id).iter().map(|id| &ctx.feature(*id).id);
            json!({"id": feature.id, "title": feature.title, "after": after.collect::<Vec<_>>()})
        });
        let features: Vec<Value> = features.collect();
        Arc::new(LiveFeed::start(&ctx.plan.name, &features, ctx.mask.clone()))
    })
}
