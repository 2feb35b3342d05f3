//! Detects that a callback calls the fanout that is publishing to it.

use std::cell::RefCell;

thread_local! {
    /// Addresses of the fanouts that this thread is publishing to.
    static FANOUTS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Marks a fanout until it is dropped.
#[derive(Debug)]
pub(super) struct Publishing(());

impl Publishing {
    pub(super) fn begin<T>(fanout: &T) -> Self {
        // A thread that is ending has no list any more, and its calls are not marked.
        FANOUTS.try_with(|fanouts| fanouts.borrow_mut().push(address(fanout))).ok();
        Self(())
    }

    /// Returns whether this thread has marked the fanout.
    pub(super) fn is_active<T>(fanout: &T) -> bool {
        FANOUTS.try_with(|fanouts| fanouts.borrow().contains(&address(fanout))).unwrap_or(false)
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        FANOUTS.try_with(|fanouts| fanouts.borrow_mut().pop()).ok();
    }
}

fn address<T>(fanout: &T) -> usize {
    std::ptr::from_ref(fanout).addr()
}
