//! Metrics of a run for Prometheus: what each crate counts.

use std::sync::atomic::{AtomicU64, Ordering};

use greenwave_cache::{TierStats, TieredStats};
use greenwave_pooling::PoolStats;
use greenwave_scheduler::{ResourceStats, ScheduleStats};
use greenwave_storage::StoreStats;
use greenwave_telemetry::MetricFamily;

use crate::context::RunContext;
use crate::resources::OWN_PREFIX;
use crate::run_metrics::{PHASES, RunMetrics};

/// Returns the metrics that a snapshot does not have already.
pub(super) fn families(
    stats: &ScheduleStats,
    ctx: &RunContext,
    cache: &TieredStats,
    storage: &StoreStats,
) -> Vec<MetricFamily> {
    let mut families = run(ctx);
    families.extend(histograms(&ctx.metrics));
    families.extend(scheduler(stats));
    families.extend(resources(stats));
    families.extend(results(cache));
    families.extend(store(storage));
    families.extend(agents(ctx));
    families
}

fn counter(name: &'static str, help: &'static str, value: u64) -> MetricFamily {
    MetricFamily::counter(name, help).sample(&[], value as f64)
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> MetricFamily {
    MetricFamily::gauge(name, help).sample(&[], value as f64)
}

fn seconds(name: &'static str, help: &'static str, value: std::time::Duration) -> MetricFamily {
    MetricFamily::counter(name, help).sample(&[], value.as_secs_f64())
}

fn run(ctx: &RunContext) -> Vec<MetricFamily> {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let (metrics, totals) = (&ctx.metrics, ctx.totals.lock().clone());
    let counts = metrics.phases(ctx.selected.len());
    let features = MetricFamily::gauge("greenwave_features", "Features of the run by their phase.");
    let phases = PHASES.iter().zip(counts);
    let features =
        phases.fold(features, |family, (phase, count)| family.sample(&[("phase", phase)], count as f64));
    let tests = [
        ("passed", "false", &metrics.tests.passed),
        ("failed", "false", &metrics.tests.failed),
        ("passed", "true", &metrics.tests.passed_cached),
        ("failed", "true", &metrics.tests.failed_cached),
    ];
    let results = MetricFamily::counter("greenwave_test_results", "Results of tests, cached or not.");
    let results = tests.into_iter().fold(results, |family, (result, cached, counter)| {
        family.sample(&[("result", result), ("cached", cached)], count(counter))
    });
    let usage = totals.usage;
    let tokens = MetricFamily::counter("greenwave_agent_tokens", "Tokens that agents report, by their kind.")
        .sample(&[("kind", "input")], usage.input_tokens as f64)
        .sample(&[("kind", "cached_input")], usage.cached_tokens as f64)
        .sample(&[("kind", "output")], usage.output_tokens as f64);
    let cost = MetricFamily::counter("greenwave_agent_cost_dollars", "Cost of agents in US dollars.")
        .sample(&[], usage.cost.unwrap_or(0) as f64 / 1e6);
    let plan = MetricFamily::gauge("greenwave_run_info", "1, with the name of the plan as a label.")
        .sample(&[("plan", &ctx.plan.name)], 1.0);
    let refused = MetricFamily::counter("greenwave_attempts_refused", "Attempts that were refused.")
        .sample(&[], count(&metrics.refused));
    let files = MetricFamily::counter("greenwave_answer_files", "Files that were taken from agents.")
        .sample(&[], count(&metrics.files));
    let requests = u64::from(totals.requests);
    vec![
        plan,
        features,
        results,
        counter("greenwave_agent_requests", "Requests to agents.", requests),
        tokens,
        cost,
        refused,
        files,
    ]
}

fn histograms(metrics: &RunMetrics) -> [MetricFamily; 5] {
    let parts = [
        ("greenwave_test_duration_seconds", "Durations of tests that ran.", &metrics.test_duration),
        (
            "greenwave_agent_turn_duration_seconds",
            "Times from a request to the end of the answer.",
            &metrics.agent_turn,
        ),
        (
            "greenwave_agent_first_unit_seconds",
            "Times from a request to the first complete part of the answer.",
            &metrics.first_unit,
        ),
        (
            "greenwave_queue_wait_seconds",
            "Times for which stages that are ready wait for resources.",
            &metrics.queue_wait,
        ),
        ("greenwave_merge_duration_seconds", "Durations of merges, with their tests.", &metrics.merge),
    ];
    parts.map(|(name, help, histogram)| {
        MetricFamily::histogram(name, help).observed(&[], histogram.snapshot())
    })
}

fn scheduler(stats: &ScheduleStats) -> [MetricFamily; 7] {
    let tasks = [
        ("waiting", stats.waiting),
        ("in_flight", stats.in_flight),
        ("done", stats.done),
        ("failed", stats.failed),
        ("skipped", stats.skipped),
    ];
    let family = MetricFamily::gauge("greenwave_scheduler_tasks", "Tasks of the scheduler by their state.");
    let tasks = tasks
        .into_iter()
        .fold(family, |family, (state, count)| family.sample(&[("state", state)], count as f64));
    [
        tasks,
        gauge("greenwave_scheduler_stages_running", "Stages that are running.", stats.running as u64),
        gauge(
            "greenwave_scheduler_stages_delayed",
            "Failed stages that wait for a retry.",
            stats.delayed as u64,
        ),
        counter("greenwave_scheduler_stages_started", "Stages started.", stats.started as u64),
        counter("greenwave_scheduler_retries", "Retries of stages.", stats.retries as u64),
        seconds("greenwave_scheduler_busy_seconds", "Running time of all stages.", stats.busy),
        seconds("greenwave_scheduler_waited_seconds", "Time for which ready stages waited.", stats.waited),
    ]
}

/// Returns the metrics of the run's own resources, then of those of the plan. The plan may use the
/// same names.
fn resources(stats: &ScheduleStats) -> Vec<MetricFamily> {
    let (mut own, mut plan) = (Vec::new(), Vec::new());
    for pool in &stats.pools {
        match pool.name.strip_prefix(OWN_PREFIX) {
            Some(name) => own.push((name, pool)),
            None => plan.push((pool.name.as_str(), pool)),
        }
    }
    let sampled = |family: MetricFamily,
                   pools: &[(&str, &ResourceStats)],
                   value: fn(&ResourceStats) -> f64| {
        pools.iter().fold(family, |family, (name, pool)| family.sample(&[("resource", name)], value(pool)))
    };
    let limit = |pool: &ResourceStats| f64::from(pool.limit);
    let used = |pool: &ResourceStats| f64::from(pool.used);
    let peak = |pool: &ResourceStats| f64::from(pool.peak);
    let busy = |pool: &ResourceStats| pool.busy.as_secs_f64();
    let gauge = MetricFamily::gauge;
    vec![
        sampled(gauge("greenwave_resource_limit", "Units of a resource of the run."), &own, limit),
        sampled(gauge("greenwave_resource_used", "Units that are in use."), &own, used),
        sampled(gauge("greenwave_resource_peak", "Maximum number of units in use."), &own, peak),
        sampled(
            MetricFamily::counter("greenwave_resource_busy_seconds", "Time in use, summed over the units."),
            &own,
            busy,
        ),
        sampled(gauge("greenwave_plan_resource_limit", "Units of a resource of the plan."), &plan, limit),
        sampled(gauge("greenwave_plan_resource_used", "Units that are in use."), &plan, used),
    ]
}

fn results(cache: &TieredStats) -> Vec<MetricFamily> {
    /// Name, description and value of a counter of a tier.
    type Counter = (&'static str, &'static str, fn(&TierStats) -> u64);
    let tiers: [Counter; 8] = [
        ("greenwave_cache_tier_hits", "Reads that found a record in a tier.", |tier| tier.hits),
        ("greenwave_cache_tier_misses", "Reads that reached a tier and missed.", |tier| tier.misses),
        ("greenwave_cache_tier_puts", "Records written to a tier.", |tier| tier.puts),
        ("greenwave_cache_tier_backfills", "Records copied from a slower tier.", |tier| tier.backfills),
        ("greenwave_cache_tier_invalid_records", "Records that did not verify.", |tier| tier.invalid_records),
        ("greenwave_cache_tier_errors", "Calls of a tier that failed.", |tier| tier.errors),
        ("greenwave_cache_tier_skipped", "Calls skipped after failures.", |tier| tier.skipped),
        ("greenwave_cache_tier_dropped", "Writes that were dropped.", |tier| tier.dropped),
    ];
    let family = |(name, help, value): Counter| {
        cache.tiers.iter().fold(MetricFamily::counter(name, help), |family, tier| {
            family.sample(&[("tier", &tier.name)], value(tier) as f64)
        })
    };
    let mut families = vec![
        seconds("greenwave_cache_saved_seconds", "Time that hits saved.", cache.saved),
        counter("greenwave_cache_prefetched", "Records prefetched.", cache.prefetched),
        counter("greenwave_cache_lease_failures", "Leases that were not acquired.", cache.lease_failures),
    ];
    families.extend(tiers.map(family));
    families
}

fn store(storage: &StoreStats) -> Vec<MetricFamily> {
    let reads = MetricFamily::counter("greenwave_storage_reads", "Reads of contents by their source.")
        .sample(&[("source", "memory")], storage.hot_hits as f64)
        .sample(&[("source", "disk")], storage.cold_hits as f64)
        .sample(&[("source", "none")], storage.misses as f64);
    let optional = |name, help, value: Option<u64>| value.map(|value| gauge(name, help, value));
    let cold = &storage.cold;
    let mut families = vec![
        reads,
        gauge("greenwave_storage_memory_bytes", "Contents in memory.", storage.memory_bytes_used),
        gauge("greenwave_storage_memory_limit_bytes", "Budget of memory.", storage.memory_bytes_max),
        gauge(
            "greenwave_storage_memory_peak_bytes",
            "Peak of contents in memory.",
            storage.memory_bytes_peak,
        ),
        gauge("greenwave_storage_hot_blobs", "Contents in memory.", storage.hot_blobs),
        gauge("greenwave_storage_dirty_blobs", "Contents that may be in memory only.", storage.dirty_blobs),
        counter("greenwave_storage_spilled_blobs", "Contents moved to disk.", storage.spilled_blobs),
        counter("greenwave_storage_promoted_blobs", "Contents moved into memory.", storage.promoted_blobs),
        counter("greenwave_storage_corrupt_blobs", "Contents that did not verify.", storage.corrupt_blobs),
    ];
    families.extend(
        [
            optional("greenwave_storage_disk_bytes", "Disk usage of contents.", cold.disk_bytes),
            optional("greenwave_storage_stored_bytes", "Contents on disk, compressed.", cold.stored_bytes),
            optional("greenwave_storage_raw_bytes", "The same before compression.", cold.raw_bytes),
        ]
        .into_iter()
        .flatten(),
    );
    families
}

fn agents(ctx: &RunContext) -> Vec<MetricFamily> {
    type Value = fn(&PoolStats) -> f64;
    let pools: Vec<(&str, PoolStats)> =
        ctx.agents.iter().map(|(name, pool)| (name.as_str(), pool.stats())).collect();
    let sampled = |family: MetricFamily, value: Value| {
        pools.iter().fold(family, |family, (name, pool)| family.sample(&[("agent", name)], value(pool)))
    };
    let gauges: [(&'static str, &'static str, Value); 4] = [
        ("greenwave_agent_sessions", "Sessions with an agent.", |pool| pool.size as f64),
        ("greenwave_agent_sessions_idle", "Idle sessions with an agent.", |pool| pool.idle as f64),
        ("greenwave_agent_sessions_used", "Sessions that answer.", |pool| pool.in_use as f64),
        ("greenwave_agent_sessions_waited_for", "Requests that wait for one.", |pool| pool.waiting as f64),
    ];
    let counters: [(&'static str, &'static str, Value); 4] = [
        ("greenwave_agent_sessions_opened", "Sessions opened.", |pool| pool.created as f64),
        ("greenwave_agent_sessions_reused", "Sessions used again.", |pool| pool.reused as f64),
        ("greenwave_agent_session_failures", "Sessions not opened.", |pool| pool.connect_failures as f64),
        ("greenwave_agent_session_wait_seconds", "Waits for sessions.", |pool| pool.wait_total.as_secs_f64()),
    ];
    let mut families = vec![
        gauge("greenwave_answer_bytes", "Answers in memory.", ctx.answers.used() as u64),
        gauge("greenwave_answer_limit_bytes", "Limit of answers in memory.", ctx.answers.bytes_max() as u64),
    ];
    families.extend(gauges.map(|(name, help, value)| sampled(MetricFamily::gauge(name, help), value)));
    families.extend(counters.map(|(name, help, value)| sampled(MetricFamily::counter(name, help), value)));
    families
}
