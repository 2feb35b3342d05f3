//! Merges a batch of features: joins their changes, tests the result once, and writes all or none.
//!
//! A batch that fails is split where the test that failed begins to fail, and its parts are merged
//! one after the other. So each feature ends as if the batch had been merged one by one in the
//! order of arrival, unless its tests pass only together with those of the batch.

use std::sync::Arc;

use super::bisection::{Bisection, Groups, halves};
use super::joined::Joined;
use super::line::Candidate;
use super::probes::{FailedTest, Probe, Probes};
use super::verdict::MergeVerdict;
use super::verify::{Merge, Rejection};
use super::{JOIN_TRIES_MAX, MERGE_COPY, MergeQueue, Trunk, new_workspace};
use crate::error::{Error, FeatureError};
use crate::plan::FeatureId;
use crate::tree;
use crate::user_edits;

/// Result of a try to merge a group.
enum GroupResult {
    /// Every feature of the group has its verdict, or is left in the line.
    Decided,
    /// The user has changed a file meanwhile.
    Interrupted(Vec<Candidate>),
    /// One of the features is to blame. They are merged in these parts.
    Fails(Vec<Vec<Candidate>>),
}

impl MergeQueue {
    /// Merges all features in the line. At least the first of them gets a verdict.
    pub(super) async fn merge_batch(&self, trunk: &mut Trunk) -> Result<(), FeatureError> {
        let mut groups = Groups::new(self.line.lock().next_batch());
        let mut last_failed = None;
        while let Some(group) = groups.take() {
            groups.put_back(self.merge_group(trunk, group, &mut last_failed).await?);
        }
        Ok(())
    }

    /// Merges a group. Returns its parts if it must be split. `last_failed` is the feature whose
    /// test failed last.
    async fn merge_group(
        &self,
        trunk: &mut Trunk,
        mut group: Vec<Candidate>,
        last_failed: &mut Option<FeatureId>,
    ) -> Result<Vec<Vec<Candidate>>, FeatureError> {
        for _ in 0..JOIN_TRIES_MAX {
            match self.try_group(trunk, group, last_failed).await? {
                GroupResult::Decided => return Ok(Vec::new()),
                GroupResult::Fails(parts) => return Ok(parts),
                GroupResult::Interrupted(features) => group = features,
            }
        }
        if group.len() > 1 {
            return Ok(halves(group));
        }
        for candidate in group {
            // Without changes nothing can be changed meanwhile.
            let change = candidate.own.first();
            let change = change.ok_or_else(|| FeatureError::Internal("a merge has no files".to_owned()))?;
            self.decide(candidate.clone(), MergeVerdict::Blocked(user_edits::wait_for(&self.ctx, change)?));
        }
        Ok(Vec::new())
    }

    async fn try_group(
        &self,
        trunk: &mut Trunk,
        group: Vec<Candidate>,
        last_failed: &mut Option<FeatureId>,
    ) -> Result<GroupResult, FeatureError> {
        self.ctx.steps.pass("join").await;
        let Some(mut joined) = self.join_group(trunk, group).await? else { return Ok(GroupResult::Decided) };
        let is_alone = joined.features.len() == 1;
        let merge = Merge { joined: &mut joined, first: *last_failed };
        let verified = match self.verify_candidate(merge, trunk).await {
            Ok(Ok(verified)) => verified,
            Err(_) if !is_alone => return Ok(GroupResult::Fails(halves(joined.into_candidates()))),
            Ok(Err(Rejection { by, .. })) if !is_alone => {
                *last_failed = by.as_ref().and_then(|by| by.owner);
                return Ok(GroupResult::Fails(self.split(trunk, joined, by).await));
            }
            Ok(Err(Rejection { refusal, .. })) => {
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
            Err(_) if !is_alone => return Ok(GroupResult::Fails(halves(joined.into_candidates()))),
            Err(error) => return Ok(self.fail_alone(joined, error)),
        }
        self.ctx.steps.pass("become green").await;
        self.conclude_merged(trunk, joined).await?;
        Ok(GroupResult::Decided)
    }

    /// Splits a group where its test begins to fail.
    async fn split(
        &self,
        trunk: &mut Trunk,
        mut joined: Joined,
        by: Option<FailedTest>,
    ) -> Vec<Vec<Candidate>> {
        let Some(by) = by.map(Arc::new) else { return halves(joined.into_candidates()) };
        let is_owner = |(candidate, _): &(Candidate, _)| by.owner == Some(candidate.id);
        // Without the files of its feature, the test is red.
        let own = joined.features.iter().position(is_owner).unwrap_or(0);
        let mut search = Bisection::new(own, joined.features.len());
        loop {
            let probes = search.probes(by.at_once(&self.ctx));
            if probes.is_empty() {
                break;
            }
            self.ctx.steps.pass("look for the feature to blame").await;
            let results = self.probe(trunk, &mut joined, &by, &probes).await;
            if results.is_empty() {
                break;
            }
            search.record(&results);
        }
        search.parts(joined.into_candidates())
    }

    /// Runs a test on the files of the first features of a group, for several numbers of them. The
    /// results are reported for the first feature.
    async fn probe(
        &self,
        trunk: &mut Trunk,
        joined: &mut Joined,
        by: &Arc<FailedTest>,
        probes: &[usize],
    ) -> Vec<(usize, bool)> {
        let workspace = trunk.workspace.take().map_or_else(|| new_workspace(&self.ctx, MERGE_COPY), Ok);
        let Ok(mut workspace) = workspace else { return Vec::new() };
        let with = |length: usize| {
            let mut files = trunk.tree.clone();
            joined.features[..length].iter().for_each(|(_, changes)| tree::apply(&mut files, changes));
            Probe::new(length, files)
        };
        let probes = probes.iter().map(|&length| with(length)).collect();
        let (first, _) = &mut joined.features[0];
        let probes = Probes::new(&self.ctx, self.helpers(), by, first.id, probes);
        let (results, report) = probes.run(&mut workspace).await;
        first.report.tests_run += report.tests_run;
        first.report.tests_cached += report.tests_cached;
        trunk.workspace = Some(workspace);
        results
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
