//! Performs one event on a dispatcher that was put into a given state, and reads the state after
//! it.

use std::time::Duration;

use super::super::{DispatchEvent, Dispatcher, Task};
use super::invariants;
use super::state::{GPUS, KINDS, LockUse, OpenTask, Setting, State, TASKS_MAX, WORKERS, bits_of};
use crate::{Action, Addition, GraphBuilder, Limits, Needs, OnFailure, Resources, TaskId, TaskState};

/// Maximum number of tasks of a dispatcher: those of the state, a failed one, and an added one.
pub(super) const SLOTS: usize = TASKS_MAX + 2;
/// Needs by position for tasks that become ready.
pub(super) type ChosenKinds = [u8; TASKS_MAX];
/// Time of the event. The state before it is that at time zero.
const NOW: Duration = Duration::from_secs(1);

/// An event. Numbers are positions of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Begin,
    /// The stage succeeds, and another one follows.
    Next(usize, u8),
    /// The stage succeeds, and another one follows that needs too much.
    TooLarge(usize),
    Done(usize),
    Failed(usize, OnFailure),
    Retry(usize),
    /// Time passes until the retry of these tasks.
    Tick {
        woken: u8,
    },
    Pause,
    Resume,
    Stop,
    Admit(u32),
    /// Adds a task at a position, after and before other tasks.
    Add {
        position: usize,
        kind: u8,
        after: u8,
        before: u8,
    },
    /// Adds a task that depends on one that has failed.
    AddAfterFailed {
        before: u8,
    },
}

/// A task of a dispatcher after a step. The index in [`Transition::tasks`] is its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct TaskAfter {
    /// The task before the step, or `None` if it was added or had failed.
    pub(super) before: Option<OpenTask>,
    pub(super) state: TaskState,
    /// Needs of the current stage.
    pub(super) kind: u8,
    /// Priority: lower numbers go first.
    pub(super) position: usize,
    /// Bit set of the tasks that it depends on.
    pub(super) after: u8,
    pub(super) overtaken: u32,
}

/// A step and its result.
#[derive(Debug)]
pub(super) struct Transition<'a> {
    pub(super) setting: &'a Setting,
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) before: &'a State,
    pub(super) step: Step,
    pub(super) tasks: [TaskAfter; SLOTS],
    pub(super) len: usize,
    /// Started tasks in order.
    pub(super) starts: &'a [usize],
    pub(super) is_paused: bool,
    pub(super) is_stopped: bool,
}

/// A dispatcher that is put into one state after another.
#[derive(Debug)]
pub(super) struct Machine {
    setting: Setting,
    dispatcher: Dispatcher,
    needs: Vec<Needs>,
    too_large: Needs,
    actions: Vec<Action>,
    starts: Vec<usize>,
}

/// Returns the needs of a kind.
pub(super) fn needs_of(kind: u8) -> Needs {
    let kind = KINDS[usize::from(kind)];
    let mut needs = Needs::nothing().of("workers", kind.workers).of("gpus", kind.gpus);
    if !kind.has_slot {
        needs = needs.without_task_slot();
    }
    match kind.lock {
        LockUse::Free => needs,
        LockUse::Shared => needs.shared("lock"),
        LockUse::Exclusive => needs.exclusive("lock"),
    }
}

/// Returns the limits of a search.
pub(super) fn limits(setting: &Setting) -> Limits {
    Limits {
        resources: Resources::new([("workers", WORKERS), ("gpus", GPUS)]),
        tasks_max: setting.tasks_max,
        overtakes_max: setting.overtakes_max,
        on_failure: OnFailure::KeepGoing,
    }
}

impl Machine {
    /// Creates a dispatcher that has seen all kinds, so that the index of a kind is that of its
    /// needs.
    pub(super) fn new(setting: &Setting) -> Self {
        let mut graph = GraphBuilder::new();
        for kind in 0..setting.kinds {
            graph.task(kind.to_string(), ());
        }
        let graph = graph.build().unwrap();
        let needs: Vec<Needs> = (0..setting.kinds).map(needs_of).collect();
        let dispatcher =
            Dispatcher::new(&graph, limits(setting), &[], |task| needs[task.index()].clone()).unwrap();
        let too_large = Needs::nothing().of("workers", WORKERS + 1);
        Self { setting: *setting, dispatcher, needs, too_large, actions: Vec::new(), starts: Vec::new() }
    }

    /// Computes the state after a step and checks the invariants. `kinds` holds the needs of tasks
    /// that become ready.
    pub(super) fn step(&mut self, before: &State, step: Step, kinds: &ChosenKinds) -> Result<State, String> {
        self.restore(before, step, kinds);
        self.perform(before, step)?;
        let transition = self.transition(before, step);
        invariants::check(&transition)?;
        Ok(transition.after())
    }

    /// Returns the positions of the tasks started by the last step, in order.
    pub(super) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Puts the dispatcher into a state.
    fn restore(&mut self, state: &State, step: Step, kinds: &ChosenKinds) {
        let dispatcher = &mut self.dispatcher;
        dispatcher.tasks.clear();
        dispatcher.dependants.clear();
        dispatcher.added.clear();
        dispatcher.delayed.clear();
        dispatcher.classes.iter_mut().for_each(|class| {
            class.ready.clear();
            class.count = 0;
        });
        for (free, limit) in dispatcher.free.iter_mut().zip(&dispatcher.pools.limits) {
            *free = i64::from(*limit);
        }
        dispatcher.free[0] = i64::from(state.admitted);
        dispatcher.clock = Duration::ZERO;
        (dispatcher.paused, dispatcher.stopped) = (state.is_paused, state.is_stopped);
        let on_failure = if let Step::Failed(_, chosen) = step { chosen } else { OnFailure::KeepGoing };
        if dispatcher.limits.on_failure != on_failure {
            std::sync::Arc::make_mut(&mut dispatcher.limits).on_failure = on_failure;
        }
        let stats = &mut dispatcher.stats;
        (stats.tasks, stats.started, stats.retries) = (state.len, 0, 0);
        (stats.running, stats.ready, stats.waiting, stats.delayed, stats.in_flight) = (0, 0, 0, 0, 0);
        (stats.done, stats.failed, stats.skipped) = (0, 0, 0);
        (stats.wall, stats.begun) = (Duration::ZERO, step != Step::Begin);
        stats.pools.iter_mut().for_each(|pool| (pool.used, pool.peak) = (0, 0));
        stats.pools[0].admitted = state.admitted;
        for (at, chosen) in kinds.iter().enumerate().take(state.len) {
            self.restore_task(state, at, step, *chosen);
        }
        if let Step::AddAfterFailed { .. } = step {
            self.push_task(TaskState::Failed, 0, 0, 0, false);
            (self.dispatcher.stats.tasks, self.dispatcher.stats.failed) = (state.len + 1, 1);
        }
    }

    fn restore_task(&mut self, state: &State, at: usize, step: Step, chosen: u8) {
        let rank = rank_of(position_of(at));
        let task = state.tasks[at];
        let from = self.dispatcher.dependants.len();
        for (other, dependant) in state.tasks().iter().enumerate() {
            if let OpenTask::Waiting { after } = dependant
                && after & 1 << at != 0
            {
                self.dispatcher.dependants.push(TaskId::from_index(other));
            }
        }
        let stats = &mut self.dispatcher.stats;
        stats.in_flight += usize::from(task.has_slot());
        let (case, kind, overtaken) = match task {
            OpenTask::Waiting { after } => {
                stats.waiting += 1;
                (TaskState::Waiting(after.count_ones()), chosen, 0)
            }
            OpenTask::Ready { kind, overtaken, .. } => {
                stats.ready += 1;
                (TaskState::Ready(Duration::ZERO), kind, overtaken)
            }
            OpenTask::Running { kind } => {
                stats.running += 1;
                (TaskState::Running(Duration::ZERO), kind, 0)
            }
            OpenTask::Delayed { .. } => {
                stats.delayed += 1;
                let is_due = matches!(step, Step::Tick { woken } if woken & 1 << at != 0);
                let until = if is_due { NOW } else { 2 * NOW };
                self.dispatcher.delayed.push(std::cmp::Reverse((until, TaskId::from_index(at))));
                (TaskState::Delayed(until), chosen, 0)
            }
        };
        self.push_task(case, rank, kind, overtaken, task.has_slot());
        let dispatcher = &mut self.dispatcher;
        let to = dispatcher.dependants.len();
        dispatcher.tasks[at].dependants = from as u32..to as u32;
        let class = dispatcher.class_of(TaskId::from_index(at));
        match case {
            TaskState::Ready(_) => {
                let ranked = (rank, std::cmp::Reverse(TaskId::from_index(at)));
                dispatcher.classes[class].ready.push(ranked);
                dispatcher.classes[class].count += 1;
            }
            TaskState::Running(_) => {
                for &(pool, units) in &dispatcher.wants[usize::from(kind)].units {
                    dispatcher.free[pool] -= i64::from(units);
                    if let Some(pool) = dispatcher.stats.pools.get_mut(pool) {
                        pool.used += units;
                    }
                }
            }
            _ => {}
        }
    }

    fn push_task(&mut self, state: TaskState, rank: u64, kind: u8, overtaken: u32, has_slot: bool) {
        let (dependants, wants, took) = (0..0, u32::from(kind), Duration::ZERO);
        self.dispatcher.tasks.push(Task { state, rank, dependants, wants, overtaken, has_slot, took });
    }

    /// Sends the event of a step to the dispatcher.
    fn perform(&mut self, before: &State, step: Step) -> Result<(), String> {
        self.actions.clear();
        let id = TaskId::from_index;
        let event = match step {
            Step::Begin => DispatchEvent::Begin,
            Step::Next(at, kind) => DispatchEvent::Next(id(at), &self.needs[usize::from(kind)]),
            Step::TooLarge(at) => DispatchEvent::Next(id(at), &self.too_large),
            Step::Done(at) => DispatchEvent::Done(id(at)),
            Step::Failed(at, _) => DispatchEvent::Failed(id(at)),
            Step::Retry(at) => DispatchEvent::Retry(id(at), NOW),
            Step::Tick { .. } => {
                if self.dispatcher.wakes_at() != Some(NOW) {
                    return Err(format!("wakes at {:?}", self.dispatcher.wakes_at()));
                }
                DispatchEvent::Tick
            }
            Step::Pause => DispatchEvent::Pause,
            Step::Resume => DispatchEvent::Resume,
            Step::Stop => DispatchEvent::Stop,
            Step::Admit(units) => DispatchEvent::Admit("workers", units),
            Step::Add { position, kind, after, before } => {
                return self.add(rank_of(2 * position), kind, after, before);
            }
            Step::AddAfterFailed { before: later } => return self.add(0, 0, 1 << before.len, later),
        };
        let now = if let Step::Tick { .. } = step { NOW } else { Duration::ZERO };
        let result = self.dispatcher.handle(now, event, &mut self.actions);
        let is_expected = result.is_err() == matches!(step, Step::TooLarge(_));
        is_expected.then_some(()).ok_or_else(|| format!("the event results in {result:?}"))
    }

    fn add(&mut self, rank: u64, kind: u8, after: u8, before: u8) -> Result<(), String> {
        let mut ids = [TaskId::from_index(0); 2 * SLOTS];
        let mut count = 0;
        for at in bits_of(after).chain(bits_of(before)) {
            ids[count] = TaskId::from_index(at);
            count += 1;
        }
        let (after, before) = ids[..count].split_at(after.count_ones() as usize);
        let addition = Addition { id: "added", rank, needs: &self.needs[usize::from(kind)], after, before };
        let added = self.dispatcher.add(Duration::ZERO, addition, &mut self.actions);
        added.map(|_| ()).map_err(|error| error.to_string())
    }

    fn transition<'a>(&'a mut self, before: &'a State, step: Step) -> Transition<'a> {
        self.starts.clear();
        self.starts.extend(self.actions.iter().filter_map(|action| match action {
            Action::Start(task) => Some(task.index()),
            Action::Skip(..) => None,
        }));
        let none = TaskAfter {
            before: None,
            state: TaskState::Done,
            kind: 0,
            position: usize::MAX,
            after: 0,
            overtaken: 0,
        };
        let mut tasks = [none; SLOTS];
        let len = self.dispatcher.tasks.len();
        for (at, task) in self.dispatcher.tasks.iter().enumerate() {
            let old = before.tasks().get(at).copied();
            tasks[at] = TaskAfter {
                before: old,
                state: task.state,
                kind: task.wants as u8,
                position: (rank_of(0) - task.rank) as usize,
                after: if let Some(OpenTask::Waiting { after }) = old { after } else { 0 },
                overtaken: task.overtaken,
            };
        }
        let (after, later) = match step {
            Step::Add { after, before, .. } => (after, before),
            Step::AddAfterFailed { before: later } => (1 << before.len, later),
            _ => (0, 0),
        };
        tasks[len.max(1) - 1].after |= after;
        bits_of(later).for_each(|at| tasks[at].after |= 1 << (len - 1));
        let is_stop = matches!(step, Step::Stop | Step::Failed(_, OnFailure::StopAtFirst));
        Transition {
            setting: &self.setting,
            dispatcher: &self.dispatcher,
            before,
            step,
            tasks,
            len,
            starts: &self.starts,
            is_paused: step == Step::Pause || (before.is_paused && step != Step::Resume),
            is_stopped: before.is_stopped || is_stop,
        }
    }
}

/// Returns the position of a task among those that exist and those that can be added between them.
fn position_of(at: usize) -> usize {
    2 * at + 1
}

fn rank_of(position: usize) -> u64 {
    (4 * SLOTS - position) as u64
}

impl TaskAfter {
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, TaskState::Done | TaskState::Failed | TaskState::Skipped(_))
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, TaskState::Ready(_))
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, TaskState::Running(_))
    }

    /// Returns true if the current stage counts under `tasks_max`.
    pub(super) fn needs_slot(&self) -> bool {
        KINDS[usize::from(self.kind)].has_slot
    }

    /// Returns true if the task holds a slot after the event and before any start.
    pub(super) fn kept_slot(&self) -> bool {
        self.before.is_some_and(OpenTask::has_slot) && self.needs_slot()
    }

    /// Returns true if the task holds a slot after the step.
    pub(super) fn has_slot(&self) -> bool {
        match (self.state, self.before) {
            (TaskState::Delayed(_), Some(OpenTask::Delayed { has_slot })) => has_slot,
            (TaskState::Running(_) | TaskState::Delayed(_), _) => self.needs_slot(),
            _ => self.kept_slot(),
        }
    }
}

impl Transition<'_> {
    pub(super) fn tasks(&self) -> &[TaskAfter] {
        &self.tasks[..self.len]
    }

    /// Returns the state after the step.
    fn after(&self) -> State {
        let open = (0..self.len).filter(|at| self.tasks[*at].is_open());
        let admitted = self.dispatcher.stats.pools[0].admitted;
        canonical(
            open,
            |at| self.tasks[at].position,
            |at| (self.tasks[at].after, self.task(at)),
            State {
                admitted: if self.is_stopped { WORKERS } else { admitted },
                is_paused: self.is_paused && !self.is_stopped,
                is_stopped: self.is_stopped,
                ..State::EMPTY
            },
        )
    }

    fn task(&self, at: usize) -> OpenTask {
        let task = &self.tasks[at];
        let of_stage = (task.kind, task.has_slot(), task.overtaken);
        open_task(self.setting, self.is_stopped, task.state, of_stage)
    }
}

/// Returns a task as the search sees it, without its dependencies. Ended tasks have no such form.
pub(super) fn open_task(
    setting: &Setting,
    is_stopped: bool,
    state: TaskState,
    (kind, has_slot, overtaken): (u8, bool, u32),
) -> OpenTask {
    match state {
        TaskState::Ready(_) if is_stopped => OpenTask::Ready { has_slot: false, kind: 0, overtaken: 0 },
        TaskState::Ready(_) => {
            let overtaken = match setting.overtakes_max {
                u32::MAX => 0,
                max => overtaken.min(max),
            };
            OpenTask::Ready { has_slot, kind, overtaken }
        }
        TaskState::Running(_) => OpenTask::Running { kind },
        TaskState::Delayed(_) => OpenTask::Delayed { has_slot },
        _ => OpenTask::Waiting { after: 0 },
    }
}

/// Returns a state with tasks in order of priority, and without dependencies that follow from
/// others.
pub(super) fn canonical(
    open: impl Iterator<Item = usize>,
    position: impl Fn(usize) -> usize,
    task: impl Fn(usize) -> (u8, OpenTask),
    mut state: State,
) -> State {
    let mut order = [0; SLOTS];
    for at in open {
        order[state.len] = at;
        state.len += 1;
    }
    let order = &mut order[..state.len];
    order.sort_unstable_by_key(|at| position(*at));
    for (slot, &at) in order.iter().enumerate() {
        let (after, mut task) = task(at);
        if let OpenTask::Waiting { after: slots } = &mut task {
            let is_after = |other: &usize| after & 1 << other != 0;
            *slots = order
                .iter()
                .enumerate()
                .filter(|(_, other)| is_after(other))
                .fold(0, |bits, (slot, _)| bits | 1 << slot);
        }
        state.tasks[slot] = task;
    }
    let full = state;
    for slot in 0..state.len {
        if let OpenTask::Waiting { after } = &mut state.tasks[slot] {
            let all = *after;
            for before in bits_of(all) {
                if bits_of(all & !(1 << before)).any(|other| depends(&full, other, before)) {
                    *after &= !(1 << before);
                }
            }
        }
    }
    state
}

/// Returns true if a task depends on another, directly or indirectly.
pub(super) fn depends(state: &State, at: usize, on: usize) -> bool {
    match state.tasks[at] {
        OpenTask::Waiting { after } => {
            after & 1 << on != 0 || bits_of(after).any(|before| depends(state, before, on))
        }
        _ => false,
    }
}
