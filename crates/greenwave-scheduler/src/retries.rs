//! How often and when a stage that failed is tried again. Knows nothing of why it failed.

use std::collections::HashMap;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::TaskId;

/// How often and when a stage that failed is tried again: after delays that double, with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often each stage is tried again at most; 0, the default, for never.
    pub times_max: usize,
    /// The first delay, up to twice as long with jitter; default 100 ms.
    pub delay_min: Duration,
    /// No delay is longer than this and its jitter; default 10 s.
    pub delay_max: Duration,
    /// Whether stages that panicked or ran for too long are tried again too; by default only those that say
    /// [`Step::Again`](crate::Step::Again).
    pub also_panics: bool,
}

impl Default for Retries {
    fn default() -> Self {
        let (delay_min, delay_max) = (Duration::from_millis(100), Duration::from_secs(10));
        Self { times_max: 0, delay_min, delay_max, also_panics: false }
    }
}

/// The retries of a run.
#[derive(Debug)]
pub(crate) struct Backoffs {
    retries: Retries,
    tasks: HashMap<TaskId, ExponentialBackoff>,
}

impl Backoffs {
    pub(crate) fn new(retries: Retries) -> Self {
        Self { retries, tasks: HashMap::new() }
    }

    /// When to try a stage again that has just failed; `None` for never.
    pub(crate) fn next(&mut self, task: TaskId, panicked: bool) -> Option<Duration> {
        let Retries { times_max, delay_min, delay_max, also_panics } = self.retries;
        if times_max == 0 || (panicked && !also_panics) {
            return None;
        }
        let builder = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(delay_min)
            .with_max_delay(delay_max)
            .with_max_times(times_max);
        self.tasks.entry(task).or_insert_with(|| builder.build()).next()
    }

    /// The task goes on to another stage, which begins anew.
    pub(crate) fn forget(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }
}
