//! Plans the run of a suite: batches of tests, the resources that they need, and their order.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use greenwave_scheduler::{Graph, GraphBuilder, Limits, Needs, OnFailure, Resources, TaskHistory};

use super::context::SuiteContext;
use crate::harness::batch_plan;
use crate::run::options::SuiteOptions;
use crate::run::test_id::TestId;
use crate::{Error, Test};

/// Scheduler resource that bounds the number of running tests: each takes one unit.
const WORKERS: &str = "workers";
/// Scheduler lock that a test holds exclusively if it must not run in parallel with others.
const ALONE: &str = "alone";

/// Batches of tests to run, each a task of the scheduler.
pub(super) struct Schedule {
    pub(super) graph: Graph<Vec<TestId>>,
    /// Histories of the batches, in the order of the graph's tasks.
    pub(super) histories: Vec<TaskHistory>,
}

impl Schedule {
    /// Plans the tests in `alone` as single batches, and groups those in `together`.
    ///
    /// # Errors
    /// [`Error::Schedule`] if the scheduler rejects the batches.
    pub(super) fn plan(
        context: &SuiteContext,
        alone: Vec<TestId>,
        together: &[TestId],
        histories: &HashMap<TestId, TaskHistory>,
        workers: u32,
    ) -> Result<Self, Error> {
        let duration = |id: TestId| {
            let history = histories.get(&id).filter(|history| history.runs > 0.0);
            history.map(|history| history.duration)
        };
        let together: Vec<(TestId, &Test)> = together.iter().map(|id| (*id, context.test(*id))).collect();
        let mut batches = batch_plan::plan(&context.runner.options().harnesses, &together, duration, workers);
        batches.extend(alone.into_iter().map(|id| vec![id]));
        let mut graph = GraphBuilder::new();
        for batch in batches {
            graph.task(context.test(batch[0]).name.clone(), batch);
        }
        let graph = graph.build()?;
        let histories = graph.tasks().map(|task| combined(histories, graph.payload(task))).collect();
        Ok(Self { graph, histories })
    }
}

/// Returns the limits of the scheduler for these tests.
pub(super) fn limits(tests: &[Test], options: &SuiteOptions) -> Limits {
    let mut resources: BTreeMap<String, u32> = BTreeMap::new();
    for name in tests.iter().flat_map(|test| test.needs.keys()) {
        resources.entry(resource(name)).or_insert(1);
    }
    resources.extend(options.resources.iter().map(|(name, units)| (resource(name), *units)));
    resources.insert(WORKERS.to_owned(), options.workers.max(1));
    Limits {
        resources: Resources::new(resources),
        on_failure: if options.fail_fast { OnFailure::StopAtFirst } else { OnFailure::KeepGoing },
        ..Limits::default()
    }
}

/// Returns the resources that a test needs while its process runs.
pub(super) fn needs(test: &Test) -> Needs {
    let needs = Needs::nothing().of(WORKERS, 1);
    let needs = if test.parallel_safe { needs.shared(ALONE) } else { needs.exclusive(ALONE) };
    test.needs.iter().fold(needs, |needs, (name, units)| needs.of(resource(name), *units))
}

/// Returns the scheduler's name for a resource. The prefix avoids collisions with [`WORKERS`] and
/// [`ALONE`].
fn resource(name: &str) -> String {
    format!("resource {name}")
}

/// Combines the histories of the tests of a batch: their total duration and the most failures of
/// any.
fn combined(histories: &HashMap<TestId, TaskHistory>, batch: &[TestId]) -> TaskHistory {
    let mut all = batch.iter().filter_map(|id| histories.get(id));
    let first = all.next().copied().unwrap_or(TaskHistory::unknown(Duration::ZERO));
    all.fold(first, |sum, next| TaskHistory {
        duration: sum.duration + next.duration,
        runs: sum.runs.min(next.runs),
        failures: sum.failures.max(next.failures),
        failed_last: sum.failed_last || next.failed_last,
        changed: sum.changed || next.changed,
    })
}
