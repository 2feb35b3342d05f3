//! How much in a minute, of several units at once, and when a host wants to be left alone. Knows nothing of what is called.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::callback::after;

/// A rate of one unit: so many in each period, all at once if none were used for a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units in a period; 0 counts as 1.
    pub units: u64,
    /// The period; zero for no limit.
    pub period: Duration,
}

impl Rate {
    /// So many in a minute.
    #[must_use]
    pub fn per_minute(units: u64) -> Self {
        Self { units, period: Duration::from_secs(60) }
    }
}

/// Token buckets of `N` units that are taken from together: requests and tokens per minute, say. Cloning shares it.
///
/// Callers are served first come, first served: who wants much is not overtaken by those who want little. What a call really took may be
/// [corrected](Self::correct) afterwards.
///
/// ```
/// use greenwave_pooling::{TokenBuckets, Rate};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let limits = TokenBuckets::new([Rate::per_minute(60), Rate::per_minute(90_000)]);
/// limits.take([1, 2_500]).await;
/// assert_eq!(limits.available(), [59, 87_500]);
/// # });
/// ```
pub struct TokenBuckets<const N: usize> {
    shared: Arc<Shared<N>>,
}

struct Shared<const N: usize> {
    rates: [Rate; N],
    /// Held by the one whose turn it is while it waits for its units: tokio's lock passes it on in order.
    turn: tokio::sync::Mutex<()>,
    levels: Mutex<Levels<N>>,
}

struct Levels<const N: usize> {
    /// Below zero after a correction upwards.
    units: [f64; N],
    filled: Instant,
}

impl<const N: usize> TokenBuckets<N> {
    /// All full.
    #[must_use]
    pub fn new(rates: [Rate; N]) -> Self {
        let rates = rates.map(|rate| Rate { units: rate.units.max(1), ..rate });
        let levels = Levels { units: rates.map(|rate| rate.units as f64), filled: Instant::now() };
        let turn = tokio::sync::Mutex::new(());
        Self { shared: Arc::new(Shared { rates, turn, levels: Mutex::new(levels) }) }
    }

    /// Waits until there is as much of every unit, and takes it. More than a bucket holds waits until it is full, and leaves it in debt.
    /// May be cancelled: then nothing is taken.
    pub async fn take(&self, wanted: [u64; N]) {
        let _turn = self.shared.turn.lock().await;
        while let Err(until) = self.shared.try_take(wanted) {
            sleep_until(until).await;
        }
    }

    /// Takes as much of every unit, if there is and nobody waits.
    #[must_use]
    pub fn try_take(&self, wanted: [u64; N]) -> bool {
        let turn = self.shared.turn.try_lock();
        turn.is_ok() && self.shared.try_take(wanted).is_ok()
    }

    /// A call that took `taken` really cost `cost`: the difference is given back, or owed.
    pub fn correct(&self, taken: [u64; N], cost: [u64; N]) {
        let mut levels = self.shared.levels.lock();
        for at in 0..N {
            let level = levels.units[at] + taken[at] as f64 - cost[at] as f64;
            levels.units[at] = level.min(self.shared.rates[at].units as f64);
        }
    }

    /// How much there is of each, rounded down; zero while in debt.
    #[must_use]
    pub fn available(&self) -> [u64; N] {
        let mut levels = self.shared.levels.lock();
        self.shared.fill(&mut levels, Instant::now());
        levels.units.map(|units| units.max(0.0) as u64)
    }
}

impl<const N: usize> Shared<N> {
    /// Takes, or says when to look again.
    fn try_take(&self, wanted: [u64; N]) -> Result<(), Instant> {
        let now = Instant::now();
        let mut levels = self.levels.lock();
        self.fill(&mut levels, now);
        let mut wait = Duration::ZERO;
        for (at, rate) in self.rates.iter().enumerate() {
            // More than there ever is would wait for ever.
            let missing = wanted[at].min(rate.units) as f64 - levels.units[at];
            if missing > 1e-6 {
                let seconds = missing / rate.units as f64 * rate.period.as_secs_f64();
                wait = wait.max(Duration::try_from_secs_f64(seconds).unwrap_or(rate.period));
            }
        }
        if !wait.is_zero() {
            // tokio's timer counts milliseconds: a little less would come round again and again.
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
        Self { shared: self.shared.clone() }
    }
}

impl<const N: usize> fmt::Debug for TokenBuckets<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBuckets").field("available", &self.available()).finish()
    }
}

/// The upper limit of pauses that another side asks for, unless another is given.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Until when hosts want to be left alone, shared by all who call them. Cloning shares it.
///
/// What is over is forgotten when another is added, so that there are never more than hosts that are cooling down, and at most `hosts_max`.
#[derive(Debug, Clone)]
pub struct Cooldowns {
    hosts_max: usize,
    pause_max: Duration,
    until: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Cooldowns {
    /// For so many hosts at once; 0 counts as 1. Pauses are at most 10 minutes.
    #[must_use]
    pub fn new(hosts_max: usize) -> Self {
        Self { hosts_max: hosts_max.max(1), pause_max: PAUSE_MAX, until: Arc::default() }
    }

    /// With another upper limit of pauses, of up to a year: whatever a host asks for.
    #[must_use]
    pub fn with_pause_max(self, pause_max: Duration) -> Self {
        Self { pause_max, ..self }
    }

    /// `host` wants to be left alone for so long. A shorter time than before changes nothing. When there are too many, the one that ends
    /// first is forgotten.
    pub fn start(&self, host: &str, pause: Duration) {
        let now = Instant::now();
        let until = after(now, pause.min(self.pause_max));
        let mut hosts = self.until.lock();
        hosts.retain(|_, until| *until > now);
        let known = hosts.entry(host.to_owned()).or_insert(until);
        *known = (*known).max(until);
        if hosts.len() > self.hosts_max {
            let first = hosts.iter().min_by_key(|(_, until)| **until).map(|(host, _)| host.clone());
            first.map(|first| hosts.remove(&first));
        }
    }

    /// How much longer `host` is to be left alone.
    #[must_use]
    pub fn remaining(&self, host: &str) -> Duration {
        let until = self.until.lock().get(host).copied();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Waits until `host` may be called again, also if that is put off meanwhile.
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
