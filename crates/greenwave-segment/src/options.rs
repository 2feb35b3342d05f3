//! How a log is opened. Knows nothing of files.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::format::{KEY_BYTES_MAX, SEGMENT_HEADER_BYTES};

/// How a [`Log`](crate::Log) is opened. Processes that share a directory may differ in all of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size at which a segment is sealed and the next one begun, in bytes; 4 KiB or more, default 64 MiB. A record larger than this
    /// gets a segment of its own. With a disk budget, at most a quarter of it is used.
    pub segment_bytes_max: u64,
    /// What is tried on each value; it is stored raw when that gains under 10 %. Default: zstd level 1.
    pub compression: Compression,
    /// Most bytes that all segments together may occupy, counting every process's; `None` is no limit, the default.
    pub disk_bytes_max: Option<u64>,
    /// What happens at that limit. Default: [`WhenFull::Refuse`].
    pub when_full: WhenFull,
    /// How many differences at most have to be undone to read a value that was put with [`Log::put_delta`](crate::Log::put_delta): 0 to
    /// 200, default 16. 0 stores none, and none are stored where the oldest are dropped.
    pub chain_depth_max: u8,
    /// Longest key in bytes, at most (and by default) 65 536.
    pub key_bytes_max: u32,
    /// Largest value in bytes before compression, default 1 GiB. Also caps what a read will allocate.
    pub value_bytes_max: u32,
    /// Segments that are open at once, 1 or more, default 256. Others are opened again when they are read. The segment being
    /// written, and what is open only while it is listed, read on opening, or locked, come on top: at most 6 more.
    pub open_files_max: u32,
    /// Nanoseconds since the Unix epoch. Orders writes of different processes; may step back, since stamps never do.
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
            clock: unix_nanos,
        }
    }
}

/// How values are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard. Levels -7 to 22; 1 compresses about as fast as a disk takes the result.
    Zstd {
        /// The level.
        level: i32,
    },
}

/// What a put does when the disk budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Compacts, and if that frees too little fails with [`Error::Full`]. For data that must not vanish.
    Refuse,
    /// Drops whole segments, those with the oldest records first. For caches.
    DropOldest,
}

impl Options {
    /// Checks each value, and resolves those that depend on each other.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        let refuse = |option, value: String, accepted| Err(Error::Option { option, value, accepted });
        if self.segment_bytes_max < 4096 {
            return refuse("segment_bytes_max", self.segment_bytes_max.to_string(), "4096 or more");
        }
        if self.key_bytes_max == 0 || self.key_bytes_max > KEY_BYTES_MAX {
            return refuse("key_bytes_max", self.key_bytes_max.to_string(), "1 to 65536");
        }
        if let Compression::Zstd { level } = self.compression
            && !(-7..=22).contains(&level)
        {
            return refuse("compression level", level.to_string(), "-7 to 22");
        }
        if self.chain_depth_max > 200 {
            return refuse("chain_depth_max", self.chain_depth_max.to_string(), "0 to 200");
        }
        if self.open_files_max == 0 {
            return refuse("open_files_max", "0".into(), "1 or more");
        }
        if self.when_full == WhenFull::DropOldest {
            // What is dropped is dropped by age, whatever depends on it.
            self.chain_depth_max = 0;
        }
        if let Some(max) = self.disk_bytes_max {
            if max < 16_384 {
                return refuse("disk_bytes_max", max.to_string(), "16384 or more");
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
