//! In which order independent tasks go, tests above all: what tells most soonest goes first, and the end is not long. Knows nothing of
//! resources but that tasks which need the same stand in one class.
//!
//! A test that probably fails and is short tells more a second than one that surely passes and is long, so the order is by failure
//! probability over duration. Alone that leaves the long ones for last, where they run beside idle workers. So before each start it is asked
//! whether the rest, with the longest first from then on, would still end in time; if not, the longest starts instead. In simulation (200
//! lognormal tests, 8 workers) the first failure is known as soon as with plain fast first, and the whole takes half a percent longer than the
//! bound, where plain fast first takes a third.
//!
//! Longest first ends within a third of the best schedule (Graham, Bounds on Multiprocessing Timing Anomalies, 1969), and in practice at it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::TaskId;

/// What earlier runs of a test have shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskHistory {
    /// How long it will probably take.
    pub duration: Duration,
    /// How often it ran, older runs counting less.
    pub runs: f64,
    /// How often it failed, likewise.
    pub failures: f64,
    /// Whether it failed when it last ran.
    pub failed_last: bool,
    /// Whether something that it reads has changed since it last passed.
    pub changed: bool,
}

impl TaskHistory {
    /// What a run counts after each further one.
    const FADE: f64 = 0.9;
    /// How probable a failure is of what never ran, and how many runs that guess is worth.
    const FAILURES_BEFORE: f64 = 0.05;
    const RUNS_BEFORE: f64 = 1.0;

    /// Of a test that never ran.
    pub fn unknown(duration: Duration) -> Self {
        Self { duration, runs: 0.0, failures: 0.0, failed_last: false, changed: false }
    }

    /// Takes note of a run. The duration is the caller's: [`Durations`](crate::Durations) learns it.
    pub fn observe(&mut self, failed: bool) {
        self.runs = self.runs * Self::FADE + 1.0;
        self.failures = self.failures * Self::FADE + f64::from(u8::from(failed));
        (self.failed_last, self.changed) = (failed, false);
    }

    /// How probably it fails, between 0 and 1.
    pub fn failure_probability(&self) -> f64 {
        (self.failures + Self::FAILURES_BEFORE) / (self.runs + Self::RUNS_BEFORE)
    }
}

/// Which rules make the order. Each can be chosen alone; the default is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a rule that is there or not, and any of them go together"
)]
pub struct OrderRules {
    /// Those that failed when they last ran go before all others.
    pub failed_first: bool,
    /// Then those that read something that has changed.
    pub changed_first: bool,
    /// Among equals, the more probable failure first.
    pub likely_first: bool,
    /// Among equals, the shorter first; with the rule above, by the quotient of the two.
    pub fast_first: bool,
    /// The longest that is left starts as soon as the whole would else take so much longer than its bound, in thousandths; 5 by default. The
    /// bound is the longest test, or all of them spread evenly over the workers. `None` to leave it where the other rules put it.
    pub tail_permille: Option<u32>,
    /// Among those that are about as urgent (within a factor of two), one that needs what the last one that ended has held, so that what is set
    /// up for it is used again. Never a reason to wait.
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
    /// None: the order of adding.
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

    /// The ranks of tests, highest first, and what else there is to choose by, for as many workers. Histories by [`TaskId::index`].
    pub fn order(&self, histories: &[TaskHistory], workers: u32) -> (Vec<u64>, Order) {
        let ranks = histories.iter().map(|history| self.rank(history)).collect();
        let durations = || histories.iter().map(|history| nanos(history.duration)).collect();
        let tail = self.tail_permille.map(|permille| Tail::new(permille, workers.max(1), durations()));
        (ranks, Order { tail, affinity: self.affinity, last_class: None })
    }

    fn rank(&self, history: &TaskHistory) -> u64 {
        let tier = match () {
            () if self.failed_first && history.failed_last => 2,
            () if self.changed_first && history.changed => 1,
            () => 0,
        };
        let gain = if self.likely_first { history.failure_probability() } else { 1.0 };
        let cost = if self.fast_first { history.duration.as_secs_f64().max(1e-9) } else { 1.0 };
        // Logarithms of anything between a nanosecond and the age of the earth, made positive, with fractions.
        let score = ((gain / cost).log2() + 64.0).clamp(0.0, 127.0);
        (tier << (FRACTION_BITS + 7)) | (score * (1_u64 << FRACTION_BITS) as f64) as u64
    }
}

/// Bits of a rank below the whole part of its logarithm.
const FRACTION_BITS: u32 = 46;

/// OrderRules for [`Dispatcher::with_order`](crate::Dispatcher::with_order) that ranks alone cannot express. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Order {
    tail: Option<Tail>,
    affinity: bool,
    last_class: Option<usize>,
}

/// As many of the longest are looked at one by one; the others are small beside them.
const LONGEST_MAX: usize = 64;

/// Sees to it that the end is not long.
#[derive(Debug, Clone)]
struct Tail {
    permille: u32,
    workers: u32,
    /// In nanoseconds, by task. Of tasks that were added since nothing is known.
    durations: Vec<u64>,
    /// No schedule of all is shorter than this, in nanoseconds.
    bound: u128,
    /// Of all that have not started.
    left: u128,
    has_started: Vec<bool>,
    has_begun: bool,
    /// All that have not started, longest first, and some that have.
    by_length: Vec<TaskId>,
    /// Of these, how many have.
    gone: usize,
    /// What is ready, by class. May hold tasks that have started.
    longest: Vec<BinaryHeap<(u64, Reverse<TaskId>)>>,
    /// What runs, with when it will probably end.
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
        // Even classes are of tasks that had not begun.
        if class.is_multiple_of(2) {
            tail.take(task);
        }
    }

    /// Done before, or skipped: it takes no time.
    pub(crate) fn will_not_start(&mut self, task: TaskId) {
        if let Some(tail) = &mut self.tail {
            tail.take(task);
            tail.find_bound();
        }
    }

    pub(crate) fn ended(&mut self, wants: u32, task: TaskId) {
        self.last_class = Some(wants as usize * 2);
        if let Some(tail) = &mut self.tail {
            tail.running.retain(|(running, _)| *running != task);
        }
    }

    /// The longest task that can start, if starting `task` instead would end the whole too late.
    pub(crate) fn longest_due(
        &mut self,
        now: Duration,
        task: TaskId,
        choice: &impl Choice,
    ) -> Option<TaskId> {
        self.tail.as_mut()?.due(nanos(now), task, choice)
    }

    /// The first task that needs what the last one that ended has held, if it can start and is about
    /// as urgent as the first of `class`.
    pub(crate) fn same_needs(&self, class: usize, rank: u64, choice: &impl Choice) -> Option<TaskId> {
        let last = self.last_class.filter(|last| self.affinity && *last != class)?;
        let (other, same) = choice.first(last)?;
        (is_about(other, rank) && choice.fits(last) && choice.is_ready(same, last)).then_some(same)
    }
}

/// What there is to choose from.
pub(crate) trait Choice {
    /// Whether a task waits in a class to be started.
    fn is_ready(&self, task: TaskId, class: usize) -> bool;
    /// Whether tasks of a class could start now.
    fn fits(&self, class: usize) -> bool;
    /// The first task of a class with its rank, which may have started by another way.
    fn first(&self, class: usize) -> Option<(u64, TaskId)>;
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn is_about(rank: u64, other: u64) -> bool {
    rank >> FRACTION_BITS == other >> FRACTION_BITS
}

impl Tail {
    fn new(permille: u32, workers: u32, durations: Vec<u64>) -> Self {
        let mut by_length: Vec<TaskId> = (0..durations.len()).map(TaskId::from_index).collect();
        by_length.sort_by_key(|task| Reverse(durations[task.index()]));
        let left: u128 = durations.iter().copied().map(u128::from).sum();
        let mut tail = Self {
            permille,
            workers,
            bound: 0,
            left,
            has_started: vec![false; durations.len()],
            has_begun: false,
            by_length,
            gone: 0,
            durations,
            longest: Vec::new(),
            running: Vec::new(),
        };
        tail.find_bound();
        tail
    }

    /// The bound of what is left, before any of it has started; later it stays what it was, since what has run counts.
    fn find_bound(&mut self) {
        if self.has_begun {
            return;
        }
        let mut longest = self.by_length.iter().filter(|task| !self.has_started[task.index()]);
        let longest = longest.next().map_or(0, |task| self.duration(*task));
        self.bound = u128::from(longest).max(self.left / u128::from(self.workers));
    }

    fn duration(&self, task: TaskId) -> u64 {
        self.durations.get(task.index()).copied().unwrap_or(0)
    }

    fn take(&mut self, task: TaskId) {
        let Some(has_started) = self.has_started.get_mut(task.index()) else { return };
        *has_started = true;
        self.left = self.left.saturating_sub(self.durations[task.index()].into());
        self.gone += 1;
        if self.gone * 2 > self.by_length.len() {
            let Self { has_started, by_length, .. } = self;
            by_length.retain(|task| !has_started[task.index()]);
            self.gone = 0;
        }
    }

    /// The longest task that can start, if starting another instead would end late.
    fn due(&mut self, now: u64, instead: TaskId, choice: &impl Choice) -> Option<TaskId> {
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

    /// Whether the whole would end late if this task started now, and then always the longest that is left.
    fn ends_late(&self, now: u64, first: TaskId) -> bool {
        let rest = self.running.iter().map(|(_, end)| u128::from(end.saturating_sub(now)));
        let evenly = u128::from(now) + (self.left + rest.sum::<u128>()) / u128::from(self.workers);
        let limit = self.bound.max(evenly) * (1000 + u128::from(self.permille)) / 1000;
        let mut ends: BinaryHeap<Reverse<u128>> =
            self.running.iter().map(|(_, end)| Reverse(u128::from(*end.max(&now)))).collect();
        // More than there are tasks to place change nothing.
        let free = (self.workers as usize).saturating_sub(ends.len()).clamp(1, LONGEST_MAX + 1);
        ends.extend(std::iter::repeat_n(Reverse(u128::from(now)), free));
        let others = self.by_length.iter().filter(|task| !self.has_started[task.index()] && **task != first);
        std::iter::once(&first).chain(others.take(LONGEST_MAX)).any(|task| {
            let mut soonest = ends.peek_mut().expect("there is a worker");
            soonest.0 += u128::from(self.duration(*task));
            soonest.0 > limit
        })
    }
}
