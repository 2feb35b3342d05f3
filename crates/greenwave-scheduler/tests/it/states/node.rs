//! A state of a run, its packed key, and the steps that lead out of it.

mod invariants;

use std::fmt;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use greenwave_scheduler::{
    Action, Addition, DispatchEvent, Dispatcher, GraphBuilder, Limits, Needs, OnFailure, Resources, TaskId,
    TaskState,
};

use super::graphs::bits_of;

/// Maximum number of tasks: initial ones and one that is added.
pub(super) const TASKS_MAX: usize = 6;
/// Units of the pool `workers`.
const WORKERS: u32 = 2;

/// The needs of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    workers: u32,
    is_shared: bool,
    is_exclusive: bool,
}

pub(super) const KINDS: [Kind; 6] = [
    Kind { workers: 1, is_shared: false, is_exclusive: false },
    Kind { workers: 2, is_shared: false, is_exclusive: false },
    Kind { workers: 1, is_shared: true, is_exclusive: false },
    Kind { workers: 0, is_shared: false, is_exclusive: true },
    Kind { workers: 0, is_shared: false, is_exclusive: false },
    Kind { workers: 1, is_shared: false, is_exclusive: true },
];

/// The needs of [`KINDS`]. Clones are cheap.
static NEEDS: LazyLock<[Needs; 6]> = LazyLock::new(|| KINDS.map(Kind::needs));

impl Kind {
    fn needs(self) -> Needs {
        let mut needs = Needs::nothing().of("workers", self.workers);
        if self.is_shared {
            needs = needs.shared("lock");
        }
        if self.is_exclusive {
            needs = needs.exclusive("lock");
        }
        needs
    }

    /// Returns true if both use a common pool or lock.
    fn shares_resource(self, other: Self) -> bool {
        let has_lock = |kind: Self| kind.is_shared || kind.is_exclusive;
        (self.workers > 0 && other.workers > 0) || (has_lock(self) && has_lock(other))
    }
}

/// Events that may occur besides the end of stages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventSet {
    pub(super) retries: bool,
    pub(super) pauses: bool,
    pub(super) changing_workers: bool,
    pub(super) added_tasks: bool,
    pub(super) stops: bool,
}

/// Properties that all states of one search share.
#[derive(Debug, Clone)]
pub(super) struct SearchSetting {
    pub(super) tasks_max: usize,
    pub(super) overtakes_max: u32,
    pub(super) on_failure: OnFailure,
    pub(super) events: EventSet,
    /// Number of [`KINDS`] in use.
    pub(super) kinds: u8,
    /// Needs of second stages by task; any kind if not set.
    pub(super) second: Option<[u8; TASKS_MAX]>,
}

/// A task as seen by the search.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Task {
    rank: u64,
    kind: u8,
    stage: u8,
    is_begun: bool,
    /// Bit set of the tasks that it depends on.
    after: u8,
}

/// A change of state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Begin,
    Next(usize, u8),
    Done(usize),
    Failed(usize),
    Retry(usize),
    Tick,
    Pause,
    Resume,
    Stop,
    Admit(u32),
    Add { rank: u64, kind: u8, after: u8, before: u8 },
}

/// The path to a state.
pub(super) struct StatePath {
    step: Step,
    before: Option<Rc<StatePath>>,
}

impl fmt::Display for StatePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = &self.before {
            before.fmt(f)?;
        }
        writeln!(f, "  {:?}", self.step)
    }
}

#[derive(Clone)]
pub(super) struct Node {
    dispatcher: Dispatcher,
    pub(super) tasks: [Task; TASKS_MAX],
    pub(super) len: usize,
    has_added: bool,
    is_paused: bool,
    is_stopped: bool,
    pub(super) trail: Option<Rc<StatePath>>,
}

impl Node {
    /// Creates the state before the first event. `after` holds the bit set of each task's
    /// dependencies.
    pub(super) fn new(setting: &SearchSetting, kinds: &[u8], after: &[u8]) -> Self {
        let mut graph = GraphBuilder::new();
        let mut tasks = [Task::default(); TASKS_MAX];
        for (at, kind) in kinds.iter().enumerate() {
            graph.task(at.to_string(), ());
            // Even, to leave room for a rank between any two.
            let rank = 2 * (kinds.len() - at) as u64;
            tasks[at] = Task { rank, kind: *kind, after: after[at], ..Task::default() };
        }
        for (at, bits) in after.iter().enumerate() {
            bits_of(*bits).for_each(|before| {
                graph.depends_on(at.to_string(), before.to_string());
            });
        }
        let graph = graph.build().unwrap();
        let limits = Limits {
            resources: Resources::new([("workers", WORKERS)]),
            tasks_max: setting.tasks_max,
            overtakes_max: setting.overtakes_max,
            on_failure: setting.on_failure,
        };
        let ranks: Vec<u64> = tasks[..kinds.len()].iter().map(|task| task.rank).collect();
        let needs = |task: TaskId| NEEDS[usize::from(kinds[task.index()])].clone();
        let dispatcher = Dispatcher::new(&graph, limits, &ranks, needs).unwrap();
        let (len, trail) = (kinds.len(), None);
        Self { dispatcher, tasks, len, has_added: false, is_paused: false, is_stopped: false, trail }
    }

    fn state(&self, at: usize) -> TaskState {
        self.dispatcher.state(TaskId::from_index(at))
    }

    fn is_settled(&self, at: usize) -> bool {
        matches!(self.state(at), TaskState::Done | TaskState::Failed | TaskState::Skipped(_))
    }

    fn is_ready(&self, at: usize) -> bool {
        matches!(self.state(at), TaskState::Ready(_))
    }

    fn kind(&self, at: usize) -> Kind {
        KINDS[usize::from(self.tasks[at].kind)]
    }

    fn count(&self, is: impl Fn(&Self, usize) -> bool) -> usize {
        (0..self.len).filter(|at| is(self, *at)).count()
    }

    fn in_flight(&self) -> usize {
        self.count(|this, at| this.tasks[at].is_begun && !this.is_settled(at))
    }

    /// Returns true if a task has priority over another.
    fn is_above(&self, at: usize, other: usize) -> bool {
        let key = |at: usize| (self.tasks[at].rank, std::cmp::Reverse(at));
        key(at) > key(other)
    }

    /// Packs all properties that affect the future: those of tasks that have not ended, in order of
    /// priority.
    pub(super) fn key(&self, setting: &SearchSetting) -> u128 {
        let mut order: Vec<usize> = (0..self.len).filter(|at| !self.is_settled(*at)).collect();
        order.sort_by(|a, b| {
            if self.is_above(*a, *b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
        });
        let admitted = self.dispatcher.stats().pool("workers").unwrap().admitted;
        let is_stopped = self.is_stopped;
        // A task can still be added, and depend on one that has failed.
        let has_failed = setting.events.added_tasks
            && !self.has_added
            && !is_stopped
            && self.count(|this, at| matches!(this.state(at), TaskState::Failed)) > 0;
        let mut key = if is_stopped { 0 } else { u128::from(admitted) };
        for flag in [self.has_added && !is_stopped, self.is_paused && !is_stopped, is_stopped, has_failed] {
            key = key << 1 | u128::from(flag);
        }
        let wall = self.dispatcher.stats().wall;
        for at in &order {
            let task = self.tasks[*at];
            let (tag, delay) = match self.state(*at) {
                TaskState::Waiting(_) => (0, 0),
                TaskState::Ready(_) => (1, 0),
                TaskState::Running(_) => (2, 0),
                TaskState::Delayed(until) => (3, (until - wall).as_secs()),
                _ => unreachable!("keys contain only tasks that have not ended"),
            };
            // Beyond the limit, more overtaking makes no difference; without a limit it never does.
            let overtaken = match setting.overtakes_max {
                u32::MAX => 0,
                _ if is_stopped => 0,
                max => self.dispatcher.overtaken(TaskId::from_index(*at)).min(max),
            };
            // Needs no longer matter once nothing starts.
            let kind = if is_stopped && tag != 2 { 0 } else { task.kind };
            let slot = |before: usize| order.iter().position(|other| *other == before);
            let after = bits_of(self.direct_dependencies(*at)).filter_map(slot);
            let after = after.fold(0, |bits, before| bits | 1_u128 << before);
            for (bits, value) in [
                (2, tag),
                (1, u128::from(delay)),
                (3, u128::from(kind)),
                (1, u128::from(task.stage)),
                (1, u128::from(task.is_begun)),
                (2, u128::from(overtaken)),
                (TASKS_MAX, after),
            ] {
                assert!(value < 1 << bits, "{value} fits into {bits} bits");
                key = key << bits | value;
            }
        }
        // Distinguishes keys of different lengths.
        key << 3 | order.len() as u128
    }

    /// Returns the dependencies of a task without those that another dependency depends on.
    fn direct_dependencies(&self, at: usize) -> u8 {
        let after = self.tasks[at].after;
        bits_of(after)
            .filter(|before| !bits_of(after).any(|other| other != *before && self.reaches(*before, other)))
            .fold(0, |bits, before| bits | 1 << before)
    }

    /// Appends all possible next steps.
    pub(super) fn steps(&self, setting: &SearchSetting, steps: &mut Vec<Step>) {
        let EventSet { retries, pauses, changing_workers, added_tasks, stops } = setting.events;
        for at in (0..self.len).filter(|at| matches!(self.state(*at), TaskState::Running(_))) {
            steps.extend([Step::Done(at), Step::Failed(at)]);
            if self.tasks[at].stage == 0 {
                match setting.second {
                    Some(second) => steps.push(Step::Next(at, second[at])),
                    None => steps.extend((0..setting.kinds).map(|kind| Step::Next(at, kind))),
                }
            }
            if retries {
                steps.push(Step::Retry(at));
            }
        }
        if self.dispatcher.wakes_at().is_some() {
            steps.push(Step::Tick);
        }
        if self.dispatcher.is_finished() {
            return;
        }
        if pauses {
            steps.push(if self.is_paused { Step::Resume } else { Step::Pause });
        }
        if stops && !self.is_stopped {
            steps.push(Step::Stop);
        }
        if changing_workers {
            let admitted = self.dispatcher.stats().pool("workers").unwrap().admitted;
            steps.extend((0..=WORKERS).filter(|units| *units != admitted).map(Step::Admit));
        }
        if added_tasks && !self.has_added && !self.is_stopped {
            self.additions(setting, steps);
        }
    }

    /// Appends the steps that add a task: of any kind, at any rank, before and after any task.
    fn additions(&self, setting: &SearchSetting, steps: &mut Vec<Step>) {
        let top = 2 * self.len as u64 + 1;
        let is_open = |at: &usize| !self.is_settled(*at);
        let one_of = |at: usize| 1_u8 << at;
        let failed = (0..self.len).find(|at| matches!(self.state(*at), TaskState::Failed));
        let afters = (0..self.len).filter(is_open).chain(failed).map(one_of);
        for after in std::iter::once(0).chain(afters) {
            let waits = |at: &usize| {
                matches!(self.state(*at), TaskState::Waiting(_)) && self.may_depend_on(*at, after)
            };
            for before in std::iter::once(0).chain((0..self.len).filter(waits).map(one_of)) {
                for rank in [top, (top / 2) | 1, 1] {
                    steps.extend((0..setting.kinds).map(|kind| Step::Add { rank, kind, after, before }));
                }
            }
        }
    }

    /// Returns true if a task may be made to depend on a task that has dependencies itself.
    fn may_depend_on(&self, later: usize, others: u8) -> bool {
        bits_of(others).all(|other| other != later && !self.reaches(later, other))
    }

    /// Returns true if a task depends on another, directly or indirectly.
    fn reaches(&self, from: usize, to: usize) -> bool {
        bits_of(self.tasks[to].after).any(|before| before == from || self.reaches(from, before))
    }

    /// Computes the state after a step.
    pub(super) fn after(&self, setting: &SearchSetting, step: Step) -> Result<Self, String> {
        let mut next = self.clone();
        next.trail = Some(Rc::new(StatePath { step, before: self.trail.clone() }));
        let mut actions = Vec::new();
        let mut now = self.dispatcher.stats().wall;
        let id = TaskId::from_index;
        let event = match step {
            Step::Begin => DispatchEvent::Begin,
            Step::Next(at, kind) => {
                next.tasks[at].kind = kind;
                next.tasks[at].stage = 1;
                DispatchEvent::Next(id(at), &NEEDS[usize::from(kind)])
            }
            Step::Done(at) => DispatchEvent::Done(id(at)),
            Step::Failed(at) => DispatchEvent::Failed(id(at)),
            Step::Retry(at) => DispatchEvent::Retry(id(at), Duration::from_secs(1)),
            Step::Tick => {
                now = self.dispatcher.wakes_at().expect("a tick is due");
                DispatchEvent::Tick
            }
            Step::Pause => {
                next.is_paused = true;
                DispatchEvent::Pause
            }
            Step::Resume => {
                next.is_paused = false;
                DispatchEvent::Resume
            }
            Step::Stop => {
                next.is_stopped = true;
                DispatchEvent::Stop
            }
            Step::Admit(units) => DispatchEvent::Admit("workers", units),
            Step::Add { rank, kind, after, before } => {
                next.add(now, (rank, kind, after, before), &mut actions)?;
                return next.apply_actions(setting, self, &actions);
            }
        };
        next.dispatcher.handle(now, event, &mut actions).map_err(|error| error.to_string())?;
        next.is_stopped |= matches!(step, Step::Failed(_)) && setting.on_failure == OnFailure::StopAtFirst;
        next.apply_actions(setting, self, &actions)
    }

    fn add(
        &mut self,
        now: Duration,
        (rank, kind, after, before): (u64, u8, u8, u8),
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        let ids = |bits| bits_of(bits).map(TaskId::from_index).collect::<Vec<_>>();
        let needs = &NEEDS[usize::from(kind)];
        let (after_ids, before_ids) = (ids(after), ids(before));
        let addition = Addition { id: "added", rank, needs, after: &after_ids, before: &before_ids };
        let task = self.dispatcher.add(now, addition, actions).map_err(|error| error.to_string())?;
        let at = task.index();
        self.tasks[at] = Task { rank, kind, after, ..Task::default() };
        bits_of(before).for_each(|later| self.tasks[later].after |= 1 << at);
        self.len += 1;
        self.has_added = true;
        Ok(())
    }

    /// Applies the dispatcher's decisions and checks the invariants.
    fn apply_actions(
        mut self,
        setting: &SearchSetting,
        before: &Self,
        actions: &[Action],
    ) -> Result<Self, String> {
        let start = |action: &Action| match action {
            Action::Start(task) => Some(task.index()),
            Action::Skip(..) => None,
        };
        let starts: Vec<usize> = actions.iter().filter_map(start).collect();
        self.check_overtaking(setting, before, &starts)?;
        for at in &starts {
            self.tasks[*at].is_begun = true;
        }
        if (self.is_stopped || self.is_paused) && !starts.is_empty() {
            return Err(format!("tasks {starts:?} start while the run is paused or stopped"));
        }
        self.check_figures()?;
        self.check_limits(setting, &starts)?;
        self.check_dependencies(&starts)?;
        self.check_progress(setting)?;
        Ok(self)
    }
}
