//! Wraps a cold tier so that its panics and incomplete results are errors.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;

use super::{ColdEntry, ColdTier, SharedColdTier, SharedWrite};
use crate::{BoxError, ColdTierStats, Error};

/// A cold tier whose calls return an error where those of the wrapped tier panic.
pub(crate) struct GuardedColdTier {
    tier: Arc<dyn ColdTier>,
    value_bytes_max: Option<u64>,
    is_shared: bool,
}

impl GuardedColdTier {
    /// Wraps a tier.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Panicked`] if the tier panics when asked for its properties.
    pub(crate) fn new(tier: Arc<dyn ColdTier>) -> Result<Self, Error> {
        let value_bytes_max = call(|| tier.value_bytes_max())?;
        let is_shared = call(|| tier.shared().is_some())?;
        Ok(Self { tier, value_bytes_max, is_shared })
    }

    /// Returns the id of a new store, or 0 if the tier is not shared.
    pub(crate) fn store_id(&self) -> Result<u64, Error> {
        call(|| self.tier.shared().map_or(0, SharedColdTier::new_store_id))
    }

    fn shared_tier(&self) -> Result<&dyn SharedColdTier, BoxError> {
        call(|| self.tier.shared())?.ok_or_else(|| "the cold tier is no longer shared".into())
    }
}

#[async_trait]
impl ColdTier for GuardedColdTier {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        finish(async { self.tier.get(key).await }).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        let expected = keys.len();
        check_len(expected, finish(async { self.tier.get_many(keys).await }).await?)
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        let expected = keys.len();
        check_len(expected, finish(async { self.tier.contains_many(keys).await }).await?)
    }

    fn value_bytes_max(&self) -> Option<u64> {
        self.value_bytes_max
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        self.is_shared.then_some(self)
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        finish(async { self.tier.put_many(entries).await }).await
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        finish(async { self.tier.remove_many(keys).await }).await
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let mut keys = finish(async { self.tier.list(prefix).await }).await?;
        keys.retain(|key| key.starts_with(prefix));
        Ok(keys)
    }

    async fn flush(&self) -> Result<(), BoxError> {
        finish(async { self.tier.flush().await }).await
    }

    async fn close(&self) -> Result<(), BoxError> {
        finish(async { self.tier.close().await }).await
    }

    /// Returns zeros if the tier panics.
    fn stats(&self) -> ColdTierStats {
        call(|| self.tier.stats()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the statistics of the cold tier");
            ColdTierStats::default()
        })
    }
}

#[async_trait]
impl SharedColdTier for GuardedColdTier {
    async fn refresh(&self) -> Result<u64, BoxError> {
        let shared = self.shared_tier()?;
        finish(async { shared.refresh().await }).await
    }

    async fn flush_shared(&self) -> Result<(), BoxError> {
        let shared = self.shared_tier()?;
        finish(async { shared.flush_shared().await }).await
    }

    async fn write(&self, write: SharedWrite) -> Result<bool, BoxError> {
        let shared = self.shared_tier()?;
        finish(async { shared.write(write).await }).await
    }

    /// Returns 0 if the tier panics.
    fn new_store_id(&self) -> u64 {
        self.store_id().unwrap_or_default()
    }

    async fn mark_open(&self, store_id: u64) -> Result<Box<dyn Send + Sync>, BoxError> {
        let shared = self.shared_tier()?;
        finish(async { shared.mark_open(store_id).await }).await
    }

    async fn is_open(&self, store_id: u64) -> Result<bool, BoxError> {
        let shared = self.shared_tier()?;
        finish(async { shared.is_open(store_id).await }).await
    }
}

impl fmt::Debug for GuardedColdTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tier.fmt(f)
    }
}

/// Calls a function of the cold tier.
fn call<T>(function: impl FnOnce() -> T) -> Result<T, Error> {
    catch("cold tier", function)
}

/// Awaits a call of the cold tier.
async fn finish<T>(call: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    catch_async("cold tier", call).await?
}

/// Calls a function of the user, which the error names as `callback`.
///
/// Unwind safety is asserted: after a panic the function's state is only dropped.
pub(crate) fn catch<T>(callback: &'static str, function: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|panic| {
        // A simulated process is killed by unwinding its stack, with a value that is no text.
        #[cfg(feature = "simulation")]
        if !panic.is::<&str>() && !panic.is::<String>() {
            std::panic::resume_unwind(panic);
        }
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Error::Panicked { callback, message: text.unwrap_or_else(|| "no message".to_owned()) }
    })
}

/// Awaits a future of the user. It is not polled again after a panic.
pub(crate) async fn catch_async<T>(
    callback: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch(callback, || future.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}

fn check_len<T>(expected: usize, results: Vec<T>) -> Result<Vec<T>, BoxError> {
    match results.len() {
        len if len == expected => Ok(results),
        len => Err(format!("the cold tier returned {len} results for {expected} keys").into()),
    }
}
