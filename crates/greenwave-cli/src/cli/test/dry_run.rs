//! `greenwave test --dry-run`: lists which results are cached and which tests would run.

use greenwave_testing::{Inspection, Suite, TestId};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::text::{duration, plural, printable};

pub(super) async fn dry_run(suite: &Suite, selected: &[TestId]) -> Result<Exit, CliError> {
    let inspected = suite.inspect().await?;
    let (mut lines, mut cached, mut unknown) = (Vec::new(), 0, 0);
    for test in selected {
        let name = printable(&suite.tests()[test.index()].name);
        lines.push(match &inspected[test.index()] {
            Ok(Inspection::Cached(outcome)) => {
                cached += 1;
                format!("  cached   {name}  (took {})", duration(outcome.duration))
            }
            Ok(Inspection::DependsOnBuild(outcome)) => {
                unknown += 1;
                format!("  to build {name}  (took {})", duration(outcome.duration))
            }
            Ok(Inspection::Missing) => format!("  to run   {name}"),
            Err(error) => format!("  broken   {name}  {}", printable(&greenwave::chain(error))),
        });
    }
    let tests = plural(selected.len(), "test");
    let to_run = selected.len() - cached - unknown;
    let to_build =
        if unknown > 0 { format!(", {unknown} cached if a build changes nothing") } else { String::new() };
    lines.push(format!("{tests}: {cached} cached, {to_run} to run{to_build}"));
    output::answer(&lines.join("\n"))?;
    Ok(Exit::SUCCESS)
}
