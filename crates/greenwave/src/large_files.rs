//! Lets one large file at a time into memory.
//!
//! A file is in memory as a whole while an agent prints it, while it is compressed for the store,
//! and while it is written into a working copy. Without turns, each feature of a run would hold
//! one. The memory is that of the process, so all its runs share the turn. An agent that stops in
//! the middle of a file loses its turn to the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use greenwave_storage::BlobId;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Size from which a file is large, in bytes. A model takes an hour to print a file of this size.
const LARGE_BYTES_MIN: usize = 1 << 20;

/// Time after which a turn ends if another one is waited for.
const TURN_TIME_MAX: Duration = Duration::from_secs(10);

static TURN: Semaphore = Semaphore::const_new(1);
/// The start of the turn that lasts, which identifies it.
static CURRENT: Mutex<Option<Arc<Instant>>> = Mutex::new(None);
/// Contents that are large, as far as this process has stored them.
static LARGE: Mutex<BTreeSet<BlobId>> = Mutex::new(BTreeSet::new());

/// The turn of a large file, until it is dropped. A task that holds one must not wait for another.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Instant>);

impl Turn {
    async fn acquire() -> Option<Self> {
        loop {
            match timeout(TURN_TIME_MAX, TURN.acquire()).await {
                Ok(permit) => {
                    permit.ok()?.forget();
                    let start = Arc::new(Instant::now());
                    *CURRENT.lock() = Some(Arc::clone(&start));
                    return Some(Self(start));
                }
                Err(_) => end_turn(|start| start.elapsed() >= TURN_TIME_MAX),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Another turn may have taken the place of this one.
        end_turn(|start| Arc::ptr_eq(start, &self.0));
    }
}

/// Ends the turn that lasts if it meets a condition.
fn end_turn(is_over: impl Fn(&Arc<Instant>) -> bool) {
    let mut current = CURRENT.lock();
    if current.as_ref().is_some_and(is_over) {
        *current = None;
        TURN.add_permits(1);
    }
}

/// Waits for the turn of a file of this size. A file that is not large needs none.
pub(crate) async fn turn_for(bytes: usize) -> Option<Turn> {
    if bytes < LARGE_BYTES_MIN { None } else { Turn::acquire().await }
}

/// Waits for the turn of a stored content. One that is not known to be large needs none.
pub(crate) async fn turn_for_blob(blob: &BlobId) -> Option<Turn> {
    let is_large = LARGE.lock().contains(blob);
    turn_for(if is_large { LARGE_BYTES_MIN } else { 0 }).await
}

/// Records the size of a content that was stored.
pub(crate) fn record(blob: BlobId, bytes: usize) {
    if bytes >= LARGE_BYTES_MIN {
        LARGE.lock().insert(blob);
    }
}

/// The file that an answer is printing. Its reader waits for the turn once the file is large.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrintedFile(Arc<Printed>);

#[derive(Debug, Default)]
struct Printed {
    /// Bytes since the end of the last file.
    bytes: AtomicUsize,
    turn: Mutex<Option<Turn>>,
}

impl PrintedFile {
    /// Passes an answer on. Waits before a chunk that makes the current file large.
    pub(crate) fn watch<E, S: Stream<Item = Result<Bytes, E>>>(
        &self,
        answer: S,
    ) -> impl Stream<Item = Result<Bytes, E>> + use<E, S> {
        let printed = self.clone();
        answer.then(move |chunk| {
            let printed = printed.clone();
            async move {
                if let Ok(chunk) = &chunk {
                    printed.grow(chunk.len()).await;
                }
                chunk
            }
        })
    }

    /// Ends the current file, which is in the store.
    pub(crate) fn end(&self) {
        // Relaxed: one task reads the answer.
        self.0.bytes.store(0, Ordering::Relaxed);
        self.0.turn.lock().take();
    }

    async fn grow(&self, bytes: usize) {
        let bytes = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let has_turn = self.0.turn.lock().is_some();
        if !has_turn && let Some(turn) = turn_for(bytes).await {
            *self.0.turn.lock() = Some(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, stream};

    use super::*;

    fn chunk(bytes: usize) -> Result<Bytes, ()> {
        Ok(Bytes::from(vec![0; bytes]))
    }

    // One test, because all tests of a process share the turn.
    #[tokio::test]
    async fn one_large_file_is_in_memory_at_a_time() {
        let (one, other) = (PrintedFile::default(), PrintedFile::default());
        let chunks = || stream::iter([chunk(10), chunk(LARGE_BYTES_MIN), chunk(10)]);
        let (mut first, mut second) = (pin!(one.watch(chunks())), Box::pin(other.watch(chunks())));
        assert_eq!(first.next().await, Some(chunk(10)));
        assert_eq!(first.next().await, Some(chunk(LARGE_BYTES_MIN)));
        assert_eq!(second.next().await, Some(chunk(10)), "a small part needs no turn");
        assert_eq!(second.next().now_or_never(), None, "the second file is large as well");
        let (small, large) = (BlobId::of(b"small"), BlobId::of(b"large"));
        record(small, 10);
        record(large, LARGE_BYTES_MIN);
        assert!(turn_for_blob(&small).await.is_none());
        assert!(turn_for_blob(&large).now_or_never().is_none(), "the first file has the turn");
        assert_eq!(first.next().await, Some(chunk(10)), "the file with the turn goes on");
        one.end();
        assert!(second.next().await.is_some());
        drop((other, second));
        assert!(turn_for_blob(&large).await.is_some(), "a dropped answer gives up its turn");

        tokio::time::pause();
        let stopped = turn_for_blob(&large).await;
        let started = Instant::now();
        let next = turn_for_blob(&large).await;
        assert!(started.elapsed() >= TURN_TIME_MAX, "the turn of a stopped agent ends");
        drop(stopped);
        assert!(turn_for_blob(&large).now_or_never().is_none(), "it ended once");
        drop(next);
        assert!(turn_for_blob(&large).now_or_never().is_some());
    }
}
