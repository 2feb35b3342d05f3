//! Lists the repository's files and separates product code from comments and tests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Entries without source files: version control (a file in a worktree) and build output.
const SKIPPED: [&str; 4] = [".git", "target", ".targets", ".greenwave"];

/// The demonstration's project. Its files are data: the demonstration shows them as they are.
pub(crate) const DEMO_PROJECT: &str = "crates/greenwave-cli/demo/project";

/// Returns all files below a directory, relative to it and sorted by path.
pub(crate) fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut queue = vec![PathBuf::new()];
    while let Some(at) = queue.pop() {
        let entries = fs::read_dir(directory.join(&at))
            .map_err(|error| format!("cannot list {}: {error}", directory.join(&at).display()))?;
        for entry in entries {
            let entry = entry?;
            let path = at.join(entry.file_name());
            if SKIPPED.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                queue.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns whether a file belongs to tests, examples or benchmarks, which may do what the product
/// may not.
pub(crate) fn is_test_or_example(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "examples" || part == "suites")
        || path.file_name().is_some_and(|name| name == "tests.rs")
}

/// Returns whether a path ends in `.EXTENSION`.
pub(crate) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|it| it == extension)
}

/// Returns the lines of a Rust file that are product code, numbered from 1. Comments are blanked,
/// and a test module at the end of the file is left out.
///
/// This is not a parser: `//` inside a string literal ends the line too.
pub(crate) fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |pair: &[&str]| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    };
    let end = lines.windows(2).position(opens_tests).unwrap_or(lines.len());
    (1..)
        .zip(lines.into_iter().take(end))
        .map(|(number, line)| (number, line.split("//").next().unwrap_or("")))
}

/// Returns whether a line contains a word, or a path of words, that does not start inside a longer
/// word.
pub(crate) fn contains_word(line: &str, pattern: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(pattern).any(|(at, _)| !line[..at].ends_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_are_not_code() {
        let text =
            "//! Docs.\nfn f() {} // print\n#[cfg(test)]\nuse x;\n#[cfg(test)]\nmod tests {\n    print\n}\n";
        let lines: Vec<_> = code(text).map(|(number, line)| (number, line.trim())).collect();
        assert_eq!(lines, [(1, ""), (2, "fn f() {}"), (3, "#[cfg(test)]"), (4, "use x;")]);
    }

    #[test]
    fn words_match_from_their_beginning() {
        assert!(contains_word("    println!(\"x\")", "println!"));
        assert!(!contains_word("    eprintln!(\"x\")", "println!"));
        assert!(contains_word("std::env::var(name)", "env::var"));
        assert!(!contains_word("my_env::var(name)", "env::var"));
    }
}
