//! What a pool decides: pure state, no I/O, no tasks, no clock of its own.
//!
//! Invariants: `size = idle + connecting + lent <= size_max`; while anyone waits nothing is idle; while anyone waits and there is a place,
//! as many connects are under way as are waited for. What lies granted in the queue counts as lent.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use greenwave_retry::{Delays, Retry};
use tokio::time::Instant;

use super::PoolOptions;
use super::event::CloseReason;

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
    /// Connections lent, those being checked included.
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
    /// Callers that were served, but not at once.
    pub waits: u64,
    /// How long those waited, together.
    pub wait_total: Duration,
    /// How long the longest wait was.
    pub wait_max: Duration,
}

/// A connection with what is known of it. `S` is the way back to its pool.
#[derive(Debug)]
pub(super) struct Slot<S, C> {
    pub(super) home: S,
    pub(super) connection: C,
    pub(super) created: Instant,
    /// Ticks of the pool's clock when it was last given back; `None` if it was made or handed over just now.
    pub(super) idle_since: Option<u64>,
    /// Ticks when it was last found to work while idle.
    pub(super) seen: u64,
    pub(super) uses: u64,
    /// Ticks at which its life is over.
    expires: u64,
}

/// What a waiter is granted.
pub(super) type Grant<S, C> = Result<Box<Slot<S, C>>, Error>;

/// What a caller that asks gets.
pub(super) enum Claim<S, C> {
    Lent(Box<Slot<S, C>>),
    Waits { ticket: u64, place: usize },
    Closed,
}

/// Where a connection that comes back goes.
pub(super) enum Return<S, C> {
    /// To whoever has waited longest, who is to be woken.
    Handed(Waker),
    /// It is idle now.
    Kept,
    /// It is too old, or the pool is closed.
    Refused(Box<Slot<S, C>>, CloseReason),
}

#[derive(Debug)]
pub(super) struct Core<S, C> {
    size_max: usize,
    size_min: usize,
    /// In ticks, as all of these.
    idle_max: Option<u64>,
    life_max: Option<u64>,
    check_after: Option<u64>,
    check_idle_every: Option<u64>,
    /// How far the clock may be behind.
    tick: u64,
    jitter: f64,
    rng: fastrand::Rng,
    /// Between attempts to keep up the minimum, while connects fail.
    fill: Retry,
    fill_delays: Delays,
    /// Ticks before which there is no attempt.
    fill_after: u64,
    /// The one used last is at the back.
    idle: VecDeque<Box<Slot<S, C>>>,
    size: usize,
    connecting: usize,
    queue: Queue<Grant<S, C>>,
    /// Who waits for a change of any kind.
    watchers: Vec<Waker>,
    is_closed: bool,
    /// The last connect that failed with nobody waiting for it.
    failure: Option<Error>,
    counts: PoolStats,
}

/// More connections than one process can have to one server.
const SIZE_MAX: usize = 1 << 16;
/// While connects fail, the minimum is tried again at least this often.
const FILL_DELAY_MAX: Duration = Duration::from_secs(30);

/// Whole milliseconds, rounded up: a limit that is set never vanishes.
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
            // None is over when it begins.
            life_max: options.max_lifetime.map(|life| ticks(life).max(1)),
            check_after: options.check_after.map(ticks),
            // What was checked in this tick is not due again in it.
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
            queue: Queue::new(),
            watchers: Vec::new(),
            is_closed: false,
            failure: None,
            counts: PoolStats::default(),
        }
    }

    /// The connection used last, if it can be lent without more ado. Nobody is overtaken: nothing is idle while anyone waits.
    #[inline]
    pub(super) fn take_fit(&mut self, now: u64) -> Option<Box<Slot<S, C>>> {
        let slot = self.idle.back()?;
        if slot.expires <= now || self.needs_check(slot, now) {
            return None;
        }
        let slot = self.idle.pop_back()?;
        Some(self.lend(slot))
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether it was idle for so long that it is to be checked. The clock may be a tick behind, and is taken to be.
    pub(super) fn needs_check(&self, slot: &Slot<S, C>, now: u64) -> bool {
        match (self.check_after, slot.idle_since) {
            (Some(after), Some(since)) => {
                now.saturating_sub(since.max(slot.seen)).saturating_add(self.tick) > after
            }
            // It was handed over by the one who used it, or is new.
            _ => false,
        }
    }

    /// A connection or a place in the queue, and how many connects to start. What has expired is moved to `expired`, to be
    /// discarded outside the lock.
    pub(super) fn claim(
        &mut self,
        ticket: Option<u64>,
        now: u64,
        waker: &Waker,
        expired: &mut Vec<Box<Slot<S, C>>>,
    ) -> (Claim<S, C>, usize) {
        if self.is_closed {
            return (Claim::Closed, 0);
        }
        self.check();
        while let Some(slot) = self.idle.pop_back() {
            if slot.expires > now {
                return (Claim::Lent(self.lend(slot)), 0);
            }
            expired.push(slot);
        }
        let ticket = ticket.unwrap_or_else(|| self.queue.ticket());
        let place = self.queue.enter(ticket, waker.clone());
        (Claim::Waits { ticket, place }, self.needed())
    }

    pub(super) fn queue(&mut self) -> &mut Queue<Grant<S, C>> {
        &mut self.queue
    }

    /// A connection that is idle now, if its life is not over.
    pub(super) fn take_idle(&mut self, now: u64) -> Option<Box<Slot<S, C>>> {
        let is_fit = self.idle.back().is_some_and(|slot| slot.expires > now);
        let slot = is_fit.then(|| self.idle.pop_back()).flatten()?;
        Some(self.lend(slot))
    }

    /// A connection comes back, or is new.
    #[inline]
    pub(super) fn give_back(&mut self, mut slot: Box<Slot<S, C>>, now: u64) -> Return<S, C> {
        if self.is_closed {
            return Return::Refused(slot, CloseReason::PoolClosed);
        }
        if slot.expires <= now {
            return Return::Refused(slot, CloseReason::Expired);
        }
        if self.queue.is_empty() {
            slot.idle_since = Some(now);
            self.idle.push_back(slot);
            self.check();
            return Return::Kept;
        }
        slot.idle_since = None;
        let slot = self.lend(slot);
        match self.queue.grant(Ok(slot)) {
            Ok(waker) => Return::Handed(waker),
            Err(_) => unreachable!("someone waits"),
        }
    }

    /// One that was looked at in the background comes back to where it was, among those that were idle longest.
    pub(super) fn give_back_checked(&mut self, mut slot: Box<Slot<S, C>>, now: u64) -> Return<S, C> {
        if self.is_closed || slot.expires <= now || !self.queue.is_empty() {
            return self.give_back(slot, now);
        }
        slot.idle_since.get_or_insert(now);
        self.idle.push_front(slot);
        self.check();
        Return::Kept
    }

    /// A connection that was lent is closed. Returns how many connects to start.
    pub(super) fn discarded(&mut self, now: u64) -> usize {
        assert!(self.size > 0, "what is closed was there");
        self.counts.discarded += 1;
        self.size -= 1;
        self.top_up(now)
    }

    pub(super) fn connected(
        &mut self,
        home: S,
        connection: C,
        created: Instant,
        now: u64,
    ) -> Box<Slot<S, C>> {
        assert!(self.connecting > 0, "what was connected had a place");
        self.connecting -= 1;
        self.fill_delays = self.fill.delays();
        self.fill_after = 0;
        self.slot(home, connection, created, now)
    }

    fn slot(&mut self, home: S, connection: C, created: Instant, now: u64) -> Box<Slot<S, C>> {
        self.counts.created += 1;
        let chance = self.rng.f64();
        let life = self.life_max.map(|life| (life as f64 * (1.0 - self.jitter * chance)) as u64);
        let expires = life.map_or(u64::MAX, |life| now.saturating_add(life.max(1)));
        Box::new(Slot { home, connection, created, idle_since: None, seen: 0, uses: 0, expires })
    }

    /// A connection that was made elsewhere: the start of a model.
    #[cfg(greenwave_loom)]
    pub(super) fn stock(&mut self, home: S, connection: C) {
        assert!(self.size < self.size_max, "there is a place for it");
        self.size += 1;
        let mut slot = self.slot(home, connection, Instant::now(), 0);
        slot.idle_since = Some(0);
        self.idle.push_back(slot);
    }

    pub(super) fn connect_failed(&mut self, now: u64) {
        assert!(self.connecting > 0 && self.size > 0, "what failed to connect had a place");
        self.connecting -= 1;
        self.size -= 1;
        self.counts.connect_failures += 1;
        // Several that were started together are one attempt.
        if now >= self.fill_after {
            let delay = self.fill_delays.next().unwrap_or(FILL_DELAY_MAX);
            self.fill_after = now.saturating_add(ticks(delay).max(1));
        }
    }

    /// Takes the places that those who wait need, and returns how many.
    pub(super) fn needed(&mut self) -> usize {
        let wanted = self.queue.len().saturating_sub(self.connecting);
        self.take_places(wanted)
    }

    /// As [`needed`](Self::needed), and those up to the minimum, unless a connect has just failed.
    pub(super) fn top_up(&mut self, now: u64) -> usize {
        let needed = self.needed();
        if now < self.fill_after {
            return needed;
        }
        needed + self.take_places(self.size_min.saturating_sub(self.size))
    }

    /// As [`top_up`](Self::top_up), at once: somebody asks for it.
    pub(super) fn top_up_now(&mut self) -> usize {
        self.fill_after = 0;
        self.top_up(0)
    }

    /// Takes out what was idle or alive for too long: the oldest first, and not below the minimum unless its life is over. They count as
    /// lent until they are [`discarded`](Self::discarded).
    pub(super) fn sweep(&mut self, now: u64) -> Vec<(Box<Slot<S, C>>, CloseReason)> {
        let mut closed = Vec::new();
        let mut left = self.size;
        let mut at = 0;
        while let Some(slot) = self.idle.get(at) {
            let limit = self.idle_max.filter(|_| left > self.size_min);
            let is_stale =
                limit.zip(slot.idle_since).is_some_and(|(max, since)| now.saturating_sub(since) >= max);
            let reason = match (slot.expires <= now, is_stale) {
                (true, _) => CloseReason::Expired,
                (_, true) => CloseReason::Idle,
                _ => {
                    at += 1;
                    continue;
                }
            };
            left -= 1;
            closed.extend(self.idle.remove(at).map(|slot| (slot, reason)));
        }
        closed
    }

    /// The one that was idle longest, if nobody has looked at it for long: to be checked in the background.
    pub(super) fn suspect(&mut self, now: u64) -> Option<Box<Slot<S, C>>> {
        let every = self.check_idle_every?;
        let is_due = |slot: &Slot<S, C>| {
            slot.idle_since.is_some_and(|since| now.saturating_sub(since.max(slot.seen)) >= every)
        };
        let at = self.idle.iter().position(|slot| is_due(slot))?;
        self.idle.remove(at)
    }

    /// Closes the pool: what is idle, to be discarded outside the lock, and whom to wake.
    pub(super) fn close(&mut self) -> (VecDeque<Box<Slot<S, C>>>, Vec<Waker>) {
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

    pub(super) fn keep_failure(&mut self, error: Error) {
        self.failure = Some(error);
    }

    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The caller is woken at the next change.
    pub(super) fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|known| known.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }

    /// Whom to wake, since something has changed.
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

    fn lend(&mut self, mut slot: Box<Slot<S, C>>) -> Box<Slot<S, C>> {
        self.counts.reused += u64::from(slot.uses > 0);
        slot.uses += 1;
        slot
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

    fn check(&self) {
        debug_assert!(self.size <= self.size_max, "never more than the maximum");
        debug_assert!(self.idle.is_empty() || self.queue.is_empty(), "nobody waits while something is idle");
        debug_assert!(self.idle.len() + self.connecting <= self.size);
    }
}
