//! How often keys were asked for that are not held, about. Knows nothing of those that are.

/// Largest count that is kept; 15 tells the popular from the rest, after Einziger et al., "TinyLFU", ACM Transactions on Storage 2017.
pub(super) const COUNT_MAX: u8 = 15;
/// Counters for each entry that is held.
const COUNTERS_EACH: usize = 16;
/// Places where a key's count stands; the least of them is the least wrong.
const ROWS: u64 = 4;

/// A count-min sketch (Cormode and Muthukrishnan, 2005) that is raised to counts taken elsewhere instead of counting itself.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    counters: Vec<u8>,
}

impl Sketch {
    /// Makes room for so many entries held. What was known is forgotten when more room is needed.
    pub(super) fn fit(&mut self, entries: usize) {
        let wanted = (entries * COUNTERS_EACH).next_power_of_two();
        if wanted > self.counters.len() {
            self.counters = vec![0; wanted];
        }
    }

    pub(super) fn count(&self, hash: u64) -> u8 {
        if self.counters.is_empty() {
            return 0;
        }
        (0..ROWS).map(|row| self.counters[self.place(hash, row)]).min().unwrap_or(0)
    }

    pub(super) fn raise(&mut self, hash: u64, count: u8) {
        if self.counters.is_empty() {
            return;
        }
        for row in 0..ROWS {
            let place = self.place(hash, row);
            self.counters[place] = self.counters[place].max(count);
        }
    }

    /// Halves all counts, so often.
    pub(super) fn age(&mut self, halvings: u32) {
        self.counters.iter_mut().for_each(|count| *count >>= halvings);
    }

    fn place(&self, hash: u64, row: u64) -> usize {
        // An odd factor of its own makes each row independent of the others; the product's upper half is its well-mixed part.
        let mixed = hash
            .wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.wrapping_add(row.wrapping_mul(0x6A09_E667_F3BC_C908)));
        (mixed >> 32) as usize & (self.counters.len() - 1)
    }
}
