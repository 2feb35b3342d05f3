//! Decides what starts when: a pure state machine over events and the time they come with.
//!
//! Unaware of clocks, threads, futures and of what a task does: [`Executor`](crate::Executor) is the
//! shell that performs its decisions, and a simulation in virtual time is another.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::order::{Choice, Order};
use crate::resource::{Pools, Want};
use crate::stats::{ResourceStats, ScheduleStats};
use crate::{Error, Graph, Needs, Resources, TaskId};

/// The pool that lost time is told for.
const WORKERS: &str = "workers";

/// What is decided by the caller before the first task starts.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The pools that tasks draw on. One called `workers` is what [`ScheduleStats::lost`] is about.
    pub resources: Resources,
    /// Tasks begun and not yet finished, over all their stages; at least 1. Default: no limit.
    pub tasks_max: usize,
    /// How often a ready stage that does not fit may be overtaken by stages of lower rank that do; 0
    /// for never, default 16.
    ///
    /// After that, every pool and lock that it needs, and a place under `tasks_max`, are left to it:
    /// stages of lower rank that need any of these do not start before it, so it starts as soon as
    /// the stages that hold them now, and those of higher rank, have ended. Stages that need none of
    /// them go on. While as many tasks as
    /// `tasks_max` allows have begun, only the next place is left to it, and the tasks that have
    /// begun go on. Of stages with the same needs only the one of highest rank counts.
    pub overtakes_max: u32,
    /// What a failure means for tasks that do not depend on it.
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

/// What a failed task means for the tasks that do not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They run all the same.
    #[default]
    KeepGoing,
    /// Those that run are waited for; nothing new starts.
    StopAtFirst,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchEvent<'a> {
    /// The run begins. Sent once, first.
    Begin,
    /// A stage ended well and the task has another, with these needs. It queues again at its old priority.
    Next(TaskId, &'a Needs),
    /// A task ended well: what waited only for it may start.
    Done(TaskId),
    /// A task failed: whatever depends on it is skipped.
    Failed(TaskId),
    /// A stage failed and shall be tried again after this delay. It holds nothing meanwhile, and then queues at its old priority.
    Retry(TaskId, Duration),
    /// Time has passed: see [`Dispatcher::wakes_at`].
    Tick,
    /// So many units of that pool may be used from now on, up to those that exist. What runs goes on. A pool that does not exist is ignored.
    Admit(&'a str, u32),
    /// Nothing starts until [`Resume`](Self::Resume). What runs goes on.
    Pause,
    /// Starting goes on.
    Resume,
    /// Nothing further shall start.
    Stop,
}

/// What to do about it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the task's current stage.
    Start(TaskId),
    /// The task will never start, because of that failed ancestor.
    Skip(TaskId, TaskId),
}

/// Where a task is in its life. [`Dispatcher::handle`] alone moves tasks between states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Waits for so many dependencies.
    Waiting(u32),
    /// Could start if resources allowed; since when.
    Ready(Duration),
    /// A stage of it runs; since when.
    Running(Duration),
    /// A stage of it failed and is tried again then.
    Delayed(Duration),
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Never started, because of that failed ancestor.
    Skipped(TaskId),
}

/// A task that is added while others run.
#[derive(Debug, Clone, Copy)]
pub struct Addition<'a> {
    /// Its name, for errors. Whether it is taken is not checked.
    pub id: &'a str,
    /// Its rank among the others, highest first.
    pub rank: u64,
    /// What its first stage holds.
    pub needs: &'a Needs,
    /// What it waits for, in any state: of a failed one it is skipped.
    pub after: &'a [TaskId],
    /// What shall wait for it, and waits for others still.
    pub before: &'a [TaskId],
}

/// The decisions for one run of one graph. A clone goes its own way, as a simulation needs it.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    limits: Limits,
    tasks: Vec<Task>,
    /// Dependants of all tasks in one row, task after task; `Task::dependants` is a range in it.
    dependants: Vec<TaskId>,
    /// Dependants that came to be since.
    added: HashMap<TaskId, Vec<TaskId>>,
    pools: Pools,
    free: Vec<i64>,
    /// What stages need, each once.
    needs: HashMap<Needs, u32>,
    /// The last of them, since neighbours often need the same.
    last_needs: Option<(Needs, u32)>,
    wants: Vec<Box<[Want]>>,
    /// Two for each of `needs`: of tasks not begun yet, and of tasks begun.
    classes: Vec<Class>,
    delayed: BinaryHeap<Reverse<(Duration, TaskId)>>,
    order: Order,
    workers: Option<usize>,
    paused: bool,
    stopped: bool,
    clock: Duration,
    stats: ScheduleStats,
}

#[derive(Debug, Clone)]
struct Task {
    state: TaskState,
    rank: u64,
    dependants: std::ops::Range<u32>,
    /// What the current stage wants or holds: a place in `Dispatcher::wants`.
    wants: u32,
    overtaken: u32,
    begun: bool,
    /// How long its stages ran, all together.
    took: Duration,
}

/// Ready tasks that want the same, so that when the first does not fit none does.
#[derive(Debug, Clone, Default)]
struct Class {
    /// Highest first. May hold a task that has started by another way since.
    ready: BinaryHeap<First>,
    /// How many are ready indeed.
    count: usize,
}

/// A task with its rank, as ready tasks are compared: by rank, then in the order of adding.
type First = (u64, Reverse<TaskId>);

/// What is left to tasks that were overtaken too often.
#[derive(Debug)]
struct Reserved {
    /// Whether a pool is, by its number.
    pools: Vec<bool>,
    /// How many tasks may begin fewer than `tasks_max` says.
    places: usize,
}

impl Dispatcher {
    /// A dispatcher for a graph, given each task's rank (highest first) and the needs of its first stage. In O(tasks + dependencies).
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`] for a task that could never start; [`Error::InvalidLimit`] if
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
        let numbers = Pools::new(&limits.resources);
        let mut dispatcher = Self {
            free: numbers.limits.iter().map(|&units| units.into()).collect(),
            workers: numbers.number(WORKERS),
            pools: numbers,
            limits,
            tasks: Vec::with_capacity(graph.len()),
            dependants: Vec::new(),
            added: HashMap::new(),
            needs: HashMap::new(),
            last_needs: None,
            wants: Vec::new(),
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
            let wants = dispatcher.number_of(&needs(task)).map_err(|lack| too_small(graph.id(task), lack))?;
            dispatcher.tasks.push(Task {
                state: TaskState::Waiting(graph.dependencies(task).len() as u32),
                rank: ranks.get(task.index()).copied().unwrap_or(0),
                dependants: from..dispatcher.dependants.len() as u32,
                wants,
                overtaken: 0,
                begun: false,
                took: Duration::ZERO,
            });
        }
        Ok(dispatcher)
    }

    /// Lets rules of an order choose among what is ready, beside the ranks. Before the run begins.
    #[must_use]
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Takes note of an event at a time since the start of the run, and says what to do.
    ///
    /// Times must not go backwards; one that does counts as no time passed. An event about a task that
    /// is in no state to have it (done twice, say), or that does not exist, changes nothing. Sums of
    /// times that are longer than [`Duration::MAX`] are that.
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`] when a next stage could never start; the task then counts as failed
    /// and the actions hold what follows from that.
    pub fn handle(
        &mut self,
        now: Duration,
        event: DispatchEvent<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Error> {
        self.pass_time(now);
        let result = self.take_note(event, actions);
        self.start_what_fits(actions);
        result
    }

    fn take_note(&mut self, event: DispatchEvent<'_>, actions: &mut Vec<Action>) -> Result<(), Error> {
        match event {
            DispatchEvent::Begin => self.begin(),
            DispatchEvent::Next(task, needs) => return self.next_stage(task, needs, actions),
            DispatchEvent::Done(task) => self.done(task),
            DispatchEvent::Failed(task) => self.failed(task, actions),
            DispatchEvent::Retry(task, delay) => self.delay(task, delay),
            // Time has passed already.
            DispatchEvent::Tick => {}
            DispatchEvent::Admit(pool, units) => self.admit(pool, units),
            DispatchEvent::Pause => self.paused = true,
            DispatchEvent::Resume => self.paused = false,
            DispatchEvent::Stop => self.stopped = true,
        }
        Ok(())
    }

    /// Counts a task as done before the run begins: it was finished by an earlier, interrupted run. A
    /// task that does not exist changes nothing.
    pub fn already_done(&mut self, task: TaskId) {
        if self.tasks.get(task.index()).is_some_and(|task| matches!(task.state, TaskState::Waiting(_))) {
            self.stats.waiting -= 1;
            self.finish(task, TaskState::Done);
            self.release_dependants(task);
        }
    }

    /// Adds a task to the run, at a time since its start.
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`]; [`Error::UnknownTask`]; [`Error::NotWaiting`] if one of `before` may have started already;
    /// [`Error::AddedCycle`] if one of `after` is, or depends on, one of `before`. Nothing is added then.
    pub fn add(
        &mut self,
        now: Duration,
        addition: Addition<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<TaskId, Error> {
        self.pass_time(now);
        let Addition { id, rank, needs, after, before } = addition;
        if let Some(unknown) = after.iter().chain(before).find(|task| task.index() >= self.tasks.len()) {
            return Err(Error::UnknownTask { id: id.to_owned(), index: unknown.index() });
        }
        let is_waiting = |task: &&TaskId| matches!(self.tasks[task.index()].state, TaskState::Waiting(_));
        if !before.iter().all(|task| is_waiting(&task)) {
            return Err(Error::NotWaiting { id: id.to_owned() });
        }
        if self.leads_to(before, after) {
            return Err(Error::AddedCycle { id: id.to_owned() });
        }
        let wants = self.number_of(needs).map_err(|lack| too_small(id, lack))?;
        let task = TaskId::from_index(self.tasks.len());
        let open: Vec<TaskId> = after.iter().copied().filter(|task| !self.is_settled(*task)).collect();
        let state = TaskState::Waiting(open.len() as u32);
        let none = self.dependants.len() as u32;
        let (dependants, took) = (none..none, Duration::ZERO);
        self.tasks.push(Task { state, rank, dependants, wants, overtaken: 0, begun: false, took });
        (self.stats.tasks, self.stats.waiting) = (self.stats.tasks + 1, self.stats.waiting + 1);
        open.iter().for_each(|before| self.added.entry(*before).or_default().push(task));
        self.hold_back(task, before);
        match after.iter().find_map(|after| self.failed_ancestor(*after)) {
            Some(failed) => self.skip_from(task, failed, actions),
            None if open.is_empty() && self.stats.begun => self.make_ready(task),
            None => {}
        }
        self.start_what_fits(actions);
        Ok(task)
    }

    /// When a [`Tick`](DispatchEvent::Tick) is due, as a time since the start of the run: a stage is to be tried again then.
    pub fn wakes_at(&self) -> Option<Duration> {
        self.delayed.peek().map(|Reverse((until, _))| *until)
    }

    /// Where a task is.
    ///
    /// # Panics
    /// If the task does not exist.
    pub fn state(&self, task: TaskId) -> TaskState {
        self.tasks[task.index()].state
    }

    /// How long a task's stages ran, all together, as far as they ended.
    ///
    /// # Panics
    /// If the task does not exist.
    pub fn running_time(&self, task: TaskId) -> Duration {
        self.tasks[task.index()].took
    }

    /// How often stages of lower rank have started before a task's current stage since it is ready:
    /// see [`Limits::overtakes_max`].
    ///
    /// # Panics
    /// If the task does not exist.
    pub fn overtaken(&self, task: TaskId) -> u32 {
        self.tasks[task.index()].overtaken
    }

    /// Whether nothing runs and nothing further will.
    pub fn is_finished(&self) -> bool {
        let ScheduleStats { running, ready, delayed, .. } = self.stats;
        running == 0 && (self.stopped || (ready == 0 && delayed == 0))
    }

    /// The figures up to the last event.
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
        if !self.give_back(task) {
            return Ok(());
        }
        match self.number_of(needs) {
            Ok(wants) => {
                self.tasks[task.index()].wants = wants;
                self.make_ready(task);
                Ok(())
            }
            Err(lack) => {
                self.fail(task, actions);
                // Names of tasks are the caller's.
                Err(too_small(&format!("#{}", task.index()), lack))
            }
        }
    }

    fn done(&mut self, task: TaskId) {
        if self.give_back(task) {
            self.finish(task, TaskState::Done);
            self.release_dependants(task);
        }
    }

    fn failed(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if self.give_back(task) {
            self.fail(task, actions);
        }
    }

    fn fail(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        self.finish(task, TaskState::Failed);
        self.stopped |= self.limits.on_failure == OnFailure::StopAtFirst;
        self.skip_dependants(task, task, actions);
    }

    fn delay(&mut self, task: TaskId, delay: Duration) {
        if self.give_back(task) {
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

    /// Skips a task that waits, and what depends on it.
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

    /// Has tasks that wait wait for one more.
    fn hold_back(&mut self, task: TaskId, before: &[TaskId]) {
        for later in before {
            if let TaskState::Waiting(count) = &mut self.tasks[later.index()].state {
                *count += 1;
                self.added.entry(task).or_default().push(*later);
            }
        }
    }

    fn is_settled(&self, task: TaskId) -> bool {
        matches!(self.tasks[task.index()].state, TaskState::Done | TaskState::Failed | TaskState::Skipped(_))
    }

    fn failed_ancestor(&self, task: TaskId) -> Option<TaskId> {
        match self.tasks[task.index()].state {
            TaskState::Failed => Some(task),
            TaskState::Skipped(failed) => Some(failed),
            _ => None,
        }
    }

    /// Whether one of `to` is, or depends on, one of `from`.
    fn leads_to(&mut self, from: &[TaskId], to: &[TaskId]) -> bool {
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

    /// The place of needs in `wants`.
    fn number_of(&mut self, needs: &Needs) -> Result<u32, (String, u32, u32)> {
        if let Some((last, number)) = &self.last_needs
            && last == needs
        {
            return Ok(*number);
        }
        let number = match self.needs.get(needs) {
            Some(&number) => number,
            None => {
                let wants = self.pools.resolve(needs)?;
                self.free.extend(self.pools.limits[self.free.len()..].iter().map(|&units| i64::from(units)));
                self.wants.push(wants);
                self.classes.extend([Class::default(), Class::default()]);
                let number = (self.wants.len() - 1) as u32;
                self.needs.insert(needs.clone(), number);
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
        let class = task.class();
        self.classes[class].ready.push((task.rank, Reverse(id)));
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

    /// The ready task of the highest rank that can start now, or the one that the order's rules
    /// prefer to it. Tasks above it that cannot start are overtaken by it.
    fn best_that_fits(&mut self) -> Option<TaskId> {
        let mut fitting: Option<(First, usize)> = None;
        let mut blocked: Vec<(First, usize)> = Vec::new();
        for at in 0..self.classes.len() {
            let Some(first) = self.first_of(at) else { continue };
            if !self.fits(at) {
                blocked.push((first, at));
            } else if fitting.is_none_or(|(best, _)| first > best) {
                fitting = Some((first, at));
            }
        }
        let (first, class) = fitting?;
        if blocked.iter().any(|(above, _)| *above > first && self.is_owed(*above)) {
            return self.best_not_reserved();
        }
        let task = self.preferred(class, first, &blocked);
        let chosen = (self.tasks[task.index()].rank, Reverse(task));
        for (above, class) in blocked.into_iter().filter(|(above, _)| *above > chosen) {
            self.overtake(above, class, 0);
        }
        Some(task)
    }

    /// Like [`best_that_fits`](Self::best_that_fits) while a task was overtaken too often: leaves
    /// what is reserved for such tasks to them and to tasks above them.
    ///
    /// This is backfilling as batch schedulers do it, except that the end of what runs is not
    /// predicted (Mu'alem and Feitelson, "Utilization, Predictability, Workloads, and User Runtime
    /// Estimates in Scheduling the IBM SP2 with Backfilling", 2001).
    fn best_not_reserved(&mut self) -> Option<TaskId> {
        let first = |at: usize| Some((*self.classes[at].ready.peek()?, at));
        let mut heads: BinaryHeap<(First, usize)> = (0..self.classes.len()).filter_map(first).collect();
        let mut reserved = Reserved { pools: vec![false; self.free.len()], places: 0 };
        let mut passed = Vec::new();
        while let Some((first, class)) = heads.pop() {
            if self.fits(class) && !self.is_reserved(class, &reserved) {
                for (above, class, places) in passed {
                    self.overtake(above, class, places);
                }
                return Some(first.1.0);
            }
            passed.push((first, class, reserved.places));
            if self.is_owed(first) {
                self.reserve(class, &mut reserved);
            }
        }
        None
    }

    /// Whether a task was overtaken as often as is allowed.
    fn is_owed(&self, (_, Reverse(task)): First) -> bool {
        self.tasks[task.index()].overtaken >= self.limits.overtakes_max
    }

    /// Counts that a task of lower rank starts before the first of a class.
    ///
    /// One that waits for a place under `tasks_max` is not overtaken by a task that has one: such
    /// tasks have to go on, else no place falls free.
    fn overtake(&mut self, (_, Reverse(task)): First, class: usize, places_reserved: usize) {
        if self.has_place(class, places_reserved) {
            let overtaken = &mut self.tasks[task.index()].overtaken;
            *overtaken = overtaken.saturating_add(1);
        }
    }

    /// Whether `tasks_max` lets a task of a class begin, or it has begun already.
    fn has_place(&self, class: usize, places_reserved: usize) -> bool {
        class % 2 == 1 || self.stats.in_flight.saturating_add(places_reserved) < self.limits.tasks_max
    }

    fn is_reserved(&self, class: usize, reserved: &Reserved) -> bool {
        !self.has_place(class, reserved.places)
            || self.wants[class / 2].iter().any(|(pool, _)| reserved.pools[*pool])
    }

    /// Reserves what the first task of a class needs. While it waits for a place under `tasks_max`,
    /// that is the next place and nothing else: the tasks that have the places may need the pools
    /// in order to end, and if they could not get them, nothing would ever run again.
    fn reserve(&self, class: usize, reserved: &mut Reserved) {
        if self.has_place(class, reserved.places) {
            self.wants[class / 2].iter().for_each(|(pool, _)| reserved.pools[*pool] = true);
        }
        reserved.places += usize::from(class.is_multiple_of(2));
    }

    /// The first task of a class, once those are gone that have started by another way.
    fn first_of(&mut self, class: usize) -> Option<First> {
        if self.classes[class].count == 0 {
            self.classes[class].ready.clear();
            return None;
        }
        loop {
            let &first = self.classes[class].ready.peek().expect("as many are in it as are ready");
            if self.is_ready(first.1.0, class) {
                return Some(first);
            }
            self.classes[class].ready.pop();
        }
    }

    /// What the order's rules make of the choice of a task.
    ///
    /// A rule may choose a task of lower rank, but none below a task that was overtaken too often.
    /// The longest task goes first without counting as overtaking, since there are only so many
    /// tasks whose durations are known; of those with the same needs, any number may be added.
    fn preferred(&mut self, class: usize, first: First, blocked: &[(First, usize)]) -> TaskId {
        let (rank, Reverse(task)) = first;
        if self.order.is_plain() {
            return task;
        }
        let is_allowed = |this: &Self, other: TaskId| {
            let other = (this.tasks[other.index()].rank, Reverse(other));
            !blocked.iter().any(|(above, _)| *above > other && this.is_owed(*above))
        };
        let mut order = std::mem::take(&mut self.order);
        let longest = order.longest_due(self.clock, task, self);
        let same_needs = order.same_needs(class, rank, self).filter(|_| !self.is_owed(first));
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
        let class = task.class();
        self.stats.in_flight += usize::from(!task.begun);
        task.begun = true;
        task.overtaken = 0;
        task.state = TaskState::Running(self.clock);
        self.stats.ready -= 1;
        self.stats.running += 1;
        self.stats.started += 1;
        self.classes[class].count -= 1;
        // Where it usually is, so that heaps do not fill with what has started.
        if self.classes[class].ready.peek().is_some_and(|(_, Reverse(first))| *first == id) {
            self.classes[class].ready.pop();
        }
        self.order.started(class, id, self.clock);
        for &(pool, units) in &self.wants[task.wants as usize] {
            self.free[pool] -= i64::from(units);
            if let Some(pool) = self.stats.pools.get_mut(pool) {
                pool.take(units);
            }
        }
    }

    /// Takes back what a running stage held; false if the task was not running.
    fn give_back(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(id.index()) else { return false };
        let TaskState::Running(since) = task.state else { return false };
        let took = self.clock - since;
        task.took = task.took.saturating_add(took);
        self.order.ended(task.wants, id);
        self.stats.busy = self.stats.busy.saturating_add(took);
        self.stats.running -= 1;
        for &(pool, units) in &self.wants[task.wants as usize] {
            self.free[pool] += i64::from(units);
            if let Some(pool) = self.stats.pools.get_mut(pool) {
                pool.used -= units;
            }
        }
        true
    }

    fn finish(&mut self, id: TaskId, state: TaskState) {
        let task = &mut self.tasks[id.index()];
        self.stats.in_flight -= usize::from(task.begun);
        if !task.begun {
            self.order.will_not_start(id);
        }
        task.state = state;
        match state {
            TaskState::Done => self.stats.done += 1,
            TaskState::Failed => self.stats.failed += 1,
            _ => self.stats.skipped += 1,
        }
    }

    fn pass_time(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.clock);
        if !passed.is_zero() {
            self.clock = now;
            self.stats.wall = self.clock;
            for pool in &mut self.stats.pools {
                pool.busy = pool.busy.saturating_add(passed.saturating_mul(pool.used));
            }
            self.count_lost(passed);
        }
        while self.delayed.peek().is_some_and(|Reverse((until, _))| *until <= self.clock) {
            let Some(Reverse((_, task))) = self.delayed.pop() else { return };
            self.make_ready(task);
        }
    }

    /// Why workers were idle in the time that has just passed, in which nothing changed.
    fn count_lost(&mut self, passed: Duration) {
        let Some(workers) = self.workers.filter(|_| self.stats.begun) else { return };
        let ResourceStats { limit, admitted, used, .. } = self.stats.pools[workers];
        let ScheduleStats { ready, delayed, waiting, lost, .. } = &mut self.stats;
        let refused = limit - admitted.max(used).min(limit);
        lost.worker = lost.worker.saturating_add(passed.saturating_mul(refused));
        let idle = passed.saturating_mul((limit - refused).saturating_sub(used));
        let cause = match () {
            () if self.paused && *ready > 0 => &mut lost.worker,
            () if *ready > 0 && !self.stopped => &mut lost.resource,
            () if *delayed > 0 => &mut lost.retry,
            () if *waiting > 0 && !self.stopped => &mut lost.dependency,
            () => &mut lost.tail,
        };
        *cause = cause.saturating_add(idle);
    }
}

impl Choice for Dispatcher {
    fn is_ready(&self, task: TaskId, class: usize) -> bool {
        let task = &self.tasks[task.index()];
        matches!(task.state, TaskState::Ready(_)) && task.class() == class
    }

    fn fits(&self, class: usize) -> bool {
        // What is admitted may be less than what a stage needs, for ever; then it runs when no other uses the pool.
        let is_idle = |pool: usize| self.stats.pools.get(pool).is_some_and(|pool| pool.used == 0);
        let mut wants = self.wants[class / 2].iter();
        self.has_place(class, 0)
            && wants.all(|&(pool, units)| i64::from(units) <= self.free[pool] || is_idle(pool))
    }

    fn first(&self, class: usize) -> Option<(u64, TaskId)> {
        self.classes[class].ready.peek().map(|&(rank, Reverse(task))| (rank, task))
    }
}

impl Task {
    /// Where it queues: beside others that want the same and have begun, or have not.
    fn class(&self) -> usize {
        self.wants as usize * 2 + usize::from(self.begun)
    }
}

fn too_small(id: &str, (resource, wanted, limit): (String, u32, u32)) -> Error {
    Error::ResourceTooSmall { id: id.to_owned(), resource, wanted, limit }
}
