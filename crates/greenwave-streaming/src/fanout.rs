//! One publisher side, many subscribers, each with its own policy for the moment when it is slow. Knows nothing of what is published.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;

/// Hands every value to every subscriber, be it a task that asks for the next one or a [callback](Subscription::for_each). Cloning makes another publisher; when the last one is gone, subscribers get what is queued
/// and then the end.
///
/// A value reaches all subscribers at once or, while one that asked for [`SubscriberPolicy::Wait`] is full, none of them: the order is the same
/// for all, and a publisher that is cancelled while it waits has published nothing. Subscribers with other policies never delay anyone.
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

/// What happens when a subscriber does not keep up.
#[non_exhaustive]
pub enum SubscriberPolicy<T> {
    /// The publisher waits while `queue_max` values are queued. Nothing is lost.
    Wait {
        /// Values, at least 1.
        queue_max: usize,
    },
    /// The oldest of `queue_max` queued values makes room.
    DropOldest {
        /// Values, at least 1.
        queue_max: usize,
    },
    /// Only the newest value is kept.
    Newest,
    /// While `queue_max` values are queued, new ones are merged into the last. A merge that panics ends this subscription and no other.
    Coalesce {
        /// Values, at least 1.
        queue_max: usize,
        /// Merges the newer value into the older one. Must not call the fanout.
        merge: Merge<T>,
    },
}

type Merge<T> = Arc<dyn Fn(&mut T, T) + Send + Sync>;

impl<T> SubscriberPolicy<T> {
    /// [`SubscriberPolicy::Coalesce`] with `merge`.
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

/// Counters of one subscriber.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Values published since it subscribed.
    pub published: u64,
    /// Values it received.
    pub received: u64,
    /// Values dropped to make room.
    pub dropped: u64,
    /// Values merged into one that was queued.
    pub merged: u64,
    /// How often a publisher found it full and had to wait.
    pub waits: u64,
    /// Values queued now.
    pub queued: usize,
    /// The most values that were queued at once.
    pub queued_peak: usize,
}

/// A subscriber that waits is full; the value comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subscriber is full")]
pub struct Full<T>(pub T);

impl<T> Fanout<T> {
    /// Without subscribers, values are dropped.
    #[must_use]
    pub fn new() -> Self {
        Self { publishers: Arc::new(Publishers { shared: Arc::new(Shared { state: Mutex::default() }) }) }
    }

    /// Subscribes to the values published from now on.
    #[must_use]
    pub fn subscribe(&self, policy: SubscriberPolicy<T>) -> Subscription<T> {
        let shared = self.publishers.shared.clone();
        let mut state = shared.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.slots.insert(id, Slot::new(policy));
        drop(state);
        Subscription { shared, id }
    }

    /// How many subscribers there are.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.publishers.shared.lock().slots.len()
    }
}

impl<T: Clone> Fanout<T> {
    /// Publishes `value`, waiting for subscribers that asked for it. Values of one task arrive in their order.
    pub async fn publish(&self, value: T) {
        let mut value = Some(value);
        let mut waited = false;
        std::future::poll_fn(|cx| self.publishers.shared.poll_publish(&mut value, Some((cx, &mut waited))))
            .await;
    }

    /// Publishes `value` at once or not at all.
    ///
    /// # Errors
    /// If a subscriber that asked for [`SubscriberPolicy::Wait`] is full. Nobody got the value.
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

/// Receives what is published, as a [`Stream`] or with [`next`](Self::next). Dropping it unsubscribes.
pub struct Subscription<T> {
    shared: Arc<Shared<T>>,
    id: u64,
}

impl<T> Subscription<T> {
    /// The next value; `None` when the publishers are gone and the queue is empty. May be cancelled without losing a value.
    pub async fn next(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.shared.poll_next(self.id, cx)).await
    }

    /// The next value if one is queued.
    pub fn try_next(&mut self) -> Option<T> {
        self.shared.pop(self.id).0
    }

    /// Calls `callback` with each value until the publishers are gone: a future to be spawned, so that a slow callback delays nobody
    /// but a publisher that its policy lets wait. A callback that panics ends its own subscription and nothing else.
    ///
    /// Dropping the future unsubscribes. What is counted can be read meanwhile by [`counters`](Self::counters).
    ///
    /// # Errors
    /// If the callback has panicked.
    pub async fn for_each(mut self, mut callback: impl FnMut(T)) -> Result<SubscriptionStats, CallbackPanic> {
        while let Some(value) = self.next().await {
            self.call(&mut callback, value)?;
        }
        Ok(self.stats())
    }

    /// As [`for_each`](Self::for_each), on the thread that calls it: for callbacks that block, on a thread of their own.
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

    /// Waits for the next value without a runtime; `None` as in [`next`](Self::next).
    pub fn next_blocking(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::new(Unparker(std::thread::current())));
        let context = Context::from_waker(&waker);
        loop {
            match self.shared.poll_next(self.id, &context) {
                Poll::Ready(value) => return value,
                // May return without cause; a value that came in between has left its mark, so that it returns at once.
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Reads what this subscription counts, from anywhere and after its end.
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

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        let state = self.shared.lock();
        state.slots.get(&self.id).map_or_else(SubscriptionStats::default, Slot::snapshot)
    }
}

/// A callback has panicked; its subscription is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a subscriber panicked after {} values: {message}", stats.received)]
pub struct CallbackPanic {
    /// What the panic said, where that was text.
    pub message: String,
    /// What was counted until then.
    pub stats: SubscriptionStats,
}

/// Reads what a [`Subscription`] counts.
pub struct SubscriptionCounters<T> {
    shared: Arc<Shared<T>>,
    id: u64,
    /// What was read last, which is what there is when the subscription is gone.
    last: Mutex<SubscriptionStats>,
}

impl<T> SubscriptionCounters<T> {
    /// What was counted so far; after the end of the subscription, what was counted when this was last asked for.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = self.shared.lock().slots.get(&self.id) {
            *last = slot.snapshot();
        }
        *last
    }
}

impl<T> fmt::Debug for SubscriptionCounters<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionCounters").field("id", &self.id).field("stats", &self.stats()).finish()
    }
}

/// Wakes a thread that waits for a value.
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
        // The queued values are dropped after the lock: their `drop` may be anyone's code.
        let slot = state.slots.remove(&self.id);
        let publishers = std::mem::take(&mut state.publishers);
        drop(state);
        publishers.into_iter().for_each(Waker::wake);
        drop(slot);
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).field("stats", &self.stats()).finish()
    }
}

/// Shared by the publishers; closes when the last one goes.
struct Publishers<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Drop for Publishers<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        let wakers: Vec<Waker> = state.slots.values_mut().filter_map(|slot| slot.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// In the order of subscription.
    slots: BTreeMap<u64, Slot<T>>,
    next_id: u64,
    /// Publishers that wait for room.
    publishers: Vec<Waker>,
    is_closed: bool,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), next_id: 0, publishers: Vec::new(), is_closed: false }
    }
}

struct Slot<T> {
    policy: SubscriberPolicy<T>,
    queue: VecDeque<T>,
    waker: Option<Waker>,
    stats: SubscriptionStats,
    /// Its merge has panicked: it gets what is queued, and then the end.
    is_broken: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A `clone` that panicked has left every queue whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a value off the queue; the flag tells whether more can come.
    fn pop(&self, id: u64) -> (Option<T>, bool) {
        let mut state = self.lock();
        let is_closed = state.is_closed;
        let Some(slot) = state.slots.get_mut(&id) else { return (None, false) };
        let was_full = slot.queue.len() >= slot.policy.queue_max();
        let value = slot.queue.pop_front();
        slot.stats.received += u64::from(value.is_some());
        let may_come = !is_closed && !slot.is_broken;
        let publishers = if was_full { std::mem::take(&mut state.publishers) } else { Vec::new() };
        drop(state);
        publishers.into_iter().for_each(Waker::wake);
        (value, may_come)
    }

    fn poll_next(&self, id: u64, cx: &Context<'_>) -> Poll<Option<T>> {
        if let (Some(value), _) = self.pop(id) {
            return Poll::Ready(Some(value));
        }
        if let Some(slot) = self.lock().slots.get_mut(&id) {
            slot.waker = Some(cx.waker().clone());
        }
        // Again, for a value that came before the waker was in place.
        match self.pop(id) {
            (None, true) => Poll::Pending,
            (value, _) => Poll::Ready(value),
        }
    }
}

impl<T: Clone> Shared<T> {
    /// Publishes `value` unless a subscriber has to be waited for.
    fn poll_publish(
        &self,
        value: &mut Option<T>,
        waiting: Option<(&mut Context<'_>, &mut bool)>,
    ) -> Poll<()> {
        // Dropped after the lock: their `drop` may be anyone's code.
        let mut evicted = Vec::new();
        let mut wakers = Vec::new();
        let mut state = self.lock();
        if state.slots.values().any(Slot::must_wait) {
            if let Some((cx, waited)) = waiting {
                state.count_wait(waited);
                if !state.publishers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.publishers.push(cx.waker().clone());
                }
            }
            return Poll::Pending;
        }
        let Some(value) = value.take() else { return Poll::Ready(()) };
        for slot in state.slots.values_mut() {
            evicted.extend(slot.offer(value.clone()));
            wakers.extend(slot.waker.take());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }
}

impl<T> State<T> {
    fn count_wait(&mut self, waited: &mut bool) {
        if std::mem::replace(waited, true) {
            return;
        }
        for slot in self.slots.values_mut().filter(|slot| slot.must_wait()) {
            slot.stats.waits += 1;
        }
    }
}

impl<T> Slot<T> {
    fn new(policy: SubscriberPolicy<T>) -> Self {
        let stats = SubscriptionStats::default();
        Self { policy, queue: VecDeque::new(), waker: None, stats, is_broken: false }
    }

    fn must_wait(&self) -> bool {
        matches!(self.policy, SubscriberPolicy::Wait { .. }) && self.queue.len() >= self.policy.queue_max()
    }

    /// Queues `value`, making room as the policy says; returns what had to go.
    fn offer(&mut self, value: T) -> Option<T> {
        if self.is_broken {
            return Some(value);
        }
        self.stats.published += 1;
        let is_full = self.queue.len() >= self.policy.queue_max();
        let evicted = match (&self.policy, self.queue.back_mut()) {
            (SubscriberPolicy::Coalesce { merge, .. }, Some(last)) if is_full => {
                let merged = std::panic::catch_unwind(AssertUnwindSafe(|| merge(last, value)));
                self.stats.merged += 1;
                self.is_broken = merged.is_err();
                return None;
            }
            (SubscriberPolicy::DropOldest { .. } | SubscriberPolicy::Newest, _) if is_full => {
                self.stats.dropped += 1;
                self.queue.pop_front()
            }
            _ => None,
        };
        self.queue.push_back(value);
        self.stats.queued_peak = self.stats.queued_peak.max(self.queue.len());
        evicted
    }

    fn snapshot(&self) -> SubscriptionStats {
        SubscriptionStats { queued: self.queue.len(), ..self.stats }
    }
}
