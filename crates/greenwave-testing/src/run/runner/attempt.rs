//! Runs a test's process, with retries, and collects what its result depends on.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use greenwave_cache::Key;
use greenwave_inputs::AccessKind;
use greenwave_sandbox::{AllowedReads, ReadRules, TraceParts};
use tokio::time::Instant;

use super::Runner;
use super::accesses::{AccessFilter, OwnAccesses, written_in_caches};
use super::discovered::Comparison;
use super::prepare::Prepared;
use super::timed_accesses::{BuiltRun, TimedAccesses};
use super::undeclared::reads_more;
use crate::harness::cargo::products::Products;
use crate::harness::launch::BuildFailure;
use crate::harness::{BatchCommand, BatchResult, Crash, FinishedProcess, LaunchSpec, Rerun};
use crate::results::more_reads::MoreReads;
use crate::results::outcome::{CacheDecision, ExitReason, Outcome, Source, Status};
use crate::results::outputs::Outputs;
use crate::run::blocking::blocking;
use crate::run::isolation::Isolation;
use crate::run::observation::Seen;
use crate::run::options::{REPETITIONS_MAX, RESULTS_VARIABLE};
use crate::run::process::{self, Job, ProcessResult};
use crate::run::reported::ExpectedReports;
use crate::run::withheld;
use crate::run::workspace::{Built, Workspace};
use crate::{Error, Test};

/// The last attempt at running a test.
#[derive(Clone)]
pub(crate) struct AttemptResult {
    pub(crate) process: ProcessResult,
    pub(super) attempts: u32,
    pub(super) accesses: TimedAccesses,
    /// Dependencies found for the first test of a batch, which mostly apply to the others as well.
    pub(super) comparison: Arc<tokio::sync::Mutex<Option<Comparison>>>,
    /// An input that changed while the program was built.
    pub(super) changing: Option<PathBuf>,
    /// A build product that the test read although the build was incomplete.
    pub(super) unbuilt: Option<PathBuf>,
    /// Reads of the test beyond its declared inputs.
    pub(super) more_reads: MoreReads,
    /// Whether the program could not be built, so that no process ran.
    pub(super) build_failed: bool,
    /// Everything that the process observed, if the program was built before.
    pub(super) built_run: Option<BuiltRun>,
    /// Start of the process in nanoseconds since the Unix epoch, if it was before the lookup of the
    /// test.
    pub(super) started_before: Option<i64>,
}

impl AttemptResult {
    fn of_failed_build(failure: BuildFailure) -> Self {
        let BuildFailure { messages, exit_code } = failure;
        let status =
            if exit_code == 0 { Status::Passed } else { Status::Failed(ExitReason::Code(exit_code)) };
        let process = ProcessResult::without_process(status, messages);
        let accesses = TimedAccesses {
            accesses: Arc::default(),
            seen: Arc::clone(&process.seen),
            built: Vec::new(),
            products: Arc::default(),
            from_cache: None,
            own: None,
            since: process.began,
            began: process.began,
        };
        Self {
            process,
            attempts: 1,
            accesses,
            comparison: Arc::default(),
            changing: None,
            unbuilt: None,
            more_reads: MoreReads::default(),
            build_failed: true,
            built_run: None,
            started_before: None,
        }
    }

    /// Returns the part of one test in the result of its batch. All tests share the batch's
    /// accesses, unless the command has announced the part of each.
    pub(crate) fn share(&self, share: BatchResult, part: Option<u32>) -> Self {
        let parts = part.zip(self.process.seen.parts.as_ref());
        let own = parts.map(|(part, parts)| {
            let reached = parts.closure(part);
            let own = self.accesses.accesses.iter().filter(|access| is_observed(access, parts, &reached));
            Arc::new(own.cloned().collect())
        });
        let status = if share.passed { Status::Passed } else { Status::Failed(ExitReason::Code(1)) };
        let process = ProcessResult {
            status,
            count: Some(share.count),
            cases: share.cases,
            output: share.output.into(),
            duration: share.duration,
            ..self.process.clone()
        };
        let accesses = TimedAccesses { own, ..self.accesses.clone() };
        Self { process, accesses, ..self.clone() }
    }

    /// Returns the outcome of the test.
    pub(super) fn outcome(self, key: &Key, decision: CacheDecision, undeclared: Vec<PathBuf>) -> Outcome {
        Outcome {
            cases: self.process.cases(),
            status: self.process.status,
            count: self.process.count,
            output: self.process.output,
            duration: self.process.duration,
            source: Source::Ran(decision),
            key: *key.as_bytes(),
            attempts: self.attempts,
            undeclared,
            coarse: None,
            interference: None,
            left_behind: self.process.left_behind.unwrap_or_default(),
            outputs: Outputs::default(),
        }
    }
}

/// Returns whether one of the given parts of a process made an access.
pub(super) fn is_observed(
    (path, kind): &(PathBuf, AccessKind),
    parts: &TraceParts,
    by: &BTreeSet<u32>,
) -> bool {
    match kind {
        AccessKind::Names => parts.is_listed(path, by),
        // It can follow from any access to a directory that a test has created.
        AccessKind::MaintainedNames => parts.is_listed(path, by) || parts.is_observed(path, by),
        _ => parts.is_observed(path, by),
    }
}

/// The outcome of running a collection until it waits.
pub(super) enum ToMark {
    /// The process waits. The result is that of the collection.
    Waiting(Box<AttemptResult>),
    /// The process has ended. Its private directory is returned.
    Ended(Box<ProcessResult>, Isolation),
}

/// A test that is about to run in a workspace.
#[derive(Clone, Copy)]
pub(super) struct TestJob<'a> {
    pub(super) runner: &'a Runner,
    pub(super) workspace: &'a dyn Workspace,
    pub(super) test: &'a Test,
    pub(super) prepared: &'a Prepared<'a>,
}

impl TestJob<'_> {
    /// Runs the test until it passes or has no retries left. With `continues`, the process of
    /// a collection may wait afterwards.
    ///
    /// # Errors
    /// If the test cannot be run.
    pub(super) async fn attempt(&self, continues: bool) -> Result<AttemptResult, Error> {
        let launch = self.launch(self.test)?;
        if let Some(failure) = launch.failure {
            return Ok(AttemptResult::of_failed_build(failure));
        }
        let mut failed: Option<ProcessResult> = None;
        for attempt in 1.. {
            let mut isolation = self.runner.lend_isolation()?;
            let mut process = match failed.take() {
                Some(earlier) => self.rerun_cases(earlier).await?,
                None if continues => match self.run_to_mark(&launch, isolation).await? {
                    ToMark::Waiting(result) => return Ok(*result),
                    ToMark::Ended(process, unchanged) => {
                        isolation = unchanged;
                        *process
                    }
                },
                None => self.run_once(&self.equip(launch.clone(), &isolation)?, &isolation).await?,
            };
            if process.status == Status::Passed || attempt > self.test.retries.min(REPETITIONS_MAX) {
                let (harness, directory) = (self.runner.harness(self.test), isolation.directory());
                process.cases.extend(harness.read_cases(self.test, directory));
                if let Some(more) = self.explain_crash(&process).await {
                    process.output = [process.output.as_ref(), more.as_bytes()].concat().into();
                }
                return self.finish(process, attempt, launch, isolation);
            }
            failed = Some(process).filter(|process| self.can_rerun_cases(process));
        }
        unreachable!("the loop has no end")
    }

    fn finish(
        &self,
        process: ProcessResult,
        attempts: u32,
        launch: LaunchSpec,
        isolation: Isolation,
    ) -> Result<AttemptResult, Error> {
        let filter = self.access_filter(isolation.directory());
        let built_run = self.built_run(&launch, &process, &filter);
        let LaunchSpec { dependencies, since, products, changing, .. } = launch;
        let mut result = self.attempt_result(process, attempts, &filter, products)?;
        result.built_run = built_run;
        self.runner.take_back(isolation, &result.process);
        let accesses = &mut result.accesses;
        Arc::make_mut(&mut accesses.accesses).extend(dependencies);
        accesses.since = since.min(accesses.since);
        Ok(AttemptResult { changing, ..result })
    }

    /// Runs one command in place of several tests. The closure receives the directory of the run.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub(super) async fn run_together(
        &self,
        has_parts: bool,
        prepare: impl FnOnce(&Path) -> Result<BatchCommand, Error>,
    ) -> Result<(AttemptResult, Isolation), Error> {
        let isolation = self.runner.lend_isolation()?;
        let BatchCommand { arguments, variables } = prepare(isolation.directory())?;
        let plain = self.runner.plain_launch(self.workspace.project(), self.test)?;
        let launch = LaunchSpec { arguments, has_parts, ..plain }.replace_variables(variables);
        let process = self.run_once(&launch, &isolation).await?;
        let filter = self.access_filter(isolation.directory());
        let result = self.attempt_result(process, 1, &filter, None)?;
        Ok((result, isolation))
    }

    pub(super) fn access_filter<'f>(&'f self, own_directory: &'f Path) -> AccessFilter<'f> {
        let results = self.runner.options.results.as_deref();
        let maintained = (self.workspace.project(), &*self.runner.maintained);
        AccessFilter::new(&self.runner.environment, results, own_directory, maintained)
    }

    /// Records the files that the test has left in caches that it maintains.
    pub(super) async fn record_maintained(&self, seen: &Arc<Seen>) {
        // Without a cache of results, nobody has looked for changes by other programs before.
        if self.runner.cache.is_none() || seen.written.is_empty() {
            return;
        }
        let (seen, states) = (Arc::clone(seen), self.runner.maintained_states(self.workspace.project()));
        let project = self.workspace.project().to_owned();
        blocking(move || {
            let written = written_in_caches(&project, &seen.written);
            states.record_maintained(written.iter().map(|(cache, path)| (cache.as_path(), *path)));
        })
        .await;
    }

    pub(super) fn attempt_result(
        &self,
        mut process: ProcessResult,
        attempts: u32,
        filter: &AccessFilter<'_>,
        products: Option<Products>,
    ) -> Result<AttemptResult, Error> {
        let Self { runner, workspace, test, prepared } = *self;
        let (project, environment) = (workspace.project(), &runner.environment);
        process.sweep_only_ignored(project, &prepared.snapshot.inputs);
        let OwnAccesses { accesses, unbuilt, from_cache } = filter.apply(&process.seen, products.as_ref());
        Ok(AttemptResult {
            more_reads: reads_more(project, environment, test, prepared, &accesses, products.as_ref())?,
            accesses: TimedAccesses {
                accesses: Arc::new(accesses),
                seen: Arc::clone(&process.seen),
                built: products.map(|products| products.roots).unwrap_or_default(),
                products: Arc::default(),
                from_cache,
                own: None,
                since: process.began,
                began: process.began,
            },
            process,
            attempts,
            comparison: Arc::default(),
            changing: None,
            unbuilt,
            build_failed: false,
            built_run: None,
            started_before: None,
        })
    }

    /// Returns the process to start for a test.
    pub(super) fn launch(&self, test: &Test) -> Result<LaunchSpec, Error> {
        let command = self.runner.plain_launch(self.workspace.project(), test)?;
        let built = self.workspace.built(&test.directory);
        let output = built.map(|built| &*built.output);
        let launch = self.runner.harness(test).launch(test, output, command);
        Ok(LaunchSpec { changing: built.and_then(|built: &Built| built.changing.clone()), ..launch })
    }

    /// Returns the process of a test that runs alone.
    fn equip(&self, launch: LaunchSpec, isolation: &Isolation) -> Result<LaunchSpec, Error> {
        let Self { runner, test, .. } = *self;
        runner.harness(test).equip(test, launch, isolation.directory(), &runner.environment)
    }

    pub(super) async fn run_once(
        &self,
        launch: &LaunchSpec,
        isolation: &Isolation,
    ) -> Result<ProcessResult, Error> {
        let Self { runner, test, .. } = *self;
        let mut job = self.job(launch, isolation.directory(), self.variables(launch, isolation));
        let reports = test.reports.as_ref().map(|reports| {
            ExpectedReports::new(reports, &mut job.arguments, &launch.directory, isolation.directory())
        });
        let rules = if runner.options.strict { Some(self.read_rules(launch)?) } else { None };
        let mut process = process::run(&job, &runner.options, &runner.environment, rules.as_ref()).await?;
        self.record_maintained(&process.seen).await;
        match reports {
            None => Ok(process),
            Some(reports) => Ok(blocking(move || {
                reports.judge(&mut process);
                ProcessResult { ended: Instant::now(), ..process }
            })
            .await),
        }
    }

    /// Returns the variables of the test's process.
    pub(super) fn variables(&self, launch: &LaunchSpec, isolation: &Isolation) -> Vec<(OsString, OsString)> {
        let Self { runner, test, prepared, .. } = *self;
        let os = |(name, value): &(&str, &OsStr)| (OsString::from(name), value.to_os_string());
        let mut variables: Vec<(OsString, OsString)> = prepared.environment.iter().map(os).collect();
        let shared = runner.harness(test).shared_directories(&runner.environment);
        variables.extend(isolation.variables(test, &runner.environment, shared));
        let results = runner.options.results.iter();
        variables.extend(results.map(|directory| (RESULTS_VARIABLE.into(), directory.clone().into())));
        variables.extend(launch.variables.iter().cloned());
        variables.extend(test.set.iter().map(|(name, value)| (name.into(), value.into())));
        variables.extend(launch.replaced.iter().cloned());
        variables
    }

    /// Returns the command that a launch starts, with the private directory `own`.
    pub(super) fn job<'j>(
        &'j self,
        launch: &LaunchSpec,
        own: &'j Path,
        variables: Vec<(OsString, OsString)>,
    ) -> Job<'j> {
        Job {
            test: self.test,
            program: launch.program.clone(),
            arguments: launch.arguments.clone(),
            directory: launch.directory.clone(),
            variables,
            own,
            project: self.workspace.project(),
            has_parts: launch.has_parts,
            has_mark: false,
        }
    }

    /// Returns rules that allow the test to read its inputs, its outputs and its program.
    fn read_rules(&self, launch: &LaunchSpec) -> Result<ReadRules, Error> {
        let (project, selection) = (self.workspace.project(), self.test.selection()?);
        let files = self.prepared.snapshot.inputs.files();
        let mut paths: Vec<PathBuf> = files.map(|(path, _)| path.to_owned()).collect();
        paths.extend(launch.products.iter().flat_map(|products| products.roots.iter().cloned()));
        paths.push(self.prepared.program.clone());
        paths.extend(selection.output_roots().map(|path| project.join(path)).filter(|path| path.exists()));
        Ok(ReadRules::new(&AllowedReads { directory: project.to_owned(), paths })?)
    }

    /// Returns text to append to the output of a test. Runs while the worker slot is still held.
    async fn explain_crash(&self, process: &ProcessResult) -> Option<String> {
        if !self.workspace.wants_explanations() {
            return None;
        }
        let crash = Crash { test: self.test, process: &finished(process), rerun: self };
        let crash = self.runner.harness(self.test).explain_crash(&crash).await;
        let is_failure = process.status != Status::Passed;
        let withheld =
            is_failure.then(|| withheld::explain(self.test, &self.runner.environment, &process.output));
        let all: String = crash.into_iter().chain(withheld.flatten()).collect();
        (!all.is_empty()).then_some(all)
    }
}

/// Runs variations of the test, with the environment that it had.
#[async_trait]
impl Rerun for TestJob<'_> {
    async fn rerun(&self, test: &Test) -> Result<FinishedProcess, Error> {
        let job = TestJob { test, ..*self };
        let isolation = self.runner.lend_isolation()?;
        let process = job.run_once(&self.launch(test)?, &isolation).await?;
        self.runner.take_back(isolation, &process);
        Ok(finished(&process))
    }
}

fn finished(process: &ProcessResult) -> FinishedProcess {
    FinishedProcess { status: process.status, count: process.count, output: process.output.clone() }
}

impl Runner {
    pub(super) fn lend_isolation(&self) -> Result<Isolation, Error> {
        self.isolations.lend(self.options.ports.as_deref())
    }

    /// Returns the directory to the pool unless a leftover process could still write to it.
    pub(super) fn take_back(&self, isolation: Isolation, process: &ProcessResult) {
        let is_clean = process.left_behind.is_none() && process.seen.incomplete.is_none();
        if process.status == Status::Passed && is_clean {
            self.isolations.take_back(isolation);
        }
    }
}
