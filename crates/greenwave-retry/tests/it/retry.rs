//! Tests delays, stop reasons, the budget and `Retry-After`.

use std::time::Duration;

use greenwave_retry::{Retry, RetryBudget, Retryability, StopReason};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn plain() -> Retry {
    Retry { attempts_max: 5, delay_min: SECOND, delay_max: 4 * SECOND, ..Retry::default() }
}

async fn fail(retry: &Retry, retryability: Retryability) -> (usize, StopReason) {
    let outcome = retry.run(|_: &&str| retryability, async |_| Err::<(), _>("no")).await;
    let error = outcome.unwrap_err();
    (error.attempts, error.reason)
}

#[tokio::test(start_paused = true)]
async fn stop_reasons_are_reported() {
    assert_eq!(fail(&plain(), Retryability::Transient).await, (5, StopReason::Attempts));
    assert_eq!(fail(&plain(), Retryability::Permanent).await, (1, StopReason::Permanent));
    let hurried = Retry { deadline: Some(3 * SECOND), ..plain() };
    assert_eq!(fail(&hurried, Retryability::After(2 * SECOND)).await, (2, StopReason::Deadline));
    let none = Retry { attempts_max: 0, ..plain() };
    assert_eq!(fail(&none, Retryability::Transient).await, (1, StopReason::Attempts));
}

#[test]
fn delays_grow_and_have_full_jitter() {
    let bounds = [1, 2, 4, 4].map(Duration::from_secs);
    let mut sums = [Duration::ZERO; 4];
    for seed in 0..1000 {
        let delays: Vec<_> = Retry { seed: Some(seed), ..plain() }.delays().collect();
        assert_eq!(delays.len(), 4);
        for (i, delay) in delays.iter().enumerate() {
            assert!(*delay <= bounds[i]);
            sums[i] += *delay;
        }
    }
    for (sum, bound) in sums.iter().zip(bounds) {
        let mean = sum.as_secs_f64() / 1000.0 / bound.as_secs_f64();
        assert!(
            (0.45..0.55).contains(&mean),
            "uniform between zero and the bound, so half of it on average: {mean}"
        );
    }
    let one: Vec<_> = Retry { seed: Some(7), ..plain() }.delays().collect();
    assert_eq!(
        one,
        Retry { seed: Some(7), ..plain() }.delays().collect::<Vec<_>>(),
        "a seed determines them"
    );
}

#[tokio::test(start_paused = true)]
async fn a_requested_delay_is_respected() {
    let started = Instant::now();
    let retry = Retry { attempts_max: 2, ..plain() };
    fail(&retry, Retryability::After(60 * SECOND)).await;
    assert_eq!(started.elapsed(), 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_budget_limits_retries_to_a_fraction_of_calls() {
    let budget = RetryBudget::new(0.2, 3);
    let retry = Retry { budget: Some(budget), ..plain() };
    assert_eq!(fail(&retry, Retryability::Transient).await, (4, StopReason::Budget), "the burst");
    let mut attempts = 0;
    for _ in 0..100 {
        attempts += fail(&retry, Retryability::Transient).await.0;
    }
    assert!((115..=121).contains(&attempts), "{attempts}");
}

/// Checked at compile time only.
#[tokio::test(start_paused = true)]
async fn a_run_can_be_spawned() {
    let spawned = tokio::spawn(async {
        let mut calls = 0;
        let retry = plain();
        let run = retry.run(
            |_: &String| Retryability::Transient,
            |attempt| {
                calls += 1;
                async move { if attempt < 3 { Err("no".to_owned()) } else { Ok(attempt) } }
            },
        );
        (run.await, calls)
    });
    assert_eq!(spawned.await.unwrap(), (Ok(3), 3));
}

#[test]
fn retry_after_accepts_seconds_and_dates() {
    let now = std::time::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let read = |value| Retryability::retry_after(value, now);
    assert_eq!(read("120"), Retryability::After(120 * SECOND));
    assert_eq!(read(" 0 "), Retryability::After(Duration::ZERO));
    assert_eq!(read("Sun, 06 Nov 1994 08:50:07 GMT"), Retryability::After(30 * SECOND), "IMF-fixdate");
    assert_eq!(read("Sunday, 06-Nov-94 08:50:07 GMT"), Retryability::After(30 * SECOND), "RFC 850");
    assert_eq!(read("Sun Nov  6 08:50:07 1994"), Retryability::After(30 * SECOND), "asctime");
    assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Retryability::After(Duration::ZERO), "a past date");
    for invalid in ["", "soon", "-1", "1.5", "9 9"] {
        assert_eq!(read(invalid), Retryability::Transient, "{invalid}");
    }
    assert!(matches!(read("99999999999999999999999999"), Retryability::After(_)));
}

#[test]
fn delays_differ_without_a_seed() {
    let delays = || plain().delays().collect::<Vec<_>>();
    let all: std::collections::HashSet<_> = (0..100).map(|_| delays()).collect();
    assert_eq!(all.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn requested_delays_are_limited() {
    let retry = Retry { attempts_max: 2, ..plain() };
    for requested in
        [Retryability::retry_after("3000000000", std::time::UNIX_EPOCH), Retryability::After(Duration::MAX)]
    {
        let started = Instant::now();
        assert_eq!(fail(&retry, requested).await, (2, StopReason::Attempts));
        assert_eq!(started.elapsed(), retry.asked_max);
    }
}

#[test]
fn refused_retries_take_no_tokens() {
    let budget = RetryBudget::new(0.0, 1);
    let retry = Retry { budget: Some(budget), deadline: Some(SECOND), ..plain() };
    let late = retry.attempts().next_delay(Retryability::Transient, 2 * SECOND);
    assert_eq!(late, Err(StopReason::Deadline));
    assert_eq!(
        retry.attempts().next_delay(Retryability::Permanent, Duration::ZERO),
        Err(StopReason::Permanent)
    );
    let quick = Retry { delay_min: Duration::ZERO, ..retry };
    assert_eq!(quick.attempts().next_delay(Retryability::Transient, Duration::ZERO), Ok(Duration::ZERO));
    assert_eq!(quick.attempts().next_delay(Retryability::Transient, Duration::ZERO), Err(StopReason::Budget));
}
