//! Gives a dashboard what it shows of a run.

use std::sync::Arc;

use greenwave_telemetry::Dashboard;
use serde_json::{Value, json};

use crate::attempt_log::{AttemptLog, StoredAttempt};
use crate::context::RunContext;
use crate::error::chain;
use crate::live_feed::LiveFeed;

/// Maximum number of attempts of a feature that are shown, the newest ones.
const ATTEMPTS_MAX: usize = 20;
/// Maximum size of each text of an attempt, in bytes. `greenwave attempts` shows all of it.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Returns a dashboard of a run.
pub(super) fn dashboard(ctx: &Arc<RunContext>) -> Dashboard {
    let live = ctx.live.get_or_init(|| {
        let features = ctx.selected.iter().map(|id| {
            let feature = ctx.feature(*id);
            let after = ctx.dependencies.direct(*id).iter().map(|id| &ctx.feature(*id).id);
            json!({"id": feature.id, "title": feature.title, "after": after.collect::<Vec<_>>()})
        });
        let features: Vec<Value> = features.collect();
        Arc::new(LiveFeed::start(&ctx.plan.name, &features, ctx.mask.clone()))
    });
    let ctx = Arc::clone(ctx);
    Dashboard::new(live.feed()).with_details(move |feature| {
        let ctx = Arc::clone(&ctx);
        async move { attempts(&ctx, &feature).await }
    })
}

/// Returns the attempts at a feature as JSON. `None` if the run has no such feature, or if they
/// cannot be read.
async fn attempts(ctx: &RunContext, feature: &str) -> Option<String> {
    ctx.plan.features.iter().find(|it| it.id == feature)?;
    let found = AttemptLog::of(ctx.attempts.clone()).newest(feature, ATTEMPTS_MAX).await;
    let mut attempts = found
        .inspect_err(|error| tracing::warn!(error = chain(error), "cannot read attempts for the dashboard"))
        .ok()?;
    attempts.iter_mut().for_each(shorten);
    serde_json::to_string(&attempts).ok()
}

fn shorten(attempt: &mut StoredAttempt) {
    let StoredAttempt { test_output, words, stderr, diff, .. } = attempt;
    for text in [test_output, words, stderr, diff] {
        if text.len() > TEXT_BYTES_MAX {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            let left_out = text.len() - end;
            text.truncate(end);
            text.push_str(&format!("\n[… {left_out} bytes left out …]"));
        }
    }
}
