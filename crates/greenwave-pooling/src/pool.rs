//! A pool of connections, lent in the order of requests.
//!
//! `core` makes all decisions synchronously under one lock. This file performs them: it spawns,
//! wakes, drops and waits. No foreign code runs under the lock, neither drops of connections nor
//! wakers.

mod core;
mod event;
mod lease;

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

pub use self::core::PoolStats;
use self::core::{Claim, Core, Grant, Pooled, Return, ticks};
pub use self::event::{CloseReason, PoolEvent};
pub use self::lease::Lease;
use crate::callback::{FAR, Logged, call, finish};
use crate::error::Error;
use crate::manager::Manager;
use crate::sync::Mutex;

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
    /// Time limit of [`Pool::get`], including checks.
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

/// A pool of connections. Clones share the pool.
///
/// - `get` returns the most recently used connection. Connections that were idle longest are closed
///   first.
/// - Callers are served in the order of their calls, by a returned or a new connection.
/// - Connects run in separate tasks. If the caller is dropped, the new connection goes to the next
///   one in line.
/// - A failed connect, or a new connection that is already broken, fails the caller that has waited
///   longest. The pool does not retry: see [`Retry`](crate::Retry).
/// - A panic in the manager or the observer fails only the call during which it occurs.
/// - [`get`](Self::get) is cancel safe. Dropping a [`Lease`] never waits.
///
/// A pool requires a tokio runtime with a timer. A background task ticks several times within the
/// shortest time limit, so that a checkout does not read the clock. After the last clone is
/// dropped, idle connections close immediately and lent ones when they are returned.
pub struct Pool<M: Manager> {
    handle: Arc<Owner<M>>,
}

impl<M: Manager> Pool<M> {
    /// Creates a pool without connecting. The first [`get`](Self::get) or
    /// [`warm_up`](Self::warm_up) connects. Options out of range count as the nearest bound.
    #[must_use]
    pub fn new(manager: M, options: PoolOptions) -> Self {
        Self::make(manager, options, None)
    }

    /// Creates a pool that passes its events to `observer`. The observer runs inline, so it must
    /// neither block nor use the pool.
    #[must_use]
    pub fn with_observer(
        manager: M,
        options: PoolOptions,
        observer: impl Fn(&PoolEvent<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self::make(manager, options, Some(Box::new(observer)))
    }

    fn make(manager: M, options: PoolOptions, observer: Option<Observer>) -> Self {
        let tick = tick_of(&options);
        let core = Mutex::new(Core::new(&options, tick.unwrap_or_default()));
        let shared = Arc::new(PoolInner {
            core,
            clock: AtomicU64::new(0),
            is_started: AtomicBool::new(cfg!(greenwave_loom)),
            is_checking: AtomicBool::new(false),
            manager,
            options,
            tick,
            origin: Instant::now(),
            runtime: Mutex::new(None),
            observer,
        });
        Self { handle: Arc::new(Owner { shared }) }
    }

    /// Creates a pool from existing connections, for models in which nothing connects.
    #[cfg(greenwave_loom)]
    #[doc(hidden)]
    pub fn with_connections(
        manager: M,
        options: PoolOptions,
        connections: impl IntoIterator<Item = M::Connection>,
    ) -> Self {
        let pool = Self::new(manager, options);
        for connection in connections {
            pool.shared().core.lock().add_existing(pool.shared().clone(), connection);
        }
        pool
    }

    /// Checks out a connection. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::ConnectTimeout`], [`Error::BrokenOnConnect`] or
    /// [`Error::Panicked`] if a connection could not be established, [`Error::Timeout`] if none
    /// became free in time, [`Error::Closed`] if the pool is closed.
    #[inline]
    pub async fn get(&self) -> Result<Lease<M>, Error> {
        let mut wait = Checkout { shared: self.shared(), ticket: None, slot: None, started: None };
        match std::future::poll_fn(|cx| Poll::Ready(wait.begin(cx.waker()))).await {
            Some(Ok(pooled)) => Ok(Lease::new(pooled)),
            Some(Err(error)) => Err(error),
            None => self.get_slowly(wait).await,
        }
    }

    /// Returns an idle connection, if there is one, without checking it.
    #[must_use]
    pub fn try_get(&self) -> Option<Lease<M>> {
        let now = self.shared().now();
        let pooled = self.shared().core.lock().take_idle(now)?;
        Some(Lease::new(pooled))
    }

    /// Connects up to the minimum and waits until that is done.
    ///
    /// # Errors
    /// The error of the first failed connect. Established connections stay in the pool.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let shared = self.shared();
        // Discards the error of an earlier connect.
        let stale = shared.core.lock().take_failure();
        drop(stale);
        shared.start();
        shared
            .until(|core| match core.take_failure() {
                Some(error) => (Some(Err(error)), 0),
                None if core.is_warm() => (Some(Ok(())), 0),
                None => (None, core.top_up_now()),
            })
            .await
    }

    /// Closes the pool and waits until all connections are closed. Waiting callers get
    /// [`Error::Closed`]. Idle connections close now, lent ones when they are returned. The pool is
    /// closed even if this call is cancelled.
    pub async fn close(&self) {
        self.shared().close();
        self.shared().until(|core| (core.is_drained().then_some(()), 0)).await;
    }

    /// Returns true if the pool was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().core.lock().is_closed()
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared().core.lock().stats()
    }

    /// Returns the manager.
    #[must_use]
    pub fn manager(&self) -> &M {
        &self.shared().manager
    }

    #[inline]
    fn shared(&self) -> &Arc<PoolInner<M>> {
        &self.handle.shared
    }

    #[cold]
    #[inline(never)]
    async fn get_slowly(&self, wait: Checkout<'_, M>) -> Result<Lease<M>, Error> {
        let shared = self.shared();
        let Some(after) = shared.options.checkout_timeout else { return shared.get_checked(wait).await };
        let started = Instant::now();
        let served = timeout_at(started + after.min(FAR), shared.get_checked(wait)).await;
        served.unwrap_or_else(|_| {
            let waited = started.elapsed();
            shared.core.lock().count_timeout(waited);
            shared.notify(&PoolEvent::TimedOut { waited });
            Err(Error::Timeout { after })
        })
    }
}

impl<M: Manager> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<M: Manager> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("manager", self.manager())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Shared by all clones of a pool, which closes when the last one is dropped. Idle connections
/// hold references to the inner pool, so its own reference count cannot show that.
struct Owner<M: Manager> {
    shared: Arc<PoolInner<M>>,
}

impl<M: Manager> Drop for Owner<M> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

type PoolRef<M> = Arc<PoolInner<M>>;
type PooledBox<M> = Box<Pooled<PoolRef<M>, <M as Manager>::Connection>>;
type Cores<M> = Core<PoolRef<M>, <M as Manager>::Connection>;
type Observer = Box<dyn Fn(&PoolEvent<'_>) + Send + Sync>;

struct PoolInner<M: Manager> {
    core: Mutex<Cores<M>>,
    /// Ticks since `origin`, at most `tick` behind the actual time.
    clock: AtomicU64,
    /// Set while the ticking task runs.
    is_started: AtomicBool,
    /// Set while a background check runs.
    is_checking: AtomicBool,
    manager: M,
    options: PoolOptions,
    tick: Option<Duration>,
    origin: Instant,
    /// Runtime for connects that start when a lease is dropped outside a runtime.
    runtime: Mutex<Option<Handle>>,
    observer: Option<Observer>,
}

/// Returns the interval of ticks that the time limits require, or `None` if nothing needs a tick.
fn tick_of(options: &PoolOptions) -> Option<Duration> {
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

impl<M: Manager> PoolInner<M> {
    /// Reads the time and updates the clock.
    fn now(&self) -> u64 {
        let now = ticks(self.origin.elapsed());
        self.clock.fetch_max(now, Ordering::Relaxed);
        now
    }

    /// Records the current runtime, starts the ticking task, and connects up to the minimum. Runs
    /// on first use, and again if the earlier runtime was shut down.
    fn start(self: &Arc<Self>) {
        if cfg!(greenwave_loom) || self.is_started.load(Ordering::Acquire) {
            return;
        }
        let runtime = Handle::current();
        let mut current = self.runtime.lock();
        // Pairs with the release of an earlier start, and of a ticking task that ended.
        if self.is_started.swap(true, Ordering::AcqRel) {
            return;
        }
        *current = Some(runtime.clone());
        drop(current);
        if let Some(tick) = self.tick {
            let ticking = Ticker(Arc::downgrade(self));
            runtime.spawn(ticking.run(tick));
        }
        let now = self.now();
        let starting = self.core.lock().top_up(now);
        self.connect(starting);
    }

    /// Waits until a connection passes its check. Keeps the position in the queue meanwhile.
    async fn get_checked(self: &Arc<Self>, mut wait: Checkout<'_, M>) -> Result<Lease<M>, Error> {
        self.start();
        loop {
            let lease = Lease::new((&mut wait).await?);
            // A connection that was handed over or is new needs no check, and no lock to find that
            // out.
            let is_new = lease.pooled().idle_since.is_none();
            if is_new || !self.core.lock().needs_check(lease.pooled(), self.now()) {
                return Ok(lease);
            }
            if let Some(lease) = lease.check().await {
                return Ok(lease);
            }
        }
    }

    /// Calls `decide` now and after each change until it returns a value. Starts as many connects
    /// as it requests.
    async fn until<T>(self: &Arc<Self>, mut decide: impl FnMut(&mut Cores<M>) -> (Option<T>, usize)) -> T {
        std::future::poll_fn(|cx| {
            let (decided, starting) = {
                let mut core = self.core.lock();
                let (decided, starting) = decide(&mut core);
                if decided.is_none() {
                    core.watch(cx.waker());
                }
                (decided, starting)
            };
            self.connect(starting);
            decided.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn close(self: &Arc<Self>) {
        let (idle, woken) = self.core.lock().close();
        for pooled in idle {
            Self::discard(pooled, CloseReason::PoolClosed);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn changed(&self) {
        let woken = self.core.lock().changed();
        woken.into_iter().for_each(Waker::wake);
    }

    fn notify(&self, event: &PoolEvent<'_>) {
        if let Some(observer) = &self.observer {
            let observed = call("observer", || observer(event));
            if let Err(error) = observed {
                tracing::warn!(%error, event = ?Logged(event), "a pool observer failed");
            }
        }
    }

    /// Returns a connection to the pool, for the caller that has waited longest or for later use.
    #[inline]
    fn return_connection(mut pooled: PooledBox<M>) {
        if pooled.pool.is_broken(&mut pooled.connection).unwrap_or(true) {
            return Self::discard(pooled, CloseReason::Broken);
        }
        Self::put(pooled, Core::return_connection);
    }

    #[inline]
    fn put(
        pooled: PooledBox<M>,
        decide: impl FnOnce(&mut Cores<M>, PooledBox<M>, u64) -> Return<PoolRef<M>, M::Connection>,
    ) {
        let pool = Arc::as_ptr(&pooled.pool);
        // SAFETY: the connection holds a reference to its pool. In every case, the
        // reference lives at least until another thread can take the connection, which requires the
        // lock. So it lives until the lock is released, which is the last access through this
        // pointer. Cloning the reference instead would add two atomic operations to the shortest
        // path.
        let pool = unsafe { &*pool };
        let now = pool.clock.load(Ordering::Relaxed);
        let decided = decide(&mut pool.core.lock(), pooled, now);
        match decided {
            Return::Idle => {}
            Return::Handed(waker) => waker.wake(),
            Return::Rejected(pooled, reason) => Self::discard(pooled, reason),
        }
    }

    /// Closes a connection and replaces it if a caller waits for one.
    #[expect(clippy::boxed_local, reason = "it is in a box wherever it comes from")]
    fn discard(pooled: PooledBox<M>, reason: CloseReason) {
        let Pooled { pool, connection, .. } = *pooled;
        // The capacity is released after the connection is closed, even if closing it panics.
        let _release = CapacityRelease(&pool, reason);
        drop(connection);
    }

    /// Starts `starting` connects, whose capacity is already reserved.
    fn connect(self: &Arc<Self>, starting: usize) {
        for _ in 0..starting {
            let reservation = Reservation { shared: Some(self.clone()) };
            let runtime = Handle::try_current().ok().or_else(|| self.runtime.lock().clone());
            // Without a runtime the reservation is dropped here, which fails the waiting caller.
            if let Some(runtime) = runtime {
                runtime.spawn(reservation.fill());
            }
        }
    }

    fn connected(self: &Arc<Self>, connection: M::Connection, took: Duration) {
        let now = self.now();
        let pooled = self.core.lock().connected(self.clone(), connection, Instant::now(), now);
        tracing::debug!(manager = ?Logged(&self.manager), ?took, "connected");
        self.notify(&PoolEvent::Connected { took });
        Self::put(pooled, Core::return_connection);
        self.changed();
    }

    fn is_broken(&self, connection: &mut M::Connection) -> Result<bool, Error> {
        call("is_broken", || self.manager.is_broken(connection))
    }

    /// Closes an unusable connection, and then reports the failed connect.
    fn failed_with(self: &Arc<Self>, connection: M::Connection, error: Error) {
        // Releases the capacity even if closing the connection panics.
        let mut reservation = Reservation { shared: Some(self.clone()) };
        drop(connection);
        reservation.shared = None;
        self.failed(error);
    }

    /// Handles a failed connect: passes the error to the caller that has waited longest, and
    /// connects again for the next one.
    fn failed(self: &Arc<Self>, error: Error) {
        tracing::debug!(manager = ?Logged(&self.manager), %error, "connect failed");
        self.notify(&PoolEvent::ConnectFailed { error: &error });
        let now = self.now();
        let (woken, starting) = {
            let mut core = self.core.lock();
            core.connect_failed(now);
            let woken = match core.queue().grant(Err(error)) {
                Ok(waker) => Some(waker),
                Err(unread) => {
                    core.record_failure(unread.err().unwrap_or(Error::ConnectAborted));
                    None
                }
            };
            (woken, core.needed())
        };
        woken.into_iter().for_each(Waker::wake);
        self.connect(starting);
        self.changed();
    }
}

/// Releases the capacity of a closed connection on drop.
struct CapacityRelease<'a, M: Manager>(&'a Arc<PoolInner<M>>, CloseReason);

impl<M: Manager> Drop for CapacityRelease<'_, M> {
    fn drop(&mut self) {
        let (starting, woken) = {
            let now = self.0.clock.load(Ordering::Relaxed);
            let mut core = self.0.core.lock();
            (core.discarded(now), core.changed())
        };
        self.0.connect(starting);
        woken.into_iter().for_each(Waker::wake);
        self.0.notify(&PoolEvent::Closed { reason: self.1 });
    }
}

/// Capacity reserved for a connect. It is filled or released, however the connect ends.
struct Reservation<M: Manager> {
    shared: Option<Arc<PoolInner<M>>>,
}

impl<M: Manager> Reservation<M> {
    async fn fill(mut self) {
        let Some(shared) = self.shared.clone() else { return };
        let after = shared.options.connect_timeout;
        let started = Instant::now();
        let connecting = finish("connect", shared.manager.connect());
        let outcome = timeout(after.unwrap_or(FAR).min(FAR), connecting).await;
        self.shared = None;
        match outcome {
            // A connection that is broken from the start must not be replaced at once: that could
            // repeat without end.
            Ok(Ok(Ok(mut connection))) => match shared.is_broken(&mut connection) {
                Ok(false) => shared.connected(connection, started.elapsed()),
                Ok(true) => shared.failed_with(connection, Error::BrokenOnConnect),
                Err(panicked) => shared.failed_with(connection, panicked),
            },
            Ok(Ok(Err(source))) => shared.failed(Error::Connect { source: Box::new(source) }),
            Ok(Err(panicked)) => shared.failed(panicked),
            Err(_) => shared.failed(Error::ConnectTimeout { after: after.unwrap_or(FAR) }),
        }
    }
}

impl<M: Manager> Drop for Reservation<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.failed(Error::ConnectAborted);
        }
    }
}

/// A caller of [`Pool::get`]: claims a connection on the first poll and waits in the queue after
/// that. On drop, it leaves the queue and passes on a connection granted to it in the meantime.
struct Checkout<'a, M: Manager> {
    shared: &'a Arc<PoolInner<M>>,
    ticket: Option<u64>,
    slot: Option<usize>,
    /// Start of the wait, unless the caller was served at once.
    started: Option<Instant>,
}

impl<M: Manager> Future for Checkout<'_, M> {
    type Output = Result<PooledBox<M>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.slot {
            None => self.claim(cx.waker()),
            Some(slot) => self.poll_queued(slot, cx.waker()),
        }
    }
}

impl<M: Manager> Checkout<'_, M> {
    /// Takes an idle connection or enters the queue, under one lock. Returns `None` if more work is
    /// needed.
    #[inline]
    fn begin(&mut self, waker: &Waker) -> Option<Result<PooledBox<M>, Error>> {
        let now = self.shared.clock.load(Ordering::Relaxed);
        if !self.shared.is_started.load(Ordering::Relaxed) {
            return None;
        }
        let (pooled, starting) = {
            let mut core = self.shared.core.lock();
            match core.take_ready(now) {
                Some(pooled) => return Some(Ok(pooled)),
                // An idle connection may have expired or need a check.
                None if core.has_idle() => return None,
                None => core.claim(self.ticket, now, waker, &mut Vec::new()),
            }
        };
        let served = self.claimed(pooled, starting);
        if served.is_none() {
            self.started = Some(Instant::now());
        }
        served
    }

    fn claim(&mut self, waker: &Waker) -> Poll<Result<PooledBox<M>, Error>> {
        let mut expired = Vec::new();
        let now = self.shared.now();
        self.started.get_or_insert_with(Instant::now);
        let (claim, starting) = self.shared.core.lock().claim(self.ticket, now, waker, &mut expired);
        let served = self.claimed(claim, starting);
        for pooled in expired {
            PoolInner::discard(pooled, CloseReason::Expired);
        }
        served.map_or(Poll::Pending, Poll::Ready)
    }

    fn claimed(
        &mut self,
        claim: Claim<PoolRef<M>, M::Connection>,
        starting: usize,
    ) -> Option<Result<PooledBox<M>, Error>> {
        self.shared.connect(starting);
        match claim {
            Claim::Closed => Some(Err(Error::Closed)),
            Claim::Lent(pooled) => Some(Ok(pooled)),
            Claim::Waiting { ticket, slot } => {
                (self.ticket, self.slot) = (Some(ticket), Some(slot));
                None
            }
        }
    }

    fn poll_queued(&mut self, slot: usize, waker: &Waker) -> Poll<Grant<PoolRef<M>, M::Connection>> {
        // Counted under the lock, which is held anyway. Separate atomics would bounce between
        // threads.
        let waited = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        let (polled, _stale) = {
            let mut core = self.shared.core.lock();
            let polled = core.queue().poll(slot, waker);
            if polled.0.is_ready() {
                core.count_wait(waited);
            }
            polled
        };
        if polled.is_ready() {
            self.slot = None;
            self.shared.notify(&PoolEvent::Waited { waited });
        }
        polled
    }
}

impl<M: Manager> Drop for Checkout<'_, M> {
    fn drop(&mut self) {
        let (Some(ticket), Some(slot)) = (self.ticket, self.slot) else { return };
        let (granted, _waker) = self.shared.core.lock().queue().leave(ticket, slot);
        match granted {
            Some(Ok(pooled)) => PoolInner::return_connection(pooled),
            // The error belongs to the first caller in the queue. Since this caller leaves, the
            // next one is first, and a connect for it is already in flight.
            Some(Err(error)) => drop(error),
            None => {}
        }
    }
}

/// The background task that updates the clock, closes expired connections, checks idle ones, and
/// restores the minimum, until the pool is gone.
struct Ticker<M: Manager>(Weak<PoolInner<M>>);

impl<M: Manager> Ticker<M> {
    async fn run(mut self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let Some(shared) = self.0.upgrade() else { return };
            let now = shared.now();
            let (closed, starting) = {
                let mut core = shared.core.lock();
                if core.is_closed() {
                    // No other task needs to start.
                    self.0 = Weak::new();
                    return;
                }
                (core.sweep(now), core.top_up(now))
            };
            shared.connect(starting);
            for (pooled, reason) in closed {
                PoolInner::discard(pooled, reason);
            }
            if shared.options.check_idle_every.is_some() && !shared.is_checking.swap(true, Ordering::AcqRel) {
                // A separate task, so that a check that hangs does not stop the clock.
                tokio::spawn(BackgroundCheck(Arc::downgrade(&shared)).run(now));
            }
        }
    }
}

/// The background task that checks idle connections, one after another, until none is due.
struct BackgroundCheck<M: Manager>(Weak<PoolInner<M>>);

impl<M: Manager> BackgroundCheck<M> {
    async fn run(self, now: u64) {
        loop {
            // A connection under check keeps the pool alive. Between two checks, the pool may be
            // dropped.
            let due_for_check = self.0.upgrade().and_then(|shared| shared.core.lock().due_for_check(now));
            let Some(pooled) = due_for_check else { return };
            let idle_since = pooled.idle_since;
            let Some(lease) = Lease::new(pooled).check().await else { continue };
            let mut pooled = lease.into_pooled();
            (pooled.idle_since, pooled.checked_at) = (idle_since, pooled.pool.now());
            PoolInner::put(pooled, Core::return_checked);
        }
    }
}

impl<M: Manager> Drop for BackgroundCheck<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.is_checking.store(false, Ordering::Release);
        }
    }
}

impl<M: Manager> Drop for Ticker<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            // The next caller starts another task if this one's runtime was shut down. Pairs with
            // the swap in `start`.
            shared.is_started.store(false, Ordering::Release);
        }
    }
}
