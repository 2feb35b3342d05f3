//! Sources of a test of cargo that have no test function.

use std::path::Path;

use greenwave_dir::read_regular_text;

use crate::Test;

/// Maximum size of a source file that is searched for tests, in bytes.
const SOURCE_BYTES_MAX: u64 = 64 << 20;
/// Maximum depth at which sources are searched for tests.
const DEPTH_MAX: usize = 12;

/// Returns whether a test can run anything: whether it names a test program, or whether the sources
/// that it is built from have test functions, or examples in their documentation.
///
/// Building a library only to find that it has no test would cost more than all other tests.
pub(super) fn may_have_tests(test: &Test, project: &Path) -> bool {
    let has = |flag: &str| test.command.iter().any(|word| word == flag);
    if has("--test") || test.directories.is_empty() {
        return true;
    }
    let mark = if has("--doc") { "```" } else { "test" };
    test.directories.iter().any(|directory| has_source_with(&project.join(directory), mark, DEPTH_MAX))
}

/// Returns whether a Rust file at or below a path has a line that marks a test.
fn has_source_with(path: &Path, mark: &str, depth: usize) -> bool {
    if path.is_dir() {
        let is_left_out = path.file_name().is_some_and(|name| name == "target" || name == "tests");
        let mut entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        return depth > 0
            && !is_left_out
            && entries.any(|entry| has_source_with(&entry.path(), mark, depth - 1));
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return false;
    }
    let is_mark = |line: &str| {
        let line = line.trim_start();
        line.contains(mark) && ["///", "//!", "#[", "#!["].iter().any(|start| line.starts_with(start))
    };
    read_regular_text(path, SOURCE_BYTES_MAX).is_ok_and(|text| text.lines().any(is_mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_with_tests_are_built() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("src")).unwrap();
        let check = |source: &str, arguments: &[&str], expected: bool| {
            std::fs::write(root.path().join("src/lib.rs"), source).unwrap();
            let words = ["cargo", "test", "--package", "a"].iter().chain(arguments);
            let test = Test { directories: vec!["src".into()], ..Test::new("t", words.copied()) };
            assert_eq!(may_have_tests(&test, root.path()), expected, "{source:?} {arguments:?}");
        };
        check("fn test() {}\n", &["--lib"], false);
        check("    #[tokio::test]\nfn it() {}\n", &["--lib"], true);
        check("//! ```\n//! ```\n", &["--lib"], false);
        check("//! ```\n//! ```\n", &["--doc"], true);
        check("#[test]\nfn it() {}\n", &["--doc"], false);
        check("", &["--test", "it"], true);
        let anywhere = Test::new("t", ["cargo", "test", "--lib"]);
        assert!(may_have_tests(&anywhere, root.path()), "the sources are unknown");
    }
}
