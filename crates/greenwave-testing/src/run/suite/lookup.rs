//! Looks up the results of many tests, and builds the programs that results depend on.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use greenwave_inputs::Snapshot;

use super::builds::Builds;
use super::context::SuiteContext;
use super::report::{Observe, SuiteEvent};
use crate::results::lookup::Lookup;
use crate::results::lookup_inputs::{LookedUpTest, LookupInputs};
use crate::results::outcome::CacheDecision;
use crate::results::outputs;
use crate::run::blocking::blocking;
use crate::run::runner::prepare::{Prepared, program_location};
use crate::run::test_id::TestId;
use crate::{Error, Test};

/// Tests with the results of their lookups.
pub(super) type Lookups = Vec<(TestId, Result<Lookup, Error>)>;

/// The outcome of looking up many tests.
#[derive(Debug)]
pub(super) struct SuiteLookup {
    pub(super) found: Lookups,
    /// Directories that were built because results depend on them.
    pub(super) builds: Builds,
    /// Tests whose stored result must not be used, each with the reason. New results are not
    /// stored for the same reason.
    pub(super) distrusted: HashMap<TestId, CacheDecision>,
    /// Inputs of the lookup, if all of its results were cached.
    pub(super) lookup_inputs: Option<LookupInputs>,
}

impl SuiteLookup {
    /// Looks up results. Results that depend on cargo builds are looked up again after the build.
    pub(super) async fn run(
        context: &Arc<SuiteContext>,
        snapshot: &Arc<Snapshot>,
        wanted: &[TestId],
        observe: &Observe<'_>,
    ) -> Self {
        let mut lookup = Self::without_builds(context, snapshot, wanted).await;
        let depends_on_build = |(id, found): &(TestId, Result<Lookup, Error>)| match found {
            Ok(Lookup::Hit(_, chain)) if chain.builds().next().is_some() => Some(*id),
            _ => None,
        };
        let dependent: BTreeSet<TestId> = lookup.found.iter().filter_map(depends_on_build).collect();
        if !dependent.is_empty() {
            // These results are valid only after a build, which an up-to-date check does not run.
            lookup.lookup_inputs = None;
            lookup.build_and_repeat(context, dependent, observe).await;
        }
        lookup
    }

    /// Looks up results and builds nothing. A result that depends on a build is valid only if the
    /// build would change nothing.
    pub(super) async fn without_builds(
        context: &SuiteContext,
        snapshot: &Arc<Snapshot>,
        wanted: &[TestId],
    ) -> Self {
        context.runner.verify_maintained(context.project.root()).await;
        let (found, lookup_inputs) = lookup_once(context, snapshot, wanted).await;
        let (builds, distrusted) = (Builds::default(), HashMap::new());
        let mut lookup = Self { found, builds, distrusted, lookup_inputs };
        lookup.distrust_undeclared_reads(context).await;
        lookup
    }

    /// Restores the outputs of cached results that were removed. A result whose outputs cannot be
    /// restored must not be used.
    pub(super) async fn restore_outputs(&mut self, context: &SuiteContext) {
        for (id, found) in &mut self.found {
            let Ok(Lookup::Hit(outcome, _)) = found else { continue };
            if outcome.outputs.is_empty() {
                continue;
            }
            // An up-to-date check would not see that an output is removed.
            self.lookup_inputs = None;
            let Ok(selection) = context.test(*id).selection() else { continue };
            let (project, outputs) = (context.project.root().to_owned(), Arc::clone(&outcome.outputs));
            let removed = blocking(move || outputs::restore(&project, &selection, &outputs)).await;
            if let Some(path) = removed {
                self.distrusted.insert(*id, CacheDecision::OutputRemoved(path));
                *found = Ok(Lookup::Corrupt);
            }
        }
    }

    /// Rejects the results of untraced tests that read undeclared files when they were traced.
    async fn distrust_undeclared_reads(&mut self, context: &SuiteContext) {
        let tests: Vec<&Test> = self.found.iter().map(|(id, _)| context.test(*id)).collect();
        let markers = context.runner.have_undeclared_reads(&tests).await;
        for ((id, found), reads_more) in self.found.iter_mut().zip(markers) {
            if reads_more && found.is_ok() {
                *found = Ok(Lookup::Corrupt);
                self.distrusted.insert(*id, CacheDecision::UndeclaredReads);
                self.lookup_inputs = None;
            }
        }
    }

    /// Builds the programs that results depend on, and looks the results up again.
    async fn build_and_repeat(
        &mut self,
        context: &Arc<SuiteContext>,
        dependent: BTreeSet<TestId>,
        observe: &Observe<'_>,
    ) {
        let directories: BTreeSet<&Path> =
            dependent.iter().filter_map(|id| context.build_directory(*id)).collect();
        for directory in directories {
            observe(SuiteEvent::Building(directory));
            // A failed build is not an error here: the tests that depend on it will run.
            let built = self.builds.build(context, directory).await;
            observe(SuiteEvent::Built { directory, succeeded: built.is_ok() });
        }
        let mut again = Vec::new();
        for (id, found) in self.found.iter_mut().filter(|(id, _)| dependent.contains(id)) {
            let Ok(Lookup::Hit(_, chain)) = found else { continue };
            let built = context.build_directory(*id).and_then(|directory| self.builds.get(directory));
            if built.is_some_and(|built| built.output.is_complete()) {
                again.push(*id);
                continue;
            }
            let roots = built.map(|built| built.output.output_directories()).unwrap_or_default();
            let product = chain.dependency_in(context.project.root(), roots).unwrap_or_default();
            self.distrusted.insert(*id, CacheDecision::NotBuilt(product));
            *found = Ok(Lookup::Corrupt);
        }
        if again.is_empty() {
            return;
        }
        let mut later: HashMap<TestId, Result<Lookup, Error>> = match context.scan().await {
            Ok(snapshot) => lookup_once(context, &snapshot, &again).await.0.into_iter().collect(),
            Err(_) => again.iter().map(|id| (*id, Ok(Lookup::Corrupt))).collect(),
        };
        for (id, found) in &mut self.found {
            if let Some(later) = later.remove(id) {
                *found = later;
            }
        }
    }
}

/// Looks up results in a state of the project. Also returns the inputs of the lookup, if all
/// results were cached.
async fn lookup_once(
    context: &SuiteContext,
    snapshot: &Arc<Snapshot>,
    wanted: &[TestId],
) -> (Lookups, Option<LookupInputs>) {
    let tests: Vec<&Test> = wanted.iter().map(|id| context.test(*id)).collect();
    let prepared = context.runner.prepare_all(&context.project, snapshot, &tests).await;
    let valid: Vec<&Prepared<'_>> = prepared.iter().flatten().collect();
    let mut found = context.runner.lookup_all(&valid).await.into_iter();
    let mut lookups: Lookups = Vec::with_capacity(wanted.len());
    let mut tools = Vec::with_capacity(wanted.len());
    for (id, prepared) in wanted.iter().zip(prepared) {
        tools.push(prepared.as_ref().map(Prepared::tool_digest).unwrap_or_default());
        lookups.push((*id, prepared.and_then(|_| found.next().ok_or(Error::Stopped))));
    }
    let looked_up = lookups.iter().zip(tools).map(|((id, found), tool)| match found {
        Ok(Lookup::Hit(_, chain)) => {
            let (id, program) = (*id, program_location(context.test(*id)));
            Some(LookedUpTest { id, program, tool, sets: chain.dependencies() })
        }
        _ => None,
    });
    let lookup_inputs = LookupInputs::collect(snapshot, looked_up);
    (lookups, lookup_inputs)
}
