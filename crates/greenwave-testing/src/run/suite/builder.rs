//! Opens the suite of a project.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use greenwave_cache::Tiered;
use greenwave_inputs::{DirCache, ProjectFiles, StatCache, UserKey};
use greenwave_sandbox::{TraceMode, TraceStatus};
use greenwave_scheduler::{Executor, LoadOptions, Workers};
use parking_lot::Mutex;

use super::Suite;
use super::context::SuiteContext;
use super::schedule::limits;
use crate::results::state::{StateDirectory, StateFile};
use crate::run::options::{RunnerOptions, SuiteOptions};
use crate::run::runner::Runner;
use crate::{Environment, Error, HarnessName, Harnesses, Test};

/// Settings of a [`Suite`] that is about to be opened. By default, it has no tests, no variables
/// and no cache.
#[derive(Debug)]
#[must_use]
pub struct SuiteBuilder {
    project: PathBuf,
    tests: Vec<Test>,
    environment: Environment,
    cache: Option<Tiered>,
    runner: RunnerOptions,
    options: SuiteOptions,
    key: Option<UserKey>,
}

impl SuiteBuilder {
    pub(super) fn new(project: PathBuf) -> Self {
        Self {
            project,
            tests: Vec::new(),
            environment: Environment::default(),
            cache: None,
            runner: RunnerOptions::default(),
            options: SuiteOptions::default(),
            key: None,
        }
    }

    /// Sets the tests. The index of each is its [`TestId`](crate::TestId).
    pub fn tests(self, tests: Vec<Test>) -> Self {
        Self { tests, ..self }
    }

    /// Sets the variables that tests may see.
    pub fn environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    /// Sets the cache of results. Without one, every test runs.
    ///
    /// The options of the cache must name [`SCHEMA`](crate::SCHEMA). Otherwise every lookup misses.
    pub fn cache(self, cache: Option<Tiered>) -> Self {
        Self { cache, ..self }
    }

    /// Sets the options for running one test.
    pub fn runner(self, runner: RunnerOptions) -> Self {
        Self { runner, ..self }
    }

    /// Sets the options for running all tests.
    pub fn options(self, options: SuiteOptions) -> Self {
        Self { options, ..self }
    }

    /// Sets the key that seals the state in the project's directory. State that was sealed with
    /// another key, or not at all, is not used. Without a key, no later suite uses the state.
    pub fn key(self, key: UserKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Opens the suite. State is stored in the directory `.greenwave` of the project.
    ///
    /// # Errors
    /// Returns [`Error::DuplicateName`] if two tests have the same name, [`Error::NotTraced`] if
    /// tracing is required but not available, [`Error::Inputs`] if an input pattern is invalid, and
    /// [`Error::Io`] if the state directory cannot be created.
    pub fn open(self) -> Result<Suite, Error> {
        let Self { project, mut tests, environment, cache, runner, options, key } = self;
        add_variables(&mut tests, &runner.harnesses);
        let root = project.canonicalize().map_err(Error::io("find", project))?;
        let tracing = TraceStatus::of(runner.trace);
        if let (TraceMode::Required, TraceStatus::Unavailable(reason)) = (runner.trace, &tracing) {
            return Err(Error::NotTraced { reason: reason.clone() });
        }
        let mut names = HashSet::new();
        if let Some(twice) = tests.iter().find(|test| !names.insert(test.name.as_str())) {
            return Err(Error::DuplicateName { test: twice.name.clone() });
        }
        let key = key.map_or_else(UserKey::random, Ok).map_err(Error::io("read", "/dev/urandom"))?;
        let state = StateDirectory::open(&root, &key)?;
        // An outer tracer sees the names in a directory only if this process reads them.
        let dir_cache = match tracing {
            TraceStatus::TracedByOuter => None,
            _ => state.read(StateFile::DirCache).and_then(|content| DirCache::decode(&content)),
        };
        let mut index = StatCache::load(state.read(StateFile::StatCache).as_deref());
        if let Some(files) = &runner.files {
            index.share_with(files);
        }
        let index = Arc::new(Mutex::new(index));
        let specs: Vec<_> = tests.iter().map(|test| (test.name.clone(), test.input_spec())).collect();
        let object_exists = greenwave_sandbox::kernel_object_exists;
        let project = ProjectFiles::new(&root, Arc::clone(&index), dir_cache, specs, object_exists)?;
        let runner = Runner::with_index(environment, cache, runner, index);
        let project = project.with_maintained(Arc::clone(runner.maintained()));
        runner.maintained().load(state.read(StateFile::Maintained).as_deref());
        runner.tools().load(&state);
        runner.more_reads().load(&state);
        let mut executor = Executor::new(limits(&tests, &options));
        executor.workers = Workers { follow: options.follow_load.then(LoadOptions::default) };
        if let Some(jobserver) = &runner.options().jobserver {
            executor = executor.with_jobserver(jobserver.clone());
        }
        let context = Arc::new(SuiteContext { project, tests, runner });
        Ok(Suite { context, options, state, executor })
    }
}

/// Has tests declare the variables that the tools of their harness read.
///
/// Tests that are built together declare the variables of all of them, since the build sees all.
fn add_variables(tests: &mut [Test], harnesses: &Harnesses) {
    let mut of_builds: BTreeMap<(HarnessName, PathBuf), BTreeSet<String>> = BTreeMap::new();
    let place = |test: &Test| (test.harness.clone(), test.directory.clone());
    for test in tests.iter().filter(|test| harnesses.get(&test.harness).needs_build(test)) {
        of_builds.entry(place(test)).or_default().extend(test.env.iter().cloned());
    }
    for test in tests {
        let harness = harnesses.get(&test.harness);
        let of_tools = harness.discovery_inputs().variables.iter().map(|name| (*name).to_owned());
        let of_build = of_builds.get(&place(test)).filter(|_| harness.needs_build(test));
        let more: Vec<String> = of_tools.chain(of_build.into_iter().flatten().cloned()).collect();
        test.env.extend(more);
        let mut seen = HashSet::new();
        test.env.retain(|name| seen.insert(name.clone()));
    }
}
