//! A pool of objects that are expensive to create.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::callback::call;

/// Stores objects for reuse, up to a limit. [`get`](Self::get) never waits: if no object is idle,
/// it creates one. Clones share the pool.
///
/// A pool pays off if creation is expensive, as for a large zeroed buffer or a parser. For small
/// objects an allocator is as fast.
///
/// ```
/// let buffers = greenwave_pooling::ObjectPool::new(4, || vec![0_u8; 1 << 16], |buffer| buffer.len() == 1 << 16);
/// let buffer = buffers.get();
/// drop(buffer); // returned to the pool
/// assert_eq!((buffers.stats().created, buffers.stats().idle), (1, 1));
/// ```
pub struct ObjectPool<T> {
    shared: Arc<ObjectPoolInner<T>>,
}

struct ObjectPoolInner<T> {
    make: Box<dyn Fn() -> T + Send + Sync>,
    reset: Box<dyn Fn(&mut T) -> bool + Send + Sync>,
    /// Threads use different shards, so that they rarely contend for a lock.
    shards: Box<[Shard<T>]>,
}

/// Aligned to avoid false sharing.
#[repr(align(128))]
struct Shard<T> {
    idle_max: usize,
    state: Mutex<ShardState<T>>,
}

const SHARDS_MAX: usize = 1024;

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// A number for each thread that uses an object pool. Consecutive numbers spread the threads
    /// evenly.
    static THREAD: usize = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
}

struct ShardState<T> {
    idle: Vec<T>,
    stats: ObjectPoolStats,
}

/// Counters of an [`ObjectPool`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectPoolStats {
    /// Objects that are idle now.
    pub idle: usize,
    /// Objects created.
    pub created: u64,
    /// Number of times an object was reused.
    pub reused: u64,
    /// Objects dropped because the reset failed or the pool was full.
    pub dropped: u64,
}

impl<T> ObjectPool<T> {
    /// Creates a pool that stores at most `idle_max` idle objects. `make` creates an object.
    /// `reset` prepares a returned object for its next user, and returns false to drop it. If
    /// `reset` panics, the object is dropped.
    #[must_use]
    pub fn new(
        idle_max: usize,
        make: impl Fn() -> T + Send + Sync + 'static,
        reset: impl Fn(&mut T) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::sharded(1, idle_max, make, reset)
    }

    /// Creates a pool like [`new`](Self::new), divided into shards for objects that many threads
    /// use at once. Each thread uses one shard, so it may create an object although another shard
    /// has an idle one.
    #[must_use]
    pub fn sharded(
        shards: usize,
        idle_max: usize,
        make: impl Fn() -> T + Send + Sync + 'static,
        reset: impl Fn(&mut T) -> bool + Send + Sync + 'static,
    ) -> Self {
        let shards = shards.clamp(1, SHARDS_MAX);
        let shard = |at: usize| Shard {
            // The limits of the shards add up to `idle_max`.
            idle_max: idle_max / shards + usize::from(at < idle_max % shards),
            state: Mutex::new(ShardState { idle: Vec::new(), stats: ObjectPoolStats::default() }),
        };
        let (make, reset) = (Box::new(make), Box::new(reset));
        Self { shared: Arc::new(ObjectPoolInner { make, reset, shards: (0..shards).map(shard).collect() }) }
    }

    /// Returns an object, reused or new. It returns to the pool on drop.
    #[must_use]
    pub fn get(&self) -> PooledObject<T> {
        let idle = self.shared.take();
        let object = idle.unwrap_or_else(|| (self.shared.make)());
        PooledObject { shared: self.shared.clone(), object: Some(object) }
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> ObjectPoolStats {
        let mut sum = ObjectPoolStats::default();
        for shard in &self.shared.shards {
            let state = shard.state.lock();
            sum.idle += state.idle.len();
            sum.created += state.stats.created;
            sum.reused += state.stats.reused;
            sum.dropped += state.stats.dropped;
        }
        sum
    }
}

impl<T> ObjectPoolInner<T> {
    fn shard(&self) -> &Shard<T> {
        match &*self.shards {
            [only] => only,
            shards => &shards[THREAD.with(|thread| *thread) % shards.len()],
        }
    }

    fn take(&self) -> Option<T> {
        let mut state = self.shard().state.lock();
        let idle = state.idle.pop();
        state.stats.reused += u64::from(idle.is_some());
        state.stats.created += u64::from(idle.is_none());
        idle
    }

    fn give_back(&self, mut object: T) {
        // This runs in a drop, where a panic could abort the process.
        let is_fit = call("reset", || (self.reset)(&mut object)).unwrap_or(false);
        let shard = self.shard();
        let mut state = shard.state.lock();
        if is_fit && state.idle.len() < shard.idle_max {
            state.idle.push(object);
        } else {
            state.stats.dropped += 1;
            drop(state); // The object is dropped without the lock.
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

/// An object from an [`ObjectPool`]. It returns to the pool on drop.
pub struct PooledObject<T> {
    shared: Arc<ObjectPoolInner<T>>,
    /// `None` only after `into_inner`, or during drop.
    object: Option<T>,
}

impl<T> PooledObject<T> {
    /// Removes the object from the pool.
    #[must_use]
    pub fn into_inner(mut self) -> T {
        self.object.take().expect("the object is present until `into_inner` or drop")
    }
}

impl<T> Deref for PooledObject<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.object.as_ref().expect("the object is present until `into_inner` or drop")
    }
}

impl<T> DerefMut for PooledObject<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.object.as_mut().expect("the object is present until `into_inner` or drop")
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
