//! Finds and undoes what agents and tests have changed in the project itself.

use std::sync::Arc;

use crate::context::RunContext;
use crate::error::Error;
use crate::event::Event;
use crate::file_state;
use crate::project_state::{self, ProjectState};
use crate::tree::{Change, Tree};
use crate::workspace;

/// Reads the state of the project, if agents or tests can change it.
pub(super) async fn project_state(ctx: &RunContext) -> Option<ProjectState> {
    let (exposure, root) = (ctx.exposure?, ctx.project.dir.clone());
    tokio::task::spawn_blocking(move || ProjectState::read(&root, exposure)).await.ok()
}

/// Finds and undoes what agents and tests have changed in the project itself, and reports it.
/// `before` is the project before the run.
pub(super) async fn undo_slips(ctx: &RunContext, before: &Arc<(ProjectState, Tree)>) -> Result<(), Error> {
    let before = Arc::clone(before);
    let (written, root) = (ctx.project.written.lock().clone(), ctx.project.dir.clone());
    let compared = tokio::task::spawn_blocking(move || {
        let slips = before.0.compare(&root, &written, &before.1);
        (slips, before)
    });
    let (mut slips, before) = compared.await.expect("comparing files does not panic and is not cancelled");
    let tree = &before.1;
    for path in std::mem::take(&mut slips.emptied) {
        let (before, after) = (file_state::file_at(&ctx.project.dir, &path)?, tree.get(&path).copied());
        workspace::apply(&ctx.project, &[Change { path: path.clone(), before, after }], &ctx.store).await?;
        slips.metadata.push(format!("`{path}` (emptied)"));
    }
    let notes = [
        ("project-restored", "restored what agents or tests changed in the project", &slips.metadata),
        ("project-damaged", "cannot restore what agents or tests changed in the project", &slips.not_undone),
        ("project-changed", "files in the project changed, but not by this run", &slips.content),
        ("project-modes", "modes in the project changed, but not by this run", &slips.modes),
    ];
    for (code, what, paths) in notes.into_iter().filter(|(_, _, paths)| !paths.is_empty()) {
        let message = format!("{what}: {}", project_state::list(paths));
        let hint = "see docs/confinement.md for what prevents such changes".to_owned();
        ctx.emit(Event::Note { code, feature: None, message, hint: Some(hint) }).await;
    }
    Ok(())
}
