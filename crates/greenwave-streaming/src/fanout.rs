//! Broadcasts values to many subscribers, each with its own policy.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;

mod publishing;

use publishing::Publishing;

/// Broadcasts every value to every subscriber, which is a task that requests values or a
/// [callback](Subscription::for_each). Clones are further publishers. When the last one is dropped,
/// subscribers receive the queued values and then the end.
///
/// A value reaches all subscribers at once. While a subscriber with [`SubscriberPolicy::Wait`] is
/// full, it reaches none, so the order is the same for all, and a publisher that is cancelled while
/// waiting has published nothing. Subscribers with other policies never delay a publisher.
///
/// ```
/// use greenwave_streaming::{Fanout, SubscriberPolicy};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let fanout = Fanout::new();
/// let mut all = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 8 });
/// let mut newest = fanout.subscribe(SubscriberPolicy::Newest);
/// fanout.publish(1).await;
/// fanout.publish(2).await;
/// drop(fanout);
/// assert_eq!((all.next().await, all.next().await, all.next().await), (Some(1), Some(2), None));
/// assert_eq!((newest.next().await, newest.stats().dropped), (Some(2), 1));
/// # });
/// ```
pub struct Fanout<T> {
    publishers: Arc<Publishers<T>>,
}

/// The behavior for a subscriber that does not keep up.
#[non_exhaustive]
pub enum SubscriberPolicy<T> {
    /// The publisher waits while `queue_max` values are queued. No value is lost.
    Wait {
        /// Values, at least 1.
        queue_max: usize,
    },
    /// The oldest queued value is dropped when `queue_max` values are queued.
    DropOldest {
        /// Values, at least 1.
        queue_max: usize,
    },
    /// Only the newest value is queued.
    Newest,
    /// New values are merged into the last one while `queue_max` values are queued. A merge that
    /// panics ends this subscription and no other.
    Coalesce {
        /// Values, at least 1.
        queue_max: usize,
        /// Merges the newer value into the older one. A merge that calls its fanout panics.
        merge: Merge<T>,
    },
}

type Merge<T> = Arc<dyn Fn(&mut T, T) + Send + Sync>;

impl<T> SubscriberPolicy<T> {
    /// Returns [`SubscriberPolicy::Coalesce`] with `merge`.
    #[must_use]
    pub fn coalesce(queue_max: usize, merge: impl Fn(&mut T, T) + Send + Sync + 'static) -> Self {
        Self::Coalesce { queue_max, merge: Arc::new(merge) }
    }

    fn queue_max(&self) -> usize {
        match self {
            Self::Newest => 1,
            Self::Wait { queue_max } | Self::DropOldest { queue_max } | Self::Coalesce { queue_max, .. } => {
                (*queue_max).max(1)
            }
        }
    }
}

impl<T> fmt::Debug for SubscriberPolicy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Wait { .. } => "Wait",
            Self::DropOldest { .. } => "DropOldest",
            Self::Newest => "Newest",
            Self::Coalesce { .. } => "Coalesce",
        };
        f.debug_struct(name).field("queue_max", &self.queue_max()).finish_non_exhaustive()
    }
}

/// Counters of a subscriber.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Values published since the subscription.
    pub published: u64,
    /// Values received.
    pub received: u64,
    /// Values dropped to make room.
    pub dropped: u64,
    /// Values merged into a queued one.
    pub merged: u64,
    /// Times that a publisher had to wait for this subscriber.
    pub waits: u64,
    /// Values queued now.
    pub queued: usize,
    /// Highest number of values queued at once.
    pub queued_peak: usize,
}

/// The error of [`Fanout::try_publish`] if a waiting subscriber is full. Returns the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subscriber is full")]
pub struct Full<T>(pub T);

impl<T> Fanout<T> {
    /// Creates a fanout without subscribers. Values are dropped until one subscribes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            publishers: Arc::new(Publishers { shared: Arc::new(SharedQueues { state: Mutex::default() }) }),
        }
    }

    /// Subscribes to the values published from now on.
    #[must_use]
    pub fn subscribe(&self, policy: SubscriberPolicy<T>) -> Subscription<T> {
        let shared = self.publishers.shared.clone();
        let mut state = shared.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.queues.insert(id, SubscriberQueue::new(policy));
        drop(state);
        Subscription { shared, id }
    }

    /// Returns the number of subscribers.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.publishers.shared.lock().queues.len()
    }
}

impl<T: Clone> Fanout<T> {
    /// Publishes `value`. Waits while a subscriber with [`SubscriberPolicy::Wait`] is full. Values
    /// of one task arrive in order.
    pub async fn publish(&self, value: T) {
        let mut value = Some(value);
        let mut waited = false;
        std::future::poll_fn(|cx| self.publishers.shared.poll_publish(&mut value, Some((cx, &mut waited))))
            .await;
    }

    /// Publishes `value` without waiting.
    ///
    /// # Errors
    /// Returns the value if a subscriber with [`SubscriberPolicy::Wait`] is full. No subscriber
    /// received it.
    pub fn try_publish(&self, value: T) -> Result<(), Full<T>> {
        let mut value = Some(value);
        let _published = self.publishers.shared.poll_publish(&mut value, None);
        value.map_or(Ok(()), |value| Err(Full(value)))
    }
}

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Fanout<T> {
    fn clone(&self) -> Self {
        Self { publishers: self.publishers.clone() }
    }
}

impl<T> fmt::Debug for Fanout<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout").field("subscribers", &self.subscribers()).finish()
    }
}

/// Receives published values, as a [`Stream`] or with [`next`](Self::next). Dropping it
/// unsubscribes.
pub struct Subscription<T> {
    shared: Arc<SharedQueues<T>>,
    id: u64,
}

impl<T> Subscription<T> {
    /// Returns the next value, or `None` when all publishers are dropped and the queue is empty.
    /// Cancel safe: no value is lost.
    pub async fn next(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.shared.poll_next(self.id, cx)).await
    }

    /// Returns the next value if one is queued.
    pub fn try_next(&mut self) -> Option<T> {
        self.shared.pop(self.id).0
    }

    /// Calls `callback` with each value until all publishers are dropped. Spawn the future, so that
    /// a slow callback delays only publishers that wait for it. A callback that panics ends its own
    /// subscription and no other.
    ///
    /// Dropping the future unsubscribes. Use [`counters`](Self::counters) to read statistics
    /// meanwhile.
    ///
    /// # Errors
    /// If the callback has panicked.
    pub async fn for_each(mut self, mut callback: impl FnMut(T)) -> Result<SubscriptionStats, CallbackPanic> {
        while let Some(value) = self.next().await {
            self.call(&mut callback, value)?;
        }
        Ok(self.stats())
    }

    /// Calls `callback` on the current thread, for callbacks that block. Otherwise like
    /// [`for_each`](Self::for_each).
    ///
    /// # Errors
    /// If the callback has panicked.
    pub fn for_each_blocking(
        mut self,
        mut callback: impl FnMut(T),
    ) -> Result<SubscriptionStats, CallbackPanic> {
        while let Some(value) = self.next_blocking() {
            self.call(&mut callback, value)?;
        }
        Ok(self.stats())
    }

    /// Blocks the thread until the next value. Returns `None` like [`next`](Self::next). Needs no
    /// runtime.
    pub fn next_blocking(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::new(Unparker(std::thread::current())));
        let context = Context::from_waker(&waker);
        loop {
            match self.shared.poll_next(self.id, &context) {
                Poll::Ready(value) => return value,
                // `park` may return spuriously. A value that arrived in between has left a token,
                // so `park` returns at once.
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Returns a handle to the counters that can be used anywhere, also after the subscription has
    /// ended.
    #[must_use]
    pub fn counters(&self) -> SubscriptionCounters<T> {
        SubscriptionCounters { shared: self.shared.clone(), id: self.id, last: Mutex::new(self.stats()) }
    }

    fn call(&self, callback: &mut impl FnMut(T), value: T) -> Result<(), CallbackPanic> {
        std::panic::catch_unwind(AssertUnwindSafe(|| callback(value))).map_err(|panic| {
            let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
            CallbackPanic { message: message.unwrap_or_default(), stats: self.stats() }
        })
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        let state = self.shared.lock();
        state.queues.get(&self.id).map_or_else(SubscriptionStats::default, SubscriberQueue::snapshot)
    }
}

/// The error of a callback that panicked, which ended its subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a subscriber panicked after {} values: {message}", stats.received)]
pub struct CallbackPanic {
    /// The panic message, or an empty string if the payload was not text.
    pub message: String,
    /// The counters at the time of the panic.
    pub stats: SubscriptionStats,
}

/// A handle to the counters of a [`Subscription`].
pub struct SubscriptionCounters<T> {
    shared: Arc<SharedQueues<T>>,
    id: u64,
    /// The last counters read, returned once the subscription has ended.
    last: Mutex<SubscriptionStats>,
}

impl<T> SubscriptionCounters<T> {
    /// Returns the counters. After the end of the subscription, returns the counters of the last
    /// call.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = self.shared.lock().queues.get(&self.id) {
            *last = queue.snapshot();
        }
        *last
    }
}

impl<T> fmt::Debug for SubscriptionCounters<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionCounters").field("id", &self.id).field("stats", &self.stats()).finish()
    }
}

/// Wakes a thread that is blocked in `next_blocking`.
struct Unparker(std::thread::Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Stream for Subscription<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.shared.poll_next(self.id, cx)
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // The queued values are dropped after the lock is released: their `drop` may run any code.
        let queue = state.queues.remove(&self.id);
        let publishers = std::mem::take(&mut state.publishers);
        drop(state);
        publishers.into_iter().for_each(Waker::wake);
        drop(queue);
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).field("stats", &self.stats()).finish()
    }
}

/// Closes the fanout when the last publisher is dropped.
struct Publishers<T> {
    shared: Arc<SharedQueues<T>>,
}

impl<T> Drop for Publishers<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        let wakers: Vec<Waker> = state.queues.values_mut().filter_map(|queue| queue.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

struct SharedQueues<T> {
    state: Mutex<Queues<T>>,
}

struct Queues<T> {
    /// In the order of subscription.
    queues: BTreeMap<u64, SubscriberQueue<T>>,
    next_id: u64,
    /// Publishers waiting for room.
    publishers: Vec<Waker>,
    is_closed: bool,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), next_id: 0, publishers: Vec::new(), is_closed: false }
    }
}

struct SubscriberQueue<T> {
    policy: SubscriberPolicy<T>,
    values: VecDeque<T>,
    waker: Option<Waker>,
    stats: SubscriptionStats,
    /// Its merge has panicked. It receives the queued values and then the end.
    is_broken: bool,
}

impl<T> SharedQueues<T> {
    fn lock(&self) -> MutexGuard<'_, Queues<T>> {
        // A panic in a value's `clone` leaves every queue consistent.
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => {
                assert!(!Publishing::is_active(self), "a merge or clone of a value called its fanout");
                self.state.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    /// Pops a value from the queue. The flag is set if more values may follow.
    fn pop(&self, id: u64) -> (Option<T>, bool) {
        let mut state = self.lock();
        let is_closed = state.is_closed;
        let Some(queue) = state.queues.get_mut(&id) else { return (None, false) };
        let was_full = queue.values.len() >= queue.policy.queue_max();
        let value = queue.values.pop_front();
        queue.stats.received += u64::from(value.is_some());
        let may_come = !is_closed && !queue.is_broken;
        let publishers = if was_full { std::mem::take(&mut state.publishers) } else { Vec::new() };
        drop(state);
        publishers.into_iter().for_each(Waker::wake);
        (value, may_come)
    }

    fn poll_next(&self, id: u64, cx: &Context<'_>) -> Poll<Option<T>> {
        if let (Some(value), _) = self.pop(id) {
            return Poll::Ready(Some(value));
        }
        if let Some(queue) = self.lock().queues.get_mut(&id) {
            queue.waker = Some(cx.waker().clone());
        }
        // Checks again for a value that arrived before the waker was registered.
        match self.pop(id) {
            (None, true) => Poll::Pending,
            (value, _) => Poll::Ready(value),
        }
    }
}

impl<T: Clone> SharedQueues<T> {
    /// Publishes `value` unless a subscriber must be waited for.
    fn poll_publish(
        &self,
        value: &mut Option<T>,
        waiting: Option<(&mut Context<'_>, &mut bool)>,
    ) -> Poll<()> {
        // Dropped after the lock is released: their `drop` may run any code.
        let mut evicted = Vec::new();
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let publishing = Publishing::begin(self);
        if state.queues.values().any(SubscriberQueue::must_wait) {
            if let Some((cx, waited)) = waiting {
                state.count_wait(waited);
                if !state.publishers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.publishers.push(cx.waker().clone());
                }
            }
            return Poll::Pending;
        }
        let Some(value) = value.take() else { return Poll::Ready(()) };
        for queue in state.queues.values_mut() {
            evicted.extend(queue.offer(value.clone()));
            wakers.extend(queue.waker.take());
        }
        drop((publishing, state));
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }
}

impl<T> Queues<T> {
    fn count_wait(&mut self, waited: &mut bool) {
        if std::mem::replace(waited, true) {
            return;
        }
        for queue in self.queues.values_mut().filter(|queue| queue.must_wait()) {
            queue.stats.waits += 1;
        }
    }
}

impl<T> SubscriberQueue<T> {
    fn new(policy: SubscriberPolicy<T>) -> Self {
        let stats = SubscriptionStats::default();
        Self { policy, values: VecDeque::new(), waker: None, stats, is_broken: false }
    }

    fn must_wait(&self) -> bool {
        matches!(self.policy, SubscriberPolicy::Wait { .. }) && self.values.len() >= self.policy.queue_max()
    }

    /// Queues `value` and makes room according to the policy; returns the value that was dropped.
    fn offer(&mut self, value: T) -> Option<T> {
        if self.is_broken {
            return Some(value);
        }
        self.stats.published += 1;
        let is_full = self.values.len() >= self.policy.queue_max();
        let evicted = match (&self.policy, self.values.back_mut()) {
            (SubscriberPolicy::Coalesce { merge, .. }, Some(last)) if is_full => {
                let merged = std::panic::catch_unwind(AssertUnwindSafe(|| merge(last, value)));
                self.stats.merged += 1;
                self.is_broken = merged.is_err();
                return None;
            }
            (SubscriberPolicy::DropOldest { .. } | SubscriberPolicy::Newest, _) if is_full => {
                self.stats.dropped += 1;
                self.values.pop_front()
            }
            _ => None,
        };
        self.values.push_back(value);
        self.stats.queued_peak = self.stats.queued_peak.max(self.values.len());
        evicted
    }

    fn snapshot(&self) -> SubscriptionStats {
        SubscriptionStats { queued: self.values.len(), ..self.stats }
    }
}
