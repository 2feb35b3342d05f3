//! Manifests: the input files of a project at one moment, with a content hash of each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use greenwave_dir::wait_for_leases;

use crate::Error;
use crate::codec::path_bytes;
use crate::git_index;
use crate::selection::{InputSpec, Selection};
use crate::stamp::FileStamp;
use crate::walk::{self, FoundFile, WalkRoots};

/// The input files of a project, with a content hash of each.
///
/// Two manifests are equal if they list the same paths with the same [entries](ManifestEntry).
/// Timestamps do not matter. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Manifest {
    lines: Arc<[ManifestLine]>,
    unexamined: Option<Arc<Path>>,
    digest: Arc<OnceLock<[u8; 32]>>,
}

/// One file of a manifest.
#[derive(Debug, Clone)]
pub struct ManifestLine {
    /// The path relative to the project.
    pub path: PathBuf,
    /// The kind and content hash.
    pub entry: ManifestEntry,
    /// The metadata at the time when the content was read.
    pub stamp: FileStamp,
}

/// The kind and content hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The kind of file.
    pub kind: EntryKind,
    /// The BLAKE3 hash of the content. For a symbolic link: of the text of the link, and of the
    /// entry of the file at its end, if it leads to one.
    pub hash: [u8; 32],
}

/// The kinds of input files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file.
    Regular = 0,
    /// A regular file that its owner may execute.
    Executable = 1,
    /// A symbolic link.
    Symlink = 2,
}

impl EntryKind {
    /// Returns the kind of a regular file.
    pub(crate) fn of(stamp: &FileStamp) -> Self {
        if stamp.mode & 0o100 != 0 { EntryKind::Executable } else { EntryKind::Regular }
    }

    /// Returns the kind with a number (0 to 2), as stored in keys and records.
    pub fn from_number(number: u8) -> Option<Self> {
        [EntryKind::Regular, EntryKind::Executable, EntryKind::Symlink]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

impl Manifest {
    /// Reads all files of a project that its ignore files do not exclude.
    ///
    /// Blocks while it lists and hashes the files. [`ProjectFiles`](crate::ProjectFiles) avoids
    /// most of that work when manifests are taken repeatedly.
    ///
    /// # Errors
    /// [`Error::Io`] with the file or directory that cannot be read.
    pub fn of_project(project: &Path) -> Result<Self, Error> {
        Self::collect(project, &Selection::everything())
    }

    /// Like [`of_project`](Self::of_project), but leaves out files and directories that the user
    /// has no permission to read. Returns the error of each as well, in the order of their paths.
    ///
    /// # Errors
    /// Those of [`of_project`](Self::of_project), for other reasons.
    pub fn of_readable_project(project: &Path) -> Result<(Self, Vec<Error>), Error> {
        let selection = Selection::everything();
        let roots = WalkRoots::of(std::iter::once(&selection));
        let listing = walk::list_readable_below(project, &roots)?;
        let (mut lines, mut denied) = (Vec::new(), listing.denied);
        for found in
            listing.files.into_iter().filter(|found| selection.includes(&found.path, found.is_ignored))
        {
            match ManifestEntry::read(&project.join(&found.path), found.is_link) {
                Ok((entry, stamp)) => lines.push(ManifestLine { path: found.path, entry, stamp }),
                Err(error) if error.is_denied() => denied.push(error),
                Err(error) => return Err(error),
            }
        }
        denied.sort_by(|one, other| one.path().cmp(&other.path()));
        Ok((Self::new(lines, &selection, &listing.unexamined), denied))
    }

    /// Reads the files of a project that a specification selects. The result may be empty.
    ///
    /// Ignored files are included only if a pattern matches them. The directories of version
    /// control and directories tagged as caches are always excluded.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`], or [`Error::Io`] with the file or directory that cannot be read.
    pub fn read(project: &Path, spec: &InputSpec) -> Result<Self, Error> {
        Self::collect(project, &Selection::of(spec)?)
    }

    fn collect(project: &Path, selection: &Selection) -> Result<Self, Error> {
        let read = |found: &FoundFile| ManifestEntry::read(&project.join(&found.path), found.is_link);
        Self::collect_with(project, selection, read)
    }

    /// Reads the files of a project that a selection includes with a function.
    pub(crate) fn collect_with(
        project: &Path,
        selection: &Selection,
        read: impl Fn(&FoundFile) -> Result<(ManifestEntry, FileStamp), Error>,
    ) -> Result<Self, Error> {
        let mut lines = Vec::new();
        let listing = walk::list(project, &[selection])?;
        for found in listing.files {
            if selection.includes(&found.path, found.is_ignored) {
                let (entry, stamp) = read(&found)?;
                lines.push(ManifestLine { path: found.path, entry, stamp });
            }
        }
        Ok(Self::new(lines, selection, &listing.unexamined))
    }

    /// Creates a manifest of files that a selection includes. `unexamined` are the paths that the
    /// listing could not examine.
    pub(crate) fn new(mut lines: Vec<ManifestLine>, selection: &Selection, unexamined: &[PathBuf]) -> Self {
        lines.sort_by(|one, other| path_bytes(&one.path).cmp(path_bytes(&other.path)));
        let unexamined =
            unexamined.iter().find(|path| selection.may_include(path)).map(|path| path.as_path().into());
        Self { lines: lines.into(), unexamined, digest: Arc::default() }
    }

    /// Returns a path at or below which the selection may include files that could not be examined,
    /// because their paths are longer than the kernel accepts.
    pub fn unexamined(&self) -> Option<&Path> {
        self.unexamined.as_deref()
    }

    /// Returns the files in the order of the bytes of their paths.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Path, ManifestEntry)> {
        self.lines.iter().map(|line| (line.path.as_path(), line.entry))
    }

    /// Returns the number of files.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns whether the manifest lists no file.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns whether both are clones of one manifest.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lines, &other.lines)
    }

    /// Returns the line of a path.
    pub fn get(&self, path: &Path) -> Option<&ManifestLine> {
        let at = self.lines.binary_search_by(|line| path_bytes(&line.path).cmp(path_bytes(path))).ok()?;
        Some(&self.lines[at])
    }

    /// Returns the first file that was changed, created, removed or touched between two manifests.
    /// A file that was changed and changed back is recognized by its stamp.
    pub fn first_touched<'a>(&'a self, later: &'a Self) -> Option<&'a Path> {
        self.first_touched_except(later, |_, _| false)
    }

    /// Like [`first_touched`](Self::first_touched), but without files of equal content whose stamps
    /// differ for a known reason.
    pub fn first_touched_except<'a>(
        &'a self,
        later: &'a Self,
        is_explained: impl Fn(&ManifestLine, &ManifestLine) -> bool,
    ) -> Option<&'a Path> {
        if self.ptr_eq(later) {
            return None;
        }
        let is_same = |one: &ManifestLine, other: &ManifestLine| {
            one.entry == other.entry && (one.stamp == other.stamp || is_explained(one, other))
        };
        let changed =
            self.lines.iter().find(|line| !later.get(&line.path).is_some_and(|it| is_same(line, it)));
        let created = later.lines.iter().find(|line| self.get(&line.path).is_none());
        let paths = changed.into_iter().chain(created).map(|line| line.path.as_path());
        paths.min_by(|one, other| path_bytes(one).cmp(path_bytes(other)))
    }

    /// Returns the first file whose content, mode or timestamps were last changed at a time, in
    /// nanoseconds since the Unix epoch, or later.
    pub fn changed_since(&self, time: i64) -> Option<&Path> {
        self.lines.iter().find(|line| line.stamp.changed >= time).map(|line| line.path.as_path())
    }

    /// Returns the BLAKE3 hash of all paths and entries. It is computed once.
    pub fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(self.lines.len() as u64).to_le_bytes());
            for ManifestLine { path, entry, .. } in self.lines.iter() {
                hasher.update(&(path_bytes(path).len() as u64).to_le_bytes()).update(path_bytes(path));
                hasher.update(&[entry.kind as u8]).update(&entry.hash);
            }
            // Results of a project with unexamined files must not be found in one without.
            if let Some(path) = &self.unexamined {
                hasher.update(path_bytes(path));
            }
            *hasher.finalize().as_bytes()
        })
    }
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.unexamined == other.unexamined && self.files().eq(other.files())
    }
}

impl Eq for Manifest {}

/// Maximum number of attempts to read a file that changes while it is read.
const READS_MAX: u32 = 4;

impl ManifestEntry {
    /// Reads a regular file, or a symbolic link and the file at its end. The stamp belongs to the
    /// content that was read.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, is not a regular file, or keeps changing.
    pub fn read(path: &Path, is_link: bool) -> Result<(Self, FileStamp), Error> {
        let failed = || Error::io("read", path);
        if !is_link {
            return hash_regular_file(path, libc::O_NOFOLLOW).map_err(failed());
        }
        let stamp = FileStamp::from_metadata(&fs::symlink_metadata(path).map_err(failed())?);
        let target = fs::read_link(path).map_err(failed())?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(path_bytes(&target).len() as u64).to_le_bytes()).update(path_bytes(&target));
        // A dangling link, a circle of links or a link to a directory is identified by its text
        // alone.
        if let Ok((entry, _)) = hash_file(path) {
            hasher.update(&[entry.kind as u8]).update(&entry.hash);
        }
        Ok((Self { kind: EntryKind::Symlink, hash: *hasher.finalize().as_bytes() }, stamp))
    }
}

/// Hashes a regular file, following symbolic links. Never waits for a pipe or a device. The
/// timestamps in an index of git do not count.
///
/// # Errors
/// The error of the operating system. Files that are not regular, and files that change during four
/// attempts to read them, are errors as well.
pub fn hash_file(path: &Path) -> io::Result<(ManifestEntry, FileStamp)> {
    hash_regular_file(path, 0)
}

pub(crate) fn hash_regular_file(path: &Path, flags: i32) -> io::Result<(ManifestEntry, FileStamp)> {
    let mut buffer = Vec::new();
    for _ in 0..READS_MAX {
        let open = || OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path);
        let mut file = wait_for_leases(open)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let stamp = FileStamp::from_metadata(&before);
        let mut hash = hash_content(&mut file, stamp.size, &mut buffer)?;
        let is_whole = u64::try_from(buffer.len()).is_ok_and(|read| read == stamp.size);
        if is_whole && git_index::is_index(path) {
            hash = git_index::digest(&buffer).unwrap_or(hash);
        }
        if FileStamp::from_metadata(&file.metadata()?) == stamp {
            return Ok((ManifestEntry { kind: EntryKind::of(&stamp), hash }, stamp));
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the file changes while it is read"))
}

/// Hashes the content of a file. Reads up to 1 MiB at once and the rest in small parts.
fn hash_content(file: &mut File, size: u64, buffer: &mut Vec<u8>) -> io::Result<[u8; 32]> {
    const WHOLE_BYTES_MAX: u64 = 1 << 20;
    buffer.clear();
    buffer.reserve(usize::try_from(size.min(WHOLE_BYTES_MAX)).unwrap_or(0) + 1);
    file.by_ref().take(WHOLE_BYTES_MAX).read_to_end(buffer)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(buffer).update_reader(file)?;
    Ok(*hasher.finalize().as_bytes())
}
