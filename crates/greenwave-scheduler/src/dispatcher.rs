//! Decides what starts when: a pure state machine over events and the time they come with.
//!
//! Unaware of clocks, threads, futures and of what a task does: [`Executor`](crate::Executor) is the
//! shell that performs its decisions, and a simulation in virtual time is another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::stats::{PoolStats, Stats};
use crate::{Error, Graph, Needs, Resources, TaskId};

/// What is decided by the caller before the first task starts.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The pools that tasks draw on.
    pub resources: Resources,
    /// Tasks begun and not yet finished, over all their stages; from 1.
    pub tasks_max: usize,
    /// How often a ready task may be overtaken by lower ones that fit where it does not, before what
    /// it waits for is kept free for it.
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
pub enum Event<'a> {
    /// The run begins. Sent once, first.
    Begin,
    /// A stage ended well and the task has another, with these needs. It queues again at its old priority.
    Next(TaskId, &'a Needs),
    /// A task ended well: what waited only for it may start.
    Done(TaskId),
    /// A task failed: whatever depends on it is skipped.
    Failed(TaskId),
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
pub enum State {
    /// Waits for so many dependencies.
    Waiting(u32),
    /// Could start if resources allowed; since when.
    Ready(Duration),
    /// A stage of it runs; since when.
    Running(Duration),
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Never started, because of that failed ancestor.
    Skipped(TaskId),
}

/// The decisions for one run of one graph.
#[derive(Debug)]
pub struct Dispatcher {
    limits: Limits,
    tasks: Vec<Task>,
    /// Dependants of all tasks in one row, task after task; `Task::dependants` is a range in it.
    dependants: Vec<TaskId>,
    classes: Vec<Class>,
    free: Vec<u32>,
    stopped: bool,
    clock: Duration,
    stats: Stats,
}

#[derive(Debug)]
struct Task {
    state: State,
    rank: u64,
    /// Units of each pool that the current stage wants or holds.
    needs: Box<[u32]>,
    dependants: std::ops::Range<u32>,
    begun: bool,
    overtaken: u32,
}

/// Ready tasks that want the same, so that when the first does not fit none does.
#[derive(Debug)]
struct Class {
    needs: Box<[u32]>,
    begun: bool,
    ready: BinaryHeap<(u64, Reverse<TaskId>)>,
}

impl Dispatcher {
    /// A dispatcher for a graph, given each task's rank (highest first) and the needs of its first stage.
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`] for a task that could never start.
    pub fn new<T>(
        graph: &Graph<T>,
        limits: Limits,
        ranks: &[u64],
        mut needs: impl FnMut(TaskId) -> Needs,
    ) -> Result<Self, Error> {
        let mut dependants = Vec::new();
        let mut tasks = Vec::with_capacity(graph.len());
        for task in graph.tasks() {
            let from = dependants.len() as u32;
            dependants.extend(graph.dependants(task));
            tasks.push(Task {
                state: State::Waiting(graph.dependencies(task).len() as u32),
                rank: ranks.get(task.index()).copied().unwrap_or(0),
                needs: resolve(&limits.resources, graph.id(task), &needs(task))?,
                dependants: from..dependants.len() as u32,
                begun: false,
                overtaken: 0,
            });
        }
        let free: Vec<u32> = limits.resources.pools.iter().map(|&(_, units)| units).collect();
        let pools = limits.resources.pools.iter().map(|(name, limit)| PoolStats::new(name, *limit)).collect();
        let stats = Stats::new(tasks.len(), pools);
        let clock = Duration::ZERO;
        Ok(Self { limits, tasks, dependants, classes: Vec::new(), free, stopped: false, clock, stats })
    }

    /// Takes note of an event at a time since the start of the run, and says what to do.
    ///
    /// Times must not go backwards; one that does counts as no time passed. An event about a task that
    /// is in no state to have it (done twice, say) changes nothing.
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`] when a next stage could never start; the task then counts as failed
    /// and the actions hold what follows from that.
    pub fn handle(
        &mut self,
        now: Duration,
        event: Event<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Error> {
        self.pass_time(now);
        let result = match event {
            Event::Begin => self.begin(),
            Event::Next(task, needs) => self.next_stage(task, needs, actions),
            Event::Done(task) => self.done(task),
            Event::Failed(task) => self.failed(task, actions),
            Event::Stop => {
                self.stopped = true;
                Ok(())
            }
        };
        self.start_what_fits(actions);
        result
    }

    /// Counts a task as done before the run begins: it was finished by an earlier, interrupted run.
    pub fn already_done(&mut self, task: TaskId) {
        if !matches!(self.tasks[task.index()].state, State::Done) {
            self.finish(task, State::Done);
            self.release_dependants(task);
        }
    }

    /// Where a task is.
    pub fn state(&self, task: TaskId) -> State {
        self.tasks[task.index()].state
    }

    /// Whether nothing runs and nothing further will.
    pub fn is_finished(&self) -> bool {
        self.stats.running == 0
            && (self.stopped || self.stats.finished() == self.tasks.len() || self.classes_empty())
    }

    /// The figures up to the last event.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.stats.begun = true;
        for at in 0..self.tasks.len() {
            if self.tasks[at].state == State::Waiting(0) {
                self.make_ready(TaskId(at as u32));
            }
        }
        Ok(())
    }

    fn next_stage(&mut self, task: TaskId, needs: &Needs, actions: &mut Vec<Action>) -> Result<(), Error> {
        if !self.give_back(task) {
            return Ok(());
        }
        match resolve(&self.limits.resources, "", needs) {
            Ok(needs) => {
                self.tasks[task.index()].needs = needs;
                self.make_ready(task);
                Ok(())
            }
            Err(error) => {
                self.fail(task, actions);
                Err(error)
            }
        }
    }

    fn done(&mut self, task: TaskId) -> Result<(), Error> {
        if self.give_back(task) {
            self.finish(task, State::Done);
            self.release_dependants(task);
        }
        Ok(())
    }

    fn failed(&mut self, task: TaskId, actions: &mut Vec<Action>) -> Result<(), Error> {
        if self.give_back(task) {
            self.fail(task, actions);
        }
        Ok(())
    }

    fn fail(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        self.finish(task, State::Failed);
        self.stopped |= self.limits.on_failure == OnFailure::StopAtFirst;
        self.skip_dependants(task, actions);
    }

    fn skip_dependants(&mut self, failed: TaskId, actions: &mut Vec<Action>) {
        let mut reached = vec![failed];
        while let Some(task) = reached.pop() {
            for at in self.tasks[task.index()].dependants.clone() {
                let dependant = self.dependants[at as usize];
                if matches!(self.tasks[dependant.index()].state, State::Waiting(_)) {
                    self.finish(dependant, State::Skipped(failed));
                    actions.push(Action::Skip(dependant, failed));
                    reached.push(dependant);
                }
            }
        }
    }

    fn release_dependants(&mut self, task: TaskId) {
        for at in self.tasks[task.index()].dependants.clone() {
            let dependant = self.dependants[at as usize];
            if let State::Waiting(count) = &mut self.tasks[dependant.index()].state {
                *count -= 1;
                // Before `Begin`, whatever is ready by then is found there.
                if *count == 0 && self.stats.begun {
                    self.make_ready(dependant);
                }
            }
        }
    }

    fn make_ready(&mut self, id: TaskId) {
        let task = &mut self.tasks[id.index()];
        task.state = State::Ready(self.clock);
        task.overtaken = 0;
        self.stats.ready += 1;
        let class = self.classes.iter().position(|it| it.begun == task.begun && it.needs == task.needs);
        let class = class.unwrap_or_else(|| {
            let (needs, begun) = (task.needs.clone(), task.begun);
            self.classes.push(Class { needs, begun, ready: BinaryHeap::new() });
            self.classes.len() - 1
        });
        self.classes[class].ready.push((task.rank, Reverse(id)));
    }

    fn start_what_fits(&mut self, actions: &mut Vec<Action>) {
        while !self.stopped {
            let Some(class) = self.best_that_fits() else { return };
            let (_, Reverse(task)) =
                self.classes[class].ready.pop().expect("only classes with a task are chosen");
            self.start(task);
            actions.push(Action::Start(task));
        }
    }

    /// The class whose first task has the highest rank of those that can start now. Those above it that
    /// cannot are overtaken; one overtaken too often keeps what it lacks from those below.
    fn best_that_fits(&mut self) -> Option<usize> {
        let mut order: Vec<usize> =
            (0..self.classes.len()).filter(|&at| !self.classes[at].ready.is_empty()).collect();
        order.sort_unstable_by_key(|&at| Reverse(self.classes[at].ready.peek().copied()));
        let mut reserved = vec![false; self.free.len()];
        let mut overtaken = Vec::new();
        for at in order {
            let class = &self.classes[at];
            if self.fits(class, &reserved) {
                for task in overtaken {
                    let task: TaskId = task;
                    self.tasks[task.index()].overtaken += 1;
                }
                return Some(at);
            }
            let &(_, Reverse(first)) = class.ready.peek().expect("empty classes were left out");
            if self.tasks[first.index()].overtaken >= self.limits.overtakes_max {
                reserved.iter_mut().zip(&class.needs).for_each(|(kept, &wanted)| *kept |= wanted > 0);
            }
            overtaken.push(first);
        }
        None
    }

    fn fits(&self, class: &Class, reserved: &[bool]) -> bool {
        let admitted = class.begun || self.stats.in_flight < self.limits.tasks_max;
        let mut pools = class.needs.iter().zip(&self.free).zip(reserved);
        admitted && pools.all(|((&wanted, &free), &kept)| wanted == 0 || (wanted <= free && !kept))
    }

    fn start(&mut self, id: TaskId) {
        let task = &mut self.tasks[id.index()];
        if let State::Ready(since) = task.state {
            self.stats.waited += self.clock - since;
        }
        self.stats.in_flight += usize::from(!task.begun);
        task.begun = true;
        task.state = State::Running(self.clock);
        self.stats.ready -= 1;
        self.stats.running += 1;
        for (at, wanted) in task.needs.iter().enumerate() {
            self.free[at] -= wanted;
            self.stats.pools[at].take(*wanted);
        }
    }

    /// Takes back what a running stage held; false if the task was not running.
    fn give_back(&mut self, id: TaskId) -> bool {
        let task = &mut self.tasks[id.index()];
        let State::Running(since) = task.state else { return false };
        self.stats.busy += self.clock - since;
        self.stats.running -= 1;
        for (at, held) in task.needs.iter().enumerate() {
            self.free[at] += held;
            self.stats.pools[at].used -= held;
        }
        true
    }

    fn finish(&mut self, id: TaskId, state: State) {
        let task = &mut self.tasks[id.index()];
        self.stats.in_flight -= usize::from(task.begun);
        task.state = state;
        match state {
            State::Done => self.stats.done += 1,
            State::Failed => self.stats.failed += 1,
            _ => self.stats.skipped += 1,
        }
    }

    fn pass_time(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.clock);
        self.clock += passed;
        self.stats.wall = self.clock;
        for pool in &mut self.stats.pools {
            pool.busy += passed * pool.used;
        }
    }

    fn classes_empty(&self) -> bool {
        self.classes.iter().all(|class| class.ready.is_empty())
    }
}

fn resolve(resources: &Resources, id: &str, needs: &Needs) -> Result<Box<[u32]>, Error> {
    let refuse =
        |(resource, wanted, limit)| Error::ResourceTooSmall { id: id.to_owned(), resource, wanted, limit };
    resources.resolve(needs).map_err(refuse)
}
