//! Observes which tests run at the same time, and lets a test run without others.

use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The tests of a run whose processes are running.
#[derive(Debug, Default)]
pub(super) struct Company {
    lock: RwLock<()>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    running: usize,
    started: u64,
}

/// A process that runs beside others. Dropping it ends its part.
#[derive(Debug)]
pub(super) struct Companion<'a> {
    company: &'a Company,
    /// Number of processes that had started by then, including this one.
    number: u64,
    has_found_others: bool,
    _guard: RwLockReadGuard<'a, ()>,
}

impl Company {
    /// Waits until no process runs alone, and joins the others.
    pub(super) async fn join(&self) -> Companion<'_> {
        let guard = self.lock.read().await;
        let mut counts = self.counts.lock();
        counts.running += 1;
        counts.started += 1;
        Companion {
            company: self,
            number: counts.started,
            has_found_others: counts.running > 1,
            _guard: guard,
        }
    }

    /// Waits until no process runs, and keeps others from starting until the guard is dropped.
    pub(super) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write().await
    }
}

impl Companion<'_> {
    /// Returns whether another process has run at the same time, for a part of the time at least.
    pub(super) fn leave(self) -> bool {
        self.has_found_others || self.company.counts.lock().started != self.number
    }
}

impl Drop for Companion<'_> {
    fn drop(&mut self) {
        self.company.counts.lock().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tests_that_overlap_at_any_moment_are_company() {
        let company = Company::default();
        assert!(!company.join().await.leave());
        let (first, second) = (company.join().await, company.join().await);
        assert!(second.leave());
        assert!(first.leave());
        drop(company.alone().await);
        assert!(!company.join().await.leave());
    }
}
