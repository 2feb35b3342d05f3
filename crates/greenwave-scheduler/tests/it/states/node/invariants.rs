//! The invariants of states and starts.

use greenwave_scheduler::{TaskId, TaskState};

use super::super::graphs::bits_of;
use super::{Node, SearchSetting, WORKERS};

impl Node {
    pub(super) fn check_figures(&self) -> Result<(), String> {
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

    pub(super) fn check_limits(&self, setting: &SearchSetting, starts: &[usize]) -> Result<(), String> {
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

    pub(super) fn check_dependencies(&self, starts: &[usize]) -> Result<(), String> {
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

    pub(super) fn check_progress(&self, setting: &SearchSetting) -> Result<(), String> {
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
    pub(super) fn check_overtaking(
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
        if counted < overtaken {
            return Err(format!("task {waiting} was overtaken {overtaken} times, and {counted} are counted"));
        }
        Ok(())
    }
}
