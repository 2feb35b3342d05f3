//! How many bytes may be alive at once. Knows nothing of streams: who asks for room decides what to stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A limit on the bytes of batches that are alive; while it is reached, sources are not read.
///
/// Cloning shares it. [`share`](Self::share) makes a smaller one inside it: one budget for the process, one in it per stream.
/// Admission is by "is there any room left", as nobody knows the size of a chunk before it is read; a budget is therefore overdrawn by
/// one chunk per stream at most. Whoever keeps every batch of a stream alive while asking for more waits for itself: keep
/// [`Unit::bytes`](crate::Unit::bytes), which are not charged, and let the batches go.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Node>);

#[derive(Debug)]
struct Node {
    bytes_max: usize,
    parent: Option<Budget>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    peak: usize,
    waiting: Vec<Waker>,
}

impl Budget {
    /// A budget of its own. Zero is taken as one: a budget that admits nothing would stop every stream for good.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self::with_parent(bytes_max, None)
    }

    /// A budget inside this one: what is charged to it is charged to both.
    #[must_use]
    pub fn share(&self, bytes_max: usize) -> Self {
        Self::with_parent(bytes_max, Some(self.clone()))
    }

    /// The limit in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Bytes alive now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.lock().used
    }

    /// The most bytes that were ever alive at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.0.lock().peak
    }

    /// Ready when this budget and those around it have room; else the task is woken when bytes are given back.
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

    /// Takes `bytes`, room or not, until the charge is released.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        for node in self.chain() {
            let mut state = node.lock();
            state.used += bytes;
            state.peak = state.peak.max(state.used);
        }
        Charge { budget: self.clone(), bytes }
    }

    fn with_parent(bytes_max: usize, parent: Option<Self>) -> Self {
        Self(Arc::new(Node { bytes_max: bytes_max.max(1), parent, state: Mutex::default() }))
    }

    fn chain(&self) -> impl Iterator<Item = &Node> {
        std::iter::successors(Some(&*self.0), |node| node.parent.as_ref().map(|parent| &*parent.0))
    }
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of others runs under this lock, so that a poisoned one still holds true counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, bytes: usize) {
        let mut state = self.lock();
        assert!(state.used >= bytes, "a budget gives back what was taken from it");
        state.used -= bytes;
        if state.used >= self.bytes_max {
            return;
        }
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Bytes taken from a budget until they are [released](Self::release).
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// Gives the bytes back; once.
    pub(crate) fn release(&self) {
        for node in self.budget.chain() {
            node.release(self.bytes);
        }
    }
}
