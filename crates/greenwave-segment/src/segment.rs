//! A segment file: positioned reads and writes, its header, and the lock of its only writer.
//!
//! A segment is named by its random id, 16 hexadecimal digits and `.seg`, and begins with the file
//! header of `format.rs`, with the magic `F5 47 57 53 45 47 0D 0A`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::Error;
use crate::access::Access;
use crate::descriptors::{Descriptors, Handle};
use crate::disk::{Disk, File};
use crate::format::{
    INDEX_EXTENSION, SEGMENT_EXTENSION, SEGMENT_HEADER_BYTES, VERSION, file_header, parse_name, segment_path,
};

const MAGIC: [u8; 8] = [0xF5, b'G', b'W', b'S', b'E', b'G', b'\r', b'\n'];

/// A segment. Threads share it, since reads use no file position.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
    /// Whether the file is open for writing, which is necessary but not sufficient for appending:
    /// see [`try_lock`](Self::try_lock).
    pub(crate) writable: bool,
    /// Whether a sync of the file has failed. The kernel may have discarded dirty pages, so another
    /// sync could succeed without them.
    sync_failed: AtomicBool,
    disk: Disk,
    handle: Handle,
}

impl Segment {
    /// Opens an existing segment; `None` if it is missing, since another process may have compacted
    /// it.
    pub(crate) fn open(
        disk: &Disk,
        descriptors: &Arc<Descriptors>,
        dir: &Path,
        id: u64,
        read_only: bool,
    ) -> Result<Option<Self>, Error> {
        let path = segment_path(dir, id);
        let open = |access| descriptors.open(disk, &path, access);
        let (writable, file) = match (!read_only).then(|| open(Access::Write)) {
            Some(Err(e))
                if matches!(
                    e.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                (false, open(Access::Read))
            }
            Some(other) => (true, other),
            None => (false, open(Access::Read)),
        };
        match file {
            Ok(file) => {
                let handle = descriptors.admit(file);
                Ok(Some(Self::new(id, path, writable, disk, handle)))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("open", &path)(e)),
        }
    }

    /// Creates a segment, locks it and writes its header. Removes the segment if the header cannot
    /// be written.
    pub(crate) fn create(disk: &Disk, descriptors: &Arc<Descriptors>, dir: &Path) -> Result<Self, Error> {
        // A few attempts suffice: ids are random, and only a reader briefly locks a file this new.
        for _ in 0..16_u32 {
            let id = disk.random();
            let path = segment_path(dir, id);
            let file = match descriptors.open(disk, &path, Access::CreateNew) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::io("create", &path)(e)),
            };
            let handle = descriptors.admit(file);
            let segment = Self::new(id, path, true, disk, handle);
            if !segment.try_lock() {
                // Another process took it over between the two calls.
                continue;
            }
            // The other process may also have filled, sealed and unlocked it, or removed it.
            if !segment.is_unlinked() && segment.len()? == 0 {
                if let Err(error) = segment.write_header() {
                    // Other processes would find an empty file. On a full disk, removing it also
                    // frees its inode.
                    let _ = disk.remove(&segment.path);
                    segment.unlock();
                    return Err(error);
                }
                return Ok(segment);
            }
            segment.unlock();
        }
        Err(Error::io("lock a new segment in", dir)(io::ErrorKind::WouldBlock.into()))
    }

    /// Represents a segment whose file is missing. Every read fails.
    pub(crate) fn missing(disk: &Disk, descriptors: &Arc<Descriptors>, dir: &Path, id: u64) -> Self {
        Self::new(id, segment_path(dir, id), false, disk, descriptors.closed())
    }

    fn new(id: u64, path: PathBuf, writable: bool, disk: &Disk, handle: Handle) -> Self {
        Self { id, path, writable, sync_failed: AtomicBool::new(false), disk: disk.clone(), handle }
    }

    fn file(&self) -> io::Result<Arc<File>> {
        self.handle.file(&self.disk, &self.path, self.writable)
    }

    /// Takes the writer's lock; returns `false` if another process holds it. The system releases it
    /// when the process ends.
    pub(crate) fn try_lock(&self) -> bool {
        self.handle.pin(true);
        let locked = match self.file().and_then(|file| file.try_lock()) {
            Ok(locked) => locked,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot lock a segment, so it is only read");
                false
            }
        };
        self.handle.pin(locked);
        locked
    }

    /// Releases the writer's lock.
    pub(crate) fn unlock(&self) {
        if let Err(error) = self.file().and_then(|file| file.unlock()) {
            tracing::warn!(path = %self.path.display(), %error, "cannot unlock a segment");
        }
        self.handle.pin(false);
    }

    /// Returns whether the file has been removed from its directory.
    pub(crate) fn is_unlinked(&self) -> bool {
        self.file().map_or(true, |file| file.is_unlinked(&self.path))
    }

    pub(crate) fn write_header(&self) -> Result<(), Error> {
        self.write_at(&file_header(MAGIC, self.id), 0).map_err(Error::io("write the header of", &self.path))
    }

    /// Returns whether the header verifies. A damaged one is tolerated, since the id is also in the
    /// name. A newer format version is an error.
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

    /// Returns whether creation of the file was interrupted: it is empty, or a prefix of the
    /// header.
    pub(crate) fn is_unfinished(&self) -> Result<bool, Error> {
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        let read = self.read_at(&mut header, 0).map_err(Error::io("read", &self.path))?;
        Ok(read < header.len() && file_header(MAGIC, self.id).starts_with(&header[..read]))
    }

    pub(crate) fn len(&self) -> Result<u64, Error> {
        self.file().and_then(|file| file.len()).map_err(Error::io("read the size of", &self.path))
    }

    pub(crate) fn truncate(&self, len: u64) -> Result<(), Error> {
        self.file().and_then(|file| file.set_len(len)).map_err(Error::io("truncate", &self.path))
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        let synced = self.file().and_then(|file| {
            if self.sync_failed.load(Ordering::Relaxed) {
                return Err(io::Error::other("an earlier sync failed"));
            }
            // A file that cannot be opened was not synced, and another attempt may succeed.
            file.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::Relaxed))
        });
        synced.map_err(Error::io("sync", &self.path))
    }

    /// Reads until the buffer is full or the file ends; returns the number of bytes. Fails with
    /// [`io::ErrorKind::NotFound`] if the file was closed and has been removed.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file()?.read_at(buf, offset)
    }

    /// Returns the offset of the first byte from `offset` on that is not in a hole of the file, or
    /// an offset beyond the end. May return an earlier one.
    pub(crate) fn next_data(&self, offset: u64) -> u64 {
        self.file().map_or(offset, |file| file.next_data(offset))
    }

    /// Fills the buffer without waiting for the disk; returns `false` if that is impossible.
    pub(crate) fn read_at_nowait(&self, buf: &mut [u8], offset: u64) -> bool {
        self.file().is_ok_and(|file| file.read_at_nowait(buf, offset))
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file()?.write_at(bytes, offset)
    }
}

/// Files of a log in a directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Ids of the segments, ascending.
    pub(crate) segments: Vec<u64>,
    /// Ids of index files without a segment, ascending. The segment was lost, or its removal is in
    /// progress.
    pub(crate) orphans: Vec<u64>,
}

/// Lists the segments and index files in a directory. Ignores files with other names and everything
/// that is not a regular file.
pub(crate) fn list(disk: &Disk, dir: &Path) -> Result<Listing, Error> {
    let names = disk.names(dir).map_err(Error::io("list", dir))?;
    let with = |extension| {
        let mut ids: Vec<u64> = names.iter().filter_map(|name| parse_name(name, extension)).collect();
        ids.sort_unstable();
        ids
    };
    let segments = with(SEGMENT_EXTENSION);
    let mut orphans = with(INDEX_EXTENSION);
    // Both files may have been created while the directory was listed, with only the second in the
    // list.
    orphans.retain(|id| segments.binary_search(id).is_err() && disk.status(&segment_path(dir, *id)).is_err());
    Ok(Listing { segments, orphans })
}

/// Implements [`Log::fingerprint`](crate::Log::fingerprint): concatenates the id, size,
/// modification time and identity of each segment.
pub(crate) fn fingerprint(disk: &Disk, dir: &Path) -> Result<Vec<u8>, Error> {
    let ids = list(disk, dir)?.segments;
    let mut fingerprint = Vec::with_capacity(ids.len() * 96);
    for id in ids {
        let path = segment_path(dir, id);
        let status = disk.status(&path).map_err(Error::io("read the status of", &path))?;
        fingerprint.extend(id.to_le_bytes());
        fingerprint.extend(status.len.to_le_bytes());
        fingerprint.extend(status.modified.to_le_bytes());
        status.identity.iter().for_each(|number| fingerprint.extend(number.to_le_bytes()));
    }
    Ok(fingerprint)
}

/// Returns the size of all index files together, in bytes.
pub(crate) fn index_files_bytes(disk: &Disk, dir: &Path) -> Result<usize, Error> {
    let names = disk.names(dir).map_err(Error::io("list", dir))?;
    let lens = names.iter().filter(|name| parse_name(name, INDEX_EXTENSION).is_some());
    let lens = lens.map(|name| disk.status(&dir.join(name)).map_or(0, |status| status.len));
    Ok(usize::try_from(lens.sum::<u64>()).unwrap_or(0))
}
