//! What a store reports of itself. Snapshots, not live values.

/// What a [`Store`](crate::Store) holds and has done since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Bytes of contents and names in memory, bookkeeping included.
    pub memory_bytes_used: u64,
    /// The most that was ever used.
    pub memory_bytes_peak: u64,
    /// The budget.
    pub memory_bytes_max: u64,
    /// Whether contents do not all fit in memory: on from the first spill, off when use falls below half of the threshold.
    pub spillover_active: bool,
    /// Contents in memory.
    pub hot_blobs: u64,
    /// Names in memory.
    pub hot_names: u64,
    /// Contents in memory that the cold tier does not have yet.
    pub dirty_blobs: u64,
    /// Reads answered from memory.
    pub hot_hits: u64,
    /// Reads answered from the cold tier.
    pub cold_hits: u64,
    /// Reads of what nobody has.
    pub misses: u64,
    /// Contents moved out of memory.
    pub spilled_blobs: u64,
    /// Contents moved back in.
    pub promoted_blobs: u64,
    /// Contents from the cold tier that did not match their hash. Each was a miss.
    pub corrupt_blobs: u64,
    /// What the cold tier says of itself.
    pub cold: ColdTierStats,
}

/// What a cold tier holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColdTierStats {
    /// Keys it has: contents, names and records. `None` if it cannot count them cheaply.
    pub entries: Option<u64>,
    /// Their values' bytes as stored, after compression.
    pub stored_bytes: Option<u64>,
    /// Their values' bytes as given.
    pub raw_bytes: Option<u64>,
    /// Bytes it occupies, garbage included.
    pub disk_bytes: Option<u64>,
    /// How values are compressed: `none`, `zstd 6`.
    pub codec: String,
}
