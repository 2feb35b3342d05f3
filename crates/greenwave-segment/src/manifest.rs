//! The manifest: lists a log's segments, so that a copy of the directory made while processes wrote
//! is checked for completeness.
//!
//! The file `manifest` in the log's directory begins with the file header of `format.rs`, with the
//! magic `F5 47 57 4D 41 4E 0D 0A` and the identity of the directory: the XXH3-64 of its device and
//! inode numbers. Entries of 24 bytes follow (integers little-endian). The last entry of each
//! segment counts:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | segment id |
//! | 8 | 8 | minimum size of the segment; 0 if nothing in it was flushed; all ones once it is removed |
//! | 16 | 8 | XXH3-64 of bytes 0 to 16, with the offset of the entry as seed |
//!
//! A segment is recorded before its first record is acknowledged and again before its first flush
//! returns. Before a compactor removes a segment, it records the removal and the synced sizes of
//! the segments that may contain the copies. Everything flushed before a copy was begun is
//! therefore in the copy, or the copy's manifest names a segment that the copy lacks or contains
//! only in part.
//!
//! A directory with another identity is a copy, or was restored or moved to another file system. It
//! is compared with its manifest. If something is missing, opening it fails; otherwise it gets a
//! manifest with its own identity.
//!
//! An entry with segment id 0 records that a log was opened for writing (1) or closed (2). Only a
//! copy begun while a log was open is refused. In any other copy, missing data was damaged or
//! removed later, and the rest can be read.
//!
//! The file is written under its lock (`flock` on Unix) and is not synced. Reading a log does not
//! require it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::access::Access;
use crate::descriptors::Descriptors;
use crate::disk::{Disk, File};
use crate::format::{SEGMENT_HEADER_BYTES, file_header};

const MAGIC: [u8; 8] = [0xF5, b'G', b'W', b'M', b'A', b'N', b'\r', b'\n'];
const ENTRY_BYTES: u64 = 24;
/// Size in the entry of a removed segment.
pub(crate) const REMOVED: u64 = u64::MAX;
/// Segment id of entries about logs that were opened and closed.
pub(crate) const USAGE: u64 = 0;
/// A log was opened for writing.
pub(crate) const OPENED: u64 = 1;
/// A log was closed.
pub(crate) const CLOSED: u64 = 2;
/// The file is rewritten when it has this many entries and more than half of them are obsolete.
const ENTRIES_MAX: u64 = 4096;
/// A larger file counts as damaged: somebody else has written it. It has room for 2,796,000
/// entries, and a log with as many segments would have a rewritten one.
const BYTES_MAX: u64 = 64 << 20;

/// The manifest file, opened on first use.
#[derive(Debug)]
pub(crate) struct Manifest {
    disk: Disk,
    descriptors: Arc<Descriptors>,
    dir: PathBuf,
    path: PathBuf,
    file: Mutex<Option<File>>,
}

/// Contents of a manifest.
#[derive(Debug, Default)]
pub(crate) struct ManifestContents {
    /// Whether the manifest was written for another directory.
    pub(crate) is_copy: bool,
    /// Minimum sizes of the segments that were not removed, by id.
    pub(crate) segments: BTreeMap<u64, u64>,
    /// Number of logs that are open for writing or whose processes died.
    pub(crate) users: u64,
    entries: u64,
}

impl Manifest {
    pub(crate) fn new(disk: &Disk, descriptors: &Arc<Descriptors>, dir: &Path) -> Self {
        let (disk, descriptors, path) = (disk.clone(), descriptors.clone(), dir.join("manifest"));
        Self { disk, descriptors, dir: dir.to_owned(), path, file: Mutex::default() }
    }

    /// Reads the manifest; `None` if it is missing or damaged.
    pub(crate) fn read(&self) -> io::Result<Option<ManifestContents>> {
        match self.descriptors.open(&self.disk, &self.path, Access::Read) {
            Ok(file) => self.listed(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Appends entries. A failure only affects copies of the directory, so it does not fail the
    /// write that it belongs to.
    pub(crate) fn record(&self, entries: &[(u64, u64)]) {
        if let Err(error) = self.try_record(entries) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the manifest: an incomplete copy of the directory may not be detected");
        }
    }

    fn try_record(&self, entries: &[(u64, u64)]) -> io::Result<()> {
        let mut slot = self.file.lock();
        let file = match slot.take() {
            Some(file) if !file.is_unlinked(&self.path) => file,
            _ => self.descriptors.open(&self.disk, &self.path, Access::Create)?,
        };
        file.lock()?;
        let written = self.append(&file, entries);
        file.unlock()?;
        *slot = Some(file);
        written
    }

    /// Appends entries, or rewrites the file. The caller holds the lock.
    fn append(&self, file: &File, entries: &[(u64, u64)]) -> io::Result<()> {
        let listed = self.listed(file)?.filter(|listed| !listed.is_copy);
        let live = listed.as_ref().map_or(0, |listed| listed.segments.len() as u64);
        match listed {
            Some(listed) if listed.entries < ENTRIES_MAX || live * 2 > listed.entries => {
                let at = SEGMENT_HEADER_BYTES + listed.entries * ENTRY_BYTES;
                file.write_at(&encode(at, entries.iter().copied()), at)
            }
            other => {
                let other = other.unwrap_or_default();
                let mut segments = other.segments;
                for (id, len) in entries.iter().filter(|(id, _)| *id != USAGE) {
                    segments.insert(*id, *len);
                }
                let users = std::iter::repeat_n((USAGE, OPENED), usize::try_from(other.users).unwrap_or(0));
                let uses: Vec<_> =
                    users.chain(entries.iter().copied().filter(|(id, _)| *id == USAGE)).collect();
                self.rewrite(file, &segments, &uses)
            }
        }
    }

    /// Rewrites the manifest with the directory's present identity and these segments.
    pub(crate) fn adopt(&self, segments: &BTreeMap<u64, u64>) -> io::Result<()> {
        let file = self.descriptors.open(&self.disk, &self.path, Access::Create)?;
        file.lock()?;
        self.rewrite(&file, segments, &[])
    }

    /// Rewrites the file in place. A crash in between leaves a manifest that lists less.
    fn rewrite(&self, file: &File, segments: &BTreeMap<u64, u64>, uses: &[(u64, u64)]) -> io::Result<()> {
        let segments = segments.iter().map(|(id, len)| (*id, *len)).filter(|(_, len)| *len != REMOVED);
        let mut bytes = file_header(MAGIC, self.identity()?).to_vec();
        bytes.extend(encode(SEGMENT_HEADER_BYTES, segments.chain(uses.iter().copied())));
        file.set_len(0)?;
        file.write_at(&bytes, 0)
    }

    fn identity(&self) -> io::Result<u64> {
        self.disk.identity(&self.dir)
    }

    fn listed(&self, file: &File) -> io::Result<Option<ManifestContents>> {
        let len = file.len()?;
        if len > BYTES_MAX {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let Some((header, rest)) = bytes.split_first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>() else {
            return Ok(None);
        };
        let identity = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        if *header != file_header(MAGIC, identity) {
            return Ok(None);
        }
        let mut listed =
            ManifestContents { is_copy: identity != self.identity()?, ..ManifestContents::default() };
        for entry in rest.chunks_exact(ENTRY_BYTES as usize) {
            let at = SEGMENT_HEADER_BYTES + listed.entries * ENTRY_BYTES;
            let [id, len, check] =
                [0, 8, 16].map(|at| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes")));
            if check != xxh3_64_with_seed(&entry[..16], at) {
                break;
            }
            listed.entries += 1;
            if id == USAGE {
                listed.users = if len == OPENED { listed.users + 1 } else { listed.users.saturating_sub(1) };
            } else if len == REMOVED {
                listed.segments.remove(&id);
            } else {
                let least = listed.segments.entry(id).or_default();
                *least = (*least).max(len);
            }
        }
        Ok(Some(listed))
    }
}

fn encode(mut at: u64, entries: impl Iterator<Item = (u64, u64)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, len) in entries {
        let mut entry = [0; ENTRY_BYTES as usize];
        entry[..8].copy_from_slice(&id.to_le_bytes());
        entry[8..16].copy_from_slice(&len.to_le_bytes());
        let check = xxh3_64_with_seed(&entry[..16], at);
        entry[16..].copy_from_slice(&check.to_le_bytes());
        bytes.extend_from_slice(&entry);
        at += ENTRY_BYTES;
    }
    bytes
}
