//! Finds the path of the file that a search/replace block, a diff or a patch changes.

use std::ops::Range;

use super::element::{closes_edit, opens_edit};
use super::info;
use super::path::{Trust, is_path};

/// Returns the path that the content of an edit or diff names, if it names exactly one: in the
/// headers of a diff or patch, or in the line before a search/replace block. Up to `indentation`
/// blanks before each line are ignored.
pub(super) fn changed_path(content: &str, indentation: usize) -> Option<Range<usize>> {
    let mut found: Option<&str> = None;
    let (mut old, mut previous, mut in_edit) = (None, "", false);
    for line in content.lines() {
        let blanks = line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let line = &line[blanks.min(indentation)..];
        let named = if in_edit {
            in_edit = !closes_edit(line);
            None
        } else if opens_edit(line) {
            in_edit = true;
            info::path_of_heading(previous).map(|heading| &previous[heading.path])
        } else if let Some(path) = line.strip_prefix("--- ") {
            old = Some(header_path(path));
            None
        } else if let Some(path) = line.strip_prefix("+++ ") {
            old.take().and_then(|old| diff_path(old, header_path(path)))
        } else {
            old = None;
            patch_path(line)
        };
        previous = line;
        match (named, found) {
            (Some(named), None) => found = Some(named),
            (Some(named), Some(found)) if named != found => return None,
            _ => {}
        }
    }
    let found = found?;
    let start = found.as_ptr().addr() - content.as_ptr().addr();
    Some(start..start + found.len())
}

/// Removes the timestamp that `diff` appends to a path.
fn header_path(text: &str) -> &str {
    text.split('\t').next().unwrap_or(text).trim_end()
}

/// Returns the path of a unified diff, without the prefixes `a/` and `b/` of git.
fn diff_path<'a>(old: &'a str, new: &'a str) -> Option<&'a str> {
    let is_null = |path: &str| path == "/dev/null";
    let path = match (old.strip_prefix("a/"), new.strip_prefix("b/")) {
        (Some(from), None) if is_null(new) => from,
        (None, Some(to)) if is_null(old) => to,
        (Some(_), Some(to)) => to,
        _ if is_null(new) => old,
        _ => new,
    };
    is_path(path, Trust::Attribute).then_some(path)
}

/// Returns the path in a line such as `*** Update File: src/lib.rs`.
fn patch_path(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("*** ")?;
    let path =
        ["Add File: ", "Update File: ", "Delete File: "].iter().find_map(|head| rest.strip_prefix(head))?;
    let path = path.trim_end();
    is_path(path, Trust::Attribute).then_some(path)
}
