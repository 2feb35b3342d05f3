//! Finds features that earlier runs made green, and finishes merges that were interrupted.

use std::collections::{BTreeMap, BTreeSet};

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
    finish_merges_of_others(ctx).await?;
    let records = ctx.journal.finished()?;
    let mut features: BTreeMap<FeatureId, Resumed> = ctx.ids().map(|id| (id, Resumed::default())).collect();
    let is_up_to_date = |feature: &Resumed| matches!(feature.state, FeatureState::Ended(Phase::Green(_)));
    for &id in ctx.dependencies.in_order() {
        let (name, key) = (&ctx.feature(id).id, ctx.green_key(id));
        let attempt = records.get(&ctx.attempt_key(id)).and_then(|bytes| AttemptRecord::decode(bytes));
        let attempt = attempt.filter(|attempt| attempt.definition == ctx.definition(id));
        let green = records.get(&key).and_then(|bytes| GreenRecord::decode(bytes));
        take_written_tests(ctx, id, (attempt.as_ref(), green.as_ref()));
        if let Some(feature) = features.get_mut(&id) {
            feature.attempt = attempt;
        }
        let Some(record) = green else { continue };
        let is_merged = match &ctx.branch {
            // An adopted feature has no commit.
            Some(branch) => {
                record.merged.is_empty()
                    || finish_commit(ctx, branch, &record).await
                    || is_in_files(ctx, &record)
            }
            // The results of a plan with this feature are on a branch.
            None if record.commit.is_some() => continue,
            None => finish_merge(ctx, name, &record).await?,
        };
        if !is_merged {
            ctx.steps.pass("forget an interrupted merge").await;
            ctx.journal.forget(&key)?;
            continue;
        }
        if record.definition != ctx.definition(id) {
            continue;
        }
        let was_written = record.written && !finished_now.contains(&key);
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

/// Takes the tests that an agent has written for a feature in an earlier run, or in another copy of
/// the project.
fn take_written_tests(
    ctx: &RunContext,
    id: FeatureId,
    (attempt, green): (Option<&AttemptRecord>, Option<&GreenRecord>),
) {
    let (definition, project) = (ctx.definition(id), ctx.project.dir.path());
    let green = green.filter(|record| record.definition == definition);
    let recorded = green.and_then(|record| record.tests.clone());
    let recorded = recorded.or_else(|| attempt.and_then(|record| record.tests.clone()));
    let is_new = || ctx.lacks_tests(id) && attempt.is_none();
    if let Some(tests) = recorded.or_else(|| ctx.receipts.tests(definition, project).filter(|_| is_new())) {
        ctx.take_written_tests(id, tests);
    }
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
        let (old, new) = (green_record::key(was, &before), ctx.green_key(id));
        let green = records.get(&old).and_then(|bytes| GreenRecord::decode(bytes));
        let is_new = |key: &str| !records.contains_key(key);
        if let Some(record) = green.filter(|record| record.definition == before && is_new(&new)) {
            let record = GreenRecord { definition: ctx.definition(id).to_owned(), ..record };
            ctx.journal.record(&new, &record.encode())?;
            ctx.journal.forget(&old)?;
        }
        let (old, new) = (AttemptRecord::key(was, &before), ctx.attempt_key(id));
        let attempt = records.get(&old).and_then(|bytes| AttemptRecord::decode(bytes));
        if let Some(record) = attempt.filter(|record| record.definition == before && is_new(&new)) {
            let record = AttemptRecord { definition: ctx.definition(id).to_owned(), ..record };
            ctx.journal.record(&new, &record.encode())?;
            ctx.journal.forget(&old)?;
        }
    }
    Ok(())
}

/// Finishes or reverts merges into the project that were interrupted, of features that this plan
/// does not have: those of other plans, and those whose tests were changed since.
async fn finish_merges_of_others(ctx: &RunContext) -> Result<(), Error> {
    let own: BTreeSet<String> = ctx.ids().map(|id| ctx.green_key(id)).collect();
    for (key, bytes) in ctx.journal.finished()? {
        let (Some(feature), Some(record)) = (green_record::feature_of(&key), GreenRecord::decode(&bytes))
        else {
            continue;
        };
        let is_open = !record.written && record.commit.is_none() && !own.contains(&key);
        if is_open && !finish_merge(ctx, feature, &record).await? {
            ctx.journal.forget(&key)?;
        }
    }
    Ok(())
}

/// Returns whether the commit of a feature is on the branch of the results, or in the history of
/// the user's `HEAD`. Moves the branch if the run was interrupted just before.
async fn finish_commit(ctx: &RunContext, branch: &ResultBranch, record: &GreenRecord) -> bool {
    let Some(commit) = record.commit.clone() else { return false };
    let (branch, is_open) = (branch.clone(), !record.written && record.branch.as_ref() == Some(&branch.name));
    let is_there = ctx.blocking(move || {
        branch.contains(&commit)
            || (is_open && branch.advance(&commit, &commit).is_ok() && branch.contains(&commit))
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
    let key = green_record::key(feature, &record.definition);
    ctx.journal.record(&key, &GreenRecord { written: true, ..record.clone() }.encode())?;
    Ok(true)
}

/// Returns whether all tests of a feature have cached passes for the project's files.
async fn tests_are_cached(ctx: &RunContext, id: FeatureId, report: &mut FeatureReport) -> bool {
    for test in ctx.tests_of(id) {
        match ctx.tests.cached(ctx.project.dir.path(), test).await {
            Ok(Some(outcome)) if outcome.passed() => report_cached(ctx, id, report, test, &outcome).await,
            // An error is reported when the test runs.
            _ => return false,
        }
    }
    true
}
