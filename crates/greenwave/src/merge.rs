//! Merges green features into the project, one at a time.
//!
//! A merge joins the feature's changes with the changes of other features, tests the result, and
//! writes it so that a kill at any moment leaves nothing half done.

mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use greenwave_testing::Outcome;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::context::RunContext;
use crate::error::{Error, FeatureError};
use crate::event::Event;
use crate::file_state;
use crate::green_record::GreenRecord;
use crate::guards::GuardSet;
use crate::phase::PhaseEvent;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::state::{ActiveFeature, StageResult, Wait};
use crate::tree::{self, Change, Conflict, Tree};
use crate::user_edits;
use crate::workspace::{self, Workspace};
use verify::Merge;

/// Maximum number of times that a merge starts again because the user changes its files.
const JOIN_TRIES_MAX: usize = 20;

/// Name of the working copy in which merges are tested.
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

impl Verified {
    fn add(&mut self, outcome: &Outcome) {
        if outcome.is_cached() {
            self.cached += 1;
        } else {
            self.retested += 1;
        }
    }
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
        let trunk = Trunk {
            tree: start.clone(),
            merged: start.clone(),
            green,
            workspace,
            guards: GuardSet::default(),
        };
        Self { ctx, start, changes: Mutex::new(changes), trunk: AsyncMutex::new(trunk) }
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
        let record = GreenRecord { definition, attempts: 0, merged: Vec::new(), written: true, commit: None };
        self.ctx.journal.record(&self.ctx.feature(id).id, &record.encode())?;
        self.add_resumed(id).await;
        Ok(())
    }

    /// Merges a feature into the project. Waits for the merge in progress.
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
        let store = &self.ctx.store;
        let own = tree::changes(&active.base, active.workspace.tree());
        let mut trunk = self.trunk.lock().await;
        for _ in 0..JOIN_TRIES_MAX {
            self.ctx.steps.pass("join").await;
            let edited = user_edits::take_in(&self.ctx, &trunk.tree, &own).await?;
            let joined = match tree::join(&edited, &own, store).await? {
                Ok(joined) => joined,
                Err(conflict) => {
                    return match self.user_conflict(&trunk, &edited, &own, &conflict).await? {
                        Some(wait) => Ok(block(active, wait)),
                        None => self.refuse_conflict(active, &edited, &own, &conflict).await,
                    };
                }
            };
            trunk.tree = edited;
            let mut candidate = trunk.tree.clone();
            tree::apply(&mut candidate, &joined);
            let verified =
                match self.verify_candidate(Merge { id, report, candidate: &candidate }, &mut trunk).await? {
                    Ok(verified) => verified,
                    Err(refused) => {
                        // The next attempt starts from the project, with these files on top.
                        active.base.clone_from(&trunk.tree);
                        active.workspace.reset(&candidate, store).await?;
                        return Ok(refused);
                    }
                };
            if self.ctx.branch.is_some() {
                self.write_commit(id, report.attempts, &joined, verified).await?;
            } else if !self.write(id, report.attempts, &joined, verified).await? {
                // The user changed a file of the merge meanwhile.
                continue;
            }
            self.ctx.steps.pass("become green").await;
            // The run's own changes, without the user's edits.
            match tree::join(&trunk.merged, &own, store).await? {
                Ok(merged) => tree::apply(&mut trunk.merged, &merged),
                Err(_) => trunk.merged.clone_from(&candidate),
            }
            trunk.tree = candidate;
            trunk.green.insert(id);
            self.changes.lock().insert(id, own);
            return Ok(StageResult::Completed(PhaseEvent::Passed));
        }
        // Without changes nothing can be changed meanwhile.
        let change = own.first().ok_or_else(|| FeatureError::Internal("a merge has no files".to_owned()))?;
        Ok(block(active, user_edits::wait_for(&self.ctx, change)?))
    }

    /// Returns what a feature waits for if its changes conflict with an edit of the user, and not
    /// with the changes of another feature.
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

    /// Removes the workspace of the queue.
    pub(crate) async fn close(&self) {
        if let Some(workspace) = self.trunk.lock().await.workspace.take() {
            workspace.tear_down().await;
            workspace.remove();
        }
    }

    fn new_workspace(&self) -> Result<Workspace, Error> {
        Workspace::in_copies(&self.ctx.copies, MERGE_COPY, &self.ctx.project.in_flight)
    }

    /// Writes the changes into the project. Records them first, so that the next run finishes a
    /// merge that was interrupted. Returns `false`, with no file written, if the user has changed
    /// one of the files meanwhile.
    async fn write(
        &self,
        id: FeatureId,
        attempts: u32,
        joined: &[Change],
        verified: Verified,
    ) -> Result<bool, FeatureError> {
        let ctx = &self.ctx;
        for change in joined {
            if file_state::file_at(&ctx.project.dir, &change.path)? != change.before {
                return Ok(false);
            }
        }
        ctx.steps.pass("flush before a merge").await;
        ctx.flusher.flush().await?;
        ctx.steps.pass("record a merge").await;
        let feature = &ctx.feature(id).id;
        let record = GreenRecord {
            definition: ctx.definition(id).to_owned(),
            attempts,
            merged: joined.to_vec(),
            written: false,
            commit: None,
        };
        ctx.journal.record(feature, &record.encode())?;
        ctx.steps.pass("write a merge").await;
        let written = workspace::apply_or_revert(&ctx.project, joined, &ctx.store).await;
        ctx.steps.pass("record a merge as written").await;
        if let Err(error) = written {
            ctx.journal.forget(feature)?;
            return match error {
                Error::ConcurrentEdit { .. } => Ok(false),
                error => Err(error.into()),
            };
        }
        let record = GreenRecord { written: true, ..record };
        ctx.journal.record(feature, &record.encode())?;
        ctx.receipts.write(ctx.definition(id), joined);
        ctx.steps.pass("publish a merge").await;
        let Verified { retested, cached } = verified;
        ctx.emit(Event::Merged { feature: feature.clone(), files: joined.len(), retested, cached }).await;
        Ok(true)
    }

    /// Commits the changes to the branch of the results. Records them first, so that the next run
    /// finishes a merge that was interrupted.
    async fn write_commit(
        &self,
        id: FeatureId,
        attempts: u32,
        joined: &[Change],
        verified: Verified,
    ) -> Result<(), FeatureError> {
        let ctx = &self.ctx;
        let Some(branch) = &ctx.branch else { return Ok(()) };
        ctx.flusher.flush().await?;
        let feature = ctx.feature(id);
        let title = if feature.title.is_empty() { &feature.id } else { &feature.title };
        let message = format!("{title}\n\nFeature: {}", feature.id);
        let commit = branch.commit(joined, &message, &ctx.store).await?;
        let record = GreenRecord {
            definition: ctx.definition(id).to_owned(),
            attempts,
            merged: joined.to_vec(),
            written: false,
            commit: Some(commit.clone()),
        };
        ctx.steps.pass("record a merge").await;
        ctx.journal.record(&feature.id, &record.encode())?;
        ctx.steps.pass("write a merge").await;
        if let Err(error) = branch.advance(&commit) {
            ctx.journal.forget(&feature.id)?;
            return Err(error.into());
        }
        let record = GreenRecord { written: true, ..record };
        ctx.journal.record(&feature.id, &record.encode())?;
        let Verified { retested, cached } = verified;
        let files = joined.len();
        ctx.emit(Event::Merged { feature: feature.id.clone(), files, retested, cached }).await;
        Ok(())
    }

    /// Refuses an attempt whose changes conflict with the project.
    ///
    /// The next prompt shows both sides. The next attempt starts from the project, with the
    /// feature's files that nobody else has changed on top.
    async fn refuse_conflict(
        &self,
        active: &mut ActiveFeature,
        trunk: &Tree,
        own: &[Change],
        conflict: &Conflict,
    ) -> Result<StageResult, FeatureError> {
        let is_undisputed = |change: &&Change| {
            trunk.get(&change.path) == change.before.as_ref() && !tree::clashes(trunk, &change.path)
        };
        let undisputed: Vec<Change> = own.iter().filter(is_undisputed).cloned().collect();
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

/// Blocks a feature until the user changes a file.
fn block(active: &mut ActiveFeature, wait: Wait) -> StageResult {
    active.waits_for = Some(wait);
    StageResult::Completed(PhaseEvent::Overlapped)
}
