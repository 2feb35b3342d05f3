//! The tool that searches files for a text.

use greenwave_dir::{Dir, FileKind};

use super::{HIDDEN, describe};
use crate::Withheld;

/// Maximum number of lines that are found.
const FOUND_MAX: usize = 200;
/// Maximum number of files that are searched.
const FILES_MAX: usize = 50_000;
/// Maximum size of a file that is searched, in bytes.
const FILE_BYTES_MAX: u64 = 2 << 20;
/// Maximum length of a line in the result, in bytes.
const LINE_BYTES_MAX: usize = 300;
/// Directories with files of others, which a search of the project leaves out.
const OF_OTHERS: [&str; 5] = ["node_modules", "target", ".venv", "venv", "__pycache__"];

/// Returns the lines below a path that contain a text, as `path:line: text`.
pub(super) fn search(directory: &Dir, withheld: Withheld, path: &str, text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('\n') {
        return Err("invalid value for `text`: expected a text on one line".to_owned());
    }
    let mut found = Vec::new();
    let is_file = !path.is_empty() && directory.metadata(path).is_ok_and(|metadata| metadata.is_file());
    if is_file && withheld.contains(path) {
        return Err(format!("cannot search {path:?}: it probably holds secrets"));
    }
    if is_file {
        search_file(directory, path, text, &mut found);
    } else {
        let mut files = files_below(directory, path)?;
        files.retain(|file| !withheld.contains(file));
        files.sort_unstable();
        for file in files {
            if found.len() >= FOUND_MAX {
                found.push("[more lines are left out]".to_owned());
                break;
            }
            search_file(directory, &file, text, &mut found);
        }
    }
    Ok(if found.is_empty() { "[not found]".to_owned() } else { found.join("\n") })
}

/// Returns the paths of the files below a directory.
fn files_below(directory: &Dir, path: &str) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    let mut pending = vec![path.to_owned()];
    while let Some(at) = pending.pop() {
        let listed = match at.as_str() {
            "" => directory.entries(),
            inner => directory.subdirectory(inner).and_then(|inner| inner.entries()),
        };
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) if at == path => return Err(describe("search", path, &error)),
            // It was removed meanwhile, or may not be read.
            Err(_) => continue,
        };
        for entry in entries {
            let Ok(name) = entry.name.into_string() else { continue };
            let is_left_out = HIDDEN.contains(&&*name) || OF_OTHERS.contains(&&*name);
            let inner = if at.is_empty() { name } else { format!("{at}/{name}") };
            match entry.kind {
                FileKind::Directory if !is_left_out => pending.push(inner),
                FileKind::File => files.push(inner),
                _ => {}
            }
        }
        if files.len() > FILES_MAX {
            break;
        }
    }
    Ok(files)
}

fn search_file(directory: &Dir, path: &str, text: &str, found: &mut Vec<String>) {
    let Ok(content) = directory.read(path, FILE_BYTES_MAX) else { return };
    let Ok(content) = std::str::from_utf8(&content) else { return };
    for (number, line) in content.lines().enumerate().filter(|(_, line)| line.contains(text)) {
        if found.len() >= FOUND_MAX {
            return;
        }
        let end = (0..=LINE_BYTES_MAX.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
        found.push(format!("{path}:{}: {}", number + 1, &line[..end.unwrap_or(0)]));
    }
}
