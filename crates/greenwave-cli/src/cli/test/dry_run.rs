//! `greenwave test --dry-run`: lists which results are cached and which tests would run.

use greenwave_testing::{Suite, TestId};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::text::{duration, plural, printable};

pub(super) async fn dry_run(suite: &Suite, selected: &[TestId]) -> Result<Exit, CliError> {
    let cached = suite.cached_results().await?;
    let mut lines = Vec::new();
    for test in selected {
        let name = printable(&suite.tests()[test.index()].name);
        lines.push(match &cached[test.index()] {
            Ok(Some(outcome)) => format!("  cached   {name}  (took {})", duration(outcome.duration)),
            Ok(None) => format!("  to run   {name}"),
            Err(error) => format!("  broken   {name}  {}", printable(&greenwave::chain(error))),
        });
    }
    let count = selected.iter().filter(|test| matches!(cached[test.index()], Ok(Some(_)))).count();
    let tests = plural(selected.len(), "test");
    lines.push(format!("{tests}: {count} cached, {} to run", selected.len() - count));
    output::answer(&lines.join("\n"))?;
    Ok(Exit::SUCCESS)
}
