//! Decides whether the result of a test is stored, and stores it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_cache::{Key, Persist, Record};
use greenwave_inputs::{ALWAYS_EXCLUDED, DiscoveredDeps, ManifestEntry, ManifestLine, PathStates};
use greenwave_sandbox::TraceStatus;

use super::attempt::{AttemptResult, TestJob};
use super::discovered::{RunDependencies, Snapshots};
use super::retimed::is_retimed;
use super::timed_accesses::{BuiltRun, TimedAccesses};
use super::undeclared::undeclared;
use super::{Dependencies, TestRun};
use crate::Error;
use crate::results::decision::{Change, RunEvidence, SnapshotEvidence, decide_cacheability};
use crate::results::key;
use crate::results::key_chain::KeyChain;
use crate::results::lookup::ResultCache;
use crate::results::outcome::{CacheDecision, Outcome, Status};
use crate::results::outputs::{self, OutputFile};
use crate::results::record::{self, NewResult};
use crate::results::written::{WrittenSet, first_written};
use crate::run::blocking::blocking;
use crate::run::options::IncompleteMode;
use crate::run::process::ProcessResult;
use crate::run::servers;

/// Maximum number of files that a run writes in the project and that are recorded one by one.
const WRITTEN_FILES_MAX: usize = 500;

/// A finished test whose result is about to be stored under the last key of its chain.
pub(super) struct Commit<'a> {
    pub(super) job: TestJob<'a>,
    pub(super) cache: &'a ResultCache,
    pub(super) chain: &'a KeyChain,
}

/// A finished test with the record for the last key of its chain. The caller stores the record if
/// `persist` is [`Persist::Yes`].
pub(super) struct Committed {
    pub(super) run: TestRun,
    pub(super) record: Record,
    pub(super) persist: Persist,
}

/// The decision on whether to store a result, with its dependencies.
struct Decided {
    decision: CacheDecision,
    discovered: Option<RunDependencies>,
    undeclared: Vec<PathBuf>,
    states: Arc<PathStates>,
    /// The complete trace of a built program's process, with the key of the list of its traces.
    process_trace: Option<(Key, Arc<DiscoveredDeps>)>,
}

impl Commit<'_> {
    /// Decides, and stores all records but the one for the last key of the chain.
    ///
    /// # Errors
    /// [`Error::Inputs`] if an input pattern is invalid.
    pub(super) async fn run(&self, attempt: AttemptResult) -> Result<Committed, Error> {
        let TestJob { workspace, test, prepared, .. } = self.job;
        let process = &attempt.process;
        let outputs = self.outputs(process).await?;
        self.job.note_more_reads(&attempt).await;
        let written = self.job.add_written(self.cache, process).await;
        let Decided { decision, mut discovered, undeclared, states, process_trace } =
            self.decide(&attempt).await?;
        let process_trace = process_trace.filter(|(_, trace)| first_written(trace, &written).is_none());
        if let Some(found) = &mut discovered {
            found.reject_written(&written);
        }
        let coarse = self.coarse_reason(&attempt, discovered.as_ref());
        let is_pass = process.status == Status::Passed;
        let result = NewResult {
            status: process.status,
            retries: if is_pass { 0 } else { attempt.attempts.saturating_sub(1) },
            count: process.count,
            cases: &process.cases(),
            output: &process.output,
            outputs: &outputs,
            duration: process.duration,
            coarse: coarse.as_deref(),
        };
        let result = result.record();
        let dependencies = workspace.wants_explanations().then(|| {
            let new = discovered.as_ref().map(|found| &found.new);
            let all: Vec<_> = self.chain.dependencies().iter().chain(new).cloned().collect();
            Dependencies {
                record: prepared.record_of_run(test, &all, &states, (workspace.project(), &process.seen)),
                inputs: prepared.snapshot.inputs.clone(),
            }
        });
        let is_stored = decision == CacheDecision::Stored;
        let chain = &self.chain_after(&states).await;
        if let (CacheDecision::NotAPass, Some(RunDependencies { new, .. })) = (&decision, &discovered) {
            self.cache.put_failure(chain, new, states.digest(new), &result).await;
        }
        let coarse = coarse.filter(|_| is_stored);
        let outcome = Outcome { coarse, ..attempt.outcome(chain.last(), decision, undeclared) };
        let run = TestRun { outcome, dependencies };
        if !is_stored {
            return Ok(Committed { run, record: result, persist: Persist::No });
        }
        let RunDependencies { new, trace, .. } = discovered.unwrap_or_default();
        let (record, mut persist, stored_at) = self.store(chain, new, &states, result).await;
        if chain.last() != self.chain.last() && persist == Persist::Yes {
            self.cache.put(chain.last(), &record).await;
            persist = Persist::No;
        }
        if let Some((list, trace)) = process_trace {
            self.cache.put_trace(&list, &trace, &states, &stored_at).await;
        }
        if let (Some(list), Some(trace)) = (&prepared.traces, &trace) {
            self.cache.put_trace(list, trace, &states, &stored_at).await;
        }
        Ok(Committed { run, record, persist })
    }

    /// Returns the chain with the states after the run. It differs from the chain of the lookup if
    /// the test has written to a cache that another program had changed.
    async fn chain_after(&self, states: &PathStates) -> KeyChain {
        let mut chain = KeyChain::new(*self.chain.first());
        if !self.chain.dependencies().iter().any(|set| set.has_maintained()) {
            return self.chain.clone();
        }
        for set in self.chain.dependencies() {
            if chain.last() != self.chain.first() {
                self.cache.put(chain.last(), &record::dependencies(set)).await;
            }
            chain = chain.then(Arc::clone(set), states);
        }
        chain
    }

    /// Returns why the result depends on all files of the test's package or of the project, if a
    /// complete trace could have decided.
    fn coarse_reason(&self, attempt: &AttemptResult, found: Option<&RunDependencies>) -> Option<String> {
        let peers = servers::describe(&attempt.process.seen.peers)
            .map(|peers| format!("reached {peers} (declare it in `servers`)"));
        let (scope, reason) = match (peers, found.and_then(|found| found.incomplete.clone())) {
            (Some(reason), _) => ("the project", reason),
            (None, Some(reason)) if self.job.test.directories.is_empty() => ("the project", reason),
            (None, reason) => ("its package", reason?),
        };
        Some(format!("any file of {scope} counts, because the test {reason}"))
    }

    /// Returns the outputs of a test that passed.
    async fn outputs(&self, process: &ProcessResult) -> Result<Vec<OutputFile>, Error> {
        let TestJob { workspace, test, .. } = self.job;
        if process.status != Status::Passed || test.outputs.is_empty() {
            return Ok(Vec::new());
        }
        let (project, selection) = (workspace.project().to_owned(), test.selection()?);
        let seen = Arc::clone(&process.seen);
        Ok(blocking(move || outputs::read(&project, &selection, seen.written.iter())).await)
    }

    /// Stores a result. Returns the record for the last key of the chain, whether the caller stores
    /// it, and the key of the result.
    async fn store(
        &self,
        chain: &KeyChain,
        set: Arc<DiscoveredDeps>,
        states: &PathStates,
        result: Record,
    ) -> (Record, Persist, Key) {
        if set.is_empty() {
            return (result, Persist::Yes, *chain.last());
        }
        if !chain.is_full() {
            let next = key::next(chain.last(), &states.digest(&set));
            self.cache.put(&next, &result).await;
            return (record::dependencies(&set), Persist::Yes, next);
        }
        // The chain is full: merge its steps into one after the first key.
        let all = chain.dependencies().iter().chain([&set]).flat_map(|set| set.accesses.iter().cloned());
        let all = Arc::new(DiscoveredDeps::new(all));
        let next = key::next(chain.first(), &states.digest(&all));
        self.cache.put(&next, &result).await;
        self.cache.put(chain.first(), &record::dependencies(&all)).await;
        (result, Persist::No, next)
    }

    /// Decides in two phases, before and after the second snapshot of the project.
    async fn decide(&self, attempt: &AttemptResult) -> Result<Decided, Error> {
        let TestJob { runner, workspace, test, prepared } = self.job;
        let before = &prepared.snapshot;
        let peers = servers::describe(&attempt.process.seen.peers);
        let run = self.evidence(attempt, peers.as_deref());
        let not = |decision, states: &Arc<PathStates>| Decided {
            decision,
            discovered: None,
            undeclared: Vec::new(),
            states: Arc::clone(states),
            process_trace: None,
        };
        if let Some(decision) = run.obstacle() {
            let undeclared = self.undeclared_if(runner.options.strict, attempt)?;
            return Ok(Decided { undeclared, ..not(decision, &before.states) });
        }
        let Ok(after) = workspace.after(test, attempt.process.ended).await else {
            // Inputs that can no longer be read have changed.
            let change = Some(Change { path: workspace.project(), by_test: false, is_declared: true });
            let evidence = SnapshotEvidence { change, ..SnapshotEvidence::default() };
            return Ok(not(decide_cacheability(&run, &evidence), &before.states));
        };
        let is_written = |path: &Path| attempt.process.seen.written.contains(&workspace.project().join(path));
        let (seen, project) = (&attempt.process.seen, workspace.project());
        let change = before
            .inputs
            .first_touched_except(&after.inputs, |then, now| is_retimed(seen, project, then, now));
        let change = change.or_else(|| attempt.younger_input(&before.inputs));
        let change = change.map(|path| Change { path, by_test: is_written(path), is_declared: true });
        let inputs = SnapshotEvidence { too_long: after.inputs.unexamined(), change };
        if let Some(decision) = inputs.obstacle() {
            return Ok(not(decision, &after.states));
        }
        let wants_trace = prepared.traces.is_some();
        let snapshots = Snapshots { project: workspace.project(), before, after: &after, wants_trace };
        let discovered =
            snapshots.compare(test, attempt.accesses.clone(), self.chain, &attempt.comparison).await?;
        match discovered {
            Err(path) => {
                let change = Some(Change { path: &path, by_test: is_written(&path), is_declared: false });
                Ok(not(decide_cacheability(&run, &SnapshotEvidence { change, ..inputs }), &after.states))
            }
            Ok(found) => {
                let declares = !test.inputs.is_empty() || runner.options.strict;
                let undeclared = self.undeclared_if(declares, attempt)?;
                let decision = decide_cacheability(&run, &inputs);
                let process_trace = match attempt.built_run.clone() {
                    Some(BuiltRun { list, accesses }) => {
                        let found = snapshots.trace_of(test, accesses, self.chain).await?;
                        found.trace.map(|trace| (list, trace))
                    }
                    None => None,
                };
                let decided = not(decision, &after.states);
                Ok(Decided { discovered: Some(found), undeclared, process_trace, ..decided })
            }
        }
    }

    fn evidence<'e>(&'e self, attempt: &'e AttemptResult, peers: Option<&'e str>) -> RunEvidence<'e> {
        let is_refused = self.job.runner.options.incomplete == IncompleteMode::Refuse;
        let (process, seen) = (&attempt.process, &attempt.process.seen);
        let inputs = &self.job.prepared.snapshot.inputs;
        RunEvidence {
            status: process.status,
            attempts: attempt.attempts,
            cache_failures: self.job.runner.options.cache_failures,
            build_failed: attempt.build_failed,
            has_inputs: !inputs.is_empty(),
            left_processes: process.left_behind.is_some(),
            left_names: process.left_behind.as_deref().unwrap_or_default(),
            used_object: seen.used.as_deref(),
            left_object: seen.left.as_deref(),
            traced_by_outer: self.job.runner.trace_status() == TraceStatus::TracedByOuter,
            clock_was_set: process.clock_was_set,
            incomplete_trace: seen.incomplete.as_deref(),
            refused_peers: peers.filter(|_| is_refused),
            unbuilt: attempt.unbuilt.as_deref(),
            changed_during_build: attempt.changing.as_deref(),
            too_long: inputs.unexamined(),
        }
    }

    fn undeclared_if(&self, condition: bool, attempt: &AttemptResult) -> Result<Vec<PathBuf>, Error> {
        if condition { self.job.undeclared(attempt) } else { Ok(Vec::new()) }
    }
}

impl TestJob<'_> {
    /// Records reads of the test beyond its declared inputs.
    pub(super) async fn note_more_reads(&self, attempt: &AttemptResult) {
        let Self { runner, test, .. } = *self;
        if attempt.more_reads.is_empty() {
            return;
        }
        runner.more_reads.add(test, attempt.more_reads.clone());
        if let Some(cache) = &runner.cache {
            cache.put_more_reads(test, &attempt.more_reads).await;
        }
    }

    /// Records which files of the project the test has written and not removed again. Returns all
    /// files that tests of the project write.
    pub(super) async fn add_written(&self, cache: &ResultCache, process: &ProcessResult) -> Arc<WrittenSet> {
        let project = self.workspace.project();
        let seen = Arc::clone(&process.seen);
        let inputs = &self.prepared.snapshot.inputs;
        let relative = |path: &PathBuf| {
            let inside = path.strip_prefix(project).ok()?;
            let is_same = |line: &ManifestLine| {
                ManifestEntry::read(path, false).is_ok_and(|(entry, _)| entry == line.entry)
            };
            let is_unchanged = seen.retimed.contains_key(path) && inputs.get(inside).is_some_and(is_same);
            let counts = !is_unchanged
                && !path.is_dir()
                && !ALWAYS_EXCLUDED.iter().any(|name| inside.starts_with(name))
                && (seen.existing.contains(path) || path.symlink_metadata().is_ok());
            counts.then(|| inside.to_owned())
        };
        let mut written: Vec<PathBuf> = seen.written.iter().filter_map(relative).collect();
        if written.len() > WRITTEN_FILES_MAX {
            // Such as all files of a build directory.
            let outermost = |path: &PathBuf| path.iter().next().map(PathBuf::from);
            written = written.iter().filter_map(outermost).collect();
        }
        cache.add_written(&self.prepared.written, written.into_iter()).await
    }

    /// Returns the project files that the test read but did not declare as inputs.
    pub(super) fn undeclared(&self, attempt: &AttemptResult) -> Result<Vec<PathBuf>, Error> {
        let (project, selection) = (self.workspace.project(), self.test.selection()?);
        let TimedAccesses { accesses, built, .. } = &attempt.accesses;
        Ok(undeclared(project, &selection, &self.prepared.snapshot, accesses, built))
    }
}
