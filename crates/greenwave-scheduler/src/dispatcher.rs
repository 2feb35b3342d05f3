//! Decides which tasks start when, as a pure state machine over events and their times.
//!
//! Must not depend on clocks, threads or futures: [`Executor`](crate::Executor) performs the
//! decisions on tokio, and simulations perform them in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::order::{Choice, Order};
use crate::resource::{ResourcePools, UnitsNeeded};
use crate::stats::{ResourceStats, ScheduleStats};
use crate::{Error, Graph, Needs, Resources, TaskId};

/// The pool that lost time is computed for.
const WORKERS: &str = "workers";

/// Resources and other limits of a run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// ResourcePools of resources. [`ScheduleStats::lost`] refers to the pool named `workers`.
    pub resources: Resources,
    /// Maximum number of tasks in progress: begun and not finished, over all their stages but those
    /// [without a slot](Needs::without_task_slot). At least 1. No limit by default.
    pub tasks_max: usize,
    /// Maximum number of times that a ready stage that does not fit is overtaken by stages of lower
    /// rank. 0 forbids overtaking; the default is 16.
    ///
    /// Beyond that, every pool and lock that the stage needs, and a slot under `tasks_max`, are
    /// reserved for it: stages of lower rank that need any of these do not start before it. So it
    /// starts as soon as the current holders and stages of higher rank have ended. Other stages
    /// continue. While `tasks_max` is exhausted, only the next slot is reserved, and tasks in
    /// progress continue. Of several stages with the same needs, only the one of highest rank is
    /// counted.
    pub overtakes_max: u32,
    /// Effect of a failure on tasks that do not depend on the failed one.
    pub on_failure: OnFailure,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resources: Resources::default(),
            tasks_max: usize::MAX,
            overtakes_max: 16,
            on_failure: OnFailure::KeepGoing,
        }
    }
}

/// The effect of a failed task on tasks that do not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They run regardless.
    #[default]
    KeepGoing,
    /// Running stages finish; no other stage starts.
    StopAtFirst,
}

/// An event of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchEvent<'a> {
    /// The run begins. Sent once, before all other events.
    Begin,
    /// A stage succeeded and the task has another one with these needs. The task is queued again
    /// with its old rank.
    Next(TaskId, &'a Needs),
    /// A task succeeded. Tasks that waited only for it may start.
    Done(TaskId),
    /// A task failed. Tasks that depend on it are skipped.
    Failed(TaskId),
    /// A stage failed and is retried after this delay. It holds no resources in the meantime, and
    /// is then queued with its old rank.
    Retry(TaskId, Duration),
    /// Time has passed: see [`Dispatcher::wakes_at`].
    Tick,
    /// Sets the number of usable units of a pool, up to its limit. Running stages continue. Unknown
    /// pools are ignored.
    Admit(&'a str, u32),
    /// Prevents stages from starting until [`Resume`](Self::Resume). Running stages continue.
    Pause,
    /// Lets stages start again.
    Resume,
    /// Prevents stages from starting for good.
    Stop,
}

/// A decision, to be performed in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the current stage of the task.
    Start(TaskId),
    /// The first task will never start, because its ancestor, the second task, failed.
    Skip(TaskId, TaskId),
}

/// The state of a task. Only [`Dispatcher::handle`] changes states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Waits for this number of dependencies.
    Waiting(u32),
    /// Could start if resources allowed. Holds the time at which it became ready.
    Ready(Duration),
    /// A stage runs. Holds the time at which it started.
    Running(Duration),
    /// A stage failed and is retried at this time.
    Delayed(Duration),
    /// Succeeded.
    Done,
    /// Failed.
    Failed,
    /// Never started, because this ancestor failed.
    Skipped(TaskId),
}

/// A task to add to a running schedule.
#[derive(Debug, Clone, Copy)]
pub struct Addition<'a> {
    /// Name of the task, for errors. Duplicates are not detected here.
    pub id: &'a str,
    /// Rank among all tasks, highest first.
    pub rank: u64,
    /// Resources held by the first stage.
    pub needs: &'a Needs,
    /// Tasks that this task depends on, in any state. If one has failed, this task is skipped.
    pub after: &'a [TaskId],
    /// Tasks that shall depend on this task. They must still be waiting.
    pub before: &'a [TaskId],
}

/// The decisions for one run of one graph. Clones are independent, which simulations use.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    limits: Arc<Limits>,
    tasks: Vec<Task>,
    /// Dependants of all tasks, concatenated; `Task::dependants` is a range in it.
    dependants: Vec<TaskId>,
    /// Dependants added during the run.
    added: HashMap<TaskId, Vec<TaskId>>,
    /// Names of pools. Clones share these and the needs until one of them sees needs for the first
    /// time.
    pools: Arc<ResourcePools>,
    free: Vec<i64>,
    /// Distinct needs, with their index in `wants`.
    needs: Arc<HashMap<Needs, u32>>,
    /// The most recent needs: neighbouring tasks often need the same.
    last_needs: Option<(Needs, u32)>,
    wants: Arc<Vec<Wants>>,
    /// Two classes for each entry of `wants`: for tasks that need a slot under `tasks_max` to
    /// start, and for tasks that have one, or need none.
    classes: Vec<Class>,
    delayed: BinaryHeap<Reverse<(Duration, TaskId)>>,
    order: Order,
    workers: Option<usize>,
    paused: bool,
    stopped: bool,
    clock: Duration,
    stats: ScheduleStats,
}

/// The needs of a stage, resolved to pools.
#[derive(Debug, Clone)]
struct Wants {
    units: Box<[UnitsNeeded]>,
    /// Whether the stage counts under `tasks_max`.
    has_task_slot: bool,
}

#[derive(Debug, Clone)]
struct Task {
    state: TaskState,
    rank: u64,
    dependants: std::ops::Range<u32>,
    /// Needs of the current stage, as an index into `Dispatcher::wants`.
    wants: u32,
    overtaken: u32,
    /// Whether the task holds a slot under `tasks_max`.
    has_slot: bool,
    /// Total running time of its stages.
    took: Duration,
}

/// Ready tasks with the same needs. If the first one does not fit, none does.
#[derive(Debug, Clone, Default)]
struct Class {
    /// Highest rank first. May contain tasks that have started since.
    ready: BinaryHeap<RankedTask>,
    /// Number of tasks that are actually ready.
    count: usize,
}

/// A ready task with its rank. Compares by rank, then by order of addition.
type RankedTask = (u64, Reverse<TaskId>);

/// Resources reserved for tasks that were overtaken too often.
#[derive(Debug)]
struct Reserved {
    /// Reserved pools, by index.
    pools: Vec<bool>,
    /// Reserved slots under `tasks_max`.
    slots: usize,
}

impl Dispatcher {
    /// Creates a dispatcher from the ranks of tasks (highest first) and the needs of their first
    /// stages. In O(tasks + dependencies).
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`] if a task could never start; [`Error::InvalidLimit`] if
    /// [`Limits::tasks_max`] is 0.
    pub fn new<T>(
        graph: &Graph<T>,
        limits: Limits,
        ranks: &[u64],
        mut needs: impl FnMut(TaskId) -> Needs,
    ) -> Result<Self, Error> {
        if limits.tasks_max == 0 {
            return Err(Error::InvalidLimit { option: "tasks_max", value: 0, expected: "1 or more" });
        }
        let pools =
            limits.resources.pools.iter().map(|(name, limit)| ResourceStats::new(name, *limit)).collect();
        let numbers = ResourcePools::new(&limits.resources);
        let mut dispatcher = Self {
            free: numbers.limits.iter().map(|&units| units.into()).collect(),
            workers: numbers.number(WORKERS),
            pools: Arc::new(numbers),
            limits: Arc::new(limits),
            tasks: Vec::with_capacity(graph.len()),
            dependants: Vec::new(),
            added: HashMap::new(),
            needs: Arc::default(),
            last_needs: None,
            wants: Arc::default(),
            classes: Vec::new(),
            delayed: BinaryHeap::new(),
            order: Order::default(),
            paused: false,
            stopped: false,
            clock: Duration::ZERO,
            stats: ScheduleStats::new(graph.len(), pools),
        };
        for task in graph.tasks() {
            let from = dispatcher.dependants.len() as u32;
            dispatcher.dependants.extend_from_slice(graph.dependants(task));
            let wants =
                dispatcher.number_of(&needs(task)).map_err(|shortage| too_small(graph.id(task), shortage))?;
            dispatcher.tasks.push(Task {
                state: TaskState::Waiting(graph.dependencies(task).len() as u32),
                rank: ranks.get(task.index()).copied().unwrap_or(0),
                dependants: from..dispatcher.dependants.len() as u32,
                wants,
                overtaken: 0,
                has_slot: false,
                took: Duration::ZERO,
            });
        }
        Ok(dispatcher)
    }

    /// Adds rules to the choice among ready tasks, beside the ranks. Call this before the run
    /// begins.
    #[must_use]
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Handles an event at a time since the start of the run, and appends the resulting decisions
    /// to `actions`.
    ///
    /// A time before that of an earlier event counts as no time passed. An event for an unknown
    /// task or a task in an unsuitable state, such as a second `Done`, is ignored. Sums of times
    /// saturate at [`Duration::MAX`].
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`] if a next stage could never start. The task then counts as
    /// failed, and `actions` holds the consequences.
    pub fn handle(
        &mut self,
        now: Duration,
        event: DispatchEvent<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Error> {
        self.advance_clock(now);
        let result = self.apply(event, actions);
        self.start_what_fits(actions);
        result
    }

    fn apply(&mut self, event: DispatchEvent<'_>, actions: &mut Vec<Action>) -> Result<(), Error> {
        match event {
            DispatchEvent::Begin => self.begin(),
            DispatchEvent::Next(task, needs) => return self.next_stage(task, needs, actions),
            DispatchEvent::Done(task) => self.done(task),
            DispatchEvent::Failed(task) => self.failed(task, actions),
            DispatchEvent::Retry(task, delay) => self.delay(task, delay),
            // `handle` has advanced the clock already.
            DispatchEvent::Tick => {}
            DispatchEvent::Admit(pool, units) => self.admit(pool, units),
            DispatchEvent::Pause => self.paused = true,
            DispatchEvent::Resume => self.paused = false,
            DispatchEvent::Stop => self.stopped = true,
        }
        Ok(())
    }

    /// Marks a task as done before the run begins, because an earlier, interrupted run finished it.
    /// Unknown tasks are ignored.
    pub fn already_done(&mut self, task: TaskId) {
        if self.tasks.get(task.index()).is_some_and(|task| matches!(task.state, TaskState::Waiting(_))) {
            self.stats.waiting -= 1;
            self.finish(task, TaskState::Done);
            self.release_dependants(task);
        }
    }

    /// Adds a task at a time since the start of the run.
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`]; [`Error::UnknownTask`]; [`Error::NotWaiting`] if one of
    /// `before` may have started; [`Error::AddedCycle`] if one of `after` is, or depends on, one of
    /// `before`. The run is unchanged in these cases.
    pub fn add(
        &mut self,
        now: Duration,
        addition: Addition<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<TaskId, Error> {
        self.advance_clock(now);
        let Addition { id, rank, needs, after, before } = addition;
        if let Some(unknown) = after.iter().chain(before).find(|task| task.index() >= self.tasks.len()) {
            return Err(Error::UnknownTask { id: id.to_owned(), index: unknown.index() });
        }
        let is_waiting = |task: &&TaskId| matches!(self.tasks[task.index()].state, TaskState::Waiting(_));
        if !before.iter().all(|task| is_waiting(&task)) {
            return Err(Error::NotWaiting { id: id.to_owned() });
        }
        if self.reaches(before, after) {
            return Err(Error::AddedCycle { id: id.to_owned() });
        }
        let wants = self.number_of(needs).map_err(|shortage| too_small(id, shortage))?;
        let task = TaskId::from_index(self.tasks.len());
        let open: Vec<TaskId> = after.iter().copied().filter(|task| !self.has_ended(*task)).collect();
        let state = TaskState::Waiting(open.len() as u32);
        let none = self.dependants.len() as u32;
        let (dependants, took) = (none..none, Duration::ZERO);
        self.tasks.push(Task { state, rank, dependants, wants, overtaken: 0, has_slot: false, took });
        (self.stats.tasks, self.stats.waiting) = (self.stats.tasks + 1, self.stats.waiting + 1);
        open.iter().for_each(|before| self.added.entry(*before).or_default().push(task));
        self.add_dependency(task, before);
        match after.iter().find_map(|after| self.failed_ancestor(*after)) {
            Some(failed) => self.skip_from(task, failed, actions),
            None if open.is_empty() && self.stats.begun => self.make_ready(task),
            None => {}
        }
        self.start_what_fits(actions);
        Ok(task)
    }

    /// Returns the time since the start of the run at which the next [`Tick`](DispatchEvent::Tick)
    /// is due, for the retry of a stage.
    pub fn wakes_at(&self) -> Option<Duration> {
        self.delayed.peek().map(|Reverse((until, _))| *until)
    }

    /// Returns the state of a task.
    ///
    /// # Panics
    /// If the task does not exist.
    pub fn state(&self, task: TaskId) -> TaskState {
        self.tasks[task.index()].state
    }

    /// Returns the total running time of the stages of a task that have ended.
    ///
    /// # Panics
    /// If the task does not exist.
    pub fn running_time(&self, task: TaskId) -> Duration {
        self.tasks[task.index()].took
    }

    /// Returns how often stages of lower rank have started since the current stage became ready:
    /// see [`Limits::overtakes_max`].
    ///
    /// # Panics
    /// If the task does not exist.
    pub fn overtaken(&self, task: TaskId) -> u32 {
        self.tasks[task.index()].overtaken
    }

    /// Returns true if no stage runs and none will start.
    pub fn is_finished(&self) -> bool {
        let ScheduleStats { running, ready, delayed, .. } = self.stats;
        running == 0 && (self.stopped || (ready == 0 && delayed == 0))
    }

    /// Returns the statistics up to the last event.
    pub fn stats(&self) -> &ScheduleStats {
        &self.stats
    }

    fn begin(&mut self) {
        self.stats.begun = true;
        for at in 0..self.tasks.len() {
            if self.tasks[at].state == TaskState::Waiting(0) {
                self.make_ready(TaskId(at as u32));
            }
        }
    }

    fn next_stage(&mut self, task: TaskId, needs: &Needs, actions: &mut Vec<Action>) -> Result<(), Error> {
        if !self.release(task) {
            return Ok(());
        }
        match self.number_of(needs) {
            Ok(wants) => {
                self.tasks[task.index()].wants = wants;
                if !self.wants[wants as usize].has_task_slot {
                    self.give_slot_back(task);
                }
                self.make_ready(task);
                Ok(())
            }
            Err(shortage) => {
                self.fail(task, actions);
                // The dispatcher does not store names; the caller replaces this one.
                Err(too_small(&format!("#{}", task.index()), shortage))
            }
        }
    }

    fn give_slot_back(&mut self, id: TaskId) {
        let task = &mut self.tasks[id.index()];
        self.stats.in_flight -= usize::from(std::mem::take(&mut task.has_slot));
    }

    fn done(&mut self, task: TaskId) {
        if self.release(task) {
            self.finish(task, TaskState::Done);
            self.release_dependants(task);
        }
    }

    fn failed(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if self.release(task) {
            self.fail(task, actions);
        }
    }

    fn fail(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        self.finish(task, TaskState::Failed);
        self.stopped |= self.limits.on_failure == OnFailure::StopAtFirst;
        self.skip_dependants(task, task, actions);
    }

    fn delay(&mut self, task: TaskId, delay: Duration) {
        if self.release(task) {
            let until = self.clock.saturating_add(delay);
            self.tasks[task.index()].state = TaskState::Delayed(until);
            self.delayed.push(Reverse((until, task)));
            self.stats.delayed += 1;
            self.stats.retries += 1;
        }
    }

    fn admit(&mut self, pool: &str, units: u32) {
        let Some(at) = self.pools.number(pool) else { return };
        let stats = &mut self.stats.pools[at];
        let units = units.min(stats.limit);
        self.free[at] += i64::from(units) - i64::from(stats.admitted);
        stats.admitted = units;
    }

    /// Skips a waiting task and its dependants.
    fn skip_from(&mut self, task: TaskId, failed: TaskId, actions: &mut Vec<Action>) {
        self.stats.waiting -= 1;
        self.finish(task, TaskState::Skipped(failed));
        actions.push(Action::Skip(task, failed));
        self.skip_dependants(task, failed, actions);
    }

    fn skip_dependants(&mut self, from: TaskId, failed: TaskId, actions: &mut Vec<Action>) {
        let mut reached = vec![from];
        while let Some(task) = reached.pop() {
            self.for_each_dependant(task, |this, dependant| {
                if matches!(this.tasks[dependant.index()].state, TaskState::Waiting(_)) {
                    this.stats.waiting -= 1;
                    this.finish(dependant, TaskState::Skipped(failed));
                    actions.push(Action::Skip(dependant, failed));
                    reached.push(dependant);
                }
            });
        }
    }

    fn release_dependants(&mut self, task: TaskId) {
        self.for_each_dependant(task, |this, dependant| {
            let state = &mut this.tasks[dependant.index()].state;
            if let TaskState::Waiting(count) = state {
                *count -= 1;
                if *count == 0 && this.stats.begun {
                    this.make_ready(dependant);
                }
            }
        });
    }

    fn for_each_dependant(&mut self, task: TaskId, mut act: impl FnMut(&mut Self, TaskId)) {
        for at in self.tasks[task.index()].dependants.clone() {
            let dependant = self.dependants[at as usize];
            act(self, dependant);
        }
        if self.added.is_empty() {
            return;
        }
        for dependant in self.added.get(&task).cloned().unwrap_or_default() {
            act(self, dependant);
        }
    }

    /// Adds a dependency on `task` to waiting tasks.
    fn add_dependency(&mut self, task: TaskId, before: &[TaskId]) {
        for later in before {
            if let TaskState::Waiting(count) = &mut self.tasks[later.index()].state {
                *count += 1;
                self.added.entry(task).or_default().push(*later);
            }
        }
    }

    fn has_ended(&self, task: TaskId) -> bool {
        matches!(self.tasks[task.index()].state, TaskState::Done | TaskState::Failed | TaskState::Skipped(_))
    }

    fn failed_ancestor(&self, task: TaskId) -> Option<TaskId> {
        match self.tasks[task.index()].state {
            TaskState::Failed => Some(task),
            TaskState::Skipped(failed) => Some(failed),
            _ => None,
        }
    }

    /// Returns true if one of `to` is, or depends on, one of `from`.
    fn reaches(&mut self, from: &[TaskId], to: &[TaskId]) -> bool {
        let mut seen = std::collections::HashSet::new();
        let mut reached = from.to_vec();
        while let Some(task) = reached.pop() {
            if to.contains(&task) {
                return true;
            }
            if seen.insert(task) {
                self.for_each_dependant(task, |_, dependant| reached.push(dependant));
            }
        }
        false
    }

    /// Returns the index of needs in `wants`.
    fn number_of(&mut self, needs: &Needs) -> Result<u32, (String, u32, u32)> {
        if let Some((last, number)) = &self.last_needs
            && last == needs
        {
            return Ok(*number);
        }
        let number = match self.needs.get(needs) {
            Some(&number) => number,
            None => {
                let units = Arc::make_mut(&mut self.pools).resolve(needs)?;
                let wants = Wants { units, has_task_slot: needs.has_task_slot() };
                self.free.extend(self.pools.limits[self.free.len()..].iter().map(|&units| i64::from(units)));
                Arc::make_mut(&mut self.wants).push(wants);
                self.classes.extend([Class::default(), Class::default()]);
                let number = (self.wants.len() - 1) as u32;
                Arc::make_mut(&mut self.needs).insert(needs.clone(), number);
                number
            }
        };
        self.last_needs = Some((needs.clone(), number));
        Ok(number)
    }

    fn make_ready(&mut self, id: TaskId) {
        let task = &mut self.tasks[id.index()];
        match task.state {
            TaskState::Waiting(_) => self.stats.waiting -= 1,
            TaskState::Delayed(_) => self.stats.delayed -= 1,
            _ => {}
        }
        task.state = TaskState::Ready(self.clock);
        self.stats.ready += 1;
        let (rank, class) = (task.rank, self.class_of(id));
        self.classes[class].ready.push((rank, Reverse(id)));
        self.classes[class].count += 1;
        self.order.ready(class, id);
    }

    fn start_what_fits(&mut self, actions: &mut Vec<Action>) {
        while !self.stopped && !self.paused && self.stats.ready > 0 {
            let Some(task) = self.best_that_fits() else { return };
            self.start(task);
            actions.push(Action::Start(task));
        }
    }

    /// Selects the ready task of the highest rank that fits, or one that the rules prefer to it.
    /// Counts an overtake for the tasks of higher rank that do not fit.
    fn best_that_fits(&mut self) -> Option<TaskId> {
        let mut fitting: Option<(RankedTask, usize)> = None;
        let mut blocked: Vec<(RankedTask, usize)> = Vec::new();
        for at in 0..self.classes.len() {
            let Some(first) = self.first_of(at) else { continue };
            if !self.fits(at) {
                blocked.push((first, at));
            } else if fitting.is_none_or(|(best, _)| first > best) {
                fitting = Some((first, at));
            }
        }
        let (first, class) = fitting?;
        if blocked.iter().any(|(above, _)| *above > first && self.is_at_overtake_limit(*above)) {
            return self.best_not_reserved();
        }
        let task = self.preferred(class, first, &blocked);
        let chosen = (self.tasks[task.index()].rank, Reverse(task));
        for (above, class) in blocked.into_iter().filter(|(above, _)| *above > chosen) {
            self.overtake(above, class, 0);
        }
        Some(task)
    }

    /// Selects a task like [`best_that_fits`](Self::best_that_fits), while some task was overtaken
    /// too often. Resources reserved for such tasks are left to them and to tasks of higher rank.
    ///
    /// This is backfilling as in batch schedulers, but without predictions of running times
    /// (Mu'alem and Feitelson, "Utilization, Predictability, Workloads, and User Runtime Estimates
    /// in Scheduling the IBM SP2 with Backfilling", 2001).
    fn best_not_reserved(&mut self) -> Option<TaskId> {
        let first = |at: usize| Some((*self.classes[at].ready.peek()?, at));
        let mut heads: BinaryHeap<(RankedTask, usize)> = (0..self.classes.len()).filter_map(first).collect();
        let mut reserved = Reserved { pools: vec![false; self.free.len()], slots: 0 };
        let mut passed = Vec::new();
        while let Some((first, class)) = heads.pop() {
            if self.fits(class) && !self.is_reserved(class, &reserved) {
                for (above, class, slots) in passed {
                    self.overtake(above, class, slots);
                }
                return Some(first.1.0);
            }
            passed.push((first, class, reserved.slots));
            if self.is_at_overtake_limit(first) {
                self.reserve(class, &mut reserved);
            }
        }
        None
    }

    /// Returns true if a task was overtaken as often as allowed.
    fn is_at_overtake_limit(&self, (_, Reverse(task)): RankedTask) -> bool {
        self.tasks[task.index()].overtaken >= self.limits.overtakes_max
    }

    /// Counts that a task of lower rank starts before the first task of a class.
    ///
    /// A task that waits for a slot under `tasks_max` is not overtaken by tasks in progress: these
    /// must continue, or no slot would become free.
    fn overtake(&mut self, (_, Reverse(task)): RankedTask, class: usize, slots_reserved: usize) {
        if self.has_task_slot(class, slots_reserved) {
            let overtaken = &mut self.tasks[task.index()].overtaken;
            *overtaken = overtaken.saturating_add(1);
        }
    }

    /// Returns true if tasks of the class have a slot under `tasks_max`, or need none, or if
    /// another is free.
    fn has_task_slot(&self, class: usize, slots_reserved: usize) -> bool {
        class % 2 == 1 || self.stats.in_flight.saturating_add(slots_reserved) < self.limits.tasks_max
    }

    fn is_reserved(&self, class: usize, reserved: &Reserved) -> bool {
        !self.has_task_slot(class, reserved.slots)
            || self.wants[class / 2].units.iter().any(|(pool, _)| reserved.pools[*pool])
    }

    /// Reserves the resources of the first task of a class. If it waits for a slot under
    /// `tasks_max`, only the next slot is reserved. Otherwise the tasks in progress might be
    /// unable to get the pools that they need to finish, and the run would deadlock.
    fn reserve(&self, class: usize, reserved: &mut Reserved) {
        if self.has_task_slot(class, reserved.slots) {
            self.wants[class / 2].units.iter().for_each(|(pool, _)| reserved.pools[*pool] = true);
        }
        reserved.slots += usize::from(class.is_multiple_of(2));
    }

    /// Returns the first task of a class. Removes tasks that have started in the meantime.
    fn first_of(&mut self, class: usize) -> Option<RankedTask> {
        if self.classes[class].count == 0 {
            self.classes[class].ready.clear();
            return None;
        }
        loop {
            let &first = self.classes[class].ready.peek().expect("a class contains all its ready tasks");
            if self.is_ready(first.1.0, class) {
                return Some(first);
            }
            self.classes[class].ready.pop();
        }
    }

    /// Applies the rules of the order to the choice of a task.
    ///
    /// A rule may select a task of lower rank, unless a task in between was overtaken too often.
    /// Starting the longest task first does not count as overtaking, because only tasks with known
    /// durations, a limited number, can do so. Any number of tasks with the same needs may be
    /// added, so these count.
    fn preferred(&mut self, class: usize, first: RankedTask, blocked: &[(RankedTask, usize)]) -> TaskId {
        let (rank, Reverse(task)) = first;
        if self.order.is_plain() {
            return task;
        }
        let is_allowed = |this: &Self, other: TaskId| {
            let other = (this.tasks[other.index()].rank, Reverse(other));
            !blocked.iter().any(|(above, _)| *above > other && this.is_at_overtake_limit(*above))
        };
        let mut order = std::mem::take(&mut self.order);
        let longest = order.longest_due(self.clock, task, self);
        let same_needs = order.same_needs(class, rank, self).filter(|_| !self.is_at_overtake_limit(first));
        self.order = order;
        if let Some(longest) = longest.filter(|longest| is_allowed(self, *longest)) {
            return longest;
        }
        match same_needs.filter(|same| is_allowed(self, *same)) {
            Some(same) => {
                self.overtake(first, class, 0);
                same
            }
            None => task,
        }
    }

    fn start(&mut self, id: TaskId) {
        let task = &mut self.tasks[id.index()];
        if let TaskState::Ready(since) = task.state {
            self.stats.waited = self.stats.waited.saturating_add(self.clock - since);
        }
        let class = self.class_of(id);
        let task = &mut self.tasks[id.index()];
        if class.is_multiple_of(2) {
            self.stats.in_flight += 1;
            task.has_slot = true;
        }
        task.overtaken = 0;
        task.state = TaskState::Running(self.clock);
        self.stats.ready -= 1;
        self.stats.running += 1;
        self.stats.started += 1;
        self.classes[class].count -= 1;
        // The common case. Removing the task here keeps the heap free of started tasks.
        if self.classes[class].ready.peek().is_some_and(|(_, Reverse(first))| *first == id) {
            self.classes[class].ready.pop();
        }
        self.order.started(class, id, self.clock);
        for &(pool, units) in &self.wants[task.wants as usize].units {
            self.free[pool] -= i64::from(units);
            if let Some(pool) = self.stats.pools.get_mut(pool) {
                pool.take(units);
            }
        }
    }

    fn class_of(&self, id: TaskId) -> usize {
        self.class_of_task(&self.tasks[id.index()])
    }

    /// Returns the class in which a task is queued: the tasks with the same needs that also need a
    /// slot under `tasks_max`, or also need none.
    fn class_of_task(&self, task: &Task) -> usize {
        let has_slot = task.has_slot || !self.wants[task.wants as usize].has_task_slot;
        task.wants as usize * 2 + usize::from(has_slot)
    }

    /// Releases the resources of a running stage. Returns false if the task is not running.
    fn release(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(id.index()) else { return false };
        let TaskState::Running(since) = task.state else { return false };
        let took = self.clock - since;
        task.took = task.took.saturating_add(took);
        self.order.ended(task.wants, id);
        self.stats.busy = self.stats.busy.saturating_add(took);
        self.stats.running -= 1;
        for &(pool, units) in &self.wants[task.wants as usize].units {
            self.free[pool] += i64::from(units);
            if let Some(pool) = self.stats.pools.get_mut(pool) {
                pool.used -= units;
            }
        }
        true
    }

    fn finish(&mut self, id: TaskId, state: TaskState) {
        let task = &mut self.tasks[id.index()];
        if matches!(task.state, TaskState::Waiting(_)) {
            self.order.will_not_start(id);
        }
        self.give_slot_back(id);
        self.tasks[id.index()].state = state;
        match state {
            TaskState::Done => self.stats.done += 1,
            TaskState::Failed => self.stats.failed += 1,
            _ => self.stats.skipped += 1,
        }
    }

    fn advance_clock(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.clock);
        if !passed.is_zero() {
            self.clock = now;
            self.stats.wall = self.clock;
            for pool in &mut self.stats.pools {
                pool.busy = pool.busy.saturating_add(passed.saturating_mul(pool.used));
            }
            self.count_lost_time(passed);
        }
        while self.delayed.peek().is_some_and(|Reverse((until, _))| *until <= self.clock) {
            let Some(Reverse((_, task))) = self.delayed.pop() else { return };
            self.make_ready(task);
        }
    }

    /// Attributes the idle time of workers since the last event to a cause. Nothing changed in
    /// between.
    fn count_lost_time(&mut self, passed: Duration) {
        let Some(workers) = self.workers.filter(|_| self.stats.begun) else { return };
        let ResourceStats { limit, admitted, used, .. } = self.stats.pools[workers];
        let ScheduleStats { ready, delayed, waiting, lost, .. } = &mut self.stats;
        let refused = limit - admitted.max(used).min(limit);
        lost.worker = lost.worker.saturating_add(passed.saturating_mul(refused));
        let idle = passed.saturating_mul((limit - refused).saturating_sub(used));
        let cause = if self.paused && *ready > 0 {
            &mut lost.worker
        } else if *ready > 0 && !self.stopped {
            &mut lost.resource
        } else if *delayed > 0 {
            &mut lost.retry
        } else if *waiting > 0 && !self.stopped {
            &mut lost.dependency
        } else {
            &mut lost.tail
        };
        *cause = cause.saturating_add(idle);
    }
}

impl Choice for Dispatcher {
    fn is_ready(&self, task: TaskId, class: usize) -> bool {
        let task = &self.tasks[task.index()];
        matches!(task.state, TaskState::Ready(_)) && self.class_of_task(task) == class
    }

    fn fits(&self, class: usize) -> bool {
        // The admitted units may be fewer than a stage needs, permanently. Such a stage runs when
        // no other stage uses the pool.
        let is_idle = |pool: usize| self.stats.pools.get(pool).is_some_and(|pool| pool.used == 0);
        let mut wants = self.wants[class / 2].units.iter();
        self.has_task_slot(class, 0)
            && wants.all(|&(pool, units)| i64::from(units) <= self.free[pool] || is_idle(pool))
    }

    fn first(&self, class: usize) -> Option<(u64, TaskId)> {
        self.classes[class].ready.peek().map(|&(rank, Reverse(task))| (rank, task))
    }
}

fn too_small(id: &str, (resource, wanted, limit): (String, u32, u32)) -> Error {
    Error::ResourceTooSmall { id: id.to_owned(), resource, wanted, limit }
}

#[cfg(test)]
mod tests;
