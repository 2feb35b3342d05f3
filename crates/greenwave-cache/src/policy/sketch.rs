//! How often keys were asked for that are not held, about. Knows nothing of those that are.

/// Largest count that is kept; 15 tells the popular from the rest, after Einziger et al., "TinyLFU", ACM Transactions on Storage 2017.
pub(super) const COUNT_MAX: u8 = 15;
/// Counters for each entry that is held.
const COUNTERS_EACH: usize = 16;
/// Places where a key's count stands; the least of them is the least wrong.
const ROWS: usize = 4;
/// Counters that stand together: a cache line.
const BLOCK: usize = 64;

/// A count-min sketch (Cormode and Muthukrishnan, 2005) that is raised to counts taken elsewhere instead of counting itself.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    counters: Vec<u8>,
}

impl Sketch {
    /// Makes room for so many entries held. What was known is forgotten when more room is needed.
    pub(super) fn fit(&mut self, entries: usize) {
        let wanted = (entries * COUNTERS_EACH).next_power_of_two().max(BLOCK);
        if wanted > self.counters.len() {
            self.counters = vec![0; wanted];
        }
    }

    pub(super) fn count(&self, hash: u64) -> u8 {
        self.places(hash).into_iter().flatten().map(|place| self.counters[place]).min().unwrap_or(0)
    }

    pub(super) fn raise(&mut self, hash: u64, count: u8) {
        for place in self.places(hash).into_iter().flatten() {
            self.counters[place] = self.counters[place].max(count);
        }
    }

    /// Halves all counts, so often.
    pub(super) fn age(&mut self, halvings: u32) {
        self.counters.iter_mut().for_each(|count| *count >>= halvings);
    }

    /// Where a key's counts stand, if there is room for any: all within one block, so that they cost one cache miss and not four.
    fn places(&self, hash: u64) -> Option<[usize; ROWS]> {
        let blocks = self.counters.len() / BLOCK;
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let block = ((mixed >> 32) as usize & blocks.checked_sub(1)?) * BLOCK;
        // A row has a quarter of the block; bits that did not choose the block choose the place in it.
        let place =
            |row: usize| block + row * (BLOCK / ROWS) + (mixed >> (8 + 4 * row)) as usize % (BLOCK / ROWS);
        Some(std::array::from_fn(place))
    }
}
