//! The decisions of a pool as a pure state machine without I/O, tasks or a clock.
//!
//! Invariants: `size = idle + connecting + lent <= size_max`, unless the maximum was lowered. While
//! a caller waits, no connection is idle. While a caller waits and there is capacity, one connect
//! is in flight for each waiting caller. Connections granted but not yet collected count as lent.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use greenwave_retry::{Delays, Retry};
use tokio::time::Instant;

use super::PoolOptions;
use super::event::CloseReason;

use crate::error::Error;
use crate::queue::WaitQueue;

/// Counters of a pool. The first five describe the current state, the others count since creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections, including those being established.
    pub size: usize,
    /// Idle connections.
    pub idle: usize,
    /// Lent connections, including those being checked.
    pub in_use: usize,
    /// Connections being established.
    pub connecting: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// Connections established.
    pub created: u64,
    /// Number of times a used connection was lent again.
    pub reused: u64,
    /// Connections closed.
    pub discarded: u64,
    /// Failed connects.
    pub connect_failures: u64,
    /// Callers that were not served in time.
    pub timeouts: u64,
    /// Callers that were served after a wait.
    pub waits: u64,
    /// Total time of these waits.
    pub wait_total: Duration,
    /// Time of the longest wait.
    pub wait_max: Duration,
}

/// A connection with its bookkeeping. `S` is a reference to its pool.
#[derive(Debug)]
pub(super) struct Pooled<S, C> {
    pub(super) pool: S,
    pub(super) connection: C,
    pub(super) created: Instant,
    /// Tick at which the connection became idle; `None` if it is new or was handed over.
    pub(super) idle_since: Option<u64>,
    /// Tick at which the connection last passed a background check.
    pub(super) checked_at: u64,
    pub(super) uses: u64,
    /// Tick at which the connection expires.
    expires: u64,
}

/// The result for a waiting caller.
pub(super) type Grant<S, C> = Result<Box<Pooled<S, C>>, Error>;

/// The result of asking for a connection.
pub(super) enum Claim<S, C> {
    Lent(Box<Pooled<S, C>>),
    Waiting { ticket: u64, slot: usize },
    Closed,
}

/// The destination of a returned connection.
pub(super) enum Return<S, C> {
    /// The caller that has waited longest, to be woken through the waker.
    Handed(Waker),
    /// The idle connections.
    Idle,
    /// None: the connection has expired or the pool is closed.
    Rejected(Box<Pooled<S, C>>, CloseReason),
}

#[derive(Debug)]
pub(super) struct Core<S, C> {
    size_max: usize,
    size_min: usize,
    /// In ticks, as are the following limits.
    idle_max: Option<u64>,
    life_max: Option<u64>,
    check_after: Option<u64>,
    check_idle_every: Option<u64>,
    /// Maximum lag of the clock.
    tick: u64,
    jitter: f64,
    rng: fastrand::Rng,
    /// Delays between attempts to restore the minimum while connects fail.
    fill: Retry,
    fill_delays: Delays,
    /// Tick before which no attempt is made.
    fill_after: u64,
    /// Ordered by last use, the most recent at the back.
    idle: VecDeque<Box<Pooled<S, C>>>,
    size: usize,
    connecting: usize,
    queue: WaitQueue<Grant<S, C>>,
    /// Tasks to wake at the next change of any kind.
    watchers: Vec<Waker>,
    is_closed: bool,
    /// Whether the maximum was lowered below the number of connections.
    is_shrinking: bool,
    /// The error of the last failed connect for which no caller waited.
    failure: Option<Error>,
    counts: PoolStats,
}

/// More connections than one process can open to one peer.
const SIZE_MAX: usize = 1 << 16;
/// Maximum delay between attempts to restore the minimum.
const FILL_DELAY_MAX: Duration = Duration::from_secs(30);

/// Converts to whole milliseconds, rounded up so that a limit above zero stays above zero.
pub(super) fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl<S, C> Core<S, C> {
    pub(super) fn new(options: &PoolOptions, tick: Duration) -> Self {
        let size_max = options.size_max.clamp(1, SIZE_MAX);
        let fill = Retry {
            attempts_max: usize::MAX,
            delay_max: FILL_DELAY_MAX,
            seed: options.seed,
            ..Retry::default()
        };
        Self {
            size_max,
            size_min: options.size_min.min(size_max),
            idle_max: options.idle_timeout.map(ticks),
            // A connection must not expire at the moment it is established.
            life_max: options.max_lifetime.map(|life| ticks(life).max(1)),
            check_after: options.check_after.map(ticks),
            // A connection checked in this tick must not be due again in it.
            check_idle_every: options.check_idle_every.map(|every| ticks(every).max(1)),
            tick: ticks(tick),
            jitter: Some(options.lifetime_jitter)
                .filter(|jitter| !jitter.is_nan())
                .unwrap_or(0.0)
                .clamp(0.0, 1.0),
            rng: options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            fill_delays: fill.delays(),
            fill,
            fill_after: 0,
            idle: VecDeque::new(),
            size: 0,
            connecting: 0,
            queue: WaitQueue::new(),
            watchers: Vec::new(),
            is_closed: false,
            is_shrinking: false,
            failure: None,
            counts: PoolStats::default(),
        }
    }

    /// Takes the most recently used connection if it needs no further work. Overtakes nobody, since
    /// no connection is idle while a caller waits.
    #[inline]
    pub(super) fn take_ready(&mut self, now: u64) -> Option<Box<Pooled<S, C>>> {
        let pooled = self.idle.back()?;
        if pooled.expires <= now || self.needs_check(pooled, now) {
            return None;
        }
        let pooled = self.idle.pop_back()?;
        Some(self.lend(pooled))
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Returns true if the connection was idle long enough to require a check. Assumes that the
    /// clock lags by a tick.
    pub(super) fn needs_check(&self, pooled: &Pooled<S, C>, now: u64) -> bool {
        match (self.check_after, pooled.idle_since) {
            (Some(after), Some(since)) => {
                now.saturating_sub(since.max(pooled.checked_at)).saturating_add(self.tick) > after
            }
            // New, or handed over by its previous user.
            _ => false,
        }
    }

    /// Takes an idle connection or enters the queue. Also returns the number of connects to start.
    /// Moves expired connections to `expired`, to be discarded outside the lock.
    pub(super) fn claim(
        &mut self,
        ticket: Option<u64>,
        now: u64,
        waker: &Waker,
        expired: &mut Vec<Box<Pooled<S, C>>>,
    ) -> (Claim<S, C>, usize) {
        if self.is_closed {
            return (Claim::Closed, 0);
        }
        self.check();
        while let Some(pooled) = self.idle.pop_back() {
            if pooled.expires > now {
                return (Claim::Lent(self.lend(pooled)), 0);
            }
            expired.push(pooled);
        }
        let ticket = ticket.unwrap_or_else(|| self.queue.ticket());
        let slot = self.queue.enter(ticket, waker.clone());
        (Claim::Waiting { ticket, slot }, self.needed())
    }

    pub(super) fn queue(&mut self) -> &mut WaitQueue<Grant<S, C>> {
        &mut self.queue
    }

    /// Takes an idle connection that has not expired.
    pub(super) fn take_idle(&mut self, now: u64) -> Option<Box<Pooled<S, C>>> {
        let is_usable = self.idle.back().is_some_and(|pooled| pooled.expires > now);
        let pooled = is_usable.then(|| self.idle.pop_back()).flatten()?;
        Some(self.lend(pooled))
    }

    /// Accepts a returned or new connection.
    #[inline]
    pub(super) fn return_connection(&mut self, mut pooled: Box<Pooled<S, C>>, now: u64) -> Return<S, C> {
        if self.is_closed {
            return Return::Rejected(pooled, CloseReason::PoolClosed);
        }
        if pooled.expires <= now {
            return Return::Rejected(pooled, CloseReason::Expired);
        }
        if self.size > self.size_max {
            return Return::Rejected(pooled, CloseReason::Surplus);
        }
        if self.queue.is_empty() {
            pooled.idle_since = Some(now);
            self.idle.push_back(pooled);
            self.check();
            return Return::Idle;
        }
        pooled.idle_since = None;
        let pooled = self.lend(pooled);
        match self.queue.grant(Ok(pooled)) {
            Ok(waker) => Return::Handed(waker),
            Err(_) => unreachable!("a caller waits"),
        }
    }

    /// Returns a connection from a background check to its position among the longest idle ones.
    pub(super) fn return_checked(&mut self, mut pooled: Box<Pooled<S, C>>, now: u64) -> Return<S, C> {
        if self.is_closed || pooled.expires <= now || !self.queue.is_empty() {
            return self.return_connection(pooled, now);
        }
        pooled.idle_since.get_or_insert(now);
        self.idle.push_front(pooled);
        self.check();
        Return::Idle
    }

    /// Changes the numbers of connections. Returns the idle ones that are too many, to be discarded
    /// outside the lock, and the number of connects to start. Lent ones that are too many close
    /// when they are returned.
    pub(super) fn resize(
        &mut self,
        size_min: usize,
        size_max: usize,
        now: u64,
    ) -> (Vec<Box<Pooled<S, C>>>, usize) {
        self.size_max = size_max.clamp(1, SIZE_MAX);
        self.size_min = size_min.min(self.size_max);
        self.is_shrinking = self.size > self.size_max;
        let surplus = (self.size - self.size_max.min(self.size)).min(self.idle.len());
        let closed = self.idle.drain(..surplus).collect();
        (closed, self.top_up(now))
    }

    /// Takes all idle connections, the longest idle one first.
    pub(super) fn take_all_idle(&mut self) -> VecDeque<Box<Pooled<S, C>>> {
        std::mem::take(&mut self.idle)
    }

    /// Returns a connection that was taken by [`take_all_idle`](Self::take_all_idle) to its
    /// position.
    pub(super) fn return_retained(&mut self, pooled: Box<Pooled<S, C>>, now: u64) -> Return<S, C> {
        let is_idle = self.queue.is_empty() && self.size <= self.size_max;
        if self.is_closed || pooled.expires <= now || !is_idle {
            // A caller that waits cannot check it.
            let is_due_for_check = self.needs_check(&pooled, now);
            return match is_due_for_check {
                true => Return::Rejected(pooled, CloseReason::Idle),
                false => self.return_connection(pooled, now),
            };
        }
        let position = self.idle.partition_point(|other| other.idle_since <= pooled.idle_since);
        self.idle.insert(position, pooled);
        self.check();
        Return::Idle
    }

    /// Counts a lent connection as closed. Returns the number of connects to start.
    pub(super) fn discarded(&mut self, now: u64) -> usize {
        assert!(self.size > 0, "a closed connection was counted");
        self.counts.discarded += 1;
        self.size -= 1;
        self.is_shrinking &= self.size > self.size_max;
        self.top_up(now)
    }

    pub(super) fn connected(
        &mut self,
        pool: S,
        connection: C,
        created: Instant,
        now: u64,
    ) -> Box<Pooled<S, C>> {
        assert!(self.connecting > 0, "an established connection had reserved capacity");
        self.connecting -= 1;
        self.fill_delays = self.fill.delays();
        self.fill_after = 0;
        self.new_pooled(pool, connection, created, now)
    }

    fn new_pooled(&mut self, pool: S, connection: C, created: Instant, now: u64) -> Box<Pooled<S, C>> {
        self.counts.created += 1;
        let chance = self.rng.f64();
        let life = self.life_max.map(|life| (life as f64 * (1.0 - self.jitter * chance)) as u64);
        let expires = life.map_or(u64::MAX, |life| now.saturating_add(life.max(1)));
        Box::new(Pooled { pool, connection, created, idle_since: None, checked_at: 0, uses: 0, expires })
    }

    /// Adds an existing connection, for models.
    #[cfg(greenwave_loom)]
    pub(super) fn add_existing(&mut self, pool: S, connection: C) {
        assert!(self.size < self.size_max, "the pool has capacity for it");
        self.size += 1;
        let mut pooled = self.new_pooled(pool, connection, Instant::now(), 0);
        pooled.idle_since = Some(0);
        self.idle.push_back(pooled);
    }

    pub(super) fn connect_failed(&mut self, now: u64) {
        assert!(self.connecting > 0 && self.size > 0, "a failed connect had reserved capacity");
        self.connecting -= 1;
        self.size -= 1;
        self.is_shrinking &= self.size > self.size_max;
        self.counts.connect_failures += 1;
        // Connects that started together count as one attempt.
        if now >= self.fill_after {
            let delay = self.fill_delays.next().unwrap_or(FILL_DELAY_MAX);
            self.fill_after = now.saturating_add(ticks(delay).max(1));
        }
    }

    /// Reserves capacity for connects that waiting callers need. Returns their number.
    pub(super) fn needed(&mut self) -> usize {
        let wanted = self.queue.len().saturating_sub(self.connecting);
        self.reserve(wanted)
    }

    /// Reserves capacity like [`needed`](Self::needed), and up to the minimum unless a connect has
    /// just failed.
    pub(super) fn top_up(&mut self, now: u64) -> usize {
        let needed = self.needed();
        if now < self.fill_after {
            return needed;
        }
        needed + self.reserve(self.size_min.saturating_sub(self.size))
    }

    /// Reserves capacity like [`top_up`](Self::top_up), regardless of earlier failures.
    pub(super) fn top_up_now(&mut self) -> usize {
        self.fill_after = 0;
        self.top_up(0)
    }

    /// Removes connections that were idle too long or have expired. Idle ones are removed oldest
    /// first and not below the minimum. They count as lent until they are
    /// [`discarded`](Self::discarded).
    pub(super) fn sweep(&mut self, now: u64) -> Vec<(Box<Pooled<S, C>>, CloseReason)> {
        let mut closed = Vec::new();
        let mut left = self.size;
        let mut at = 0;
        while let Some(pooled) = self.idle.get(at) {
            let limit = self.idle_max.filter(|_| left > self.size_min);
            let is_stale =
                limit.zip(pooled.idle_since).is_some_and(|(max, since)| now.saturating_sub(since) >= max);
            let reason = match (pooled.expires <= now, is_stale) {
                (true, _) => CloseReason::Expired,
                (_, true) => CloseReason::Idle,
                _ => {
                    at += 1;
                    continue;
                }
            };
            left -= 1;
            closed.extend(self.idle.remove(at).map(|pooled| (pooled, reason)));
        }
        closed
    }

    /// Takes a connection that is due for a background check, the longest idle one first.
    pub(super) fn due_for_check(&mut self, now: u64) -> Option<Box<Pooled<S, C>>> {
        let every = self.check_idle_every?;
        let is_due = |pooled: &Pooled<S, C>| {
            pooled.idle_since.is_some_and(|since| now.saturating_sub(since.max(pooled.checked_at)) >= every)
        };
        let at = self.idle.iter().position(|pooled| is_due(pooled))?;
        self.idle.remove(at)
    }

    /// Closes the pool. Returns the idle connections, to be discarded outside the lock, and the
    /// tasks to wake.
    pub(super) fn close(&mut self) -> (VecDeque<Box<Pooled<S, C>>>, Vec<Waker>) {
        self.is_closed = true;
        let idle = std::mem::take(&mut self.idle);
        let mut woken = std::mem::take(&mut self.watchers);
        while let Ok(waker) = self.queue.grant(Err(Error::Closed)) {
            woken.push(waker);
        }
        (idle, woken)
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

    pub(super) fn record_failure(&mut self, error: Error) {
        self.failure = Some(error);
    }

    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Wakes the caller at the next change.
    pub(super) fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|current| current.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }

    /// Returns the tasks to wake after a change.
    pub(super) fn changed(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.watchers)
    }

    pub(super) fn count_wait(&mut self, waited: Duration) {
        self.counts.waits += 1;
        self.counts.wait_total += waited;
        self.counts.wait_max = self.counts.wait_max.max(waited);
    }

    pub(super) fn count_timeout(&mut self, waited: Duration) {
        self.counts.timeouts += 1;
        self.counts.wait_max = self.counts.wait_max.max(waited);
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

    fn lend(&mut self, mut pooled: Box<Pooled<S, C>>) -> Box<Pooled<S, C>> {
        self.counts.reused += u64::from(pooled.uses > 0);
        pooled.uses += 1;
        pooled
    }

    fn reserve(&mut self, wanted: usize) -> usize {
        if self.is_closed {
            return 0;
        }
        let taken = wanted.min(self.size_max.saturating_sub(self.size));
        self.size += taken;
        self.connecting += taken;
        self.check();
        taken
    }

    fn check(&self) {
        debug_assert!(self.size <= self.size_max || self.is_shrinking, "the size is at most the maximum");
        debug_assert!(
            self.idle.is_empty() || self.queue.is_empty(),
            "no caller waits while a connection is idle"
        );
        debug_assert!(self.idle.len() + self.connecting <= self.size);
    }
}
