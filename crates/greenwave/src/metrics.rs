//! Live figures of a run, for the metrics endpoint.

mod families;

use greenwave_scheduler::ScheduleStats;
use greenwave_telemetry::{CacheMetrics, MetricsSnapshot, ParallelMetrics};

use crate::context::RunContext;
use crate::resources::{self, AGENTS, WORKERS};

/// Takes a snapshot of the figures of a run.
pub(crate) fn snapshot(stats: &ScheduleStats, ctx: &RunContext) -> MetricsSnapshot {
    let cache = ctx.tests.stats();
    let used = stats.pool(WORKERS).map_or(0, |pool| pool.used);
    let workers = u64::from(used.min(ctx.settings.parallel.workers));
    let storage = ctx.store.stats();
    let (parallel, cost) = (&ctx.settings.parallel, ctx.totals.lock().usage.cost);
    let seconds = ctx.live.get().map_or(stats.wall.as_secs_f64(), |live| live.seconds());
    let spill_share = ctx.settings.storage.spillover_threshold;
    let extra = serde_json::json!({
        "run": {
            "plan": ctx.plan.name,
            // The scheduler has further tasks for workers that help to test merges.
            "features": stats.tasks - stats.added,
            "green": stats.done - stats.added_done,
            "failed": stats.failed,
            "skipped": stats.skipped,
            "requests_in_flight": stats.pool(AGENTS).map_or(0, |pool| pool.used),
            "agents": parallel.agents,
            "workers": parallel.workers,
            "cost_usd": cost.map(|cost| cost as f64 / 1e6),
            "seconds": seconds,
        },
        "storage": {
            "memory_bytes": storage.memory_bytes_used,
            "memory_bytes_max": storage.memory_bytes_max,
            "spill_bytes": (storage.memory_bytes_max as f64 * spill_share) as u64,
            "hot": storage.hot_blobs,
            "spilled": storage.spilled_blobs,
        },
    });
    MetricsSnapshot {
        cache: CacheMetrics::new(cache.hits, cache.misses),
        parallel: ParallelMetrics::new(workers, stats.ready as u64, resources::efficiency(stats)),
        memory: greenwave_telemetry::memory_usage(storage.spillover_active),
        extra: extra.as_object().cloned().unwrap_or_default(),
        families: families::families(stats, ctx, &cache, &storage),
    }
}
