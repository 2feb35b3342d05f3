//! Rate limits over several units at once, and pauses that hosts asked for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::callback::after;

/// The rate of one unit. A bucket holds the units of one period, so that many can be taken in a
/// burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units per period; 0 counts as 1.
    pub units: u64,
    /// Length of the period; zero disables the limit.
    pub period: Duration,
}

impl Rate {
    /// Creates a rate of `units` per minute.
    #[must_use]
    pub fn per_minute(units: u64) -> Self {
        Self { units, period: Duration::from_secs(60) }
    }
}

/// Token buckets for `N` units that are taken together, such as requests and tokens per minute.
/// Clones share the buckets.
///
/// Callers are served in the order of their calls: a large request is not overtaken by small ones.
/// If the actual cost of a call differs from the amount taken, [`correct`](Self::correct) settles
/// the difference.
///
/// ```
/// use greenwave_pooling::{TokenBuckets, Rate};
///
/// # let mut builder = tokio::runtime::Builder::new_current_thread();
/// # builder.enable_time().start_paused(true).build().unwrap().block_on(async {
/// let limits = TokenBuckets::new([Rate::per_minute(60), Rate::per_minute(90_000)]);
/// limits.take([1, 2_500]).await;
/// assert_eq!(limits.available(), [59, 87_500]);
/// # });
/// ```
pub struct TokenBuckets<const N: usize> {
    buckets: Arc<BucketSet<N>>,
}

struct BucketSet<const N: usize> {
    rates: [Rate; N],
    /// Held by the caller that is next in line while it waits for units. tokio's mutex is fair.
    turn: tokio::sync::Mutex<()>,
    levels: Mutex<Levels<N>>,
}

struct Levels<const N: usize> {
    /// Levels are negative after a call that cost more than was taken.
    units: [f64; N],
    filled: Instant,
}

impl<const N: usize> TokenBuckets<N> {
    /// Creates full buckets.
    #[must_use]
    pub fn new(rates: [Rate; N]) -> Self {
        let rates = rates.map(|rate| Rate { units: rate.units.max(1), ..rate });
        let levels = Levels { units: rates.map(|rate| rate.units as f64), filled: Instant::now() };
        let turn = tokio::sync::Mutex::new(());
        Self { buckets: Arc::new(BucketSet { rates, turn, levels: Mutex::new(levels) }) }
    }

    /// Waits until all units are available and takes them. A request for more than a bucket holds
    /// waits until the bucket is full, and takes it below zero.
    ///
    /// Cancel safe: a cancelled call takes nothing.
    pub async fn take(&self, wanted: [u64; N]) {
        let _turn = self.buckets.turn.lock().await;
        while let Err(until) = self.buckets.try_take(wanted) {
            sleep_until(until).await;
        }
    }

    /// Takes the units if all are available and no other caller waits. Returns false otherwise.
    #[must_use]
    pub fn try_take(&self, wanted: [u64; N]) -> bool {
        let turn = self.buckets.turn.try_lock();
        turn.is_ok() && self.buckets.try_take(wanted).is_ok()
    }

    /// Replaces the amounts `taken` for a call by its actual `cost`: returns or charges the
    /// difference.
    pub fn correct(&self, taken: [u64; N], cost: [u64; N]) {
        let mut levels = self.buckets.levels.lock();
        for at in 0..N {
            let level = levels.units[at] + taken[at] as f64 - cost[at] as f64;
            levels.units[at] = level.min(self.buckets.rates[at].units as f64);
        }
    }

    /// Returns whether nothing has been taken, or everything has come back.
    pub(crate) fn is_full(&self) -> bool {
        let mut levels = self.buckets.levels.lock();
        self.buckets.fill(&mut levels, Instant::now());
        levels.units.iter().zip(&self.buckets.rates).all(|(level, rate)| *level >= rate.units as f64)
    }

    /// Returns whether other handles of these buckets exist.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.buckets) > 1
    }

    /// Returns the available units, rounded down; zero if a level is negative.
    #[must_use]
    pub fn available(&self) -> [u64; N] {
        let mut levels = self.buckets.levels.lock();
        self.buckets.fill(&mut levels, Instant::now());
        levels.units.map(|units| units.max(0.0) as u64)
    }
}

impl<const N: usize> BucketSet<N> {
    /// Takes the units, or returns the time of the next attempt.
    fn try_take(&self, wanted: [u64; N]) -> Result<(), Instant> {
        let now = Instant::now();
        let mut levels = self.levels.lock();
        self.fill(&mut levels, now);
        let mut wait = Duration::ZERO;
        for (at, rate) in self.rates.iter().enumerate() {
            // More than the bucket can hold would never become available.
            let missing = wanted[at].min(rate.units) as f64 - levels.units[at];
            if missing > 1e-6 {
                let seconds = missing / rate.units as f64 * rate.period.as_secs_f64();
                wait = wait.max(Duration::try_from_secs_f64(seconds).unwrap_or(rate.period));
            }
        }
        if !wait.is_zero() {
            // tokio's timer has a resolution of a millisecond. A shorter wait would end too early.
            return Err(after(now, wait.saturating_add(Duration::from_millis(1))));
        }
        for (level, wanted) in levels.units.iter_mut().zip(wanted) {
            *level -= wanted as f64;
        }
        Ok(())
    }

    fn fill(&self, levels: &mut Levels<N>, now: Instant) {
        let passed = now.saturating_duration_since(levels.filled).as_secs_f64();
        levels.filled = now;
        for (level, rate) in levels.units.iter_mut().zip(&self.rates) {
            let gained = passed / rate.period.as_secs_f64().max(f64::MIN_POSITIVE) * rate.units as f64;
            *level = (*level + gained).min(rate.units as f64);
        }
    }
}

impl<const N: usize> Clone for TokenBuckets<N> {
    fn clone(&self) -> Self {
        Self { buckets: self.buckets.clone() }
    }
}

impl<const N: usize> fmt::Debug for TokenBuckets<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBuckets").field("available", &self.available()).finish()
    }
}

/// Default upper limit of pauses that a server asks for.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Pauses that hosts asked for, shared by all callers of these hosts. Clones share the pauses.
///
/// Expired pauses are removed whenever another one starts, so the map holds at most `hosts_max`
/// hosts.
#[derive(Debug, Clone)]
pub struct Cooldowns {
    hosts_max: usize,
    pause_max: Duration,
    until: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Cooldowns {
    /// Creates an empty set for at most `hosts_max` hosts; 0 counts as 1. Pauses are limited to 10
    /// minutes.
    #[must_use]
    pub fn new(hosts_max: usize) -> Self {
        Self { hosts_max: hosts_max.max(1), pause_max: PAUSE_MAX, until: Arc::default() }
    }

    /// Replaces the upper limit of pauses, by at most a year.
    #[must_use]
    pub fn with_pause_max(self, pause_max: Duration) -> Self {
        Self { pause_max, ..self }
    }

    /// Starts a pause for `host`. A running pause is extended but never shortened. If there are too
    /// many hosts, the pause that ends first is dropped.
    pub fn start(&self, host: &str, pause: Duration) {
        let now = Instant::now();
        let until = after(now, pause.min(self.pause_max));
        let mut hosts = self.until.lock();
        hosts.retain(|_, until| *until > now);
        let end = hosts.entry(host.to_owned()).or_insert(until);
        *end = (*end).max(until);
        if hosts.len() > self.hosts_max {
            let next = hosts.iter().min_by_key(|(_, until)| **until).map(|(host, _)| host.clone());
            next.map(|next| hosts.remove(&next));
        }
    }

    /// Returns the remaining pause of `host`, or zero without a pause.
    #[must_use]
    pub fn remaining(&self, host: &str) -> Duration {
        let until = self.until.lock().get(host).copied();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Waits until the pause of `host` ends, including extensions made in the meantime.
    pub async fn wait(&self, host: &str) {
        loop {
            let left = self.remaining(host);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}
