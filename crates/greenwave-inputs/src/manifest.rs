//! The state of files at one moment: what identifies each, and which of a project's files there are. Knows nothing of tests, commands or
//! results.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::codec::path_bytes;
use crate::selection::{InputSpec, Selection};
use crate::stamp::FileStamp;
use crate::{Error, walk};

/// Input files by relative path, with what identifies each.
#[derive(Debug, Clone)]
pub struct Manifest {
    lines: Arc<[ManifestLine]>,
    /// The first that may be one of them, and cannot be looked at.
    unexamined: Option<Arc<Path>>,
    digest: Arc<OnceLock<[u8; 32]>>,
}

/// One file of a manifest.
#[derive(Debug, Clone)]
pub struct ManifestLine {
    pub path: PathBuf,
    pub entry: Entry,
    pub stamp: FileStamp,
}

/// What identifies one input file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whether it may be executed, or is a symbolic link.
    pub kind: EntryKind,
    /// BLAKE3 of its content. Of a symbolic link: of its target's text, and of the content of the file that it leads to, if it does.
    pub hash: [u8; 32],
}

/// The kinds of input files that are told apart.
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
    /// The kind with this number, as it stands in keys and records.
    pub fn from_number(number: u8) -> Option<Self> {
        [EntryKind::Regular, EntryKind::Executable, EntryKind::Symlink]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

impl Manifest {
    /// Files that a selection has, of a listing that could not look at some.
    pub fn new(mut lines: Vec<ManifestLine>, selection: &Selection, unexamined: &[PathBuf]) -> Self {
        lines.sort_by(|one, other| path_bytes(&one.path).cmp(path_bytes(&other.path)));
        let unexamined =
            unexamined.iter().find(|path| selection.may_have(path)).map(|path| path.as_path().into());
        Self { lines: lines.into(), unexamined, digest: Arc::default() }
    }

    /// Below which path there may be files that belong here and could not be looked at.
    pub fn unexamined(&self) -> Option<&Path> {
        self.unexamined.as_deref()
    }

    /// Reads the state of all files of a project that its ignore files do not name; there may be none.
    ///
    /// # Errors
    /// [`Error::Io`] with the file that cannot be read.
    pub fn of_project(project: &Path) -> Result<Self, Error> {
        Self::collect(project, &Selection::everything())
    }

    /// Reads the state of a test's inputs in a project's folder.
    ///
    /// Files that the project's ignore files name count only where a pattern names them. Version control's own
    /// files and directories tagged as caches are left out always.
    ///
    /// There may be none: what a test reads may not have been written yet.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`], or [`Error::Io`] with the file that cannot be read.
    pub fn read(project: &Path, spec: &InputSpec) -> Result<Self, Error> {
        Self::collect(project, &Selection::of(spec)?)
    }

    fn collect(project: &Path, selection: &Selection) -> Result<Self, Error> {
        let mut lines = Vec::new();
        let listing = walk::list(project, &[selection])?;
        for found in listing.files {
            if selection.includes(&found.path, found.is_ignored) {
                let (entry, stamp) = Entry::read(&project.join(&found.path), found.is_link)?;
                lines.push(ManifestLine { path: found.path, entry, stamp });
            }
        }
        Ok(Self::new(lines, selection, &listing.unexamined))
    }

    /// The files in the order of their paths' bytes.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Path, Entry)> {
        self.lines.iter().map(|line| (line.path.as_path(), line.entry))
    }

    /// Whether it is this very one.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lines, &other.lines)
    }

    /// Returns the number of files.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn get(&self, path: &Path) -> Option<&ManifestLine> {
        let at = self.lines.binary_search_by(|line| path_bytes(&line.path).cmp(path_bytes(path))).ok()?;
        Some(&self.lines[at])
    }

    /// The first file that is not the same in the other manifest, or is missing in one of them.
    pub fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a Path> {
        self.differ_by(other, |one, other| one.entry == other.entry)
    }

    /// The first file that has been touched between the two: what was changed and changed back is found by its stamp.
    pub fn first_touched<'a>(&'a self, later: &'a Self) -> Option<&'a Path> {
        self.differ_by(later, |one, other| one.entry == other.entry && one.stamp == other.stamp)
    }

    fn differ_by<'a>(
        &'a self,
        other: &'a Self,
        same: impl Fn(&ManifestLine, &ManifestLine) -> bool,
    ) -> Option<&'a Path> {
        if Arc::ptr_eq(&self.lines, &other.lines) {
            return None;
        }
        let changed = self.lines.iter().find(|line| !other.get(&line.path).is_some_and(|it| same(line, it)));
        let added = other.lines.iter().find(|line| self.get(&line.path).is_none());
        let paths = changed.into_iter().chain(added).map(|line| line.path.as_path());
        paths.min_by(|one, other| path_bytes(one).cmp(path_bytes(other)))
    }

    /// A hash of all of it.
    pub fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(self.lines.len() as u64).to_le_bytes());
            for ManifestLine { path, entry, .. } in self.lines.iter() {
                hasher.update(&(path_bytes(path).len() as u64).to_le_bytes()).update(path_bytes(path));
                hasher.update(&[entry.kind as u8]).update(&entry.hash);
            }
            // What is known of a project without it is not known of one with it.
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

/// How often a file is read again that changes while it is read.
const READS_MAX: u32 = 4;

impl Entry {
    /// Reads a file, or what a link says and leads to. The stamp belongs to what was read.
    pub fn read(path: &Path, is_link: bool) -> Result<(Self, FileStamp), Error> {
        let failed = || Error::io("read", path);
        if is_link {
            let stamp = FileStamp::from_metadata(&fs::symlink_metadata(path).map_err(failed())?);
            let target = fs::read_link(path).map_err(failed())?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(path_bytes(&target).len() as u64).to_le_bytes()).update(path_bytes(&target));
            // A link that leads nowhere, in a circle, or to a folder is known by its text alone.
            if let Ok((entry, _)) = hash_file(path) {
                hasher.update(&[entry.kind as u8]).update(&entry.hash);
            }
            return Ok((Self { kind: EntryKind::Symlink, hash: *hasher.finalize().as_bytes() }, stamp));
        }
        hash_file_with(path, libc::O_NOFOLLOW).map_err(failed())
    }
}

/// Reads a regular file and what belongs to its content. Never waits for a pipe or a device.
pub fn hash_file(path: &Path) -> io::Result<(Entry, FileStamp)> {
    hash_file_with(path, 0)
}

fn hash_file_with(path: &Path, flags: i32) -> io::Result<(Entry, FileStamp)> {
    let mut buffer = Vec::new();
    for _ in 0..READS_MAX {
        let mut file = OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let stamp = FileStamp::from_metadata(&before);
        let hash = hash(&mut file, stamp.size, &mut buffer)?;
        if FileStamp::from_metadata(&file.metadata()?) == stamp {
            let kind = if stamp.mode & 0o100 != 0 { EntryKind::Executable } else { EntryKind::Regular };
            return Ok((Entry { kind, hash }, stamp));
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changes all the time"))
}

fn hash(file: &mut File, size: u64, buffer: &mut Vec<u8>) -> io::Result<[u8; 32]> {
    const WHOLE_BYTES_MAX: u64 = 1 << 20;
    buffer.clear();
    buffer.reserve(usize::try_from(size.min(WHOLE_BYTES_MAX)).unwrap_or(0) + 1);
    // A file that fits is read in one go; a large one is never held whole.
    file.by_ref().take(WHOLE_BYTES_MAX).read_to_end(buffer)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(buffer).update_reader(file)?;
    Ok(*hasher.finalize().as_bytes())
}
