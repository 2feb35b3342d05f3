//! Statistics of a store, as snapshots.

/// Size of a [`Store`](crate::Store), and its counters since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Memory used by contents and names in bytes, including overhead.
    pub memory_bytes_used: u64,
    /// Maximum of `memory_bytes_used`.
    pub memory_bytes_peak: u64,
    /// Memory budget in bytes.
    pub memory_bytes_max: u64,
    /// Whether the contents exceed memory. Set by the first spill, and cleared when memory use
    /// falls below half of the threshold.
    pub spillover_active: bool,
    /// Number of blobs in memory.
    pub hot_blobs: u64,
    /// Number of names in memory.
    pub hot_names: u64,
    /// Number of blobs in memory that the cold tier may not have.
    pub dirty_blobs: u64,
    /// Reads served from memory.
    pub hot_hits: u64,
    /// Reads served from the cold tier.
    pub cold_hits: u64,
    /// Reads of contents that do not exist.
    pub misses: u64,
    /// Blobs moved out of memory.
    pub spilled_blobs: u64,
    /// Blobs moved into memory.
    pub promoted_blobs: u64,
    /// Blobs read from the cold tier that did not match their hash. Each counts as missing.
    pub corrupt_blobs: u64,
    /// Statistics of the cold tier.
    pub cold: ColdTierStats,
}

/// Size of a cold tier.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColdTierStats {
    /// Number of keys: contents, names and records. `None` if counting would be expensive.
    pub entries: Option<u64>,
    /// Size of the values as stored, after compression.
    pub stored_bytes: Option<u64>,
    /// Size of the values before compression.
    pub raw_bytes: Option<u64>,
    /// Disk usage, including garbage.
    pub disk_bytes: Option<u64>,
    /// Compression of values, such as `none` or `zstd 6`.
    pub codec: String,
}
