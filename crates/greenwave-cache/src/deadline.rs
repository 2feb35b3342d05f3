//! Expiry times of entries.

use std::sync::atomic::{AtomicU32, Ordering};

/// Expiry time in tenths of a second since the cache was created: more than 13 years in 4 bytes.
/// Relaxed: of two concurrent accesses that extend it, either may be the last.
#[derive(Debug)]
pub(crate) struct Deadline(AtomicU32);

impl Deadline {
    const UNIT_MS: u64 = 100;
    const NEVER: u32 = u32::MAX;
    const UNDECIDED: u32 = u32::MAX - 1;

    /// Returns a deadline that is never reached.
    pub(crate) fn never() -> Self {
        Self(AtomicU32::new(Self::NEVER))
    }

    /// Returns a deadline that is set before the entry is inserted.
    pub(crate) fn undecided() -> Self {
        Self(AtomicU32::new(Self::UNDECIDED))
    }

    /// Returns the deadline `life` milliseconds after `now`, rounded up. With a `life` of zero it
    /// has already passed.
    pub(crate) fn after(now: u64, life: u64) -> Self {
        Self(AtomicU32::new(Self::units_after(now, life)))
    }

    fn units_after(now: u64, life: u64) -> u32 {
        let end = now.saturating_add(life).div_ceil(Self::UNIT_MS);
        let in_range = u32::try_from(end).ok().filter(|end| *end < Self::UNDECIDED);
        if life == 0 { 0 } else { in_range.unwrap_or(Self::NEVER) }
    }

    /// Sets the deadline `life` milliseconds after `now`, or to never.
    pub(crate) fn set(&self, now: u64, life: Option<u64>) {
        let units = life.map_or(Self::NEVER, |life| Self::units_after(now, life));
        self.0.store(units, Ordering::Relaxed);
    }

    pub(crate) fn is_undecided(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::UNDECIDED
    }

    /// Returns the milliseconds from `now` to the deadline, if there is one.
    pub(crate) fn left(&self, now: u64) -> Option<u64> {
        let units = self.0.load(Ordering::Relaxed);
        (units != Self::NEVER).then(|| (u64::from(units) * Self::UNIT_MS).saturating_sub(now))
    }

    pub(crate) fn is_expired_at(&self, now: u64) -> bool {
        let units = self.0.load(Ordering::Relaxed);
        units != Self::NEVER && now >= u64::from(units) * Self::UNIT_MS
    }
}
