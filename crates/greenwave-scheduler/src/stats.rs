//! Statistics of a run, during and after it.

use std::time::Duration;

/// Statistics up to the last event of a run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScheduleStats {
    /// Tasks in the graph, including added ones.
    pub tasks: usize,
    /// Added tasks.
    pub added: usize,
    /// Added tasks that succeeded.
    pub added_done: usize,
    /// Stages started.
    pub started: usize,
    /// Stages running now.
    pub running: usize,
    /// Stages that are ready and wait for resources.
    pub ready: usize,
    /// Tasks that wait for dependencies.
    pub waiting: usize,
    /// Failed stages that wait for a retry.
    pub delayed: usize,
    /// Tasks begun and not yet finished.
    pub in_flight: usize,
    /// Tasks that succeeded, including those of an earlier, interrupted run.
    pub done: usize,
    /// Tasks that failed.
    pub failed: usize,
    /// Tasks that never started because an ancestor failed.
    pub skipped: usize,
    /// Retries of stages.
    pub retries: usize,
    /// Total running time of all stages, as if they had run one after another.
    pub busy: Duration,
    /// Total time for which ready stages waited for resources.
    pub waited: Duration,
    /// Time since the run began.
    pub wall: Duration,
    /// Unused worker time by cause.
    pub lost: LostTime,
    /// The resource pools.
    pub pools: Vec<ResourceStats>,
    pub(crate) begun: bool,
}

/// Unused time of the pool `workers`, summed over its units, by cause. All zero without such a
/// pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostTime {
    /// All remaining tasks waited for running ones.
    pub dependency: Duration,
    /// Ready stages lacked other resources or more units than were free, or `tasks_max` was
    /// reached.
    pub resource: Duration,
    /// Workers were not admitted because of load or a lack of jobserver tokens, or the run was
    /// paused.
    pub worker: Duration,
    /// Stages waited for a retry.
    pub retry: Duration,
    /// No stage was left to start.
    pub tail: Duration,
}

impl LostTime {
    /// Returns the sum, at most [`Duration::MAX`].
    pub fn total(&self) -> Duration {
        [self.resource, self.worker, self.retry, self.tail]
            .into_iter()
            .fold(self.dependency, Duration::saturating_add)
    }
}

/// Statistics of one resource pool.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ResourceStats {
    /// Name of the pool.
    pub name: String,
    /// Number of units.
    pub limit: u32,
    /// Number of units that may be used now, at most `limit`.
    pub admitted: u32,
    /// Units in use.
    pub used: u32,
    /// Maximum number of units in use at once.
    pub peak: u32,
    /// Total time in use, summed over the units.
    pub busy: Duration,
}

impl ScheduleStats {
    pub(crate) fn new(tasks: usize, pools: Vec<ResourceStats>) -> Self {
        Self { tasks, waiting: tasks, pools, ..Self::default() }
    }

    /// Returns the number of tasks that have succeeded, failed or been skipped.
    pub fn finished(&self) -> usize {
        self.done + self.failed + self.skipped
    }

    /// Returns the statistics of a pool.
    pub fn pool(&self, name: &str) -> Option<&ResourceStats> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Returns the fraction of a pool's capacity that was used, from 0 to 1; 0 before any time has
    /// passed.
    pub fn efficiency(&self, pool: &str) -> f64 {
        let capacity = |pool: &ResourceStats| f64::from(pool.limit) * self.wall.as_secs_f64();
        let share = |pool: &ResourceStats| pool.busy.as_secs_f64() / capacity(pool);
        self.pool(pool).map(share).filter(|share| share.is_finite()).unwrap_or(0.0)
    }

    /// Returns the speed-up over running stages one after another; 1 before any time has passed.
    pub fn speed_up(&self) -> f64 {
        let ratio = self.busy.as_secs_f64() / self.wall.as_secs_f64();
        if ratio.is_finite() { ratio } else { 1.0 }
    }

    /// Returns the wall time divided by a lower bound
    /// ([`RunReport::lower_bound`](crate::RunReport::lower_bound)). 1 is optimal; also 1 if the
    /// bound is zero.
    pub fn over(&self, lower_bound: Duration) -> f64 {
        let ratio = self.wall.as_secs_f64() / lower_bound.as_secs_f64();
        if ratio.is_finite() { ratio } else { 1.0 }
    }
}

impl ResourceStats {
    pub(crate) fn new(name: &str, limit: u32) -> Self {
        Self { name: name.to_owned(), limit, admitted: limit, ..Self::default() }
    }

    pub(crate) fn take(&mut self, units: u32) {
        self.used += units;
        self.peak = self.peak.max(self.used);
        debug_assert!(self.used <= self.limit, "only stages that fit are started");
    }
}
