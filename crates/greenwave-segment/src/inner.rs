//! The parts of an open log, which its operations share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};

use crate::access::FileStatus;
use crate::codec::Codec;
use crate::compaction_lock::CompactionLock;
use crate::descriptors::Descriptors;
use crate::disk::Disk;
use crate::entry::Location;
use crate::index::Index;
use crate::manifest::{self, Manifest};
use crate::rewrite_lock::RewriteLock;
use crate::segment::Segment;
use crate::shared_clock::SharedClock;
use crate::stats::Counters;
use crate::writer::{SyncProgress, Writer};
use crate::{Error, Options, Stats};

/// How many writers can tell their stamps apart when they cannot take them from the clock.
pub(crate) const TIMESTAMP_RESIDUES: u64 = 1 << 12;

/// A log of keys to bytes in a directory. Threads share it by reference, processes by opening the same directory.
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) options: Options,
    pub(crate) read_only: bool,
    /// What stamps that are not from the clock leave when divided by [`STAMP_RESIDUES`], at random.
    pub(crate) timestamp_residue: u64,
    pub(crate) codec: Codec,
    pub(crate) index: RwLock<Index>,
    pub(crate) writer: Mutex<Writer>,
    /// Held by whoever compacts or drops segments.
    pub(crate) compacting: Mutex<()>,
    /// Held by whoever looks at what other processes did.
    pub(crate) refreshing: Mutex<()>,
    /// What the file system said of the directory before it was last listed and nothing was new, if that cannot be out of date
    /// without its saying something else.
    pub(crate) listed: Mutex<Option<FileStatus>>,
    /// Held by the one process that compacts or drops segments.
    pub(crate) compaction_lock: CompactionLock,
    /// Entered by whoever writes a difference or a conditional batch, or is about to remove a segment.
    pub(crate) rewrite_lock: RewriteLock,
    pub(crate) shared_clock: SharedClock,
    /// Which segments there are, for whoever opens a copy of the directory.
    pub(crate) manifest: Manifest,
    /// Whether the directory is a copy that was not entered under its own identity yet.
    pub(crate) is_copy: AtomicBool,
    pub(crate) synced: Mutex<SyncProgress>,
    pub(crate) counters: Counters,
}

impl Inner {
    pub(crate) fn new(disk: Disk, dir: &Path, options: Options, read_only: bool) -> Result<Self, Error> {
        let options = options.checked()?;
        let dir = std::path::absolute(dir).map_err(Error::io("resolve", dir))?;
        let descriptors = Descriptors::new(options.open_files_max);
        Ok(Self {
            codec: Codec::new(options.compression),
            compaction_lock: CompactionLock::new(&disk, &descriptors, &dir),
            rewrite_lock: RewriteLock::new(&disk, &descriptors, &dir),
            shared_clock: SharedClock::new(&disk, &descriptors, &dir),
            manifest: Manifest::new(&disk, &descriptors, &dir),
            is_copy: AtomicBool::new(false),
            descriptors,
            index: RwLock::new(Index::new(disk.random())),
            timestamp_residue: disk.random() % TIMESTAMP_RESIDUES,
            dir,
            disk,
            options,
            read_only,
            writer: Mutex::default(),
            compacting: Mutex::default(),
            refreshing: Mutex::default(),
            listed: Mutex::default(),
            synced: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// Whether `key` has a value. Does not read it, so a damaged one counts until a read has found it out.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.index.read().get(key).is_some_and(|entry| !entry.tombstone)
    }

    /// The keys that begin with `prefix`, sorted. Looks at every key.
    pub(crate) fn keys_with_prefix(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let index = self.index.read();
        let live = index.entries().filter(|entry| !entry.tombstone);
        let keys = live.map(|entry| entry.key.as_slice()).filter(|key| key.starts_with(prefix));
        let mut keys: Vec<_> = keys.map(<[u8]>::to_vec).collect();
        drop(index);
        keys.sort_unstable();
        keys
    }

    pub(crate) fn is_current(&self, key: &[u8], location: Location) -> bool {
        self.index.read().get(key).is_some_and(|entry| entry.location() == location)
    }

    /// Takes an entry out of the index, unless the key has moved on.
    pub(crate) fn forget_at(&self, key: &[u8], location: Location) {
        let mut index = self.index.write();
        if index.get(key).is_some_and(|entry| entry.location() == location) {
            index.forget(key);
        }
    }

    /// Counts a record that does not verify, and says so once per meeting.
    pub(crate) fn report_bad(&self, segment: &Segment, offset: u64, reason: &str) {
        self.counters.bad_records.add(1);
        tracing::warn!(path = %segment.path.display(), offset, reason, "a record does not verify: taken as missing");
    }

    /// Makes creations and removals of files durable.
    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))
    }

    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.read_only { Err(Error::ReadOnly { path: self.dir.clone() }) } else { Ok(()) }
    }

    pub(crate) fn check_size(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let Options { key_bytes_max, value_bytes_max, .. } = self.options;
        if key.len() > key_bytes_max as usize {
            return Err(Error::KeyTooLong { len: key.len(), max: key_bytes_max });
        }
        if value.len() > value_bytes_max as usize {
            return Err(Error::ValueTooLarge { len: value.len(), max: value_bytes_max });
        }
        Ok(())
    }

    /// What the log holds and has done.
    pub(crate) fn stats(&self) -> Stats {
        let index = self.index.read();
        let counters = &self.counters;
        Stats {
            entries: index.totals.entries,
            tombstones: index.totals.tombstones,
            deltas: index.totals.deltas,
            segments: index.slots().count() as u64,
            disk_bytes: index.disk_bytes(),
            index_bytes: index.slots().map(|(_, slot)| slot.index_len).sum(),
            live_bytes: index.slots().map(|(_, slot)| slot.live_bytes).sum(),
            stored_bytes: index.totals.stored_bytes,
            raw_bytes: index.totals.raw_bytes,
            written_bytes: counters.written_bytes.get(),
            copied_records: counters.copied_records.get(),
            rebased_records: counters.rebased_records.get(),
            dropped_entries: counters.dropped_entries.get(),
            bad_records: counters.bad_records.get(),
            torn_bytes: counters.torn_bytes.get(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.writer.get_mut().in_use {
            self.manifest.record(&[(manifest::USAGE, manifest::CLOSED)]);
        }
    }
}
