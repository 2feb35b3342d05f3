//! Runs the probes that try to make `greenwave test` report a stale pass: the test target
//! `soundness` of greenwave-cli.

use crate::Result;
use crate::process::{cargo, output_of, run_visibly};

/// Makes the target print a table of all test runners that are installed.
const AGAINST: &str = "GREENWAVE_SOUNDNESS_AGAINST";

/// Runs all probes, or with `against` prints their outcomes with each test runner.
///
/// # Errors
/// If a probe fails; the message includes the target's output.
pub(crate) fn soundness(against: bool) -> Result<String> {
    // Without `--package`, all dependencies have the features that `cargo test` gave them, so that
    // none is compiled again.
    let mut command = cargo(["test", "--quiet", "--test=soundness"]);
    if against {
        run_visibly(command.env(AGAINST, "1"))?;
        return Ok("soundness: see the table".to_owned());
    }
    let printed = output_of(&mut command)?;
    let summary = printed.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    let summary = summary.ok_or_else(|| format!("the probes did not run:\n{printed}"))?;
    Ok(format!("soundness: {summary}"))
}
