//! Which files a project had when it was last listed, so that it need not be listed again: a folder whose stamp is the same has the same names in it.
//! Knows nothing of what files are for.
//!
//! One file, replaced as a whole. Integers are little-endian: magic `F5 47 57 54`, version (4), a hash of what was looked for (32), number of
//! directories (4), number of files that say what is ignored (4), number of files (4); then each folder and each of those that say what is ignored: its path
//! and its stamp; each file: its path and flags (1: a link, 2: ignored). A path is its length (4) and its bytes; a stamp is as in the index of hashes. At
//! the end the first 16 bytes of BLAKE3 over all before.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};

use crate::Error;
use crate::codec::{Reader, path_bytes, replace_file};
use crate::stamp::FileStamp;
use crate::walk::{FoundFile, Listing, WalkRoots};

const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'T'];
const VERSION: u32 = 2;
const CHECKSUM_BYTES: usize = 16;
/// Threads that look at a large project's files, and how many files are worth one more.
const THREADS_MAX: usize = 4;
const FILES_A_THREAD: usize = 1000;

/// Directories and ignore files of a project whose stamps can be trusted in later runs.
#[derive(Debug, Clone)]
pub struct DurableDirectories {
    /// Directories that were listed, relative to the project, each with its stamp.
    pub directories: Vec<(PathBuf, FileStamp)>,
    /// Ignore files (`.gitignore`, `.ignore`) in them, each with the stamp of the file it resolves to.
    pub ignore_files: Vec<(PathBuf, FileStamp)>,
}

/// A listing that can be checked.
#[derive(Debug)]
pub struct DirCache {
    wanted: [u8; 32],
    directories: Vec<(PathBuf, FileStamp)>,
    /// Files that say what is ignored.
    ignore_files: Vec<(PathBuf, FileStamp)>,
    files: Vec<Known>,
    is_saved: bool,
    /// Whether it can be believed in later runs as well.
    lasts: bool,
}

#[derive(Debug)]
struct Known {
    path: PathBuf,
    is_link: bool,
    is_ignored: bool,
}

impl DirCache {
    /// What was listed at a moment, unless a folder was so young then that it could change again without its stamp changing.
    pub(crate) fn of(listing: &Listing, roots: &WalkRoots, at: i64) -> Option<Self> {
        // What cannot be looked at cannot be checked either.
        if !listing.unexamined.is_empty() {
            return None;
        }
        let stamps = || listing.directories.iter().chain(&listing.ignore_files).map(|(_, stamp)| stamp);
        if !stamps().all(|stamp| !stamp.is_racy_within_run(at)) {
            return None;
        }
        let lasts = stamps().all(|stamp| !stamp.is_racy(at));
        let known = |file: &FoundFile| Known {
            path: file.path.clone(),
            is_link: file.is_link,
            is_ignored: file.is_ignored,
        };
        Some(Self {
            wanted: hash(roots),
            directories: listing.directories.clone(),
            ignore_files: listing.ignore_files.clone(),
            files: listing.files.iter().map(known).collect(),
            is_saved: false,
            lasts,
        })
    }

    /// The directories, and the files that say what is ignored, with their stamps, if these can be believed in later runs as well.
    pub(crate) fn lasting(&self) -> Option<DurableDirectories> {
        let lasting = || DurableDirectories {
            directories: self.directories.clone(),
            ignore_files: self.ignore_files.clone(),
        };
        self.lasts.then(lasting)
    }

    /// The files with their stamps of now; `None` if anything says that there may be others.
    pub(crate) fn check(&self, project: &Path, roots: &WalkRoots) -> Option<Vec<FoundFile>> {
        if self.wanted != hash(roots) {
            return None;
        }
        let folder =
            openat(CWD, project, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let stamp = |path: &Path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            statat(&folder, path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| FileStamp::from_stat(&stat))
        };
        let is_same = |(path, known): &(PathBuf, FileStamp)| {
            let stat = statat(&folder, path, AtFlags::empty());
            stat.is_ok_and(|stat| FileStamp::from_stat(&stat) == *known)
        };
        if !self.ignore_files.iter().all(is_same) {
            return None;
        }
        let directories = |part: &[(PathBuf, FileStamp)]| {
            part.iter().all(|(path, known)| stamp(path).as_ref() == Some(known))
        };
        let files = |part: &[Known]| -> Option<Vec<FoundFile>> {
            let found = |known: &Known| {
                let stamp = stamp(&known.path)?;
                (stamp.is_link() == known.is_link).then(|| FoundFile {
                    path: known.path.clone(),
                    stamp,
                    is_link: known.is_link,
                    is_ignored: known.is_ignored,
                })
            };
            part.iter().map(found).collect()
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(THREADS_MAX).min(self.files.len() / FILES_A_THREAD).max(1);
        let share = |count: usize| count.div_ceil(threads).max(1);
        let mut folder_parts = self.directories.chunks(share(self.directories.len()));
        let mut file_parts = self.files.chunks(share(self.files.len()));
        let work = |part: (&[(PathBuf, FileStamp)], &[Known])| {
            if directories(part.0) { files(part.1) } else { None }
        };
        std::thread::scope(|scope| {
            let mut next =
                || (folder_parts.next().unwrap_or_default(), file_parts.next().unwrap_or_default());
            let mine = next();
            let others: Vec<_> =
                (1..threads).map(|_| next()).map(|part| scope.spawn(move || work(part))).collect();
            let mut all = work(mine)?;
            for other in others {
                all.extend(other.join().ok().flatten()?);
            }
            Some(all)
        })
    }

    /// What an earlier run saved.
    pub fn load(file: &Path) -> Option<Self> {
        let bytes = std::fs::read(file).ok()?;
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != *checksum {
            return None;
        }
        let mut reader = Reader(body);
        if reader.array()? != MAGIC || u32::from_le_bytes(reader.array()?) != VERSION {
            return None;
        }
        let wanted = reader.array()?;
        let folder_count = u32::from_le_bytes(reader.array()?) as usize;
        let ignore_count = u32::from_le_bytes(reader.array()?) as usize;
        let file_count = u32::from_le_bytes(reader.array()?) as usize;
        let (mut directories, mut ignore_files, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..folder_count {
            directories.push((path(&mut reader)?, FileStamp::decode(&mut reader)?));
        }
        for _ in 0..ignore_count {
            ignore_files.push((path(&mut reader)?, FileStamp::decode(&mut reader)?));
        }
        for _ in 0..file_count {
            let path = path(&mut reader)?;
            let [flags] = reader.array()?;
            files.push(Known { path, is_link: flags & LINK != 0, is_ignored: flags & IGNORED != 0 });
        }
        Some(Self { wanted, directories, ignore_files, files, is_saved: true, lasts: true })
    }

    /// # Errors
    /// [`Error::Io`] if the file cannot be written. The old one stays.
    pub(crate) fn save(&mut self, file: &Path) -> Result<(), Error> {
        if self.is_saved || !self.lasts {
            return Ok(());
        }
        let mut out = Vec::with_capacity(64 * (self.directories.len() + self.files.len()) + 64);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.wanted);
        out.extend_from_slice(&(self.directories.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.ignore_files.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        for (path, stamp) in self.directories.iter().chain(&self.ignore_files) {
            put_path(&mut out, path);
            stamp.encode(&mut out);
        }
        for known in &self.files {
            put_path(&mut out, &known.path);
            let flag = |is: bool, flag: u8| if is { flag } else { 0 };
            out.push(flag(known.is_link, LINK) | flag(known.is_ignored, IGNORED));
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        replace_file(file, &out)?;
        self.is_saved = true;
        Ok(())
    }
}

const LINK: u8 = 1;
const IGNORED: u8 = 2;

fn path(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let length = u32::from_le_bytes(reader.array()?) as usize;
    Some(PathBuf::from(OsStr::from_bytes(reader.take(length)?)))
}

fn put_path(out: &mut Vec<u8>, path: &Path) {
    out.extend_from_slice(&(path_bytes(path).len() as u32).to_le_bytes());
    out.extend_from_slice(path_bytes(path));
}

fn hash(roots: &WalkRoots) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for roots in [&roots.all, &roots.patterns] {
        hasher.update(&(roots.len() as u64).to_le_bytes());
        for root in roots.iter() {
            hasher.update(&(path_bytes(root).len() as u64).to_le_bytes()).update(path_bytes(root));
        }
    }
    *hasher.finalize().as_bytes()
}
