//! Calls that are suspended.

use std::time::Duration;

use greenwave_pooling::{CircuitBreaker, CircuitBreakerOptions, Endpoints, Error};
use tokio::time::sleep;

const COOLDOWN: Duration = Duration::from_secs(10);

fn opened() -> CircuitBreaker {
    let breaker = CircuitBreaker::new(CircuitBreakerOptions {
        failures_max: 3,
        cooldown: COOLDOWN,
        ..CircuitBreakerOptions::default()
    });
    for _ in 0..3 {
        assert!(breaker.is_closed());
        breaker.admit().unwrap().failed();
    }
    assert!(!breaker.is_closed());
    breaker
}

#[tokio::test(start_paused = true)]
async fn it_opens_after_failures_in_a_row() {
    let breaker = CircuitBreaker::new(CircuitBreakerOptions {
        failures_max: 2,
        failure_rate_max: None,
        cooldown: COOLDOWN,
        ..CircuitBreakerOptions::default()
    });
    for _ in 0..5 {
        breaker.admit().unwrap().failed();
        breaker.admit().unwrap().succeeded();
        drop(breaker.admit().unwrap());
    }
    assert!(breaker.is_closed(), "never two in a row");
    let error = opened().admit().unwrap_err();
    assert!(matches!(error, Error::CircuitOpen { retry_after } if retry_after == COOLDOWN), "{error:?}");
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

#[tokio::test(start_paused = true)]
async fn it_opens_when_too_many_of_the_last_calls_failed() {
    let options = CircuitBreakerOptions {
        failures_max: 100,
        failure_rate_max: Some(0.5),
        window: 10,
        cooldown: COOLDOWN,
        probes: 2,
    };
    let breaker = CircuitBreaker::new(options);
    for call in 0..9 {
        let trial = breaker.admit().unwrap();
        if call % 2 == 0 { trial.failed() } else { trial.succeeded() }
    }
    assert!(breaker.is_closed(), "too few calls to reckon a share of");
    breaker.admit().unwrap().succeeded();
    assert!(breaker.is_closed(), "a success opens nothing");
    breaker.admit().unwrap().failed();
    assert!(!breaker.is_closed());

    sleep(COOLDOWN).await;
    breaker.admit().unwrap().succeeded();
    assert!(!breaker.is_closed(), "two have to succeed");
    breaker.admit().unwrap().succeeded();
    assert!(breaker.is_closed());
    breaker.admit().unwrap().failed();
    assert!(breaker.is_closed(), "what was before is forgotten");
}

#[tokio::test(start_paused = true)]
async fn the_last_endpoint_is_never_ejected() {
    let options =
        CircuitBreakerOptions { failures_max: 1, cooldown: COOLDOWN, ..CircuitBreakerOptions::default() };
    let endpoints = Endpoints::new(3, options);
    for wanted in [1, 2, 0] {
        sleep(COOLDOWN / 10).await;
        let (at, trial) = endpoints.admit(1);
        assert_eq!(at, wanted, "the next one that is closed");
        trial.failed();
    }
    assert_eq!(endpoints.closed_count(), 0);
    let (at, trial) = endpoints.admit(2);
    assert_eq!(at, 1, "the one that was opened first");
    trial.succeeded();
    assert_eq!((endpoints.closed_count(), endpoints.admit(0).0), (1, 1));
}
