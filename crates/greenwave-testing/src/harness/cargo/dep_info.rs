//! Reads from cargo's output files which sources they were built from.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use greenwave_dir::read_regular_text;

use crate::harness::project::MANIFEST_BYTES_MAX;

/// Returns the sources of a compiled file, which rustc lists in a makefile beside it.
pub(crate) fn dep_info(file: &Path, workspace: &Path) -> Vec<PathBuf> {
    let Some(stem) = file.file_stem().and_then(OsStr::to_str) else { return Vec::new() };
    let is_library = file.extension().is_some();
    let stem = if is_library { stem.strip_prefix("lib").unwrap_or(stem) } else { stem };
    let listed = read_regular_text(file.with_file_name(format!("{stem}.d")), MANIFEST_BYTES_MAX);
    let Ok(text) = listed else { return Vec::new() };
    let mut files = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, sources)) = line.split_once(": ") else { continue };
        files.extend(split_escaped(sources).map(|source| clean(&workspace.join(source))));
    }
    files.into_iter().collect()
}

/// Splits a line of a makefile into words. A backslash escapes a space.
fn split_escaped(text: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        match (character, words.last_mut()) {
            (' ', _) if !escaped => words.push(String::new()),
            ('\\', _) if !escaped => {
                escaped = true;
                continue;
            }
            (character, Some(word)) => word.push(character),
            _ => {}
        }
        escaped = false;
    }
    words.into_iter().filter(|word| !word.is_empty())
}

/// Removes `.` and `..` from a path without reading the file system.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(cleaned.pop()),
            part => cleaned.push(part),
        }
    }
    cleaned
}

/// Upper bound of the files in a directory that a build script declares.
const SCRIPT_FILES_MAX: usize = 10_000;

/// Returns the files and directories that a build script declares as dependencies
/// (<https://doc.rust-lang.org/cargo/reference/build-scripts.html#rerun-if-changed>).
pub(super) fn script_reads(out_dir: &Path, package: &Path) -> Vec<PathBuf> {
    let Some(output) = out_dir.parent().map(|directory| directory.join("output")) else { return Vec::new() };
    let Ok(text) = read_regular_text(output, MANIFEST_BYTES_MAX) else { return Vec::new() };
    let mut reads = Vec::new();
    for line in text.lines() {
        let named = line
            .strip_prefix("cargo:rerun-if-changed=")
            .or_else(|| line.strip_prefix("cargo::rerun-if-changed="));
        let Some(named) = named else { continue };
        let mut waiting = vec![clean(&package.join(named.trim()))];
        while let Some(path) = waiting.pop() {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            waiting.extend(inside.take(SCRIPT_FILES_MAX.saturating_sub(reads.len())));
            reads.push(path);
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test can put anything into the directory of build output.
    #[test]
    fn lists_in_anything_but_a_file_are_not_read() {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file.d"), "x: a.rs\n").expect("the directory is writable");
        std::os::unix::fs::symlink("/dev/zero", at("zero.d")).expect("the directory is writable");
        for name in ["pipe.d", "output"] {
            rustix::fs::mkfifoat(rustix::fs::CWD, at(name), rustix::fs::Mode::RWXU)
                .expect("the directory is writable");
        }
        assert_eq!(dep_info(&at("file"), Path::new("/w")), [Path::new("/w/a.rs")]);
        for name in ["zero", "pipe"] {
            assert_eq!(dep_info(&at(name), Path::new("/w")), [""; 0].map(PathBuf::from), "{name}");
        }
        assert_eq!(script_reads(&at("out"), Path::new("/w")), [""; 0].map(PathBuf::from));
    }
}
