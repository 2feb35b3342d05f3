//! What a pool decides: pure state, no I/O, no tasks, no clock of its own.
//!
//! Invariants: `size = idle + connecting + lent <= size_max`; while anyone waits nothing is idle; while anyone waits and there is a place,
//! as many connects are under way as are waited for.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::PoolConfig;
use crate::chance::Chance;
use crate::error::Error;
use crate::queue::Queue;

/// Counters of a pool; the first five are of now, the others since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections there are, those being made included.
    pub size: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections lent.
    pub in_use: usize,
    /// Connections being made.
    pub connecting: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// Connections made.
    pub created: u64,
    /// Times that a connection was lent again.
    pub reused: u64,
    /// Connections closed.
    pub discarded: u64,
    /// Connects that failed.
    pub connect_failures: u64,
    /// Callers that were not served in time.
    pub timeouts: u64,
    /// Callers that were not served at once.
    pub waits: u64,
    /// How long those waited, together.
    pub wait_total: Duration,
    /// How long the longest wait was.
    pub wait_max: Duration,
}

/// A connection with what is known of it.
#[derive(Debug)]
pub(super) struct Entry<C> {
    pub(super) connection: C,
    pub(super) created: Instant,
    /// Since when nobody has used it; `None` while it is lent or was handed over.
    pub(super) idle_since: Option<Instant>,
    pub(super) uses: u64,
    expires: Option<Instant>,
}

/// What a caller that asks gets.
pub(super) enum Claim<C, G> {
    Lent(Entry<C>),
    Waits { grant: oneshot::Receiver<G>, ticket: u64 },
    Closed,
}

/// Where a connection that comes back goes.
pub(super) enum Return<C, G> {
    /// To whoever has waited longest.
    For(oneshot::Sender<G>, Entry<C>),
    /// It is idle now.
    Kept,
    /// It is too old, or the pool is closed.
    Refused(Entry<C>),
}

#[derive(Debug)]
pub(super) struct Core<C, G> {
    size_max: usize,
    size_min: usize,
    idle_timeout: Option<Duration>,
    max_lifetime: Option<Duration>,
    jitter: f64,
    chance: Chance,
    /// The one used last is at the back.
    idle: VecDeque<Entry<C>>,
    size: usize,
    connecting: usize,
    queue: Queue<G>,
    is_closed: bool,
    /// The last connect that failed with nobody waiting for it.
    failure: Option<Error>,
    counts: PoolStats,
}

impl<C, G> Core<C, G> {
    pub(super) fn new(config: &PoolConfig) -> Self {
        let size_max = config.size.max(1);
        Self {
            size_max,
            size_min: config.min.min(size_max),
            idle_timeout: config.idle_timeout,
            max_lifetime: config.max_lifetime,
            jitter: config.lifetime_jitter.clamp(0.0, 1.0),
            chance: Chance::new(config.seed),
            idle: VecDeque::new(),
            size: 0,
            connecting: 0,
            queue: Queue::new(),
            is_closed: false,
            failure: None,
            counts: PoolStats::default(),
        }
    }

    /// A connection or a place in the queue, and how many connects to start. What has expired is moved to `expired`, to be dropped
    /// outside the lock.
    pub(super) fn claim(&mut self, ticket: Option<u64>, expired: &mut Vec<Entry<C>>) -> (Claim<C, G>, usize) {
        if self.is_closed {
            return (Claim::Closed, 0);
        }
        let ticket = ticket.unwrap_or_else(|| self.queue.ticket());
        // Nobody is overtaken: nothing is idle while anyone waits.
        self.check();
        while let Some(entry) = self.idle.pop_back() {
            if entry.expires.is_some_and(|expires| expires <= Instant::now()) {
                self.closed_one();
                expired.push(entry);
                continue;
            }
            return (Claim::Lent(self.lend(entry)), 0);
        }
        let grant = self.queue.enter(ticket);
        (Claim::Waits { grant, ticket }, self.needed())
    }

    pub(super) fn take_idle(&mut self) -> Option<Entry<C>> {
        let entry = self.idle.pop_back()?;
        Some(self.lend(entry))
    }

    pub(super) fn give_back(&mut self, mut entry: Entry<C>) -> Return<C, G> {
        let has_expired = entry.expires.is_some_and(|expires| expires <= Instant::now());
        if self.is_closed || has_expired {
            return Return::Refused(entry);
        }
        entry.idle_since = None;
        if let Some(waiter) = self.queue.pop() {
            return Return::For(waiter, self.lend(entry));
        }
        entry.idle_since = Some(Instant::now());
        self.idle.push_back(entry);
        self.check();
        Return::Kept
    }

    /// A connection that was lent is closed. Returns how many connects to start.
    pub(super) fn discarded(&mut self) -> usize {
        self.closed_one();
        self.top_up()
    }

    pub(super) fn connected(&mut self, connection: C, now: Instant) -> Entry<C> {
        assert!(self.connecting > 0, "what was connected had a place");
        self.connecting -= 1;
        self.counts.created += 1;
        let chance = self.chance.fraction();
        let lifetime = self.max_lifetime.map(|lifetime| lifetime.mul_f64(1.0 - self.jitter * chance));
        let expires = lifetime.and_then(|lifetime| now.checked_add(lifetime));
        Entry { connection, created: now, idle_since: None, uses: 0, expires }
    }

    pub(super) fn connect_failed(&mut self) {
        assert!(self.connecting > 0 && self.size > 0, "what failed to connect had a place");
        self.connecting -= 1;
        self.size -= 1;
        self.counts.connect_failures += 1;
    }

    pub(super) fn pop_waiter(&mut self) -> Option<oneshot::Sender<G>> {
        self.queue.pop()
    }

    /// Takes the places that those who wait need, and returns how many.
    pub(super) fn needed(&mut self) -> usize {
        let wanted = self.queue.len().saturating_sub(self.connecting);
        self.take_places(wanted)
    }

    /// As [`needed`](Self::needed), and those up to the minimum.
    pub(super) fn top_up(&mut self) -> usize {
        let needed = self.needed();
        needed + self.take_places(self.size_min.saturating_sub(self.size))
    }

    /// Takes out what was idle or alive for too long: the oldest first, and not below the minimum unless its life is over.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Entry<C>> {
        let mut closed = Vec::new();
        let mut kept = VecDeque::with_capacity(self.idle.len());
        for entry in std::mem::take(&mut self.idle) {
            let has_expired = entry.expires.is_some_and(|expires| expires <= now);
            let limit = self.idle_timeout.filter(|_| self.size > self.size_min);
            let is_stale = limit.zip(entry.idle_since).is_some_and(|(limit, since)| now - since >= limit);
            if has_expired || is_stale {
                self.closed_one();
                closed.push(entry);
            } else {
                kept.push_back(entry);
            }
        }
        self.idle = kept;
        closed
    }

    pub(super) fn close(&mut self) -> (VecDeque<Entry<C>>, Vec<oneshot::Sender<G>>) {
        self.is_closed = true;
        let idle = std::mem::take(&mut self.idle);
        for _ in &idle {
            self.closed_one();
        }
        (idle, std::iter::from_fn(|| self.queue.pop()).collect())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn is_drained(&self) -> bool {
        self.size == 0
    }

    pub(super) fn is_warm(&self) -> bool {
        self.is_closed || self.size - self.connecting >= self.size_min
    }

    pub(super) fn keep_failure(&mut self, error: Error) {
        self.failure = Some(error);
    }

    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    pub(super) fn leave(&mut self, ticket: u64) {
        self.queue.leave(ticket);
    }

    pub(super) fn count_wait(&mut self, waited: Duration) {
        self.counts.waits += 1;
        self.counts.wait_total += waited;
        self.counts.wait_max = self.counts.wait_max.max(waited);
    }

    pub(super) fn count_timeout(&mut self) {
        self.counts.timeouts += 1;
    }

    pub(super) fn stats(&self) -> PoolStats {
        PoolStats {
            size: self.size,
            idle: self.idle.len(),
            in_use: self.size - self.idle.len() - self.connecting,
            connecting: self.connecting,
            waiting: self.queue.len(),
            ..self.counts
        }
    }

    fn lend(&mut self, mut entry: Entry<C>) -> Entry<C> {
        self.counts.reused += u64::from(entry.uses > 0);
        entry.uses += 1;
        entry
    }

    fn take_places(&mut self, wanted: usize) -> usize {
        if self.is_closed {
            return 0;
        }
        let taken = wanted.min(self.size_max - self.size);
        self.size += taken;
        self.connecting += taken;
        self.check();
        taken
    }

    fn closed_one(&mut self) {
        assert!(self.size > 0, "what is closed was there");
        self.size -= 1;
        self.counts.discarded += 1;
    }

    fn check(&self) {
        assert!(self.size <= self.size_max, "never more than the maximum");
        assert!(self.idle.is_empty() || self.queue.is_empty(), "nobody waits while something is idle");
        debug_assert!(self.idle.len() + self.connecting <= self.size);
    }
}
