//! Tools that list, read and change files.

use std::io;
use std::path::Path;

use greenwave_dir::{Dir, FileKind};

use super::{HIDDEN, describe};

/// Maximum size of a file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of entries that are listed.
const ENTRIES_MAX: usize = 1000;
/// Number of lines that are read if the call names none.
const LINES: usize = 1000;

/// Lists a directory.
pub(super) fn list(directory: &Dir, path: &str) -> Result<String, String> {
    let listed = match path {
        "" => directory.entries(),
        path => directory.subdirectory(path).and_then(|inner| inner.entries()),
    };
    let entries = listed.map_err(|error| describe("list", path, &error))?;
    let mut names: Vec<String> = entries
        .into_iter()
        .filter_map(|entry| {
            let name = entry.name.into_string().ok()?;
            let end = if entry.kind == FileKind::Directory { "/" } else { "" };
            (!HIDDEN.contains(&name.as_str())).then(|| format!("{name}{end}"))
        })
        .collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(ENTRIES_MAX);
    names.truncate(ENTRIES_MAX);
    if more > 0 {
        names.push(format!("[and {more} more]"));
    }
    Ok(if names.is_empty() { "[empty]".to_owned() } else { names.join("\n") })
}

/// Returns lines of a file.
pub(super) fn read(
    directory: &Dir,
    path: &str,
    from: Option<usize>,
    lines: Option<usize>,
) -> Result<String, String> {
    let text = text_of(directory, path)?;
    let first = from.unwrap_or(1).max(1);
    let wanted = lines.unwrap_or(LINES);
    let total = text.lines().count();
    let part: String = text.split_inclusive('\n').skip(first - 1).take(wanted).collect();
    let last = first.saturating_add(wanted).saturating_sub(1).min(total);
    if first == 1 && last == total {
        return Ok(part);
    }
    Ok(format!("[lines {first} to {last} of {total}]\n{part}"))
}

/// Replaces a text that is in a file exactly once.
pub(super) fn edit(directory: &Dir, path: &str, search: &str, replace: &str) -> Result<(), String> {
    let text = text_of(directory, path)?;
    match text.matches(search).count() {
        _ if search.is_empty() => {
            Err("invalid value for `search`: expected a text that is not empty".to_owned())
        }
        1 => write(directory, path, &text.replacen(search, replace, 1)),
        0 => Err(format!("the text is not in {path:?}")),
        times => Err(format!("the text is in {path:?} {times} times: add lines around it")),
    }
}

/// Creates or replaces a file. A file that exists stays executable.
pub(super) fn write(directory: &Dir, path: &str, content: &str) -> Result<(), String> {
    let failed = |error: io::Error| describe("write", path, &error);
    let permissions = match directory.metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.permissions(),
        Ok(_) => return Err(format!("cannot write {path:?}: it is not a file")),
        Err(_) if content.starts_with("#!") => 0o755,
        Err(_) => 0o644,
    };
    if Path::new(path).parent().is_some_and(|parent| !parent.as_os_str().is_empty()) {
        directory.create_parent(path, 0o755).map_err(failed)?;
    }
    directory.replace_file(path, content.as_bytes(), permissions).map_err(failed)
}

/// Deletes a file or a link.
pub(super) fn delete(directory: &Dir, path: &str) -> Result<(), String> {
    directory.remove_file(path).map_err(|error| describe("delete", path, &error))
}

fn text_of(directory: &Dir, path: &str) -> Result<String, String> {
    let content = directory.read(path, FILE_BYTES_MAX).map_err(|error| describe("read", path, &error))?;
    String::from_utf8(content).map_err(|_| format!("cannot read {path:?}: it is not UTF-8 text"))
}
