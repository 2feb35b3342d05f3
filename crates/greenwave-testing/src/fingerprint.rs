//! The state of a test's input files at one moment. Knows nothing of commands, caches or results.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::overrides::{Override, OverrideBuilder};

use crate::{Error, Test};

/// What version control and Greenwave itself keep beside a project: never a part of it. In a linked work
/// tree `.git` is a file, with another content in each.
const NEVER: [&str; 4] = [".git", ".hg", ".jj", ".greenwave"];

/// How a folder says that everything in it can be made again, as cargo's target folder does
/// (<https://bford.info/cachedir/>). Told by this and not by a name: `src/target/` may well be source.
const CACHE_TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// Input files by relative path, with what identifies each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    files: BTreeMap<PathBuf, Entry>,
}

/// What identifies one input file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whether it may be executed, or is a symbolic link.
    pub kind: EntryKind,
    /// BLAKE3 of its content, or of a link's target text.
    pub hash: [u8; 32],
}

/// The kinds of input files that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file.
    Plain = 0,
    /// A regular file that its owner may execute.
    Executable = 1,
    /// A symbolic link. What it points to counts only where that is an input itself.
    Link = 2,
}

impl EntryKind {
    /// The kind with this number, as it stands in keys and records.
    pub fn from_number(number: u8) -> Option<Self> {
        [EntryKind::Plain, EntryKind::Executable, EntryKind::Link]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

impl Manifest {
    /// Reads the state of all files of a project that its ignore files do not name; there may be none.
    ///
    /// # Errors
    /// [`Error::Io`] with the file that cannot be read.
    pub fn of_project(project: &Path) -> Result<Self, Error> {
        Self::collect(project, Override::empty())
    }

    /// Reads the state of a test's inputs in a project's folder.
    ///
    /// Without patterns, files that the project's ignore files name are left out. Version control's own
    /// files and folders tagged as caches are left out always.
    ///
    /// There may be none: what a test reads may not have been written yet.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`], or [`Error::Io`] with the file that cannot be read.
    pub fn read(project: &Path, test: &Test) -> Result<Self, Error> {
        Self::collect(project, patterns(project, test)?)
    }

    fn collect(project: &Path, patterns: Override) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        for found in walk(project, patterns) {
            let found = found.map_err(|error| walk_error(project, error))?;
            let Some(kind) = found.file_type().filter(|kind| !kind.is_dir()) else { continue };
            let relative = found.path().strip_prefix(project).unwrap_or(found.path()).to_owned();
            if kind.is_file() || kind.is_symlink() {
                files.insert(relative, Entry::read(found.path(), kind.is_symlink())?);
            }
        }
        Ok(Self { files })
    }

    /// The files in the order of their paths.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Path, Entry)> {
        self.files.iter().map(|(path, entry)| (path.as_path(), *entry))
    }

    /// The first file in the order of paths that is not the same in the other manifest.
    pub fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a Path> {
        let changed = self.files.iter().find(|(path, entry)| other.files.get(*path) != Some(entry));
        let added = other.files.keys().find(|path| !self.files.contains_key(*path));
        changed.map(|(path, _)| path).into_iter().chain(added).min().map(PathBuf::as_path)
    }
}

impl Entry {
    fn read(path: &Path, is_link: bool) -> Result<Self, Error> {
        let failed = || Error::io("read", path);
        if is_link {
            let target = fs::read_link(path).map_err(failed())?;
            let hash = blake3::hash(target.as_os_str().as_encoded_bytes());
            return Ok(Self { kind: EntryKind::Link, hash: *hash.as_bytes() });
        }
        let mut file = File::open(path).map_err(failed())?;
        let metadata = file.metadata().map_err(failed())?;
        let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).min(1 << 20));
        let mut hasher = blake3::Hasher::new();
        // A file that fits is read in one go; a large one is never held whole.
        file.by_ref().take(1 << 20).read_to_end(&mut content).map_err(failed())?;
        hasher.update(&content).update_reader(file).map_err(failed())?;
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let kind = if executable { EntryKind::Executable } else { EntryKind::Plain };
        Ok(Self { kind, hash: *hasher.finalize().as_bytes() })
    }
}

/// Whether a text can be a pattern of a test's inputs; what is wrong with it otherwise.
///
/// # Errors
/// The mistake in a few words.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let mut patterns = OverrideBuilder::new(".");
    match patterns.add(pattern).and_then(|patterns| patterns.build()) {
        Ok(_) => Ok(()),
        Err(ignore::Error::Glob { err, .. }) => Err(err),
        Err(other) => Err(other.to_string()),
    }
}

fn patterns(project: &Path, test: &Test) -> Result<Override, Error> {
    let mut patterns = OverrideBuilder::new(project);
    let invalid = |pattern: &str| {
        let (test, pattern) = (test.name.clone(), pattern.to_owned());
        move |source: ignore::Error| Error::InvalidPattern { test, pattern, source: source.into() }
    };
    for pattern in &test.inputs {
        patterns.add(pattern).map_err(invalid(pattern))?;
    }
    patterns.build().map_err(invalid(""))
}

fn walk(project: &Path, patterns: Override) -> ignore::Walk {
    let declared = !patterns.is_empty();
    WalkBuilder::new(project)
        .hidden(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        // Declared inputs count even where the project ignores them.
        .git_ignore(!declared)
        .ignore(!declared)
        .overrides(patterns)
        .filter_entry(|entry| !NEVER.iter().any(|name| entry.file_name() == *name) && !is_cache(entry.path()))
        .build()
}

fn is_cache(folder: &Path) -> bool {
    let (name, signature) = CACHE_TAG;
    let mut start = vec![0; signature.len()];
    File::open(folder.join(name)).and_then(|mut tag| tag.read_exact(&mut start)).is_ok() && start == signature
}

fn walk_error(project: &Path, error: ignore::Error) -> Error {
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(text));
    Error::io("list the files of", project)(source)
}
