//! Guards around a service.

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

/// Statuses: what a service answers, call by call, the last one for ever.
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
async fn attempts_are_made_until_one_is_an_answer() {
    let breaker = CircuitBreaker::new(CircuitBreakerOptions::default());
    let started = Instant::now();
    let (service, calls) = service(&[503, 0, 429, 404], &breaker);
    assert_eq!(service.oneshot(()).await.unwrap(), 404);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(started.elapsed() >= 5 * SECOND, "as long as it was asked to");
}

#[tokio::test(start_paused = true)]
async fn what_stays_bad_is_what_the_caller_sees_and_then_nothing_is_called() {
    let breaker =
        CircuitBreaker::new(CircuitBreakerOptions { failures_max: 4, ..CircuitBreakerOptions::default() });
    let (service, calls) = service(&[0, 503], &breaker);
    assert_eq!(service.clone().oneshot(()).await.unwrap(), 503);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(service.oneshot(()).await.unwrap_err().to_string().contains("suspended"));
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}
