//! Calls user-supplied callbacks and turns their panics into errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::Error;

/// Calls the callback. A panic is logged and returned as [`Error::Panicked`].
///
/// Unwind safety is asserted because no caller uses the callback's state after a panic, except to
/// drop it.
pub(crate) fn catch_panic<T>(callback: &'static str, call: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panicked(callback, &*panic))
}

/// Like [`catch_panic`], for a future. It is not polled again after a panic.
pub(crate) async fn catch_panic_async<T>(
    callback: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch_panic(callback, || future.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}

/// Creates a future and awaits it. Returns the payload of a panic, which the caller resumes.
pub(crate) async fn catch_unwind_async<Fut: Future>(
    create: impl FnOnce() -> Fut,
) -> Result<Fut::Output, Box<dyn Any + Send>> {
    let mut future = pin!(catch_unwind(AssertUnwindSafe(create))?);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// Returns the message of a panic.
pub(crate) fn message_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

fn panicked(callback: &'static str, panic: &(dyn Any + Send)) -> Error {
    let message = message_of(panic);
    tracing::error!(callback, message, "a callback of a cache panicked");
    Error::Panicked { callback, message }
}
