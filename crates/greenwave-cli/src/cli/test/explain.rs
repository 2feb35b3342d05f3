//! `greenwave test --explain`: explains why the result of a test is cached, or which changes made
//! it miss.

use std::time::SystemTime;

use greenwave_testing::{ChangedDependency, Explanation, Suite, TestId};

use super::select::select_one;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::text::{duration, plural, printable};

/// Maximum number of changes that are listed.
const CHANGES_MAX: usize = 20;
const SETTINGS_HINT: &str = "hint: add each setting to the test in greenwave.toml, \
    which `greenwave test --init` writes for tests that were discovered";

pub(super) async fn explain(suite: &Suite, name: &str) -> Result<Exit, CliError> {
    let test = select_one(suite.tests(), name)?;
    let explanation = suite.explain(test).await?;
    let name = printable(&suite.tests()[test.index()].name);
    output::answer(&lines(&name, &explanation).join("\n"))?;
    Ok(Exit::SUCCESS)
}

/// Lists the selected tests whose last result was not stored, with the reasons.
pub(super) fn why_not_cached(suite: &Suite, selected: &[TestId]) -> Result<Exit, CliError> {
    let mut lines = Vec::new();
    let mut has_settings = false;
    for it in suite.not_stored().iter().filter(|it| selected.contains(&it.test)) {
        lines.push(printable(&suite.tests()[it.test.index()].name));
        lines.push(format!("  not cached: {}", it.reason));
        lines.push(match it.stored {
            Some(age) => format!("  last cached {} ago", duration(age)),
            None => "  never cached in this directory".to_owned(),
        });
        lines.extend(it.setting.as_ref().map(|line| format!("  setting: {line}")));
        has_settings |= it.setting.is_some();
    }
    if lines.is_empty() {
        lines.push("No selected test passed without its result being stored".to_owned());
    }
    if has_settings {
        lines.push(SETTINGS_HINT.to_owned());
    }
    output::answer(&lines.join("\n"))?;
    Ok(Exit::SUCCESS)
}

/// Returns the lines that explain a test's result.
pub(super) fn lines(name: &str, explanation: &Explanation) -> Vec<String> {
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
        let at = humantime::format_rfc3339_seconds(SystemTime::now() - age);
        let since = format!("since the result was stored {} ago ({at})", duration(age));
        if explanation.differences.is_empty() {
            lines.push(format!("  no change {since}; the result has expired or was removed"));
        } else {
            lines.push(format!("  changed {since}:"));
            let changes = explanation.differences.iter().take(CHANGES_MAX);
            lines.extend(changes.map(|change| format!("    {}", printable(&described(change)))));
            let more = explanation.differences.len().saturating_sub(CHANGES_MAX);
            lines.extend((more > 0).then(|| format!("    and {more} more")));
        }
    }
    lines
}

pub(super) fn described(change: &ChangedDependency) -> String {
    match &change.read_by {
        Some(command) => format!("{} (read by `{command}`)", change.difference),
        None => change.difference.to_string(),
    }
}
