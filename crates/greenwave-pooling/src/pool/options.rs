//! Options of a pool.

use std::time::Duration;

/// Bounds of the interval at which the clock ticks and expired connections are swept. The interval
/// depends on the shortest time limit.
const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(1);
/// Interval at which the minimum is restored if there are no time limits.
const TOP_UP_EVERY: Duration = Duration::from_secs(30);

/// Options of a pool. Time limits have a resolution of a millisecond; limits above a year count as
/// a year.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOptions {
    /// Minimum number of connections, including idle ones; values above `size_max` count as
    /// `size_max`. Restored in the background from the first use on. After failures, the delay
    /// between attempts grows to 30 seconds.
    pub size_min: usize,
    /// Maximum number of connections, including those being established. Numbers outside
    /// `1..=65536` count as the nearest bound.
    pub size_max: usize,
    /// Time after which an idle connection above the minimum is closed.
    pub idle_timeout: Option<Duration>,
    /// Age at which a connection is closed as soon as it is idle, even below the minimum.
    pub max_lifetime: Option<Duration>,
    /// Maximum fraction by which each lifetime is shortened at random, so that connections do not
    /// all expire at once. Numbers outside `0.0..=1.0` count as the nearest bound, and NaN as 0.
    pub lifetime_jitter: f64,
    /// Time limit of [`Pool::get`](super::Pool::get), including checks.
    pub checkout_timeout: Option<Duration>,
    /// Time limit of one connect.
    pub connect_timeout: Option<Duration>,
    /// Idle time after which a connection is checked before it is lent. A connection that was idle
    /// for less than half of it is never checked. `None` disables these checks.
    pub check_after: Option<Duration>,
    /// Interval at which idle connections are checked in the background, one after another. `None`
    /// disables these checks.
    pub check_idle_every: Option<Duration>,
    /// Seed of the jitter; random if `None`.
    pub seed: Option<u64>,
}

impl Default for PoolOptions {
    /// 2 to 10 connections, an idle timeout of 300 s, a checkout timeout of 30 s, a connect timeout
    /// of 10 s, a check after 1 s of idleness, no maximum lifetime, no background checks.
    fn default() -> Self {
        Self {
            size_min: 2,
            size_max: 10,
            idle_timeout: Some(Duration::from_secs(300)),
            max_lifetime: None,
            lifetime_jitter: 0.1,
            checkout_timeout: Some(Duration::from_secs(30)),
            connect_timeout: Some(Duration::from_secs(10)),
            check_after: Some(Duration::from_secs(1)),
            check_idle_every: None,
            seed: None,
        }
    }
}

/// Returns the interval of ticks that the time limits require, or `None` if nothing needs a tick.
pub(super) fn tick_of(options: &PoolOptions) -> Option<Duration> {
    let limits = [
        options.check_after.map(|limit| limit / 4),
        options.check_idle_every.map(|limit| limit / 4),
        options.idle_timeout.map(|limit| limit / 16),
        options.max_lifetime.map(|limit| limit / 16),
    ];
    match limits.into_iter().flatten().min() {
        Some(tick) => Some(tick.clamp(TICK_MIN, TICK_MAX)),
        None => (options.size_min > 0).then_some(TOP_UP_EVERY),
    }
}
