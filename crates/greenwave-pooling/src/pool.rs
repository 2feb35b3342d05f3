//! A pool of connections, lent in the order of requests.
//!
//! `core` makes all decisions synchronously under one lock. This file performs them: it spawns,
//! wakes, drops and waits. No foreign code runs under the lock, neither drops of connections nor
//! wakers.

mod background;
mod checkout;
mod core;
mod event;
mod lease;
mod options;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use self::background::{Reservation, Ticker};
use self::checkout::Checkout;
pub use self::core::PoolStats;
use self::core::{Core, Pooled, Return, ticks};
pub use self::event::{CloseReason, PoolEvent};
pub use self::lease::Lease;
pub use self::options::PoolOptions;
use self::options::tick_of;
use crate::callback::{FAR, Logged, call};
use crate::error::Error;
use crate::manager::Manager;
use crate::sync::Mutex;

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
        self.get_within(self.shared().options.checkout_timeout).await
    }

    /// Checks out a connection, with a time limit of this call instead of
    /// [`PoolOptions::checkout_timeout`]. A limit above a year counts as a year. Cancel safe.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_timeout(&self, limit: Duration) -> Result<Lease<M>, Error> {
        self.get_within(Some(limit)).await
    }

    #[inline]
    async fn get_within(&self, limit: Option<Duration>) -> Result<Lease<M>, Error> {
        let mut wait = Checkout { shared: self.shared(), ticket: None, slot: None, started: None };
        match std::future::poll_fn(|cx| Poll::Ready(wait.begin(cx.waker()))).await {
            Some(Ok(pooled)) => Ok(Lease::new(pooled)),
            Some(Err(error)) => Err(error),
            None => self.get_slowly(wait, limit).await,
        }
    }

    /// Checks out a connection and passes it to `work`. The errors of the pool and of the work
    /// become one: the work's error type must be convertible from [`Error`], for example by
    /// `#[from]` of thiserror.
    ///
    /// # Errors
    /// The error of [`get`](Self::get), converted, or that of `work`.
    pub async fn run<T, E: From<Error>>(
        &self,
        work: impl AsyncFnOnce(&mut M::Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut lease = self.get().await?;
        work(&mut lease).await
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

    /// Changes the minimum and maximum number of connections. Numbers out of range count as the
    /// nearest bound, as in [`PoolOptions`]. If there are more than the maximum, idle connections
    /// are closed now, and lent ones when they are returned.
    pub fn resize(&self, size_min: usize, size_max: usize) {
        let shared = self.shared();
        let (closed, starting) = {
            let now = shared.now();
            shared.core.lock().resize(size_min, size_max, now)
        };
        shared.connect(starting);
        for pooled in closed {
            PoolInner::discard(pooled, CloseReason::Surplus);
        }
    }

    /// Closes the idle connections for which `predicate` returns false, and returns their number.
    /// Callers that ask for a connection meanwhile may establish another one. If `predicate`
    /// panics, the connections that it has not seen stay in the pool.
    pub fn retain(&self, mut predicate: impl FnMut(&Lease<M>) -> bool) -> usize {
        let shared = self.shared();
        let idle: VecDeque<Lease<M>> =
            shared.core.lock().take_all_idle().into_iter().map(Lease::new).collect();
        let mut closed = 0;
        for lease in idle {
            if predicate(&lease) {
                PoolInner::put(lease.into_pooled(), Core::return_retained);
            } else {
                closed += 1;
                PoolInner::discard(lease.into_pooled(), CloseReason::NotRetained);
            }
        }
        closed
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
    async fn get_slowly(&self, wait: Checkout<'_, M>, limit: Option<Duration>) -> Result<Lease<M>, Error> {
        let shared = self.shared();
        let Some(after) = limit else { return shared.get_checked(wait).await };
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
        // A clone of the reference would take two atomic operations more: a checkout by one task
        // takes 1.2 times as long with it (docs/benchmarking.md, "Unsafe code").
        let pool = Arc::as_ptr(&pooled.pool);
        // SAFETY: the connection holds a reference to its pool. In every case, the
        // reference lives at least until another thread can take the connection, which requires the
        // lock. So it lives until the lock is released, which is the last access through this
        // pointer.
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

    /// Takes a connection out of the pool.
    #[expect(clippy::boxed_local, reason = "it is in a box wherever it comes from")]
    fn take(pooled: PooledBox<M>) -> M::Connection {
        let Pooled { pool, connection, .. } = *pooled;
        drop(CapacityRelease(&pool, CloseReason::Taken));
        connection
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
