//! ObjectPool that are expensive to make, reused. Synchronous; knows nothing of connections.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::callback::call;

/// Keeps objects for reuse, up to a number. Asking for one never waits: if none is kept, one is made. Cloning shares it.
///
/// Worth it where making is what costs (zeroing a large buffer, building a parser); for small objects an allocator is as quick.
///
/// ```
/// let buffers = greenwave_pooling::ObjectPool::new(4, || vec![0_u8; 1 << 16], |buffer| buffer.len() == 1 << 16);
/// let buffer = buffers.get();
/// drop(buffer); // kept
/// assert_eq!((buffers.stats().created, buffers.stats().idle), (1, 1));
/// ```
pub struct ObjectPool<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    make: Box<dyn Fn() -> T + Send + Sync>,
    reset: Box<dyn Fn(&mut T) -> bool + Send + Sync>,
    /// Threads use different ones, so that they seldom meet.
    shards: Box<[Shard<T>]>,
}

/// Apart from its neighbours in memory.
#[repr(align(128))]
struct Shard<T> {
    idle_max: usize,
    state: Mutex<State<T>>,
}

const SHARDS_MAX: usize = 1024;

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Numbers the threads that use any of these, one after another, so that they spread evenly.
    static THREAD: usize = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
}

struct State<T> {
    kept: Vec<T>,
    stats: ObjectPoolStats,
}

/// Counters of [`ObjectPool`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectPoolStats {
    /// ObjectPool kept now.
    pub idle: usize,
    /// ObjectPool made.
    pub created: u64,
    /// Times that one was reused.
    pub reused: u64,
    /// ObjectPool dropped: unfit after a reset, or too many.
    pub dropped: u64,
}

impl<T> ObjectPool<T> {
    /// Keeps up to `idle_max` objects that `make` makes. `reset` makes a returned one fit for the next user, and says whether it is;
    /// one for which it panics is dropped.
    #[must_use]
    pub fn new(
        idle_max: usize,
        make: impl Fn() -> T + Send + Sync + 'static,
        reset: impl Fn(&mut T) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::sharded(1, idle_max, make, reset)
    }

    /// As [`new`](Self::new), with what is kept in so many parts, for objects that many threads take at once. A thread looks into its own
    /// part only, so that one may be made while another is kept elsewhere.
    #[must_use]
    pub fn sharded(
        shards: usize,
        idle_max: usize,
        make: impl Fn() -> T + Send + Sync + 'static,
        reset: impl Fn(&mut T) -> bool + Send + Sync + 'static,
    ) -> Self {
        let shards = shards.clamp(1, SHARDS_MAX);
        let shard = |at: usize| Shard {
            // All of them together keep as many as allowed.
            idle_max: idle_max / shards + usize::from(at < idle_max % shards),
            state: Mutex::new(State { kept: Vec::new(), stats: ObjectPoolStats::default() }),
        };
        let (make, reset) = (Box::new(make), Box::new(reset));
        Self { shared: Arc::new(Shared { make, reset, shards: (0..shards).map(shard).collect() }) }
    }

    /// An object, reused or new. It comes back when it is dropped.
    #[must_use]
    pub fn get(&self) -> PooledObject<T> {
        let kept = self.shared.take();
        let object = kept.unwrap_or_else(|| (self.shared.make)());
        PooledObject { shared: self.shared.clone(), object: Some(object) }
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> ObjectPoolStats {
        let mut sum = ObjectPoolStats::default();
        for shard in &self.shared.shards {
            let state = shard.state.lock();
            sum.idle += state.kept.len();
            sum.created += state.stats.created;
            sum.reused += state.stats.reused;
            sum.dropped += state.stats.dropped;
        }
        sum
    }
}

impl<T> Shared<T> {
    fn shard(&self) -> &Shard<T> {
        match &*self.shards {
            [only] => only,
            shards => &shards[THREAD.with(|thread| *thread) % shards.len()],
        }
    }

    fn take(&self) -> Option<T> {
        let mut state = self.shard().state.lock();
        let kept = state.kept.pop();
        state.stats.reused += u64::from(kept.is_some());
        state.stats.created += u64::from(kept.is_none());
        kept
    }

    fn give_back(&self, mut object: T) {
        // Unfit if that panics: a drop is no place to.
        let is_fit = call("reset", || (self.reset)(&mut object)).unwrap_or(false);
        let shard = self.shard();
        let mut state = shard.state.lock();
        if is_fit && state.kept.len() < shard.idle_max {
            state.kept.push(object);
        } else {
            state.stats.dropped += 1;
            drop(state); // The object is dropped after the lock.
        }
    }
}

impl<T> Clone for ObjectPool<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> fmt::Debug for ObjectPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// An object of [`ObjectPool`], given back on drop.
pub struct PooledObject<T> {
    shared: Arc<Shared<T>>,
    /// Gone only while the lease is being taken apart.
    object: Option<T>,
}

impl<T> PooledObject<T> {
    /// Keeps the object for good.
    #[must_use]
    pub fn into_inner(mut self) -> T {
        self.object.take().expect("the object is there until this is dropped")
    }
}

impl<T> Deref for PooledObject<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.object.as_ref().expect("the object is there until this is dropped")
    }
}

impl<T> DerefMut for PooledObject<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.object.as_mut().expect("the object is there until this is dropped")
    }
}

impl<T> Drop for PooledObject<T> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.shared.give_back(object);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for PooledObject<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledObject").field(&self.object).finish()
    }
}
