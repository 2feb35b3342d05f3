//! Explores the states that dispatchers of whole runs can reach for small graphs, and checks
//! invariants in each.
//!
//! The unit tests of the dispatcher explore more states, of dispatchers that are restored from a
//! state. Here each dispatcher has handled all events of its path. The test also covers graphs of
//! four and five tasks up to isomorphism, with all pairs of attribute values.
//!
//! A run is a path through states: a stage ends in one of four ways, a delay passes, the run is
//! paused or stopped, the number of admitted workers changes, or a task is added. A depth-first
//! search tries all of these in every state. States are packed exactly into 128 bits.
//!
//! Each state is explored once, and states that cannot differ in the future count as one: tasks are
//! numbered by priority, tasks that have ended are omitted, a dependency that follows from others
//! is omitted, and once the run is stopped, so is all that decides which stages start. So different
//! graphs share states. That nothing starts while the run is paused or stopped is an invariant, not
//! an assumption.
//!
//! Invariants of each state: no limit is exceeded; every stage that can start has started, unless
//! its resources are reserved for a task of higher rank that was overtaken too often; if no stage
//! runs, all tasks have ended or a delay is pending. Invariants of each start: all dependencies are
//! done, and no task of higher rank is overtaken more often than allowed. The latter two imply that
//! no task waits without end while others come and go: each new task has a higher rank, counts as
//! overtaking, or takes nothing that the waiting task needs.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use greenwave_scheduler::{
    Action, Addition, DispatchEvent, Dispatcher, GraphBuilder, Limits, Needs, OnFailure, Resources, TaskId,
    TaskState,
};

/// Maximum number of tasks: initial ones and one that is added.
const TASKS_MAX: usize = 6;
/// Units of the pool `workers`.
const WORKERS: u32 = 2;

/// The needs of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    workers: u32,
    is_shared: bool,
    is_exclusive: bool,
}

const KINDS: [Kind; 6] = [
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
struct EventSet {
    retries: bool,
    pauses: bool,
    changing_workers: bool,
    added_tasks: bool,
    stops: bool,
}

/// Properties that all states of one search share.
#[derive(Debug, Clone)]
struct SearchSetting {
    tasks_max: usize,
    overtakes_max: u32,
    on_failure: OnFailure,
    events: EventSet,
    /// Number of [`KINDS`] in use.
    kinds: u8,
    /// Needs of second stages by task; any kind if not set.
    second: Option<[u8; TASKS_MAX]>,
}

/// A task as seen by the search.
#[derive(Debug, Clone, Copy, Default)]
struct Task {
    rank: u64,
    kind: u8,
    stage: u8,
    is_begun: bool,
    /// Bit set of the tasks that it depends on.
    after: u8,
}

/// A change of state.
#[derive(Debug, Clone, Copy)]
enum Step {
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
struct StatePath {
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
struct Node {
    dispatcher: Dispatcher,
    tasks: [Task; TASKS_MAX],
    len: usize,
    has_added: bool,
    is_paused: bool,
    is_stopped: bool,
    trail: Option<Rc<StatePath>>,
}

/// A hasher for keys that are uniformly distributed numbers.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys have 128 bits");
    }

    fn write_u128(&mut self, key: u128) {
        let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type Seen = HashSet<u128, BuildHasherDefault<KeyHasher>>;

impl Node {
    /// Creates the state before the first event. `after` holds the bit set of each task's
    /// dependencies.
    fn new(setting: &SearchSetting, kinds: &[u8], after: &[u8]) -> Self {
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
    fn key(&self, setting: &SearchSetting) -> u128 {
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
    fn steps(&self, setting: &SearchSetting, steps: &mut Vec<Step>) {
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
    fn after(&self, setting: &SearchSetting, step: Step) -> Result<Self, String> {
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

    fn check_figures(&self) -> Result<(), String> {
        let stats = self.dispatcher.stats();
        let is = |of: fn(TaskState) -> bool| self.count(|this, at| of(this.state(at)));
        let counts = [
            (stats.waiting, is(|state| matches!(state, TaskState::Waiting(_)))),
            (stats.ready, is(|state| matches!(state, TaskState::Ready(_)))),
            (stats.running, is(|state| matches!(state, TaskState::Running(_)))),
            (stats.delayed, is(|state| matches!(state, TaskState::Delayed(_)))),
            (stats.done, is(|state| state == TaskState::Done)),
            (stats.failed, is(|state| state == TaskState::Failed)),
            (stats.skipped, is(|state| matches!(state, TaskState::Skipped(_)))),
            (stats.in_flight, self.in_flight()),
            (stats.pool("workers").unwrap().used as usize, self.used() as usize),
        ];
        let is_right = counts.iter().all(|(reported, counted)| reported == counted);
        is_right.then_some(()).ok_or_else(|| format!("wrong statistics (reported, counted): {counts:?}"))
    }

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|at| matches!(self.state(*at), TaskState::Running(_)))
    }

    /// Returns the number of workers in use.
    fn used(&self) -> u32 {
        self.running().map(|at| self.kind(at).workers).sum()
    }

    fn check_limits(&self, setting: &SearchSetting, starts: &[usize]) -> Result<(), String> {
        let used = self.used();
        if used > WORKERS {
            return Err(format!("{used} workers are used of {WORKERS}"));
        }
        // Stages may exceed the admitted number if they started before a reduction, or if a stage
        // runs alone because it could never fit.
        let admitted = self.dispatcher.stats().pool("workers").unwrap().admitted;
        let has_taken = starts.iter().any(|at| self.kind(*at).workers > 0);
        let holders = self.running().filter(|at| self.kind(*at).workers > 0).count();
        if has_taken && used > admitted && holders > 1 {
            return Err(format!("{holders} stages use {used} workers where {admitted} are admitted"));
        }
        let exclusive = self.running().filter(|at| self.kind(*at).is_exclusive).count();
        let shared = self.running().filter(|at| self.kind(*at).is_shared).count();
        if exclusive > 1 || (exclusive == 1 && shared > 0) {
            return Err(format!("the lock has {exclusive} exclusive and {shared} shared holders"));
        }
        if self.in_flight() > setting.tasks_max {
            return Err(format!("{} tasks are in flight", self.in_flight()));
        }
        Ok(())
    }

    fn check_dependencies(&self, starts: &[usize]) -> Result<(), String> {
        for at in 0..self.len {
            let has_bad = bits_of(self.tasks[at].after)
                .any(|before| matches!(self.state(before), TaskState::Failed | TaskState::Skipped(_)));
            if has_bad != matches!(self.state(at), TaskState::Skipped(_)) {
                return Err(format!("task {at} is {:?} with failed dependencies: {has_bad}", self.state(at)));
            }
            let are_done = bits_of(self.tasks[at].after).all(|before| self.state(before) == TaskState::Done);
            if starts.contains(&at) && !are_done {
                return Err(format!("task {at} starts before its dependencies are done"));
            }
            if are_done && matches!(self.state(at), TaskState::Waiting(_)) {
                return Err(format!("task {at} waits for nothing"));
            }
        }
        Ok(())
    }

    fn has_slot(&self, setting: &SearchSetting, at: usize) -> bool {
        self.tasks[at].is_begun || self.in_flight() < setting.tasks_max
    }

    fn fits(&self, setting: &SearchSetting, at: usize) -> bool {
        let kind = self.kind(at);
        let admitted = self.dispatcher.stats().pool("workers").unwrap().admitted;
        let has_workers = kind.workers == 0 || self.used() == 0 || self.used() + kind.workers <= admitted;
        let has_lock = !self.running().any(|other| {
            let other = self.kind(other);
            (kind.is_exclusive && (other.is_shared || other.is_exclusive))
                || (kind.is_shared && other.is_exclusive)
        });
        has_workers && has_lock && self.has_slot(setting, at)
    }

    fn is_owed(&self, setting: &SearchSetting, at: usize) -> bool {
        self.dispatcher.overtaken(TaskId::from_index(at)) >= setting.overtakes_max
    }

    fn check_progress(&self, setting: &SearchSetting) -> Result<(), String> {
        let ready = || (0..self.len).filter(|at| self.is_ready(*at));
        if self.is_stopped || self.is_paused {
            return Ok(());
        }
        for at in ready().filter(|at| self.fits(setting, *at)) {
            let is_reserved = |other: usize| self.is_above(other, at) && self.is_owed(setting, other);
            if !ready().any(is_reserved) {
                return Err(format!("task {at} could start, and nothing is left to another"));
            }
        }
        if self.running().next().is_some() {
            return Ok(());
        }
        if self.count(|this, at| matches!(this.state(at), TaskState::Delayed(_))) > 0 {
            // Tasks in progress hold slots, and nothing else.
            return match ready().find(|at| self.has_slot(setting, *at)) {
                Some(at) => Err(format!("no stage runs, and task {at} has a slot but does not start")),
                None => Ok(()),
            };
        }
        match (0..self.len).find(|at| !self.is_settled(*at)) {
            Some(at) => Err(format!("deadlock: no stage runs, and task {at} is {:?}", self.state(at))),
            None if !self.dispatcher.is_finished() => {
                Err("all tasks have ended, but the run has not".to_owned())
            }
            None => Ok(()),
        }
    }

    /// Checks the starts of one step in order, based on the state at the time of the first one.
    fn check_overtaking(
        &self,
        setting: &SearchSetting,
        before: &Self,
        starts: &[usize],
    ) -> Result<(), String> {
        for waiting in (0..self.len).filter(|at| self.is_ready(*at)) {
            self.check_overtaken(setting, before, starts, waiting)?;
        }
        Ok(())
    }

    /// Checks that no start took a resource from a task that was overtaken too often, and that
    /// earlier overtakes were counted.
    fn check_overtaken(
        &self,
        setting: &SearchSetting,
        before: &Self,
        starts: &[usize],
        waiting: usize,
    ) -> Result<(), String> {
        let class = |at: usize| (self.tasks[at].kind, self.tasks[at].is_begun);
        let is_behind = |other: usize| class(other) == class(waiting) && self.is_above(other, waiting);
        if (0..self.len).any(|other| self.is_ready(other) && is_behind(other)) {
            return Ok(());
        }
        let was_ready = waiting < before.len && before.is_ready(waiting);
        let id = TaskId::from_index(waiting);
        let mut overtaken = if was_ready { before.dispatcher.overtaken(id) } else { 0 };
        let open = |at: usize| self.tasks[at].is_begun && !self.is_settled(at);
        // Excludes tasks that have just begun, which the flags do not show yet.
        let mut in_flight = (0..self.len).filter(|at| open(*at)).count();
        for (number, &start) in starts.iter().enumerate() {
            let begins = !self.tasks[start].is_begun;
            let was_in_flight = in_flight;
            in_flight += usize::from(begins);
            // While another task of the same class was ahead of it, that task was the one
            // overtaken.
            if self.is_above(start, waiting) || starts[number..].iter().any(|other| is_behind(*other)) {
                continue;
            }
            let has_slot = self.tasks[waiting].is_begun || was_in_flight < setting.tasks_max;
            // Slots go to tasks of higher rank first.
            let yields_slot = !self.tasks[waiting].is_begun
                && (0..self.len).any(|other| {
                    self.is_ready(other)
                        && !self.tasks[other].is_begun
                        && self.is_above(other, waiting)
                        && self.is_owed(setting, other)
                });
            if !has_slot || yields_slot {
                continue;
            }
            let takes_pool = self.kind(start).shares_resource(self.kind(waiting));
            let takes_last_place = begins && !self.tasks[waiting].is_begun && in_flight >= setting.tasks_max;
            if overtaken >= setting.overtakes_max && (takes_pool || takes_last_place) {
                return Err(format!(
                    "task {start} overtakes task {waiting}, which was overtaken {overtaken} times"
                ));
            }
            overtaken += 1;
        }
        let counted = self.dispatcher.overtaken(id);
        match counted >= overtaken {
            true => Ok(()),
            false => {
                Err(format!("task {waiting} was overtaken {overtaken} times, and {counted} are counted"))
            }
        }
    }
}

fn bits_of(bits: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |at| bits & 1 << at != 0)
}

/// Explores all states that are reachable from `roots` and not in `seen`.
fn explore(setting: &SearchSetting, roots: impl Iterator<Item = Node>, seen: &mut Seen) {
    let mut open = Vec::new();
    let mut steps = Vec::new();
    for root in roots {
        visit(setting, &root, Step::Begin, seen, &mut open);
        while let Some(node) = open.pop() {
            node.steps(setting, &mut steps);
            for step in steps.drain(..) {
                visit(setting, &node, step, seen, &mut open);
            }
        }
    }
}

fn visit(setting: &SearchSetting, node: &Node, step: Step, seen: &mut Seen, open: &mut Vec<Node>) {
    match node.after(setting, step) {
        Ok(next) if seen.insert(next.key(setting)) => open.push(next),
        Ok(_) => {}
        Err(problem) => {
            let trail = node.trail.as_ref().map(ToString::to_string).unwrap_or_default();
            panic!("{problem}\n{setting:?}\n{:?}\n{trail}  {step:?}", &node.tasks[..node.len]);
        }
    }
}

/// Returns all graphs with a number of tasks, as bit sets of dependencies.
fn graphs(tasks: usize) -> Vec<Vec<u8>> {
    let all = (0..1_u64 << (tasks * tasks)).map(|bits| {
        (0..tasks).map(|at| (bits >> (at * tasks)) as u8 & ((1 << tasks) - 1)).collect::<Vec<u8>>()
    });
    all.filter(|graph| is_acyclic(graph)).collect()
}

fn is_acyclic(graph: &[u8]) -> bool {
    let mut left = (1_u16 << graph.len()) as u8 - 1;
    while left != 0 {
        let free = bits_of(left).find(|at| graph[*at] & left == 0);
        let Some(free) = free else { return false };
        left &= !(1 << free);
    }
    true
}

/// Returns all assignments of `kinds` kinds to a number of tasks.
fn all_kinds(tasks: usize, kinds: u8) -> impl Iterator<Item = Vec<u8>> {
    let kinds = u64::from(kinds);
    (0..kinds.pow(tasks as u32))
        .map(move |number| (0..tasks).map(|at| (number / kinds.pow(at as u32) % kinds) as u8).collect())
}

/// Explores the full product for all graphs with a number of tasks. Returns the number of states.
fn explore_all(tasks: usize, kinds: u8, events: EventSet, overtakes: &[u32]) -> usize {
    let mut states = 0;
    let graphs = graphs(tasks);
    let slots = tasks + usize::from(events.added_tasks);
    for tasks_max in (1..slots).chain([usize::MAX]) {
        for &overtakes_max in overtakes {
            for on_failure in [OnFailure::KeepGoing, OnFailure::StopAtFirst] {
                let setting =
                    SearchSetting { tasks_max, overtakes_max, on_failure, events, kinds, second: None };
                let roots = graphs.iter().flat_map(|graph| {
                    all_kinds(tasks, kinds).map(|kinds| Node::new(&setting, &kinds, graph))
                });
                let mut seen = Seen::default();
                explore(&setting, roots, &mut seen);
                states += seen.len();
            }
        }
    }
    states
}

/// Returns the number of kinds for a long run, from `GREENWAVE_SCHEDULER_KINDS`.
fn long_kinds() -> Option<u8> {
    let asked = std::env::var("GREENWAVE_SCHEDULER_KINDS").ok()?.parse::<u8>().ok()?;
    Some(asked.clamp(1, KINDS.len() as u8))
}

const NOTHING: EventSet =
    EventSet { retries: false, pauses: false, changing_workers: false, added_tasks: false, stops: false };
const ALL: EventSet =
    EventSet { retries: true, pauses: true, changing_workers: true, added_tasks: true, stops: true };

/// Number of tasks, kinds of needs in `cargo test`, kinds of needs in a long run, and events.
const SEARCHES: [(usize, u8, u8, EventSet); 7] = [
    (1, 6, 6, ALL),
    (2, 6, 6, EventSet { added_tasks: false, ..ALL }),
    (2, 4, 6, EventSet { added_tasks: true, ..NOTHING }),
    (2, 1, 6, ALL),
    (3, 5, 6, NOTHING),
    (3, 3, 6, EventSet { retries: true, ..NOTHING }),
    (3, 1, 6, EventSet { added_tasks: false, ..ALL }),
];

#[test]
fn no_state_of_up_to_three_tasks_is_stuck_or_over_a_limit_or_unfair() {
    let mut all = 0;
    for (tasks, usual, most, events) in SEARCHES {
        let kinds = long_kinds().map_or(usual, |kinds| kinds.clamp(usual, most));
        if kinds == 0 {
            continue;
        }
        let states = explore_all(tasks, kinds, events, &[0, 1, 2]);
        let graphs = graphs(tasks).len();
        println!("{tasks} tasks in {graphs} graphs, {kinds} kinds of needs: {states} states ({events:?})");
        all += states;
    }
    println!("{all} states");
    assert!(all > 500_000, "{all} states: the search ended early");
}

/// Returns one graph of each isomorphism class.
fn shapes(tasks: usize) -> Vec<Vec<u8>> {
    let pairs: Vec<(usize, usize)> =
        (0..tasks).flat_map(|later| (0..later).map(move |at| (at, later))).collect();
    let mut seen = HashSet::new();
    let mut shapes = Vec::new();
    for bits in 0..1_u32 << pairs.len() {
        let mut graph = vec![0_u8; tasks];
        for (number, (at, later)) in pairs.iter().enumerate() {
            graph[*later] |= ((bits >> number & 1) as u8) << at;
        }
        let least = permutations(tasks).iter().map(|order| relabelled(&graph, order)).min().unwrap();
        if seen.insert(least) {
            shapes.push(graph);
        }
    }
    shapes
}

/// Returns a graph in which task `at` is renamed to `order[at]`.
fn relabelled(graph: &[u8], order: &[usize]) -> Vec<u8> {
    let mut other = vec![0; graph.len()];
    for (at, after) in graph.iter().enumerate() {
        other[order[at]] = bits_of(*after).fold(0, |bits, before| bits | 1 << order[before]);
    }
    other
}

fn permutations(tasks: usize) -> Vec<Vec<usize>> {
    (0..tasks).fold(vec![Vec::new()], |shorter, next| {
        let insert = |order: &Vec<usize>, at: usize| {
            let mut longer = order.clone();
            longer.insert(at, next);
            longer
        };
        shorter.iter().flat_map(|order| (0..=next).map(move |at| insert(order, at))).collect()
    })
}

/// Returns rows with a level for each factor, such that all pairs of levels of two factors occur
/// (after Cohen, Dalal, Fredman, Patton, "The AETG System", 1997).
fn pairwise(levels: &[usize]) -> Vec<Vec<usize>> {
    let mut open = std::collections::BTreeSet::new();
    for (other, count) in levels.iter().enumerate() {
        for (at, levels) in levels[..other].iter().enumerate() {
            open.extend((0..*levels).flat_map(|a| (0..*count).map(move |b| (at, a, other, b))));
        }
    }
    let mut rows = Vec::new();
    while let Some(&(at, a, other, b)) = open.iter().next() {
        let mut row: Vec<Option<usize>> = vec![None; levels.len()];
        (row[at], row[other]) = (Some(a), Some(b));
        for factor in 0..levels.len() {
            if row[factor].is_none() {
                let gain = |level: usize| {
                    let shares_resource = |(at, chosen): (usize, &Option<usize>)| {
                        chosen.is_some_and(|chosen| open.contains(&pair((at, chosen), (factor, level))))
                    };
                    row.iter().enumerate().filter(|other| shares_resource(*other)).count()
                };
                // Ties are broken differently in each row, so that levels whose pairs are covered
                // vary.
                let start = rows.len() % levels[factor];
                let turned = (0..levels[factor]).map(|level| (level + start) % levels[factor]);
                row[factor] = turned.max_by_key(|level| gain(*level));
            }
        }
        let row: Vec<usize> = row.into_iter().flatten().collect();
        for other in 0..row.len() {
            (0..other).for_each(|at| {
                open.remove(&pair((at, row[at]), (other, row[other])));
            });
        }
        rows.push(row);
    }
    rows
}

fn pair((at, a): (usize, usize), (other, b): (usize, usize)) -> (usize, usize, usize, usize) {
    if at < other { (at, a, other, b) } else { (other, b, at, a) }
}

#[test]
fn pairwise_rows_cover_all_pairs_of_levels() {
    let levels = [3, 2, 5, 4];
    let rows = pairwise(&levels);
    for other in 0..levels.len() {
        for at in 0..other {
            let met: HashSet<_> = rows.iter().map(|row| (row[at], row[other])).collect();
            assert_eq!(met.len(), levels[at] * levels[other]);
        }
    }
    assert!(rows.len() < 40, "{} rows: fewer than a third of the product", rows.len());
    assert_eq!([1, 2, 3, 4, 5].map(|tasks| shapes(tasks).len()), [1, 2, 6, 31, 302], "OEIS A003087");
    assert_eq!([1, 2, 3, 4].map(|tasks| graphs(tasks).len()), [1, 3, 25, 543], "OEIS A003024");
}

/// Explores every graph shape with all pairs of attribute values. Of the rows for each shape, one
/// in `every` is used, a different one for each shape. Returns the number of states.
fn explore_shapes(tasks: usize, kinds: u8, every: usize) -> usize {
    let orders = permutations(tasks);
    // A spread of 24 of the 120 orders of five tasks.
    let orders: Vec<_> = orders.iter().step_by(orders.len().div_ceil(24)).collect();
    let tasks_max = [1, 2, tasks - 1, usize::MAX];
    let mut levels = vec![usize::from(kinds); 2 * tasks];
    levels.extend([orders.len(), tasks_max.len(), 3, 2, 2, 2, 2, 2, 2]);
    let rows = pairwise(&levels);
    let mut states = 0;
    for (number, shape) in shapes(tasks).iter().enumerate() {
        for (_, row) in
            rows.iter().enumerate().filter(|(at, _)| (number * rows.len() + at).is_multiple_of(every))
        {
            let kinds: Vec<u8> = row.iter().map(|level| *level as u8).collect();
            let (first, rest) = kinds.split_at(tasks);
            let mut second = [0; TASKS_MAX];
            second[..tasks].copy_from_slice(&rest[..tasks]);
            let [order, slots, overtakes_max, failure, flags @ ..] = &row[2 * tasks..] else {
                unreachable!("each row has a level for each factor");
            };
            let is = |flag: usize| flags[flag] == 1;
            let setting = SearchSetting {
                tasks_max: tasks_max[*slots],
                overtakes_max: *overtakes_max as u32,
                on_failure: [OnFailure::KeepGoing, OnFailure::StopAtFirst][*failure],
                events: EventSet {
                    retries: is(0),
                    pauses: is(1),
                    changing_workers: is(2),
                    stops: is(3),
                    // An added task multiplies the number of states by a hundred.
                    added_tasks: is(4) && tasks < 5 && every == 1,
                },
                // Kinds of an added task.
                kinds: 1,
                second: Some(second),
            };
            let graph = relabelled(shape, orders[*order]);
            let mut seen = Seen::default();
            explore(&setting, std::iter::once(Node::new(&setting, first, &graph)), &mut seen);
            states += seen.len();
        }
    }
    states
}

#[test]
fn no_state_of_four_or_five_tasks_is_stuck_or_over_a_limit_or_unfair() {
    // Limited to a few seconds in `cargo test`.
    for (tasks, kinds, every) in [(4, 4, 8), (5, 4, 1000)] {
        let (kinds, every) = long_kinds().map_or((kinds, every), |kinds| (kinds, 1));
        let states = explore_shapes(tasks, kinds, every);
        let shapes = shapes(tasks).len();
        println!("{tasks} tasks in {shapes} shapes, {kinds} kinds of needs, pairwise: {states} states");
        assert!(states > 1_000, "{states} states: the search ended early");
    }
}
