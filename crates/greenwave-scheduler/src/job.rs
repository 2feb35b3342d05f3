//! What a run has to be told beside its graph and its code. Knows nothing of how it is run.

use std::fmt;
use std::time::Duration;

use crate::control::TaskReceiver;
use crate::executor::{Progress, unknown};
use crate::order::Order;
use crate::{Needs, TaskId};

/// What a run has to be told beside its graph and its code. The default: nothing is known of durations, nothing is needed, nobody observes.
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
            expected: Box::new(unknown),
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
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a task will probably take: [`Durations`](crate::Durations) knows. Each of added tasks is expected where it is added.
    #[must_use]
    pub fn expected(mut self, expected: impl Fn(TaskId) -> Duration + Send + 'a) -> Self {
        self.expected = Box::new(expected);
        self
    }

    /// What a task's first stage holds.
    #[must_use]
    pub fn needs(mut self, needs: impl FnMut(TaskId) -> Needs + Send + 'a) -> Self {
        self.needs = Box::new(needs);
        self
    }

    /// The longest that each stage of a task may run, in place of [`Executor::stage_time_max`](crate::Executor::stage_time_max).
    #[must_use]
    pub fn time_max(mut self, time_max: impl Fn(TaskId) -> Option<Duration> + Send + 'a) -> Self {
        self.time_max = Box::new(time_max);
        self
    }

    /// Who is told what happens, from the coordinating task: [`progress`](crate::progress) makes a stream
    /// of it. If it panics, it is told nothing more and the run goes on
    /// ([`RunReport::observer_panic`](crate::RunReport::observer_panic)).
    #[must_use]
    pub fn observe(mut self, observe: impl FnMut(Progress) + Send + 'a) -> Self {
        self.observe = Box::new(observe);
        self
    }

    /// The tasks that an earlier, interrupted run has finished.
    #[must_use]
    pub fn already_done(mut self, tasks: &[TaskId]) -> Self {
        self.already_done = tasks.to_vec();
        self
    }

    /// Ranks and rules in place of the executor's priority: [`OrderRules::order`](crate::OrderRules::order) makes them.
    #[must_use]
    pub fn order(mut self, ranks: Vec<u64>, order: Order) -> Self {
        self.order = Some((ranks, order));
        self
    }

    /// Takes in what the other end of this, an [`TaskSender`](crate::TaskSender), adds.
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
