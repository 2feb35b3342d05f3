//! Limits the bytes that batches keep alive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A limit on the total size of live batches. Sources are not read while it is exhausted.
///
/// Clones share the budget. [`share`](Self::share) creates a smaller budget inside it, for example
/// one per stream inside one for the process. A stream reads whenever any room is left, because the
/// size of a chunk is unknown before it is read, so each stream can exceed the budget by one chunk.
/// A task that holds all batches of a stream while requesting more from it waits forever: keep
/// [`Unit::bytes`](crate::Unit::bytes), which are not charged, and drop the batches.
#[derive(Debug, Clone)]
pub struct Budget(Arc<BudgetNode>);

#[derive(Debug)]
struct BudgetNode {
    bytes_max: usize,
    parent: Option<Budget>,
    state: Mutex<BudgetState>,
}

#[derive(Debug, Default)]
struct BudgetState {
    used: usize,
    peak: usize,
    waiting: Vec<Waker>,
}

impl Budget {
    /// Creates a budget of `bytes_max` bytes. Zero is treated as one, because an empty budget would
    /// block every stream.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self::with_parent(bytes_max, None)
    }

    /// Creates a budget of `bytes_max` bytes inside this one. Bytes are charged to both.
    #[must_use]
    pub fn share(&self, bytes_max: usize) -> Self {
        Self::with_parent(bytes_max, Some(self.clone()))
    }

    /// Returns the limit in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Returns the number of bytes charged now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.lock().used
    }

    /// Returns the highest number of bytes that were charged at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.0.lock().peak
    }

    /// Returns `Ready` if this budget and all enclosing budgets have room. Otherwise the task is
    /// woken when bytes are released.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        for node in self.chain() {
            let mut state = node.lock();
            if state.used >= node.bytes_max {
                if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.waiting.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Charges `bytes` bytes, even beyond the limit, until the charge is released.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        for node in self.chain() {
            let mut state = node.lock();
            state.used += bytes;
            state.peak = state.peak.max(state.used);
        }
        Charge { budget: self.clone(), bytes }
    }

    fn with_parent(bytes_max: usize, parent: Option<Self>) -> Self {
        Self(Arc::new(BudgetNode { bytes_max: bytes_max.max(1), parent, state: Mutex::default() }))
    }

    fn chain(&self) -> impl Iterator<Item = &BudgetNode> {
        std::iter::successors(Some(&*self.0), |node| node.parent.as_ref().map(|parent| &*parent.0))
    }
}

impl BudgetNode {
    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        // No foreign code runs under this lock, so the counts are valid even if it is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, bytes: usize) {
        let mut state = self.lock();
        assert!(state.used >= bytes, "released bytes were charged before");
        state.used -= bytes;
        if state.used >= self.bytes_max {
            return;
        }
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Bytes charged to a budget until they are [released](Self::release).
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// Releases the bytes. Must be called once.
    pub(crate) fn release(&self) {
        for node in self.budget.chain() {
            node.release(self.bytes);
        }
    }
}
