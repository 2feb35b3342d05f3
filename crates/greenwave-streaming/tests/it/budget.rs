//! Tests back-pressure by byte budgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use greenwave_streaming::{Budget, Error, Lines, Pull};

/// Returns ten-byte lines and counts the lines read.
fn ten_byte_lines(read: Arc<AtomicUsize>) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::iter(0..100).map(move |i| {
        read.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from(format!("{i:09}\n")))
    })
}

#[test]
fn a_full_budget_stops_the_source_until_a_batch_is_dropped() {
    let read = Arc::new(AtomicUsize::new(0));
    let budget = Budget::new(30);
    let mut pull = Pull::new(ten_byte_lines(read.clone()), Lines::default()).with_budget(budget.clone());
    let mut held: Vec<_> = (0..3).map(|_| pull.next().now_or_never().unwrap().unwrap().unwrap()).collect();
    assert_eq!((budget.used(), read.load(Ordering::Relaxed)), (30, 3));
    assert!(pull.next().now_or_never().is_none(), "the budget is full");
    assert!(pull.next().now_or_never().is_none());
    assert_eq!((read.load(Ordering::Relaxed), pull.stats().waits), (3, 1));

    let unit = held.remove(0).into_units().next().unwrap();
    assert!(pull.next().now_or_never().is_none(), "a unit keeps its batch");
    let bytes = unit.get().bytes();
    drop(unit);
    assert!(pull.next().now_or_never().is_some(), "bytes are the caller's own");
    assert_eq!(bytes, "000000000");
    drop(held);
    assert_eq!((budget.used(), budget.peak()), (0, 30));
}

#[tokio::test]
async fn streams_share_a_budget_and_all_finish() {
    let global = Budget::new(25);
    let streams = (0..8).map(|_| {
        let source = ten_byte_lines(Arc::default());
        let mut pull = Pull::new(source, Lines::default()).with_budget(global.share(20));
        async move {
            let mut units = 0;
            while let Some(batch) = pull.next().await {
                let batch = batch.unwrap();
                tokio::task::yield_now().await;
                units += batch.len();
            }
            units
        }
    });
    let units = futures_util::future::join_all(streams).await;
    assert_eq!(units, [100; 8]);
    assert_eq!(global.used(), 0);
    assert!(global.peak() <= 25 + 10, "overdrawn by one chunk at most: {}", global.peak());
}
