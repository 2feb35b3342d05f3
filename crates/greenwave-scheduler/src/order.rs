//! Orders independent tasks, such as tests, so that failures show early and the run ends without a
//! long tail.
//!
//! A short test that probably fails gives more information per second than a long one that surely
//! passes. So tests are ordered by failure probability over duration. That alone would leave the
//! long tests for last, where they run beside idle workers. So before each start, the order checks
//! whether the rest, longest first from then on, would still end in time. If not, the longest test
//! starts instead. In a simulation (200 tests of lognormal durations, 8 workers), the first failure
//! shows as early as with shortest first, and the run takes 0.5 % longer than the lower bound; with
//! shortest first it takes a third longer.
//!
//! Longest first is within a third of the optimum (Graham, "Bounds on Multiprocessing Timing
//! Anomalies", 1969), and close to it in practice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::TaskId;

/// The results of earlier runs of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskHistory {
    /// Expected duration.
    pub duration: Duration,
    /// Number of runs, with decaying weights.
    pub runs: f64,
    /// Number of failures, with decaying weights.
    pub failures: f64,
    /// Set if the last run failed.
    pub failed_last: bool,
    /// Set if a dependency of the task has changed since it last passed.
    pub changed: bool,
}

impl TaskHistory {
    /// Decay of a run's weight with each later run.
    const DECAY: f64 = 0.9;
    /// Prior failure probability, and the number of runs that the prior is worth.
    const PRIOR_FAILURES: f64 = 0.05;
    const PRIOR_RUNS: f64 = 1.0;

    /// Creates the history of a task that never ran.
    pub fn unknown(duration: Duration) -> Self {
        Self { duration, runs: 0.0, failures: 0.0, failed_last: false, changed: false }
    }

    /// Records a run. The caller updates the duration: see [`Durations`](crate::Durations).
    pub fn observe(&mut self, failed: bool) {
        self.runs = self.runs * Self::DECAY + 1.0;
        self.failures = self.failures * Self::DECAY + f64::from(u8::from(failed));
        (self.failed_last, self.changed) = (failed, false);
    }

    /// Returns the failure probability, between 0 and 1.
    pub fn failure_probability(&self) -> f64 {
        (self.failures + Self::PRIOR_FAILURES) / (self.runs + Self::PRIOR_RUNS)
    }
}

/// The rules of the order. Each can be chosen alone; by default, all apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a rule that is there or not, and any of them go together"
)]
pub struct OrderRules {
    /// Tasks that failed in their last run go first.
    pub failed_first: bool,
    /// Tasks with a changed dependency go next.
    pub changed_first: bool,
    /// Among equals, tasks with a higher failure probability go first.
    pub likely_first: bool,
    /// Among equals, shorter tasks go first. Together with `likely_first`, failure probability over
    /// duration decides.
    pub fast_first: bool,
    /// The longest remaining task starts as soon as the run would otherwise exceed its lower bound
    /// by this many thousandths; 5 by default. The bound is the longest task, or the total divided
    /// by the number of workers. `None` disables the rule.
    pub tail_permille: Option<u32>,
    /// Among tasks of similar rank (within a factor of two), prefer one with the needs of the task
    /// that ended last, so that its setup can be reused. Never delays a start.
    pub affinity: bool,
}

impl Default for OrderRules {
    fn default() -> Self {
        Self {
            failed_first: true,
            changed_first: true,
            likely_first: true,
            fast_first: true,
            tail_permille: Some(5),
            affinity: true,
        }
    }
}

impl OrderRules {
    /// Disables all rules: tasks run in order of addition.
    pub fn none() -> Self {
        Self {
            failed_first: false,
            changed_first: false,
            likely_first: false,
            fast_first: false,
            tail_permille: None,
            affinity: false,
        }
    }

    /// Returns the ranks of tasks, highest first, and the rules that ranks cannot express, for a
    /// number of workers. Histories are indexed by [`TaskId::index`].
    pub fn order(&self, histories: &[TaskHistory], workers: u32) -> (Vec<u64>, Order) {
        let ranks = histories.iter().map(|history| self.rank(history)).collect();
        let durations = || histories.iter().map(|history| nanos(history.duration)).collect();
        let tail = self.tail_permille.map(|permille| TailGuard::new(permille, workers.max(1), durations()));
        (ranks, Order { tail, affinity: self.affinity, last_class: None })
    }

    fn rank(&self, history: &TaskHistory) -> u64 {
        let tier = if self.failed_first && history.failed_last {
            2
        } else if self.changed_first && history.changed {
            1
        } else {
            0
        };
        let gain = if self.likely_first { history.failure_probability() } else { 1.0 };
        let cost = if self.fast_first { history.duration.as_secs_f64().max(1e-9) } else { 1.0 };
        // Logarithms of the range from a nanosecond to the age of the Earth, shifted to be
        // positive, with fractions.
        let score = ((gain / cost).log2() + 64.0).clamp(0.0, 127.0);
        (tier << (FRACTION_BITS + 7)) | (score * (1_u64 << FRACTION_BITS) as f64) as u64
    }
}

/// Number of bits of a rank after the binary point of its logarithm.
const FRACTION_BITS: u32 = 46;

/// Rules that ranks alone cannot express, for
/// [`Dispatcher::with_order`](crate::Dispatcher::with_order). Empty by default.
#[derive(Debug, Clone, Default)]
pub struct Order {
    tail: Option<TailGuard>,
    affinity: bool,
    last_class: Option<usize>,
}

/// Number of long tasks that are placed one by one. The others are small in comparison.
const LONGEST_MAX: usize = 64;

/// Prevents a long tail.
#[derive(Debug, Clone)]
struct TailGuard {
    permille: u32,
    workers: u32,
    /// In nanoseconds, by task. Missing for tasks that were added later.
    durations: Vec<u64>,
    /// Lower bound on the length of every schedule, in nanoseconds.
    bound: u128,
    /// Total duration of the tasks that have not started.
    remaining: u128,
    has_started: Vec<bool>,
    has_begun: bool,
    /// Tasks that have not started, longest first, and some that have.
    by_length: Vec<TaskId>,
    /// Number of tasks in `by_length` that have started.
    started_count: usize,
    /// Ready tasks by class. May contain tasks that have started.
    longest: Vec<BinaryHeap<(u64, Reverse<TaskId>)>>,
    /// Running tasks with their expected end.
    running: Vec<(TaskId, u64)>,
}

impl Order {
    pub(crate) fn is_plain(&self) -> bool {
        self.tail.is_none() && !self.affinity
    }

    pub(crate) fn ready(&mut self, class: usize, task: TaskId) {
        let Some(tail) = &mut self.tail else { return };
        if tail.longest.len() <= class {
            tail.longest.resize_with(class + 1, BinaryHeap::new);
        }
        let duration = tail.duration(task);
        tail.longest[class].push((duration, Reverse(task)));
    }

    pub(crate) fn started(&mut self, class: usize, task: TaskId, now: Duration) {
        let Some(tail) = &mut self.tail else { return };
        tail.has_begun = true;
        tail.running.push((task, nanos(now).saturating_add(tail.duration(task))));
        // Even classes contain the tasks that had not begun before.
        if class.is_multiple_of(2) {
            tail.mark_started(task);
        }
    }

    /// Removes a task that is already done or skipped.
    pub(crate) fn will_not_start(&mut self, task: TaskId) {
        if let Some(tail) = &mut self.tail {
            tail.mark_started(task);
            tail.update_bound();
        }
    }

    pub(crate) fn ended(&mut self, wants: u32, task: TaskId) {
        self.last_class = Some(wants as usize * 2);
        if let Some(tail) = &mut self.tail {
            tail.running.retain(|(running, _)| *running != task);
        }
    }

    /// Returns the longest task that can start, if starting `task` instead would make the run end
    /// late.
    pub(crate) fn longest_due(
        &mut self,
        now: Duration,
        task: TaskId,
        choice: &impl Choice,
    ) -> Option<TaskId> {
        self.tail.as_mut()?.longest_due(nanos(now), task, choice)
    }

    /// Returns the first task with the needs of the task that ended last, if it can start and its
    /// rank is similar to that of the first task of `class`.
    pub(crate) fn same_needs(&self, class: usize, rank: u64, choice: &impl Choice) -> Option<TaskId> {
        let last = self.last_class.filter(|last| self.affinity && *last != class)?;
        let (other, same) = choice.first(last)?;
        (is_similar(other, rank) && choice.fits(last) && choice.is_ready(same, last)).then_some(same)
    }
}

/// The choices that a dispatcher offers.
pub(crate) trait Choice {
    /// Returns true if a task is ready and queued in the class.
    fn is_ready(&self, task: TaskId, class: usize) -> bool;
    /// Returns true if tasks of the class could start now.
    fn fits(&self, class: usize) -> bool;
    /// Returns the first task of a class with its rank. The task may have started in the meantime.
    fn first(&self, class: usize) -> Option<(u64, TaskId)>;
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn is_similar(rank: u64, other: u64) -> bool {
    rank >> FRACTION_BITS == other >> FRACTION_BITS
}

impl TailGuard {
    fn new(permille: u32, workers: u32, durations: Vec<u64>) -> Self {
        let mut by_length: Vec<TaskId> = (0..durations.len()).map(TaskId::from_index).collect();
        by_length.sort_by_key(|task| Reverse(durations[task.index()]));
        let remaining: u128 = durations.iter().copied().map(u128::from).sum();
        let mut tail = Self {
            permille,
            workers,
            bound: 0,
            remaining,
            has_started: vec![false; durations.len()],
            has_begun: false,
            by_length,
            started_count: 0,
            durations,
            longest: Vec::new(),
            running: Vec::new(),
        };
        tail.update_bound();
        tail
    }

    /// Computes the bound before the first start. It stays fixed after that, because it includes
    /// the work already done.
    fn update_bound(&mut self) {
        if self.has_begun {
            return;
        }
        let mut longest = self.by_length.iter().filter(|task| !self.has_started[task.index()]);
        let longest = longest.next().map_or(0, |task| self.duration(*task));
        self.bound = u128::from(longest).max(self.remaining / u128::from(self.workers));
    }

    fn duration(&self, task: TaskId) -> u64 {
        self.durations.get(task.index()).copied().unwrap_or(0)
    }

    fn mark_started(&mut self, task: TaskId) {
        let Some(has_started) = self.has_started.get_mut(task.index()) else { return };
        if std::mem::replace(has_started, true) {
            return;
        }
        self.remaining = self.remaining.saturating_sub(self.durations[task.index()].into());
        self.started_count += 1;
        if self.started_count * 2 > self.by_length.len() {
            let Self { has_started, by_length, .. } = self;
            by_length.retain(|task| !has_started[task.index()]);
            self.started_count = 0;
        }
    }

    /// Returns the longest task that can start, if starting `instead` would make the run end late.
    fn longest_due(&mut self, now: u64, instead: TaskId, choice: &impl Choice) -> Option<TaskId> {
        let mut longest: Option<(u64, Reverse<TaskId>)> = None;
        for (class, heap) in self.longest.iter_mut().enumerate() {
            while heap.peek().is_some_and(|(_, Reverse(task))| !choice.is_ready(*task, class)) {
                heap.pop();
            }
            longest = longest.max(heap.peek().copied().filter(|_| choice.fits(class)));
        }
        let (_, Reverse(task)) = longest?;
        (task != instead && self.ends_late(now, instead)).then_some(task)
    }

    /// Returns true if the run would end late with `first` starting now and the longest tasks after
    /// it.
    fn ends_late(&self, now: u64, first: TaskId) -> bool {
        let rest = self.running.iter().map(|(_, end)| u128::from(end.saturating_sub(now)));
        let evenly = u128::from(now) + (self.remaining + rest.sum::<u128>()) / u128::from(self.workers);
        let limit = self.bound.max(evenly) * (1000 + u128::from(self.permille)) / 1000;
        let mut ends: BinaryHeap<Reverse<u128>> =
            self.running.iter().map(|(_, end)| Reverse(u128::from(*end.max(&now)))).collect();
        // More workers than tasks make no difference.
        let free = (self.workers as usize).saturating_sub(ends.len()).clamp(1, LONGEST_MAX + 1);
        ends.extend(std::iter::repeat_n(Reverse(u128::from(now)), free));
        let others = self.by_length.iter().filter(|task| !self.has_started[task.index()] && **task != first);
        std::iter::once(&first).chain(others.take(LONGEST_MAX)).any(|task| {
            let mut soonest = ends.peek_mut().expect("there is at least one worker");
            soonest.0 += u128::from(self.duration(*task));
            soonest.0 > limit
        })
    }
}
