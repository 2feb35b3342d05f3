//! Awaits calls of a harness, and returns their panics as errors.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::Harness;
use crate::Error;

/// Awaits a call of a harness.
///
/// Unwind safety is asserted: after a panic the state of the call is only dropped.
///
/// # Errors
/// Those of the call, and [`Error::HarnessPanicked`] if it panics.
pub(crate) async fn guarded<T>(
    harness: &dyn Harness,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let message = text.unwrap_or_else(|| "no message".to_owned());
        Err(Error::HarnessPanicked { harness: harness.name(), message })
    })
}
