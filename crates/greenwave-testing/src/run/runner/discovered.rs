//! Finds the dependencies that a test has discovered, and changes of them while it ran.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_inputs::{
    AccessKind, CLOCK_TICK, DiscoveredDeps, FileStamp, InputSnapshot, Manifest, PathState, PathStates,
    Selection, tree_path,
};

use super::complete_trace::TracedRun;
use super::timed_accesses::TimedAccesses;
use crate::results::key_chain::KeyChain;
use crate::results::written::{WrittenSet, first_written};
use crate::run::blocking::blocking;
use crate::run::observation::Seen;
use crate::{Error, Test};

/// Maximum number of inputs for which dependencies are checked without a blocking thread.
const QUICK_FILES_MAX: usize = 100;

/// The dependencies of a test, or a path that changed while it ran.
pub(super) type Discovered = Result<RunDependencies, PathBuf>;

/// The dependencies of a test.
#[derive(Debug, Clone, Default)]
pub(super) struct RunDependencies {
    /// Dependencies that its key chain does not contain yet.
    pub(super) new: Arc<DiscoveredDeps>,
    /// The complete trace, if the result depends on nothing else.
    pub(super) trace: Option<Arc<DiscoveredDeps>>,
    /// The reason why the trace is not complete, if it was asked for.
    pub(super) incomplete: Option<String>,
}

impl RunDependencies {
    /// Drops the trace if it has a file that tests write.
    pub(super) fn reject_written(&mut self, written: &WrittenSet) {
        let path = self.trace.as_ref().and_then(|trace| first_written(trace, written));
        if let Some(path) = path {
            let path = path.display();
            self.incomplete = Some(format!("read {path}, which a test writes (let it write its own file)"));
            self.trace = None;
        }
    }
}

/// The result of comparing the states before and after a run, with the values that it was computed
/// from.
pub(super) struct Comparison {
    inputs: Manifest,
    before: Arc<PathStates>,
    after: Arc<PathStates>,
    dependencies: Vec<Arc<DiscoveredDeps>>,
    outputs: Vec<String>,
    wants_trace: bool,
    result: Discovered,
}

/// Two states of a project, before and after a run.
pub(super) struct Snapshots<'a> {
    pub(super) project: &'a Path,
    pub(super) before: &'a InputSnapshot,
    pub(super) after: &'a InputSnapshot,
    /// Whether the result may be stored by its trace.
    pub(super) wants_trace: bool,
}

/// Returns the dependency on the whole project of a test that exchanged data with other processes.
/// A test that declares no inputs has it anyway.
fn tree_dependency(test: &Test, seen: &Seen) -> Option<PathBuf> {
    let has_declared = !(test.inputs.is_empty() && test.directories.is_empty());
    (has_declared && !seen.peers.is_empty()).then(|| tree_path(&test.outputs))
}

impl Snapshots<'_> {
    /// Returns the dependencies of a test that its key chain does not contain yet, or a path that
    /// may have changed while the test ran.
    ///
    /// Tests of a batch share the comparison if all values are the same.
    pub(super) async fn compare(
        &self,
        test: &Test,
        accesses: TimedAccesses,
        chain: &KeyChain,
        comparison: &tokio::sync::Mutex<Option<Comparison>>,
    ) -> Result<Discovered, Error> {
        let own = accesses.own.clone().filter(|_| self.wants_trace);
        let whole = self.compare_whole(test, accesses.clone(), chain, comparison).await?;
        let (Ok(found), Some(own)) = (&whole, own) else { return Ok(whole) };
        let new = Arc::clone(&found.new);
        let accesses = TimedAccesses { accesses: own, ..accesses };
        let comparer = self.comparer(test, accesses, chain)?;
        Ok(Ok(blocking(move || comparer.found(new)).await))
    }

    /// Returns the complete trace of a process, if its accesses are one and all states are certain.
    pub(super) async fn trace_of(
        &self,
        test: &Test,
        accesses: TimedAccesses,
        chain: &KeyChain,
    ) -> Result<RunDependencies, Error> {
        let comparer = Comparer { wants_trace: true, ..self.comparer(test, accesses, chain)? };
        Ok(blocking(move || comparer.found(Arc::default())).await)
    }

    async fn compare_whole(
        &self,
        test: &Test,
        accesses: TimedAccesses,
        chain: &KeyChain,
        comparison: &tokio::sync::Mutex<Option<Comparison>>,
    ) -> Result<Discovered, Error> {
        let mut comparison = comparison.lock().await;
        if let Some(same) = comparison.as_ref().filter(|it| it.applies_to(self, &test.outputs, chain)) {
            return Ok(same.result.clone());
        }
        let result = self.run_comparison(test, accesses, chain).await?;
        *comparison = Some(Comparison {
            inputs: self.after.inputs.clone(),
            before: Arc::clone(&self.before.states),
            after: Arc::clone(&self.after.states),
            dependencies: chain.dependencies().to_vec(),
            outputs: test.outputs.clone(),
            wants_trace: self.wants_trace,
            result: result.clone(),
        });
        Ok(result)
    }

    async fn run_comparison(
        &self,
        test: &Test,
        accesses: TimedAccesses,
        chain: &KeyChain,
    ) -> Result<Discovered, Error> {
        // The states have usually been read by now, and moving to another thread would only cost
        // time.
        let is_quick = self.after.inputs.len() <= QUICK_FILES_MAX
            && self.after.states.contains_all(accesses.accesses.iter(), self.project);
        let comparer = self.comparer(test, accesses, chain)?;
        let is_quick = is_quick && comparer.tree.is_none();
        Ok(if is_quick { comparer.compare() } else { blocking(move || comparer.compare()).await })
    }

    fn comparer(&self, test: &Test, accesses: TimedAccesses, chain: &KeyChain) -> Result<Comparer, Error> {
        Ok(Comparer {
            project: self.project.to_owned(),
            selection: test.selection()?,
            tree: tree_dependency(test, &accesses.seen),
            before: self.before.clone(),
            after: self.after.clone(),
            chain: chain.clone(),
            wants_trace: self.wants_trace,
            test: accesses,
        })
    }
}

impl Comparison {
    fn applies_to(&self, snapshots: &Snapshots<'_>, outputs: &[String], chain: &KeyChain) -> bool {
        let is_same = |(one, other): (&Arc<DiscoveredDeps>, &Arc<DiscoveredDeps>)| Arc::ptr_eq(one, other);
        let others = chain.dependencies();
        self.inputs.ptr_eq(&snapshots.after.inputs)
            && Arc::ptr_eq(&self.before, &snapshots.before.states)
            && Arc::ptr_eq(&self.after, &snapshots.after.states)
            && self.dependencies.len() == others.len()
            && self.dependencies.iter().zip(others).all(is_same)
            && self.outputs == outputs
            && self.wants_trace == snapshots.wants_trace
    }
}

/// Everything that a comparison needs, for a thread that may block.
struct Comparer {
    project: PathBuf,
    selection: Selection,
    /// The dependency on the whole project, if any file of it counts.
    tree: Option<PathBuf>,
    before: InputSnapshot,
    after: InputSnapshot,
    chain: KeyChain,
    wants_trace: bool,
    test: TimedAccesses,
}

impl Comparer {
    fn compare(&self) -> Discovered {
        let set = self.new_dependencies();
        if let Some(path) = self.tree.as_ref().and_then(|tree| self.change_in_tree(tree)) {
            return Err(path);
        }
        if let Some(path) = self.after.states.moved_since(&self.after.inputs, self.test.since) {
            return Err(path);
        }
        let earlier = self.chain.dependencies();
        let all = earlier.iter().flat_map(|set| set.accesses.iter()).chain(&set.accesses);
        let mut all = all.filter(|(_, kind)| *kind != AccessKind::Tree);
        if let Some((path, _)) = all.find(|(path, kind)| self.may_have_changed(path, *kind)) {
            return Err(path.clone());
        }
        let (before, after) = (&self.before.states, &self.after.states);
        let is_changed = |set: &&Arc<DiscoveredDeps>| {
            let differs = |(path, kind): &(PathBuf, AccessKind)| {
                !kind.is_maintained() && before.state(path, *kind).0 != after.state(path, *kind).0
            };
            // Files that the test itself has written in a cache may have another state than before.
            before.digest(set) != after.digest(set)
                && (!set.has_maintained() || set.accesses.iter().any(differs))
        };
        match earlier.iter().find(is_changed) {
            Some(changed) => Err(changed.accesses[0].0.clone()),
            None => Ok(self.found(Arc::new(set))),
        }
    }

    fn found(&self, new: Arc<DiscoveredDeps>) -> RunDependencies {
        let found = RunDependencies { new, ..RunDependencies::default() };
        if !self.wants_trace {
            return found;
        }
        let run = TracedRun {
            project: &self.project,
            selection: &self.selection,
            after: &self.after,
            test: &self.test,
        };
        match run.complete_trace(|path, kind| self.may_have_changed(path, kind)) {
            Ok(trace) => RunDependencies { trace: trace.map(Arc::new), ..found },
            Err(reason) => RunDependencies { incomplete: Some(reason), ..found },
        }
    }

    /// Returns the accesses that are neither declared nor part of the key chain.
    fn new_dependencies(&self) -> DiscoveredDeps {
        let earlier: BTreeSet<&(PathBuf, AccessKind)> =
            self.chain.dependencies().iter().flat_map(|set| &set.accesses).collect();
        let mut new = Vec::new();
        for (path, kind) in self.test.accesses.iter() {
            let path = path.strip_prefix(&self.project).unwrap_or(path);
            let is_declared = *kind == AccessKind::Content && self.after.inputs.get(path).is_some();
            let access = (path.to_owned(), *kind);
            if !is_declared && !self.selection.is_output(path) && !earlier.contains(&access) {
                new.push(access);
            }
        }
        let tree = self.tree.iter().map(|tree| (tree.clone(), AccessKind::Tree));
        new.extend(tree.filter(|access| !earlier.contains(access)));
        DiscoveredDeps::new(new)
    }

    /// Returns a file or directory of the project that may have changed since the test started. The
    /// names in a directory do not count if the test itself wrote to the directory.
    fn change_in_tree(&self, path: &Path) -> Option<PathBuf> {
        let Some(tree) = self.after.states.tree(path) else { return Some(PathBuf::new()) };
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
        let since = self.test.since.saturating_sub(tick);
        if tree.newest.1 >= since {
            return Some(tree.newest.0.clone());
        }
        let written: BTreeSet<&Path> =
            self.test.seen.written.iter().filter_map(|path| path.parent()).collect();
        let changed = tree.directories.iter().find(|(path, changed)| {
            *changed >= since && !written.contains(self.project.join(path).as_path())
        });
        changed.map(|(path, _)| path.clone())
    }

    /// Returns whether another program may have changed the names in a directory while the test
    /// ran. Otherwise every file that the test itself did not replace is older than the test.
    fn names_may_have_changed(&self, directory: &Path) -> bool {
        let Ok(entries) = std::fs::read_dir(directory) else { return true };
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
        let seen = &self.test.seen;
        let is_new = |path: &Path| match path.symlink_metadata() {
            Ok(metadata) => {
                FileStamp::from_metadata(&metadata).changed >= self.test.since.saturating_sub(tick)
            }
            Err(_) => true,
        };
        entries.into_iter().any(|entry| {
            let Ok(path) = entry.map(|entry| entry.path()) else { return true };
            let is_rewritten = seen.existing.contains(&path) && seen.written.contains(&path);
            !seen.swept.contains(&path) && !is_rewritten && is_new(&path)
        })
    }

    fn may_have_changed(&self, path: &Path, kind: AccessKind) -> bool {
        let (state, touched) = self.after.states.state(path, kind);
        let absolute = self.project.join(path);
        if matches!(state, PathState::AsLeft(_)) {
            return self.after.states.is_rewritten(path) && !self.test.seen.written.contains(&absolute);
        }
        let swept = &self.test.seen.swept;
        if kind == AccessKind::Content && swept.contains(&absolute) {
            // It existed before, and the test itself has created it again.
            return state == PathState::Absent;
        }
        if kind == AccessKind::Names && swept.iter().any(|it| it.parent() == Some(&absolute)) {
            return self.names_may_have_changed(&absolute);
        }
        // A deleted file has no timestamp, and neither has a file in a directory that was replaced.
        let is_gone = state == PathState::Absent && self.test.seen.existing.contains(&absolute);
        // Build products are newer than the start of the build, but older than the program's start.
        let is_built = self.test.built.iter().any(|root| absolute.starts_with(root));
        let since = if is_built { self.test.began } else { self.test.since };
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
        let is_touched = touched >= since.saturating_sub(tick) && !self.has_only_own_outputs(path, kind);
        is_touched || is_gone || self.after.states.arrived(path) >= since
    }

    /// Returns whether the names in a directory are those from before the test, except for outputs
    /// that the test wrote there itself.
    fn has_only_own_outputs(&self, path: &Path, kind: AccessKind) -> bool {
        if kind != AccessKind::Names {
            return false;
        }
        let absolute = self.project.join(path);
        let is_own = |written: &Path| {
            let relative = written.strip_prefix(&self.project);
            written.parent() == Some(&absolute) && relative.is_ok_and(|it| self.selection.is_output(it))
        };
        let (before, read_at) = self.before.states.state_read_at(path, kind);
        read_at <= self.test.since
            && before == self.after.states.state(path, kind).0
            && self.test.seen.written.iter().any(|written| is_own(written))
    }
}
