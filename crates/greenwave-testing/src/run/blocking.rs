//! Runs file system work outside of the async threads.

/// Runs `work` on a thread that may block, and returns its result.
///
/// # Panics
/// If `work` panics.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
