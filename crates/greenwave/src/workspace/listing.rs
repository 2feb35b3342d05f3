//! Lists the entries of a working copy without following links.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use greenwave_dir::{Access, Dir, FileKind, Metadata};
use greenwave_inputs::{ALWAYS_EXCLUDED, FileStamp, is_cache_directory};
use greenwave_testing::EntryKind;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::file_state::kind_of;

/// Names of the files that exclude others. Rules of the later name take precedence.
pub(super) const IGNORE_FILES: [&str; 2] = [".gitignore", ".ignore"];

/// Directories of build output and of installed packages, which are excluded even if no ignore file
/// names them. Directories that are tagged as caches, such as cargo's `target`, are excluded as
/// well.
const BUILD_OUTPUT: [&str; 9] = [
    "__pycache__",
    "node_modules",
    ".venv",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    ".nox",
    ".gradle",
];

/// Maximum number of directories above an entry. The time of a listing grows with the square.
const LEVELS_MAX: usize = 256;
/// Maximum length of a path relative to the working copy, in bytes. Programs put the path of the
/// copy in front of it, and the kernel accepts 4095 bytes.
const PATH_BYTES_MAX: usize = 3072;

/// Maximum size of an ignore file, in bytes.
const IGNORE_FILE_BYTES_MAX: u64 = 1 << 20;

/// Source of the ignore rules of a listing.
#[derive(Debug, Clone, Copy)]
pub(super) enum IgnoreRules<'a> {
    /// The ignore files in the directory.
    OnDisk,
    /// Contents of ignore files, by path. Ignore files in the directory have no effect.
    Given(&'a BTreeMap<String, Bytes>),
}

/// The entries of a directory that no rule excludes. Paths are relative to the directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Files and symbolic links.
    pub(super) files: BTreeMap<String, ListedFile>,
    /// Directories, each before those below it.
    pub(super) directories: Vec<String>,
    /// Pipes, sockets and devices.
    pub(super) special: BTreeMap<String, SpecialFile>,
    /// Entries that are [too deep](is_too_deep), without those below them.
    pub(super) too_deep: Vec<String>,
    /// Paths that are not UTF-8.
    pub(super) not_utf8: Vec<PathBuf>,
    /// Version control's data that does not belong to the working copy, such as the `.git` of a
    /// repository that a program has created or cloned, and linked worktrees with all their files.
    pub(super) foreign_repositories: Vec<String>,
}

/// A file or symbolic link.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListedFile {
    pub(super) kind: EntryKind,
    pub(super) stamp: FileStamp,
    /// Number of hard links.
    pub(super) links: u64,
}

/// Kind of an entry that is neither a file nor a link nor a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpecialFile {
    Pipe,
    Socket,
    Device,
}

impl std::fmt::Display for SpecialFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            SpecialFile::Pipe => "a pipe",
            SpecialFile::Socket => "a socket",
            SpecialFile::Device => "a device",
        })
    }
}

impl ListedFile {
    /// Returns the description of a file or link, or `None` for other entries.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let stamp = FileStamp::from_stat(metadata.stat());
        Some(Self { kind: kind_of(metadata)?, stamp, links: metadata.links() })
    }
}

/// Lists a directory. `repositories` are the directories whose `.git` belongs to the working copy.
///
/// Makes directories accessible whose permissions would prevent the listing. Entries that programs
/// remove or replace meanwhile are left out.
pub(super) fn list(
    root: &Dir,
    rules: IgnoreRules<'_>,
    repositories: &BTreeSet<String>,
) -> io::Result<Listing> {
    let mut listing = Listing::default();
    // Not recursive, because a program can nest directories deeper than the stack.
    let mut pending = vec![(String::new(), Vec::new())];
    while let Some((directory, mut matchers)) = pending.pop() {
        let opened = match open_accessible(root, &directory) {
            Err(error) if is_gone(&error) && !directory.is_empty() => continue,
            opened => opened?,
        };
        if !directory.is_empty() && is_linked_worktree(&opened) {
            listing.foreign_repositories.push(directory);
            continue;
        }
        matchers.extend(matcher(&opened, &directory, rules));
        for entry in opened.entries()? {
            let Some(name) = entry.name.to_str() else {
                listing.not_utf8.push(Path::new(&directory).join(entry.name));
                continue;
            };
            let relative = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
            if ALWAYS_EXCLUDED.contains(&name) {
                if name == ".git" && !repositories.contains(&directory) {
                    listing.foreign_repositories.push(relative);
                }
                continue;
            }
            if is_too_deep(&relative) {
                listing.too_deep.push(relative);
                continue;
            }
            let metadata = match opened.metadata(name) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if is_ignored(&matchers, &root.path().join(&relative), name, metadata.is_dir()) {
                continue;
            }
            if metadata.is_dir() {
                listing.directories.push(relative.clone());
                pending.push((relative, matchers.clone()));
            } else if let Some(file) = ListedFile::of(&metadata) {
                listing.files.insert(relative, file);
            } else {
                listing.special.insert(relative, special(metadata.kind()));
            }
        }
    }
    Ok(listing)
}

/// Returns whether a path has too many levels or bytes for a working copy.
pub(super) fn is_too_deep(path: &str) -> bool {
    path.len() > PATH_BYTES_MAX || path.bytes().filter(|byte| *byte == b'/').count() > LEVELS_MAX
}

/// Describes the limits of [`is_too_deep`].
pub(super) fn limits_of_depth() -> String {
    format!("more than {LEVELS_MAX} directories deep, or its path is longer than {PATH_BYTES_MAX} bytes")
}

/// Opens a directory, and gives its owner all permissions.
fn open_accessible(root: &Dir, directory: &str) -> io::Result<Dir> {
    let permissions = root.metadata(directory)?.permissions();
    if permissions & 0o700 != 0o700 && !directory.is_empty() {
        root.set_permissions(directory, permissions | 0o700)?;
    }
    root.subdirectory(directory)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn special(kind: FileKind) -> SpecialFile {
    match kind {
        FileKind::Pipe => SpecialFile::Pipe,
        FileKind::Socket => SpecialFile::Socket,
        _ => SpecialFile::Device,
    }
}

fn is_ignored(matchers: &[Gitignore], path: &Path, name: &str, is_directory: bool) -> bool {
    for matcher in matchers.iter().rev() {
        match matcher.matched(path, is_directory) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
    }
    is_directory && (BUILD_OUTPUT.contains(&name) || is_cache_directory(path))
}

/// Returns the rules of the ignore files in a directory, if it has any.
fn matcher(opened: &Dir, directory: &str, rules: IgnoreRules<'_>) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new(opened.path());
    let mut has_rules = false;
    for name in IGNORE_FILES {
        let text = match rules {
            IgnoreRules::OnDisk => read_ignore_file(opened, name),
            IgnoreRules::Given(files) if directory.is_empty() => files.get(name).cloned(),
            IgnoreRules::Given(files) => files.get(&format!("{directory}/{name}")).cloned(),
        };
        for line in String::from_utf8_lossy(&text.unwrap_or_default()).lines() {
            // An invalid line has no effect, as in git.
            has_rules |= builder.add_line(None, line).is_ok();
        }
    }
    builder.build().ok().filter(|_| has_rules)
}

/// Reads an ignore file. A pipe in its place is not waited for, and a link is not followed, as in
/// git.
fn read_ignore_file(directory: &Dir, name: &str) -> Option<Bytes> {
    let file = directory.open_file(name, Access::Read, 0).ok()?;
    let mut content = Vec::new();
    file.take(IGNORE_FILE_BYTES_MAX).read_to_end(&mut content).ok()?;
    Some(content.into())
}

/// Returns whether a directory is a linked worktree of git, which an agent uses as scratch space.
fn is_linked_worktree(directory: &Dir) -> bool {
    let Ok(content) = directory.read(".git", IGNORE_FILE_BYTES_MAX) else { return false };
    let content = String::from_utf8_lossy(&content);
    let target = content.strip_prefix("gitdir:").map(|target| Path::new(target.trim()));
    target.and_then(Path::parent).is_some_and(|parent| parent.ends_with(".git/worktrees"))
}
