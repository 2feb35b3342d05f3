//! Reads from cargo's output files which sources they were built from.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the sources of a compiled file, which rustc lists in a makefile beside it.
pub(crate) fn dep_info(file: &Path, workspace: &Path) -> Vec<PathBuf> {
    let Some(stem) = file.file_stem().and_then(OsStr::to_str) else { return Vec::new() };
    let is_library = file.extension().is_some();
    let stem = if is_library { stem.strip_prefix("lib").unwrap_or(stem) } else { stem };
    let Ok(text) = fs::read_to_string(file.with_file_name(format!("{stem}.d"))) else { return Vec::new() };
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
    let Ok(text) = fs::read_to_string(output) else { return Vec::new() };
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
