//! Selects the ready stages that start next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::TaskId;
use crate::dispatcher::{Action, Dispatcher, RankedTask, TaskState};
use crate::order::Choice;

/// Resources reserved for tasks that were overtaken too often.
#[derive(Debug)]
struct Reserved {
    /// Reserved pools, by index.
    pools: Vec<bool>,
    /// Reserved slots under `tasks_max`.
    slots: usize,
}

impl Dispatcher {
    pub(super) fn start_what_fits(&mut self, actions: &mut Vec<Action>) {
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
        let by = self.class_of(task);
        for (above, class) in blocked.into_iter().filter(|(above, _)| *above > chosen) {
            if self.competes(by, class) {
                self.overtake(above, class, 0);
            }
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
                for (above, passed, slots) in passed {
                    if self.competes(class, passed) {
                        self.overtake(above, passed, slots);
                    }
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

    /// Returns false if a stage in the background takes nothing that a blocked one of another class
    /// lacks.
    fn competes(&self, class: usize, blocked: usize) -> bool {
        let wants = &self.wants[class / 2];
        let takes = |pool: usize| wants.units.iter().any(|&(other, _)| other == pool);
        let mut lacking = self.wants[blocked / 2].units.iter();
        !wants.is_background
            || lacking.any(|&(pool, units)| i64::from(units) > self.free[pool] && takes(pool))
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
