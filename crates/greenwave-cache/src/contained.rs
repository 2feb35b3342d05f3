//! Calls callbacks whose panics are not the caller's.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::Error;

/// What a callback returns, or [`Error::Panicked`], which is logged.
///
/// The assertion of unwind safety holds for all users of this: what the callback was given is not
/// touched again, or dropped at most.
pub(crate) fn contained<T>(callback: &'static str, call: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panicked(callback, &*panic))
}

/// The same for what a future does, which is not polled again after a panic.
pub(crate) async fn contained_future<T>(
    callback: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match contained(callback, || future.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}

fn panicked(callback: &'static str, panic: &(dyn Any + Send)) -> Error {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "a panic without a message".to_owned(),
    };
    tracing::error!(callback, message, "a callback of a cache panicked");
    Error::Panicked { callback, message }
}
