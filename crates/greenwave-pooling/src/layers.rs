//! Retries, concurrency limits and circuit breakers as layers around a `tower` service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use greenwave_retry::{Retry, Retryability};
use tower_layer::Layer;
use tower_service::Service;

use crate::callback;
use crate::circuit_breaker::CircuitBreaker;
use crate::error::{BoxError, Error};
use crate::limiter::Limiter;

type Classify<R> = dyn Fn(&Result<R, BoxError>) -> Retryability + Send + Sync;
type BoxFuture<R> = Pin<Box<dyn Future<Output = Result<R, BoxError>> + Send>>;

/// Decides from the result of a call whether another attempt may succeed. Clones share the
/// function.
///
/// The layers of this crate read the decision as follows:
///
/// | decision | [`RetryLayer`] | [`LimiterLayer`] | [`CircuitBreakerLayer`] |
/// | --- | --- | --- | --- |
/// | [`Permanent`](Retryability::Permanent) | returns the result | counts a success | counts a success |
/// | [`Transient`](Retryability::Transient) | tries again | counts neither way | counts a failure |
/// | [`After`](Retryability::After) | tries again, not before the delay | counts an overload and pauses | counts a failure |
///
/// The function is not called for [`Error::CircuitOpen`]. No call was made then, so the error is
/// returned without another attempt, and counts neither way.
///
/// ```
/// use greenwave_pooling::{
///     CircuitBreaker, CircuitBreakerLayer, CircuitBreakerOptions, Classifier, Limit, Limiter,
///     LimiterLayer, Retry, RetryLayer, Retryability,
/// };
/// use tower_layer::Layer;
///
/// let classifier = Classifier::new(|result: &Result<u16, _>| match result {
///     Ok(503) | Err(_) => Retryability::Transient,
///     Ok(_) => Retryability::Permanent,
/// });
/// let breaker = CircuitBreaker::new(CircuitBreakerOptions::default());
/// let limiter = Limiter::new(Limit::Fixed(8));
/// // From the inside out: each attempt waits for a permit, and then asks the circuit breaker.
/// let service = tower::service_fn(async |status: u16| Ok::<_, std::io::Error>(status));
/// let service = CircuitBreakerLayer::new(breaker, classifier.clone()).layer(service);
/// let service = LimiterLayer::new(limiter, classifier.clone()).layer(service);
/// let service = RetryLayer::new(Retry::default(), classifier).layer(service);
/// # fn is_service(_: impl tower_service::Service<u16, Response = u16>) {}
/// # is_service(service);
/// ```
pub struct Classifier<R> {
    classify: Arc<Classify<R>>,
}

impl<R> Classifier<R> {
    /// Wraps a function that classifies results. It should be quick. If it panics, the call fails
    /// with [`Error::Panicked`], is not repeated, and counts neither way.
    pub fn new(classify: impl Fn(&Result<R, BoxError>) -> Retryability + Send + Sync + 'static) -> Self {
        Self { classify: Arc::new(classify) }
    }

    /// Classifies a result. Returns `None` if a circuit breaker refused the call. If the function
    /// panics, also returns `None`, and the result becomes that error.
    fn classify(&self, result: Result<R, BoxError>) -> (Result<R, BoxError>, Option<Retryability>) {
        let error = result.as_ref().err().and_then(|error| error.downcast_ref::<Error>());
        if matches!(error, Some(Error::CircuitOpen { .. })) {
            return (result, None);
        }
        match callback::call("Classifier", || (self.classify)(&result)) {
            Ok(retryability) => (result, Some(retryability)),
            Err(error) => (Err(error.into()), None),
        }
    }
}

impl<R> Clone for Classifier<R> {
    fn clone(&self) -> Self {
        Self { classify: self.classify.clone() }
    }
}

impl<R> fmt::Debug for Classifier<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classifier").finish_non_exhaustive()
    }
}

/// A service inside one of the layers [`RetryLayer`], [`LimiterLayer`] and [`CircuitBreakerLayer`].
#[derive(Debug, Clone)]
pub struct Layered<S, L> {
    inner: S,
    layer: L,
}

/// Wraps services so that failed calls are tried again under a [`Retry`] policy.
///
/// Each attempt clones the inner service and the request. Should be outside of [`LimiterLayer`] and
/// [`CircuitBreakerLayer`], so that these see each attempt.
#[derive(Debug)]
pub struct RetryLayer<R> {
    retry: Retry,
    classifier: Classifier<R>,
}

impl<R> RetryLayer<R> {
    /// Creates a layer from a policy. All services of the layer share the policy's budget.
    pub fn new(retry: Retry, classifier: Classifier<R>) -> Self {
        Self { retry, classifier }
    }
}

impl<S, R> Layer<S> for RetryLayer<R> {
    type Service = Layered<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Layered { inner, layer: self.clone() }
    }
}

impl<S, Q, R> Service<Q> for Layered<S, RetryLayer<R>>
where
    S: Service<Q, Response = R> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    Q: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    type Response = R;
    type Error = BoxError;
    type Future = BoxFuture<R>;

    /// Is ready at any time: each attempt waits for the inner service.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Q) -> BoxFuture<R> {
        let Self { inner, layer: RetryLayer { retry, classifier } } = self.clone();
        Box::pin(async move {
            let attempt = |_| {
                let (inner, request, classifier) = (inner.clone(), request.clone(), classifier.clone());
                async move {
                    let (result, classified) = classifier.classify(call_when_ready(inner, request).await);
                    match classified {
                        None | Some(Retryability::Permanent) => Ok(result),
                        Some(retryability) => Err((result, retryability)),
                    }
                }
            };
            let retryability = |failed: &(Result<R, BoxError>, Retryability)| failed.1;
            match retry.run(retryability, attempt).await {
                Ok(result) => result,
                Err(error) => error.error.0,
            }
        })
    }
}

/// Wraps services so that each call waits for a permit of a [`Limiter`], and reports to it how the
/// call ended.
#[derive(Debug)]
pub struct LimiterLayer<R> {
    limiter: Limiter,
    classifier: Classifier<R>,
}

impl<R> LimiterLayer<R> {
    /// Creates a layer from a limiter, whose clones may be used elsewhere too.
    pub fn new(limiter: Limiter, classifier: Classifier<R>) -> Self {
        Self { limiter, classifier }
    }
}

impl<S, R> Layer<S> for LimiterLayer<R> {
    type Service = Layered<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Layered { inner, layer: self.clone() }
    }
}

impl<S, Q, R> Service<Q> for Layered<S, LimiterLayer<R>>
where
    S: Service<Q, Response = R> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    Q: Send + 'static,
    R: Send + 'static,
{
    type Response = R;
    type Error = BoxError;
    type Future = BoxFuture<R>;

    /// Is ready at any time: the call waits for the permit, in the order of the calls.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Q) -> BoxFuture<R> {
        let Self { inner, layer: LimiterLayer { limiter, classifier } } = self.clone();
        Box::pin(async move {
            let permit = limiter.acquire().await;
            let (result, classified) = classifier.classify(call_when_ready(inner, request).await);
            match classified {
                Some(Retryability::Permanent) => permit.succeeded(),
                Some(Retryability::After(pause)) => permit.overloaded(Some(pause)),
                Some(Retryability::Transient) | None => drop(permit),
            }
            result
        })
    }
}

/// Wraps services so that calls fail with [`Error::CircuitOpen`] while a [`CircuitBreaker`] is
/// open, and reports to it how the other calls ended.
#[derive(Debug)]
pub struct CircuitBreakerLayer<R> {
    breaker: CircuitBreaker,
    classifier: Classifier<R>,
}

impl<R> CircuitBreakerLayer<R> {
    /// Creates a layer from a circuit breaker, whose clones may be used elsewhere too.
    pub fn new(breaker: CircuitBreaker, classifier: Classifier<R>) -> Self {
        Self { breaker, classifier }
    }
}

impl<S, R> Layer<S> for CircuitBreakerLayer<R> {
    type Service = Layered<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Layered { inner, layer: self.clone() }
    }
}

impl<S, Q, R> Service<Q> for Layered<S, CircuitBreakerLayer<R>>
where
    S: Service<Q, Response = R> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    Q: Send + 'static,
    R: Send + 'static,
{
    type Response = R;
    type Error = BoxError;
    type Future = BoxFuture<R>;

    /// Is ready at any time: the call asks the circuit breaker and then waits for the inner
    /// service.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Q) -> BoxFuture<R> {
        let Self { inner, layer: CircuitBreakerLayer { breaker, classifier } } = self.clone();
        Box::pin(async move {
            let permit = breaker.admit()?;
            let (result, classified) = classifier.classify(call_when_ready(inner, request).await);
            match classified {
                Some(Retryability::Permanent) => permit.succeeded(),
                Some(Retryability::Transient | Retryability::After(_)) => permit.failed(),
                None => drop(permit),
            }
            result
        })
    }
}

// Derived implementations would ask for `R: Clone`.
impl<R> Clone for RetryLayer<R> {
    fn clone(&self) -> Self {
        Self { retry: self.retry.clone(), classifier: self.classifier.clone() }
    }
}

impl<R> Clone for LimiterLayer<R> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), classifier: self.classifier.clone() }
    }
}

impl<R> Clone for CircuitBreakerLayer<R> {
    fn clone(&self) -> Self {
        Self { breaker: self.breaker.clone(), classifier: self.classifier.clone() }
    }
}

async fn call_when_ready<S, Q>(mut service: S, request: Q) -> Result<S::Response, BoxError>
where
    S: Service<Q>,
    S::Error: Into<BoxError>,
{
    let call = async {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::<BoxError>::into)?;
        service.call(request).await.map_err(Into::into)
    };
    callback::finish("Service::call", call).await?
}
