//! One segment file: its name, its header, positioned reads and writes, and the lock that makes a process its only writer.
//! Knows nothing of keys or of other segments.
//!
//! A segment is named by its id, 16 hexadecimal digits and `.seg`, and begins with 32 bytes (integers little-endian):
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `F5 47 57 53 45 47 0D 0A` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 6 | zero |
//! | 16 | 8 | segment id, random |
//! | 24 | 8 | XXH3-64 of bytes 0 to 24 |
//!
//! Every version keeps these 32 bytes as they are, so that a reader of any age can tell a newer segment from a damaged one.

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use xxhash_rust::xxh3::xxh3_64;

use crate::Error;
use crate::index_file;

/// Bytes before the first record.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 32;
const MAGIC: [u8; 8] = [0xF5, b'G', b'W', b'S', b'E', b'G', b'\r', b'\n'];
const VERSION: u16 = 1;
const EXTENSION: &str = "seg";

/// An open segment. Reads need no lock and no position, so threads share it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
    /// Whether this handle may write, which the lock alone does not say.
    pub(crate) writable: bool,
    file: File,
}

impl Segment {
    /// Opens an existing segment; `None` when it vanished in the meantime, which compaction in another process may cause.
    pub(crate) fn open(dir: &Path, id: u64) -> Result<Option<Self>, Error> {
        let path = segment_path(dir, id);
        let open = |write| OpenOptions::new().read(true).write(write).open(&path);
        let (writable, file) = match open(true) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                (false, open(false))
            }
            other => (true, other),
        };
        match file {
            Ok(file) => Ok(Some(Self { id, path, writable, file })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("open", &path)(e)),
        }
    }

    /// Makes a new segment, locked by us, with its header written.
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        // Two loops' worth of chance: the name is random, and a reader may briefly hold the lock of a file this young.
        for attempt in 0..16_u32 {
            let id = random_id(attempt);
            let path = segment_path(dir, id);
            let file = match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::io("create", &path)(e)),
            };
            let segment = Self { id, path, writable: true, file };
            if segment.try_lock() {
                segment.write_header()?;
                return Ok(segment);
            }
            // Someone adopted it between our two calls. It is theirs now.
        }
        Err(Error::io("lock a new segment in", dir)(io::ErrorKind::WouldBlock.into()))
    }

    /// Takes the writer's lock if nobody has it. It ends with this process at the latest.
    pub(crate) fn try_lock(&self) -> bool {
        match self.file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot lock a segment: reading it only");
                false
            }
        }
    }

    /// Gives the writer's lock back.
    pub(crate) fn unlock(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "cannot unlock a segment");
        }
    }

    /// Whether the file has been removed from its directory. Meaningful once the lock is held: removers hold it too.
    pub(crate) fn is_unlinked(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            self.file.metadata().map_or(true, |m| m.nlink() == 0)
        }
        #[cfg(not(unix))]
        {
            !self.path.exists()
        }
    }

    pub(crate) fn write_header(&self) -> Result<(), Error> {
        self.write_at(&file_header(MAGIC, self.id), 0).map_err(Error::io("begin", &self.path))
    }

    /// Whether the header is whole. A damaged one is survivable, since the name holds the id as well; a newer one is an error.
    pub(crate) fn check_header(&self) -> Result<bool, Error> {
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        let read = self.read_at(&mut header, 0).map_err(Error::io("read", &self.path))?;
        let checksum = xxh3_64(&header[..24]).to_le_bytes();
        if read < header.len() || header[0..8] != MAGIC || header[24..32] != checksum {
            return Ok(false);
        }
        let found = u16::from_le_bytes([header[8], header[9]]);
        if found > VERSION {
            return Err(Error::NewerFormat { path: self.path.clone(), found, supported: VERSION });
        }
        Ok(header[16..24] == self.id.to_le_bytes())
    }

    pub(crate) fn len(&self) -> Result<u64, Error> {
        self.file.metadata().map(|m| m.len()).map_err(Error::io("measure", &self.path))
    }

    pub(crate) fn truncate(&self, len: u64) -> Result<(), Error> {
        self.file.set_len(len).map_err(Error::io("truncate", &self.path))
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::io("sync", &self.path))
    }

    /// Reads until the buffer or the file ends; returns how much.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match pread(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Like [`read_at`](Self::read_at), but `None` as soon as the disk would have to be waited for.
    #[cfg(target_os = "linux")]
    pub(crate) fn read_at_nowait(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
        use rustix::io::{ReadWriteFlags, preadv2};
        let bufs = &mut [io::IoSliceMut::new(buf)];
        // A short count may be the end of the file or of what is cached. The slow path tells these apart.
        let read = preadv2(&self.file, bufs, offset, ReadWriteFlags::NOWAIT).ok()?;
        (read == buf.len()).then_some(read)
    }

    /// Elsewhere nothing says whether a read would wait.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn read_at_nowait(&self, _: &mut [u8], _: u64) -> Option<usize> {
        None
    }

    #[cfg(unix)]
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
    }

    #[cfg(windows)]
    pub(crate) fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(&self.file, bytes, offset)?;
            (bytes, offset) = (&bytes[written..], offset + written as u64);
        }
        Ok(())
    }
}

/// The first bytes of a file of ours.
pub(crate) fn file_header(magic: [u8; 8], id: u64) -> [u8; SEGMENT_HEADER_BYTES as usize] {
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    header[0..8].copy_from_slice(&magic);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&id.to_le_bytes());
    let checksum = xxh3_64(&header[..24]);
    header[24..32].copy_from_slice(&checksum.to_le_bytes());
    header
}

#[cfg(unix)]
fn pread(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(windows)]
fn pread(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

/// The ids of the segments in a directory. Files with other names are not ours and are left alone.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, Error> {
    list_with(dir, EXTENSION)
}

/// What [`Log::standing`](crate::Log::standing) says: each segment's id, its length, when it was modified, and which file it is and when that
/// was changed in any way, where the system tells.
pub(crate) fn standing(dir: &Path) -> Result<Vec<u8>, Error> {
    let mut ids = list(dir)?;
    ids.sort_unstable();
    let mut standing = Vec::with_capacity(ids.len() * 64);
    for id in ids {
        let path = segment_path(dir, id);
        let metadata = path.metadata().map_err(Error::io("look at", &path))?;
        let modified = metadata.modified().map_err(Error::io("look at", &path))?;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        standing.extend(id.to_le_bytes());
        standing.extend(metadata.len().to_le_bytes());
        standing.extend(modified.to_le_bytes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            for number in [metadata.dev(), metadata.ino()] {
                standing.extend(number.to_le_bytes());
            }
            for number in [metadata.ctime(), metadata.ctime_nsec()] {
                standing.extend(number.to_le_bytes());
            }
        }
    }
    Ok(standing)
}

/// Removes index files whose segments are gone: their removal was interrupted. A segment is made before its index file and removed before
/// it, so one without the other is never young.
pub(crate) fn remove_orphans(dir: &Path) -> Result<(), Error> {
    for id in list_with(dir, index_file::EXTENSION)? {
        let segment = segment_path(dir, id);
        if !segment.exists() {
            index_file::remove(&segment);
        }
    }
    Ok(())
}

/// Bytes of all index files together.
pub(crate) fn index_files_bytes(dir: &Path) -> Result<usize, Error> {
    let lens = list_with(dir, index_file::EXTENSION)?.into_iter().map(|id| {
        let path = segment_path(dir, id).with_extension(index_file::EXTENSION);
        path.metadata().map_or(0, |metadata| metadata.len())
    });
    Ok(usize::try_from(lens.sum::<u64>()).unwrap_or(0))
}

fn list_with(dir: &Path, extension: &str) -> Result<Vec<u64>, Error> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        ids.extend(name.to_str().and_then(|name| parse_name(name, extension)));
    }
    Ok(ids)
}

fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.{EXTENSION}"))
}

fn parse_name(name: &str, extension: &str) -> Option<u64> {
    let id = name.strip_suffix(extension)?.strip_suffix('.')?;
    let well_formed = id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then(|| u64::from_str_radix(id, 16).ok())?
}

/// Unpredictable: `RandomState` is seeded by the operating system.
pub(crate) fn random_id(attempt: u32) -> u64 {
    RandomState::new().hash_one((attempt, std::process::id(), std::time::SystemTime::now()))
}
