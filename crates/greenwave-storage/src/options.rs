//! Options for a store's use of memory.

use crate::Error;

/// Configuration of a [`Store`](crate::Store).
#[derive(Debug, Clone, PartialEq)]
pub struct StoreOptions {
    /// Memory budget for contents and names in bytes, including overhead. At least 64 KiB. Exceeded
    /// only while a put waits for the cold tier. Default: 64 MiB.
    pub memory_bytes_max: u64,
    /// Fraction of the budget at which contents are moved to the cold tier, above 0 and up to 1.
    /// Default: 1.
    pub spillover_threshold: f64,
    /// Number of reads after which cold contents move into memory, at least 1. A value above 1
    /// keeps a scan, which reads everything once, from replacing the contents of memory. Default:
    /// 3.
    pub promote_after: u32,
    /// Whether to return freed memory to the operating system after a spill. Calls `malloc_trim`
    /// with glibc, which takes some milliseconds per spill, and does nothing on other systems.
    /// Default: false.
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

    /// Returns the number of bytes above which contents are spilled.
    pub(crate) fn high_bytes(&self) -> u64 {
        (self.memory_bytes_max as f64 * self.spillover_threshold) as u64
    }

    /// Returns the number of bytes at which a spill stops. Spilling one blob at a time would cost a
    /// write for each put.
    pub(crate) fn low_bytes(&self) -> u64 {
        self.high_bytes() / 10 * 9
    }
}
