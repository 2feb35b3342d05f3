//! `greenwave test --explain`: explains why the result of a test is cached, or which changes made
//! it miss.

use greenwave_testing::{Explanation, Suite, TestId};

use super::select::select_one;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::text::{duration, plural, printable};

/// Maximum number of changes that are listed.
const CHANGES_MAX: usize = 20;

pub(super) async fn explain(suite: &Suite, name: &str) -> Result<Exit, CliError> {
    let test = select_one(suite.tests(), name)?;
    let explanation = suite.explain(test).await?;
    let name = printable(&suite.tests()[test.index()].name);
    output::answer(&lines(&name, &explanation).join("\n"))?;
    Ok(Exit::SUCCESS)
}

/// Lists the selected tests whose last result was not stored, with the reasons.
pub(super) fn why_not_cached(suite: &Suite, selected: &[TestId]) -> Result<Exit, CliError> {
    let reasons = suite.not_stored();
    let mut lines = Vec::new();
    for (test, reason) in reasons.iter().filter(|(test, _)| selected.contains(test)) {
        lines.push(format!("{}\n  not cached: {reason}", printable(&suite.tests()[test.index()].name)));
    }
    if lines.is_empty() {
        lines.push("No selected test passed without its result being stored".to_owned());
    }
    output::answer(&lines.join("\n"))?;
    Ok(Exit::SUCCESS)
}

fn lines(name: &str, explanation: &Explanation) -> Vec<String> {
    let mut lines = vec![match &explanation.cached {
        Some(outcome) if explanation.depends_on_build => format!(
            "{name}: cached if a build changes nothing that it reads, {} in {}",
            outcome.status,
            duration(outcome.duration)
        ),
        Some(outcome) => format!("{name}: cached, {} in {}", outcome.status, duration(outcome.duration)),
        None => format!("{name}: not cached, to run"),
    }];
    lines.push(match explanation.discovered.len() {
        0 => format!("  depends on {}", plural(explanation.inputs, "input file")),
        discovered => format!(
            "  depends on {} and {}",
            plural(explanation.inputs, "input file"),
            plural(discovered, "discovered path")
        ),
    });
    let coarse = explanation.cached.as_ref().and_then(|outcome| outcome.coarse.as_ref());
    lines.extend(coarse.map(|reason| format!("  {}", printable(reason))));
    match &explanation.last {
        None => lines.push("  has not run in this directory".to_owned()),
        Some((age, status, not_cached)) => {
            lines.push(format!("  last run {} ago: {status}", duration(*age)));
            lines.extend(not_cached.as_ref().map(|reason| format!("  not cached: {reason}")));
        }
    }
    if explanation.over_limit {
        lines.push("  the stored result does not hold under the time limit of the test".to_owned());
    } else if let (None, Some(age)) = (&explanation.cached, explanation.stored) {
        let since = format!("since the result was stored {} ago", duration(age));
        if explanation.differences.is_empty() {
            lines.push(format!("  no change {since}; the result has expired or was removed"));
        } else {
            lines.push(format!("  changed {since}:"));
            let changes = explanation.differences.iter().take(CHANGES_MAX);
            lines.extend(changes.map(|change| format!("    {}", printable(&change.to_string()))));
            let more = explanation.differences.len().saturating_sub(CHANGES_MAX);
            lines.extend((more > 0).then(|| format!("    and {more} more")));
        }
    }
    lines
}
