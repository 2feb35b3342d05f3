//! Scheduler resources: the limits of a run, and the needs of each phase.

use greenwave_scheduler::{Limits, Needs, Resources};

use crate::phase::Phase;
use crate::plan::{Feature, Plan};
use crate::settings::Settings;

// Resources of a plan have no colon in their names, so these names cannot clash with them.
/// Workers that run tests.
pub(crate) const WORKERS: &str = ":workers";
/// Requests in flight to agents.
pub(crate) const AGENTS: &str = ":agents";
/// The merge queue, one unit.
const MERGE: &str = ":merge";

/// Returns the resources that a feature holds in a phase.
pub(crate) fn needs(feature: &Feature, phase: Phase) -> Needs {
    let tests = || {
        let of_plan = feature.resources.iter();
        of_plan.fold(Needs::nothing(), |needs, (name, units)| needs.of(name, *units)).of(WORKERS, 1)
    };
    match phase {
        Phase::Prompting(_) => Needs::nothing().of(AGENTS, 1),
        Phase::Merging(_) => tests().of(MERGE, 1),
        Phase::Paused(_) | Phase::Blocked(_) => Needs::nothing(),
        _ => tests(),
    }
}

/// Returns the limits of a run.
pub(crate) fn limits(plan: &Plan, settings: &Settings) -> Limits {
    let own = [(WORKERS, settings.parallel.workers), (AGENTS, settings.parallel.agents), (MERGE, 1)];
    let own = own.into_iter().map(|(name, units)| (name.to_owned(), units));
    let of_plan = plan.resources.iter().map(|(name, units)| (name.clone(), *units));
    let tasks_max = settings.parallel.features as usize;
    Limits { resources: Resources::new(of_plan.chain(own)), tasks_max, ..Limits::default() }
}
