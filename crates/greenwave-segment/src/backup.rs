//! Copies a log into another directory while processes write it.
//!
//! The compaction lock is held meanwhile, so that no segment is removed: they only grow. The
//! manifest is copied first, so each segment has at least the size in it. An index file is copied
//! before its segment, so it names no record that the copy lacks.

use std::io;
use std::path::Path;

use crate::Error;
use crate::access::Access;
use crate::append::Appender;
use crate::format::{index_path, segment_path};
use crate::inner::Inner;
use crate::segment;

/// Number of bytes that are copied at a time.
const CHUNK_BYTES: usize = 1 << 20;
const MANIFEST: &str = "manifest";

/// Result of [`Log::backup`](crate::Log::backup).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupStats {
    /// Number of segments in the copy.
    pub segments: u64,
    /// Size of the copy in bytes.
    pub bytes: u64,
}

/// Implements [`Log::backup`](crate::Log::backup).
pub(crate) fn backup(inner: &Inner, target: &Path) -> Result<BackupStats, Error> {
    inner.check_writable()?;
    let disk = &inner.disk;
    disk.create_dir(target).map_err(Error::io("create", target))?;
    if !disk.all_names(target).map_err(Error::io("list", target))?.is_empty() {
        return Err(Error::io("copy a log into", target)(io::ErrorKind::DirectoryNotEmpty.into()));
    }
    Appender::new(inner).flush()?;
    let _compacting = inner.compacting.lock();
    let _guard = inner.compaction_lock.lock()?;
    let mut stats = BackupStats::default();
    let (from, to) = (inner.dir.join(MANIFEST), target.join(MANIFEST));
    stats.bytes += copy_if_exists(inner, &from, &to)?.unwrap_or(0);
    for id in segment::list(disk, &inner.dir)?.segments {
        let (from, to) = (segment_path(&inner.dir, id), segment_path(target, id));
        stats.bytes += copy_if_exists(inner, &index_path(&from), &index_path(&to))?.unwrap_or(0);
        if let Some(bytes) = copy_if_exists(inner, &from, &to)? {
            stats.segments += 1;
            stats.bytes += bytes;
        }
    }
    let directory = inner.descriptors.open_directory(disk, target).map_err(Error::io("open", target))?;
    directory.sync().map_err(Error::io("sync", target))?;
    Ok(stats)
}

/// Copies a file up to its present end, and makes the copy durable. Returns the size, or `None` if
/// the file does not exist.
fn copy_if_exists(inner: &Inner, from: &Path, to: &Path) -> Result<Option<u64>, Error> {
    let source = match inner.descriptors.open(&inner.disk, from, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("open", from))?,
    };
    let created = inner.descriptors.open(&inner.disk, to, Access::CreateNew);
    let copy = created.map_err(Error::io("create", to))?;
    let len = source.len().map_err(Error::io("read the size of", from))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < len {
        let wanted = usize::try_from(len - at).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        let read = source.read_at(&mut chunk[..wanted], at).map_err(Error::io("read", from))?;
        if read == 0 {
            break;
        }
        copy.write_at(&chunk[..read], at).map_err(Error::io("write", to))?;
        at += read as u64;
    }
    copy.sync_data().map_err(Error::io("sync", to))?;
    Ok(Some(at))
}
