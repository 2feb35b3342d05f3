//! Selects the programs that an explanation names as readers of changed files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_inputs::{AccessKind, text};
use greenwave_sandbox::TraceReaders;

/// Maximum number of paths of one test with a reader. Files of the project come first.
const PATHS_MAX: usize = 1_000;
/// Maximum length of a command line, in characters. The rest is omitted.
const COMMAND_CHARS_MAX: usize = 60;
/// Names of directories outside of the project that contain programs and libraries. A process reads
/// many of these files, and they seldom change.
const INSTALLED: [&str; 5] = ["bin", "sbin", "lib", "lib64", "usr"];

/// Paths by the command line of the process that was the first to read them. Paths in the project
/// are relative to it.
pub(crate) type PathsByReader = BTreeMap<String, Vec<String>>;

/// The readers of a test's dependencies, with a hash.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamedReaders {
    pub(crate) hash: String,
    pub(crate) paths: Arc<PathsByReader>,
}

impl NamedReaders {
    /// Selects the readers of these accesses.
    pub(crate) fn new(project: &Path, accesses: &[(PathBuf, AccessKind)], readers: &TraceReaders) -> Self {
        let in_project = accesses.iter().filter(|(path, _)| path.starts_with(project));
        let is_outside = |path: &Path| {
            !path.starts_with(project) && !path.iter().any(|name| INSTALLED.iter().any(|it| name == *it))
        };
        let outside = accesses.iter().filter(|(path, _)| is_outside(path));
        let mut paths = PathsByReader::new();
        for (path, _) in in_project.chain(outside).take(PATHS_MAX) {
            let Some(command) = readers.command(path) else { continue };
            let relative = path.strip_prefix(project).unwrap_or(path).display().to_string();
            let paths = paths.entry(shortened(command)).or_default();
            // A directory whose names were read has two accesses in succession.
            if paths.last() != Some(&relative) {
                paths.push(relative);
            }
        }
        let mut hasher = blake3::Hasher::new();
        for text in paths.iter().flat_map(|(command, paths)| std::iter::once(command).chain(paths)) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        Self { hash: text::short_hash(hasher.finalize().as_bytes()), paths: Arc::new(paths) }
    }
}

/// Returns a command line with the file name of its program instead of the path.
fn shortened(command: &str) -> String {
    let program = command.split(' ').next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let command = &command[program.len() - name.len()..];
    match command.char_indices().nth(COMMAND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", command[..end].trim_end()),
        None => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_line_is_cut() {
        assert_eq!(shortened("cat a"), "cat a");
        assert_eq!(shortened("/usr/bin/python3 -c /a"), "python3 -c /a");
        assert_eq!(shortened("/"), "");
        let long = shortened(&"é ".repeat(100));
        assert!(long.ends_with("é…") && long.chars().count() <= COMMAND_CHARS_MAX + 1, "{long}");
    }
}
