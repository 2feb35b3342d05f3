//! Random numbers for jitter: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
//! Generators", 2014). Not for secrets.

use std::hash::BuildHasher;
use std::hash::RandomState;

/// A sequence of random numbers. The same seed gives the same sequence.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed; of a seed that differs from call to call and from process to process
    /// if there is none.
    #[must_use]
    pub fn new(seed: Option<u64>) -> Self {
        // The standard library seeds its hash tables from the system's source of randomness.
        Self(seed.unwrap_or_else(|| RandomState::new().hash_one(0)))
    }

    /// The next number, uniform in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The upper 53 bits are as many as a double holds.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
