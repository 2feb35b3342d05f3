//! Edits that the user makes in the project while a run works.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::context::RunContext;
use crate::error::{Error, FeatureError};
use crate::file_state;
use crate::state::Wait;
use crate::tree::{Change, File, Tree};

/// Time between two reads of a file that a feature waits for.
const POLL: Duration = Duration::from_millis(500);

/// Returns the files of the project with the user's present state of those that `changes` touch.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read, and [`Error::Store`].
pub(crate) async fn take_in(ctx: &RunContext, tree: &Tree, changes: &[Change]) -> Result<Tree, Error> {
    let mut edited = tree.clone();
    if ctx.branch.is_some() {
        // The result does not touch the user's files.
        return Ok(edited);
    }
    for Change { path, .. } in changes {
        if file_state::file_at(&ctx.project.dir, path)? == tree.get(path).copied() {
            continue;
        }
        // Reads the file once more, so that its content is stored exactly as it enters the tree.
        match file_state::capture_file(&ctx.project.dir, path, &ctx.store).await? {
            Some(file) => edited.insert(path.clone(), file),
            None => edited.remove(path),
        };
    }
    Ok(edited)
}

/// Returns the wait for the user's next change of the file that `change` touches.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub(crate) fn wait_for(ctx: &RunContext, change: &Change) -> Result<Wait, Error> {
    let now = file_state::file_at(&ctx.project.dir, &change.path)?;
    Ok(Wait::User { path: change.path.clone(), now, is_new: change.before.is_none() })
}

/// Waits until a file of the project differs from `now`.
///
/// # Errors
/// [`FeatureError::ModifiedByUser`] or [`FeatureError::FileExists`] once no other feature is being
/// worked on, and [`Error::Io`].
pub(crate) async fn wait(
    ctx: &RunContext,
    path: String,
    now: Option<File>,
    is_new: bool,
) -> Result<(), FeatureError> {
    // Counted twice, because a feature that ends can be followed by one that starts.
    let mut idle_polls = 0;
    while idle_polls < 2 {
        tokio::time::sleep(POLL).await;
        if file_state::file_at(&ctx.project.dir, &path)? != now {
            return Ok(());
        }
        // Relaxed: see `FeatureRun::set_working`.
        idle_polls = if ctx.working.load(Ordering::Relaxed) == 0 { idle_polls + 1 } else { 0 };
    }
    Err(if is_new { FeatureError::FileExists { path } } else { FeatureError::ModifiedByUser { path } })
}
