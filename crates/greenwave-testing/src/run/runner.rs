//! Looks up the results of tests, runs the tests without one, and stores new results.

mod accesses;
mod attempt;
mod built_program;
mod cases;
mod commit;
mod complete_trace;
mod continued;
mod discovered;
mod explain;
pub(crate) mod prepare;
mod retimed;
mod timed_accesses;
mod undeclared;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_cache::{Key, Persist, Record, Tiered, TieredStats};
use greenwave_inputs::{
    ContentHashes, DiscoveredDeps, FileStamp, MaintainedFiles, ManifestEntry, PathStates, Selection,
    SharedHashes, StatCache, list_files,
};
use greenwave_sandbox::TraceStatus;
use parking_lot::Mutex;

use self::attempt::TestJob;
use self::commit::{Commit, Committed};
use self::prepare::Prepared;
use crate::boxed::boxed;
use crate::harness::{BatchCommand, Discovery, Harness, Project};
use crate::results::dependencies::DependencyRecord;
use crate::results::key::KeyMode;
use crate::results::key_chain::{KeyChain, STEPS_MAX};
use crate::results::lookup::{Lookup, LookupQuery, ResultCache};
use crate::results::more_reads::KnownReads;
use crate::results::outcome::{CacheDecision, Outcome};
use crate::results::outputs;
use crate::results::record::{self, StoredRecord};
use crate::run::blocking::blocking;
use crate::run::environment::Environment;
use crate::run::isolation::{Isolation, IsolationPool};
use crate::run::options::RunnerOptions;
use crate::run::slots::TestSlots;
use crate::run::toolchain::Tools;
use crate::run::workspace::{DirectoryWorkspace, Workspace};
use crate::{Error, Harnesses, Manifest, Test};

pub(crate) use self::attempt::AttemptResult;

/// Age from which an untraced run stores a test's reads beyond its inputs again.
const MORE_READS_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs tests and stores their results. Failures are stored only with
/// [`RunnerOptions::cache_failures`].
///
/// A result is reused only if the following are unchanged: the command and its arguments, the
/// working directory, all variables that the test can see, the program and its toolchain, and the
/// path, mode and content of every input file. With [`RunnerOptions::trace`], discovered
/// dependencies must be unchanged as well. A result is not stored if any of these changed while the
/// test ran.
///
/// Concurrent requests for the same result run the test once.
#[derive(Debug)]
pub struct Runner {
    environment: Environment,
    cache: Option<ResultCache>,
    options: RunnerOptions,
    tools: Tools,
    index: Arc<Mutex<StatCache>>,
    /// Hashes of the files in directories that tests have run in.
    hashes: Arc<ContentHashes>,
    isolations: IsolationPool,
    /// Reads of tests beyond their declared inputs.
    more_reads: KnownReads,
    /// Files that tests left in caches which they maintain.
    maintained: Arc<MaintainedFiles>,
    /// Number of calls that look up or run a single test.
    active: AtomicUsize,
}

/// The outcome of a test. If it ran in a workspace that wants explanations, with its dependencies.
#[derive(Debug)]
pub(crate) struct TestRun {
    pub(crate) outcome: Outcome,
    pub(crate) dependencies: Option<Dependencies>,
}

/// Everything that a run of a test depended on.
#[derive(Debug)]
pub(crate) struct Dependencies {
    pub(crate) record: DependencyRecord,
    pub(crate) inputs: Manifest,
}

/// A call in progress that looks up or runs a single test.
struct Active<'r>(&'r AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<Outcome> for TestRun {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, dependencies: None }
    }
}

impl Runner {
    /// Creates a runner for tests that may see these variables. Without a cache, every test runs.
    ///
    /// The options of the cache must name [`SCHEMA`](crate::SCHEMA). Otherwise every lookup misses.
    pub fn new(environment: Environment, cache: Option<Tiered>) -> Self {
        Self::with(environment, cache, RunnerOptions::default())
    }

    /// Creates a runner with options.
    pub fn with(environment: Environment, cache: Option<Tiered>, options: RunnerOptions) -> Self {
        Self::with_index(environment, cache, options, Arc::default())
    }

    /// Creates a runner that takes the hashes of unchanged files from an index.
    pub(crate) fn with_index(
        environment: Environment,
        cache: Option<Tiered>,
        options: RunnerOptions,
        index: Arc<Mutex<StatCache>>,
    ) -> Self {
        let cache = cache.map(|tiers| ResultCache::new(tiers, options.cache_failures));
        let (tools, isolations) = (Tools::new(Arc::clone(&index)), IsolationPool::default());
        Self {
            environment,
            cache,
            options,
            tools,
            index,
            hashes: Arc::default(),
            isolations,
            more_reads: KnownReads::default(),
            maintained: Arc::default(),
            active: AtomicUsize::new(0),
        }
    }

    /// Returns the result of a test in a project directory: the cached one, or that of a new run.
    ///
    /// # Errors
    /// Returns an error if the test cannot be run. A failing test is an outcome, not an error.
    pub fn run<'a>(
        &'a self,
        project: &'a Path,
        test: &'a Test,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send + 'a {
        boxed(self.cached_or_run(project, test))
    }

    async fn cached_or_run(&self, project: &Path, test: &Test) -> Result<Outcome, Error> {
        let workspace = self.directory_workspace(project)?;
        let _active = self.begin(&workspace).await;
        let run = if self.have_undeclared_reads(&[test]).await == [true] {
            self.run_again(&workspace, test).await
        } else {
            self.run_in(&workspace, test).await
        };
        Ok(run?.outcome)
    }

    /// Discovers the tests of a project directory, without storing the result.
    ///
    /// # Errors
    /// [`Error::Discover`] if a manifest is invalid or a harness's program fails; an error if the
    /// project cannot be read.
    pub fn discover<'a>(
        &'a self,
        project: &'a Path,
    ) -> impl Future<Output = Result<Discovery, Error>> + Send + 'a {
        boxed(self.discover_in(project))
    }

    async fn discover_in(&self, project: &Path) -> Result<Discovery, Error> {
        let root = project.canonicalize().map_err(Error::io("find", project))?;
        let at = root.clone();
        let listed = blocking(move || list_files(&at, &[&Selection::everything()])).await?;
        let files = listed.iter().map(|file| file.path.clone()).collect();
        let project = Project::new(&root, files, &self.environment);
        self.options.harnesses.discover(&project).await
    }

    /// Runs a test in a project directory even if its result is cached. Does not store the result.
    ///
    /// # Errors
    /// Returns an error if the test cannot be run. A failing test is an outcome, not an error.
    pub fn rerun<'a>(
        &'a self,
        project: &'a Path,
        test: &'a Test,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send + 'a {
        boxed(async move {
            let workspace = self.directory_workspace(project)?;
            let _active = self.begin(&workspace).await;
            Ok(self.run_again(&workspace, test).await?.outcome)
        })
    }

    /// Returns the cached result of a test in a project directory. Does not run the test.
    ///
    /// # Errors
    /// Returns an error if the test could not be run, for example because its program does not
    /// exist.
    pub fn cached_result<'a>(
        &'a self,
        project: &'a Path,
        test: &'a Test,
    ) -> impl Future<Output = Result<Option<Outcome>, Error>> + Send + 'a {
        boxed(self.find_cached(project, test))
    }

    async fn find_cached(&self, project: &Path, test: &Test) -> Result<Option<Outcome>, Error> {
        let workspace = self.directory_workspace(project)?;
        let _active = self.begin(&workspace).await;
        let prepared = self.prepare(&workspace, test).await?;
        match self.lookup(&prepared).await {
            // The result is valid only after a build, which only a suite runs.
            Lookup::Hit(_, chain) if chain.builds().next().is_some() => Ok(None),
            Lookup::Hit(..) if self.have_undeclared_reads(&[test]).await == [true] => Ok(None),
            Lookup::Hit(outcome, _) => Ok(Some(outcome)),
            Lookup::Miss(_) | Lookup::OverLimit(_) | Lookup::Corrupt => Ok(None),
        }
    }

    /// Adds hashes of files in directories that tests will run in, so that they need not be read.
    pub fn add_hashes(&self, files: impl Iterator<Item = (FileStamp, ManifestEntry)>) {
        files.for_each(|(stamp, entry)| self.hashes.insert(stamp, entry));
    }

    /// Adds hashes of files that the directory on a device shares with others, see
    /// [`ContentHashes::share`].
    pub fn share_hashes(&self, device: u64, files: &SharedHashes) {
        self.hashes.share(device, files);
    }

    /// Returns the statistics of the result cache, or zeros without a cache.
    pub fn stats(&self) -> TieredStats {
        self.cache.as_ref().map(|cache| cache.tiers().stats()).unwrap_or_default()
    }

    /// Makes stored results durable.
    pub fn flush(&self) -> impl Future<Output = ()> + Send {
        boxed(async {
            if let Some(cache) = &self.cache {
                cache.tiers().flush().await;
            }
        })
    }

    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Returns what tests were seen to read beyond their declared inputs.
    pub(crate) fn more_reads(&self) -> &KnownReads {
        &self.more_reads
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn options(&self) -> &RunnerOptions {
        &self.options
    }

    /// Replaces the harnesses.
    pub fn set_harnesses(&mut self, harnesses: Harnesses) {
        self.options.harnesses = harnesses;
    }

    /// Limits how many tests run at once.
    pub fn set_slots(&mut self, slots: TestSlots) {
        self.options.slots = Some(slots);
    }

    /// Returns the harness of a test.
    pub fn harness(&self, test: &Test) -> &dyn Harness {
        self.options.harnesses.get(&test.harness)
    }

    /// Returns whether tests are traced.
    pub(crate) fn trace_status(&self) -> TraceStatus {
        TraceStatus::of(self.options.trace)
    }

    pub(crate) fn mode(&self) -> KeyMode {
        // A run inside a traced run uses the results of traced runs and stores none.
        let traced = matches!(self.trace_status(), TraceStatus::Traced | TraceStatus::TracedByOuter);
        match (self.options.strict, traced) {
            (false, false) => KeyMode::Untraced,
            (false, true) => KeyMode::Traced,
            (true, false) => KeyMode::Strict,
            (true, true) => KeyMode::StrictTraced,
        }
    }

    /// Removes the pooled directories of finished tests.
    pub(crate) fn remove_isolations(&self) {
        self.isolations.remove();
    }

    fn directory_workspace(&self, project: &Path) -> Result<DirectoryWorkspace, Error> {
        // Traces report canonical paths.
        let project = project.canonicalize().map_err(Error::io("find", project))?;
        let (index, hashes) = (Arc::clone(&self.index), Arc::clone(&self.hashes));
        Ok(DirectoryWorkspace::new(&project, index, hashes, Arc::clone(&self.maintained)))
    }

    /// Finds the files in caches that another program has changed since a test left them. Must be
    /// called while no test runs.
    pub(crate) async fn verify_maintained(&self, project: &Path) {
        if !self.maintained.is_empty() {
            let states = self.maintained_states(project);
            blocking(move || states.verify_maintained()).await;
        }
    }

    /// Begins a call that looks up or runs a single test. Another one may be running a test.
    async fn begin(&self, workspace: &DirectoryWorkspace) -> Active<'_> {
        let active = Active(&self.active);
        if self.active.fetch_add(1, Ordering::Relaxed) == 0 {
            self.verify_maintained(workspace.project()).await;
        }
        active
    }

    /// Returns the files that tests left in caches which they maintain.
    pub(crate) fn maintained(&self) -> &Arc<MaintainedFiles> {
        &self.maintained
    }

    /// Returns an empty cache of states.
    fn maintained_states(&self, project: &Path) -> PathStates {
        PathStates::new(project, Arc::clone(&self.index), greenwave_sandbox::kernel_object_exists)
            .with_maintained(Arc::clone(&self.maintained))
    }

    /// Looks up a test.
    pub(crate) async fn lookup(&self, prepared: &Prepared<'_>) -> Lookup {
        match &self.cache {
            Some(cache) => cache.lookup_one(prepared.query()).await,
            None => Lookup::Miss(KeyChain::new(prepared.key)),
        }
    }

    /// Returns the latest complete trace of a test, if a trace decides what its result depends on.
    pub(crate) async fn latest_trace(&self, prepared: &Prepared<'_>) -> Option<Arc<DiscoveredDeps>> {
        self.cache.as_ref()?.latest_trace(&prepared.traces?).await
    }

    /// Looks up many tests at once. The results have the order of the tests.
    pub(crate) async fn lookup_all(&self, prepared: &[&Prepared<'_>]) -> Vec<Lookup> {
        match &self.cache {
            Some(cache) => {
                let queries: Vec<LookupQuery<'_>> = prepared.iter().map(|it| it.query()).collect();
                cache.lookup(&queries).await
            }
            None => prepared.iter().map(|it| Lookup::Miss(KeyChain::new(it.key))).collect(),
        }
    }

    /// Returns for each test whether a traced run has seen it read more than it declares now.
    /// Always `false` if tests are traced now.
    pub(crate) async fn have_undeclared_reads(&self, tests: &[&Test]) -> Vec<bool> {
        if !matches!(self.mode(), KeyMode::Untraced | KeyMode::Strict) {
            return vec![false; tests.len()];
        }
        let Some(cache) = &self.cache else { return vec![false; tests.len()] };
        let mut found = Vec::with_capacity(tests.len());
        for (test, stored) in tests.iter().zip(cache.more_reads(tests).await) {
            let is_recent = stored.as_ref().is_some_and(|(_, age)| *age < MORE_READS_AGE);
            if let Some((reads, _)) = stored {
                self.more_reads.add(test, reads);
            }
            let undeclared = self.more_reads.undeclared(test);
            // Records expire. This one has to outlast the results that it is about.
            if let Some(reads) = undeclared.as_ref().filter(|_| !is_recent) {
                cache.put_more_reads(test, reads).await;
            }
            found.push(undeclared.is_some());
        }
        found
    }

    /// Returns the result of a test in a workspace: the cached one, or that of a new run.
    pub(crate) async fn run_in(&self, workspace: &dyn Workspace, test: &Test) -> Result<TestRun, Error> {
        self.run_from(workspace, test, None).await
    }

    /// Like [`run_in`](Self::run_in), but resumes from an earlier cache miss. A result that another
    /// process has stored meanwhile is still found.
    pub(crate) async fn run_from(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        missing: Option<KeyChain>,
    ) -> Result<TestRun, Error> {
        let prepared = &self.prepare(workspace, test).await?;
        let job = TestJob { runner: self, workspace, test, prepared };
        if let Some(chain) = missing.filter(|chain| chain.can_resume(&prepared.key)) {
            return job.run_or_wait(chain).await;
        }
        match self.lookup(prepared).await {
            Lookup::Hit(outcome, chain) if job.is_built(&chain) && job.has_outputs(&outcome).await => {
                Ok(outcome.into())
            }
            Lookup::Miss(chain) => job.run_or_wait(chain).await,
            Lookup::OverLimit(chain) => job.run_and_replace(&chain).await,
            Lookup::Hit(..) | Lookup::Corrupt => job.run_uncached().await,
        }
    }

    /// Runs a test even if its result is cached, and does not store the new result.
    pub(crate) async fn run_again(&self, workspace: &dyn Workspace, test: &Test) -> Result<TestRun, Error> {
        let prepared = &self.prepare(workspace, test).await?;
        TestJob { runner: self, workspace, test, prepared }.run_uncached().await
    }

    /// Runs one command in place of several tests. The closure receives the directory of the run.
    /// With `has_parts`, the command announces the part of each test.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub(crate) async fn run_together(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        has_parts: bool,
        prepare: impl FnOnce(&Path) -> Result<BatchCommand, Error>,
    ) -> Result<(AttemptResult, Isolation), Error> {
        TestJob { runner: self, workspace, test, prepared }.run_together(has_parts, prepare).await
    }

    /// Orders the process of a collection to run several tests, if one waits that can.
    ///
    /// # Errors
    /// If the output of the process cannot be read.
    pub(crate) async fn continue_together(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        tests: &[&Test],
    ) -> Result<Option<(AttemptResult, Isolation)>, Error> {
        TestJob { runner: self, workspace, test, prepared }.continue_together(tests).await
    }

    /// Decides and stores the result of a test that ran in a batch.
    pub(crate) async fn commit_batched(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        chain: &KeyChain,
        attempt: AttemptResult,
    ) -> Result<TestRun, Error> {
        let job = TestJob { runner: self, workspace, test, prepared };
        let Some(cache) = &self.cache else {
            job.note_more_reads(&attempt).await;
            return Ok(attempt.outcome(&prepared.key, CacheDecision::NoCache, Vec::new()).into());
        };
        let Committed { run, record, persist } = Commit { job, cache, chain }.run(attempt).await?;
        if persist == Persist::Yes {
            cache.put(chain.last(), &record).await;
        }
        Ok(run)
    }

    /// Runs `work`, or waits for another task that is already running it under the same key. Other
    /// processes are excluded as well if the cache grants a lease.
    pub(crate) async fn alone<E, F: Future<Output = Result<(), E>>>(
        &self,
        key: &Key,
        work: impl FnOnce() -> F,
    ) -> Result<(), E> {
        let Some(cache) = &self.cache else { return work().await };
        let nothing = || async {
            work().await.map(|()| (record::dependencies(&DiscoveredDeps::default()), Persist::No))
        };
        cache.tiers().get_or_compute_retrying(key, nothing).await.map(drop)
    }
}

impl TestJob<'_> {
    /// Runs the test and stores its result, or waits for a run that is already in progress.
    async fn run_or_wait(&self, mut chain: KeyChain) -> Result<TestRun, Error> {
        let Some(cache) = &self.runner.cache else { return self.run_uncached().await };
        if let Some(outcome) = self.cached_by_program(cache, &chain).await? {
            return Ok(outcome.into());
        }
        for _ in 0..=STEPS_MAX {
            let mut ran_here = None;
            let (here, at) = (&mut ran_here, &chain);
            let compute = move || async move {
                let (run, record, persist) = self.run_and_commit(cache, at).await?;
                *here = Some(run);
                Ok::<_, Error>((record, persist))
            };
            let record = cache.tiers().get_or_compute_retrying(chain.last(), compute).await?;
            if let Some(run) = ran_here {
                return Ok(run);
            }
            match StoredRecord::decode(&record) {
                Some(StoredRecord::Result(stored)) if self.is_built(&chain) => {
                    return match self.prepared.query().outcome(stored, chain.last()) {
                        Some(outcome) => Ok(outcome.into()),
                        None => self.run_and_replace(&chain).await,
                    };
                }
                Some(StoredRecord::Dependencies(set)) => {
                    chain = chain.then(set, &self.prepared.snapshot.states);
                }
                Some(_) | None => break,
            }
        }
        self.run_uncached().await
    }

    /// Runs the test, and stores its result in place of the one under the last key.
    async fn run_and_replace(&self, chain: &KeyChain) -> Result<TestRun, Error> {
        let Some(cache) = &self.runner.cache else { return self.run_uncached().await };
        let (run, record, persist) = self.run_and_commit(cache, chain).await?;
        if persist == Persist::Yes {
            cache.put(chain.last(), &record).await;
        }
        Ok(run)
    }

    async fn run_and_commit(
        &self,
        cache: &ResultCache,
        chain: &KeyChain,
    ) -> Result<(TestRun, Record, Persist), Error> {
        let attempt = self.attempt(self.can_continue(chain)).await?;
        self.workspace.ended();
        let Committed { run, record, persist } = Commit { job: *self, cache, chain }.run(attempt).await?;
        Ok((run, record, persist))
    }

    async fn run_uncached(&self) -> Result<TestRun, Error> {
        let Self { runner, workspace, test, prepared } = *self;
        let attempt = self.attempt(false).await?;
        workspace.ended();
        self.note_more_reads(&attempt).await;
        if let Some(cache) = &runner.cache {
            self.add_written(cache, &attempt.process).await;
        }
        let dependencies = workspace.wants_explanations().then(|| Dependencies {
            record: prepared.dependency_record(test, &[], &prepared.snapshot.states),
            inputs: prepared.snapshot.inputs.clone(),
        });
        let undeclared = if runner.options.strict { self.undeclared(&attempt)? } else { Vec::new() };
        let outcome = attempt.outcome(&prepared.key, CacheDecision::NoCache, undeclared);
        Ok(TestRun { outcome, dependencies })
    }

    /// Restores the outputs of a cached result that were removed. Returns whether all exist.
    async fn has_outputs(&self, outcome: &Outcome) -> bool {
        if outcome.outputs.is_empty() {
            return true;
        }
        let Ok(selection) = self.test.selection() else { return true };
        let (project, files) = (self.workspace.project().to_owned(), Arc::clone(&outcome.outputs));
        blocking(move || outputs::restore(&project, &selection, &files)).await.is_none()
    }

    /// Returns whether all workspaces that the result depends on have been built in this run.
    fn is_built(&self, chain: &KeyChain) -> bool {
        let is_built = |built: Option<&crate::run::workspace::Built>| {
            built.is_some_and(|built| built.output.is_complete())
        };
        chain.builds().all(|directory| is_built(self.workspace.built(directory)))
    }
}
