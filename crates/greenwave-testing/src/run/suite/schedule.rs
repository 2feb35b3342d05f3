//! Plans the run of a suite: batches of tests, the resources that they need, and their order.

use std::collections::{BTreeMap, HashMap, HashSet};
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
    /// Tests that were seen to fail beside others.
    pub(super) without_company: HashSet<TestId>,
}

/// The tests to run, by the way in which they run.
pub(super) struct TestGroups {
    /// Tests that run alone in their process, beside others.
    pub(super) alone: Vec<TestId>,
    /// Tests that may share a process, beside others.
    pub(super) free: Vec<TestId>,
    /// Tests that may share a process while no other process runs.
    pub(super) without_company: Vec<TestId>,
    /// Tests that depend on those before them in the same process.
    pub(super) in_order: Vec<TestId>,
}

impl Schedule {
    /// Groups tests into batches.
    ///
    /// # Errors
    /// [`Error::Schedule`] if the scheduler rejects the batches.
    pub(super) fn plan(
        context: &SuiteContext,
        groups: TestGroups,
        histories: &HashMap<TestId, TaskHistory>,
        workers: u32,
    ) -> Result<Self, Error> {
        let TestGroups { alone, free, without_company, in_order } = groups;
        let duration = |id: TestId| {
            let history = histories.get(&id).filter(|history| history.runs > 0.0);
            history.map(|history| history.duration)
        };
        let harnesses = &context.runner.options().harnesses;
        let plan = |ids: &[TestId], workers| {
            let tests: Vec<(TestId, &Test)> = ids.iter().map(|id| (*id, context.test(*id))).collect();
            batch_plan::plan(harnesses, &tests, duration, workers)
        };
        let mut batches = plan(&free, workers);
        batches.extend(plan(&without_company, 1));
        batches.extend(plan(&in_order, 1));
        batches.extend(alone.into_iter().map(|id| vec![id]));
        let mut graph = GraphBuilder::new();
        for batch in batches {
            graph.task(context.test(batch[0]).name.clone(), batch);
        }
        let graph = graph.build()?;
        let histories = graph.tasks().map(|task| combined(histories, graph.payload(task))).collect();
        Ok(Self { graph, histories, without_company: without_company.into_iter().collect() })
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
pub(super) fn needs(test: &Test, without_company: bool) -> Needs {
    let needs = Needs::nothing().of(WORKERS, 1);
    let needs =
        if test.parallel_safe && !without_company { needs.shared(ALONE) } else { needs.exclusive(ALONE) };
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
