//! Looks up results by the built program and by what its process observed.
//!
//! Compiled code needs two decisions. Whether to *build* depends on all files of the package, since
//! no trace shows what a compiler and its plugins would read. Whether to *run* depends on the
//! program that the build has made and on the trace of its run: an edit that changes neither the
//! program nor a file that its process reads, such as one of a README or of another test, needs no
//! run. [design/0011](../../../../../docs/design/0011-results-by-the-trace-alone.md) has the
//! argument.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_cache::Key;
use greenwave_inputs::{AccessKind, CLOCK_TICK, DiscoveredDeps};

use super::accesses::{AccessFilter, ProcessAccesses, without_products};
use super::attempt::TestJob;
use super::timed_accesses::{BuiltRun, TimedAccesses};
use crate::Error;
use crate::harness::LaunchSpec;
use crate::harness::cargo::products::Products;
use crate::results::key::{self, KeyMode};
use crate::results::key_chain::KeyChain;
use crate::results::lookup::{LookupQuery, ResultCache};
use crate::results::outcome::Outcome;
use crate::results::record::{self, NewResult};
use crate::run::process::ProcessResult;

impl TestJob<'_> {
    /// Returns the observations of a finished process, if a later process of the same program may
    /// depend on nothing else.
    pub(super) fn built_run(
        &self,
        launch: &LaunchSpec,
        process: &ProcessResult,
        filter: &AccessFilter<'_>,
    ) -> Option<BuiltRun> {
        let (list, products) = self.list_of_program(launch)?;
        let ProcessAccesses { accesses, from_cache } = filter.of_process(&process.seen, products)?;
        let accesses = TimedAccesses {
            accesses,
            own: None,
            seen: Arc::clone(&process.seen),
            built: products.roots.clone(),
            products: Arc::clone(&products.own),
            from_cache,
            since: process.began,
            began: process.began,
        };
        Some(BuiltRun { list, accesses })
    }

    /// Returns the key of the list of traces of a program that was built in this run, with the
    /// products of the build. Returns `None` if the build was not complete, or if a declared input
    /// always counts.
    fn list_of_program<'l>(&self, launch: &'l LaunchSpec) -> Option<(Key, &'l Products)> {
        let products = launch.products.as_ref()?;
        let is_built = products.is_complete && !products.runs_cargo && launch.changing.is_none();
        let mode = self.runner.mode();
        if !is_built || launch.failure.is_some() || mode != KeyMode::Traced || !self.test.inputs.is_empty() {
            return None;
        }
        let incomplete = self.runner.options.incomplete;
        let (environment, tools) = (&self.prepared.environment, &self.prepared.tools);
        Some((key::traces_of_process(mode, incomplete, self.test, environment, tools, launch), products))
    }

    /// Returns the result of an earlier run of the same program that observed nothing but what it
    /// would observe now. Stores it under the keys of the current sources.
    pub(super) async fn cached_by_program(
        &self,
        cache: &ResultCache,
        chain: &KeyChain,
    ) -> Result<Option<Outcome>, Error> {
        if self.workspace.built(&self.test.directory).is_none() {
            return Ok(None);
        }
        let launch = self.launch(self.test)?;
        let Some((list, products)) = self.list_of_program(&launch) else { return Ok(None) };
        let query = LookupQuery { traces: Some(list), ..self.prepared.query() };
        let found = cache.lookup_traces(&[(0, chain.clone())], &[query]).await.pop();
        let Some((_, outcome, by_trace)) = found else { return Ok(None) };
        if !self.has_outputs(&outcome).await {
            return Ok(None);
        }
        if let Some(trace) = by_trace.dependencies().first() {
            self.store_for_sources(cache, chain, &launch, products, trace, &outcome).await;
        }
        Ok(Some(outcome))
    }

    /// Stores a result under the key that covers the sources of the program, so that the next
    /// lookup needs no build.
    async fn store_for_sources(
        &self,
        cache: &ResultCache,
        chain: &KeyChain,
        launch: &LaunchSpec,
        products: &Products,
        trace: &DiscoveredDeps,
        outcome: &Outcome,
    ) {
        let (project, states) = (self.workspace.project(), &self.prepared.snapshot.states);
        let relative = |path: &Path| path.strip_prefix(project).unwrap_or(path).to_owned();
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
        // The compiler may have read another state of a source that changed since the build began.
        let is_certain = |(path, kind): &(PathBuf, AccessKind)| {
            states.state(&relative(path), *kind).1 < launch.since.saturating_sub(tick)
        };
        if chain.is_full() || !launch.dependencies.iter().all(is_certain) {
            return;
        }
        let observed = trace.accesses.iter().map(|(path, kind)| (project.join(path), *kind)).collect();
        let (observed, _) = without_products(products, observed, &HashSet::new());
        let inputs = &self.prepared.snapshot.inputs;
        let all = observed.iter().chain(&launch.dependencies).map(|(path, kind)| (relative(path), *kind));
        let new = all.filter(|(path, kind)| *kind != AccessKind::Content || inputs.get(path).is_none());
        let set = Arc::new(DiscoveredDeps::new(new));
        let Outcome { status, count, cases, output, outputs, duration, .. } = outcome;
        // Only passes have traces.
        let (status, count, duration) = (*status, *count, *duration);
        let result =
            NewResult { status, retries: 0, count, cases, output, outputs, duration, coarse: None }.record();
        if set.is_empty() {
            return cache.put(chain.last(), &result).await;
        }
        cache.put(&key::next(chain.last(), &states.digest(&set)), &result).await;
        cache.put(chain.last(), &record::dependencies(&set)).await;
    }
}
