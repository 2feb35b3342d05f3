//! Tests of the `tower` layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{
    BoxError, CircuitBreaker, CircuitBreakerLayer, CircuitBreakerOptions, Classifier, Limit, Limiter,
    LimiterLayer, Retry, RetryLayer, Retryability,
};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Creates a service that responds with the given statuses in order and repeats the last one.
/// Status 0 means an error.
fn service(
    statuses: &'static [u16],
    breaker: &CircuitBreaker,
) -> (impl Service<(), Response = u16, Error = BoxError> + Clone, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let classifier = Classifier::new(|result: &Result<u16, BoxError>| match result {
        Ok(429) => Retryability::After(5 * SECOND),
        Ok(503) | Err(_) => Retryability::Transient,
        Ok(_) => Retryability::Permanent,
    });
    let limiter = Limiter::new(Limit::Fixed(2));
    let inner = service_fn(move |()| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        let status = statuses[call.min(statuses.len() - 1)];
        async move { if status == 0 { Err::<u16, BoxError>("down".into()) } else { Ok(status) } }
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Retry::default(), classifier.clone()))
        .layer(LimiterLayer::new(limiter, classifier.clone()))
        .layer(CircuitBreakerLayer::new(breaker.clone(), classifier))
        .service(inner);
    (service, calls)
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_are_retried() {
    let breaker = CircuitBreaker::new(CircuitBreakerOptions::default());
    let started = Instant::now();
    let (service, calls) = service(&[503, 0, 429, 404], &breaker);
    assert_eq!(service.oneshot(()).await.unwrap(), 404);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(started.elapsed() >= 5 * SECOND, "the retry waited for the requested delay");
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_returned_and_opens_the_circuit_breaker() {
    let breaker =
        CircuitBreaker::new(CircuitBreakerOptions { failures_max: 4, ..CircuitBreakerOptions::default() });
    let (service, calls) = service(&[0, 503], &breaker);
    assert_eq!(service.clone().oneshot(()).await.unwrap(), 503);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(service.oneshot(()).await.unwrap_err().to_string().contains("suspended"));
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}
