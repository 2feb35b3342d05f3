//! Finds similar contents by comparing small sketches of them.
//!
//! The method is Odess (Zou et al., "Odess: Speeding up Resemblance Detection for Redundancy
//! Elimination by Fast Content-Defined Sampling", ICDE 2021). A gear hash rolls over the bytes. At
//! positions sampled by its upper bits, several linear functions are applied to it, and the maximum
//! of each is a *feature*. Contents that share most of their bytes share most features. Groups of
//! features form *super-features*, and two contents are considered similar if one of these is
//! equal.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;

/// Number of super-features.
const GROUPS: usize = 3;
/// Number of features per super-feature. With more, matches become rarer and more reliable.
const GROUP_SIZE: usize = 4;
/// One position in this many is sampled.
const SAMPLE_INTERVAL: u32 = 32;
/// Minimum size of contents. Shorter ones have too few sampled positions.
pub(crate) const SKETCHED_BYTES_MIN: usize = 1 << 10;
/// Maximum size of contents. Longer ones take long, and tend to resemble others only in parts.
const SKETCHED_BYTES_MAX: usize = 4 << 20;

/// The super-features of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sketch([u64; GROUPS]);

impl Sketch {
    /// Returns the sketch of contents, or `None` if they are too short or too long.
    pub(crate) fn of(contents: &[u8]) -> Option<Self> {
        if !(SKETCHED_BYTES_MIN..=SKETCHED_BYTES_MAX).contains(&contents.len()) {
            return None;
        }
        let mut features = [0_u64; GROUPS * GROUP_SIZE];
        let mut gear = 0_u64;
        for byte in contents {
            gear = (gear << 1).wrapping_add(GEAR[usize::from(*byte)]);
            // Tests the upper bits, which depend on the last 64 bytes; the lower ones depend on
            // fewer.
            if gear >> (64 - SAMPLE_INTERVAL.ilog2()) == 0 {
                for (feature, (factor, addend)) in features.iter_mut().zip(LINEAR) {
                    *feature = (*feature).max(gear.wrapping_mul(factor).wrapping_add(addend));
                }
            }
        }
        let mut groups = [0; GROUPS];
        for (group, features) in groups.iter_mut().zip(features.chunks_exact(GROUP_SIZE)) {
            *group = features.iter().fold(0, |all, feature| mix(all ^ *feature));
        }
        // Without a sampled position, all contents would have the same sketch.
        (features[0] != 0).then_some(Self(groups))
    }

    /// Returns the super-features with their numbers. Contents are similar if they share one.
    pub(crate) fn super_features(self) -> impl Iterator<Item = (usize, u64)> {
        self.0.into_iter().enumerate()
    }
}

/// Index of recent keys by their sketches.
#[derive(Debug)]
pub(crate) struct SketchIndex {
    groups: [LruCache<u64, Bytes>; GROUPS],
}

impl SketchIndex {
    /// Creates an index of at most `max` keys, at about 400 bytes each.
    pub(crate) fn new(max: NonZeroUsize) -> Self {
        Self { groups: std::array::from_fn(|_| LruCache::new(max)) }
    }

    /// Returns a key with a similar sketch.
    pub(crate) fn find(&mut self, sketch: &Sketch) -> Option<Bytes> {
        self.groups.iter_mut().zip(sketch.0).find_map(|(group, feature)| group.get(&feature).cloned())
    }

    /// Adds a key with its sketch.
    pub(crate) fn insert(&mut self, sketch: &Sketch, key: &Bytes) {
        for (group, feature) in self.groups.iter_mut().zip(sketch.0) {
            group.put(feature, key.clone());
        }
    }
}

/// Returns a pseudo-random number, the same in every build: the output of splitmix64
/// (<https://prng.di.unimi.it/splitmix64.c>).
const fn random(seed: u64) -> u64 {
    mix(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < table.len() {
        table[i] = random(i as u64);
        i += 1;
    }
    table
};

/// Factors, which must be odd, and addends.
const LINEAR: [(u64, u64); GROUPS * GROUP_SIZE] = {
    let mut table = [(0, 0); GROUPS * GROUP_SIZE];
    let mut i = 0;
    while i < table.len() {
        table[i] = (random(1000 + i as u64) | 1, random(2000 + i as u64));
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u64) -> Vec<u8> {
        (0..400)
            .flat_map(|line| format!("line {line} says {:016x}\n", random(seed * 1000 + line)).into_bytes())
            .collect()
    }

    #[test]
    fn slightly_changed_contents_are_found_and_different_ones_are_not() {
        let mut sketches = SketchIndex::new(NonZeroUsize::new(100).unwrap());
        for seed in 0..20 {
            sketches.insert(&Sketch::of(&text(seed)).unwrap(), &Bytes::from(vec![seed as u8]));
        }
        let mut found = 0;
        for seed in 0..20 {
            let mut changed = text(seed);
            let at = random(seed) as usize % (changed.len() - 100);
            changed.splice(at..at + 40, b"something else, and of another length".iter().copied());
            let hit = sketches.find(&Sketch::of(&changed).unwrap());
            assert!(hit.is_none() || hit.as_deref() == Some(&[seed as u8]), "{seed}");
            found += usize::from(hit.is_some());
        }
        assert!(found >= 18, "{found} of 20");
        for seed in 100..140 {
            assert_eq!(sketches.find(&Sketch::of(&text(seed)).unwrap()), None);
        }
    }

    #[test]
    fn short_contents_have_no_sketch() {
        assert_eq!(Sketch::of(&text(1)[..1000]), None);
    }
}
