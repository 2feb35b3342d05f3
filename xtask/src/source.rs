//! The files of this repository, and the lines of Rust that are product code. Knows nothing of what is allowed in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Folders that hold no file of ours: version control, and what can be made again.
const NOT_OURS: [&str; 4] = [".git", "target", ".targets", ".greenwave"];

/// The unpacked project of the demonstration is data: what it looks like is part of the show.
pub(crate) const DEMO_PROJECT: &str = "crates/greenwave-cli/demo/project";

/// All files below a folder, relative to it, in the order of their paths.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut next = vec![PathBuf::new()];
    while let Some(at) = next.pop() {
        let listed = fs::read_dir(folder.join(&at))
            .map_err(|error| format!("cannot list {}: {error}", at.display()))?;
        for entry in listed {
            let entry = entry?;
            let path = at.join(entry.file_name());
            if !entry.file_type()?.is_dir() {
                files.push(path);
            } else if !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                next.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file is of tests or examples, which may do what the product may not.
pub(crate) fn is_test_or_example(path: &Path) -> bool {
    let folder = |name: &str| path.iter().any(|part| part == name);
    folder("tests")
        || folder("examples")
        || folder("suites")
        || path.file_name().is_some_and(|name| name == "tests.rs")
}

/// The lines of a Rust file that are code, numbered from 1: comments are blanked, and a module of tests that ends
/// the file is left out. Not a parser: a `//` inside a text ends its line too.
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

/// Whether a line has a word, or a path of words, that is not part of a longer one.
pub(crate) fn has(line: &str, pattern: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(pattern).any(|(at, _)| !line[..at].ends_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_are_no_code() {
        let text =
            "//! Docs.\nfn f() {} // print\n#[cfg(test)]\nuse x;\n#[cfg(test)]\nmod tests {\n    print\n}\n";
        let lines: Vec<_> = code(text).map(|(number, line)| (number, line.trim())).collect();
        assert_eq!(lines, [(1, ""), (2, "fn f() {}"), (3, "#[cfg(test)]"), (4, "use x;")]);
    }

    #[test]
    fn words_are_found_whole() {
        assert!(has("    println!(\"x\")", "println!"));
        assert!(!has("    eprintln!(\"x\")", "println!"));
        assert!(has("std::env::var(name)", "env::var"));
        assert!(!has("my_env::var(name)", "env::var"));
    }
}
