//! Which files there are in a project's folder. Knows nothing of what they are for.

use std::fs::{File, FileType};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::{DirEntry, ParallelVisitor, ParallelVisitorBuilder, WalkBuilder, WalkState};
use parking_lot::Mutex;

use crate::Error;
use crate::codec::path_bytes;
use crate::selection::{Selection, is_on_the_way};
use crate::stamp::FileStamp;

/// What version control and Greenwave itself keep beside a project: never a part of it. In a linked work
/// tree `.git` is a file, with another content in each.
pub const ALWAYS_EXCLUDED: [&str; 4] = [".git", ".hg", ".jj", ".greenwave"];

/// How a folder says that everything in it can be made again, as cargo's target folder does
/// (<https://bford.info/cachedir/>). Told by this and not by a name: `src/target/` may well be source.
const CACHE_TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// Threads that list a large project.
const THREADS: usize = 2;

/// A file or a link of a project.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// Relative to the project's folder.
    pub path: PathBuf,
    pub stamp: FileStamp,
    pub is_link: bool,
    /// Whether the project's ignore files name it.
    pub is_ignored: bool,
}

/// What there was to be found, and the directories that it was found in.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// In the order of the paths' bytes.
    pub files: Vec<FoundFile>,
    pub directories: Vec<(PathBuf, FileStamp)>,
    /// What could not be looked at, since its path is longer than the system takes. Nobody knows what is in there.
    pub unexamined: Vec<PathBuf>,
    /// The files in these that say what is ignored, of which they may themselves be, with the stamps of what they lead to if they are links.
    pub ignore_files: Vec<(PathBuf, FileStamp)>,
}

/// Below which paths is looked for files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WalkRoots {
    pub(crate) all: Arc<[PathBuf]>,
    /// Those below which ignored files count as well.
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

/// Lists the files that at least one of these selections may include.
pub fn list_files(project: &Path, selections: &[&Selection]) -> Result<Vec<FoundFile>, Error> {
    Ok(list(project, selections)?.files)
}

pub(crate) fn list(project: &Path, selections: &[&Selection]) -> Result<Listing, Error> {
    list_below(project, &WalkRoots::of(selections.iter().copied()))
}

/// Everything below some paths, and at them.
pub(crate) fn list_below(
    project: &Path,
    WalkRoots { all: roots, patterns }: &WalkRoots,
) -> Result<Listing, Error> {
    if roots.is_empty() {
        return Ok(Listing::default());
    }
    let Listing { files: mut found, mut directories, mut unexamined, .. } = walk(project, roots, true)?;
    let ignore_files = ignore_files(project, &directories);
    if !patterns.is_empty() && !ignore_files.is_empty() {
        let all = walk(project, patterns, false)?;
        directories.extend(all.directories);
        unexamined.extend(all.unexamined);
        unexamined.sort_unstable();
        unexamined.dedup_by(|below, above| below.starts_with(above));
        directories.sort_unstable_by(|one, other| path_bytes(&one.0).cmp(path_bytes(&other.0)));
        directories.dedup_by(|one, other| one.0 == other.0);
        let ignored = all.files.into_iter().filter(|file| {
            found.binary_search_by(|known| path_bytes(&known.path).cmp(path_bytes(&file.path))).is_err()
        });
        let ignored: Vec<FoundFile> = ignored.map(|file| FoundFile { is_ignored: true, ..file }).collect();
        found.extend(ignored);
        sort(&mut found);
    }
    Ok(Listing { files: found, directories, ignore_files, unexamined })
}

/// The files that say what is ignored: in directories on the way as well, below which only some is looked for.
fn ignore_files(project: &Path, directories: &[(PathBuf, FileStamp)]) -> Vec<(PathBuf, FileStamp)> {
    const NAMES: [&str; 2] = [".gitignore", ".ignore"];
    let paths = directories.iter().flat_map(|(folder, _)| NAMES.map(|name| folder.join(name)));
    let stamp = |path: PathBuf| {
        let metadata = std::fs::metadata(project.join(&path)).ok()?;
        Some((path, FileStamp::from_metadata(&metadata)))
    };
    paths.filter_map(stamp).collect()
}

/// Those that are not below another, sorted.
fn outermost<'a>(roots: impl Iterator<Item = &'a Path>) -> Arc<[PathBuf]> {
    let mut sorted: Vec<&Path> = roots.collect();
    sorted.sort_unstable_by(|one, other| path_bytes(one).cmp(path_bytes(other)));
    sorted.dedup();
    let mut kept: Vec<PathBuf> = Vec::with_capacity(sorted.len());
    for root in sorted {
        // By bytes, `a-b` comes between `a` and `a/b`: all that are above come before, but not always just before.
        let is_below = root
            .ancestors()
            .skip(1)
            .any(|above| kept.binary_search_by(|it| path_bytes(it).cmp(path_bytes(above))).is_ok());
        if !is_below {
            kept.push(root.to_owned());
        }
    }
    kept.into()
}

fn sort(found: &mut [FoundFile]) {
    found.sort_unstable_by(|one, other| path_bytes(&one.path).cmp(path_bytes(&other.path)));
}

fn walk(project: &Path, roots: &Arc<[PathBuf]>, ignore: bool) -> Result<Listing, Error> {
    let whole = roots.iter().any(|root| root.as_os_str().is_empty());
    let (base, below) = (project.to_owned(), Arc::clone(roots));
    let wanted = move |entry: &DirEntry| {
        if ALWAYS_EXCLUDED.iter().any(|name| entry.file_name() == *name) {
            return false;
        }
        let relative = entry.path().strip_prefix(&base).unwrap_or(entry.path());
        let on_the_way = whole || relative.as_os_str().is_empty() || is_on_the_way(relative, &below);
        on_the_way
            && !(entry.file_type().is_some_and(|kind| kind.is_dir()) && is_cache_directory(entry.path()))
    };
    let walk = WalkBuilder::new(project)
        .hidden(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .git_ignore(ignore)
        .ignore(ignore)
        .filter_entry(wanted)
        .threads(THREADS)
        .build_parallel();
    let collected = Mutex::new(Ok(Listing::default()));
    walk.visit(&mut Collectors { project, collected: &collected });
    let mut listing = collected.into_inner()?;
    sort(&mut listing.files);
    listing.unexamined.sort_unstable();
    // What is left out is so with all below.
    listing.unexamined.dedup_by(|below, above| below.starts_with(above));
    Ok(listing)
}

struct Collectors<'a> {
    project: &'a Path,
    collected: &'a Mutex<Result<Listing, Error>>,
}

/// What one thread finds, put together with the others' in the end.
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
        let taken = match entry {
            Ok(entry) => self.take(&entry),
            // A folder that is gone since it was listed.
            Err(error) if is_gone(&error) && self.project.exists() => Ok(()),
            Err(error) if error.io_error().is_some_and(is_too_long) => {
                self.leave_out(place(&error).unwrap_or(self.project));
                Ok(())
            }
            Err(error) => Err(walk_error(self.project, error)),
        };
        match taken {
            Ok(()) => WalkState::Continue,
            Err(error) => {
                *self.collected.lock() = Err(error);
                WalkState::Quit
            }
        }
    }
}

impl Collector<'_> {
    fn take(&mut self, entry: &DirEntry) -> Result<(), Error> {
        let is_wanted = |kind: &FileType| kind.is_file() || kind.is_symlink() || kind.is_dir();
        let Some(kind) = entry.file_type().filter(is_wanted) else { return Ok(()) };
        let relative = entry.path().strip_prefix(self.project).unwrap_or(entry.path());
        let metadata = match std::fs::symlink_metadata(entry.path()) {
            Ok(metadata) => metadata,
            // Gone since it was listed: as good as gone before.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if is_too_long(&error) => {
                self.leave_out(entry.path());
                return Ok(());
            }
            Err(source) => return Err(Error::io("look at", entry.path())(source)),
        };
        let (path, stamp, is_link) =
            (relative.to_owned(), FileStamp::from_metadata(&metadata), kind.is_symlink());
        match kind.is_dir() {
            true => self.found.directories.push((path, stamp)),
            false => self.found.files.push(FoundFile { path, stamp, is_link, is_ignored: false }),
        }
        Ok(())
    }
}

impl Collector<'_> {
    fn leave_out(&mut self, path: &Path) {
        self.found.unexamined.push(path.strip_prefix(self.project).unwrap_or(path).to_owned());
    }
}

impl Drop for Collector<'_> {
    fn drop(&mut self) {
        if let Ok(all) = &mut *self.collected.lock() {
            all.files.append(&mut self.found.files);
            all.directories.append(&mut self.found.directories);
            all.unexamined.append(&mut self.found.unexamined);
        }
    }
}

pub fn is_cache_directory(folder: &Path) -> bool {
    let (name, signature) = CACHE_TAG;
    let mut start = vec![0; signature.len()];
    File::open(folder.join(name)).and_then(|mut tag| tag.read_exact(&mut start)).is_ok() && start == signature
}

/// Whether a path is longer than the system takes: it can be there all the same, made step by step.
fn is_too_long(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENAMETOOLONG)
}

fn is_gone(error: &ignore::Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn walk_error(project: &Path, error: ignore::Error) -> Error {
    let path = place(&error).unwrap_or(project).to_owned();
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(text));
    Error::io("list the files of", path)(source)
}

fn place(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => place(err),
        _ => None,
    }
}
