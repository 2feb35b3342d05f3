//! Approximate access counts of keys that are not cached.

/// Maximum count. 15 is enough to separate popular keys from others (Einziger et al., "TinyLFU",
/// ACM Transactions on Storage 2017).
pub(super) const COUNT_MAX: u8 = 15;
/// Number of counters per cached entry.
const COUNTERS_EACH: usize = 16;
/// Number of counters per key. The lowest of them has the smallest error.
const ROWS: usize = 4;
/// Number of counters in a block, which is a cache line.
const BLOCK: usize = 64;

/// A count-min sketch (Cormode and Muthukrishnan, 2005) that does not count itself, and is raised
/// to counts taken elsewhere.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    counters: Vec<u8>,
}

impl Sketch {
    /// Grows the sketch for this many cached entries. Growing discards all counts.
    pub(super) fn fit(&mut self, entries: usize) {
        let wanted = (entries * COUNTERS_EACH).next_power_of_two().max(BLOCK);
        if wanted > self.counters.len() {
            self.counters = vec![0; wanted];
        }
    }

    pub(super) fn count(&self, hash: u64) -> u8 {
        self.indices(hash).into_iter().flatten().map(|index| self.counters[index]).min().unwrap_or(0)
    }

    pub(super) fn raise(&mut self, hash: u64, count: u8) {
        for index in self.indices(hash).into_iter().flatten() {
            self.counters[index] = self.counters[index].max(count);
        }
    }

    /// Halves all counts `halvings` times.
    pub(super) fn age(&mut self, halvings: u32) {
        self.counters.iter_mut().for_each(|count| *count >>= halvings);
    }

    /// Returns the positions of a key's counters, or `None` if the sketch is empty. All are within
    /// one block, so that they cost one cache miss instead of four.
    fn indices(&self, hash: u64) -> Option<[usize; ROWS]> {
        let blocks = self.counters.len() / BLOCK;
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let block = ((mixed >> 32) as usize & blocks.checked_sub(1)?) * BLOCK;
        // Each row has a quarter of the block. The position in it comes from bits that did not
        // choose the block.
        let index =
            |row: usize| block + row * (BLOCK / ROWS) + (mixed >> (8 + 4 * row)) as usize % (BLOCK / ROWS);
        Some(std::array::from_fn(index))
    }
}
