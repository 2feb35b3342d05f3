//! Random numbers from a seed that a failing test shows.

use std::time::{SystemTime, UNIX_EPOCH};

use greenwave_testkit::random::Random;

/// Variable with the seed to repeat.
const SEED: &str = "GREENWAVE_TEST_SEED";

/// Returns a generator with the seed in the environment, or else a new one. Prints the seed, which
/// cargo shows if the test fails.
pub(crate) fn random() -> Random {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = given.unwrap_or_else(now);
    println!("seed: {SEED}={seed}");
    Random::new(seed)
}
