//! Guards around a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{BoxError, Breaker, BreakerConfig, GuardLayer, Limit, Limiter, Retry, Retryability};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Statuses: what a service answers, call by call, the last one for ever.
fn service(
    statuses: &'static [u16],
    breaker: &Breaker,
) -> (impl Service<(), Response = u16, Error = BoxError> + Clone, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let judge = |answer: &Result<u16, BoxError>| match answer {
        Ok(429) => Retryability::After(5 * SECOND),
        Ok(503) | Err(_) => Retryability::Transient,
        Ok(_) => Retryability::Permanent,
    };
    let limiter = Limiter::new(Limit::Fixed(2));
    let guards = GuardLayer::new(limiter, Retry::default(), breaker.clone(), judge);
    let inner = service_fn(move |()| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        let status = statuses[call.min(statuses.len() - 1)];
        async move { if status == 0 { Err::<u16, BoxError>("down".into()) } else { Ok(status) } }
    });
    (ServiceBuilder::new().layer(guards).service(inner), calls)
}

#[tokio::test(start_paused = true)]
async fn attempts_are_made_until_one_is_an_answer() {
    let breaker = Breaker::new(BreakerConfig::default());
    let started = Instant::now();
    let (service, calls) = service(&[503, 0, 429, 404], &breaker);
    assert_eq!(service.oneshot(()).await.unwrap(), 404);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(started.elapsed() >= 5 * SECOND, "as long as it was asked to");
}

#[tokio::test(start_paused = true)]
async fn what_stays_bad_is_what_the_caller_sees_and_then_nothing_is_called() {
    let breaker = Breaker::new(BreakerConfig { failures_max: 4, ..BreakerConfig::default() });
    let (service, calls) = service(&[0, 503], &breaker);
    assert_eq!(service.clone().oneshot(()).await.unwrap(), 503);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(service.oneshot(()).await.unwrap_err().to_string().contains("suspended"));
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}
