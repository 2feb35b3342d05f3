//! A cache of directory listings, so that unchanged directories are not listed again: a directory
//! whose stamp is unchanged contains the same names.
//!
//! The cache is one file, replaced as a whole; `docs/formats/state.md` describes its layout.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};

use crate::Error;
use crate::codec::{Header, path_bytes};
use crate::manifest::{EntryKind, ManifestEntry, hash_file};
use crate::seal::StateSeal;
use crate::selection::Selection;
use crate::stamp::{FileStamp, now_ns};
use crate::walk::{FoundFile, Listing, WalkRoots, list_below};

const HEADER: Header = Header { magic: [0xF5, b'G', b'W', b'T'], version: 3 };
const LINK: u8 = 1;
const IGNORED: u8 = 2;
/// Maximum number of threads that read the stamps of a large project.
const THREADS_MAX: usize = 4;
/// Number of files that are worth one more thread.
const FILES_PER_THREAD: usize = 1000;

/// The listing of a project at an earlier time.
#[derive(Debug)]
pub struct DirCache {
    roots_digest: [u8; 32],
    directories: Vec<(PathBuf, FileStamp)>,
    ignore_files: Vec<(PathBuf, FileStamp)>,
    ignore_contents: Vec<(PathBuf, ManifestEntry)>,
    files: Vec<CachedFile>,
    is_saved: bool,
    /// Whether later runs can trust the stamps.
    is_durable: bool,
}

#[derive(Debug)]
struct CachedFile {
    path: PathBuf,
    is_link: bool,
    is_ignored: bool,
}

/// Directories and ignore files of a project whose stamps later runs can trust.
#[derive(Debug, Clone)]
pub struct DurableDirectories {
    /// The directories that were listed, relative to the project.
    pub directories: Vec<(PathBuf, FileStamp)>,
    /// The ignore files (`.gitignore`, `.ignore`) in them, with the stamps of the files that they
    /// resolve to, except for those [in memory](FileStamp::is_in_memory).
    pub ignore_files: Vec<(PathBuf, FileStamp)>,
    /// The contents of the ignore files in memory.
    pub ignore_contents: Vec<(PathBuf, ManifestEntry)>,
}

/// Lists files like [`list_files`](crate::list_files), with the directories and ignore files whose
/// stamps show later runs that the names are the same; `None` instead if they cannot trust the
/// stamps.
///
/// # Errors
/// Those of [`list_files`](crate::list_files).
pub fn list_files_durably(
    project: &Path,
    selections: &[&Selection],
) -> Result<(Vec<FoundFile>, Option<DurableDirectories>), Error> {
    let (at, roots) = (now_ns(), WalkRoots::of(selections.iter().copied()));
    let listing = list_below(project, &roots)?;
    let durable = DirCache::of(project, &listing, &roots, at);
    Ok((listing.files, durable.and_then(|cache| cache.durable_directories())))
}

impl DirCache {
    /// Decodes a cache that an earlier run has saved. Returns `None` if it is damaged.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let mut reader = HEADER.checked_reader(content)?;
        let roots_digest = reader.array()?;
        let mut count = || reader.count();
        let [directory_count, ignore_file_count, ignore_content_count, file_count] =
            [count()?, count()?, count()?, count()?];
        let mut stamped = |count: usize| -> Option<Vec<(PathBuf, FileStamp)>> {
            (0..count).map(|_| Some((reader.path()?, FileStamp::decode(&mut reader)?))).collect()
        };
        let (directories, ignore_files) = (stamped(directory_count)?, stamped(ignore_file_count)?);
        let mut ignore_contents = Vec::new();
        for _ in 0..ignore_content_count {
            let (path, kind) = (reader.path()?, EntryKind::from_number(reader.byte()?)?);
            ignore_contents.push((path, ManifestEntry { kind, hash: reader.array()? }));
        }
        let mut files = Vec::new();
        for _ in 0..file_count {
            let (path, flags) = (reader.path()?, reader.byte()?);
            files.push(CachedFile { path, is_link: flags & LINK != 0, is_ignored: flags & IGNORED != 0 });
        }
        Some(Self {
            roots_digest,
            directories,
            ignore_files,
            ignore_contents,
            files,
            is_saved: true,
            is_durable: true,
        })
    }

    /// Creates a cache from a listing of a project that was made at `at`. Returns `None` if a stamp
    /// was racy then, or if paths could not be examined. Reads the ignore files in memory.
    pub(crate) fn of(project: &Path, listing: &Listing, roots: &WalkRoots, at: i64) -> Option<Self> {
        if !listing.unexamined.is_empty() {
            return None;
        }
        let (in_memory, ignore_files): (Vec<_>, Vec<_>) =
            listing.ignore_files.iter().cloned().partition(|(_, stamp)| stamp.is_in_memory());
        let mut stamps = listing.directories.iter().chain(&ignore_files).map(|(_, stamp)| stamp);
        if stamps.clone().any(|stamp| stamp.is_racy_within_run(at)) {
            return None;
        }
        let is_durable = !stamps.any(|stamp| stamp.is_racy(at));
        let content = |(path, _): (PathBuf, FileStamp)| {
            let (entry, _) = hash_file(&project.join(&path)).ok()?;
            Some((path, entry))
        };
        let cached = |file: &FoundFile| CachedFile {
            path: file.path.clone(),
            is_link: file.is_link,
            is_ignored: file.is_ignored,
        };
        Some(Self {
            roots_digest: digest(roots),
            directories: listing.directories.clone(),
            ignore_files,
            ignore_contents: in_memory.into_iter().map(content).collect::<Option<_>>()?,
            files: listing.files.iter().map(cached).collect(),
            is_saved: false,
            is_durable,
        })
    }

    /// Returns the directories and ignore files if later runs can trust their stamps.
    pub(crate) fn durable_directories(&self) -> Option<DurableDirectories> {
        let directories = || DurableDirectories {
            directories: self.directories.clone(),
            ignore_files: self.ignore_files.clone(),
            ignore_contents: self.ignore_contents.clone(),
        };
        self.is_durable.then(directories)
    }

    /// Returns the files with their current stamps, or `None` if a file may have been created,
    /// removed or replaced by a link since the listing.
    pub(crate) fn refresh(&self, project: &Path, roots: &WalkRoots) -> Option<Vec<FoundFile>> {
        if self.roots_digest != digest(roots) {
            return None;
        }
        let has_content = |(path, cached): &(PathBuf, ManifestEntry)| {
            hash_file(&project.join(path)).is_ok_and(|(entry, _)| entry == *cached)
        };
        if !self.ignore_contents.iter().all(has_content) {
            return None;
        }
        let project = Project::open(project)?;
        let is_unchanged = |(path, cached): &(PathBuf, FileStamp)| {
            project.stamp(path, AtFlags::empty()).as_ref() == Some(cached)
        };
        if !self.ignore_files.iter().all(is_unchanged) {
            return None;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(THREADS_MAX).min(self.files.len() / FILES_PER_THREAD).max(1);
        let share = |count: usize| count.div_ceil(threads).max(1);
        let mut directories = self.directories.chunks(share(self.directories.len()));
        let mut files = self.files.chunks(share(self.files.len()));
        let project = &project;
        std::thread::scope(|scope| {
            let mut next = || (directories.next().unwrap_or_default(), files.next().unwrap_or_default());
            let first = next();
            let others: Vec<_> = (1..threads)
                .map(|_| next())
                .map(|(directories, files)| scope.spawn(move || project.refresh(directories, files)))
                .collect();
            let mut all = project.refresh(first.0, first.1)?;
            for other in others {
                all.extend(other.join().ok().flatten()?);
            }
            Some(all)
        })
    }

    /// Saves the cache to a sealed file if it is new and durable.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written. The old content remains.
    pub(crate) fn save(&mut self, file: &Path, seal: &StateSeal) -> Result<(), Error> {
        if self.is_saved || !self.is_durable {
            return Ok(());
        }
        let mut out = HEADER.writer(64 * (self.directories.len() + self.files.len()) + 64);
        out.bytes(&self.roots_digest);
        out.count(self.directories.len()).count(self.ignore_files.len());
        out.count(self.ignore_contents.len()).count(self.files.len());
        for (path, stamp) in self.directories.iter().chain(&self.ignore_files) {
            out.path(path);
            stamp.encode(&mut out.0);
        }
        for (path, entry) in &self.ignore_contents {
            out.path(path).byte(entry.kind as u8).bytes(&entry.hash);
        }
        for file in &self.files {
            let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
            out.path(&file.path).byte(flag(file.is_link, LINK) | flag(file.is_ignored, IGNORED));
        }
        seal.replace(file, out.with_checksum())?;
        self.is_saved = true;
        Ok(())
    }
}

/// The mode in which the project is opened. On Linux it needs no permission to list the directory.
#[cfg(target_os = "linux")]
const ACCESS: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const ACCESS: OFlags = OFlags::RDONLY;

/// An open project directory, relative to which stamps are read.
struct Project(OwnedFd);

impl Project {
    fn open(project: &Path) -> Option<Self> {
        let flags = ACCESS | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, project, flags, Mode::empty()).ok().map(Self)
    }

    fn stamp(&self, path: &Path, flags: AtFlags) -> Option<FileStamp> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        statat(&self.0, path, flags).ok().map(|stat| FileStamp::from_stat(&stat))
    }

    /// Returns the files with their current stamps, or `None` if a directory has changed, a file is
    /// missing, or a file was replaced by a link or a link by a file.
    fn refresh(&self, directories: &[(PathBuf, FileStamp)], files: &[CachedFile]) -> Option<Vec<FoundFile>> {
        let stamp = |path: &Path| self.stamp(path, AtFlags::SYMLINK_NOFOLLOW);
        if !directories.iter().all(|(path, cached)| stamp(path).as_ref() == Some(cached)) {
            return None;
        }
        let found = |file: &CachedFile| {
            let stamp = stamp(&file.path)?;
            (stamp.is_link() == file.is_link).then(|| FoundFile {
                path: file.path.clone(),
                stamp,
                is_link: file.is_link,
                is_ignored: file.is_ignored,
            })
        };
        files.iter().map(found).collect()
    }
}

fn digest(roots: &WalkRoots) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for roots in [&roots.all, &roots.patterns] {
        hasher.update(&(roots.len() as u64).to_le_bytes());
        for root in roots.iter() {
            hasher.update(&(path_bytes(root).len() as u64).to_le_bytes()).update(path_bytes(root));
        }
    }
    *hasher.finalize().as_bytes()
}
