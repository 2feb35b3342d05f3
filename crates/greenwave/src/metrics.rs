//! Live figures of a run, for the metrics endpoint.

mod families;

use greenwave_scheduler::ScheduleStats;
use greenwave_telemetry::{CacheMetrics, MetricsSnapshot, ParallelMetrics};

use crate::context::RunContext;
use crate::resources::{AGENTS, WORKERS};

/// Takes a snapshot of the figures of a run.
pub(crate) fn snapshot(stats: &ScheduleStats, ctx: &RunContext) -> MetricsSnapshot {
    let cache = ctx.tests.stats();
    let workers = stats.pool(WORKERS).map_or(0, |pool| u64::from(pool.used));
    let storage = ctx.store.stats();
    let extra = serde_json::json!({
        "run": {
            "plan": ctx.plan.name,
            "features": stats.tasks,
            "green": stats.done,
            "failed": stats.failed,
            "skipped": stats.skipped,
            "requests_in_flight": stats.pool(AGENTS).map_or(0, |pool| pool.used),
        },
        "storage": {
            "memory_bytes": storage.memory_bytes_used,
            "memory_bytes_max": storage.memory_bytes_max,
            "hot": storage.hot_blobs,
            "spilled": storage.spilled_blobs,
        },
    });
    MetricsSnapshot {
        cache: CacheMetrics::new(cache.hits, cache.misses),
        parallel: ParallelMetrics::new(workers, stats.ready as u64, stats.efficiency(WORKERS)),
        memory: greenwave_telemetry::memory_usage(storage.spillover_active),
        extra: extra.as_object().cloned().unwrap_or_default(),
        families: families::families(stats, ctx, &cache, &storage),
    }
}
