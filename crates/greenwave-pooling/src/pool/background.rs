//! Background tasks of a pool: connects, ticks of its clock, checks of idle connections.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::PoolInner;
use super::core::Core;
use super::lease::Lease;
use crate::callback::{FAR, finish};
use crate::error::Error;
use crate::manager::Manager;

/// Capacity reserved for a connect. It is filled or released, however the connect ends.
pub(super) struct Reservation<M: Manager> {
    pub(super) shared: Option<Arc<PoolInner<M>>>,
}

impl<M: Manager> Reservation<M> {
    pub(super) async fn fill(mut self) {
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

/// The background task that updates the clock, closes expired connections, checks idle ones, and
/// restores the minimum, until the pool is gone.
pub(super) struct Ticker<M: Manager>(pub(super) Weak<PoolInner<M>>);

impl<M: Manager> Ticker<M> {
    pub(super) async fn run(mut self, every: Duration) {
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
