//! `greenwave test --watch`: reruns affected tests when a file of the project changes.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use greenwave_testing::TestId;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, channel};

use super::args::TestArgs;
use super::run;
use super::select::select;
use super::suite::{Loaded, load};
use crate::error::CliError;
use crate::exit::Exit;
use crate::format::Format;
use crate::output;
use crate::signals::EndSignals;

/// Time to wait for further changes after the first one.
const SETTLE: Duration = Duration::from_millis(30);

/// Exit codes of a run that a signal has stopped.
const STOPPED: [u8; 3] = [129, 130, 143];

/// Cache keys of tests by name. A test is affected by a change if its key differs.
type Keys = HashMap<String, Option<[u8; 32]>>;

/// Runs affected tests until a signal ends the program.
pub(super) async fn watch(project: &Path, args: &TestArgs) -> Result<Exit, CliError> {
    let mut signals = EndSignals::listen()?;
    let (_watcher, mut changes) = changes_of(project)?;
    let mut keys = Keys::new();
    loop {
        let started = Instant::now();
        let shown = match load(project, args).await {
            Ok(loaded) => match run_affected(&loaded, &mut keys, args, started).await? {
                Some(exit) if STOPPED.contains(&exit.code()) => return Ok(exit),
                exit => exit.is_some(),
            },
            Err(CliError::Stopped { code }) => return Ok(Exit::from(code)),
            Err(error) => {
                output::report(&error);
                true
            }
        };
        if shown && args.format == Format::Human {
            output::line("Waiting for changes (Ctrl-C to stop)");
        }
        tokio::select! {
            _ = changes.recv() => {}
            code = signals.next() => return Ok(Exit::from(code)),
        }
        tokio::time::sleep(SETTLE).await;
        while changes.try_recv().is_ok() {}
    }
}

/// Watches a project. The channel holds at most one message, which covers all changes since the
/// last one was received.
fn changes_of(project: &Path) -> Result<(RecommendedWatcher, Receiver<()>), CliError> {
    let failed = |source| CliError::Watch { path: project.to_owned(), source };
    let (sender, changes) = channel(1);
    let on_event = move |event: notify::Result<notify::Event>| {
        // Reading a file does not change it.
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = sender.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).map_err(failed)?;
    watcher.watch(project, RecursiveMode::Recursive).map_err(failed)?;
    Ok((watcher, changes))
}

/// Runs the tests whose keys have changed. Returns `None` without such tests.
async fn run_affected(
    loaded: &Loaded,
    seen: &mut Keys,
    args: &TestArgs,
    started: Instant,
) -> Result<Option<Exit>, CliError> {
    let suite = &loaded.suite;
    let keys = suite.keys().await?;
    let is_affected =
        |test: &TestId| seen.get(&suite.tests()[test.index()].name) != Some(&keys[test.index()]);
    let affected: Vec<TestId> = match select(suite.tests(), &args.filters) {
        Ok(selected) => selected.into_iter().filter(is_affected).collect(),
        Err(error) => {
            output::report(&error);
            Vec::new()
        }
    };
    let exit = if affected.is_empty() { None } else { Some(run(loaded, &affected, args, started).await?.0) };
    // The keys after the run: files that the tests have written themselves do not rerun them.
    let keys = suite.keys().await?;
    *seen = suite.tests().iter().map(|test| test.name.clone()).zip(keys).collect();
    Ok(exit)
}
