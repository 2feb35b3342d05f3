//! Describes what changed between two attempts.

use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of names or files in one line.
const ENTRIES_MAX: usize = 12;

/// A file that differs between two attempts, with its contents where they are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileChange {
    /// Path of the file.
    pub(crate) path: String,
    /// Content of the earlier attempt. `None` if the file did not exist or is not text.
    pub(crate) before: Option<String>,
    /// Content of the later attempt.
    pub(crate) after: Option<String>,
}

/// Describes the progress since the last attempt: tests that pass now, that still fail and that
/// newly fail, and the files that changed. Returns an empty text if neither changed.
pub(crate) fn describe_progress(
    failing_before: &BTreeSet<String>,
    failing_now: &BTreeSet<String>,
    changed: &[FileChange],
) -> String {
    let mut lines = Vec::new();
    if !failing_before.is_empty() && !failing_now.is_empty() {
        let mut add = |label: &str, names: Vec<&str>| {
            if !names.is_empty() {
                lines.push(format!("{label}: {}", short_list(&names)));
            }
        };
        let names = |names: std::collections::btree_set::Difference<'_, String>| -> Vec<String> {
            names.cloned().collect()
        };
        let fixed = names(failing_before.difference(failing_now));
        let broken = names(failing_now.difference(failing_before));
        add("No longer failing", fixed.iter().map(String::as_str).collect());
        let still = failing_before.intersection(failing_now).map(String::as_str).collect();
        add("Still failing", still);
        add("Newly failing", broken.iter().map(String::as_str).collect());
    }
    if !changed.is_empty() {
        let files: Vec<String> = changed.iter().map(diffstat).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        lines.push(format!("Changed since the previous attempt: {}", short_list(&files)));
    }
    lines.join("\n")
}

fn short_list(names: &[&str]) -> String {
    let shown = names.iter().take(ENTRIES_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(ENTRIES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Returns `path (+added -removed)`. Lines are counted as a multiset: a moved line counts as none.
fn diffstat(change: &FileChange) -> String {
    let path = &change.path;
    let lines = |text: &Option<String>| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        text.iter().flat_map(|text| text.lines()).for_each(|line| {
            *counts.entry(line.to_owned()).or_default() += 1;
        });
        counts
    };
    let (before, after) = (lines(&change.before), lines(&change.after));
    let excess = |of: &BTreeMap<String, i64>, over: &BTreeMap<String, i64>| -> i64 {
        of.iter().map(|(line, count)| (count - over.get(line).copied().unwrap_or(0)).max(0)).sum()
    };
    format!("{path} (+{} -{})", excess(&after, &before), excess(&before, &after))
}
