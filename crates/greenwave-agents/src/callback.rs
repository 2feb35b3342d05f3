//! Calls the code of an agent and turns its panics into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::Error;

/// Calls a function, which the error names as `callback`.
///
/// Unwind safety is asserted: after a panic the function's state is only dropped.
pub(crate) fn call<T>(callback: &'static str, function: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Error::Panicked { callback, message: text.unwrap_or_else(|| "no message".to_owned()) }
    })
}

/// Awaits a future, which is not polled again after a panic.
pub(crate) async fn finish<T>(callback: &'static str, future: impl Future<Output = T>) -> Result<T, Error> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match call(callback, || future.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}
