//! Merges features whose tests pass into the project, in batches.
//!
//! A merge joins the changes of the batch with the changes of other features, tests the result, and
//! writes it so that a kill at any moment leaves nothing half done.

mod batch;
mod bisection;
mod chain;
mod joined;
mod line;
mod probes;
mod spare_copies;
mod standing;
mod test_pool;
mod verdict;
mod verify;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use greenwave_scheduler::TaskSender;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::context::RunContext;
use crate::error::{Error, FeatureError};
use crate::green_record::GreenRecord;
use crate::guards::GuardSet;
use crate::phase::PhaseEvent;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::state::{ActiveFeature, StageResult, Wait};
use crate::tree::{self, Change, Conflict, Tree};
use crate::user_edits;
use crate::workspace::Workspace;
use line::{Candidate, MergeLine, Turn};
use spare_copies::SpareCopies;
pub(crate) use standing::Standing;
use standing::Standings;
use test_pool::Helpers;
use verdict::MergeVerdict;
pub(crate) use write::{BatchRecord, finish_batch};

/// Maximum number of times that a merge starts again because the user changes its files.
const JOIN_TRIES_MAX: usize = 20;

/// Name of the working copy in which merges are tested first. Those of further workers have a
/// number behind it.
pub(crate) const MERGE_COPY: &str = ".merge";

/// A queue of merges, with the current state of the project.
#[derive(Debug)]
pub(crate) struct MergeQueue {
    ctx: Arc<RunContext>,
    /// The project at the start of the run.
    start: Tree,
    /// Changes of each green feature. Empty for features that an earlier run made green, whose
    /// changes are part of `start`.
    changes: Mutex<BTreeMap<FeatureId, Vec<Change>>>,
    trunk: AsyncMutex<Trunk>,
    line: Mutex<MergeLine>,
    /// Working copies of the workers that help to test merges.
    spare: Arc<SpareCopies>,
    /// Adds tasks for them to the run, once it has begun.
    tasks: OnceLock<TaskSender<(), FeatureError>>,
}

/// The project as the run has made it.
#[derive(Debug)]
struct Trunk {
    /// Files of the project, as far as the run has seen them: with the user's edits of files that
    /// merges have touched.
    tree: Tree,
    /// Files that the run alone has made: those at its start, plus the changes of its merges.
    merged: Tree,
    /// Features that are part of the tree.
    green: BTreeSet<FeatureId>,
    /// Workspace in which merges are tested. The first merge creates it.
    workspace: Option<Workspace>,
    guards: GuardSet,
}

/// Counts of the test results that a merge needed.
#[derive(Debug, Clone, Copy, Default)]
struct Verified {
    retested: usize,
    cached: usize,
}

impl MergeQueue {
    /// Creates a queue for a project whose files are `start`, which include those of the `green`
    /// features. Merges are tested in `workspace`, if it exists already.
    pub(crate) fn new(
        ctx: Arc<RunContext>,
        start: Tree,
        green: BTreeSet<FeatureId>,
        workspace: Option<Workspace>,
    ) -> Self {
        let changes = green.iter().map(|&id| (id, Vec::new())).collect();
        let has_green = !green.is_empty();
        let slots = ctx.settings.parallel.features as usize;
        let mut standings = Standings::new(&ctx.dependencies, ctx.plan.features.len(), slots);
        for id in ctx.ids().filter(|id| green.contains(id) || !ctx.selected.contains(id)) {
            standings.set(id, Standing::Green);
        }
        let trunk = Trunk {
            tree: start.clone(),
            merged: start.clone(),
            green,
            workspace,
            guards: GuardSet::default(),
        };
        Self {
            ctx,
            start,
            changes: Mutex::new(changes),
            trunk: AsyncMutex::new(trunk),
            line: Mutex::new(MergeLine::new(standings, has_green)),
            spare: Arc::default(),
            tasks: OnceLock::new(),
        }
    }

    /// Lets merges use the workers that no feature needs.
    pub(crate) fn add_tasks_to(&self, tasks: TaskSender<(), FeatureError>) {
        // Only the start of the run sets it.
        let _ = self.tasks.set(tasks);
    }

    fn helpers(&self) -> Helpers {
        Helpers { copies: Arc::clone(&self.spare), tasks: self.tasks.get().cloned() }
    }

    /// Returns the current files of the project. Waits for the merge in progress.
    pub(crate) async fn tree(&self) -> Tree {
        self.trunk.lock().await.tree.clone()
    }

    /// Returns the files that a feature starts from: the project at the start of the run plus the
    /// changes of the features that it depends on.
    ///
    /// Changes of other features are left out even if they are merged already, so that the agent's
    /// prompt and the keys of the test results do not depend on timing.
    pub(crate) async fn base_of(&self, id: FeatureId) -> Result<Tree, Error> {
        let mut base = self.start.clone();
        for ancestor in self.ctx.dependencies.ancestors(id) {
            let changes = self.changes.lock().get(&ancestor).cloned().unwrap_or_default();
            match tree::join(&base, &changes, &self.ctx.store).await? {
                Ok(changes) => tree::apply(&mut base, &changes),
                // The merges joined them in another order.
                Err(_) => return Ok(self.tree().await),
            }
        }
        Ok(base)
    }

    /// Adds a feature whose files are in the project since an earlier run.
    pub(crate) async fn add_resumed(&self, id: FeatureId) {
        self.changes.lock().insert(id, Vec::new());
        self.trunk.lock().await.green.insert(id);
    }

    /// Records a feature whose code the user has adopted as it is in the project.
    ///
    /// # Errors
    /// Those of the journal.
    pub(crate) async fn adopt(&self, id: FeatureId) -> Result<(), Error> {
        self.ctx.steps.pass("record an adopted feature").await;
        let definition = self.ctx.definition(id).to_owned();
        let record = GreenRecord {
            definition,
            attempts: 0,
            merged: Vec::new(),
            written: true,
            commit: None,
            branch: None,
            tests: self.ctx.written_tests(id).cloned(),
        };
        self.ctx.journal.record(&self.ctx.green_key(id), &record.encode())?;
        self.add_resumed(id).await;
        Ok(())
    }

    /// Records the state of a feature, so that merges wait for it or not.
    pub(crate) fn set_standing(&self, id: FeatureId, standing: Standing) {
        self.line.lock().set(id, standing);
    }

    /// Returns whether no feature works, waits for its agent or its merge, or can start. Features
    /// that wait for the user do not count.
    pub(crate) fn is_idle(&self) -> bool {
        self.line.lock().is_idle()
    }

    /// Lets no feature wait for others any more.
    pub(crate) fn stop_waiting(&self) {
        self.line.lock().close();
    }

    /// Returns whether a batch has merged a feature that was stopped before it could say so.
    pub(crate) fn take_merged(&self, id: FeatureId) -> bool {
        self.line.lock().take_merged(id)
    }

    /// Waits until a batch is due, or until a batch of another feature has merged this one.
    ///
    /// # Errors
    /// Those of [`merge`](Self::merge).
    pub(crate) async fn wait_in_line(
        &self,
        id: FeatureId,
        active: &mut ActiveFeature,
        report: &mut FeatureReport,
    ) -> Result<StageResult, FeatureError> {
        let own = tree::changes(&active.base, active.workspace.tree());
        let mut candidate = Candidate::new(id, active.phase.attempt(), own);
        (candidate.red, candidate.cost) = (active.red.clone(), report.usage.cost);
        if self.ctx.is_crowded() {
            // Other features need the slot, and the disk.
            active.kept.clear();
            active.workspace.suspend().await;
        }
        self.line.lock().arrive(candidate.clone());
        loop {
            let turn = self.line.lock().turn(id);
            match turn {
                Turn::Leads => return Ok(StageResult::Completed(PhaseEvent::Elected)),
                Turn::Decided(decided) => {
                    return self.conclude((id, active), report, &candidate.own, *decided).await;
                }
                Turn::Waits(until) => candidate.ready(until).await,
            }
        }
    }

    /// Merges a feature into the project, together with all others that wait for their merge.
    ///
    /// Edits that the user made meanwhile become part of the result. If one overlaps with the
    /// feature's changes, the feature is blocked.
    ///
    /// # Errors
    /// Fails if something cannot be read or written. Then no file of the feature is in the project.
    /// A conflict with another feature or a failing test refuses the attempt instead.
    pub(crate) async fn merge(
        &self,
        id: FeatureId,
        active: &mut ActiveFeature,
        report: &mut FeatureReport,
    ) -> Result<StageResult, FeatureError> {
        let _batch = RunningBatch { queue: self, started: Instant::now() };
        let own = tree::changes(&active.base, active.workspace.tree());
        let mut trunk = self.trunk.lock().await;
        loop {
            let turn = self.line.lock().turn(id);
            if let Turn::Decided(decided) = turn {
                drop(trunk);
                return self.conclude((id, active), report, &own, *decided).await;
            }
            if !self.line.lock().has(id) {
                return Err(FeatureError::Internal("a feature is merged outside of the line".to_owned()));
            }
            self.merge_batch(&mut trunk).await?;
        }
    }

    /// Carries out the verdict on a feature.
    async fn conclude(
        &self,
        (id, active): (FeatureId, &mut ActiveFeature),
        report: &mut FeatureReport,
        own: &[Change],
        (verdict, counts): (MergeVerdict, FeatureReport),
    ) -> Result<StageResult, FeatureError> {
        report.tests_run += counts.tests_run;
        report.tests_cached += counts.tests_cached;
        match verdict {
            MergeVerdict::Merged => Ok(StageResult::Completed(PhaseEvent::Passed)),
            MergeVerdict::Blocked(wait) => {
                active.waits_for = Some(wait);
                Ok(StageResult::Completed(PhaseEvent::Overlapped))
            }
            MergeVerdict::Conflict { trunk, conflict } => {
                active.workspace.wake()?;
                self.refuse_conflict((id, active), &trunk, own, &conflict).await
            }
            MergeVerdict::Refused { trunk, candidate, refusal } => {
                active.workspace.wake()?;
                // The next attempt starts from the project, with these files on top.
                active.base = trunk;
                active.workspace.reset(&candidate, &self.ctx.store).await?;
                Ok(refusal)
            }
            MergeVerdict::Failed(error) => Err(error),
        }
    }

    /// Returns the edit of the user that a feature waits for, if its changes conflict with that
    /// edit and not with the changes of another feature.
    async fn user_conflict(
        &self,
        trunk: &Trunk,
        edited: &Tree,
        own: &[Change],
        conflict: &Conflict,
    ) -> Result<Option<Wait>, Error> {
        let is_edited = trunk.merged.get(&conflict.path) != edited.get(&conflict.path);
        if !is_edited || tree::join(&trunk.merged, own, &self.ctx.store).await?.is_err() {
            return Ok(None);
        }
        let change = own.iter().find(|change| change.path == conflict.path);
        change.map(|change| user_edits::wait_for(&self.ctx, change)).transpose()
    }

    /// Waits until the user changes the file that a feature waits for.
    ///
    /// # Errors
    /// Fails once every other feature has ended or waits too. The answer is stored by then, and the
    /// next run merges it.
    pub(crate) async fn wait_for_user(
        &self,
        active: &mut ActiveFeature,
    ) -> Result<StageResult, FeatureError> {
        let Some(Wait::User { path, now, is_new }) = active.waits_for.take() else {
            return Ok(StageResult::Completed(PhaseEvent::Released));
        };
        user_edits::wait(&self.ctx, path, now, is_new).await?;
        Ok(StageResult::Completed(PhaseEvent::Released))
    }

    /// Removes the workspaces of the queue.
    pub(crate) async fn close(&self) {
        self.spare.remove().await;
        if let Some(workspace) = self.trunk.lock().await.workspace.take() {
            workspace.tear_down().await;
            workspace.remove();
        }
    }

    /// Refuses an attempt whose changes conflict with the project.
    ///
    /// The next prompt shows both sides. The next attempt starts from the project, with the
    /// feature's files that nobody else has changed on top.
    async fn refuse_conflict(
        &self,
        (id, active): (FeatureId, &mut ActiveFeature),
        trunk: &Tree,
        own: &[Change],
        conflict: &Conflict,
    ) -> Result<StageResult, FeatureError> {
        if self.ctx.written_tests(id).is_some_and(|written| written.has(&conflict.path)) {
            let problem = format!("was written for this feature, and by others: `{}`", conflict.path);
            let hint = "forget the feature, so that its tests are written again (`greenwave forget`)";
            let (test, hint) = (conflict.path.clone(), Some(hint.to_owned()));
            return Err(FeatureError::CouldNotRun { role: "test", test, problem, hint });
        }
        let undisputed = undisputed(trunk, own);
        let mut next = trunk.clone();
        tree::apply(&mut next, &undisputed);
        active.workspace.reset(&next, &self.ctx.store).await?;
        active.base.clone_from(trunk);
        let by_other = self.start.get(&conflict.path) != trunk.get(&conflict.path);
        let author = if by_other { "by another feature" } else { "in the project" };
        let reason = format!("`{}` was changed {author} in the same place", conflict.path);
        let marked = conflict.marked.as_deref().unwrap_or("Its changes cannot be shown as text.");
        let feedback =
            format!("{reason}. Answer with the file as it should be after both changes.\n\n{marked}");
        Ok(StageResult::Refused { reason, feedback })
    }
}

/// Creates a working copy for tests of merges.
fn new_workspace(ctx: &RunContext, name: &str) -> Result<Workspace, Error> {
    let workspace = Workspace::in_copies(&ctx.copies, name, &ctx.project.in_flight)?;
    workspace.add_hashes(&*ctx.tests);
    Ok(workspace)
}

/// Returns the changes of files that nobody else has changed, and that the others leave room for.
fn undisputed(trunk: &Tree, own: &[Change]) -> Vec<Change> {
    let is_own = |change: &&Change| trunk.get(&change.path) == change.before.as_ref();
    let own: Vec<Change> = own.iter().filter(is_own).cloned().collect();
    let removed = tree::removed_by(&own);
    let has_room =
        |change: &&Change| change.after.is_none() || !tree::clashes_without(trunk, &removed, &change.path);
    own.iter().filter(has_room).cloned().collect()
}

/// A batch that is being merged. Lets the next batch begin at its end, even if it panics.
struct RunningBatch<'a> {
    queue: &'a MergeQueue,
    started: Instant,
}

impl Drop for RunningBatch<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.queue.ctx.metrics.merge.observe(took);
        self.queue.line.lock().batch_ended(took);
    }
}
