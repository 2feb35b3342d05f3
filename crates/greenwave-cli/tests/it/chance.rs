//! Numbers by chance, from a seed that a failing test shows.

use std::time::{SystemTime, UNIX_EPOCH};

/// A seed to repeat a failure with.
const SEED: &str = "GREENWAVE_TEST_SEED";

/// A generator of numbers (xorshift64*, Vigna 2016: https://doi.org/10.1145/2845077).
pub(crate) struct Chance(u64);

impl Chance {
    /// From the seed of the environment, or a new one. It is printed, which cargo shows when the test fails.
    pub(crate) fn new() -> Self {
        let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            since.as_nanos() as u64
        });
        println!("seed: {SEED}={seed}");
        Self(seed | 1)
    }

    /// A number from 0 to below the bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % bound
    }
}
