//! Tests every option at its extremes. None panics, hangs or overflows.

use std::time::Duration;

use greenwave_retry::{Retry, RetryBudget, Retryability, StopReason};

const DURATIONS: [Duration; 4] =
    [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1), Duration::MAX];

#[test]
fn options_accept_extreme_values() {
    let deadlines = DURATIONS.map(Some).into_iter().chain([None]);
    for deadline in deadlines {
        for (delay_min, delay_max) in pairs() {
            for asked_max in DURATIONS {
                for attempts_max in [0, 1, 2, usize::MAX] {
                    for seed in [None, Some(0), Some(u64::MAX)] {
                        let retry = Retry {
                            attempts_max,
                            delay_min,
                            delay_max,
                            asked_max,
                            deadline,
                            seed,
                            budget: None,
                        };
                        check(&retry);
                    }
                }
            }
        }
    }
}

fn pairs() -> impl Iterator<Item = (Duration, Duration)> {
    DURATIONS.into_iter().flat_map(|min| DURATIONS.map(|max| (min, max)))
}

/// Records a hundred failures and checks that delays and attempts stay within the limits.
fn check(retry: &Retry) {
    for requested in DURATIONS {
        for elapsed in [Duration::ZERO, Duration::MAX] {
            let mut attempts = retry.attempts();
            let next = |_: usize| attempts.next_delay(Retryability::After(requested), elapsed);
            let delays: Vec<_> = (0..100).map(next).collect();
            let limit = retry.delay_max.max(requested.min(retry.asked_max));
            for (number, delay) in delays.iter().enumerate() {
                match delay {
                    Ok(delay) => assert!(*delay <= limit && number + 1 < retry.attempts_max, "{retry:?}"),
                    Err(StopReason::Attempts) => assert!(number + 1 >= retry.attempts_max, "{retry:?}"),
                    Err(reason) => {
                        assert_eq!((*reason, retry.deadline.is_some()), (StopReason::Deadline, true));
                    }
                }
            }
        }
    }
    assert_eq!(retry.delays().take(3).count(), retry.attempts_max.saturating_sub(1).min(3));
}

#[test]
fn budgets_accept_any_fraction() {
    for (fraction, tokens_max, allowed) in [
        (f64::NAN, 1, 1),
        (-1.0, 1, 1),
        (0.0, 0, 0),
        (f64::INFINITY, 0, 0),
        (f64::INFINITY, u32::MAX, 100),
        (f64::MAX, 1, 50),
        (1.0, u32::MAX, 100),
    ] {
        let budget = RetryBudget::new(fraction, tokens_max);
        let mut count = 0;
        for call in 0..100 {
            if call % 2 == 0 {
                budget.deposit();
            }
            count += usize::from(budget.withdraw());
        }
        assert_eq!(count, allowed, "{fraction} {tokens_max}");
    }
}
