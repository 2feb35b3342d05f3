//! Reasons why results were not cached: each kind once, and a hint at the end.

use std::collections::{BTreeSet, HashSet};
use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};

use greenwave_testing::CacheDecision;

use crate::reader::SETTINGS_FILE;
use crate::text::{plural, printable};

/// Maximum number of paths in the hint.
const PATHS_MAX: usize = 4;

/// The reasons of a run.
#[derive(Debug, Default)]
pub(super) struct NotCached {
    shown: HashSet<Discriminant<CacheDecision>>,
    /// Number of tests whose reason was not shown.
    left_out: usize,
    /// Paths that tests modify and depend on.
    modified: BTreeSet<PathBuf>,
}

impl NotCached {
    /// Returns the remark about a test, unless one of its kind was shown before. With `all`,
    /// returns every remark.
    pub(super) fn remark(&mut self, decision: &CacheDecision, all: bool) -> Option<String> {
        let reason = decision.reason()?;
        if let CacheDecision::ModifiedInput(path) = decision {
            self.modified.insert(path.clone());
        }
        if !self.shown.insert(discriminant(decision)) && !all {
            self.left_out += 1;
            return None;
        }
        Some(format!("not cached: {reason}"))
    }

    /// Returns the lines at the end of the run.
    pub(super) fn closing(&self, project: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        if self.left_out > 0 {
            let tests = plural(self.left_out, "more test");
            lines.push(format!("{tests} not cached for similar reasons (`--verbose` shows each)"));
        }
        let inside = |path: &&PathBuf| path.is_relative() && !path.as_os_str().is_empty();
        let paths: Vec<String> =
            self.modified.iter().filter(inside).take(PATHS_MAX).map(|path| pattern(project, path)).collect();
        if !paths.is_empty() {
            let exists = project.join(SETTINGS_FILE).is_file();
            let create = if exists { "" } else { " after `greenwave test --init`" };
            let outputs = paths.join(", ");
            lines.push(format!(
                "hint: add `outputs = [{outputs}]` to these tests in {SETTINGS_FILE}{create} to cache them"
            ));
        }
        lines
    }
}

/// Returns a path as a string of TOML that matches it as a pattern.
fn pattern(project: &Path, path: &Path) -> String {
    let slash = if project.join(path).is_dir() { "/" } else { "" };
    let text = format!("{}{slash}", printable(&path.display().to_string()));
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_reason_is_shown_once() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("out")).unwrap();
        let mut reasons = NotCached::default();
        let modified = |path: &str| CacheDecision::ModifiedInput(path.into());
        let first = reasons.remark(&modified("out"), false).unwrap();
        assert!(first.starts_with("not cached: the test modifies its own input `out`"), "{first}");
        assert_eq!(reasons.remark(&modified("a \"b\""), false), None);
        assert!(reasons.remark(&CacheDecision::NoInputs, false).is_some());
        assert!(reasons.remark(&modified("out"), true).is_some());
        assert_eq!(reasons.remark(&CacheDecision::Stored, false), None);
        assert_eq!(
            reasons.closing(directory.path()),
            [
                "1 more test not cached for similar reasons (`--verbose` shows each)",
                "hint: add `outputs = [\"a \\\"b\\\"\", \"out/\"]` to these tests in greenwave.toml after \
                 `greenwave test --init` to cache them",
            ]
        );
        assert_eq!(NotCached::default().closing(directory.path()), Vec::<String>::new());
    }
}
