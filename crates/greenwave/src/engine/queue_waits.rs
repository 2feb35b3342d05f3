//! Measures how long stages that are ready wait for resources.

use std::time::Duration;

use greenwave_scheduler::{Graph, Progress, TaskId};
use tokio::time::Instant;

use crate::plan::FeatureId;

/// The tasks of a graph, with the time since which their next stage is ready.
#[derive(Debug)]
pub(super) struct QueueWaits {
    tasks: Vec<Task>,
}

#[derive(Debug)]
struct Task {
    /// Number of dependencies that are not done.
    missing: usize,
    dependants: Vec<TaskId>,
    ready_since: Option<Instant>,
}

impl QueueWaits {
    /// Begins to measure. Tasks that are `done` do not run.
    pub(super) fn new(graph: &Graph<FeatureId>, done: &[TaskId], now: Instant) -> Self {
        let mut is_done = vec![false; graph.len()];
        done.iter().for_each(|task| is_done[task.index()] = true);
        let task = |id: TaskId| {
            let missing = graph.dependencies(id).iter().filter(|it| !is_done[it.index()]).count();
            let ready_since = (missing == 0 && !is_done[id.index()]).then_some(now);
            Task { missing, dependants: graph.dependants(id).to_vec(), ready_since }
        };
        Self { tasks: graph.tasks().map(task).collect() }
    }

    /// Follows the progress of the run. Returns the wait of a stage that starts.
    pub(super) fn observe(&mut self, progress: &Progress, now: Instant) -> Option<Duration> {
        match progress {
            Progress::Started(stage) => {
                let since = self.tasks.get_mut(stage.task.index())?.ready_since.take()?;
                return Some(now.saturating_duration_since(since));
            }
            Progress::Ended(stage) => self.tasks.get_mut(stage.task.index())?.ready_since = Some(now),
            Progress::Retrying(stage, delay) => {
                self.tasks.get_mut(stage.task.index())?.ready_since = now.checked_add(*delay);
            }
            Progress::Done(task) => {
                for dependant in std::mem::take(&mut self.tasks.get_mut(task.index())?.dependants) {
                    let dependant = self.tasks.get_mut(dependant.index())?;
                    dependant.missing = dependant.missing.saturating_sub(1);
                    if dependant.missing == 0 {
                        dependant.ready_since = Some(now);
                    }
                }
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use greenwave_scheduler::{GraphBuilder, Stage};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_begin_when_the_last_dependency_is_done() {
        let mut graph = GraphBuilder::new();
        for (index, id) in ["done", "first", "second"].into_iter().enumerate() {
            graph.task(id, FeatureId::from_index(index));
        }
        graph.depends_on("first", "done").depends_on("second", "first");
        let graph = graph.build().unwrap();
        let [done, first, second] = [0, 1, 2].map(TaskId::from_index);
        let start = Instant::now();
        let mut waits = QueueWaits::new(&graph, &[done], start);
        let stage = |task, number| Stage { task, number, retry: 0 };
        let mut check = |progress, at, expected: Option<u64>| {
            let wait = waits.observe(&progress, start + Duration::from_secs(at));
            assert_eq!(wait, expected.map(Duration::from_secs), "{progress:?}");
        };
        check(Progress::Started(stage(first, 0)), 3, Some(3));
        check(Progress::Ended(stage(first, 0)), 5, None);
        check(Progress::Started(stage(first, 1)), 9, Some(4));
        check(Progress::Retrying(stage(first, 1), Duration::from_secs(10)), 10, None);
        check(Progress::Started(stage(first, 1)), 22, Some(2));
        check(Progress::Done(first), 30, None);
        check(Progress::Started(stage(second, 0)), 31, Some(1));
    }
}
