//! How a store uses memory. Knows nothing of the cold tier, which has options of its own.

use crate::Error;

/// How a [`Store`](crate::Store) uses memory.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreOptions {
    /// Bytes that contents and names may occupy in memory, bookkeeping included. At least 64 KiB; default 64 MiB.
    /// Exceeded only while a put waits for the cold tier to take what is over.
    pub memory_bytes_max: u64,
    /// The share of it at which cold contents begin to move out: above 0, up to 1, default 1.
    pub spillover_threshold: f64,
    /// How often cold contents must be read before they move into memory: at least 1, default 3. More than 1 keeps a scan,
    /// which reads everything once, from turning the tiers over.
    pub promote_after: u32,
    /// Give memory back to the operating system after moving contents out, instead of keeping it for the next allocation.
    /// Calls `malloc_trim` where the C library is glibc, some milliseconds per spill; does nothing elsewhere. Default off.
    pub reclaim: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { memory_bytes_max: 64 << 20, spillover_threshold: 1.0, promote_after: 3, reclaim: false }
    }
}

impl StoreOptions {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if self.memory_bytes_max < 64 << 10 {
            return refuse("memory_bytes_max", self.memory_bytes_max.to_string(), "65536 or more");
        }
        if !(self.spillover_threshold > 0.0 && self.spillover_threshold <= 1.0) {
            let expected = "a number above 0 and up to 1";
            return refuse("spillover_threshold", self.spillover_threshold.to_string(), expected);
        }
        if self.promote_after == 0 {
            return refuse("promote_after", "0".to_owned(), "1 or more");
        }
        Ok(())
    }

    /// Contents move out above this many bytes.
    pub(crate) fn high_bytes(&self) -> u64 {
        (self.memory_bytes_max as f64 * self.spillover_threshold) as u64
    }

    /// And until this many are left: spilling one blob at a time would cost a write for each put.
    pub(crate) fn low_bytes(&self) -> u64 {
        self.high_bytes() / 10 * 9
    }
}
