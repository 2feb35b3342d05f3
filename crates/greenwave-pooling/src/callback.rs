//! Calls code of others such that a panic in it is an error, and ends nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// Far enough that nobody waits for it, and near enough for arithmetic.
pub(crate) const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// A time from now, at most a year.
pub(crate) fn after(now: Instant, delay: Duration) -> Instant {
    now + delay.min(FAR)
}

/// Calls a function of the caller's, named for the error.
pub(crate) fn call<T>(callback: &'static str, function: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|payload| panicked(callback, &*payload))
}

/// Awaits a future of the caller's, named for the error.
pub(crate) async fn finish<F: Future>(callback: &'static str, future: F) -> Result<F::Output, Error> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(panicked(callback, &*payload))),
    })
    .await
}

fn panicked(callback: &'static str, payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    Error::Panicked { callback, message: text.unwrap_or_else(|| "no message".to_owned()) }
}
