//! Options of a log.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::format::{KEY_BYTES_MAX, SEGMENT_HEADER_BYTES};

/// Options for opening a [`Log`](crate::Log). Processes that share a directory may use different
/// ones.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size at which a segment is sealed and the next one started, in bytes; at least 4 KiB,
    /// default 64 MiB. A larger record gets its own segment. With a disk budget, at most a quarter
    /// of the budget is used.
    pub segment_bytes_max: u64,
    /// Compression of values. A value that shrinks by less than 10 % is stored raw. Default: zstd
    /// level 1.
    pub compression: Compression,
    /// Maximum size of all segments together, of every process, in bytes; at least 16 KiB. Default:
    /// `None`, no limit.
    pub disk_bytes_max: Option<u64>,
    /// Behaviour when that size is reached. Default: [`WhenFull::Refuse`].
    pub when_full: WhenFull,
    /// Maximum number of deltas to apply when reading a value that was stored with
    /// [`Log::put_delta`](crate::Log::put_delta); 0 to 200, default 16. With 0, with
    /// [`WhenFull::DropOldest`] and with [`LoadIndex::OnDemand`], no deltas are stored.
    pub chain_depth_max: u8,
    /// Maximum length of a key in bytes; 1 to 65 536, which is the default.
    pub key_bytes_max: u32,
    /// Maximum size of a value before compression in bytes; default 1 GiB. Reads allocate no more
    /// than this.
    pub value_bytes_max: u32,
    /// Maximum number of open segments, including index files that are read on demand; at least 1,
    /// default 256. Closed ones are reopened when they are read. Up to 6 more files are open for
    /// the segment being written, and while files are listed, read on opening, or locked.
    pub open_files_max: u32,
    /// Whether opening reads the whole index. Default: [`LoadIndex::OnOpen`].
    pub load_index: LoadIndex,
    /// Returns the time in nanoseconds since the Unix epoch, which orders the writes of different
    /// processes. It may step back; timestamps of records never do.
    pub clock: fn() -> u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes_max: 64 << 20,
            compression: Compression::Zstd { level: 1 },
            disk_bytes_max: None,
            when_full: WhenFull::Refuse,
            chain_depth_max: 16,
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: 1 << 30,
            open_files_max: 256,
            load_index: LoadIndex::OnOpen,
            clock: unix_nanos,
        }
    }
}

/// Compression of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// Zstandard. Level 1 compresses about as fast as a disk stores the result.
    Zstd {
        /// Compression level, -7 to 22.
        level: i32,
    },
}

/// Behaviour of a put when the disk budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Compact, and fail with [`Error::Full`] if that frees too little. For data that must not
    /// vanish.
    Refuse,
    /// Drop whole segments, those with the oldest records first. For caches.
    DropOldest,
}

/// Time at which the index of sealed segments is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadIndex {
    /// All of it on opening. For processes that read many values.
    OnOpen,
    /// When keys are read, so that opening takes time for each segment and not for each key. The
    /// first read of a key then costs a system call or two for each sealed segment. Lists of keys,
    /// compaction, and dropping the oldest values read the rest. No deltas are stored. Applies to
    /// segments that were sealed by a log with this option.
    OnDemand,
}

impl Options {
    /// Validates the options and resolves dependencies between them.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        let refuse = |option, value: String, accepted| Err(Error::Option { option, value, accepted });
        if self.segment_bytes_max < 4096 {
            return refuse("segment_bytes_max", self.segment_bytes_max.to_string(), "at least 4096");
        }
        if self.key_bytes_max == 0 || self.key_bytes_max > KEY_BYTES_MAX {
            return refuse("key_bytes_max", self.key_bytes_max.to_string(), "a number from 1 to 65536");
        }
        if let Compression::Zstd { level } = self.compression
            && !(-7..=22).contains(&level)
        {
            return refuse("compression.level", level.to_string(), "a number from -7 to 22");
        }
        if self.chain_depth_max > 200 {
            return refuse("chain_depth_max", self.chain_depth_max.to_string(), "a number from 0 to 200");
        }
        if self.open_files_max == 0 {
            return refuse("open_files_max", "0".into(), "at least 1");
        }
        if self.when_full == WhenFull::DropOldest {
            // Segments are dropped by age, even if deltas elsewhere depend on them.
            self.chain_depth_max = 0;
        }
        if self.load_index == LoadIndex::OnDemand {
            // Finding the deltas of a base requires all keys.
            self.chain_depth_max = 0;
        }
        if let Some(max) = self.disk_bytes_max {
            if max < 16_384 {
                return refuse("disk_bytes_max", max.to_string(), "at least 16384");
            }
            self.segment_bytes_max = self.segment_bytes_max.min(max / 4);
        }
        assert!(self.segment_bytes_max > SEGMENT_HEADER_BYTES);
        Ok(self)
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
