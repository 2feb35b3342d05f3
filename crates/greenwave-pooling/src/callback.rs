//! Calls user code and turns its panics into errors.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// A year: longer than any caller waits, and safe to add to an `Instant`.
pub(crate) const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// Returns the time after `delay`, which is cut to a year.
pub(crate) fn after(now: Instant, delay: Duration) -> Instant {
    now + delay.min(FAR)
}

/// Calls a function of the user, which the error names as `callback`.
pub(crate) fn call<T>(callback: &'static str, function: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|payload| panicked(callback, &*payload))
}

/// Awaits a future of the user, which the error names as `callback`.
pub(crate) async fn finish<F: Future>(callback: &'static str, future: F) -> Result<F::Output, Error> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(panicked(callback, &*payload))),
    })
    .await
}

/// Formats a value of the user for a log. A panic of its `Debug` is logged in its place: a log must
/// not decide whether a call succeeds.
pub(crate) struct Logged<'a>(pub(crate) &'a dyn fmt::Debug);

impl fmt::Debug for Logged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match call("Debug", || format!("{:?}", self.0)) {
            Ok(text) => f.write_str(&text),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

/// Returns the message of a panic.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

fn panicked(callback: &'static str, payload: &(dyn Any + Send)) -> Error {
    Error::Panicked { callback, message: message_of(payload) }
}
