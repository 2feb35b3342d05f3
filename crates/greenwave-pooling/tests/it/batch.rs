//! Tests of `Batcher`.

use std::sync::Arc;
use std::time::Duration;

use greenwave_pooling::{BatchOptions, Batcher, Error};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

type Batches = Arc<Mutex<Vec<Vec<usize>>>>;

/// Doubles numbers, taking a second per batch, and records the batches. A number weighs its value.
fn doubling(options: BatchOptions) -> (Batcher<usize, usize>, Batches) {
    let batches = Batches::default();
    let seen = batches.clone();
    let batcher = Batcher::with_weigher(
        options,
        |number| *number,
        move |numbers| {
            seen.lock().push(numbers.clone());
            async move {
                sleep(SECOND).await;
                numbers.into_iter().map(|number| number * 2).collect()
            }
        },
    );
    (batcher, batches)
}

/// Submits all numbers at once, in order, and waits for all responses.
async fn submit_all(batcher: &Batcher<usize, usize>, numbers: impl IntoIterator<Item = usize>) {
    let mut tasks = Vec::new();
    for number in numbers {
        let batcher = batcher.clone();
        tasks.push(tokio::spawn(async move { (number, batcher.submit(number).await) }));
    }
    for task in tasks {
        let (number, answer) = task.await.unwrap();
        assert_eq!(answer.unwrap(), number * 2, "each caller gets its own response");
    }
}

fn options() -> BatchOptions {
    BatchOptions { items_max: 4, in_flight_max: 1, delay_max: 10 * SECOND, ..BatchOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_lone_request_is_handled_at_once() {
    let (batcher, batches) = doubling(options());
    let started = Instant::now();
    assert_eq!(batcher.submit(1).await.unwrap(), 2);
    assert_eq!(started.elapsed(), SECOND);
    assert_eq!(*batches.lock(), [vec![1]]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_limited_by_count() {
    let (batcher, batches) = doubling(options());
    submit_all(&batcher, 0..10).await;
    assert_eq!(*batches.lock(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    let stats = batcher.stats();
    assert_eq!((stats.requests, stats.batches, stats.largest), (10, 3, 4));
}

#[tokio::test(start_paused = true)]
async fn batches_are_limited_by_bytes() {
    let (batcher, batches) = doubling(BatchOptions { bytes_max: 10, ..options() });
    submit_all(&batcher, [4, 5, 6, 20, 1, 2]).await;
    assert_eq!(*batches.lock(), [vec![4, 5], vec![6], vec![20], vec![1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_limited_by_time() {
    let options =
        BatchOptions { items_max: 100, in_flight_max: 2, delay_max: SECOND / 4, ..BatchOptions::default() };
    let (batcher, batches) = doubling(options);
    let first = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.submit(1).await }
    });
    sleep(SECOND / 10).await;
    let started = Instant::now();
    submit_all(&batcher, [2, 3]).await;
    assert_eq!(started.elapsed(), SECOND + SECOND / 4, "the batch waited for the maximum delay");
    assert_eq!(*batches.lock(), [vec![1], vec![2, 3]]);
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_is_left_out_of_its_batch() {
    let (batcher, batches) = doubling(options());
    let first = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.submit(1).await }
    });
    sleep(SECOND / 10).await;
    assert!(timeout(SECOND / 10, batcher.submit(2)).await.is_err());
    assert_eq!(batcher.submit(3).await.unwrap(), 6);
    first.await.unwrap().unwrap();
    assert_eq!(*batches.lock(), [vec![1], vec![3]]);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_all_requests_are_handled() {
    let (batcher, batches) = doubling(BatchOptions { queue_max: 2, ..options() });
    submit_all(&batcher, 0..50).await;
    assert!(batches.lock().iter().all(|batch| batch.len() <= 4));
}

#[tokio::test(start_paused = true)]
async fn a_faulty_handler_fails_only_its_batch() {
    let batcher = Batcher::new(BatchOptions::default(), async |numbers: Vec<usize>| {
        assert!(numbers[0] != 13, "the handler returned the wrong number of responses");
        vec![0; if numbers[0] == 7 { 3 } else { numbers.len() }]
    });
    assert!(matches!(batcher.submit(13).await, Err(Error::Panicked { .. })));
    assert!(matches!(batcher.submit(7).await, Err(Error::BatchResponseCount { expected: 1, returned: 3 })));
    assert!(matches!(batcher.submit(1).await, Ok(0)));
}

#[tokio::test(start_paused = true)]
async fn queued_requests_are_handled_after_the_last_clone_is_dropped() {
    let (batcher, batches) = doubling(options());
    let mut submits: Vec<_> = (0..6)
        .map(|number| {
            Box::pin({
                let batcher = batcher.clone();
                async move { batcher.submit(number).await }
            })
        })
        .collect();
    for submit in &mut submits {
        let _pending = timeout(Duration::ZERO, submit).await;
    }
    drop(batcher);
    for (number, submit) in submits.into_iter().enumerate() {
        assert_eq!(submit.await.unwrap(), number * 2);
    }
    assert_eq!(batches.lock().concat().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_is_halved_until_the_faulty_requests_are_found() {
    let handled = Arc::new(Mutex::new(Vec::new()));
    let seen = handled.clone();
    let options = BatchOptions { items_max: 64, in_flight_max: 1, ..BatchOptions::default() };
    let batcher = Batcher::<u32, Result<u32, String>>::bisecting(
        options,
        |_| 0,
        move |numbers: Vec<u32>| {
            seen.lock().push(numbers.len());
            async move {
                sleep(SECOND).await;
                match numbers.iter().find(|number| **number == 13 || **number == 50) {
                    Some(bad) => Err(format!("{bad} is bad")),
                    None => Ok(numbers),
                }
            }
        },
    );
    let first = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.submit(1000).await }
    });
    tokio::task::yield_now().await;
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(number).await.unwrap() })
        })
        .collect();
    for (number, task) in (0..).zip(tasks) {
        let expected = if [13, 50].contains(&number) { Err(format!("{number} is bad")) } else { Ok(number) };
        assert_eq!(task.await.unwrap(), expected);
    }
    first.await.unwrap().unwrap().unwrap();
    let handled = handled.lock();
    assert!(handled.len() <= 1 + 2 * (2 * 6 + 1), "{handled:?}");
}
