//! Retry, breaker and limiter around a `tower` service. Knows nothing of what the service does.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use crate::breaker::Breaker;
use crate::error::BoxError;
use crate::limiter::Limiter;
use greenwave_retry::{Retry, Retryability};

/// What a call that ended says of the next one.
type Judge<R> = Arc<dyn Fn(&Result<R, BoxError>) -> Retryability + Send + Sync>;
type Answer<R> = Pin<Box<dyn Future<Output = Result<R, BoxError>> + Send>>;

/// A layer of guards, from the outside in: permits, attempts, breaker. Each call of the service within is one attempt.
///
/// `judge` says of each answer whether it is one (`Permanent`: it goes to the caller, be it a success or not), or whether another attempt
/// may succeed; `After` is also what the limiter takes for a signal of overload.
#[derive(Clone)]
pub struct GuardLayer<R> {
    limiter: Limiter,
    retry: Retry,
    breaker: Breaker,
    judge: Judge<R>,
}

impl<R> GuardLayer<R> {
    /// Of these guards, which may be shared with others.
    pub fn new(
        limiter: Limiter,
        retry: Retry,
        breaker: Breaker,
        judge: impl Fn(&Result<R, BoxError>) -> Retryability + Send + Sync + 'static,
    ) -> Self {
        Self { limiter, retry, breaker, judge: Arc::new(judge) }
    }
}

impl<R> fmt::Debug for GuardLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer")
            .field("limiter", &self.limiter)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl<S, R> Layer<S> for GuardLayer<R> {
    type Service = Guarded<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { limiter, retry, breaker, judge } = self;
        let layer = Self {
            limiter: limiter.clone(),
            retry: retry.clone(),
            breaker: breaker.clone(),
            judge: judge.clone(),
        };
        Guarded { inner, layer }
    }
}

/// A service with guards before it: see [`GuardLayer`].
#[derive(Clone)]
pub struct Guarded<S, R> {
    inner: S,
    layer: GuardLayer<R>,
}

impl<S: fmt::Debug, R> fmt::Debug for Guarded<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, Q, R> Service<Q> for Guarded<S, R>
where
    S: Service<Q, Response = R> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    Q: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    type Response = R;
    type Error = BoxError;
    type Future = Answer<R>;

    /// Always: the permits are waited for in the call, in order, and each attempt waits for the service within.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Q) -> Answer<R> {
        let inner = self.inner.clone();
        let GuardLayer { limiter, retry, breaker, judge } = GuardLayer {
            limiter: self.layer.limiter.clone(),
            retry: self.layer.retry.clone(),
            breaker: self.layer.breaker.clone(),
            judge: self.layer.judge.clone(),
        };
        Box::pin(async move {
            let attempt = |_| {
                let (mut inner, request) = (inner.clone(), request.clone());
                let (limiter, breaker, judge) = (limiter.clone(), breaker.clone(), judge.clone());
                async move {
                    let permit = limiter.acquire().await;
                    let trial = match breaker.admit() {
                        Ok(trial) => trial,
                        Err(error) => return Err((Err(error.into()), Retryability::Permanent)),
                    };
                    let answer = match std::future::poll_fn(|cx| inner.poll_ready(cx)).await {
                        Ok(()) => inner.call(request).await.map_err(Into::into),
                        Err(error) => Err(error.into()),
                    };
                    let verdict = judge(&answer);
                    match verdict {
                        Retryability::Permanent => {
                            permit.succeeded();
                            trial.succeeded();
                        }
                        Retryability::Transient => {
                            drop(permit);
                            trial.failed();
                        }
                        Retryability::After(pause) => {
                            permit.overloaded(Some(pause));
                            trial.failed();
                        }
                    }
                    if verdict == Retryability::Permanent { Ok(answer) } else { Err((answer, verdict)) }
                }
            };
            let classify = |failed: &(Result<R, BoxError>, Retryability)| failed.1;
            match retry.run(classify, attempt).await {
                Ok(answer) => answer,
                Err(gave_up) => gave_up.error.0,
            }
        })
    }
}
