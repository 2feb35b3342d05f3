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
use crate::excerpt::visible_line;
use crate::file_state;
use crate::green_record::{self, GreenRecord};
use crate::plan::{Feature, FeatureId};
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
    /// Key in the journal of a batch whose results go into the project, and start of the keys of
    /// others. Ids of features have no slash.
    const KEY: &str = "merge/batch";

    /// Returns the key of a batch whose results go to a branch, or into the project.
    fn key(branch: Option<&ResultBranch>) -> String {
        match branch {
            Some(branch) => format!("{}/{}", Self::KEY, branch.name),
            None => Self::KEY.to_owned(),
        }
    }

    /// Reads the record of a batch that was interrupted, if there is one.
    fn read(journal: &RunJournal, key: &str) -> Result<Option<Self>, Error> {
        let records = journal.finished()?;
        Ok(records.get(key).and_then(|bytes| Self::decode(bytes)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists always serialise")
    }

    /// Decodes a record. Returns `None` if it is unreadable or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.version == VERSION)
    }

    fn write(&self, ctx: &RunContext) -> Result<(), Error> {
        ctx.journal.record(&Self::key(ctx.branch.as_ref()), &self.encode())
    }

    /// Removes a feature from the records of interrupted batches, if there are any.
    ///
    /// # Errors
    /// Those of the journal.
    pub(crate) fn forget(journal: &RunJournal, feature: &str) -> Result<bool, Error> {
        let mut is_removed = false;
        let records = journal.finished()?;
        for (key, bytes) in records.iter().filter(|(key, _)| key.starts_with(Self::KEY)) {
            let Some(mut record) = Self::decode(bytes) else { continue };
            if record.features.remove(feature).is_some() {
                is_removed = true;
                journal.record(key, &record.encode())?;
            }
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
                let key = self.ctx.green_key(feature.id);
                let forget = || self.ctx.journal.forget(&key);
                self.write_recorded(changes, || self.record(&key, &record), forget).await?
            }
            (None, features) => {
                let record = self.batch_of(features, tree::changes(before, &joined.files), None);
                let forget = || self.ctx.journal.forget(&BatchRecord::key(None));
                self.write_recorded(&record.changes, || record.write(&self.ctx), forget).await?
            }
        };
        if !written {
            return Ok(false);
        }
        for (feature, changes) in &joined.features {
            if self.ctx.branch.is_none() {
                let record = GreenRecord { written: true, ..self.record_of(feature, changes) };
                self.record(&self.ctx.green_key(feature.id), &record)?;
                let tests = self.ctx.written_tests(feature.id);
                self.ctx.receipts.write(self.ctx.definition(feature.id), changes, tests);
            }
        }
        if joined.features.len() > 1 {
            self.ctx.journal.forget(&BatchRecord::key(self.ctx.branch.as_ref()))?;
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
            let (commit, branch) = (Some(commit), Some(branch.name.clone()));
            let record = GreenRecord { commit, branch, ..self.record_of(candidate, changes) };
            records.push((candidate.id, record));
        }
        let commit_of =
            |record: Option<&(FeatureId, GreenRecord)>| record.and_then(|(_, it)| it.commit.clone());
        let (Some(first), Some(last)) = (commit_of(records.first()), commit_of(records.last())) else {
            return Ok(true);
        };
        ctx.steps.pass("record a merge").await;
        let batch = self.batch_of(features, Vec::new(), Some((first.clone(), last.clone())));
        match &records[..] {
            [(id, record)] => self.record(&self.ctx.green_key(*id), record)?,
            _ => {
                let with_commit = |(id, record): &(FeatureId, GreenRecord)| {
                    (ctx.feature(*id).id.clone(), GreenRecord { written: true, ..record.clone() })
                };
                BatchRecord { features: records.iter().map(with_commit).collect(), ..batch }.write(ctx)?;
            }
        }
        ctx.steps.pass("write a merge").await;
        let tip = branch.clone();
        if let Err(error) = ctx.blocking(move || tip.advance(&first, &last)).await {
            let key = match &records[..] {
                [(id, _)] => ctx.green_key(*id),
                _ => BatchRecord::key(Some(branch)),
            };
            ctx.journal.forget(&key)?;
            return Err(error.into());
        }
        for (id, record) in records {
            self.record(&ctx.green_key(id), &GreenRecord { written: true, ..record })?;
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
            branch: None,
            tests: self.ctx.written_tests(feature.id).cloned(),
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
        let features = features.iter().map(record).collect();
        BatchRecord { version: VERSION, features, changes, commits }
    }

    fn record(&self, key: &str, record: &GreenRecord) -> Result<(), Error> {
        self.ctx.journal.record(key, &record.encode())
    }
}

/// Returns the message of a feature's commit, with the evidence for it.
fn message(feature: &Feature, candidate: &Candidate) -> String {
    let title = if feature.title.is_empty() { &feature.id } else { &feature.title };
    // Another line could forge evidence.
    let mut message = format!("{}\n\nFeature: {}", visible_line(title), feature.id);
    if !candidate.red.is_empty() {
        message.push_str(&format!("\nRed: {}", visible_line(&candidate.red)));
    }
    message.push_str(&format!("\nAttempts: {}", candidate.attempts));
    if let Some(cost) = candidate.cost {
        message.push_str(&format!("\nCost: {}", format_dollars(cost)));
    }
    message
}

/// Finishes batches that were interrupted, or reverts them: one of this plan, and one of any plan
/// whose results go into the project. Returns the keys of the features that are green by it.
///
/// # Errors
/// Fails if the journal or the project cannot be read or written.
pub(crate) async fn finish_batch(ctx: &RunContext) -> Result<BTreeSet<String>, Error> {
    let keys = [None, ctx.branch.as_ref()].map(BatchRecord::key);
    let mut green = BTreeSet::new();
    for key in BTreeSet::from(keys) {
        green.extend(finish_batch_of(ctx, &key).await?);
    }
    Ok(green)
}

async fn finish_batch_of(ctx: &RunContext, key: &str) -> Result<BTreeSet<String>, Error> {
    let Some(record) = BatchRecord::read(&ctx.journal, key)? else { return Ok(BTreeSet::new()) };
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
            let key = green_record::key(feature, &record.definition);
            ctx.journal.record(&key, &record.encode())?;
            green.insert(key);
        }
    }
    ctx.steps.pass("forget an interrupted batch").await;
    ctx.journal.forget(key)?;
    Ok(green)
}
