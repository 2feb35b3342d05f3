//! Tests of `CircuitBreaker` and `Endpoints`.

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
async fn it_opens_after_consecutive_failures() {
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
    assert!(breaker.is_closed(), "consecutive connects are spaced out");
    let error = opened().admit().unwrap_err();
    assert!(matches!(error, Error::CircuitOpen { retry_after } if retry_after == COOLDOWN), "{error:?}");
    assert_eq!(error.to_string(), "circuit breaker open: calls are suspended for another 10s");
}

#[tokio::test(start_paused = true)]
async fn one_probe_decides_whether_it_closes() {
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
async fn a_dropped_probe_permits_the_next_probe() {
    let breaker = opened();
    sleep(COOLDOWN).await;
    drop(breaker.admit().unwrap());
    let hung = breaker.admit().unwrap();
    sleep(COOLDOWN).await;
    breaker.admit().unwrap().succeeded();
    hung.failed();
    assert!(breaker.is_closed(), "the result of an outdated probe does not count");
}

#[tokio::test(start_paused = true)]
async fn probes_that_take_longer_than_the_cooldown_close_it() {
    let breaker = opened();
    sleep(COOLDOWN).await;
    let slow = breaker.admit().unwrap();
    sleep(COOLDOWN).await;
    let next = breaker.admit().unwrap();
    slow.succeeded();
    assert!(breaker.is_closed(), "it was sent after the failures");
    next.succeeded();

    let breaker = opened();
    sleep(COOLDOWN).await;
    let slow = breaker.admit().unwrap();
    sleep(COOLDOWN).await;
    breaker.admit().unwrap().failed();
    slow.succeeded();
    assert!(!breaker.is_closed(), "it was sent before the last failure");

    let breaker = opened();
    sleep(COOLDOWN).await;
    let slow = breaker.admit().unwrap();
    sleep(COOLDOWN).await;
    drop(breaker.admit().unwrap());
    slow.succeeded();
    assert!(breaker.is_closed(), "a probe without a result changes nothing");
}

#[tokio::test(start_paused = true)]
async fn it_opens_at_a_high_failure_rate() {
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
    assert!(breaker.is_closed(), "too few calls for a failure rate");
    breaker.admit().unwrap().succeeded();
    assert!(breaker.is_closed(), "a success does not open the breaker");
    breaker.admit().unwrap().failed();
    assert!(!breaker.is_closed());

    sleep(COOLDOWN).await;
    breaker.admit().unwrap().succeeded();
    assert!(!breaker.is_closed(), "two probes must succeed");
    breaker.admit().unwrap().succeeded();
    assert!(breaker.is_closed());
    breaker.admit().unwrap().failed();
    assert!(breaker.is_closed(), "earlier failures do not count");
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_is_always_available() {
    let options =
        CircuitBreakerOptions { failures_max: 1, cooldown: COOLDOWN, ..CircuitBreakerOptions::default() };
    let endpoints = Endpoints::new(3, options);
    for wanted in [1, 2, 0] {
        sleep(COOLDOWN / 10).await;
        let (at, trial) = endpoints.admit(1);
        assert_eq!(at, wanted, "the next endpoint with a closed breaker");
        trial.failed();
    }
    assert_eq!(endpoints.closed_count(), 0);
    let (at, trial) = endpoints.admit(2);
    assert_eq!(at, 1, "the endpoint whose breaker opened first");
    trial.succeeded();
    assert_eq!((endpoints.closed_count(), endpoints.admit(0).0), (1, 1));
}
