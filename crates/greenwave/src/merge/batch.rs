//! Merges a batch of features: joins their changes, tests the result once, and writes all or none.
//!
//! A batch that fails is split into halves, which are merged one after the other. So each feature
//! ends as if the batch had been merged one by one in the order of arrival, unless its tests pass
//! only together with those of the batch.

use super::joined::Joined;
use super::line::Candidate;
use super::verdict::MergeVerdict;
use super::verify::Merge;
use super::{JOIN_TRIES_MAX, MergeQueue, Trunk};
use crate::error::{Error, FeatureError};
use crate::tree;
use crate::user_edits;

/// Result of a try to merge a group.
enum GroupResult {
    /// Every feature of the group has its verdict, or is left in the line.
    Decided,
    /// The user has changed a file meanwhile.
    Interrupted(Vec<Candidate>),
    /// One of the features is to blame.
    Fails(Vec<Candidate>),
}

impl MergeQueue {
    /// Merges all features in the line. At least the first of them gets a verdict.
    pub(super) async fn merge_batch(&self, trunk: &mut Trunk) -> Result<(), FeatureError> {
        let mut groups = vec![self.line.lock().next_batch()];
        while let Some(mut group) = groups.pop() {
            if let Some(mut first) = self.merge_group(trunk, std::mem::take(&mut group)).await? {
                let second = first.split_off(first.len().div_ceil(2));
                groups.extend([second, first]);
            }
        }
        Ok(())
    }

    /// Merges a group. Returns the group if it must be split.
    async fn merge_group(
        &self,
        trunk: &mut Trunk,
        mut group: Vec<Candidate>,
    ) -> Result<Option<Vec<Candidate>>, FeatureError> {
        for _ in 0..JOIN_TRIES_MAX {
            match self.try_group(trunk, group).await? {
                GroupResult::Decided => return Ok(None),
                GroupResult::Fails(features) => return Ok(Some(features)),
                GroupResult::Interrupted(features) => group = features,
            }
        }
        if group.len() > 1 {
            return Ok(Some(group));
        }
        for candidate in group {
            // Without changes nothing can be changed meanwhile.
            let change = candidate.own.first();
            let change = change.ok_or_else(|| FeatureError::Internal("a merge has no files".to_owned()))?;
            self.decide(candidate.clone(), MergeVerdict::Blocked(user_edits::wait_for(&self.ctx, change)?));
        }
        Ok(None)
    }

    async fn try_group(&self, trunk: &mut Trunk, group: Vec<Candidate>) -> Result<GroupResult, FeatureError> {
        self.ctx.steps.pass("join").await;
        let Some(mut joined) = self.join_group(trunk, group).await? else { return Ok(GroupResult::Decided) };
        let is_alone = joined.features.len() == 1;
        let verified = match self.verify_candidate(Merge { joined: &mut joined }, trunk).await {
            Ok(Ok(verified)) => verified,
            Ok(Err(_)) | Err(_) if !is_alone => return Ok(GroupResult::Fails(joined.into_candidates())),
            Ok(Err(refusal)) => {
                let Joined { mut features, files: candidate } = joined;
                if let Some((feature, _)) = features.pop() {
                    let trunk = trunk.tree.clone();
                    self.decide(feature, MergeVerdict::Refused { trunk, candidate, refusal });
                }
                return Ok(GroupResult::Decided);
            }
            Err(error) => return Ok(self.fail_alone(joined, error)),
        };
        match self.write_joined(&joined, &trunk.tree, &verified).await {
            Ok(true) => {}
            // The user changed a file of the merge meanwhile.
            Ok(false) => return Ok(GroupResult::Interrupted(joined.into_candidates())),
            Err(_) if !is_alone => return Ok(GroupResult::Fails(joined.into_candidates())),
            Err(error) => return Ok(self.fail_alone(joined, error)),
        }
        self.ctx.steps.pass("become green").await;
        self.conclude_merged(trunk, joined).await?;
        Ok(GroupResult::Decided)
    }

    fn fail_alone(&self, joined: Joined, error: FeatureError) -> GroupResult {
        if let Some((feature, _)) = joined.features.into_iter().next() {
            self.decide(feature, MergeVerdict::Failed(error));
        }
        GroupResult::Decided
    }

    /// Joins the changes of a group with the user's edits and with each other. Returns `None` if no
    /// feature is left.
    ///
    /// A feature that conflicts with the project has its verdict. One that conflicts with a feature
    /// before it stays in the line: that feature may be refused.
    async fn join_group(&self, trunk: &mut Trunk, group: Vec<Candidate>) -> Result<Option<Joined>, Error> {
        let store = &self.ctx.store;
        let mut joined = Joined { features: Vec::new(), files: trunk.tree.clone() };
        for candidate in group {
            let edited = user_edits::take_in(&self.ctx, &trunk.tree, &candidate.own).await?;
            if let Err(conflict) = tree::join(&edited, &candidate.own, store).await? {
                let wait = self.user_conflict(trunk, &edited, &candidate.own, &conflict).await?;
                let verdict = match wait {
                    Some(wait) => MergeVerdict::Blocked(wait),
                    // A conflict with another feature comes first. The next merge takes the user's
                    // edits in again, so that the agent does not overwrite them in the meantime.
                    None => match tree::join(&trunk.tree, &candidate.own, store).await? {
                        Err(conflict) => MergeVerdict::Conflict { trunk: trunk.tree.clone(), conflict },
                        Ok(_) => MergeVerdict::Conflict { trunk: edited, conflict },
                    },
                };
                self.decide(candidate, verdict);
                continue;
            }
            let edits = tree::changes(&trunk.tree, &edited);
            let Ok(taken) = tree::join(&joined.files, &edits, store).await? else { continue };
            // Without edits, the files are changed in place.
            let without = (!taken.is_empty()).then(|| joined.files.clone());
            tree::apply(&mut joined.files, &taken);
            let Ok(changes) = tree::join(&joined.files, &candidate.own, store).await? else {
                joined.files = without.unwrap_or(joined.files);
                continue;
            };
            trunk.tree = edited;
            tree::apply(&mut joined.files, &changes);
            joined.features.push((candidate, changes));
        }
        Ok((!joined.features.is_empty()).then_some(joined))
    }

    /// Makes written features a part of the trunk.
    async fn conclude_merged(&self, trunk: &mut Trunk, joined: Joined) -> Result<(), Error> {
        let Joined { features, files } = joined;
        for (candidate, _) in &features {
            // The run's own changes, without the user's edits.
            match tree::join(&trunk.merged, &candidate.own, &self.ctx.store).await? {
                Ok(merged) => tree::apply(&mut trunk.merged, &merged),
                Err(_) => trunk.merged.clone_from(&files),
            }
        }
        trunk.tree = files;
        for (candidate, _) in features {
            trunk.green.insert(candidate.id);
            self.changes.lock().insert(candidate.id, candidate.own.to_vec());
            self.decide(candidate, MergeVerdict::Merged);
        }
        Ok(())
    }

    fn decide(&self, candidate: Candidate, verdict: MergeVerdict) {
        self.line.lock().decide(candidate.id, verdict, candidate.report);
    }
}
