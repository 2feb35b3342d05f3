//! Futures of the public interface.

use std::pin::Pin;

/// Boxes a future, so that this crate compiles it, once. The caller of an `async fn` compiles its
/// future, and all futures within it, again.
pub(crate) fn boxed<'a, T>(
    future: impl Future<Output = T> + Send + 'a,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(future)
}
