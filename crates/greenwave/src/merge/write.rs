//! Writes the changes of a batch, and finishes batches that were interrupted.
//!
//! A batch was tested as a whole, so a part of it alone may not work. It is recorded in the journal
//! before its first file is written, and the next run writes the rest or reverts all of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::joined::Joined;
use super::line::Candidate;
use super::{MergeQueue, Verified};
use crate::branch::ResultBranch;
use crate::context::RunContext;
use crate::error::{Error, FeatureError};
use crate::event::Event;
use crate::file_state;
use crate::green_record::GreenRecord;
use crate::plan::Feature;
use crate::run_journal::RunJournal;
use crate::spending::format_dollars;
use crate::tree::{self, Change};
use crate::unfinished::finish_changes;
use crate::workspace;

/// Version of the record. A record of another version does not count.
const VERSION: u32 = 1;

/// A batch that is being written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchRecord {
    version: u32,
    /// Record of each feature, as it is once the batch is written.
    features: BTreeMap<String, GreenRecord>,
    /// Changes that the whole batch makes in the project. Empty if its results go to a branch.
    changes: Vec<Change>,
    /// First and last commit, if its results go to a branch.
    commits: Option<(String, String)>,
}

impl BatchRecord {
    /// Key in the journal. Ids of features have no slash.
    const KEY: &str = "merge/batch";

    /// Reads the record of a batch that was interrupted, if there is one.
    fn read(journal: &RunJournal) -> Result<Option<Self>, Error> {
        let records = journal.finished()?;
        Ok(records.get(Self::KEY).and_then(|bytes| Self::decode(bytes)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists always serialise")
    }

    /// Decodes a record. Returns `None` if it is unreadable or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.version == VERSION)
    }

    fn write(&self, ctx: &RunContext) -> Result<(), Error> {
        ctx.journal.record(Self::KEY, &self.encode())
    }

    /// Removes a feature from the record of an interrupted batch, if there is one.
    ///
    /// # Errors
    /// Those of the journal.
    pub(crate) fn forget(journal: &RunJournal, feature: &str) -> Result<bool, Error> {
        let Some(mut record) = Self::read(journal)? else { return Ok(false) };
        let is_removed = record.features.remove(feature).is_some();
        if is_removed {
            let text = serde_json::to_vec(&record).expect("strings, numbers and lists always serialise");
            journal.record(Self::KEY, &text)?;
        }
        Ok(is_removed)
    }
}

impl MergeQueue {
    /// Writes the changes of a batch. Returns `false`, with no file written, if the user has
    /// changed one of the files meanwhile.
    pub(super) async fn write_joined(
        &self,
        joined: &Joined,
        before: &tree::Tree,
        verified: &[Verified],
    ) -> Result<bool, FeatureError> {
        let written = match (&self.ctx.branch, &joined.features[..]) {
            (Some(branch), features) => self.write_commits(branch, features).await?,
            (None, [(feature, changes)]) => {
                let record = self.record_of(feature, changes);
                let id = &self.ctx.feature(feature.id).id;
                self.write_recorded(changes, || self.record(id, &record), || self.ctx.journal.forget(id))
                    .await?
            }
            (None, features) => {
                let record = self.batch_of(features, tree::changes(before, &joined.files), None);
                let forget = || self.ctx.journal.forget(BatchRecord::KEY);
                self.write_recorded(&record.changes, || record.write(&self.ctx), forget).await?
            }
        };
        if !written {
            return Ok(false);
        }
        for (feature, changes) in &joined.features {
            if self.ctx.branch.is_none() {
                let record = GreenRecord { written: true, ..self.record_of(feature, changes) };
                self.record(&self.ctx.feature(feature.id).id, &record)?;
                self.ctx.receipts.write(self.ctx.definition(feature.id), changes);
            }
        }
        if joined.features.len() > 1 {
            self.ctx.journal.forget(BatchRecord::KEY)?;
        }
        self.ctx.steps.pass("publish a merge").await;
        for ((feature, changes), Verified { retested, cached }) in joined.features.iter().zip(verified) {
            let (retested, cached, files) = (*retested, *cached, changes.len());
            let feature = self.ctx.feature(feature.id).id.clone();
            self.ctx.emit(Event::Merged { feature, files, retested, cached }).await;
        }
        Ok(true)
    }

    /// Writes changes into the project. Records them first, so that the next run finishes a merge
    /// that was interrupted.
    async fn write_recorded(
        &self,
        changes: &[Change],
        record: impl Fn() -> Result<(), Error>,
        forget: impl Fn() -> Result<(), Error>,
    ) -> Result<bool, FeatureError> {
        let ctx = &self.ctx;
        for change in changes {
            if file_state::file_at(&ctx.project.dir, &change.path)? != change.before {
                return Ok(false);
            }
        }
        ctx.steps.pass("flush before a merge").await;
        ctx.flusher.flush().await?;
        ctx.steps.pass("record a merge").await;
        record()?;
        ctx.steps.pass("write a merge").await;
        let written = workspace::apply_or_revert(&ctx.project, changes, &ctx.store).await;
        ctx.steps.pass("record a merge as written").await;
        let Err(error) = written else { return Ok(true) };
        forget()?;
        match error {
            Error::ConcurrentEdit { .. } => Ok(false),
            error => Err(error.into()),
        }
    }

    /// Commits the changes to the branch of the results, one commit for each feature. Records them
    /// first, so that the next run finishes a merge that was interrupted.
    async fn write_commits(
        &self,
        branch: &ResultBranch,
        features: &[(Candidate, Vec<Change>)],
    ) -> Result<bool, FeatureError> {
        let ctx = &self.ctx;
        ctx.flusher.flush().await?;
        let mut records = Vec::new();
        let tip = branch.clone();
        let mut parent = ctx.blocking(move || tip.tip()).await;
        for (candidate, changes) in features {
            let feature = ctx.feature(candidate.id);
            let message = message(feature, candidate);
            let commit = branch.commit(parent, changes, message, &ctx.store).await?;
            parent = Some(commit.clone());
            let record = GreenRecord { commit: Some(commit), ..self.record_of(candidate, changes) };
            records.push((&feature.id, record));
        }
        let commit_of =
            |record: Option<&(&String, GreenRecord)>| record.and_then(|(_, it)| it.commit.clone());
        let (Some(first), Some(last)) = (commit_of(records.first()), commit_of(records.last())) else {
            return Ok(true);
        };
        ctx.steps.pass("record a merge").await;
        let batch = self.batch_of(features, Vec::new(), Some((first.clone(), last.clone())));
        match &records[..] {
            [(id, record)] => self.record(id, record)?,
            _ => {
                let with_commit = |(id, record): &(&String, GreenRecord)| {
                    ((*id).clone(), GreenRecord { written: true, ..record.clone() })
                };
                BatchRecord { features: records.iter().map(with_commit).collect(), ..batch }.write(ctx)?;
            }
        }
        ctx.steps.pass("write a merge").await;
        let tip = branch.clone();
        if let Err(error) = ctx.blocking(move || tip.advance(&first, &last)).await {
            let key = if let [(id, _)] = &records[..] { id.as_str() } else { BatchRecord::KEY };
            ctx.journal.forget(key)?;
            return Err(error.into());
        }
        for (id, record) in records {
            self.record(id, &GreenRecord { written: true, ..record })?;
        }
        Ok(true)
    }

    /// Returns the record of a feature whose changes are not written yet.
    fn record_of(&self, feature: &Candidate, changes: &[Change]) -> GreenRecord {
        GreenRecord {
            definition: self.ctx.definition(feature.id).to_owned(),
            attempts: feature.attempts,
            merged: changes.to_vec(),
            written: false,
            commit: None,
        }
    }

    fn batch_of(
        &self,
        features: &[(Candidate, Vec<Change>)],
        changes: Vec<Change>,
        commits: Option<(String, String)>,
    ) -> BatchRecord {
        let record = |(feature, changes): &(Candidate, Vec<Change>)| {
            let record = GreenRecord { written: true, ..self.record_of(feature, changes) };
            (self.ctx.feature(feature.id).id.clone(), record)
        };
        BatchRecord { version: VERSION, features: features.iter().map(record).collect(), changes, commits }
    }

    fn record(&self, id: &str, record: &GreenRecord) -> Result<(), Error> {
        self.ctx.journal.record(id, &record.encode())
    }
}

/// Returns the message of a feature's commit, with the evidence for it.
fn message(feature: &Feature, candidate: &Candidate) -> String {
    let title = if feature.title.is_empty() { &feature.id } else { &feature.title };
    let mut message = format!("{title}\n\nFeature: {}", feature.id);
    if !candidate.red.is_empty() {
        message.push_str(&format!("\nRed: {}", candidate.red.replace('\n', " ")));
    }
    message.push_str(&format!("\nAttempts: {}", candidate.attempts));
    if let Some(cost) = candidate.cost {
        message.push_str(&format!("\nCost: {}", format_dollars(cost)));
    }
    message
}

/// Finishes a batch that was interrupted, or reverts it. Returns the features that are green by it.
///
/// # Errors
/// Fails if the journal or the project cannot be read or written.
pub(crate) async fn finish_batch(ctx: &RunContext) -> Result<BTreeSet<String>, Error> {
    let Some(record) = BatchRecord::read(&ctx.journal)? else { return Ok(BTreeSet::new()) };
    let is_merged = match (&record.commits, &ctx.branch) {
        (Some((first, last)), Some(branch)) => {
            let (branch, first, last) = (branch.clone(), first.clone(), last.clone());
            let is_there = move || {
                branch.contains(&last) || (branch.advance(&first, &last).is_ok() && branch.contains(&last))
            };
            ctx.blocking(is_there).await
        }
        (Some(_), None) => false,
        (None, _) => finish_changes(ctx, "a batch", &record.changes).await?,
    };
    let mut green = BTreeSet::new();
    if is_merged {
        for (feature, record) in &record.features {
            ctx.journal.record(feature, &record.encode())?;
            green.insert(feature.clone());
        }
    }
    ctx.steps.pass("forget an interrupted batch").await;
    ctx.journal.forget(BatchRecord::KEY)?;
    Ok(green)
}
