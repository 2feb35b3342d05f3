//! Tests of `Hedge`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{Hedge, RetryBudget};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Runs attempts of the given durations in seconds; durations above 100 fail. Returns the result,
/// the elapsed time and the number of attempts.
async fn run(hedge: &Hedge, seconds: [u32; 2]) -> (Result<usize, usize>, Duration, usize) {
    let attempts = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let outcome = hedge
        .run(|attempt| {
            attempts.fetch_add(1, Ordering::SeqCst);
            async move {
                let seconds = seconds[attempt - 1];
                sleep(SECOND * (seconds % 100)).await;
                if seconds > 100 { Err(attempt) } else { Ok(attempt) }
            }
        })
        .await;
    (outcome, started.elapsed(), attempts.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn the_faster_attempt_wins() {
    let hedge = Hedge::new(2 * SECOND, RetryBudget::new(1.0, 10));
    assert_eq!(run(&hedge, [1, 1]).await, (Ok(1), SECOND, 1), "the first attempt was fast");
    assert_eq!(run(&hedge, [101, 1]).await, (Err(1), SECOND, 1), "a hedge does not retry");
    assert_eq!(run(&hedge, [9, 1]).await, (Ok(2), 3 * SECOND, 2));
    assert_eq!(run(&hedge, [4, 9]).await, (Ok(1), 4 * SECOND, 2));
    assert_eq!(run(&hedge, [4, 101]).await, (Ok(1), 4 * SECOND, 2), "the other attempt continues");
    assert_eq!(run(&hedge, [103, 5]).await, (Ok(2), 7 * SECOND, 2));
    assert_eq!(run(&hedge, [103, 105]).await, (Err(2), 7 * SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_takes_from_the_retry_budget() {
    let hedge = Hedge::new(SECOND, RetryBudget::new(0.0, 1));
    assert_eq!(run(&hedge, [9, 1]).await.2, 2);
    assert_eq!(run(&hedge, [9, 1]).await, (Ok(1), 9 * SECOND, 1), "the budget is spent");
}
