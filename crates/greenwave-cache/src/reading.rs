//! Detects that a reader calls the cache whose lock it holds.

use std::cell::RefCell;

thread_local! {
    /// Addresses of the shards that this thread has locked for readers.
    static SHARDS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Marks a shard until it is dropped.
#[derive(Debug)]
pub(crate) struct Reading(());

impl Reading {
    pub(crate) fn begin<T>(shard: &T) -> Self {
        // A thread that is ending has no list any more, and its calls are not marked.
        SHARDS.try_with(|shards| shards.borrow_mut().push(address(shard))).ok();
        Self(())
    }

    /// Returns whether this thread has marked the shard. In a loom model, all threads share one
    /// list, and none of them uses such readers.
    #[cold]
    pub(crate) fn is_active<T>(shard: &T) -> bool {
        !cfg!(greenwave_loom)
            && SHARDS.try_with(|shards| shards.borrow().contains(&address(shard))).unwrap_or(false)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        SHARDS.try_with(|shards| shards.borrow_mut().pop()).ok();
    }
}

fn address<T>(shard: &T) -> usize {
    std::ptr::from_ref(shard).addr()
}
