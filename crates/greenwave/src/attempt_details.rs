//! The attempts at a feature as a dashboard shows them.

use crate::attempt_log::{AttemptLog, StoredAttempt};
use crate::error::chain;
use crate::excerpt::visible_json;

/// Maximum number of attempts of a feature that are shown, the newest ones.
const ATTEMPTS_MAX: usize = 20;
/// Maximum size of each text of an attempt, in bytes. `greenwave attempts` shows all of it.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Returns the attempts at a feature as JSON. `None` if they cannot be read.
pub(crate) async fn attempt_details(log: &AttemptLog, feature: &str) -> Option<String> {
    let found = log.newest(feature, ATTEMPTS_MAX).await;
    let mut attempts = found
        .inspect_err(|error| tracing::warn!(error = chain(error), "cannot read attempts for the dashboard"))
        .ok()?;
    attempts.iter_mut().for_each(shorten);
    serde_json::to_string(&attempts).ok().map(|json| visible_json(&json))
}

fn shorten(attempt: &mut StoredAttempt) {
    let StoredAttempt { test_output, words, stderr, diff, .. } = attempt;
    for text in [test_output, words, stderr, diff] {
        if text.len() > TEXT_BYTES_MAX {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            let left_out = text.len() - end;
            text.truncate(end);
            text.push_str(&format!("\n[… {left_out} bytes left out …]"));
        }
    }
}
