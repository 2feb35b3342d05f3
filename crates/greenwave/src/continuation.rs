//! Continues the attempts of an earlier run, and records them for the next one.

use crate::attempt_record::{AttemptRecord, RefusedAnswer};
use crate::candidate_record::CandidateRecord;
use crate::context::RunContext;
use crate::disk_full;
use crate::error::{Error, chain};
use crate::new_candidate::new_candidate;
use crate::plan::FeatureId;
use crate::state::{ActiveFeature, Candidate, Failure};
use crate::tree::{self, Change, Tree};

/// Prepares a feature, whose workspace holds its base, for the attempt that a record describes.
///
/// Returns whether the workspace holds an untested answer to the attempt.
///
/// # Errors
/// Those of the store and the workspace.
pub(crate) async fn restore(
    ctx: &RunContext,
    id: FeatureId,
    active: &mut ActiveFeature,
    record: &AttemptRecord,
) -> Result<bool, Error> {
    // The changes of an attempt with several answers are those of the last one.
    let answered = record.answered && record.candidates.is_empty();
    active.first_attempt = record.first_attempt;
    active.feedback.clone_from(&record.feedback);
    active.failing.clone_from(&record.failing);
    active.is_reviewed = answered && record.is_reviewed;
    if let Some(refused) = &record.refused {
        active.refused = restore_refused(ctx, &active.base, refused).await;
    }
    let mut base = active.base.clone();
    let mut files = base.clone();
    for change in &record.changes {
        if let Err(error) = restore_file(ctx, &mut base, &mut files, change, answered).await {
            tracing::warn!(%error, path = change.path, "cannot restore the files of an attempt");
            return Ok(false);
        }
    }
    active.reset_to(files, &ctx.store).await?;
    active.base = base;
    restore_candidates(ctx, id, active, &record.candidates).await?;
    let agents = ctx.candidates(id, active.fallbacks).len();
    let has_all = active.candidates.len() == agents && active.candidates.iter().any(Candidate::is_answered);
    Ok(answered || record.answered && has_all)
}

/// Restores the complete answers to an attempt that asks for several.
async fn restore_candidates(
    ctx: &RunContext,
    id: FeatureId,
    active: &mut ActiveFeature,
    records: &[CandidateRecord],
) -> Result<(), Error> {
    let agents = ctx.candidates(id, active.fallbacks);
    for record in records.iter().filter(|record| record.is_of(&agents)) {
        let changes = match record.answer() {
            Ok(changes) => changes,
            Err(reason) => {
                active.candidates.push(Candidate::unusable(record, reason));
                continue;
            }
        };
        let Some((base, files)) = restore_answer(ctx, &active.base, changes).await else { continue };
        let mut candidate = new_candidate(ctx, id, active, record.number, record.agent.clone())?;
        if let Some(restored) = candidate.active() {
            restored.reset_to(files, &ctx.store).await?;
            restored.base = base;
        }
        active.candidates.push(candidate.answered());
    }
    Ok(())
}

/// Returns the base and the files of an answer. Returns `None` if they cannot be restored.
async fn restore_answer(ctx: &RunContext, base: &Tree, changes: &[Change]) -> Option<(Tree, Tree)> {
    let (mut base, mut files) = (base.clone(), base.clone());
    for change in changes {
        if let Err(error) = restore_file(ctx, &mut base, &mut files, change, true).await {
            tracing::warn!(%error, path = change.path, "cannot restore the files of a candidate");
            return None;
        }
    }
    Some((base, files))
}

/// Returns the files of a refused answer, and its failure, for comparison with later answers.
/// Returns `None` if the files cannot be restored.
async fn restore_refused(ctx: &RunContext, base: &Tree, refused: &RefusedAnswer) -> Option<(Tree, Failure)> {
    let (mut base, mut files) = (base.clone(), base.clone());
    for change in &refused.changes {
        restore_file(ctx, &mut base, &mut files, change, false).await.ok()?;
    }
    Some((files, refused.failure.clone()))
}

/// Applies one change of an earlier run to the files of a feature.
///
/// A change that overlaps with one in the project is dropped while the attempt is not answered:
/// the agent starts from the project. The file of an answer stays as it is. Its base becomes the
/// state that the answer was made for, so that its merge joins or refuses it.
async fn restore_file(
    ctx: &RunContext,
    base: &mut Tree,
    files: &mut Tree,
    change: &Change,
    answered: bool,
) -> Result<(), Error> {
    if let Some(file) = change.after {
        tree::content(&ctx.store, &file.blob).await?;
    }
    match tree::join(files, std::slice::from_ref(change), &ctx.store).await? {
        Ok(joined) => tree::apply(files, &joined),
        Err(_) if answered && !tree::clashes(files, &change.path) => {
            let before = Change { before: None, after: change.before, path: change.path.clone() };
            tree::apply(base, &[before]);
            tree::apply(files, std::slice::from_ref(change));
        }
        Err(_) => {}
    }
    Ok(())
}

/// Records the attempt at which the next run continues. Stores the files of the feature first.
///
/// # Errors
/// Those of the store and the journal.
pub(crate) async fn record(
    ctx: &RunContext,
    id: FeatureId,
    active: &ActiveFeature,
    record: AttemptRecord,
) -> Result<(), Error> {
    let record = AttemptRecord {
        first_attempt: active.first_attempt,
        feedback: active.feedback.clone(),
        failing: active.failing.clone(),
        changes: tree::changes(&active.base, active.workspace.tree()),
        is_reviewed: active.is_reviewed,
        candidates: active.candidates.iter().filter_map(Candidate::record).collect(),
        refused: active.refused.as_ref().map(|(files, failure)| RefusedAnswer {
            changes: tree::changes(&active.base, files),
            failure: failure.clone(),
        }),
        ..record
    };
    let written = write(ctx, id, record.clone()).await;
    if let Err(error) = &written
        && disk_full::is_full(error)
    {
        ctx.unsaved.lock().push((id, record));
    }
    written
}

/// Writes the records that found the disk full. The workspaces are removed by then, which may have
/// made room.
pub(crate) async fn write_unsaved(ctx: &RunContext) {
    let unsaved = std::mem::take(&mut *ctx.unsaved.lock());
    for (id, record) in unsaved {
        if let Err(error) = write(ctx, id, record).await {
            let (feature, error) = (&ctx.feature(id).id, chain(&error));
            tracing::warn!(feature, error, "the disk is full: an answer is lost");
        }
    }
}

async fn write(ctx: &RunContext, id: FeatureId, record: AttemptRecord) -> Result<(), Error> {
    let record = AttemptRecord { tests: ctx.written_tests(id).cloned(), ..record };
    if !record.changes.is_empty() || record.candidates.iter().any(CandidateRecord::has_changes) {
        ctx.steps.pass("flush before an attempt is recorded").await;
        ctx.flusher.flush().await?;
    }
    ctx.steps.pass("record where to continue").await;
    ctx.journal.record(&ctx.attempt_key(id), &record.encode())?;
    ctx.steps.pass("continue").await;
    Ok(())
}
