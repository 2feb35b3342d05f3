//! A bounded number of connections, lent first come, first served. Knows nothing of what a connection is.
//!
//! What happens is decided in `core`, synchronously and under one lock; this file does what was decided: spawns, wakes, drops, waits.
//! Nothing of others runs under the lock: no drop of a connection, no waker.

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
use self::core::{Claim, Core, Grant, Return, Slot, ticks};
pub use self::event::{CloseReason, PoolEvent};
pub use self::lease::Lease;
use crate::callback::{FAR, call, finish};
use crate::error::Error;
use crate::manager::Manager;
use crate::sync::Mutex;

/// The clock ticks, and what is due is swept, this often at most, and this rarely where there is a limit.
const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(1);
/// How often a minimum is kept up where there is no limit.
const TOP_UP_EVERY: Duration = Duration::from_secs(30);

/// Configuration of a pool. Limits of time have the resolution of a millisecond, and those above a year
/// count as a year.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOptions {
    /// Connections kept even when idle; more than `size` counts as `size`. Kept up in the background from
    /// the first use on: after a failure with a delay that grows to 30 seconds.
    pub size_min: usize,
    /// Connections there may be at once, those being made included. Numbers outside of `1..=65536` count
    /// as the nearest within.
    pub size_max: usize,
    /// An idle connection above the minimum is closed after this long.
    pub idle_timeout: Option<Duration>,
    /// A connection is closed after this long, once it is idle, even below the minimum.
    pub max_lifetime: Option<Duration>,
    /// By up to which fraction each lifetime is shortened, so that not all end at once. Numbers outside of
    /// `0.0..=1.0` count as the nearest within, and NaN as 0.
    pub lifetime_jitter: f64,
    /// How long [`Pool::get`] waits at most, checks included.
    pub checkout_timeout: Option<Duration>,
    /// How long one connect may take.
    pub connect_timeout: Option<Duration>,
    /// A connection that was idle for longer is checked before it is lent, and none that was idle for less than half as long; never, if
    /// `None`.
    pub check_after: Option<Duration>,
    /// A connection that stays idle is checked this often in the background, one after another; never, if `None`.
    pub check_idle_every: Option<Duration>,
    /// Makes the jitter repeatable; random if `None`.
    pub seed: Option<u64>,
}

impl Default for PoolOptions {
    /// 2 to 10 connections, idle for up to 300 s, 30 s to check out, 10 s to connect, checked after 1 s, no maximum
    /// lifetime, no checks in the background.
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

/// A pool of connections. Cloning shares it.
///
/// - Lends the connection that was used last; sweeps those that were idle longest.
/// - Whoever asks first is served first, with a returned connection or a new one, whichever comes first; nobody overtakes.
/// - Connections are made in tasks of their own: a caller that goes away wastes none, and whoever is first in line gets it.
/// - A failed connect fails the one who has waited longest, and so does a new connection that is broken.
///   Retrying is the caller's choice: see [`Retry`](crate::Retry).
/// - A panic of the manager or of the observer fails the call that it was made for, and nothing else.
/// - [`get`](Self::get) may be cancelled at any time. Dropping a [`Lease`] never waits.
///
/// Needs a tokio runtime with its timer. Limits of time are kept by a task that ticks a few times in the shortest of them, so that a
/// check-out need not read the clock. When the last clone is dropped, idle connections close; those lent close when they come back.
pub struct Pool<M: Manager> {
    handle: Arc<Owner<M>>,
}

impl<M: Manager> Pool<M> {
    /// Connects nothing yet: the first [`get`](Self::get) or [`warm_up`](Self::warm_up) does. Values beyond their range are taken as the
    /// nearest one within.
    #[must_use]
    pub fn new(manager: M, options: PoolOptions) -> Self {
        Self::make(manager, options, None)
    }

    /// As [`new`](Self::new), and tells `observer` what happens, where it happens: it should neither block nor use the pool.
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
        let shared = Arc::new(Shared {
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

    /// A pool with connections that were made elsewhere: the start of a model, in which nothing connects.
    #[cfg(greenwave_loom)]
    #[doc(hidden)]
    pub fn with_connections(
        manager: M,
        options: PoolOptions,
        connections: impl IntoIterator<Item = M::Connection>,
    ) -> Self {
        let pool = Self::new(manager, options);
        for connection in connections {
            pool.shared().core.lock().stock(pool.shared().clone(), connection);
        }
        pool
    }

    /// Lends a connection.
    ///
    /// # Errors
    /// [`Error::Connect`] and the like if none could be made, [`Error::Timeout`] if none was free in time, [`Error::Closed`].
    #[inline]
    pub async fn get(&self) -> Result<Lease<M>, Error> {
        let mut wait = Wait { shared: self.shared(), ticket: None, place: None, started: None };
        match std::future::poll_fn(|cx| Poll::Ready(wait.begin(cx.waker()))).await {
            Some(Ok(slot)) => Ok(Lease::new(slot)),
            Some(Err(error)) => Err(error),
            None => self.get_slowly(wait).await,
        }
    }

    /// Lends a connection that is idle now, without checking it.
    #[must_use]
    pub fn try_get(&self) -> Option<Lease<M>> {
        let now = self.shared().now();
        let slot = self.shared().core.lock().take_idle(now)?;
        Some(Lease::new(slot))
    }

    /// Connects up to the minimum, and waits for it.
    ///
    /// # Errors
    /// That of the first connect that failed. What was connected stays.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let shared = self.shared();
        // An earlier failure is not news.
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

    /// Closes the pool: who waits gets [`Error::Closed`], idle connections close now, lent ones when they come back. Returns when all are
    /// closed. The pool is closed even if this is cancelled.
    pub async fn close(&self) {
        self.shared().close();
        self.shared().until(|core| (core.is_drained().then_some(()), 0)).await;
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().core.lock().is_closed()
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared().core.lock().stats()
    }

    /// What makes the connections.
    #[must_use]
    pub fn manager(&self) -> &M {
        &self.shared().manager
    }

    #[inline]
    fn shared(&self) -> &Arc<Shared<M>> {
        &self.handle.shared
    }

    #[cold]
    #[inline(never)]
    async fn get_slowly(&self, wait: Wait<'_, M>) -> Result<Lease<M>, Error> {
        let shared = self.shared();
        let Some(after) = shared.options.checkout_timeout else { return shared.settle(wait).await };
        let started = Instant::now();
        let served = timeout_at(started + after.min(FAR), shared.settle(wait)).await;
        served.unwrap_or_else(|_| {
            let waited = started.elapsed();
            shared.core.lock().count_timeout(waited);
            shared.tell(&PoolEvent::TimedOut { waited });
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

/// What the clones of a pool share. Idle connections hold the rest, so that the end of the last clone has to be told.
struct Owner<M: Manager> {
    shared: Arc<Shared<M>>,
}

impl<M: Manager> Drop for Owner<M> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

type Home<M> = Arc<Shared<M>>;
type Held<M> = Box<Slot<Home<M>, <M as Manager>::Connection>>;
type Cores<M> = Core<Home<M>, <M as Manager>::Connection>;
type Observer = Box<dyn Fn(&PoolEvent<'_>) + Send + Sync>;

struct Shared<M: Manager> {
    core: Mutex<Cores<M>>,
    /// Ticks since `origin`, at most `tick` behind.
    clock: AtomicU64,
    /// Whether the task that ticks is there.
    is_started: AtomicBool,
    /// Whether something is being checked in the background.
    is_checking: AtomicBool,
    manager: M,
    options: PoolOptions,
    tick: Option<Duration>,
    origin: Instant,
    /// Where connects are spawned when a lease is dropped outside a runtime.
    runtime: Mutex<Option<Handle>>,
    observer: Option<Observer>,
}

/// How often the clock has to tick for the limits to be kept, if there is anything to do.
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

impl<M: Manager> Shared<M> {
    /// Reads the time, and sets the clock by it.
    fn now(&self) -> u64 {
        let now = ticks(self.origin.elapsed());
        self.clock.fetch_max(now, Ordering::Relaxed);
        now
    }

    /// On first use, and again if the runtime of then has gone: remembers the runtime, starts the ticks, connects up to the minimum.
    fn start(self: &Arc<Self>) {
        if cfg!(greenwave_loom) || self.is_started.load(Ordering::Acquire) {
            return;
        }
        let runtime = Handle::current();
        let mut known = self.runtime.lock();
        // Pairs with the release of whoever was first, and of a task that has gone.
        if self.is_started.swap(true, Ordering::AcqRel) {
            return;
        }
        *known = Some(runtime.clone());
        drop(known);
        if let Some(tick) = self.tick {
            let ticking = Ticking(Arc::downgrade(self));
            runtime.spawn(ticking.run(tick));
        }
        let now = self.now();
        let starting = self.core.lock().top_up(now);
        self.connect(starting);
    }

    /// Waits, and checks, until there is a connection that works. Its turn is kept meanwhile.
    async fn settle(self: &Arc<Self>, mut wait: Wait<'_, M>) -> Result<Lease<M>, Error> {
        self.start();
        loop {
            let lease = Lease::new((&mut wait).await?);
            // What was handed over or made just now is not looked at again, nor is the lock taken for it.
            let is_new = lease.slot().idle_since.is_none();
            if is_new || !self.core.lock().needs_check(lease.slot(), self.now()) {
                return Ok(lease);
            }
            if let Some(lease) = lease.check().await {
                return Ok(lease);
            }
        }
    }

    /// Asks `decide` now and at each change, and starts as many connects as it says.
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
        for slot in idle {
            Self::discard(slot, CloseReason::PoolClosed);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn changed(&self) {
        let woken = self.core.lock().changed();
        woken.into_iter().for_each(Waker::wake);
    }

    fn tell(&self, event: &PoolEvent<'_>) {
        if let Some(observer) = &self.observer {
            let told = call("observer", || observer(event));
            if let Err(error) = told {
                tracing::warn!(%error, ?event, "an observer failed");
            }
        }
    }

    /// Takes a connection back: for the one who has waited longest, else for later.
    #[inline]
    fn give_back(mut slot: Held<M>) {
        if slot.home.is_broken(&mut slot.connection).unwrap_or(true) {
            return Self::discard(slot, CloseReason::Broken);
        }
        Self::put(slot, Core::give_back);
    }

    #[inline]
    fn put(
        slot: Held<M>,
        decide: impl FnOnce(&mut Cores<M>, Held<M>, u64) -> Return<Home<M>, M::Connection>,
    ) {
        let home = Arc::as_ptr(&slot.home);
        // SAFETY: the slot holds a reference to its home. Whatever is decided, it keeps that at least until another thread can take the
        // slot, for which that thread needs the lock: so until the lock is released, which is the last access through this pointer.
        // Counting a reference here would be two more atomic steps in the shortest path there is.
        let home = unsafe { &*home };
        let now = home.clock.load(Ordering::Relaxed);
        let decided = decide(&mut home.core.lock(), slot, now);
        match decided {
            Return::Kept => {}
            Return::Handed(waker) => waker.wake(),
            Return::Refused(slot, reason) => Self::discard(slot, reason),
        }
    }

    /// Closes a connection, and makes another if someone waits for one.
    #[expect(clippy::boxed_local, reason = "it is in a box wherever it comes from")]
    fn discard(slot: Held<M>, reason: CloseReason) {
        let Slot { home, connection, .. } = *slot;
        // Its place is free once it is closed, not before, and even if closing it panics.
        let _freed = Freed(&home, reason);
        drop(connection);
    }

    /// Connects `starting` times; the places are counted already.
    fn connect(self: &Arc<Self>, starting: usize) {
        for _ in 0..starting {
            let place = Vacancy { shared: Some(self.clone()) };
            let runtime = Handle::try_current().ok().or_else(|| self.runtime.lock().clone());
            // Without a runtime the place is dropped here, which fails the waiter it was for.
            if let Some(runtime) = runtime {
                runtime.spawn(place.fill());
            }
        }
    }

    fn connected(self: &Arc<Self>, connection: M::Connection, took: Duration) {
        let now = self.now();
        let slot = self.core.lock().connected(self.clone(), connection, Instant::now(), now);
        tracing::debug!(manager = ?self.manager, ?took, "connected");
        self.tell(&PoolEvent::Connected { took });
        Self::put(slot, Core::give_back);
        self.changed();
    }

    fn is_broken(&self, connection: &mut M::Connection) -> Result<bool, Error> {
        call("is_broken", || self.manager.is_broken(connection))
    }

    /// A connection is of no use: it is closed first.
    fn failed_with(self: &Arc<Self>, connection: M::Connection, error: Error) {
        // If closing it panics, its place is given up all the same.
        let mut place = Vacancy { shared: Some(self.clone()) };
        drop(connection);
        place.shared = None;
        self.failed(error);
    }

    /// A connect failed: the one who has waited longest is told, and the next one gets another try.
    fn failed(self: &Arc<Self>, error: Error) {
        tracing::debug!(manager = ?self.manager, %error, "connect failed");
        self.tell(&PoolEvent::ConnectFailed { error: &error });
        let now = self.now();
        let (woken, starting) = {
            let mut core = self.core.lock();
            core.connect_failed(now);
            let woken = match core.queue().grant(Err(error)) {
                Ok(waker) => Some(waker),
                Err(unread) => {
                    core.keep_failure(unread.err().unwrap_or(Error::ConnectAborted));
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

/// The place of a connection that is no more: free when this is dropped.
struct Freed<'a, M: Manager>(&'a Arc<Shared<M>>, CloseReason);

impl<M: Manager> Drop for Freed<'_, M> {
    fn drop(&mut self) {
        let (starting, woken) = {
            let now = self.0.clock.load(Ordering::Relaxed);
            let mut core = self.0.core.lock();
            (core.discarded(now), core.changed())
        };
        self.0.connect(starting);
        woken.into_iter().for_each(Waker::wake);
        self.0.tell(&PoolEvent::Closed { reason: self.1 });
    }
}

/// A place in the pool that a connection is being made for. However that ends, the place is filled or given up.
struct Vacancy<M: Manager> {
    shared: Option<Arc<Shared<M>>>,
}

impl<M: Manager> Vacancy<M> {
    async fn fill(mut self) {
        let Some(shared) = self.shared.clone() else { return };
        let after = shared.options.connect_timeout;
        let started = Instant::now();
        let connecting = finish("connect", shared.manager.connect());
        let outcome = timeout(after.unwrap_or(FAR).min(FAR), connecting).await;
        self.shared = None;
        match outcome {
            // One that is broken when it is made must not be replaced at once, again and again.
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

impl<M: Manager> Drop for Vacancy<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.failed(Error::ConnectAborted);
        }
    }
}

/// The wait of one caller: a claim when it is first polled, and then a place in the queue. Dropped, it leaves the queue, and hands on what
/// was granted to it meanwhile.
struct Wait<'a, M: Manager> {
    shared: &'a Arc<Shared<M>>,
    ticket: Option<u64>,
    place: Option<usize>,
    /// When it began, unless it was served at once.
    started: Option<Instant>,
}

impl<M: Manager> Future for Wait<'_, M> {
    type Output = Result<Held<M>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.place {
            None => self.claim(cx.waker()),
            Some(place) => self.look(place, cx.waker()),
        }
    }
}

impl<M: Manager> Wait<'_, M> {
    /// The first look, in one step with taking a place in the queue. `None` if there is more to be done.
    #[inline]
    fn begin(&mut self, waker: &Waker) -> Option<Result<Held<M>, Error>> {
        let now = self.shared.clock.load(Ordering::Relaxed);
        if !self.shared.is_started.load(Ordering::Relaxed) {
            return None;
        }
        let (slot, starting) = {
            let mut core = self.shared.core.lock();
            match core.take_fit(now) {
                Some(slot) => return Some(Ok(slot)),
                // Something is there, to be looked at first: its life may be over, or its last use long ago.
                None if core.has_idle() => return None,
                None => core.claim(self.ticket, now, waker, &mut Vec::new()),
            }
        };
        let served = self.claimed(slot, starting);
        if served.is_none() {
            self.started = Some(Instant::now());
        }
        served
    }

    fn claim(&mut self, waker: &Waker) -> Poll<Result<Held<M>, Error>> {
        let mut expired = Vec::new();
        let now = self.shared.now();
        self.started.get_or_insert_with(Instant::now);
        let (claim, starting) = self.shared.core.lock().claim(self.ticket, now, waker, &mut expired);
        let served = self.claimed(claim, starting);
        for slot in expired {
            Shared::discard(slot, CloseReason::Expired);
        }
        served.map_or(Poll::Pending, Poll::Ready)
    }

    fn claimed(
        &mut self,
        claim: Claim<Home<M>, M::Connection>,
        starting: usize,
    ) -> Option<Result<Held<M>, Error>> {
        self.shared.connect(starting);
        match claim {
            Claim::Closed => Some(Err(Error::Closed)),
            Claim::Lent(slot) => Some(Ok(slot)),
            Claim::Waits { ticket, place } => {
                (self.ticket, self.place) = (Some(ticket), Some(place));
                None
            }
        }
    }

    fn look(&mut self, place: usize, waker: &Waker) -> Poll<Grant<Home<M>, M::Connection>> {
        // Counted under the lock that is taken anyway: atomics of their own would go back and forth between the threads.
        let waited = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        let (polled, _stale) = {
            let mut core = self.shared.core.lock();
            let polled = core.queue().poll(place, waker);
            if polled.0.is_ready() {
                core.count_wait(waited);
            }
            polled
        };
        if polled.is_ready() {
            self.place = None;
            self.shared.tell(&PoolEvent::Waited { waited });
        }
        polled
    }
}

impl<M: Manager> Drop for Wait<'_, M> {
    fn drop(&mut self) {
        let (Some(ticket), Some(place)) = (self.ticket, self.place) else { return };
        let (granted, _waker) = self.shared.core.lock().queue().leave(ticket, place);
        match granted {
            Some(Ok(slot)) => Shared::give_back(slot),
            // It was for whoever was first in line; that is another one now, for whom a connect is under way.
            Some(Err(error)) => drop(error),
            None => {}
        }
    }
}

/// The task that ticks: sets the clock, closes what was idle or alive for too long, checks what is idle, keeps up the minimum, until the
/// pool is gone.
struct Ticking<M: Manager>(Weak<Shared<M>>);

impl<M: Manager> Ticking<M> {
    async fn run(mut self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let Some(shared) = self.0.upgrade() else { return };
            let now = shared.now();
            let (closed, starting) = {
                let mut core = shared.core.lock();
                if core.is_closed() {
                    // Nobody need start another.
                    self.0 = Weak::new();
                    return;
                }
                (core.sweep(now), core.top_up(now))
            };
            shared.connect(starting);
            for (slot, reason) in closed {
                Shared::discard(slot, reason);
            }
            if shared.options.check_idle_every.is_some() && !shared.is_checking.swap(true, Ordering::AcqRel) {
                // A task of its own: a check that hangs is not to stop the clock.
                tokio::spawn(Checking(Arc::downgrade(&shared)).run(now));
            }
        }
    }
}

/// The task that checks what is idle, one after another, until nothing is due.
struct Checking<M: Manager>(Weak<Shared<M>>);

impl<M: Manager> Checking<M> {
    async fn run(self, now: u64) {
        loop {
            // A connection under way keeps its pool; between two of them the pool may go.
            let suspect = self.0.upgrade().and_then(|shared| shared.core.lock().suspect(now));
            let Some(slot) = suspect else { return };
            let idle_since = slot.idle_since;
            let Some(lease) = Lease::new(slot).check().await else { continue };
            let mut slot = lease.into_slot();
            (slot.idle_since, slot.seen) = (idle_since, slot.home.now());
            Shared::put(slot, Core::give_back_checked);
        }
    }
}

impl<M: Manager> Drop for Checking<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.is_checking.store(false, Ordering::Release);
        }
    }
}

impl<M: Manager> Drop for Ticking<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            // The next caller starts another, if its runtime has gone. Pairs with the swap in `start`.
            shared.is_started.store(false, Ordering::Release);
        }
    }
}
