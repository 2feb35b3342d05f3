//! Scheduler resources: the limits of a run, and the needs of each phase.

use std::collections::BTreeMap;

use greenwave_scheduler::{Limits, Needs, Resources, ScheduleStats};

use crate::phase::Phase;
use crate::plan::{Feature, Plan};
use crate::settings::Settings;

/// Beginning of the names of a run's own resources. Resources of a plan have no colon in their
/// names, so the names cannot clash.
pub(crate) const OWN_PREFIX: char = ':';
/// Workers that prepare tests, run them and store their results. While tests are short, there are
/// two for each test that may run at once: see [`TestSlots`](greenwave_testing::TestSlots).
pub(crate) const WORKERS: &str = ":workers";
/// Requests in flight to agents.
pub(crate) const AGENTS: &str = ":agents";
/// Working copies that are made at the same time.
const COPIES: &str = ":copies";
/// The merge queue, one unit.
const MERGE: &str = ":merge";

/// Returns the resources that a feature holds in a phase, in which it has a number of requests in
/// flight if it has any.
///
/// A merge runs the tests of other features, too, so it holds what any of them needs. In a crowded
/// run, with more features than can be in progress, a feature that is ready to be merged makes room
/// for others.
pub(crate) fn needs(plan: &Plan, feature: &Feature, phase: Phase, requests: u32, is_crowded: bool) -> Needs {
    let tests = |features: &[Feature]| {
        let mut units: BTreeMap<&str, u32> = BTreeMap::new();
        for (name, needed) in features.iter().flat_map(|feature| &feature.resources) {
            let units = units.entry(name).or_default();
            *units = (*units).max(*needed);
        }
        let needs = Needs::nothing().of(WORKERS, 1);
        units.into_iter().fold(needs, |needs, (name, units)| needs.of(name, units))
    };
    let outside = |needs: Needs| if is_crowded { needs.without_task_slot() } else { needs };
    match phase {
        Phase::Prompting(_) => Needs::nothing().of(AGENTS, requests),
        Phase::Writing(_) => Needs::nothing().of(AGENTS, 1),
        Phase::Held(_) | Phase::Queued(_) | Phase::Blocked(_) => outside(Needs::nothing()),
        Phase::Merging(_) => outside(tests(&plan.features).of(MERGE, 1)),
        phase if phase.is_paused() => Needs::nothing(),
        Phase::Reviewing(_) if feature.reviewer.is_some() => {
            let needs = match feature.review {
                Some(_) => tests(std::slice::from_ref(feature)),
                None => Needs::nothing(),
            };
            needs.of(AGENTS, 1)
        }
        _ => tests(std::slice::from_ref(feature)),
    }
}

/// Returns the resources of the stage that makes the working copy of a feature, while the workers
/// run tests. `None` if commands set up the copy: they work like tests, and need the same.
pub(crate) fn copy_needs(plan: &Plan) -> Option<Needs> {
    plan.setup.is_empty().then(|| Needs::nothing().of(COPIES, 1))
}

/// Returns the resources of a worker that helps to test a merge, while no feature needs it. The
/// merge holds those of the tests.
pub(crate) fn helper_needs() -> Needs {
    Needs::nothing().of(WORKERS, 1).without_task_slot().in_background()
}

/// Returns the number of requests that a feature may have in flight, given the number of agents
/// that it asks.
pub(crate) fn requests_max(settings: &Settings, agents: usize) -> u32 {
    u32::try_from(agents).unwrap_or(u32::MAX).clamp(1, settings.parallel.agents.max(1))
}

/// Returns the share of the workers' time that stages used. The pool has two workers for each test
/// that may run.
pub(crate) fn efficiency(stats: &ScheduleStats) -> f64 {
    (2.0 * stats.efficiency(WORKERS)).min(1.0)
}

/// Returns the limits of a run.
pub(crate) fn limits(plan: &Plan, settings: &Settings) -> Limits {
    let own = [
        (WORKERS, settings.parallel.workers.saturating_mul(2)),
        (AGENTS, settings.parallel.agents),
        (MERGE, 1),
    ];
    let own = own.into_iter().chain([(COPIES, settings.parallel.workers)]);
    let own = own.map(|(name, units)| (name.to_owned(), units));
    let of_plan = plan.resources.iter().map(|(name, units)| (name.clone(), *units));
    let tasks_max = settings.parallel.features as usize;
    Limits { resources: Resources::new(of_plan.chain(own)), tasks_max, ..Limits::default() }
}
