//! Reuses the zstd contexts of closed logs. A simulation opens thousands of logs per second, and
//! would spend a quarter of its time on creating contexts.

use std::cell::RefCell;

use super::ContextPools;
use crate::options::Compression;

/// Maximum number of pools; those of more logs are dropped.
const POOLS_MAX: usize = 8;

thread_local! {
    /// Pools of closed logs of this thread.
    static IDLE: RefCell<Vec<(Compression, ContextPools)>> = const { RefCell::new(Vec::new()) };
}

/// Returns the pools of a closed log with the same compression, or new ones.
pub(super) fn take(compression: Compression) -> ContextPools {
    let taken = IDLE.try_with(|idle| {
        let mut idle = idle.borrow_mut();
        let found = idle.iter().position(|(of, _)| *of == compression)?;
        Some(idle.swap_remove(found).1)
    });
    taken.ok().flatten().unwrap_or_default()
}

/// Stores the pools of a log that is closed.
pub(super) fn store(compression: Compression, pools: ContextPools) {
    if compression == Compression::None {
        return;
    }
    // Fails while the thread ends, which drops the pools.
    let _ = IDLE.try_with(|idle| {
        let mut idle = idle.borrow_mut();
        if idle.len() < POOLS_MAX {
            idle.push((compression, pools));
        }
    });
}
