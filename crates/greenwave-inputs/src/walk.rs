//! Lists the files of a project.

use std::fs::FileType;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_dir::open_regular;
use ignore::{DirEntry, ParallelVisitor, ParallelVisitorBuilder, WalkBuilder, WalkState};
use parking_lot::Mutex;

use crate::Error;
use crate::codec::path_bytes;
use crate::selection::{Selection, is_on_the_way};
use crate::stamp::FileStamp;

/// Names of files and directories that are never part of a project: the data of version control and
/// of Greenwave. In a linked worktree, `.git` is a file whose content differs between worktrees.
pub const ALWAYS_EXCLUDED: [&str; 4] = [".git", ".hg", ".jj", ".greenwave"];

/// The file that tags a directory as a cache (<https://bford.info/cachedir/>) and its first bytes.
/// Build directories such as cargo's `target` have it.
const CACHE_TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// Names of the files that exclude others.
const IGNORE_FILES: [&str; 2] = [".gitignore", ".ignore"];

/// Maximum size of one of them, in bytes. All its patterns are held in memory.
const IGNORE_FILE_BYTES_MAX: u64 = 16 << 20;

/// Number of threads that list a project.
const THREADS: usize = 2;

/// A file or symbolic link of a project.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// The path relative to the project.
    pub path: PathBuf,
    /// The metadata of the file, or of the link itself.
    pub stamp: FileStamp,
    /// Whether this is a symbolic link.
    pub is_link: bool,
    /// Whether an ignore file of the project excludes it.
    pub is_ignored: bool,
}

/// Lists the files that at least one selection may include.
///
/// Version control's data and [cache directories](is_cache_directory) are skipped. Recognizing
/// build directories by their tag and not by their name matters: `src/target/` may be source code.
/// The result is sorted by the bytes of the paths, and may contain files that no selection
/// includes.
///
/// # Errors
/// [`Error::Io`] with the directory that cannot be listed.
pub fn list_files(project: &Path, selections: &[&Selection]) -> Result<Vec<FoundFile>, Error> {
    Ok(list(project, selections)?.files)
}

/// Returns whether a directory is tagged as a cache, so that its content can be recreated.
pub fn is_cache_directory(directory: &Path) -> bool {
    let (name, signature) = CACHE_TAG;
    let mut start = vec![0; signature.len()];
    let read = open_regular(directory.join(name)).and_then(|mut tag| tag.read_exact(&mut start));
    read.is_ok() && start == signature
}

/// The result of a walk.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The files in the order of the bytes of their paths.
    pub(crate) files: Vec<FoundFile>,
    /// The directories that were listed.
    pub(crate) directories: Vec<(PathBuf, FileStamp)>,
    /// Paths that could not be examined because they are longer than the kernel accepts, without
    /// those below another of them.
    pub(crate) unexamined: Vec<PathBuf>,
    /// The errors of directories that the user may not list.
    pub(crate) denied: Vec<Error>,
    /// The ignore files in the directories, with the stamps of the files that they resolve to.
    pub(crate) ignore_files: Vec<(PathBuf, FileStamp)>,
}

/// The paths below which a walk searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WalkRoots {
    /// All of them.
    pub(crate) all: Arc<[PathBuf]>,
    /// The ones below which ignored files are listed too.
    pub(crate) patterns: Arc<[PathBuf]>,
}

impl WalkRoots {
    pub(crate) fn of<'s>(selections: impl Iterator<Item = &'s Selection> + Clone) -> Self {
        Self {
            all: outermost(selections.clone().flat_map(|selection| selection.roots())),
            patterns: outermost(selections.flat_map(Selection::pattern_roots)),
        }
    }
}

pub(crate) fn list(project: &Path, selections: &[&Selection]) -> Result<Listing, Error> {
    list_below(project, &WalkRoots::of(selections.iter().copied()))
}

/// Lists everything at and below the roots. Fails if a directory cannot be listed.
pub(crate) fn list_below(project: &Path, roots: &WalkRoots) -> Result<Listing, Error> {
    let mut listing = list_readable_below(project, roots)?;
    listing.denied.pop().map_or(Ok(listing), Err)
}

/// Lists all that can be listed at and below the roots.
pub(crate) fn list_readable_below(
    project: &Path,
    WalkRoots { all: roots, patterns }: &WalkRoots,
) -> Result<Listing, Error> {
    if roots.is_empty() {
        return Ok(Listing::default());
    }
    let mut listing = walk(project, roots, true)?;
    listing.ignore_files = ignore_files(project, &listing.directories);
    if !patterns.is_empty() && !listing.ignore_files.is_empty() {
        listing.add_ignored(walk(project, patterns, false)?);
    }
    Ok(listing)
}

impl Listing {
    /// Adds the files of a walk that did not respect ignore files. The new ones are ignored files.
    fn add_ignored(&mut self, all: Listing) {
        self.directories.extend(all.directories);
        self.directories.sort_unstable_by(|one, other| path_bytes(&one.0).cmp(path_bytes(&other.0)));
        self.directories.dedup_by(|one, other| one.0 == other.0);
        self.unexamined.extend(all.unexamined);
        self.denied.extend(all.denied);
        self.sort_unexamined();
        let found = &self.files;
        let ignored = all.files.into_iter().filter(|file| {
            found.binary_search_by(|other| path_bytes(&other.path).cmp(path_bytes(&file.path))).is_err()
        });
        let ignored: Vec<FoundFile> = ignored.map(|file| FoundFile { is_ignored: true, ..file }).collect();
        self.files.extend(ignored);
        self.sort_files();
    }

    fn sort_files(&mut self) {
        self.files.sort_unstable_by(|one, other| path_bytes(&one.path).cmp(path_bytes(&other.path)));
    }

    fn sort_unexamined(&mut self) {
        self.unexamined.sort_unstable();
        self.unexamined.dedup_by(|below, above| below.starts_with(above));
    }

    fn append(&mut self, other: &mut Listing) {
        self.files.append(&mut other.files);
        self.directories.append(&mut other.directories);
        self.unexamined.append(&mut other.unexamined);
        self.denied.append(&mut other.denied);
    }
}

/// Returns the ignore files in directories, which may themselves be ignored.
fn ignore_files(project: &Path, directories: &[(PathBuf, FileStamp)]) -> Vec<(PathBuf, FileStamp)> {
    let paths = directories.iter().flat_map(|(directory, _)| IGNORE_FILES.map(|name| directory.join(name)));
    let stamp = |path: PathBuf| {
        let metadata = std::fs::metadata(project.join(&path)).ok()?;
        Some((path, FileStamp::from_metadata(&metadata)))
    };
    paths.filter_map(stamp).collect()
}

/// Returns the roots that are not below another, sorted by their bytes.
fn outermost<'a>(roots: impl Iterator<Item = &'a Path>) -> Arc<[PathBuf]> {
    let mut sorted: Vec<&Path> = roots.collect();
    sorted.sort_unstable_by(|one, other| path_bytes(one).cmp(path_bytes(other)));
    sorted.dedup();
    let mut outermost: Vec<PathBuf> = Vec::with_capacity(sorted.len());
    for root in sorted {
        // An ancestor is somewhere before a path, not just before it: `a-b` is between `a` and
        // `a/b`.
        let is_below = root
            .ancestors()
            .skip(1)
            .any(|above| outermost.binary_search_by(|it| path_bytes(it).cmp(path_bytes(above))).is_ok());
        if !is_below {
            outermost.push(root.to_owned());
        }
    }
    outermost.into()
}

/// Walks a project in parallel. `ignore` says whether ignore files are respected.
fn walk(project: &Path, roots: &Arc<[PathBuf]>, ignore: bool) -> Result<Listing, Error> {
    let is_whole = roots.iter().any(|root| root.as_os_str().is_empty());
    if ignore {
        check_ignore_files(project)?;
    }
    let (base, below) = (project.to_owned(), Arc::clone(roots));
    let problem = Arc::new(Mutex::new(None));
    let problem_of_filter = Arc::clone(&problem);
    let is_wanted = move |entry: &DirEntry| {
        if ALWAYS_EXCLUDED.iter().any(|name| entry.file_name() == *name) {
            return false;
        }
        let relative = entry.path().strip_prefix(&base).unwrap_or(entry.path());
        let on_the_way = is_whole || relative.as_os_str().is_empty() || is_on_the_way(relative, &below);
        let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
        if !on_the_way || (is_directory && is_cache_directory(entry.path())) {
            return false;
        }
        // Only a directory that the walk enters has ignore files. A check of every file would cost
        // more than the walk.
        if !is_directory || !ignore {
            return true;
        }
        check_ignore_files(entry.path()).map_err(|error| *problem_of_filter.lock() = Some(error)).is_ok()
    };
    let walk = WalkBuilder::new(project)
        .hidden(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .git_ignore(ignore)
        .ignore(ignore)
        .filter_entry(is_wanted)
        .threads(THREADS)
        .build_parallel();
    let collected = Mutex::new(Ok(Listing::default()));
    walk.visit(&mut Collectors { project, collected: &collected });
    if let Some(error) = problem.lock().take() {
        return Err(error);
    }
    let mut listing = collected.into_inner()?;
    listing.sort_files();
    listing.sort_unexamined();
    Ok(listing)
}

/// Checks that the ignore files of a directory can be read as a whole. The walk reads them itself,
/// and would wait for the other end of a pipe, or read a device without end.
fn check_ignore_files(directory: &Path) -> Result<(), Error> {
    for name in IGNORE_FILES {
        let path = directory.join(name);
        let Ok(metadata) = path.metadata() else { continue };
        let problem = match metadata.file_type() {
            kind if kind.is_file() && metadata.len() <= IGNORE_FILE_BYTES_MAX => continue,
            kind if kind.is_file() => format!("the file is larger than {IGNORE_FILE_BYTES_MAX} bytes"),
            kind if kind.is_dir() => continue,
            _ => "it is a pipe, a socket or a device: expected a file".to_owned(),
        };
        return Err(Error::io("read", &path)(std::io::Error::other(problem)));
    }
    Ok(())
}

struct Collectors<'a> {
    project: &'a Path,
    collected: &'a Mutex<Result<Listing, Error>>,
}

/// The files that one thread finds. They are added to those of the other threads when it is
/// dropped.
struct Collector<'a> {
    project: &'a Path,
    collected: &'a Mutex<Result<Listing, Error>>,
    found: Listing,
}

impl<'a> ParallelVisitorBuilder<'a> for Collectors<'a> {
    fn build(&mut self) -> Box<dyn ParallelVisitor + 'a> {
        let (project, collected) = (self.project, self.collected);
        Box::new(Collector { project, collected, found: Listing::default() })
    }
}

impl ParallelVisitor for Collector<'_> {
    fn visit(&mut self, entry: Result<DirEntry, ignore::Error>) -> WalkState {
        let added = match entry {
            Ok(entry) => self.add(&entry),
            // A directory was removed after its parent was listed.
            Err(error) if is_not_found(&error) && self.project.exists() => Ok(()),
            Err(error) if error.io_error().is_some_and(is_too_long) => {
                self.add_unexamined(path_of(&error).unwrap_or(self.project));
                Ok(())
            }
            Err(error) if error.io_error().is_some_and(is_denied) && self.is_below(&error) => {
                self.found.denied.push(walk_error(self.project, error));
                Ok(())
            }
            Err(error) => Err(walk_error(self.project, error)),
        };
        match added {
            Ok(()) => WalkState::Continue,
            Err(error) => {
                *self.collected.lock() = Err(error);
                WalkState::Quit
            }
        }
    }
}

impl Collector<'_> {
    fn add(&mut self, entry: &DirEntry) -> Result<(), Error> {
        let is_wanted = |kind: &FileType| kind.is_file() || kind.is_symlink() || kind.is_dir();
        let Some(kind) = entry.file_type().filter(is_wanted) else { return Ok(()) };
        let metadata = match std::fs::symlink_metadata(entry.path()) {
            Ok(metadata) => metadata,
            // The file was removed after its directory was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if is_too_long(&error) => {
                self.add_unexamined(entry.path());
                return Ok(());
            }
            Err(source) => return Err(Error::io("read the metadata of", entry.path())(source)),
        };
        let path = entry.path().strip_prefix(self.project).unwrap_or(entry.path()).to_owned();
        let stamp = FileStamp::from_metadata(&metadata);
        if kind.is_dir() {
            self.found.directories.push((path, stamp));
        } else {
            self.found.files.push(FoundFile { path, stamp, is_link: kind.is_symlink(), is_ignored: false });
        }
        Ok(())
    }

    /// Returns whether an error is about something in the project, and not the project itself.
    fn is_below(&self, error: &ignore::Error) -> bool {
        path_of(error).is_some_and(|path| path != self.project)
    }

    fn add_unexamined(&mut self, path: &Path) {
        self.found.unexamined.push(path.strip_prefix(self.project).unwrap_or(path).to_owned());
    }
}

impl Drop for Collector<'_> {
    fn drop(&mut self) {
        if let Ok(all) = &mut *self.collected.lock() {
            all.append(&mut self.found);
        }
    }
}

/// Returns whether the user lacks a permission.
pub(crate) fn is_denied(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

/// Returns whether a path is longer than the kernel accepts. Such a file exists if it was created
/// relative to its directory.
fn is_too_long(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENAMETOOLONG)
}

fn is_not_found(error: &ignore::Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn walk_error(project: &Path, error: ignore::Error) -> Error {
    let path = path_of(&error).unwrap_or(project).to_owned();
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(text));
    Error::io("list the files of", path)(source)
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
    }
}
