//! Looks up the results of tests, runs the tests without one, and stores new results.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_cache::{Key, KeyBuilder, Persist, Record, Tiered, TieredStats};
use greenwave_process::Jobserver;
use parking_lot::Mutex;

use crate::harness::cargo::products::{self, Part, Products, RUSTC_INFO};
use crate::harness::{BatchCommand, BatchResult, Discovery, Harness, Harnesses, LaunchSpec, Project};
use crate::results::decision::{Change, Evidence, decide_cacheability};
use crate::results::dependencies::DependencyRecord;
use crate::results::key::{self, KeyMode, SCHEMA};
use crate::results::outcome::{CacheDecision, Outcome, Source, Status};
use crate::results::record::{self, StoredRecord};
use crate::results::state::{IGNORE, TESTS};
use crate::run::blocking::blocking;
use crate::run::environment::Environment;
use crate::run::isolation::{self, Isolation, IsolationPool, cargo_home, go_caches};
use crate::run::process::{self as run, Job, ProcessResult};
use crate::run::toolchain::{PROBED, Tools, resolve};
use crate::run::workspace::{DirectoryWorkspace, Workspace};
use crate::{Error, Manifest, STATE_DIRECTORY, Test};
use greenwave_inputs::CLOCK_TICK;
use greenwave_inputs::StatCache;
use greenwave_inputs::{ALWAYS_EXCLUDED, is_cache_directory};
use greenwave_inputs::{AccessKind, DiscoveredDeps, PathState, PathStates};
use greenwave_inputs::{InputSnapshot, text};
use greenwave_inputs::{ProjectFiles, Snapshot};
use greenwave_inputs::{Selection, list_files};
use greenwave_sandbox::{AllowedReads, ReadRules, TraceMode, TraceStatus};

/// Options for running tests.
#[derive(Debug, Clone, Default)]
pub struct RunnerOptions {
    /// Whether accesses of tests are traced, so that results also depend on discovered
    /// dependencies.
    pub trace: TraceMode,
    /// Whether a test fails when it reads a file of the project that is not one of its inputs.
    pub strict: bool,
    /// Whether failures are stored and cached like passes.
    pub cache_failures: bool,
    /// Jobserver whose tokens are shared with `make` and `cargo` inside tests.
    pub jobserver: Option<Jobserver>,
    /// Directory of lock files for the ports assigned to tests. Without it, tests get no ports.
    pub ports: Option<PathBuf>,
    /// Directory of results, passed to tests in [`RESULTS_VARIABLE`] so that a run inside a test
    /// uses the same results. Paths in it are not dependencies of tests.
    pub results: Option<PathBuf>,
    /// File through which a user's projects share the hashes of files outside of them. Without it,
    /// each project hashes these files itself.
    pub files: Option<PathBuf>,
    /// The harnesses that launch tests and read their output.
    pub harnesses: Harnesses,
}

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
    cache: Option<Tiered>,
    options: RunnerOptions,
    tools: Tools,
    index: Arc<Mutex<StatCache>>,
    folders: IsolationPool,
}

/// Environment variable that passes the results directory to tests.
pub const RESULTS_VARIABLE: &str = "GREENWAVE_OUTER_RESULTS";

/// Suffix in dependency records of a directory whose names were read.
const NAMES: &str = " (its names)";
/// Suffix in dependency records of a workspace that cargo must build.
pub(crate) const BUILDS: &str = " (what cargo builds)";

/// A test with the state that its key is computed from.
pub(crate) struct Prepared<'a> {
    program: PathBuf,
    tools: Vec<[u8; 32]>,
    environment: Vec<(&'a str, &'a OsStr)>,
    pub(crate) moment: InputSnapshot,
    pub(crate) key: Key,
}

/// System paths that tests may read without declaring them: libraries, programs and the linker's
/// cache.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.preload"];

/// A program and the fingerprints that identify it.
#[derive(Debug, Clone)]
struct Tool {
    program: PathBuf,
    parts: Vec<[u8; 32]>,
}

/// The keys that a lookup has followed, with the dependencies found under them.
#[derive(Debug, Clone)]
pub(crate) struct KeyChain {
    pub(crate) key: Key,
    first: Key,
    pub(crate) looked: Vec<Arc<DiscoveredDeps>>,
}

/// Maximum number of steps in a key chain. A longer chain is merged into one step.
const STEPS_MAX: usize = 8;

/// Maximum number of inputs for which dependencies are checked without a blocking thread.
const QUICK_FILES_MAX: usize = 100;

/// The outcome of a lookup.
pub(crate) enum Lookup {
    Hit(Outcome, KeyChain),
    /// No record is stored under the last key.
    Miss(KeyChain),
    /// The result must not be used, for example because its record cannot be decoded.
    Corrupt,
}

impl Runner {
    /// Creates a runner for tests that may see these variables. Without a cache, every test runs.
    ///
    /// The options of the cache must name [`SCHEMA`]. Otherwise every lookup misses.
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
        let (tools, folders) = (Tools::new(Arc::clone(&index)), IsolationPool::default());
        Self { environment, cache, options, tools, index, folders }
    }

    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn options(&self) -> &RunnerOptions {
        &self.options
    }

    /// Returns the result of a test in a project directory: the cached one, or that of a new run.
    ///
    /// # Errors
    /// Returns an error if the test cannot be run. A failing test is an outcome, not an error.
    pub async fn run(&self, project: &Path, test: &Test) -> Result<Outcome, Error> {
        let workspace = self.directory_workspace(project)?;
        if self.have_undeclared_reads(&[test]).await == [true] {
            let prepared = self.prepare(&workspace, test).await?;
            return self.run_uncached(&workspace, test, &prepared).await;
        }
        self.run_in(&workspace, test).await
    }

    /// Discovers the tests of a project directory, without storing the result.
    ///
    /// # Errors
    /// [`Error::Discover`] if a manifest is invalid or a harness's program fails; an error if the
    /// project cannot be read.
    pub async fn discover(&self, project: &Path) -> Result<Discovery, Error> {
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
    pub async fn rerun(&self, project: &Path, test: &Test) -> Result<Outcome, Error> {
        self.run_again(&self.directory_workspace(project)?, test).await
    }

    /// Returns the cached result of a test in a project directory. Does not run the test.
    ///
    /// # Errors
    /// Returns an error if the test could not be run, for example because its program does not
    /// exist.
    pub async fn cached_result(&self, project: &Path, test: &Test) -> Result<Option<Outcome>, Error> {
        let prepared = self.prepare(&self.directory_workspace(project)?, test).await?;
        match self.lookup(&prepared).await {
            // The result is valid only after a build, which only a suite runs.
            Lookup::Hit(_, chain) if chain.builds().next().is_some() => Ok(None),
            Lookup::Hit(..) if self.have_undeclared_reads(&[test]).await == [true] => Ok(None),
            Lookup::Hit(outcome, _) => Ok(Some(outcome)),
            Lookup::Miss(_) | Lookup::Corrupt => Ok(None),
        }
    }

    fn directory_workspace(&self, project: &Path) -> Result<DirectoryWorkspace, Error> {
        // Traces report canonical paths.
        let project = project.canonicalize().map_err(Error::io("find", project))?;
        Ok(DirectoryWorkspace::new(&project, Arc::clone(&self.index)))
    }

    /// Returns the statistics of the result cache, or zeros without a cache.
    pub fn stats(&self) -> TieredStats {
        self.cache.as_ref().map(Tiered::stats).unwrap_or_default()
    }

    /// Removes the pooled directories of finished tests.
    pub(crate) fn remove_folders(&self) {
        self.folders.remove();
    }

    /// Makes stored results durable.
    pub async fn flush(&self) {
        if let Some(cache) = &self.cache {
            cache.flush().await;
        }
    }

    /// Returns the result of a test in a workspace: the cached one, or that of a new run.
    pub(crate) async fn run_in(&self, workspace: &dyn Workspace, test: &Test) -> Result<Outcome, Error> {
        self.run_from(workspace, test, None).await
    }

    /// Like [`run_in`](Self::run_in), but resumes from an earlier cache miss. A result that another
    /// process has stored meanwhile is still found.
    pub(crate) async fn run_from(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        missing: Option<KeyChain>,
    ) -> Result<Outcome, Error> {
        let prepared = self.prepare(workspace, test).await?;
        if let Some(chain) = missing.filter(|chain| chain.is_of(&prepared)) {
            return self.make(workspace, test, &prepared, chain).await;
        }
        match self.lookup(&prepared).await {
            Lookup::Hit(outcome, chain) if chain.is_built(workspace) => Ok(outcome),
            Lookup::Hit(..) => self.run_uncached(workspace, test, &prepared).await,
            Lookup::Miss(chain) => self.make(workspace, test, &prepared, chain).await,
            Lookup::Corrupt => self.run_uncached(workspace, test, &prepared).await,
        }
    }

    pub(crate) async fn prepare<'a>(
        &'a self,
        workspace: &dyn Workspace,
        test: &'a Test,
    ) -> Result<Prepared<'a>, Error> {
        let moment = workspace.before(test);
        let (moment, tool) = tokio::join!(moment, self.tool(workspace.project(), test));
        Ok(self.prepared(test, moment?, tool?))
    }

    /// Prepares many tests and resolves each program only once.
    pub(crate) async fn prepare_all<'a>(
        &'a self,
        project: &ProjectFiles,
        snapshot: &Arc<Snapshot>,
        tests: &[&'a Test],
    ) -> Vec<Result<Prepared<'a>, Error>> {
        let mut tools: HashMap<(&str, &Path), Tool> = HashMap::new();
        let mut all = Vec::with_capacity(tests.len());
        for test in tests {
            let command = tool_place(test);
            let tool = match tools.get(&command) {
                Some(tool) => Ok(tool.clone()),
                None => self.tool(project.root(), test).await,
            };
            let moment = project.input_snapshot(snapshot, &test.name).await;
            all.push(tool.and_then(|tool| {
                let prepared = self.prepared(test, moment?, tool.clone());
                tools.insert(command, tool);
                Ok(prepared)
            }));
        }
        all
    }

    /// Finds the program of a test's command and computes its fingerprint.
    async fn tool(&self, project: &Path, test: &Test) -> Result<Tool, Error> {
        let word = test.command.first().ok_or_else(|| Error::EmptyCommand { test: test.name.clone() })?;
        let directory = project.join(&test.directory);
        let missing = || Error::NoSuchProgram { test: test.name.clone(), program: word.clone() };
        let program = resolve(word, &directory, self.environment.get("PATH")).ok_or_else(missing)?;
        let environment: Vec<_> = self.environment.visible(&test.env).into_iter().collect();
        let parts = self.tools.fingerprint(&program, &directory, &self.environment, &environment).await?;
        Ok(Tool { program, parts })
    }

    fn prepared<'a>(&'a self, test: &'a Test, moment: InputSnapshot, tool: Tool) -> Prepared<'a> {
        let environment: Vec<_> = self.environment.visible(&test.env).into_iter().collect();
        let key = key::first(self.mode(), test, &environment, &tool.parts, &moment.inputs);
        Prepared { program: tool.program, tools: tool.parts, environment, moment, key }
    }

    /// Returns a hash of the fingerprints that identify a test's program.
    pub(crate) async fn tool_digest(&self, project: &Path, test: &Test) -> Result<[u8; 32], Error> {
        Ok(digest(&self.tool(project, test).await?.parts))
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

    /// Looks up many tests at once, with as few calls to the cache as possible.
    pub(crate) async fn lookup_all(&self, prepared: &[&Prepared<'_>]) -> Vec<Lookup> {
        let start = |it: &&Prepared<'_>| KeyChain { key: it.key, first: it.key, looked: Vec::new() };
        let mut found: Vec<Option<Lookup>> = prepared.iter().map(|_| None).collect();
        let mut going: Vec<(usize, KeyChain)> = prepared.iter().map(start).enumerate().collect();
        let mut sets: HashMap<Bytes, Arc<DiscoveredDeps>> = HashMap::new();
        let Some(cache) = &self.cache else {
            return going.into_iter().map(|(_, chain)| Lookup::Miss(chain)).collect();
        };
        for _ in 0..=STEPS_MAX {
            if going.is_empty() {
                break;
            }
            let keys: Vec<Key> = going.iter().map(|(_, chain)| chain.key).collect();
            let records = cache.get_many(&keys).await;
            let mut next = Vec::new();
            for ((at, chain), record) in going.into_iter().zip(records) {
                let Some(record) = record else {
                    found[at] = Some(self.lookup_failure(cache, chain).await);
                    continue;
                };
                // Tests often share a set of dependencies, so each one is decoded only once.
                let node = match sets.get(&record.payload) {
                    Some(set) => Some(StoredRecord::Dependencies(Arc::clone(set))),
                    None => StoredRecord::decode(&record),
                };
                match node {
                    Some(StoredRecord::Result(stored)) => {
                        found[at] = Some(Lookup::Hit(stored.outcome(&chain.key), chain));
                    }
                    Some(StoredRecord::Dependencies(set)) => {
                        sets.entry(record.payload).or_insert_with(|| Arc::clone(&set));
                        next.push((at, chain.after(set, &prepared[at].moment.states)));
                    }
                    None => found[at] = Some(Lookup::Corrupt),
                }
            }
            going = next;
        }
        for (at, chain) in going {
            found[at] = Some(Lookup::Miss(chain));
        }
        found.into_iter().flatten().collect()
    }

    /// Looks up a test by following the chain of keys from the first one.
    pub(crate) async fn lookup(&self, prepared: &Prepared<'_>) -> Lookup {
        let mut chain = KeyChain { key: prepared.key, first: prepared.key, looked: Vec::new() };
        let Some(cache) = &self.cache else { return Lookup::Miss(chain) };
        // The bound ends a cycle, which another writer of the cache could have created.
        for _ in 0..=STEPS_MAX {
            let Some(record) = cache.get(&chain.key).await else {
                return self.lookup_failure(cache, chain).await;
            };
            match StoredRecord::decode(&record) {
                Some(StoredRecord::Result(stored)) => return Lookup::Hit(stored.outcome(&chain.key), chain),
                Some(StoredRecord::Dependencies(set)) => chain = chain.after(set, &prepared.moment.states),
                None => return Lookup::Corrupt,
            }
        }
        Lookup::Miss(chain)
    }

    /// Looks up a failure. Failures have keys that only runs with `cache_failures` look up.
    async fn lookup_failure(&self, cache: &Tiered, chain: KeyChain) -> Lookup {
        if self.options.cache_failures
            && let Some(record) = cache.get(&failure(&chain.key)).await
            && let Some(StoredRecord::Result(stored)) = StoredRecord::decode(&record)
        {
            return Lookup::Hit(stored.outcome(&chain.key), chain);
        }
        Lookup::Miss(chain)
    }

    /// Runs the test and stores its result, or waits for a run that is already in progress.
    pub(crate) async fn make(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        mut chain: KeyChain,
    ) -> Result<Outcome, Error> {
        let Some(cache) = &self.cache else { return self.run_uncached(workspace, test, prepared).await };
        for _ in 0..=STEPS_MAX {
            let mut ran_here = None;
            let (here, at) = (&mut ran_here, &chain);
            let compute = move || async move {
                let (outcome, record, keep) = self.compute(cache, workspace, test, prepared, at).await?;
                *here = Some(outcome);
                Ok::<_, Error>((record, keep))
            };
            let record = cache.get_or_compute_retrying(&chain.key, compute).await?;
            if let Some(outcome) = ran_here {
                return Ok(outcome);
            }
            match StoredRecord::decode(&record) {
                Some(StoredRecord::Result(stored)) if chain.is_built(workspace) => {
                    return Ok(stored.outcome(&chain.key));
                }
                Some(StoredRecord::Dependencies(set)) => chain = chain.after(set, &prepared.moment.states),
                Some(StoredRecord::Result(_)) | None => break,
            }
        }
        self.run_uncached(workspace, test, prepared).await
    }

    /// Runs a test even if its result is cached, and does not store the new result.
    pub(crate) async fn run_again(&self, workspace: &dyn Workspace, test: &Test) -> Result<Outcome, Error> {
        let prepared = self.prepare(workspace, test).await?;
        self.run_uncached(workspace, test, &prepared).await
    }

    /// Returns the harness of a test.
    pub(crate) fn harness(&self, test: &Test) -> &dyn Harness {
        self.options.harnesses.get(&test.harness)
    }

    /// Returns the launch of a test's command without changes by a harness.
    pub(crate) fn launch_plain(&self, project: &Path, test: &Test) -> Result<LaunchSpec, Error> {
        let word = test.command.first().ok_or_else(|| Error::EmptyCommand { test: test.name.clone() })?;
        let directory = project.join(&test.directory);
        let missing = || Error::NoSuchProgram { test: test.name.clone(), program: word.clone() };
        let program = resolve(word, &directory, self.environment.get("PATH")).ok_or_else(missing)?;
        let arguments = test.command[1..].iter().map(OsString::from);
        Ok(LaunchSpec::new(program, directory).arguments(arguments))
    }

    async fn run_uncached(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
    ) -> Result<Outcome, Error> {
        let attempt_result = self.attempt(workspace, test, prepared).await?;
        workspace.ended();
        if workspace.wants_dependencies() {
            let facts = prepared.facts(test, &[], &prepared.moment.states);
            workspace.learn(test, facts, &prepared.moment.inputs);
        }
        let undeclared = match self.options.strict {
            true => undeclared(workspace.project(), &test.selection()?, &prepared.moment, &attempt_result),
            false => Vec::new(),
        };
        Ok(attempt_result.outcome(&prepared.key, CacheDecision::NoCache, undeclared))
    }

    /// Runs the test and returns the record to store under the last key of the chain.
    async fn compute(
        &self,
        cache: &Tiered,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        chain: &KeyChain,
    ) -> Result<(Outcome, Record, Persist), Error> {
        let attempt_result = self.attempt(workspace, test, prepared).await?;
        workspace.ended();
        self.commit(cache, workspace, test, prepared, chain, attempt_result).await
    }

    /// Decides and stores the result of a test that ran in a batch.
    pub(crate) async fn commit_batched(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        chain: &KeyChain,
        attempt_result: AttemptResult,
    ) -> Result<Outcome, Error> {
        let Some(cache) = &self.cache else {
            return Ok(attempt_result.outcome(&prepared.key, CacheDecision::NoCache, Vec::new()));
        };
        let (outcome, record, keep) =
            self.commit(cache, workspace, test, prepared, chain, attempt_result).await?;
        if keep == Persist::Yes {
            self.put(cache, &chain.key, &record).await;
        }
        Ok(outcome)
    }

    async fn commit(
        &self,
        cache: &Tiered,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        chain: &KeyChain,
        attempt_result: AttemptResult,
    ) -> Result<(Outcome, Record, Persist), Error> {
        let result = record::result(&attempt_result.ran);
        if attempt_result.reads_more {
            self.store_undeclared_marker(cache, test).await;
        }
        let judged = self.judge(workspace, test, prepared, &attempt_result, chain).await?;
        if workspace.wants_dependencies() {
            let looked: Vec<Arc<DiscoveredDeps>> =
                chain.looked.iter().chain(&judged.further).cloned().collect();
            workspace.learn(test, prepared.facts(test, &looked, &judged.states), &prepared.moment.inputs);
        }
        let undeclared = judged.undeclared;
        if judged.stored != CacheDecision::Stored {
            if let (CacheDecision::NotAPass, Some(set)) = (&judged.stored, &judged.further) {
                self.store_failure(cache, chain, Arc::clone(set), &judged.states, &result).await;
            }
            return Ok((attempt_result.outcome(&chain.key, judged.stored, undeclared), result, Persist::No));
        }
        let set = judged.further.unwrap_or_default();
        let outcome = attempt_result.outcome(&chain.key, CacheDecision::Stored, undeclared);
        if set.is_empty() {
            return Ok((outcome, result, Persist::Yes));
        }
        if chain.looked.len() < STEPS_MAX {
            let last = key::next(&chain.key, &judged.states.digest(&set));
            self.put(cache, &last, &result).await;
            return Ok((outcome, record::dependencies(&set), Persist::Yes));
        }
        // The chain is full: merge its steps into one after the first key.
        let all = chain.looked.iter().chain([&set]).flat_map(|set| set.accesses.iter().cloned());
        let all = Arc::new(DiscoveredDeps::new(all));
        self.put(cache, &key::next(&chain.first, &judged.states.digest(&all)), &result).await;
        self.put(cache, &chain.first, &record::dependencies(&all)).await;
        Ok((outcome, result, Persist::No))
    }

    async fn store_failure(
        &self,
        cache: &Tiered,
        chain: &KeyChain,
        set: Arc<DiscoveredDeps>,
        states: &PathStates,
        result: &Record,
    ) {
        if set.is_empty() {
            return self.put(cache, &failure(&chain.key), result).await;
        }
        let last = key::next(&chain.key, &states.digest(&set));
        self.put(cache, &failure(&last), result).await;
        self.put(cache, &chain.key, &record::dependencies(&set)).await;
    }

    /// Stores a record. Errors are ignored because the cache logs them itself.
    async fn put(&self, cache: &Tiered, key: &Key, record: &Record) {
        let _ = cache.put(key, record).await;
    }

    /// Runs the test until it passes or has no retries left.
    async fn attempt(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
    ) -> Result<AttemptResult, Error> {
        let launch = workspace.launch(self, test).await?;
        for attempt in 1.. {
            let isolation = self.folders.lend(self.options.ports.as_deref())?;
            let mut ran = self.run_once(workspace, test, prepared, &launch, &isolation).await?;
            if ran.status == Status::Passed || attempt > test.retries {
                if let Some(more) = workspace.examine(self, test, prepared, &ran).await {
                    ran.output = [ran.output.as_ref(), more.as_bytes()].concat().into();
                }
                let products = launch.products.as_ref();
                let OwnLooks { mut looks, unbuilt } =
                    self.own_looks(workspace.project(), &ran, &isolation, products);
                let reads_more = self.reads_more(workspace.project(), test, prepared, &looks, products)?;
                self.take_back(isolation, &ran);
                looks.extend(launch.dependencies);
                let (since, changing) = (launch.since.min(ran.began), launch.changing);
                let built = launch.products.map(|products| products.roots).unwrap_or_default();
                let (looks, judged) = (Arc::new(looks), Arc::default());
                return Ok(AttemptResult {
                    ran,
                    attempts: attempt,
                    looks,
                    judged,
                    since,
                    changing,
                    built,
                    unbuilt,
                    reads_more,
                });
            }
        }
        unreachable!("the loop has no end")
    }

    /// Returns the directory to the pool unless a leftover process could still write to it.
    fn take_back(&self, isolation: Isolation, ran: &ProcessResult) {
        if ran.status == Status::Passed && !ran.left_behind && ran.seen.incomplete.is_none() {
            self.folders.take_back(isolation);
        }
    }

    /// Runs a program once in place of the test's command, without retries.
    pub(crate) async fn run_program(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        launch: &LaunchSpec,
    ) -> Result<ProcessResult, Error> {
        let isolation = self.folders.lend(self.options.ports.as_deref())?;
        let ran = self.run_once(workspace, test, prepared, launch, &isolation).await?;
        self.take_back(isolation, &ran);
        Ok(ran)
    }

    async fn run_once(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        launch: &LaunchSpec,
        isolation: &Isolation,
    ) -> Result<ProcessResult, Error> {
        let os = |(name, value): &(&str, &OsStr)| (OsString::from(name), value.to_os_string());
        let mut variables: Vec<(OsString, OsString)> = prepared.environment.iter().map(os).collect();
        variables.extend(isolation.variables(test, &self.environment));
        variables.extend(
            self.options.results.iter().map(|directory| (RESULTS_VARIABLE.into(), directory.clone().into())),
        );
        variables.extend(launch.variables.iter().cloned());
        variables.extend(test.set.iter().map(|(name, value)| (name.into(), value.into())));
        let job = Job {
            test,
            program: launch.program.clone(),
            arguments: launch.arguments.clone(),
            directory: launch.directory.clone(),
            variables,
            own: isolation.directory(),
        };
        let strict = match self.options.strict {
            true => Some(self.strict(workspace.project(), test, prepared, launch)?),
            false => None,
        };
        run::run(&job, &self.options, strict.as_ref()).await
    }

    /// Returns rules that allow a test to read its inputs, its outputs and its program.
    fn strict(
        &self,
        project: &Path,
        test: &Test,
        prepared: &Prepared<'_>,
        launch: &LaunchSpec,
    ) -> Result<ReadRules, Error> {
        let selection = test.selection()?;
        let mut inputs: Vec<PathBuf> =
            prepared.moment.inputs.files().map(|(path, _)| path.to_owned()).collect();
        inputs.extend(launch.products.iter().flat_map(|products| products.roots.iter().cloned()));
        inputs.push(prepared.program.clone());
        inputs.extend(selection.output_roots().map(|path| project.join(path)).filter(|path| path.exists()));
        Ok(ReadRules::new(&AllowedReads { directory: project.to_owned(), paths: inputs })?)
    }

    /// Runs one command in place of several tests. The closure receives the directory of the run.
    pub(crate) async fn run_together(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        prepare: impl FnOnce(&Path) -> Result<BatchCommand, Error>,
    ) -> Result<(AttemptResult, Isolation), Error> {
        let isolation = self.folders.lend(self.options.ports.as_deref())?;
        let BatchCommand { arguments, variables } = prepare(isolation.directory())?;
        let mut test = test.clone();
        for (name, _) in &variables {
            test.set.retain(|own, _| OsStr::new(own) != name);
        }
        let test = &test;
        let launch = LaunchSpec { arguments, variables, ..self.launch_plain(workspace.project(), test)? };
        let ran = self.run_once(workspace, test, prepared, &launch, &isolation).await?;
        let OwnLooks { looks, unbuilt } = self.own_looks(workspace.project(), &ran, &isolation, None);
        let since = ran.began;
        let reads_more = self.reads_more(workspace.project(), test, prepared, &looks, None)?;
        let (looks, judged, built) = (Arc::new(looks), Arc::default(), Vec::new());
        let attempt_result = AttemptResult {
            ran,
            attempts: 1,
            looks,
            judged,
            since,
            changing: None,
            built,
            unbuilt,
            reads_more,
        };
        Ok((attempt_result, isolation))
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
        cache.get_or_compute_retrying(key, nothing).await.map(drop)
    }

    /// Returns the accesses that the result of a test depends on. Leaves out the directory of
    /// the run, state, downloads, and build products whose sources are dependencies anyway.
    fn own_looks(
        &self,
        project: &Path,
        ran: &ProcessResult,
        isolation: &Isolation,
        products: Option<&Products>,
    ) -> OwnLooks {
        let (cargo, go) = (cargo_home(&self.environment), go_caches(&self.environment));
        let counts = |path: &Path| {
            // Lock files pin downloads by hash, but not cargo's configuration.
            let fetched =
                cargo.as_ref().is_some_and(|home| path.starts_with(home) && !is_cargo_setting(path, home));
            // State of runs inside the test depends only on accesses that are traced as well.
            let is_state = path.strip_prefix(project).is_ok_and(is_state);
            let ours = is_state || self.options.results.as_ref().is_some_and(|it| path.starts_with(it));
            let fetched = fetched || go.iter().any(|cache| path.starts_with(cache));
            !(path.starts_with(isolation.directory()) || fetched || ours)
        };
        let looks = ran.seen.looks.iter().filter(|(path, _)| counts(path)).cloned();
        let (mut looks, mut unbuilt) = (looks.collect(), None);
        if let Some(products) = products {
            (looks, unbuilt) = without_products(products, looks, &ran.seen.written);
        }
        // A cache that the test only reads may contain anything. One that it writes is derived from
        // its inputs.
        let mut caches = Caches::default();
        let maintained: HashSet<PathBuf> =
            ran.seen.written.iter().filter_map(|path| caches.of(path).map(Path::to_owned)).collect();
        let is_of_cargo = |cache: &&PathBuf| cache.join(RUSTC_INFO).is_file();
        for cache in maintained.iter().filter(is_of_cargo) {
            if products.is_none_or(|products| products.root(cache).is_none()) {
                (looks, _) = without_products(&Products::of_command(cache), looks, &ran.seen.written);
            }
        }
        let is_product = |cache: &Path| {
            let is_sorted = products.is_some_and(|products| products.root(cache).is_some());
            maintained.contains(cache) && !is_sorted && !cache.join(RUSTC_INFO).is_file()
        };
        let looks: Vec<_> =
            looks.into_iter().filter(|(path, _)| !caches.of(path).is_some_and(is_product)).collect();
        // Every cache directory has been identified by now, so accesses to the directories
        // themselves can be filtered too.
        let looks = looks.into_iter().filter(|(path, _)| !caches.is_one(path).is_some_and(is_product));
        OwnLooks { looks: looks.collect(), unbuilt }
    }

    /// Returns whether a test accessed undeclared paths outside of the system and its toolchains.
    fn reads_more(
        &self,
        project: &Path,
        test: &Test,
        prepared: &Prepared<'_>,
        looks: &[(PathBuf, AccessKind)],
        products: Option<&Products>,
    ) -> Result<bool, Error> {
        let selection = test.selection()?;
        let homes: Vec<PathBuf> = isolation::tool_homes(&self.environment).map(|(_, path)| path).collect();
        let toolchains = ["RUSTUP_HOME", "PYENV_ROOT", "GOROOT", "JAVA_HOME"];
        let toolchains: Vec<&Path> =
            toolchains.iter().filter_map(|name| self.environment.get(name)).map(Path::new).collect();
        let is_of_system = |path: &Path| {
            SYSTEM.iter().any(|system| path.starts_with(system))
                || homes.iter().any(|home| path.starts_with(home))
                || toolchains.iter().any(|home| path.starts_with(home))
                || path == prepared.program
        };
        let counts = |(path, look): &(PathBuf, AccessKind)| {
            let relative = path.strip_prefix(project).unwrap_or(path);
            let is_declared = *look == AccessKind::Content
                && (prepared.moment.inputs.get(relative).is_some() || path.is_dir());
            let is_of_linker = products.is_some_and(|products| products.is_of_linker(path));
            let is_exempt = is_of_linker || is_of_system(path) || selection.is_output(relative);
            *look != AccessKind::Build && !is_declared && !is_exempt
        };
        Ok(looks.iter().any(counts))
    }

    /// Stores a marker that a test reads more than it declares.
    async fn store_undeclared_marker(&self, cache: &Tiered, test: &Test) {
        self.put(cache, &key::reads_more(test), &record::dependencies(&DiscoveredDeps::default())).await;
    }

    /// Returns for each test whether a traced run has stored a marker of undeclared reads. Always
    /// `false` if tests are traced now.
    pub(crate) async fn have_undeclared_reads(&self, tests: &[&Test]) -> Vec<bool> {
        match (&self.cache, self.mode()) {
            (Some(cache), KeyMode::Untraced | KeyMode::Strict) => {
                let keys: Vec<Key> = tests.iter().map(|test| key::reads_more(test)).collect();
                cache.get_many(&keys).await.iter().map(Option::is_some).collect()
            }
            _ => vec![false; tests.len()],
        }
    }

    /// Whether a result may be kept for later, and what it depends on beside what was known before.
    async fn judge(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        attempt_result: &AttemptResult,
        chain: &KeyChain,
    ) -> Result<Judged, Error> {
        let ran = &attempt_result.ran;
        let not = |stored, states: &Arc<PathStates>| Judged {
            stored,
            further: None,
            undeclared: vec![],
            states: Arc::clone(states),
        };
        let before = &prepared.moment;
        let evidence = Evidence {
            status: ran.status,
            attempts: attempt_result.attempts,
            cache_failures: self.options.cache_failures,
            has_inputs: !before.inputs.is_empty(),
            left_processes: ran.left_behind,
            used_object: ran.seen.used.as_deref(),
            left_object: ran.seen.left.as_deref(),
            traced_by_outer: self.trace_status() == TraceStatus::TracedByOuter,
            clock_was_set: ran.clock_was_set,
            incomplete_trace: ran.seen.incomplete.as_deref(),
            unbuilt: attempt_result.unbuilt.as_deref(),
            changed_during_build: attempt_result.changing.as_deref(),
            too_long: before.inputs.unexamined(),
            change: None,
        };
        if let Some(stored) = evidence.obstacle() {
            let mut judged = not(stored, &before.states);
            if self.options.strict {
                judged.undeclared =
                    undeclared(workspace.project(), &test.selection()?, before, attempt_result);
            }
            return Ok(judged);
        }
        let Ok(after) = workspace.after(test).await else {
            // Inputs that can no longer be read have changed.
            let change = Some(Change { path: workspace.project(), by_test: false, is_declared: true });
            return Ok(not(decide_cacheability(&Evidence { change, ..evidence }), &before.states));
        };
        let wrote = |path: &Path| ran.seen.written.contains(&workspace.project().join(path));
        let change = before.inputs.first_touched(&after.inputs);
        let change = change.map(|path| Change { path, by_test: wrote(path), is_declared: true });
        let of_inputs = Evidence { too_long: after.inputs.unexamined(), change, ..evidence };
        if let Some(stored) = of_inputs.obstacle() {
            return Ok(not(stored, &after.states));
        }
        let selection = test.selection()?;
        let judgement = Judgement {
            inputs: after.inputs.clone(),
            before: Arc::clone(&before.states),
            states: Arc::clone(&after.states),
            looked: chain.looked.clone(),
            outputs: test.outputs.clone(),
        };
        let states = Arc::clone(&after.states);
        let mut judged = attempt_result.judged.lock().await;
        let known = judged.as_ref().filter(|(known, _)| known.is_same(&judgement));
        let further = match known {
            Some((_, further)) => further.clone(),
            None => {
                let further =
                    further(workspace.project(), selection, before, after, attempt_result, chain).await;
                *judged = Some((judgement, further.clone()));
                further
            }
        };
        drop(judged);
        match further {
            Err(path) => {
                let change = Some(Change { path: &path, by_test: wrote(&path), is_declared: false });
                Ok(not(decide_cacheability(&Evidence { change, ..evidence }), &states))
            }
            Ok(set) => {
                let declares = !test.inputs.is_empty() || self.options.strict;
                let selection = test.selection()?;
                let undeclared = match declares {
                    true => undeclared(workspace.project(), &selection, &prepared.moment, attempt_result),
                    false => Vec::new(),
                };
                let stored = decide_cacheability(&evidence);
                Ok(Judged { stored, further: Some(set), undeclared, states })
            }
        }
    }
}

/// Returns the first word of a test's command and the directory that it is resolved in. Equal pairs
/// resolve to the same program.
pub(crate) fn tool_place(test: &Test) -> (&str, &Path) {
    let word = test.command.first().map_or("", String::as_str);
    let is_relative = word.contains('/') || PROBED.contains(&word);
    (word, if is_relative { test.directory.as_path() } else { Path::new("") })
}

fn digest(parts: &[[u8; 32]]) -> [u8; 32] {
    *blake3::hash(parts.as_flattened()).as_bytes()
}

impl Prepared<'_> {
    /// Returns a hash of the fingerprints that identify the test's program.
    pub(crate) fn tool_digest(&self) -> [u8; 32] {
        digest(&self.tools)
    }

    /// Returns the current states of paths from a dependency record.
    pub(crate) fn states_of<'p>(&self, paths: impl Iterator<Item = &'p String>) -> BTreeMap<String, String> {
        let state = |path: &'p String| {
            let of_suffix = |suffix: &str, look| path.strip_suffix(suffix).map(|name| (name, look));
            let found = of_suffix(NAMES, AccessKind::Names).or_else(|| of_suffix(BUILDS, AccessKind::Build));
            let (name, look) = found.unwrap_or((path.as_str(), AccessKind::Content));
            (path.clone(), text::short_hash(&self.moment.states.state(Path::new(name), look).0.digest()))
        };
        paths.map(state).collect()
    }

    /// Returns a record of everything that the test depends on.
    pub(crate) fn facts(
        &self,
        test: &Test,
        looked: &[Arc<DiscoveredDeps>],
        states: &PathStates,
    ) -> DependencyRecord {
        let hash = |text: &[u8]| text::short_hash(blake3::hash(text).as_bytes());
        let seen =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), hash(value.as_encoded_bytes())));
        let set = test.set.iter().map(|(name, value)| (name.clone(), hash(value.as_bytes())));
        let (looks, looked) = states.describe(looked, |sets| {
            let looks = sets.iter().flat_map(|set| &set.accesses).map(|(path, look)| {
                let state = states.state(path, *look).0;
                let suffix = match look {
                    AccessKind::Content => "",
                    AccessKind::Names => NAMES,
                    AccessKind::Build => BUILDS,
                };
                (format!("{}{suffix}", path.display()), text::short_hash(&state.digest()))
            });
            looks.collect()
        });
        DependencyRecord {
            command: test.command.clone(),
            directory: test.directory.display().to_string(),
            variables: seen.chain(set).collect(),
            tools: self.tools.iter().map(|tool| text::short_hash(tool)).collect(),
            inputs: text::short_hash(self.moment.inputs.digest()),
            looks,
            looked,
            at: 0,
            status: Status::Passed,
            not_kept: None,
        }
    }
}

/// The last attempt at running a test.
#[derive(Clone)]
pub(crate) struct AttemptResult {
    pub(crate) ran: ProcessResult,
    attempts: u32,
    looks: Arc<Vec<(PathBuf, AccessKind)>>,
    /// Dependencies found for the first test of a batch, which mostly apply to the others as well.
    judged: Arc<tokio::sync::Mutex<Option<(Judgement, Further)>>>,
    /// Earliest time of any access, in nanoseconds since the Unix epoch.
    since: i64,
    changing: Option<PathBuf>,
    /// Directories that the program was built into, between `since` and the start of the program.
    built: Vec<PathBuf>,
    /// A file that the test read in these directories although the build was incomplete.
    unbuilt: Option<PathBuf>,
    /// Whether the test read more than it declares.
    pub(crate) reads_more: bool,
}

/// The accesses that the result of a test depends on.
struct OwnLooks {
    looks: Vec<(PathBuf, AccessKind)>,
    unbuilt: Option<PathBuf>,
}

/// Removes accesses to cargo's internal files. If build products remain, adds the workspace that
/// must be built before they are compared. Also returns a product that may be stale because the
/// build was incomplete.
fn without_products(
    products: &Products,
    looks: Vec<(PathBuf, AccessKind)>,
    written: &HashSet<PathBuf>,
) -> (Vec<(PathBuf, AccessKind)>, Option<PathBuf>) {
    let mut seen = products::Accesses::new(products, &looks, written);
    let parts: Vec<Option<Part>> =
        looks.iter().map(|(path, look)| products.part(path, *look, &mut seen)).collect();
    let built = parts.iter().position(|part| *part == Some(Part::Built)).map(|at| looks[at].0.clone());
    let mut looks: Vec<_> = looks
        .into_iter()
        .zip(parts)
        .filter(|(_, part)| *part != Some(Part::Internal))
        .map(|(look, _)| look)
        .collect();
    if let (Some(workspace), Some(_)) = (&products.workspace, &built) {
        looks.push((workspace.clone(), AccessKind::Build));
    }
    (looks, built.filter(|_| !products.is_complete))
}

/// The newly discovered dependencies of a test, or a path that changed while it ran.
type Further = Result<Arc<DiscoveredDeps>, PathBuf>;

/// The values that a [`Further`] was computed from.
struct Judgement {
    inputs: Manifest,
    before: Arc<PathStates>,
    states: Arc<PathStates>,
    looked: Vec<Arc<DiscoveredDeps>>,
    outputs: Vec<String>,
}

impl Judgement {
    fn is_same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Arc<DiscoveredDeps>, &Arc<DiscoveredDeps>)| Arc::ptr_eq(one, other);
        self.inputs.ptr_eq(&other.inputs)
            && Arc::ptr_eq(&self.before, &other.before)
            && Arc::ptr_eq(&self.states, &other.states)
            && self.looked.len() == other.looked.len()
            && self.looked.iter().zip(&other.looked).all(same)
            && self.outputs == other.outputs
    }
}

/// The decision on whether to store a result, with its dependencies.
struct Judged {
    stored: CacheDecision,
    further: Option<Arc<DiscoveredDeps>>,
    undeclared: Vec<PathBuf>,
    states: Arc<PathStates>,
}

impl KeyChain {
    /// Returns whether the chain can be continued: it starts at the current key, and holds no
    /// dependencies that may have changed since.
    fn is_of(&self, prepared: &Prepared<'_>) -> bool {
        self.first == prepared.key && self.looked.is_empty()
    }

    /// Returns the workspaces that must be built before the result is valid.
    pub(crate) fn builds(&self) -> impl Iterator<Item = &Path> {
        self.looked.iter().flat_map(|set| set.builds())
    }

    /// Returns the first dependency in one of these directories.
    pub(crate) fn built_path(&self, project: &Path, roots: &[PathBuf]) -> Option<PathBuf> {
        let paths = self.looked.iter().flat_map(|set| &set.accesses).map(|(path, _)| path);
        let is_in = |path: &&PathBuf| roots.iter().any(|root| project.join(path).starts_with(root));
        paths.into_iter().find(is_in).cloned()
    }

    /// Returns whether all workspaces that the result depends on have been built in this run.
    fn is_built(&self, workspace: &dyn Workspace) -> bool {
        self.builds().all(|directory| workspace.is_built(directory))
    }

    fn after(mut self, set: Arc<DiscoveredDeps>, states: &PathStates) -> Self {
        self.key = key::next(&self.key, &states.digest(&set));
        self.looked.push(set);
        self
    }
}

/// Returns the dependencies of a test that its key chain does not contain yet, or a path that may
/// have changed while the test ran.
async fn further(
    project: &Path,
    selection: Selection,
    before: &InputSnapshot,
    after: InputSnapshot,
    attempt_result: &AttemptResult,
    chain: &KeyChain,
) -> Further {
    let project = project.to_owned();
    let earlier: BTreeSet<(PathBuf, AccessKind)> =
        chain.looked.iter().flat_map(|set| set.accesses.iter().cloned()).collect();
    let (chain, since, before) = (chain.clone(), attempt_result.since, before.clone());
    let (built, began) = (attempt_result.built.clone(), attempt_result.ran.began);
    let (looks, seen) = (Arc::clone(&attempt_result.looks), Arc::clone(&attempt_result.ran.seen));
    // The states have usually been read by now, and moving to another thread would only cost time.
    let is_quick = after.inputs.len() <= QUICK_FILES_MAX && after.states.contains_all(looks.iter(), &project);
    let judge = move || {
        let mut further = Vec::new();
        for (path, look) in looks.iter() {
            let path = path.strip_prefix(&project).unwrap_or(path);
            let declared = *look == AccessKind::Content && after.inputs.get(path).is_some();
            if !declared && !selection.is_output(path) && !earlier.contains(&(path.to_owned(), *look)) {
                further.push((path.to_owned(), *look));
            }
        }
        let set = DiscoveredDeps::new(further);
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
        if let Some(path) = after.states.moved_since(&after.inputs, since) {
            return Err(path);
        }
        let all = chain.looked.iter().flat_map(|set| set.accesses.iter()).chain(&set.accesses);
        for (path, look) in all {
            let (state, touched) = after.states.state(path, *look);
            // A deleted file has no timestamp, and neither has a file in a directory that was
            // replaced.
            let absolute = project.join(path);
            let is_gone = state == PathState::Absent && seen.there.contains(&absolute);
            // Build products are newer than the start of the build, but older than the program's
            // start.
            let is_built = built.iter().any(|root| absolute.starts_with(root));
            let since = if is_built { began } else { since };
            if touched >= since.saturating_sub(tick) || is_gone || after.states.arrived(path) >= since {
                return Err(path.clone());
            }
        }
        let changed = chain.looked.iter().find(|set| before.states.digest(set) != after.states.digest(set));
        match changed {
            Some(set) => Err(set.accesses[0].0.clone()),
            None => Ok(Arc::new(set)),
        }
    };
    if is_quick { judge() } else { blocking(judge).await }
}

/// Returns the project files that the test read but did not declare as inputs.
fn undeclared(
    project: &Path,
    selection: &Selection,
    moment: &InputSnapshot,
    attempt_result: &AttemptResult,
) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let is_built = |path: &Path| attempt_result.built.iter().any(|root| path.starts_with(root));
    let looks =
        attempt_result.looks.iter().filter(|(path, look)| *look == AccessKind::Content && !is_built(path));
    for (path, _) in looks {
        let absolute = project.join(path);
        let Ok(path) = absolute.strip_prefix(project) else { continue };
        let is_ours = ALWAYS_EXCLUDED.iter().any(|name| path.starts_with(name));
        if !is_ours && absolute.is_file() && moment.inputs.get(path).is_none() && !selection.is_output(path) {
            paths.push(path.to_owned());
        }
    }
    paths
}

/// Directories that are tagged as caches. Each directory is checked once.
#[derive(Default)]
struct Caches {
    /// For each checked directory, the outermost cache that contains it or is it.
    outermost: HashMap<PathBuf, Option<PathBuf>>,
}

impl Caches {
    /// Returns the cache that a path is in.
    fn of(&mut self, path: &Path) -> Option<&Path> {
        let directory = path.parent()?;
        if !self.outermost.contains_key(directory) {
            let above = self.of(directory).map(Path::to_owned);
            let cache = above.or_else(|| is_cache_directory(directory).then(|| directory.to_owned()));
            self.outermost.insert(directory.to_owned(), cache);
        }
        self.outermost.get(directory)?.as_deref()
    }

    /// Returns the cache that a directory is or is in, if a path in the directory was checked
    /// before.
    fn is_one<'a>(&'a self, directory: &Path) -> Option<&'a Path> {
        self.outermost.get(directory)?.as_deref()
    }
}

/// Returns whether a path, relative to the project, is state of Greenwave: of this project, or of
/// projects inside it.
fn is_state(path: &Path) -> bool {
    let mut rest = path.iter().skip_while(|name| *name != STATE_DIRECTORY);
    path.starts_with(STATE_DIRECTORY)
        || (rest.next().is_some() && rest.next().is_none_or(|name| name == TESTS || name == IGNORE))
}

fn is_cargo_setting(path: &Path, home: &Path) -> bool {
    path.strip_prefix(home).is_ok_and(|path| path == Path::new("config.toml") || path == Path::new("config"))
}

/// Returns the key for a failure of the test with this key.
fn failure(key: &Key) -> Key {
    KeyBuilder::new("greenwave test, failed", SCHEMA).bytes(key.as_bytes()).finish()
}

impl AttemptResult {
    /// Returns the part of one test in the result of its batch. All tests share the batch's
    /// accesses.
    pub(crate) fn share(&self, share: BatchResult) -> Self {
        let ran = ProcessResult {
            status: Status::Passed,
            count: Some(share.count),
            output: share.output.into(),
            duration: share.duration,
            ..self.ran.clone()
        };
        Self { ran, ..self.clone() }
    }

    fn outcome(self, key: &Key, stored: CacheDecision, undeclared: Vec<PathBuf>) -> Outcome {
        Outcome {
            status: self.ran.status,
            count: self.ran.count,
            output: self.ran.output,
            duration: self.ran.duration,
            source: Source::Ran(stored),
            key: *key.as_bytes(),
            attempts: self.attempts,
            undeclared,
        }
    }
}
