//! Brings a green feature into the project: joined with what others have made, tested with it, written so
//! that a kill at any moment leaves nothing half done. One at a time.

use std::collections::BTreeSet;

use crate::engine::{FeatureState, Shared};
use crate::error::{Error, Failure};
use crate::event::Event;
use crate::feature::Happening;
use crate::record::Record;
use crate::stage::{Ended, no_workspace};
use crate::tree::{self, Change, Conflict, Tree};
use crate::workspace::{self, Workspace};

/// The project as the run has made it.
#[derive(Debug, Default)]
pub(crate) struct Trunk {
    /// Its files.
    pub(crate) tree: Tree,
    /// Features that are in it.
    pub(crate) greens: BTreeSet<usize>,
    /// A folder in which merges are tried before they reach the project.
    pub(crate) workspace: Option<Workspace>,
}

impl Shared {
    pub(crate) async fn merge(&self, feature: usize, state: &mut FeatureState) -> Result<Ended, Failure> {
        let own_tree = state.workspace.as_ref().ok_or_else(no_workspace)?.tree();
        let own = tree::changes(&state.base, own_tree);
        let mut trunk = self.trunk.lock().await;
        self.steps.pass("join").await;
        let joined = match tree::join(&trunk.tree, &own, &self.store).await? {
            Ok(joined) => joined,
            Err(conflict) => return self.start_over(state, &trunk.tree, &own, &conflict).await,
        };
        let mut candidate = trunk.tree.clone();
        tree::apply(&mut candidate, &joined);
        if let Some(refused) = self.try_out(feature, state, &mut trunk, &candidate).await? {
            // The next attempt begins with what is in the project, the feature's own files on top.
            state.base.clone_from(&trunk.tree);
            let workspace = state.workspace.as_mut().ok_or_else(no_workspace)?;
            workspace.become_tree(&candidate, &self.store).await?;
            return Ok(refused);
        }
        self.publish(feature, state, &joined).await?;
        self.steps.pass("become green").await;
        trunk.tree = candidate;
        trunk.greens.insert(feature);
        self.green.lock().insert(feature, own);
        Ok(Ended::Well(Happening::Passed))
    }

    /// Runs the tests of this feature and of every green one on the candidate. Results for those that read
    /// nothing of what has changed are known.
    async fn try_out(
        &self,
        feature: usize,
        state: &mut FeatureState,
        trunk: &mut Trunk,
        candidate: &Tree,
    ) -> Result<Option<Ended>, Failure> {
        let workspace = trunk.workspace.as_mut().ok_or_else(no_workspace)?;
        workspace.become_tree(candidate, &self.store).await?;
        let (root, mut retested, mut cached) = (workspace.root().to_owned(), 0, 0);
        for other in std::iter::once(feature).chain(trunk.greens.iter().copied()) {
            for test in &self.plan.features[other].tests {
                let outcome = self.run_test(feature, state, test, &root, "merging").await?;
                *(if outcome.is_cached() { &mut cached } else { &mut retested }) += 1;
                if outcome.passed() {
                    continue;
                }
                let whose = &self.plan.features[other].id;
                let reason =
                    format!("joined with the project, test `{}` of `{whose}` {}", test.name, outcome.status);
                let feedback = format!("{reason}\n\n{}", String::from_utf8_lossy(&outcome.output));
                return Ok(Some(Ended::Refused { reason, feedback }));
            }
        }
        state.merged = (retested, cached);
        Ok(None)
    }

    /// Writes the changes into the project. First what is about to be written is recorded, so that a run that
    /// is killed half-way is finished by the next.
    async fn publish(&self, feature: usize, state: &FeatureState, joined: &[Change]) -> Result<(), Failure> {
        for change in joined {
            let now = workspace::state_of(&self.plan.project, &change.path)?;
            if now != change.before {
                return Err(changed_outside(change));
            }
        }
        self.steps.pass("flush before a merge").await;
        self.flusher.flush().await?;
        self.steps.pass("record a merge").await;
        let id = &self.plan.features[feature].id;
        let record = Record {
            spec: self.specs[feature].clone(),
            attempts: state.report.attempts,
            merged: joined.to_vec(),
            written: false,
        };
        self.journal.record(id, &record.encode()).map_err(Error::from)?;
        self.steps.pass("write a merge").await;
        let written = workspace::perform_all(&self.project, joined, &self.store).await;
        self.steps.pass("record a merge as written").await;
        if let Err(error) = written {
            self.journal.forget(id).map_err(Error::from)?;
            let changed = match &error {
                Error::ChangedMeanwhile { path } => joined.iter().find(|change| change.path == *path),
                _ => None,
            };
            return Err(changed.map_or_else(|| error.into(), changed_outside));
        }
        self.journal.record(id, &Record { written: true, ..record }.encode()).map_err(Error::from)?;
        self.steps.pass("publish a merge").await;
        let (retested, cached) = state.merged;
        self.emit(Event::Merged { feature: id.clone(), files: joined.len(), retested, cached }).await;
        Ok(())
    }

    /// A file has been changed by others in a way that cannot be joined: the agent is shown both, and begins
    /// with the project as it is now and those of its files that nobody else has touched.
    async fn start_over(
        &self,
        state: &mut FeatureState,
        trunk: &Tree,
        own: &[Change],
        conflict: &Conflict,
    ) -> Result<Ended, Failure> {
        let untouched = |change: &&Change| {
            trunk.get(&change.path) == change.before.as_ref() && !tree::clashes(trunk, &change.path)
        };
        let kept: Vec<Change> = own.iter().filter(untouched).cloned().collect();
        let mut next = trunk.clone();
        tree::apply(&mut next, &kept);
        let workspace = state.workspace.as_mut().ok_or_else(no_workspace)?;
        workspace.become_tree(&next, &self.store).await?;
        state.base.clone_from(trunk);
        let reason = format!("`{}` was changed by another feature in the same place", conflict.path);
        let marked = conflict.marked.as_deref().unwrap_or("Its changes cannot be shown as text.");
        let feedback =
            format!("{reason}. Answer with the file as it should be after both changes.\n\n{marked}");
        Ok(Ended::Refused { reason, feedback })
    }
}

/// Why a merge fails of which a file is not what the run believes it to be.
fn changed_outside(change: &Change) -> Failure {
    let path = change.path.clone();
    match change.before {
        None => Failure::AlreadyThere { path },
        Some(_) => Failure::ChangedOutside { path },
    }
}
