//! Selects the tests of one of several machines.

use std::path::Path;
use std::time::Duration;

use greenwave_testing::{Shard, Suite, TestId, Timings};

use crate::error::CliError;
use crate::output;
use crate::text::{duration, plural};

/// Returns the tests of a shard, and prints a note with their expected duration.
///
/// # Errors
/// [`CliError::ReadTimings`] or [`CliError::Timings`] if the file of durations cannot be used.
pub(super) fn select(
    suite: &Suite,
    selected: &[TestId],
    shard: Shard,
    timings: Option<&Path>,
) -> Result<Vec<TestId>, CliError> {
    let timings = timings.map(read).transpose()?.unwrap_or_default();
    let expected = |id: &TestId| {
        let name = suite.tests()[id.index()].name.as_str();
        (name, timings.get(name))
    };
    let tests: Vec<(&str, Option<Duration>)> = selected.iter().map(expected).collect();
    let own: Vec<TestId> = shard.select(&tests).into_iter().map(|at| selected[at]).collect();
    let time: Duration = own.iter().filter_map(|id| expected(id).1).sum();
    let time = if timings.is_empty() {
        "shards have equally many tests without `--timings`".to_owned()
    } else {
        format!("expected to take {}", duration(time))
    };
    output::note(&format!("shard {shard}: {} of {}, {time}", own.len(), plural(selected.len(), "test")));
    Ok(own)
}

fn read(path: &Path) -> Result<Timings, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CliError::ReadTimings { path: path.to_owned(), source })?;
    Timings::parse(&text).map_err(|source| CliError::Timings { path: path.to_owned(), source })
}
