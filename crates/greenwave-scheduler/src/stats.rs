//! The figures of a run, while it runs and after. Knows nothing of how they come about.

use std::time::Duration;

/// Figures up to the last event of a run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScheduleStats {
    /// Tasks in the graph, added ones included.
    pub tasks: usize,
    /// Stages started so far.
    pub started: usize,
    /// Stages that run at this moment.
    pub running: usize,
    /// Stages that could run if resources allowed.
    pub ready: usize,
    /// Tasks whose dependencies are not done yet.
    pub waiting: usize,
    /// Stages that failed and wait to be tried again.
    pub delayed: usize,
    /// Tasks begun and not yet finished.
    pub in_flight: usize,
    /// Tasks that ended well, those of an earlier, interrupted run included.
    pub done: usize,
    /// Tasks that failed.
    pub failed: usize,
    /// Tasks that never started because of a failed ancestor.
    pub skipped: usize,
    /// Stages that were tried again.
    pub retries: usize,
    /// Sum of all stages' running times: what one after another would have taken.
    pub busy: Duration,
    /// Sum of the times that stages were ready and waited for resources.
    pub waited: Duration,
    /// Time since the run began.
    pub wall: Duration,
    /// Worker time that was not used, by cause.
    pub lost: LostTime,
    /// The resource pools.
    pub pools: Vec<ResourceStats>,
    pub(crate) begun: bool,
}

/// Unit-time of the pool `workers` that was not used, by what was in the way. All zero without such a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostTime {
    /// Everything that is left waited for tasks that run.
    pub dependency: Duration,
    /// Ready stages lacked other resources, or more units than were free, or as many tasks as are allowed had begun.
    pub resource: Duration,
    /// Workers were not to be used: the machine was under load, the jobserver had no token, or the run was paused.
    pub worker: Duration,
    /// Stages waited to be tried again.
    pub retry: Duration,
    /// Nothing was left to be started.
    pub tail: Duration,
}

impl LostTime {
    /// All together, at most [`Duration::MAX`].
    pub fn total(&self) -> Duration {
        [self.resource, self.worker, self.retry, self.tail]
            .into_iter()
            .fold(self.dependency, Duration::saturating_add)
    }
}

/// Figures of one resource pool.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ResourceStats {
    /// The pool's name.
    pub name: String,
    /// Units that exist.
    pub limit: u32,
    /// Units that may be used now, as many as exist or fewer.
    pub admitted: u32,
    /// Units in use.
    pub used: u32,
    /// Most units ever in use at once.
    pub peak: u32,
    /// Unit-time in use.
    pub busy: Duration,
}

impl ScheduleStats {
    pub(crate) fn new(tasks: usize, pools: Vec<ResourceStats>) -> Self {
        Self { tasks, waiting: tasks, pools, ..Self::default() }
    }

    /// Tasks that need no more attention.
    pub fn finished(&self) -> usize {
        self.done + self.failed + self.skipped
    }

    /// A pool's figures.
    pub fn pool(&self, name: &str) -> Option<&ResourceStats> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Busy time of a pool over what its units could have done, from 0 to 1; 0 before any time has passed.
    pub fn efficiency(&self, pool: &str) -> f64 {
        let capacity = |pool: &ResourceStats| f64::from(pool.limit) * self.wall.as_secs_f64();
        let share = |pool: &ResourceStats| pool.busy.as_secs_f64() / capacity(pool);
        self.pool(pool).map(share).filter(|share| share.is_finite()).unwrap_or(0.0)
    }

    /// How much faster than one stage after another; 1 before any time has passed.
    pub fn speed_up(&self) -> f64 {
        let ratio = self.busy.as_secs_f64() / self.wall.as_secs_f64();
        if ratio.is_finite() { ratio } else { 1.0 }
    }

    /// Wall time over a bound below which no schedule can be ([`RunReport::lower_bound`](crate::RunReport::lower_bound)): 1 is perfect; 1 also where
    /// the bound is zero.
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
