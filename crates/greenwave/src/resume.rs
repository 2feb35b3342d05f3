//! Finds features that earlier runs made green, and finishes merges that were interrupted.

use std::collections::BTreeMap;

use crate::attempt_record::AttemptRecord;
use crate::branch::ResultBranch;
use crate::context::RunContext;
use crate::error::Error;
use crate::event::Event;
use crate::file_state::file_at;
use crate::green_record::{self, GreenRecord};
use crate::merge::finish_batch;
use crate::phase::Phase;
use crate::plan::{Feature, FeatureId};
use crate::report::FeatureReport;
use crate::state::FeatureState;
use crate::test_results::report_cached;
use crate::tree::{Change, File};
use crate::unfinished::finish_changes;

/// State and report with which a feature starts.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) state: FeatureState,
    pub(crate) report: FeatureReport,
    /// The attempt of an earlier run at which the feature continues.
    pub(crate) attempt: Option<AttemptRecord>,
}

impl Default for Resumed {
    fn default() -> Self {
        let state = FeatureState::Waiting { record: None };
        Self { state, report: FeatureReport::default(), attempt: None }
    }
}

/// Determines the state in which each feature starts, in the order of the plan.
///
/// A feature is up to date if its merge is in the project, its tests have cached passes for the
/// files as they are, and all its dependencies are up to date. A feature with a record that is not
/// up to date starts with its tests instead of its agent.
///
/// # Errors
/// Fails if the journal or the project cannot be read or written.
pub(crate) async fn resume(ctx: &RunContext) -> Result<Vec<Resumed>, Error> {
    rename_records(ctx)?;
    let finished_now = finish_batch(ctx).await?;
    let records = ctx.journal.finished()?;
    let mut features: BTreeMap<FeatureId, Resumed> = ctx.ids().map(|id| (id, Resumed::default())).collect();
    let is_up_to_date = |feature: &Resumed| matches!(feature.state, FeatureState::Ended(Phase::Green(_)));
    for &id in ctx.dependencies.in_order() {
        let name = &ctx.feature(id).id;
        let attempt = records.get(&AttemptRecord::key(name)).and_then(|bytes| AttemptRecord::decode(bytes));
        if let Some(feature) = features.get_mut(&id) {
            feature.attempt = attempt.filter(|attempt| attempt.definition == ctx.definition(id));
        }
        let Some(record) = records.get(name).and_then(|bytes| GreenRecord::decode(bytes)) else { continue };
        let is_merged = match &ctx.branch {
            // An adopted feature has no commit.
            Some(branch) => {
                record.merged.is_empty()
                    || finish_commit(ctx, branch, &record).await
                    || is_in_files(ctx, &record)
            }
            None => record.commit.is_none() && finish_merge(ctx, name, &record).await?,
        };
        if !is_merged {
            ctx.steps.pass("forget an interrupted merge").await;
            ctx.journal.forget(name)?;
            continue;
        }
        // The record stays in the journal: the user may revert the change of the tests.
        if record.definition != ctx.definition(id) {
            continue;
        }
        let was_written = record.written && !finished_now.contains(name);
        let mut report = FeatureReport::default();
        // Results on a branch are not in the project's files, where cached results are looked up.
        let is_in_files = ctx.branch.is_none();
        let depends_on = ctx.dependencies.direct(id);
        let dependencies_are_up_to_date = depends_on.iter().all(|other| is_up_to_date(&features[other]));
        let state =
            if is_in_files && dependencies_are_up_to_date && tests_are_cached(ctx, id, &mut report).await {
                report.attempts = record.attempts;
                report.up_to_date = true;
                FeatureState::Ended(Phase::Green(record.attempts))
            } else {
                FeatureState::Waiting { record: Some(record) }
            };
        // The attempts that led to a green feature do not continue if its tests fail later. They do
        // if the user's edits broke a merge that was interrupted.
        let attempt = features.remove(&id).and_then(|feature| feature.attempt).filter(|_| !was_written);
        features.insert(id, Resumed { state, report, attempt });
    }
    let features: Vec<Resumed> = features.into_values().collect();
    for (id, _) in ctx.ids().zip(&features).filter(|(_, feature)| is_up_to_date(feature)) {
        ctx.emit(Event::UpToDate { feature: ctx.feature(id).id.clone() }).await;
    }
    Ok(features)
}

/// Moves the records of features that have a new id. A record under the new id has precedence.
fn rename_records(ctx: &RunContext) -> Result<(), Error> {
    let renamed: Vec<(FeatureId, &str)> =
        ctx.ids().filter_map(|id| Some((id, ctx.feature(id).was.as_deref()?))).collect();
    if renamed.is_empty() {
        return Ok(());
    }
    let records = ctx.journal.finished()?;
    for (id, was) in renamed {
        let feature = ctx.feature(id);
        let before = green_record::definition(&Feature { id: was.to_owned(), ..feature.clone() });
        let green = records.get(was).and_then(|bytes| GreenRecord::decode(bytes));
        let attempt = records.get(&AttemptRecord::key(was)).and_then(|bytes| AttemptRecord::decode(bytes));
        let is_new = |key: &str| !records.contains_key(key);
        if let Some(record) = green.filter(|record| record.definition == before && is_new(&feature.id)) {
            let record = GreenRecord { definition: ctx.definition(id).to_owned(), ..record };
            ctx.journal.record(&feature.id, &record.encode())?;
            ctx.journal.forget(was)?;
        }
        let key = AttemptRecord::key(&feature.id);
        if let Some(record) = attempt.filter(|record| record.definition == before && is_new(&key)) {
            let record = AttemptRecord { definition: ctx.definition(id).to_owned(), ..record };
            ctx.journal.record(&key, &record.encode())?;
            ctx.journal.forget(&AttemptRecord::key(was))?;
        }
    }
    Ok(())
}

/// Returns whether the commit of a feature is on the branch of the results, or in the history of
/// the user's `HEAD`. Moves the branch if the run was interrupted just before.
async fn finish_commit(ctx: &RunContext, branch: &ResultBranch, record: &GreenRecord) -> bool {
    let Some(commit) = record.commit.clone() else { return false };
    let (branch, written) = (branch.clone(), record.written);
    let is_there = ctx.blocking(move || {
        branch.contains(&commit)
            || (!written && branch.advance(&commit, &commit).is_ok() && branch.contains(&commit))
    });
    is_there.await
}

/// Returns whether the files of a result are in the project without its commit, as after a squash:
/// all of them exist, and at least one is as it was merged. The feature's tests decide.
fn is_in_files(ctx: &RunContext, record: &GreenRecord) -> bool {
    let now = |change: &Change| file_at(&ctx.project.dir, &change.path).ok().flatten();
    let changes = record.merged.iter().map(|change| (change.after, now(change)));
    let changes: Vec<(Option<File>, Option<File>)> = changes.collect();
    let is_there = changes.iter().all(|(after, now)| after.is_some() == now.is_some());
    record.written && is_there && changes.iter().any(|(after, now)| after.is_some() && after == now)
}

/// Finishes the merge of one feature, see [`finish_changes`].
async fn finish_merge(ctx: &RunContext, feature: &str, record: &GreenRecord) -> Result<bool, Error> {
    if record.written {
        return Ok(true);
    }
    if !finish_changes(ctx, feature, &record.merged).await? {
        return Ok(false);
    }
    ctx.journal.record(feature, &GreenRecord { written: true, ..record.clone() }.encode())?;
    Ok(true)
}

/// Returns whether all tests of a feature have cached passes for the project's files.
async fn tests_are_cached(ctx: &RunContext, id: FeatureId, report: &mut FeatureReport) -> bool {
    for test in &ctx.feature(id).tests {
        match ctx.tests.cached(ctx.project.dir.path(), test).await {
            Ok(Some(outcome)) if outcome.passed() => report_cached(ctx, id, report, test, &outcome).await,
            // An error is reported when the test runs.
            _ => return false,
        }
    }
    true
}
