//! Runs tests that bind a fixed port while no other test of the run does.

use std::collections::BTreeSet;
use std::path::Path;

use greenwave_testing::{Outcome, Test};
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::context::RunContext;
use crate::error::FeatureError;
use crate::event::Event;
use crate::plan::FeatureId;
use crate::red;

/// Tests that failed because another test held their port. They run alone from then on.
#[derive(Debug, Default)]
pub(crate) struct FixedPorts {
    /// Read-locked by tests that run beside others, write-locked by a test that runs alone.
    running: RwLock<()>,
    /// Commands of the tests that run alone.
    alone: Mutex<BTreeSet<Vec<String>>>,
}

/// Runs a test, and once more without others if its port was in use.
pub(crate) async fn run(
    ctx: &RunContext,
    id: FeatureId,
    test: &Test,
    root: &Path,
    is_repetition: bool,
) -> Result<Outcome, FeatureError> {
    let ports = &ctx.ports;
    if !ports.alone.lock().contains(&test.command) {
        let shared = ports.running.read().await;
        let outcome = start(ctx, test, root, is_repetition).await?;
        drop(shared);
        let is_conflict =
            !outcome.passed() && red::has_port_conflict(&String::from_utf8_lossy(&outcome.output));
        if !is_conflict {
            return Ok(outcome);
        }
        ports.alone.lock().insert(test.command.clone());
        let event = Event::Note {
            code: "port-in-use",
            feature: Some(ctx.feature(id).id.clone()),
            message: format!("test `{}` found its port in use; it runs alone from now on", test.name),
            hint: Some("name the port as one of `[resources]`, or let the test bind port 0".to_owned()),
        };
        ctx.emit(event).await;
    }
    let _alone = ports.running.write().await;
    start(ctx, test, root, is_repetition).await
}

async fn start(
    ctx: &RunContext,
    test: &Test,
    root: &Path,
    is_repetition: bool,
) -> Result<Outcome, FeatureError> {
    let tests = &ctx.tests;
    Ok(if is_repetition { tests.run_again(root, test).await? } else { tests.run(root, test).await? })
}
