//! The optional inputs of a run.

use std::fmt;
use std::time::Duration;

use crate::control::TaskReceiver;
use crate::order::Order;
use crate::priority::Durations;
use crate::task::Progress;
use crate::{Needs, TaskId};

/// Estimates, needs, observer and other optional inputs of one run. By default, durations are
/// unknown, tasks need no resources, and the run has no observer.
pub struct Job<'a, R, E> {
    pub(crate) expected: Box<dyn Fn(TaskId) -> Duration + Send + 'a>,
    pub(crate) needs: Box<dyn FnMut(TaskId) -> Needs + Send + 'a>,
    pub(crate) time_max: Box<dyn Fn(TaskId) -> Option<Duration> + Send + 'a>,
    pub(crate) observe: Box<dyn FnMut(Progress) + Send + 'a>,
    pub(crate) already_done: Vec<TaskId>,
    pub(crate) order: Option<(Vec<u64>, Order)>,
    pub(crate) added: Option<TaskReceiver<R, E>>,
}

impl<R, E> Default for Job<'_, R, E> {
    fn default() -> Self {
        Self {
            expected: Box::new(|_| Durations::DEFAULT),
            needs: Box::new(|_| Needs::nothing()),
            time_max: Box::new(|_| None),
            observe: Box::new(|_| {}),
            already_done: Vec::new(),
            order: None,
            added: None,
        }
    }
}

impl<'a, R, E> Job<'a, R, E> {
    /// Creates the default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the expected durations of tasks, such as estimates from
    /// [`Durations`](crate::Durations). Not called for added tasks.
    #[must_use]
    pub fn expected(mut self, expected: impl Fn(TaskId) -> Duration + Send + 'a) -> Self {
        self.expected = Box::new(expected);
        self
    }

    /// Sets the needs of first stages.
    #[must_use]
    pub fn needs(mut self, needs: impl FnMut(TaskId) -> Needs + Send + 'a) -> Self {
        self.needs = Box::new(needs);
        self
    }

    /// Sets the time limit of each stage of a task, in place of
    /// [`Executor::stage_time_max`](crate::Executor::stage_time_max).
    #[must_use]
    pub fn time_max(mut self, time_max: impl Fn(TaskId) -> Option<Duration> + Send + 'a) -> Self {
        self.time_max = Box::new(time_max);
        self
    }

    /// Sets the observer, which runs in the coordinating task. [`progress`](crate::progress)
    /// creates one that feeds a stream. If the observer panics, it is not called again and the run
    /// continues ([`RunReport::observer_panic`](crate::RunReport::observer_panic)).
    #[must_use]
    pub fn observe(mut self, observe: impl FnMut(Progress) + Send + 'a) -> Self {
        self.observe = Box::new(observe);
        self
    }

    /// Sets the tasks that an earlier, interrupted run has finished.
    #[must_use]
    pub fn already_done(mut self, tasks: &[TaskId]) -> Self {
        self.already_done = tasks.to_vec();
        self
    }

    /// Sets ranks and rules, in place of the executor's priority: see
    /// [`OrderRules::order`](crate::OrderRules::order).
    #[must_use]
    pub fn order(mut self, ranks: Vec<u64>, order: Order) -> Self {
        self.order = Some((ranks, order));
        self
    }

    /// Accepts tasks from a [`TaskSender`](crate::TaskSender) during the run.
    #[must_use]
    pub fn new_tasks(mut self, added: TaskReceiver<R, E>) -> Self {
        self.added = Some(added);
        self
    }
}

impl<R, E> fmt::Debug for Job<'_, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("already_done", &self.already_done).finish_non_exhaustive()
    }
}
