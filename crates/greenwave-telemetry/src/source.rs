//! Defines the source of metrics.

use crate::MetricsSnapshot;

/// A source of metrics, such as any `Fn() -> MetricsSnapshot`.
///
/// # Contract
/// `snapshot` is called once per request on a tokio worker thread. It must not block, and may be
/// called from several threads at once. A request whose call panics gets a response with status
/// 500.
pub trait MetricsSource: Send + Sync + 'static {
    /// Returns the current metrics.
    fn snapshot(&self) -> MetricsSnapshot;
}

impl<F: Fn() -> MetricsSnapshot + Send + Sync + 'static> MetricsSource for F {
    fn snapshot(&self) -> MetricsSnapshot {
        self()
    }
}
