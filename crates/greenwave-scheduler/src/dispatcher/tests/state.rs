//! States of a run as the search sees them, each with a unique number.

/// Maximum number of tasks that have not ended.
pub(super) const TASKS_MAX: usize = 5;
/// Units of the pool `workers`.
pub(super) const WORKERS: u32 = 2;
/// Units of the pool `gpus`.
pub(super) const GPUS: u32 = 1;

/// The use of the only lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockUse {
    Free,
    Shared,
    Exclusive,
}

/// The needs of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) workers: u32,
    pub(super) gpus: u32,
    pub(super) lock: LockUse,
    /// Whether the stage counts under `tasks_max`.
    pub(super) has_slot: bool,
}

const fn kind(workers: u32, lock: LockUse) -> Kind {
    Kind { workers, gpus: 0, lock, has_slot: true }
}

/// Every combination of a number of workers and a use of the lock, a stage that only waits, outside
/// of `tasks_max`, and stages that need a second pool, alone and with each other resource. Searches
/// with fewer kinds use the first ones.
pub(super) const KINDS: [Kind; 14] = [
    kind(1, LockUse::Free),
    kind(2, LockUse::Free),
    kind(1, LockUse::Shared),
    kind(0, LockUse::Exclusive),
    Kind { has_slot: false, ..kind(0, LockUse::Free) },
    kind(0, LockUse::Free),
    kind(1, LockUse::Exclusive),
    kind(0, LockUse::Shared),
    kind(2, LockUse::Shared),
    kind(2, LockUse::Exclusive),
    Kind { gpus: 1, ..kind(1, LockUse::Free) },
    Kind { gpus: 1, ..kind(0, LockUse::Free) },
    Kind { gpus: 1, ..kind(0, LockUse::Exclusive) },
    Kind { gpus: 1, ..kind(2, LockUse::Shared) },
];

impl Kind {
    /// Returns true if both use a common pool or lock.
    pub(super) fn shares_resource(self, other: Self) -> bool {
        let has_lock = |kind: Self| kind.lock != LockUse::Free;
        let both = |units: fn(Self) -> u32| units(self) > 0 && units(other) > 0;
        both(|kind| kind.workers) || both(|kind| kind.gpus) || (has_lock(self) && has_lock(other))
    }
}

/// Properties that all states of one search share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// Maximum number of tasks that have not ended, up to [`TASKS_MAX`].
    pub(super) tasks: usize,
    pub(super) tasks_max: usize,
    pub(super) overtakes_max: u32,
    /// Number of [`KINDS`] in use.
    pub(super) kinds: u8,
}

/// A task that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenTask {
    /// Waits for the tasks at these positions, a bit set.
    Waiting { after: u8 },
    /// Waits for resources of a kind.
    Ready { has_slot: bool, kind: u8, overtaken: u32 },
    /// Holds resources of a kind.
    Running { kind: u8 },
    /// Waits for a retry.
    Delayed { has_slot: bool },
}

impl OpenTask {
    /// Returns true if the task holds a slot under `tasks_max`.
    pub(super) fn has_slot(self) -> bool {
        match self {
            Self::Waiting { .. } => false,
            Self::Ready { has_slot, .. } | Self::Delayed { has_slot } => has_slot,
            Self::Running { kind } => KINDS[usize::from(kind)].has_slot,
        }
    }
}

/// Everything that affects the future of a run.
///
/// Tasks that have ended are omitted, and the others are in order of priority, which replaces their
/// ranks. A dependency that follows from others is omitted. The needs of waiting and delayed tasks
/// are chosen when they become ready, so that states that differ only in them count as one. A task
/// may have any number of stages, so there is no count of them. Overtakes beyond the limit make no
/// difference. Once the run is stopped, neither do the needs of ready tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) tasks: [OpenTask; TASKS_MAX],
    pub(super) len: usize,
    pub(super) admitted: u32,
    pub(super) is_paused: bool,
    pub(super) is_stopped: bool,
}

impl State {
    /// A run without tasks.
    pub(super) const EMPTY: Self = Self {
        tasks: [OpenTask::Delayed { has_slot: true }; TASKS_MAX],
        len: 0,
        admitted: WORKERS,
        is_paused: false,
        is_stopped: false,
    };

    pub(super) fn tasks(&self) -> &[OpenTask] {
        &self.tasks[..self.len]
    }

    /// Returns the positions of tasks with a property, as a bit set.
    pub(super) fn positions(&self, is: impl Fn(OpenTask) -> bool) -> u8 {
        let tasks = self.tasks().iter().enumerate();
        tasks.filter(|(_, task)| is(**task)).fold(0, |bits, (at, _)| bits | 1 << at)
    }
}

/// Values of the properties of a state that are not those of a task: the number of admitted workers
/// and whether the run is paused, or that it is stopped.
const GLOBALS: u64 = 7;

/// A bijection between states and numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbering {
    tasks: usize,
    kinds: u64,
    /// Number of values of `overtaken`.
    levels: u64,
    /// Number of values of a task.
    base: u64,
}

impl Numbering {
    pub(super) fn new(setting: &Setting) -> Self {
        let kinds = u64::from(setting.kinds);
        let levels = match setting.overtakes_max {
            u32::MAX => 1,
            max => u64::from(max) + 1,
        };
        // No task, a delayed one with or without a slot, a running one, a ready one, or one that
        // waits for any of the others.
        let base = 3 + kinds + 2 * kinds * levels + (1 << (setting.tasks - 1)) - 1;
        Self { tasks: setting.tasks, kinds, levels, base }
    }

    /// Returns the number of numbers.
    pub(super) fn len(&self) -> u64 {
        self.base.pow(self.tasks as u32) * GLOBALS
    }

    pub(super) fn number(&self, state: &State) -> u64 {
        let code = |at: usize| if at < state.len { self.code(at, state.tasks[at]) } else { 0 };
        let tasks = (0..self.tasks).fold(0, |number, at| number * self.base + code(at));
        let globals = if state.is_stopped {
            GLOBALS - 1
        } else {
            u64::from(state.admitted) * 2 + u64::from(state.is_paused)
        };
        tasks * GLOBALS + globals
    }

    fn code(&self, at: usize, task: OpenTask) -> u64 {
        match task {
            OpenTask::Delayed { has_slot } => 1 + u64::from(has_slot),
            OpenTask::Running { kind } => 3 + u64::from(kind),
            OpenTask::Ready { has_slot, kind, overtaken } => {
                let class = u64::from(has_slot) * self.kinds + u64::from(kind);
                3 + self.kinds + class * self.levels + u64::from(overtaken)
            }
            OpenTask::Waiting { after } => {
                let others = after & ((1 << at) - 1) | after >> (at + 1) << at;
                3 + self.kinds + 2 * self.kinds * self.levels + u64::from(others) - 1
            }
        }
    }

    pub(super) fn state(&self, number: u64) -> State {
        let globals = number % GLOBALS;
        let mut state = State {
            is_stopped: globals == GLOBALS - 1,
            is_paused: globals < GLOBALS - 1 && globals % 2 == 1,
            admitted: if globals == GLOBALS - 1 { WORKERS } else { (globals / 2) as u32 },
            ..State::EMPTY
        };
        let mut tasks = number / GLOBALS;
        for at in (0..self.tasks).rev() {
            let code = tasks % self.base;
            tasks /= self.base;
            if code > 0 {
                state.tasks[at] = self.task(at, code);
                state.len = state.len.max(at + 1);
            }
        }
        state
    }

    fn task(&self, at: usize, code: u64) -> OpenTask {
        if code <= 2 {
            return OpenTask::Delayed { has_slot: code == 2 };
        }
        let code = code - 3;
        if code < self.kinds {
            return OpenTask::Running { kind: code as u8 };
        }
        let code = code - self.kinds;
        if code < 2 * self.kinds * self.levels {
            let class = code / self.levels;
            let (has_slot, kind) = (class >= self.kinds, (class % self.kinds) as u8);
            return OpenTask::Ready { has_slot, kind, overtaken: (code % self.levels) as u32 };
        }
        let others = (code - 2 * self.kinds * self.levels + 1) as u8;
        OpenTask::Waiting { after: others & ((1 << at) - 1) | others >> at << (at + 1) }
    }
}

pub(super) fn bits_of(bits: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |at| bits & 1 << at != 0)
}
