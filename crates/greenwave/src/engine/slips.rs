//! Finds and undoes what agents and tests have changed in the project itself.

use std::sync::Arc;

use crate::agent_placeholders::Placeholders;
use crate::agent_settings::AgentSettings;
use crate::context::RunContext;
use crate::error::Error;
use crate::event::Event;
use crate::file_state;
use crate::project_state::{self, ProjectState, Slips};
use crate::surroundings::Surroundings;
use crate::tree::{Change, Tree};
use crate::workspace;

/// The project, and the directories of the plan and of scripts, before agents and tests can change
/// them.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) states: (ProjectState, Surroundings),
    /// Contents of the project's files.
    pub(super) tree: Tree,
}

/// Reads the state of the project and of other directories that agents or tests can change.
pub(super) async fn states(ctx: &RunContext) -> Option<(ProjectState, Surroundings)> {
    let (exposure, root, others) = (ctx.exposure?, ctx.project.dir.clone(), ctx.exposed.directories.clone());
    let read = move || (ProjectState::read(&root, exposure), Surroundings::read(&others));
    tokio::task::spawn_blocking(read).await.ok()
}

/// Finds and undoes what agents and tests have changed in the project itself and beside the plan
/// and scripts, and reports it.
pub(super) async fn undo_slips(ctx: &RunContext, before: &Arc<Before>) -> Result<(), Error> {
    let before = Arc::clone(before);
    let (written, root) = (ctx.project.written.lock().clone(), ctx.project.dir.clone());
    let compared = tokio::task::spawn_blocking(move || {
        let (project, others) = &before.states;
        ((project.compare(&root, &written, &before.tree), others.compare()), before)
    });
    let ((mut slips, others), before) =
        compared.await.expect("comparing files does not panic and is not cancelled");
    let tree = &before.tree;
    for path in std::mem::take(&mut slips.emptied) {
        let (before, after) = (file_state::file_at(&ctx.project.dir, &path)?, tree.get(&path).copied());
        workspace::apply(&ctx.project, &[Change { path: path.clone(), before, after }], &ctx.store).await?;
        slips.metadata.push(format!("`{path}` (emptied)"));
    }
    report(ctx, "in the project", &slips).await;
    report(ctx, "beside the plan or a script", &others).await;
    Ok(())
}

async fn report(ctx: &RunContext, place: &str, slips: &Slips) {
    let notes = [
        ("project-restored", "restored what agents or tests changed", "", &slips.metadata),
        ("project-damaged", "cannot restore what agents or tests changed", "", &slips.not_undone),
        ("project-changed", "files", " changed, but not by this run", &slips.content),
        ("project-modes", "modes", " changed, but not by this run", &slips.modes),
    ];
    for (code, what, how, paths) in notes.into_iter().filter(|(_, _, _, paths)| !paths.is_empty()) {
        let message = format!("{what} {place}{how}: {}", project_state::list(paths));
        let hint = "see docs/confinement.md for what prevents such changes".to_owned();
        ctx.emit(Event::Note { code, feature: None, message, hint: Some(hint) }).await;
    }
}

/// Reads the settings of agents that count in their sessions outside of the run. If agents will
/// run, creates those that mounts protect and that do not exist.
pub(super) async fn settings(ctx: &RunContext, has_agents: bool) -> (Placeholders, Arc<AgentSettings>) {
    let (paths, absent) = (ctx.exposed.agent_settings.clone(), ctx.exposed.absent_settings.clone());
    let read = tokio::task::spawn_blocking(move || {
        let placeholders = if has_agents { Placeholders::create(&absent) } else { Placeholders::default() };
        (placeholders, Arc::new(AgentSettings::read(&paths)))
    });
    read.await.expect("reading files does not panic and is not cancelled")
}

/// Reports settings of agents that have changed.
pub(super) async fn report_settings(ctx: &RunContext, before: &Arc<AgentSettings>) {
    let before = Arc::clone(before);
    let compared = tokio::task::spawn_blocking(move || before.changed());
    let changed = compared.await.expect("reading files does not panic and is not cancelled");
    if changed.is_empty() {
        return;
    }
    let paths: Vec<String> = changed.iter().map(|path| format!("`{}`", path.display())).collect();
    let message = format!("settings of agents changed during the run: {}", project_state::list(&paths));
    let hint = "look at them before you start the agent yourself: what they name is not confined";
    let (code, hint) = ("agent-settings", Some(hint.to_owned()));
    ctx.emit(Event::Note { code, feature: None, message, hint }).await;
}
