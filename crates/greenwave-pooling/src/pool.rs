//! A bounded number of connections, lent first come, first served. Knows nothing of what a connection is.
//!
//! What happens is decided in `core`, synchronously and under one lock; this file does what was decided: spawns, sends, drops, waits.

mod core;
mod lease;

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::core::PoolStats;
use self::core::{Claim, Core, Entry, Return};
pub use self::lease::Lease;
use crate::error::Error;
use crate::manager::Manager;

/// The sweep runs at least this often while there is anything to sweep for.
const SWEEP_EVERY_MAX: Duration = Duration::from_secs(30);
const SWEEP_EVERY_MIN: Duration = Duration::from_millis(50);
/// A wait without a limit, for arithmetic that needs one.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// How a pool is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Connections kept even when idle. Kept up in the background from the first use on.
    pub min: usize,
    /// Connections there may be at once, those being made included; at least 1.
    pub size: usize,
    /// An idle connection above the minimum is closed after this long.
    pub idle_timeout: Option<Duration>,
    /// A connection is closed after this long, once it is idle, even below the minimum.
    pub max_lifetime: Option<Duration>,
    /// By up to which fraction each lifetime is shortened, so that not all end at once; `0.0..=1.0`.
    pub lifetime_jitter: f64,
    /// How long [`Pool::get`] waits at most, checks included.
    pub checkout_timeout: Option<Duration>,
    /// How long one connect may take.
    pub connect_timeout: Option<Duration>,
    /// A connection that was idle for longer is checked before it is lent; never, if `None`.
    pub check_after: Option<Duration>,
    /// Determines the jitter.
    pub seed: u64,
}

impl Default for PoolConfig {
    /// 2 to 10 connections, idle for up to 300 s, 30 s to check out, 10 s to connect, checked after 1 s, no maximum lifetime.
    fn default() -> Self {
        Self {
            min: 2,
            size: 10,
            idle_timeout: Some(Duration::from_secs(300)),
            max_lifetime: None,
            lifetime_jitter: 0.1,
            checkout_timeout: Some(Duration::from_secs(30)),
            connect_timeout: Some(Duration::from_secs(10)),
            check_after: Some(Duration::from_secs(1)),
            seed: 0,
        }
    }
}

/// A pool of connections. Cloning shares it.
///
/// - Lends the connection that was used last; sweeps those that were idle longest.
/// - Whoever asks first is served first, with a returned connection or a new one, whichever comes first; nobody overtakes.
/// - Connections are made in tasks of their own: a caller that goes away wastes none, and whoever is first in line gets it.
/// - A failed connect fails the one who has waited longest. Retrying is the caller's choice: see [`Retry`](crate::Retry).
/// - [`get`](Self::get) may be cancelled at any time. Dropping a [`Lease`] never waits.
///
/// Needs a tokio runtime with its timer. A pool that is dropped closes its idle connections; those lent close when they come back.
pub struct Pool<M: Manager> {
    shared: Arc<Shared<M>>,
}

impl<M: Manager> Pool<M> {
    /// Connects nothing yet: the first [`get`](Self::get) or [`warm_up`](Self::warm_up) does. Values beyond their range are taken as the
    /// nearest one within.
    #[must_use]
    pub fn new(manager: M, config: PoolConfig) -> Self {
        let core = Mutex::new(Core::new(&config));
        Self {
            shared: Arc::new(Shared {
                manager,
                config,
                core,
                runtime: OnceLock::new(),
                changed: Notify::new(),
            }),
        }
    }

    /// Lends a connection.
    ///
    /// # Errors
    /// [`Error::Connect`] and the like if none could be made, [`Error::Timeout`] if none was free in time, [`Error::Closed`].
    pub async fn get(&self) -> Result<Lease<M>, Error> {
        self.shared.start();
        let claim = self.shared.claim(None);
        match claim {
            Claimed::Lent(lease) if !lease.needs_check() => Ok(lease),
            claim => self.get_slowly(claim).await,
        }
    }

    /// Lends a connection that is idle now, without checking it.
    #[must_use]
    pub fn try_get(&self) -> Option<Lease<M>> {
        let entry = self.shared.core.lock().take_idle()?;
        Some(Lease::new(self.shared.clone(), entry))
    }

    /// Connects up to the minimum, and waits for it.
    ///
    /// # Errors
    /// That of the first connect that failed. What was connected stays.
    pub async fn warm_up(&self) -> Result<(), Error> {
        // An earlier failure is not news.
        drop(self.shared.core.lock().take_failure());
        self.shared.start();
        loop {
            // Taken before looking, so that nothing that happens in between is missed.
            let changed = self.shared.changed.notified();
            let starting = {
                let mut core = self.shared.core.lock();
                if core.is_warm() {
                    return Ok(());
                }
                if let Some(error) = core.take_failure() {
                    return Err(error);
                }
                core.top_up()
            };
            self.shared.connect(starting);
            changed.await;
        }
    }

    /// Closes the pool: who waits gets [`Error::Closed`], idle connections close now, lent ones when they come back. Returns when all are
    /// closed. The pool is closed even if this is cancelled.
    pub async fn close(&self) {
        let (idle, waiting) = self.shared.core.lock().close();
        drop(idle);
        for waiter in waiting {
            // Whoever went away needs no answer.
            let _gone = waiter.send(Err(Error::Closed));
        }
        loop {
            let changed = self.shared.changed.notified();
            if self.shared.core.lock().is_drained() {
                return;
            }
            changed.await;
        }
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.core.lock().is_closed()
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared.core.lock().stats()
    }

    /// What makes the connections.
    #[must_use]
    pub fn manager(&self) -> &M {
        &self.shared.manager
    }

    async fn get_slowly(&self, claim: Claimed<M>) -> Result<Lease<M>, Error> {
        let started = Instant::now();
        let after = self.shared.config.checkout_timeout;
        let lent = timeout_at(started + after.unwrap_or(FAR), self.settle(claim)).await;
        let mut core = self.shared.core.lock();
        core.count_wait(started.elapsed());
        match lent {
            Ok(lent) => lent,
            Err(_) => {
                core.count_timeout();
                Err(Error::Timeout { after: after.unwrap_or(FAR) })
            }
        }
    }

    /// Waits and checks until there is a connection that works.
    async fn settle(&self, mut claim: Claimed<M>) -> Result<Lease<M>, Error> {
        loop {
            let (lease, ticket) = match claim {
                Claimed::Closed => return Err(Error::Closed),
                Claimed::Lent(lease) => (lease, None),
                Claimed::Waits { grant, ticket } => (self.wait(grant, ticket).await?, Some(ticket)),
            };
            if !lease.needs_check() {
                return Ok(lease);
            }
            if let Some(lease) = lease.check().await {
                return Ok(lease);
            }
            claim = self.shared.claim(ticket);
        }
    }

    async fn wait(&self, grant: oneshot::Receiver<Grant<M>>, ticket: u64) -> Result<Lease<M>, Error> {
        let _leaves = Leaves { shared: &self.shared, ticket };
        // A pool drops no waiter but in `close`, which answers it first.
        grant.await.unwrap_or(Err(Error::Closed))
    }
}

impl<M: Manager> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<M: Manager> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("manager", &self.shared.manager)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a waiter is granted. A lease that is dropped unread gives itself back.
type Grant<M> = Result<Lease<M>, Error>;

struct Shared<M: Manager> {
    manager: M,
    config: PoolConfig,
    core: Mutex<Core<M::Connection, Grant<M>>>,
    /// Where connects are spawned when a lease is dropped outside a runtime.
    runtime: OnceLock<Handle>,
    /// A connection was closed, made, or could not be made.
    changed: Notify,
}

enum Claimed<M: Manager> {
    Lent(Lease<M>),
    Waits { grant: oneshot::Receiver<Grant<M>>, ticket: u64 },
    Closed,
}

impl<M: Manager> Shared<M> {
    /// On first use: remembers the runtime, starts the sweep and connects up to the minimum.
    fn start(self: &Arc<Self>) {
        if self.runtime.get().is_some() {
            return;
        }
        let runtime = Handle::current();
        if self.runtime.set(runtime.clone()).is_err() {
            return; // Another caller was first.
        }
        if let Some(every) = self.sweep_every() {
            runtime.spawn(sweep(Arc::downgrade(self), every));
        }
        let starting = self.core.lock().top_up();
        self.connect(starting);
    }

    fn sweep_every(&self) -> Option<Duration> {
        let config = &self.config;
        let shortest = [config.idle_timeout, config.max_lifetime].into_iter().flatten().min();
        let every = match shortest {
            None if config.min == 0 => return None,
            None => SWEEP_EVERY_MAX,
            Some(shortest) => shortest / 4,
        };
        Some(every.clamp(SWEEP_EVERY_MIN, SWEEP_EVERY_MAX))
    }

    fn claim(self: &Arc<Self>, ticket: Option<u64>) -> Claimed<M> {
        let mut expired = Vec::new();
        let (claim, starting) = self.core.lock().claim(ticket, &mut expired);
        self.connect(starting);
        if !expired.is_empty() {
            self.changed.notify_waiters();
        }
        match claim {
            Claim::Closed => Claimed::Closed,
            Claim::Lent(entry) => Claimed::Lent(Lease::new(self.clone(), entry)),
            Claim::Waits { grant, ticket } => Claimed::Waits { grant, ticket },
        }
    }

    /// Takes a connection back: for the one who has waited longest, else for later.
    fn give_back(self: Arc<Self>, mut entry: Entry<M::Connection>) {
        let panicked = Freed(&self);
        let is_broken = self.manager.is_broken(&mut entry.connection);
        std::mem::forget(panicked);
        if is_broken {
            return self.discard(entry);
        }
        loop {
            let decided = self.core.lock().give_back(entry);
            match decided {
                Return::Kept => return,
                Return::Refused(refused) => return self.discard(refused),
                Return::For(waiter, served) => match waiter.send(Ok(Lease::new(self.clone(), served))) {
                    Err(Ok(lease)) => entry = lease.into_entry(),
                    _ => return,
                },
            }
        }
    }

    /// Closes a connection, and makes another if someone waits for one.
    fn discard(self: &Arc<Self>, entry: Entry<M::Connection>) {
        // Its place is free once it is closed, not before, and even if closing it panics.
        let _freed = Freed(self);
        drop(entry);
    }

    /// Connects `starting` times; the places are counted already.
    fn connect(self: &Arc<Self>, starting: usize) {
        for _ in 0..starting {
            let place = Place { shared: Some(self.clone()) };
            let runtime = Handle::try_current().ok().or_else(|| self.runtime.get().cloned());
            // Without a runtime the place is dropped here, which fails the waiter it was for.
            if let Some(runtime) = runtime {
                runtime.spawn(place.fill());
            }
        }
    }

    fn connected(self: &Arc<Self>, connection: M::Connection) {
        let entry = self.core.lock().connected(connection, Instant::now());
        tracing::debug!(manager = ?self.manager, "connected");
        self.clone().give_back(entry);
        self.changed.notify_waiters();
    }

    /// A connect failed: the one who has waited longest is told, and the next one gets another try.
    fn failed(self: &Arc<Self>, mut error: Error) {
        tracing::debug!(manager = ?self.manager, %error, "connect failed");
        self.core.lock().connect_failed();
        loop {
            let waiter = self.core.lock().pop_waiter();
            let Some(waiter) = waiter else {
                self.core.lock().keep_failure(error);
                break;
            };
            match waiter.send(Err(error)) {
                Err(Err(unread)) => error = unread,
                _ => break,
            }
        }
        let starting = self.core.lock().needed();
        self.connect(starting);
        self.changed.notify_waiters();
    }
}

/// The place of a connection that is no more: free when this is dropped.
struct Freed<'a, M: Manager>(&'a Arc<Shared<M>>);

impl<M: Manager> Drop for Freed<'_, M> {
    fn drop(&mut self) {
        let starting = self.0.core.lock().discarded();
        self.0.connect(starting);
        self.0.changed.notify_waiters();
    }
}

/// A place in the pool that a connection is being made for. However that ends, the place is filled or given up.
struct Place<M: Manager> {
    shared: Option<Arc<Shared<M>>>,
}

impl<M: Manager> Place<M> {
    async fn fill(mut self) {
        let Some(shared) = self.shared.clone() else { return };
        let after = shared.config.connect_timeout;
        let outcome = timeout(after.unwrap_or(FAR), shared.manager.connect()).await;
        self.shared = None;
        match outcome {
            Ok(Ok(connection)) => shared.connected(connection),
            Ok(Err(source)) => shared.failed(Error::Connect { source: Box::new(source) }),
            Err(_) => shared.failed(Error::ConnectTimeout { after: after.unwrap_or(FAR) }),
        }
    }
}

impl<M: Manager> Drop for Place<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.failed(Error::ConnectLost);
        }
    }
}

/// Leaves the queue, however the wait ends.
struct Leaves<'a, M: Manager> {
    shared: &'a Shared<M>,
    ticket: u64,
}

impl<M: Manager> Drop for Leaves<'_, M> {
    fn drop(&mut self) {
        self.shared.core.lock().leave(self.ticket);
    }
}

/// Closes what was idle or alive for too long and keeps up the minimum, until the pool is gone.
async fn sweep<M: Manager>(shared: Weak<Shared<M>>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(shared) = shared.upgrade() else { return };
        let (closed, starting) = {
            let mut core = shared.core.lock();
            if core.is_closed() {
                return;
            }
            (core.sweep(Instant::now()), core.top_up())
        };
        if !closed.is_empty() {
            tracing::debug!(manager = ?shared.manager, closed = closed.len(), "swept");
        }
        drop(closed);
        shared.connect(starting);
        shared.changed.notify_waiters();
    }
}
