//! Finishes the changes of merges that were interrupted.

use crate::context::RunContext;
use crate::error::{Error, chain};
use crate::file_state;
use crate::tree::Change;
use crate::workspace;

/// Finishes a merge that was interrupted. Returns `false` if that is impossible and the files that
/// the merge had written are reverted.
///
/// A file that the user has changed since is left as it is. If all other files are written, the
/// merge counts as finished before that change, and the tests decide.
pub(crate) async fn finish_changes(ctx: &RunContext, merge: &str, changes: &[Change]) -> Result<bool, Error> {
    ctx.steps.pass("inspect an interrupted merge").await;
    let (mut missing, mut changed) = (Vec::new(), None);
    for change in changes {
        let now = file_state::file_at(&ctx.project.dir, &change.path)?;
        if now == change.before && now != change.after {
            missing.push(change.clone());
        } else if now != change.after {
            changed = Some(change.path.as_str());
        }
    }
    workspace::remove_temporary_files(&ctx.project.dir, changes);
    if let Some(path) = changed {
        tracing::warn!(merge, path, "a file was changed since its merge was interrupted");
        if !missing.is_empty() {
            workspace::revert(&ctx.project, changes, &ctx.store).await;
            return Ok(false);
        }
    }
    let written = workspace::apply(&ctx.project, &missing, &ctx.store).await;
    ctx.steps.pass("finish an interrupted merge").await;
    if let Err(error) = written {
        tracing::warn!(merge, error = chain(&error), "cannot finish an interrupted merge; reverting it");
        workspace::revert(&ctx.project, changes, &ctx.store).await;
        return Ok(false);
    }
    Ok(true)
}
