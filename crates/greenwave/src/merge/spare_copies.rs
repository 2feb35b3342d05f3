//! The working copies of the workers that help to test merges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{MERGE_COPY, new_workspace};
use crate::context::RunContext;
use crate::error::{Error, chain};
use crate::tree::Tree;
use crate::workspace::Workspace;

/// Working copies beside the one in which a merge is tested first. Each is used by one worker at a
/// time, and reset from one candidate to the next.
#[derive(Debug, Default)]
pub(super) struct SpareCopies {
    unused: Mutex<Vec<Spare>>,
    /// Number of copies that were made.
    made: AtomicUsize,
    /// Time that it took to make the last one.
    cost: Mutex<Duration>,
    /// Whether a copy could not be made, or not be prepared. Then merges do without any.
    is_out_of_order: AtomicBool,
}

#[derive(Debug)]
struct Spare {
    workspace: Workspace,
    /// Number of the candidate whose files it has.
    candidate: Option<u64>,
}

/// A copy that one worker uses. Dropping it makes it available to others.
#[derive(Debug)]
pub(super) struct BorrowedCopy {
    copies: Arc<SpareCopies>,
    spare: Option<Spare>,
}

impl SpareCopies {
    /// Returns whether workers can have copies.
    pub(super) fn is_usable(&self) -> bool {
        // Relaxed: no other data depends on it.
        !self.is_out_of_order.load(Ordering::Relaxed)
    }

    /// Estimates the time until a worker has a copy, from the time that it took to prepare one that
    /// exists.
    pub(super) fn cost(&self, preparation: Duration) -> Duration {
        if self.unused.lock().is_empty() { preparation.max(*self.cost.lock()) } else { preparation }
    }

    /// Records the time that it took to make a copy.
    pub(super) fn record_cost(&self, took: Duration) {
        *self.cost.lock() = took;
    }

    /// Returns a copy with the files of a candidate, a new one if all are in use. Returns `None` if
    /// it cannot be made, for example because the disk is full: a merge can do without.
    pub(super) async fn borrow(
        self: &Arc<Self>,
        ctx: &RunContext,
        candidate: u64,
        files: &Tree,
    ) -> Option<BorrowedCopy> {
        let mut copy = BorrowedCopy { copies: Arc::clone(self), spare: self.take(candidate) };
        if copy.spare.as_ref().is_some_and(|spare| spare.candidate == Some(candidate)) {
            return Some(copy);
        }
        match self.prepare(ctx, &mut copy, files).await {
            Ok(()) => {
                copy.spare.as_mut()?.candidate = Some(candidate);
                Some(copy)
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot make a further copy to test merges in");
                // Relaxed: see `is_usable`.
                self.is_out_of_order.store(true, Ordering::Relaxed);
                if let Some(spare) = copy.spare.take() {
                    spare.workspace.tear_down().await;
                    spare.workspace.remove();
                }
                None
            }
        }
    }

    async fn prepare(&self, ctx: &RunContext, copy: &mut BorrowedCopy, files: &Tree) -> Result<(), Error> {
        let (started, is_new) = (Instant::now(), copy.spare.is_none());
        let spare = match &mut copy.spare {
            Some(spare) => spare,
            none => {
                // Relaxed: only the number itself matters.
                let number = self.made.fetch_add(1, Ordering::Relaxed) + 2;
                let workspace = new_workspace(ctx, &format!("{MERGE_COPY}-{number}"))?;
                none.insert(Spare { workspace, candidate: None })
            }
        };
        spare.candidate = None;
        spare.workspace.prepare(files, &ctx.store).await?;
        if is_new {
            self.record_cost(started.elapsed());
        }
        Ok(())
    }

    /// Takes a copy that nobody uses, if possible one with the files of the candidate.
    fn take(&self, candidate: u64) -> Option<Spare> {
        let mut unused = self.unused.lock();
        let at = unused.iter().position(|spare| spare.candidate == Some(candidate));
        let at = at.or_else(|| unused.len().checked_sub(1))?;
        Some(unused.swap_remove(at))
    }

    /// Removes all copies. No worker uses one.
    pub(super) async fn remove(&self) {
        let unused = std::mem::take(&mut *self.unused.lock());
        for Spare { workspace, .. } in unused {
            workspace.tear_down().await;
            workspace.remove();
        }
    }
}

impl BorrowedCopy {
    /// Returns the copy.
    pub(super) fn workspace(&self) -> Option<&Workspace> {
        self.spare.as_ref().map(|spare| &spare.workspace)
    }
}

impl Drop for BorrowedCopy {
    fn drop(&mut self) {
        self.copies.unused.lock().extend(self.spare.take());
    }
}
