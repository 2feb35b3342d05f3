//! The invariants of each step and of the state after it.

use super::state::{GPUS, KINDS, Kind, LockUse, OpenTask, WORKERS, bits_of};
use super::step::{Step, Transition};
use crate::TaskState;

/// Checks all invariants.
pub(super) fn check(transition: &Transition<'_>) -> Result<(), String> {
    let this = transition;
    if (this.is_stopped || this.is_paused) && !this.starts.is_empty() {
        return Err(format!("tasks {:?} start while the run is paused or stopped", this.starts));
    }
    this.check_event()?;
    this.check_others()?;
    this.check_figures()?;
    this.check_limits()?;
    this.check_dependencies()?;
    this.check_overtaking()?;
    this.check_progress()
}

impl Transition<'_> {
    fn kind(&self, at: usize) -> Kind {
        KINDS[usize::from(self.tasks[at].kind)]
    }

    /// Returns true if a task has priority over another.
    fn is_above(&self, at: usize, other: usize) -> bool {
        self.tasks[at].position < self.tasks[other].position
    }

    fn count(&self, is: impl Fn(TaskState) -> bool) -> usize {
        self.tasks().iter().filter(|task| is(task.state)).count()
    }

    fn in_flight(&self) -> usize {
        self.tasks().iter().filter(|task| task.is_open() && task.has_slot()).count()
    }

    fn ready(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|at| self.tasks[*at].is_ready())
    }

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|at| self.tasks[*at].is_running())
    }

    /// Returns the number of workers in use.
    fn used(&self) -> u32 {
        self.running().map(|at| self.kind(at).workers).sum()
    }

    /// Returns the number of units of the second pool in use.
    fn used_gpus(&self) -> u32 {
        self.running().map(|at| self.kind(at).gpus).sum()
    }

    fn admitted(&self) -> u32 {
        self.dispatcher.stats.pools[0].admitted
    }

    /// The event has its effect on the task that it names.
    fn check_event(&self) -> Result<(), String> {
        let is_queued = |at: usize| self.tasks[at].is_ready() || self.tasks[at].is_running();
        let is_right = match self.step {
            Step::Done(at) => self.tasks[at].state == TaskState::Done,
            Step::Failed(at, _) | Step::TooLarge(at) => self.tasks[at].state == TaskState::Failed,
            Step::Next(at, kind) => is_queued(at) && self.tasks[at].kind == kind,
            Step::Retry(at) => matches!(self.tasks[at].state, TaskState::Delayed(_)),
            Step::Tick { woken } => bits_of(woken).all(is_queued),
            Step::Admit(units) => self.admitted() == units.min(WORKERS),
            Step::Add { .. } | Step::AddAfterFailed { .. } => self.len > self.before.len,
            Step::Begin | Step::Pause | Step::Resume | Step::Stop => true,
        };
        is_right.then_some(()).ok_or_else(|| format!("no effect: {:?}", self.tasks()))
    }

    /// A task that the event does not name stays as it is, starts, becomes ready or is skipped.
    fn check_others(&self) -> Result<(), String> {
        let named = match self.step {
            Step::Done(at)
            | Step::Failed(at, _)
            | Step::TooLarge(at)
            | Step::Next(at, _)
            | Step::Retry(at) => 1 << at,
            Step::Tick { woken } => woken,
            _ => 0_u8,
        };
        for (at, task) in self.tasks().iter().enumerate().filter(|(at, _)| named & 1 << at == 0) {
            let Some(before) = task.before else { continue };
            let is_right = match (before, task.state) {
                (OpenTask::Waiting { .. }, _)
                | (OpenTask::Delayed { .. }, TaskState::Delayed(_))
                | (OpenTask::Running { .. }, TaskState::Running(_)) => true,
                (OpenTask::Ready { .. }, state) => {
                    matches!(state, TaskState::Running(_)) == self.starts.contains(&at)
                        && (task.is_ready() || task.is_running())
                }
                _ => false,
            };
            if !is_right {
                return Err(format!("task {at} was {before:?} and is {:?}", task.state));
            }
        }
        Ok(())
    }

    fn check_figures(&self) -> Result<(), String> {
        let stats = &self.dispatcher.stats;
        let counts = [
            (stats.tasks, self.len),
            (stats.started, self.starts.len()),
            (stats.waiting, self.count(|state| matches!(state, TaskState::Waiting(_)))),
            (stats.ready, self.count(|state| matches!(state, TaskState::Ready(_)))),
            (stats.running, self.count(|state| matches!(state, TaskState::Running(_)))),
            (stats.delayed, self.count(|state| matches!(state, TaskState::Delayed(_)))),
            (stats.done, self.count(|state| state == TaskState::Done)),
            (stats.failed, self.count(|state| state == TaskState::Failed)),
            (stats.skipped, self.count(|state| matches!(state, TaskState::Skipped(_)))),
            (stats.in_flight, self.in_flight()),
            (stats.pools[0].used as usize, self.used() as usize),
            (stats.pools[1].used as usize, self.used_gpus() as usize),
        ];
        let is_right = counts.iter().all(|(reported, counted)| reported == counted);
        is_right.then_some(()).ok_or_else(|| format!("wrong statistics (reported, counted): {counts:?}"))
    }

    fn check_limits(&self) -> Result<(), String> {
        let used = self.used();
        if used > WORKERS {
            return Err(format!("{used} workers are used of {WORKERS}"));
        }
        if self.used_gpus() > GPUS {
            return Err(format!("{} units of the second pool are used of {GPUS}", self.used_gpus()));
        }
        // Stages may exceed the admitted number if they started before a reduction, or if a stage
        // runs alone because it could never fit.
        let admitted = self.admitted();
        let has_taken = self.starts.iter().any(|at| self.kind(*at).workers > 0);
        let holders = self.running().filter(|at| self.kind(*at).workers > 0).count();
        if has_taken && used > admitted && holders > 1 {
            return Err(format!("{holders} stages use {used} workers where {admitted} are admitted"));
        }
        let users = |lock: LockUse| self.running().filter(|at| self.kind(*at).lock == lock).count();
        let (exclusive, shared) = (users(LockUse::Exclusive), users(LockUse::Shared));
        if exclusive > 1 || (exclusive == 1 && shared > 0) {
            return Err(format!("the lock has {exclusive} exclusive and {shared} shared holders"));
        }
        if self.in_flight() > self.setting.tasks_max {
            return Err(format!("{} tasks are in flight", self.in_flight()));
        }
        Ok(())
    }

    fn check_dependencies(&self) -> Result<(), String> {
        for (at, task) in self.tasks().iter().enumerate() {
            let mut dependencies = bits_of(task.after).map(|before| self.tasks[before].state);
            let is_bad = |state| matches!(state, TaskState::Failed | TaskState::Skipped(_));
            let has_bad = bits_of(task.after).any(|before| is_bad(self.tasks[before].state));
            if has_bad != matches!(task.state, TaskState::Skipped(_)) {
                return Err(format!("task {at} is {:?} with failed dependencies: {has_bad}", task.state));
            }
            let are_done = dependencies.all(|state| state == TaskState::Done);
            if self.starts.contains(&at) && !are_done {
                return Err(format!("task {at} starts before its dependencies are done"));
            }
            match task.state {
                TaskState::Waiting(_) if are_done => return Err(format!("task {at} waits for nothing")),
                TaskState::Waiting(count) => {
                    let open = bits_of(task.after).filter(|before| self.tasks[*before].is_open()).count();
                    if count as usize != open {
                        return Err(format!("task {at} waits for {count} tasks where {open} are open"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn has_slot(&self, at: usize) -> bool {
        let task = &self.tasks[at];
        task.has_slot() || !task.needs_slot() || self.in_flight() < self.setting.tasks_max
    }

    fn fits(&self, at: usize) -> bool {
        let kind = self.kind(at);
        let used = self.used();
        let has_workers = kind.workers == 0 || used == 0 || used + kind.workers <= self.admitted();
        let is_locked = self.running().any(|other| match (kind.lock, self.kind(other).lock) {
            (LockUse::Free, _) | (_, LockUse::Free) | (LockUse::Shared, LockUse::Shared) => false,
            (LockUse::Exclusive, _) | (_, LockUse::Exclusive) => true,
        });
        let has_gpus = self.used_gpus() + kind.gpus <= GPUS;
        has_workers && has_gpus && !is_locked && self.has_slot(at)
    }

    /// Returns true if a task was overtaken as often as allowed.
    fn is_owed(&self, at: usize) -> bool {
        self.tasks[at].overtaken >= self.setting.overtakes_max
    }

    /// Every stage that can start has started, unless its resources are reserved. If no stage runs,
    /// all tasks have ended or a retry is due.
    fn check_progress(&self) -> Result<(), String> {
        if self.is_stopped || self.is_paused {
            return Ok(());
        }
        for at in self.ready() {
            let is_reserved = |other: usize| self.is_above(other, at) && self.is_owed(other);
            if !self.ready().any(is_reserved) && self.fits(at) {
                return Err(format!("task {at} could start, and nothing is reserved for another"));
            }
        }
        if self.running().next().is_some() {
            return Ok(());
        }
        if self.count(|state| matches!(state, TaskState::Delayed(_))) > 0 {
            // Tasks in progress hold slots, and nothing else.
            return match self.ready().find(|at| self.has_slot(*at)) {
                Some(at) => Err(format!("no stage runs, and task {at} has a slot but does not start")),
                None => Ok(()),
            };
        }
        match (0..self.len).find(|at| self.tasks[*at].is_open()) {
            Some(at) => Err(format!("deadlock: no stage runs, and task {at} is {:?}", self.tasks[at].state)),
            None if !self.dispatcher.is_finished() => {
                Err("all tasks have ended, but the run has not".to_owned())
            }
            None => Ok(()),
        }
    }

    /// Checks the starts of one step in order, based on the state at the time of the first one.
    fn check_overtaking(&self) -> Result<(), String> {
        if self.starts.is_empty() {
            return Ok(());
        }
        self.ready().try_for_each(|waiting| self.check_overtaken(waiting))
    }

    /// Checks that no start took a resource from a task that was overtaken too often, and that
    /// earlier overtakes were counted.
    fn check_overtaken(&self, waiting: usize) -> Result<(), String> {
        let tasks_max = self.setting.tasks_max;
        // Tasks that take no slot when they start.
        let was_begun = |at: usize| self.tasks[at].kept_slot() || !self.tasks[at].needs_slot();
        let class = |at: usize| (self.tasks[at].kind, was_begun(at));
        let is_behind = |other: usize| class(other) == class(waiting) && self.is_above(other, waiting);
        if self.ready().any(is_behind) {
            return Ok(());
        }
        let mut overtaken = match self.tasks[waiting].before {
            Some(OpenTask::Ready { overtaken, .. }) => overtaken,
            _ => 0,
        };
        // Excludes tasks that begin in this step.
        let mut in_flight = self.tasks().iter().filter(|task| task.kept_slot() && task.is_open()).count();
        for (number, &start) in self.starts.iter().enumerate() {
            let begins = !was_begun(start);
            let was_in_flight = in_flight;
            in_flight += usize::from(begins);
            // While another task of the same class was ahead of it, that task was the one
            // overtaken.
            if self.is_above(start, waiting) || self.starts[number..].iter().any(|other| is_behind(*other)) {
                continue;
            }
            let has_slot = was_begun(waiting) || was_in_flight < tasks_max;
            // Slots go to tasks of higher rank first.
            let takes_slot = |other: usize| !was_begun(other) && self.is_above(other, waiting);
            let yields_slot =
                !was_begun(waiting) && self.ready().any(|other| takes_slot(other) && self.is_owed(other));
            if !has_slot || yields_slot {
                continue;
            }
            let takes_pool = self.kind(start).shares_resource(self.kind(waiting));
            let takes_last_place = begins && !was_begun(waiting) && in_flight >= tasks_max;
            if overtaken >= self.setting.overtakes_max && (takes_pool || takes_last_place) {
                return Err(format!("task {start} overtakes task {waiting}, overtaken {overtaken} times"));
            }
            overtaken += 1;
        }
        let counted = self.tasks[waiting].overtaken;
        if counted < overtaken {
            return Err(format!("task {waiting} was overtaken {overtaken} times, and {counted} are counted"));
        }
        Ok(())
    }
}
