//! Writer numbers: give each log that writes to a directory timestamps that no other log uses.
//!
//! A timestamp modulo [`WRITERS_MAX`] is the number of the log that chose it. A log takes the first
//! free number before its first write and holds it until it is closed: it locks the file `writer-`
//! and two hexadecimal digits in the log's directory (`flock` on Unix). The system releases the
//! lock when the process dies. The files are empty and are not removed.
//!
//! A log refreshes between taking a number and its first write. It has then read everything that
//! earlier holders of the number wrote, and chooses later timestamps.

use std::io;
use std::path::Path;

use crate::Error;
use crate::access::Access;
use crate::descriptors::Descriptors;
use crate::disk::{Disk, File};
use crate::format::writer_path;

/// Maximum number of logs that write to a directory at the same time. Timestamps are later than the
/// clock by less than this many nanoseconds, which is less than a write takes. A write that begins
/// after another one has returned therefore gets the later timestamp.
pub(crate) const WRITERS_MAX: u64 = 256;

/// A number that no other open log has. Released when dropped.
#[derive(Debug)]
pub(crate) struct WriterNumber {
    number: u64,
    _file: File,
}

impl WriterNumber {
    /// Takes the first free number.
    pub(crate) fn take(disk: &Disk, descriptors: &Descriptors, dir: &Path) -> Result<Self, Error> {
        for number in 0..WRITERS_MAX {
            let path = writer_path(dir, number);
            let file = descriptors.open(disk, &path, Access::Create).map_err(Error::io("create", &path))?;
            if file.try_lock().map_err(Error::io("lock", &path))? {
                return Ok(Self { number, _file: file });
            }
        }
        let error = io::Error::new(io::ErrorKind::WouldBlock, "256 logs are open for writing");
        Err(Error::io("write to", dir)(error))
    }

    /// Returns the first timestamp of this number from `earliest` on.
    pub(crate) fn timestamp_from(&self, earliest: u64) -> u64 {
        let timestamp = earliest - earliest % WRITERS_MAX + self.number;
        if timestamp >= earliest { timestamp } else { timestamp.saturating_add(WRITERS_MAX) }
    }
}
