//! The queue of writes of a tier, and the background task that performs them.
//!
//! The task runs in the runtime of the first write. A runtime that lives may be at a standstill:
//! nobody blocks on it. Then a caller that waits for the queue moves the task to its own runtime.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::Key;
use crate::catch_panic::catch_panic;

/// Time after which a runtime that has not run a task is considered to be at a standstill.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Number of writes after which the task lets others run.
const WRITES_PER_POLL: usize = 32;

/// A queued write.
#[derive(Debug, Clone)]
pub(crate) enum QueuedWrite {
    Put(Key, Bytes, Option<Duration>),
    Remove(Key),
}

type Performing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Performs the writes of a queue.
pub(crate) trait WriteTarget: fmt::Debug + Send + Sync + 'static {
    /// Performs a write. May be called again for a write whose future was dropped.
    fn perform(self: Arc<Self>, write: QueuedWrite) -> Performing;

    /// Takes note of the number of writes that the end of the runtime has prevented.
    fn lose(&self, writes: u64);
}

/// A queue of writes. Dropping it lets the background task perform those that are queued.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    shared: Arc<SharedQueue>,
}

/// Whether a write was queued.
#[derive(Debug)]
pub(crate) enum Push {
    Queued,
    Full,
    /// The caller is outside of a runtime, so nothing could perform the write later.
    NoRuntime,
}

struct SharedQueue {
    target: Arc<dyn WriteTarget>,
    queued_max: usize,
    state: Mutex<QueueState>,
    /// Number of writes that have been performed or lost.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<QueuedWrite>,
    /// The write that is being performed, unless the task is polling it.
    current: Option<CurrentWrite>,
    is_polling: bool,
    /// Number of writes ever queued.
    queued: u64,
    /// The runtime of the background task, if there is a task.
    runtime: Option<Handle>,
    /// Number of the background task. A task with an earlier number stops.
    task: u64,
    /// Wakes the background task, which waits for writes.
    waker: Option<Waker>,
    is_closed: bool,
}

struct CurrentWrite {
    write: QueuedWrite,
    performing: Performing,
}

impl WriteQueue {
    /// Creates a queue of at most `queued_max` writes; 0 is treated as 1.
    pub(crate) fn new(target: Arc<dyn WriteTarget>, queued_max: usize) -> Self {
        let (state, ended) = (Mutex::default(), watch::Sender::new(0));
        Self { shared: Arc::new(SharedQueue { target, queued_max: queued_max.max(1), state, ended }) }
    }

    /// Queues a write. Starts the background task if it is not running.
    pub(crate) fn try_push(&self, write: QueuedWrite) -> Push {
        let mut state = self.shared.state.lock();
        if state.runtime.is_none() && Handle::try_current().is_err() {
            return Push::NoRuntime;
        }
        if state.waiting.len() >= self.shared.queued_max {
            return Push::Full;
        }
        state.waiting.push_back(write);
        state.queued += 1;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        if state.runtime.is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            let writer = self.shared.new_task(&mut state, &runtime);
            drop(state);
            // A runtime that is shutting down drops the task, which locks the state.
            runtime.spawn(writer);
        }
        Push::Queued
    }

    /// Queues a write, and waits for room. Returns false outside of a runtime.
    pub(crate) async fn push(&self, write: QueuedWrite) -> bool {
        loop {
            // Read before the attempt, so that no change is missed.
            let ended = *self.shared.ended.borrow();
            match self.try_push(write.clone()) {
                Push::Queued => return true,
                Push::NoRuntime => return false,
                Push::Full => self.wait_for(ended + 1).await,
            }
        }
    }

    /// Waits until all writes that are queued now have been performed or lost.
    pub(crate) async fn wait_until_drained(&self) {
        let queued = self.shared.state.lock().queued;
        self.wait_for(queued).await;
    }

    /// Waits until a number of writes have ended. Moves the task here if its runtime is at a
    /// standstill.
    async fn wait_for(&self, number: u64) {
        let mut ended = self.shared.ended.subscribe();
        loop {
            let mut reached = pin!(ended.wait_for(|ended| *ended >= number));
            let Some((own, other)) = self.other_runtime() else {
                // An error is impossible, because `self` holds the sender.
                let _ = reached.await;
                return;
            };
            let mut driven = pin!(is_driven(&other));
            // `None` once the writes have ended.
            let is_driven = poll_fn(|context| {
                if reached.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                driven.as_mut().poll(context).map(Some)
            });
            match is_driven.await {
                None => return,
                Some(true) => {}
                Some(false) => self.shared.move_task(&own),
            }
        }
    }

    /// Returns the caller's runtime and that of the background task, if they differ.
    fn other_runtime(&self) -> Option<(Handle, Handle)> {
        let own = Handle::try_current().ok()?;
        let other = self.shared.state.lock().runtime.clone()?;
        (other.id() != own.id()).then_some((own, other))
    }
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// Returns whether a runtime runs a task within [`STANDSTILL`], at the earliest after that time.
async fn is_driven(runtime: &Handle) -> bool {
    let probe = runtime.spawn(async {});
    // Creating a timer panics in a runtime without timers.
    let Ok(probe) = catch_panic("timer", || tokio::time::timeout(STANDSTILL, probe)) else {
        return std::future::pending().await;
    };
    let is_driven = matches!(probe.await, Ok(Ok(())));
    if is_driven {
        tokio::time::sleep(STANDSTILL).await;
    }
    is_driven
}

impl SharedQueue {
    /// Registers a new background task in a runtime, in which the caller must spawn it.
    fn new_task(self: &Arc<Self>, state: &mut QueueState, runtime: &Handle) -> QueueTask {
        state.task += 1;
        state.runtime = Some(runtime.clone());
        QueueTask { queue: self.clone(), number: state.task }
    }

    /// Replaces the background task by one in another runtime. The write that it was performing is
    /// performed again.
    fn move_task(self: &Arc<Self>, runtime: &Handle) {
        let (task, performing) = {
            let mut state = self.state.lock();
            if state.is_polling || state.runtime.as_ref().is_none_or(|other| other.id() == runtime.id()) {
                return;
            }
            let current = state.current.take();
            let performing = current.map(|current| {
                state.waiting.push_front(current.write);
                current.performing
            });
            (self.new_task(&mut state, runtime), performing)
        };
        tracing::warn!("queued writes continue in another runtime, because theirs is at a standstill");
        // Dropped before the write begins again. A panic in it has no further effect.
        let _ = catch_panic("backend", || drop(performing));
        runtime.spawn(task);
    }

    /// Performs writes on behalf of the task with this number. Ready when the task must stop.
    fn poll(self: &Arc<Self>, number: u64, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..WRITES_PER_POLL {
            let mut current = {
                let mut state = self.state.lock();
                if state.task != number {
                    return Poll::Ready(());
                }
                let next = state.current.take().or_else(|| self.begin(state.waiting.pop_front()?));
                match next {
                    Some(current) => {
                        state.is_polling = true;
                        current
                    }
                    None if state.is_closed => return Poll::Ready(()),
                    None => {
                        state.waker = Some(context.waker().clone());
                        return Poll::Pending;
                    }
                }
            };
            // Without the lock, since a backend may use the cache itself.
            let polled = current.performing.as_mut().poll(context);
            let mut state = self.state.lock();
            state.is_polling = false;
            if polled.is_pending() {
                state.current = Some(current);
                return Poll::Pending;
            }
            self.ended.send_modify(|ended| *ended += 1);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn begin(&self, write: QueuedWrite) -> Option<CurrentWrite> {
        let performing = self.target.clone().perform(write.clone());
        Some(CurrentWrite { write, performing })
    }

    /// Loses all writes if the task with this number is the current one.
    fn end_task(&self, number: u64) {
        let mut state = self.state.lock();
        if state.task != number {
            return;
        }
        state.runtime = None;
        state.is_polling = false;
        state.waiting.clear();
        let current = state.current.take();
        let lost = state.queued - *self.ended.borrow();
        if lost > 0 {
            self.target.lose(lost);
        }
        self.ended.send_modify(|ended| *ended += lost);
        drop(state);
        // A panic in it has no further effect.
        let _ = catch_panic("backend", || drop(current));
    }
}

impl fmt::Debug for SharedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteQueue").field("queued_max", &self.queued_max).finish_non_exhaustive()
    }
}

/// The background task. Ends when the queue is dropped and empty. If its runtime ends first, all
/// writes are lost.
struct QueueTask {
    queue: Arc<SharedQueue>,
    number: u64,
}

impl Future for QueueTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.queue.poll(self.number, context)
    }
}

impl Drop for QueueTask {
    fn drop(&mut self) {
        self.queue.end_task(self.number);
    }
}
