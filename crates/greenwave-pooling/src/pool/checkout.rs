//! The wait for a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::core::{Claim, Grant};
use super::event::{CloseReason, PoolEvent};
use super::{PoolInner, PoolRef, PooledBox};
use crate::error::Error;
use crate::manager::Manager;

/// A caller of [`Pool::get`](super::Pool::get): claims a connection on the first poll and waits in
/// the queue after that. On drop, it leaves the queue and passes on a connection granted to it in
/// the meantime.
pub(super) struct Checkout<'a, M: Manager> {
    pub(super) shared: &'a Arc<PoolInner<M>>,
    pub(super) ticket: Option<u64>,
    pub(super) slot: Option<usize>,
    /// Start of the wait, unless the caller was served at once.
    pub(super) started: Option<Instant>,
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
    pub(super) fn begin(&mut self, waker: &Waker) -> Option<Result<PooledBox<M>, Error>> {
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
