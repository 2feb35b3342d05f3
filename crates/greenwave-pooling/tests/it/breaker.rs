//! Calls that are suspended.

use std::time::Duration;

use greenwave_pooling::{Breaker, BreakerConfig, Error};
use tokio::time::sleep;

const COOLDOWN: Duration = Duration::from_secs(10);

fn opened() -> Breaker {
    let breaker = Breaker::new(BreakerConfig { failures_max: 3, cooldown: COOLDOWN });
    for _ in 0..3 {
        assert!(breaker.is_closed());
        breaker.admit().unwrap().failed();
    }
    assert!(!breaker.is_closed());
    breaker
}

#[tokio::test(start_paused = true)]
async fn it_opens_after_failures_in_a_row() {
    let breaker = Breaker::new(BreakerConfig { failures_max: 2, cooldown: COOLDOWN });
    for _ in 0..5 {
        breaker.admit().unwrap().failed();
        breaker.admit().unwrap().succeeded();
        drop(breaker.admit().unwrap());
    }
    assert!(breaker.is_closed(), "never two in a row");
    let error = opened().admit().unwrap_err();
    assert!(matches!(error, Error::Open { retry_after } if retry_after == COOLDOWN), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn one_call_decides_whether_it_closes() {
    let breaker = opened();
    sleep(COOLDOWN).await;
    let probe = breaker.admit().unwrap();
    assert!(breaker.admit().is_err(), "one at a time");
    probe.failed();
    assert!(breaker.admit().is_err());
    sleep(COOLDOWN).await;
    breaker.admit().unwrap().succeeded();
    assert!(breaker.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_abandoned_lets_the_next_one_try() {
    let breaker = opened();
    sleep(COOLDOWN).await;
    drop(breaker.admit().unwrap());
    let hung = breaker.admit().unwrap();
    sleep(COOLDOWN).await;
    breaker.admit().unwrap().succeeded();
    hung.failed();
    assert!(breaker.is_closed(), "a probe of before does not count any more");
}
