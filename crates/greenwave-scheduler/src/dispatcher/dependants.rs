//! Releases and skips the tasks that depend on others.

use crate::TaskId;
use crate::dispatcher::{Action, Dispatcher, TaskState};

impl Dispatcher {
    /// Skips a waiting task and its dependants.
    pub(super) fn skip_from(&mut self, task: TaskId, failed: TaskId, actions: &mut Vec<Action>) {
        self.stats.waiting -= 1;
        self.finish(task, TaskState::Skipped(failed));
        actions.push(Action::Skip(task, failed));
        self.skip_dependants(task, failed, actions);
    }

    pub(super) fn skip_dependants(&mut self, from: TaskId, failed: TaskId, actions: &mut Vec<Action>) {
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

    pub(super) fn release_dependants(&mut self, task: TaskId) {
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

    /// Adds a dependency on `task` to waiting tasks.
    pub(super) fn add_dependency(&mut self, task: TaskId, before: &[TaskId]) {
        for later in before {
            if let TaskState::Waiting(count) = &mut self.tasks[later.index()].state {
                *count += 1;
                self.added.entry(task).or_default().push(*later);
            }
        }
    }

    pub(super) fn has_ended(&self, task: TaskId) -> bool {
        matches!(self.tasks[task.index()].state, TaskState::Done | TaskState::Failed | TaskState::Skipped(_))
    }

    pub(super) fn failed_ancestor(&self, task: TaskId) -> Option<TaskId> {
        match self.tasks[task.index()].state {
            TaskState::Failed => Some(task),
            TaskState::Skipped(failed) => Some(failed),
            _ => None,
        }
    }

    /// Returns true if one of `to` is, or depends on, one of `from`.
    pub(super) fn reaches(&mut self, from: &[TaskId], to: &[TaskId]) -> bool {
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
}
