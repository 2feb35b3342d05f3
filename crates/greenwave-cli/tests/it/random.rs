//! Random numbers from a seed that a failing test shows.

/// Variable with the seed to repeat.
const SEED: &str = "GREENWAVE_TEST_SEED";

/// Returns a generator with the seed in the environment, or else a new one. Prints the seed, which
/// cargo shows if the test fails.
pub(crate) fn rng() -> fastrand::Rng {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("seed: {SEED}={seed}");
    fastrand::Rng::with_seed(seed)
}
