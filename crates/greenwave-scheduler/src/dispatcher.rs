//! Decides which tasks start when, as a pure state machine over events and their times.
//!
//! Must not depend on clocks, threads or futures: [`Executor`](crate::Executor) performs the
//! decisions on tokio, and simulations perform them in virtual time.

mod dependants;
mod event;
mod limits;
mod start;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub use self::event::{Action, Addition, DispatchEvent, TaskState};
pub use self::limits::{Limits, OnFailure};
use crate::order::Order;
use crate::resource::{ResourcePools, UnitsNeeded};
use crate::stats::{ResourceStats, ScheduleStats};
use crate::{Error, Graph, Needs, TaskId};

/// The pool that lost time is computed for.
const WORKERS: &str = "workers";

/// The decisions for one run of one graph. Clones are independent, which simulations use.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    limits: Arc<Limits>,
    tasks: Vec<Task>,
    /// Number of tasks of the graph. Added ones follow.
    graph_tasks: usize,
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
    /// Whether the stage overtakes only those that lack units which it takes.
    is_background: bool,
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
            graph_tasks: graph.len(),
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
        self.stats.added += 1;
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
                let (has_task_slot, is_background) = (needs.has_task_slot(), needs.is_background());
                let wants = Wants { units, has_task_slot, is_background };
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
            TaskState::Done => {
                self.stats.done += 1;
                self.stats.added_done += usize::from(id.index() >= self.graph_tasks);
            }
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

fn too_small(id: &str, (resource, wanted, limit): (String, u32, u32)) -> Error {
    Error::ResourceTooSmall { id: id.to_owned(), resource, wanted, limit }
}

#[cfg(test)]
mod tests;
