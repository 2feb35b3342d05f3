//! Runs tests whose results are not known, and knows the results of those that ran. Knows nothing of schedules, of how tests are found, or of
//! features.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_cache::{Key, KeyBuilder, Persist, Record, Tiered, TieredStats};
use greenwave_process::Jobserver;
use parking_lot::Mutex;

use crate::harness::batch::Share;
use crate::harness::products::{self, Part, Products, RUSTC_INFO};
use crate::results::decision::{Change, Evidence, decide_cacheability};
use crate::results::dependencies::DependencyRecord;
use crate::results::key::{self, KeyMode, SCHEMA};
use crate::results::outcome::{CacheDecision, Outcome, Source, Status};
use crate::results::record::{self, StoredRecord};
use crate::results::state::{IGNORE, TESTS};
use crate::run::environment::Environment;
use crate::run::isolation::{self, Isolation, IsolationPool, cargo_home, go_caches};
use crate::run::process::{self as run, Job, ProcessResult};
use crate::run::toolchain::{PROBED, Tools, resolve};
use crate::run::workspace::{DirectoryWorkspace, LaunchSpec, Workspace, blocking};
use crate::{Error, Manifest, STATE_DIRECTORY, Test};
use greenwave_inputs::Selection;
use greenwave_inputs::StatCache;
use greenwave_inputs::TICK;
use greenwave_inputs::{AccessKind, DiscoveredDeps, PathState, PathStates};
use greenwave_inputs::{InputSnapshot, short};
use greenwave_inputs::{NEVER, is_tagged_cache};
use greenwave_inputs::{ProjectFiles, Snapshot};
use greenwave_sandbox::{AllowedReads, ReadRules, TraceMode, TraceStatus};

/// How tests are run.
#[derive(Debug, Clone, Default)]
pub struct RunnerOptions {
    /// Whether what tests look at beside their declared inputs is found out, so that their results depend on it as well.
    pub trace: TraceMode,
    /// A test that reads a file of the project which is not among its inputs fails.
    pub strict: bool,
    /// Failures are kept like passes, and taken for known.
    pub cache_failures: bool,
    /// Tokens that are shared with `make` and `cargo` inside tests.
    pub jobserver: Option<Jobserver>,
    /// Where the ports are noted that tests have been given. Without, they get none.
    pub ports: Option<PathBuf>,
    /// The directory of results, which tests are told of in [`RESULTS_VARIABLE`]: so a run inside a test finds the same results. What is in there is
    /// no dependency of a test.
    pub results: Option<PathBuf>,
    /// The file in which the projects of a user share what they know of files outside, by their stamps. Without, each project reads them all for itself.
    pub files: Option<PathBuf>,
}

/// Runs tests, and keeps the results of those that passed.
///
/// A result is reused only if everything that could change it is the same: command and arguments, folder,
/// every variable the test can see, the program and its tool chain, and path, mode and content of every
/// input file; and, with [`RunnerOptions::trace`], of whatever else it looked at. Nothing is kept when any of that changed while the test ran. Whoever
/// wants the same result at the same moment waits for the first to make it.
#[derive(Debug)]
pub struct Runner {
    environment: Environment,
    cache: Option<Tiered>,
    options: RunnerOptions,
    tools: Tools,
    index: Arc<Mutex<StatCache>>,
    folders: IsolationPool,
}

/// The variable by which a test learns where results are.
pub const RESULTS_VARIABLE: &str = "GREENWAVE_OUTER_RESULTS";

/// What follows the path of a folder whose names were read, where it is told in words.
const NAMES: &str = " (its names)";
/// What follows the path of a workspace that cargo has to build.
pub(crate) const BUILDS: &str = " (what cargo builds)";

/// Everything about a test at one moment.
pub(crate) struct Prepared<'a> {
    program: PathBuf,
    tools: Vec<[u8; 32]>,
    environment: Vec<(&'a str, &'a OsStr)>,
    pub(crate) moment: InputSnapshot,
    pub(crate) key: Key,
}

/// Directories of the system's, which tests read without declaring them: libraries, programs, the linker's cache.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.preload"];

/// A program, and what identifies it.
#[derive(Debug, Clone)]
struct Tool {
    program: PathBuf,
    parts: Vec<[u8; 32]>,
}

/// The keys that were followed from the first on.
#[derive(Debug, Clone)]
pub(crate) struct KeyChain {
    pub(crate) key: Key,
    first: Key,
    pub(crate) looked: Vec<Arc<DiscoveredDeps>>,
}

/// More steps than this are put together into one.
const STEPS_MAX: usize = 8;

/// What a program is told: its arguments, and variables beside those of its test.
pub(crate) type Told = (Vec<OsString>, Vec<(OsString, OsString)>);

/// Inputs that are looked through at once.
const QUICK_FILES_MAX: usize = 100;

/// How following keys ended.
pub(crate) enum Lookup {
    Hit(Outcome, KeyChain),
    /// Nothing stands under the last key.
    Miss(KeyChain),
    /// Something stands there that is none of ours.
    Corrupt,
}

impl Runner {
    /// A runner for tests that may see these variables. Without a cache every test runs.
    ///
    /// The cache's options must name [`SCHEMA`], or nothing will ever be found in it.
    pub fn new(environment: Environment, cache: Option<Tiered>) -> Self {
        Self::with(environment, cache, RunnerOptions::default())
    }

    /// The same with options.
    pub fn with(environment: Environment, cache: Option<Tiered>, options: RunnerOptions) -> Self {
        Self::with_index(environment, cache, options, Arc::default())
    }

    /// The same, knowing of files what an index says.
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

    /// The result of a test in a project's folder: known, or made now.
    ///
    /// # Errors
    /// If the test cannot be run. A test that fails is an outcome.
    pub async fn run(&self, project: &Path, test: &Test) -> Result<Outcome, Error> {
        let workspace = self.folder(project)?;
        if self.have_undeclared_reads(&[test]).await == [true] {
            let prepared = self.prepare(&workspace, test).await?;
            return self.run_uncached(&workspace, test, &prepared).await;
        }
        self.run_in(&workspace, test).await
    }

    /// The result of a test in a project's folder, if it is known.
    ///
    /// # Errors
    /// If the test could not be run, were it to run now.
    pub async fn cached_result(&self, project: &Path, test: &Test) -> Result<Option<Outcome>, Error> {
        let prepared = self.prepare(&self.folder(project)?, test).await?;
        match self.lookup(&prepared).await {
            // What has to be built first is found by a suite, which builds it.
            Lookup::Hit(_, chain) if chain.builds().next().is_some() => Ok(None),
            Lookup::Hit(..) if self.have_undeclared_reads(&[test]).await == [true] => Ok(None),
            Lookup::Hit(outcome, _) => Ok(Some(outcome)),
            Lookup::Miss(_) | Lookup::Corrupt => Ok(None),
        }
    }

    fn folder(&self, project: &Path) -> Result<DirectoryWorkspace, Error> {
        // What tests are seen to look at is told by its true name.
        let project = project.canonicalize().map_err(Error::io("find", project))?;
        Ok(DirectoryWorkspace::new(&project, Arc::clone(&self.index)))
    }

    /// What the cache of results has done; zeros without one.
    pub fn stats(&self) -> TieredStats {
        self.cache.as_ref().map(Tiered::stats).unwrap_or_default()
    }

    /// Removes the folders that tests have left empty for others.
    pub(crate) fn remove_folders(&self) {
        self.folders.remove();
    }

    /// Makes what was stored durable.
    pub async fn flush(&self) {
        if let Some(cache) = &self.cache {
            cache.flush().await;
        }
    }

    /// The result of a test in a workspace: known, or made now.
    pub(crate) async fn run_in(&self, workspace: &dyn Workspace, test: &Test) -> Result<Outcome, Error> {
        self.run_from(workspace, test, None).await
    }

    /// The same, if it was looked up before, and so far followed in vain. Whoever has made the result since is found when it is to be made.
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

    /// The same of many tests, whose programs are mostly the same.
    pub(crate) async fn prepare_all<'a>(
        &'a self,
        project: &ProjectFiles,
        snapshot: &Arc<Snapshot>,
        tests: &[&'a Test],
    ) -> Vec<Result<Prepared<'a>, Error>> {
        let mut tools: HashMap<(&str, &Path), Tool> = HashMap::new();
        let mut all = Vec::with_capacity(tests.len());
        for test in tests {
            let place = tool_place(test);
            let tool = match tools.get(&place) {
                Some(tool) => Ok(tool.clone()),
                None => self.tool(project.root(), test).await,
            };
            let moment = project.moment(snapshot, &test.name).await;
            all.push(tool.and_then(|tool| {
                let prepared = self.prepared(test, moment?, tool.clone());
                tools.insert(place, tool);
                Ok(prepared)
            }));
        }
        all
    }

    /// The program that a test's command means, and what identifies it.
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

    /// A hash of what identifies the program that a test's command means.
    pub(crate) async fn tool_digest(&self, project: &Path, test: &Test) -> Result<[u8; 32], Error> {
        Ok(digest(&self.tool(project, test).await?.parts))
    }

    /// Whether tests are traced.
    pub(crate) fn trace_status(&self) -> TraceStatus {
        TraceStatus::of(self.options.trace)
    }

    pub(crate) fn mode(&self) -> KeyMode {
        // A run inside another believes what traced runs have stored, and stores nothing itself.
        let traced = matches!(self.trace_status(), TraceStatus::Traced | TraceStatus::TracedByOuter);
        match (self.options.strict, traced) {
            (false, false) => KeyMode::Untraced,
            (false, true) => KeyMode::Traced,
            (true, false) => KeyMode::Strict,
            (true, true) => KeyMode::StrictTraced,
        }
    }

    /// Follows the keys of many tests at once, with as few calls to the cache as it takes.
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
                // The same set stands under many keys.
                let node = match sets.get(&record.payload) {
                    Some(set) => Some(StoredRecord::Dependencies(Arc::clone(set))),
                    None => StoredRecord::decode(&record),
                };
                match node {
                    Some(StoredRecord::Result(kept)) => {
                        found[at] = Some(Lookup::Hit(kept.outcome(&chain.key), chain));
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

    /// Follows the keys from the first to the result, as far as they are known.
    pub(crate) async fn lookup(&self, prepared: &Prepared<'_>) -> Lookup {
        let mut chain = KeyChain { key: prepared.key, first: prepared.key, looked: Vec::new() };
        let Some(cache) = &self.cache else { return Lookup::Miss(chain) };
        // A cache that others write to could send us round for ever.
        for _ in 0..=STEPS_MAX {
            let Some(record) = cache.get(&chain.key).await else {
                return self.lookup_failure(cache, chain).await;
            };
            match StoredRecord::decode(&record) {
                Some(StoredRecord::Result(kept)) => return Lookup::Hit(kept.outcome(&chain.key), chain),
                Some(StoredRecord::Dependencies(set)) => chain = chain.after(set, &prepared.moment.states),
                None => return Lookup::Corrupt,
            }
        }
        Lookup::Miss(chain)
    }

    /// Failures stand beside passes, where only those look who want to know of them.
    async fn lookup_failure(&self, cache: &Tiered, chain: KeyChain) -> Lookup {
        if self.options.cache_failures
            && let Some(record) = cache.get(&failure(&chain.key)).await
            && let Some(StoredRecord::Result(kept)) = StoredRecord::decode(&record)
        {
            return Lookup::Hit(kept.outcome(&chain.key), chain);
        }
        Lookup::Miss(chain)
    }

    /// Runs the test, unless somebody else is just doing that.
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
                Some(StoredRecord::Result(kept)) if chain.is_built(workspace) => {
                    return Ok(kept.outcome(&chain.key));
                }
                Some(StoredRecord::Dependencies(set)) => chain = chain.after(set, &prepared.moment.states),
                Some(StoredRecord::Result(_)) | None => break,
            }
        }
        self.run_uncached(workspace, test, prepared).await
    }

    /// Runs a test whose result is known, as if it were not, and keeps nothing.
    pub(crate) async fn run_again(&self, workspace: &dyn Workspace, test: &Test) -> Result<Outcome, Error> {
        let prepared = self.prepare(workspace, test).await?;
        self.run_uncached(workspace, test, &prepared).await
    }

    /// How to start a test as its command says.
    pub(crate) fn launch_plain(&self, project: &Path, test: &Test) -> Result<LaunchSpec, Error> {
        let word = test.command.first().ok_or_else(|| Error::EmptyCommand { test: test.name.clone() })?;
        let directory = project.join(&test.directory);
        let missing = || Error::NoSuchProgram { test: test.name.clone(), program: word.clone() };
        let program = resolve(word, &directory, self.environment.get("PATH")).ok_or_else(missing)?;
        let arguments = test.command[1..].iter().map(OsString::from).collect();
        Ok(LaunchSpec {
            program,
            arguments,
            directory,
            variables: Vec::new(),
            looks: Vec::new(),
            since: i64::MAX,
            products: None,
            changing: None,
        })
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

    /// Runs the test and says what is to stand under the chain's last key.
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

    /// What came of a test that was run together with others, kept like that of one that ran alone.
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
        // All steps in one, from the first key on.
        let all = chain.looked.iter().chain([&set]).flat_map(|set| set.looks.iter().cloned());
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

    /// A cache that cannot keep a result has said so itself.
    async fn put(&self, cache: &Tiered, key: &Key, record: &Record) {
        let _ = cache.put(key, record).await;
    }

    /// Runs the test until it passes, as often as it may be attempt_result.
    async fn attempt(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
    ) -> Result<AttemptResult, Error> {
        let launch = workspace.launch(self, test).await?;
        for attempt in 1.. {
            let isolation = self.folders.lend(self.options.ports.as_deref())?;
            let mut ran = self.run_once(workspace, test, prepared, launch.as_ref(), &isolation).await?;
            if ran.status == Status::Passed || attempt > test.retries {
                if let Some(more) = workspace.examine(self, test, prepared, &ran).await {
                    ran.output = [ran.output.as_ref(), more.as_bytes()].concat().into();
                }
                let products = launch.as_ref().and_then(|launch| launch.products.as_ref());
                let OwnLooks { mut looks, unbuilt } =
                    self.own_looks(workspace.project(), &ran, &isolation, products);
                let reads_more = self.reads_more(workspace.project(), test, prepared, &looks, products)?;
                self.take_back(isolation, &ran);
                let (mut since, mut changing) = (ran.began, None);
                let mut built = Vec::new();
                if let Some(launch) = launch {
                    looks.extend(launch.looks);
                    (since, changing) = (launch.since.min(since), launch.changing);
                    built = launch.products.map(|products| products.roots).unwrap_or_default();
                }
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

    /// Whoever is still running could put something into folders that another test has by then.
    fn take_back(&self, isolation: Isolation, ran: &ProcessResult) {
        if ran.status == Status::Passed && !ran.left_behind && ran.seen.incomplete.is_none() {
            self.folders.take_back(isolation);
        }
    }

    /// Runs a program once, whatever came of the test before.
    pub(crate) async fn run_program(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        launch: &LaunchSpec,
    ) -> Result<ProcessResult, Error> {
        let isolation = self.folders.lend(self.options.ports.as_deref())?;
        let ran = self.run_once(workspace, test, prepared, Some(launch), &isolation).await?;
        self.take_back(isolation, &ran);
        Ok(ran)
    }

    async fn run_once(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        launch: Option<&LaunchSpec>,
        isolation: &Isolation,
    ) -> Result<ProcessResult, Error> {
        let os = |(name, value): &(&str, &OsStr)| (OsString::from(name), value.to_os_string());
        let mut variables: Vec<(OsString, OsString)> = prepared.environment.iter().map(os).collect();
        variables.extend(isolation.variables(test, &self.environment));
        variables.extend(
            self.options.results.iter().map(|folder| (RESULTS_VARIABLE.into(), folder.clone().into())),
        );
        variables.extend(launch.iter().flat_map(|launch| launch.variables.iter().cloned()));
        variables.extend(test.set.iter().map(|(name, value)| (name.into(), value.into())));
        let job = Job {
            test,
            program: launch.map_or(&prepared.program, |launch| &launch.program).clone(),
            arguments: match launch {
                Some(launch) => launch.arguments.clone(),
                None => test.command[1..].iter().map(OsString::from).collect(),
            },
            directory: launch
                .map_or_else(|| workspace.project().join(&test.directory), |it| it.directory.clone()),
            variables,
            own: isolation.folder(),
        };
        let strict = match self.options.strict {
            true => Some(self.strict(workspace.project(), test, prepared, launch)?),
            false => None,
        };
        run::run(&job, &self.options, strict.as_ref()).await
    }

    /// Rules that let a test read its inputs, what it writes, and its own program.
    fn strict(
        &self,
        project: &Path,
        test: &Test,
        prepared: &Prepared<'_>,
        launch: Option<&LaunchSpec>,
    ) -> Result<ReadRules, Error> {
        let selection = test.selection()?;
        let mut inputs: Vec<PathBuf> =
            prepared.moment.inputs.files().map(|(path, _)| path.to_owned()).collect();
        inputs.extend(
            launch.iter().flat_map(|launch| {
                launch.products.iter().flat_map(|products| products.roots.iter().cloned())
            }),
        );
        inputs.push(prepared.program.clone());
        let outputs = selection.output_roots().map(|path| project.join(path)).filter(|path| path.exists());
        Ok(ReadRules::new(&AllowedReads { project: project.to_owned(), inputs, outputs: outputs.collect() })?)
    }

    /// Runs a command that stands for several tests like this one.
    pub(crate) async fn run_together(
        &self,
        workspace: &dyn Workspace,
        test: &Test,
        prepared: &Prepared<'_>,
        told: impl FnOnce(&Path) -> Result<Told, Error>,
    ) -> Result<(AttemptResult, Isolation), Error> {
        let isolation = self.folders.lend(self.options.ports.as_deref())?;
        let (arguments, variables) = told(isolation.folder())?;
        let launch = LaunchSpec { arguments, variables, ..self.launch_plain(workspace.project(), test)? };
        let ran = self.run_once(workspace, test, prepared, Some(&launch), &isolation).await?;
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

    /// Runs something once at a time, in all processes that share the cache, as far as that can be had.
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

    /// What a test looked at that is neither its own nor a product of something that it depends on anyway.
    fn own_looks(
        &self,
        project: &Path,
        ran: &ProcessResult,
        isolation: &Isolation,
        products: Option<&Products>,
    ) -> OwnLooks {
        let (cargo, go) = (cargo_home(&self.environment), go_caches(&self.environment));
        let counts = |path: &Path| {
            // What cargo fetches is named in lock files by its hash; its settings are not.
            let fetched =
                cargo.as_ref().is_some_and(|home| path.starts_with(home) && !is_cargo_setting(path, home));
            // What runs inside the test remember of their projects hangs on what they look at, which is seen as well.
            let is_state = path.strip_prefix(project).is_ok_and(is_state);
            let ours = is_state || self.options.results.as_ref().is_some_and(|it| path.starts_with(it));
            let fetched = fetched || go.iter().any(|cache| path.starts_with(cache));
            !(path.starts_with(isolation.folder()) || fetched || ours)
        };
        let looks = ran.seen.looks.iter().filter(|(path, _)| counts(path)).cloned();
        let (mut looks, mut unbuilt) = (looks.collect(), None);
        if let Some(products) = products {
            (looks, unbuilt) = without_products(products, looks, &ran.seen.written);
        }
        // What a test only reads of a cache may have been made from anything; what it maintains itself is made from its inputs.
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
        // What is in a cache has been found out by now, and with it which of the rest are the caches themselves.
        let looks = looks.into_iter().filter(|(path, _)| !caches.is_one(path).is_some_and(is_product));
        OwnLooks { looks: looks.collect(), unbuilt }
    }

    /// Whether a test was seen to read what it does not declare and what does not belong to the system or to a tool chain.
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
        let told = ["RUSTUP_HOME", "PYENV_ROOT", "GOROOT", "JAVA_HOME"];
        let told: Vec<&Path> =
            told.iter().filter_map(|name| self.environment.get(name)).map(Path::new).collect();
        let is_of_system = |path: &Path| {
            SYSTEM.iter().any(|folder| path.starts_with(folder))
                || homes.iter().any(|home| path.starts_with(home))
                || told.iter().any(|home| path.starts_with(home))
                || path == prepared.program
        };
        let counts = |(path, look): &(PathBuf, AccessKind)| {
            let relative = path.strip_prefix(project).unwrap_or(path);
            let is_declared = *look == AccessKind::Content
                && (prepared.moment.inputs.get(relative).is_some() || path.is_dir());
            let is_of_linker = products.is_some_and(|products| products.is_of_linker(path));
            let is_exempt = is_of_linker || is_of_system(path) || selection.writes(relative);
            *look != AccessKind::Build && !is_declared && !is_exempt
        };
        Ok(looks.iter().any(counts))
    }

    /// Remembers that a test reads more than it declares.
    async fn store_undeclared_marker(&self, cache: &Tiered, test: &Test) {
        self.put(cache, &key::reads_more(test), &record::dependencies(&DiscoveredDeps::default())).await;
    }

    /// Which of the tests are not traced now and were seen to read more than they declare when they were.
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
            has_inputs: !before.inputs.lines().is_empty(),
            left_processes: ran.left_behind,
            used_object: ran.seen.used.as_deref(),
            left_object: ran.seen.left.as_deref(),
            traced_by_outer: self.trace_status() == TraceStatus::TracedByOuter,
            clock_was_set: ran.clock_was_set,
            incomplete_trace: ran.seen.incomplete.as_deref(),
            unbuilt: attempt_result.unbuilt.as_deref(),
            changed_during_build: attempt_result.changing.as_deref(),
            too_long: before.inputs.left_out(),
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
        let of_inputs = Evidence { too_long: after.inputs.left_out(), change, ..evidence };
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

/// The first word of a test's command, and the folder that it means something in: in one place it is one program.
pub(crate) fn tool_place(test: &Test) -> (&str, &Path) {
    let word = test.command.first().map_or("", String::as_str);
    let is_of_folder = word.contains('/') || PROBED.contains(&word);
    (word, if is_of_folder { test.directory.as_path() } else { Path::new("") })
}

fn digest(parts: &[[u8; 32]]) -> [u8; 32] {
    *blake3::hash(parts.as_flattened()).as_bytes()
}

impl Prepared<'_> {
    /// A hash of what identifies its program.
    pub(crate) fn tool_digest(&self) -> [u8; 32] {
        digest(&self.tools)
    }

    /// The states of paths that were looked at some time.
    pub(crate) fn states_of<'p>(&self, paths: impl Iterator<Item = &'p String>) -> BTreeMap<String, String> {
        let state = |path: &'p String| {
            let of_suffix = |suffix: &str, look| path.strip_suffix(suffix).map(|name| (name, look));
            let found = of_suffix(NAMES, AccessKind::Names).or_else(|| of_suffix(BUILDS, AccessKind::Build));
            let (name, look) = found.unwrap_or((path.as_str(), AccessKind::Content));
            (path.clone(), short(&self.moment.states.state(Path::new(name), look).0.digest()))
        };
        paths.map(state).collect()
    }

    /// What the test depends on, told one by one.
    pub(crate) fn facts(
        &self,
        test: &Test,
        looked: &[Arc<DiscoveredDeps>],
        states: &PathStates,
    ) -> DependencyRecord {
        let hash = |text: &[u8]| short(blake3::hash(text).as_bytes());
        let seen =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), hash(value.as_encoded_bytes())));
        let set = test.set.iter().map(|(name, value)| (name.clone(), hash(value.as_bytes())));
        let (looks, looked) = states.told(looked, |sets| {
            let looks = sets.iter().flat_map(|set| &set.looks).map(|(path, look)| {
                let state = states.state(path, *look).0;
                let suffix = match look {
                    AccessKind::Content => "",
                    AccessKind::Names => NAMES,
                    AccessKind::Build => BUILDS,
                };
                (format!("{}{suffix}", path.display()), short(&state.digest()))
            });
            looks.collect()
        });
        DependencyRecord {
            command: test.command.clone(),
            directory: test.directory.display().to_string(),
            variables: seen.chain(set).collect(),
            tools: self.tools.iter().map(|tool| short(tool)).collect(),
            inputs: short(self.moment.inputs.digest()),
            looks,
            looked,
            at: 0,
            status: Status::Passed,
            not_kept: None,
        }
    }
}

/// A test that was run until it passed, or often enough.
#[derive(Clone)]
pub(crate) struct AttemptResult {
    pub(crate) ran: ProcessResult,
    attempts: u32,
    looks: Arc<Vec<(PathBuf, AccessKind)>>,
    /// Of tests that ran together, what the first was found to depend on, which is mostly what the others do.
    judged: Arc<tokio::sync::Mutex<Option<(Judgement, Further)>>>,
    /// Nothing of that was looked at earlier, in nanoseconds since the Unix epoch.
    since: i64,
    changing: Option<PathBuf>,
    /// The directories that its program was built into: what is in there was made since then, and before it began.
    built: Vec<PathBuf>,
    /// What it read of them although not everything could be built.
    unbuilt: Option<PathBuf>,
    /// Whether it was seen to read more than it declares.
    pub(crate) reads_more: bool,
}

/// What a test looked at itself.
struct OwnLooks {
    looks: Vec<(PathBuf, AccessKind)>,
    unbuilt: Option<PathBuf>,
}

/// The same without what is cargo's business alone, and with the workspace that has to be built before the rest is compared; and what of the rest
/// may be old, since not everything could be built.
fn without_products(
    products: &Products,
    looks: Vec<(PathBuf, AccessKind)>,
    written: &HashSet<PathBuf>,
) -> (Vec<(PathBuf, AccessKind)>, Option<PathBuf>) {
    let mut seen = products::Seen::new(products, &looks, written);
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

/// What a test depends on beside what was known before; or what changed meanwhile.
type Further = Result<Arc<DiscoveredDeps>, PathBuf>;

/// What that was judged from.
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
        self.inputs.is_same(&other.inputs)
            && Arc::ptr_eq(&self.before, &other.before)
            && Arc::ptr_eq(&self.states, &other.states)
            && self.looked.len() == other.looked.len()
            && self.looked.iter().zip(&other.looked).all(same)
            && self.outputs == other.outputs
    }
}

/// What may be done with a result.
struct Judged {
    stored: CacheDecision,
    further: Option<Arc<DiscoveredDeps>>,
    undeclared: Vec<PathBuf>,
    states: Arc<PathStates>,
}

impl KeyChain {
    /// Whether it still leads to what it did: nothing was looked at that may be another thing now.
    fn is_of(&self, prepared: &Prepared<'_>) -> bool {
        self.first == prepared.key && self.looked.is_empty()
    }

    /// The workspaces that have to be built before this can be believed.
    pub(crate) fn builds(&self) -> impl Iterator<Item = &Path> {
        self.looked.iter().flat_map(|set| set.builds())
    }

    /// The first path that was looked at in one of these directories.
    pub(crate) fn built_path(&self, project: &Path, roots: &[PathBuf]) -> Option<PathBuf> {
        let paths = self.looked.iter().flat_map(|set| &set.looks).map(|(path, _)| path);
        let is_in = |path: &&PathBuf| roots.iter().any(|root| project.join(path).starts_with(root));
        paths.into_iter().find(is_in).cloned()
    }

    /// Whether that was done.
    fn is_built(&self, workspace: &dyn Workspace) -> bool {
        self.builds().all(|folder| workspace.is_built(folder))
    }

    fn after(mut self, set: Arc<DiscoveredDeps>, states: &PathStates) -> Self {
        self.key = key::next(&self.key, &states.digest(&set));
        self.looked.push(set);
        self
    }
}

/// What a test looked at beside what it was known to depend on, unless some of it may have changed while it ran.
async fn further(
    project: &Path,
    selection: Selection,
    before: &InputSnapshot,
    after: InputSnapshot,
    attempt_result: &AttemptResult,
    chain: &KeyChain,
) -> Further {
    let project = project.to_owned();
    let known: BTreeSet<(PathBuf, AccessKind)> =
        chain.looked.iter().flat_map(|set| set.looks.iter().cloned()).collect();
    let (chain, since, before) = (chain.clone(), attempt_result.since, before.clone());
    let (built, began) = (attempt_result.built.clone(), attempt_result.ran.began);
    let (looks, seen) = (Arc::clone(&attempt_result.looks), Arc::clone(&attempt_result.ran.seen));
    // Mostly somebody else has looked at all of it since, and another thread would only cost time.
    let is_quick =
        after.inputs.lines().len() <= QUICK_FILES_MAX && after.states.has_all(looks.iter(), &project);
    let judge = move || {
        let mut further = Vec::new();
        for (path, look) in looks.iter() {
            let path = path.strip_prefix(&project).unwrap_or(path);
            let declared = *look == AccessKind::Content && after.inputs.get(path).is_some();
            if !declared && !selection.writes(path) && !known.contains(&(path.to_owned(), *look)) {
                further.push((path.to_owned(), *look));
            }
        }
        let set = DiscoveredDeps::new(further);
        let tick = i64::try_from(TICK.as_nanos()).unwrap_or(0);
        if let Some(path) = after.states.moved(&after.inputs, since) {
            return Err(path);
        }
        let all = chain.looked.iter().flat_map(|set| set.looks.iter()).chain(&set.looks);
        for (path, look) in all {
            let (state, touched) = after.states.state(path, *look);
            // What is gone has no time of its own, nor has a file whose folder was another's meanwhile.
            let absolute = project.join(path);
            let is_gone = state == PathState::Absent && seen.there.contains(&absolute);
            // What the build has made is younger than its beginning.
            let is_built = built.iter().any(|root| absolute.starts_with(root));
            let since = if is_built { began } else { since };
            if touched >= since.saturating_sub(tick) || is_gone || after.states.came(path) >= since {
                return Err(path.clone());
            }
        }
        let changed = chain.looked.iter().find(|set| before.states.digest(set) != after.states.digest(set));
        match changed {
            Some(set) => Err(set.looks[0].0.clone()),
            None => Ok(Arc::new(set)),
        }
    };
    if is_quick { judge() } else { blocking(judge).await }
}

/// The project's files among what was looked at that are not among a test's inputs.
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
        let is_ours = NEVER.iter().any(|name| path.starts_with(name));
        if !is_ours && absolute.is_file() && moment.inputs.get(path).is_none() && !selection.writes(path) {
            paths.push(path.to_owned());
        }
    }
    paths
}

/// IsolationPool that are tagged as caches, each looked at once.
#[derive(Default)]
struct Caches {
    /// The outermost that a folder is in, or is.
    known: HashMap<PathBuf, Option<PathBuf>>,
}

impl Caches {
    /// The cache that a path is in.
    fn of(&mut self, path: &Path) -> Option<&Path> {
        let folder = path.parent()?;
        if !self.known.contains_key(folder) {
            let above = self.of(folder).map(Path::to_owned);
            let cache = above.or_else(|| is_tagged_cache(folder).then(|| folder.to_owned()));
            self.known.insert(folder.to_owned(), cache);
        }
        self.known.get(folder)?.as_deref()
    }

    /// A folder itself, if it is one, and something in it was asked for.
    fn is_one<'a>(&'a self, folder: &Path) -> Option<&'a Path> {
        self.known.get(folder)?.as_deref()
    }
}

/// Whether a path of the project, relative to it, is in the directory of what is remembered of it, or of what runs remember of projects inside.
fn is_state(path: &Path) -> bool {
    let mut rest = path.iter().skip_while(|name| *name != STATE_DIRECTORY);
    path.starts_with(STATE_DIRECTORY)
        || (rest.next().is_some() && rest.next().is_none_or(|name| name == TESTS || name == IGNORE))
}

fn is_cargo_setting(path: &Path, home: &Path) -> bool {
    path.strip_prefix(home).is_ok_and(|path| path == Path::new("config.toml") || path == Path::new("config"))
}

/// Where the failure stands that belongs to a key.
fn failure(key: &Key) -> Key {
    KeyBuilder::new("greenwave test, failed", SCHEMA).bytes(key.as_bytes()).finish()
}

impl AttemptResult {
    /// The part of one test in what several gave together. What they looked at is everybody's.
    pub(crate) fn share(&self, share: &Share) -> Self {
        let ran = ProcessResult {
            status: Status::Passed,
            count: Some(share.count()),
            output: share.output().into(),
            duration: Duration::try_from_secs_f64(share.seconds).unwrap_or_default(),
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
