//! Live figures of a run: a [`MetricsSnapshot`], its JSON, and an [`MetricsEndpoint`] that serves it at `/metrics`.
//!
//! Whoever runs something implements [`MetricsSource`]; the endpoint asks it anew at every request, so what
//! is served is never older than the request.
//!
//! ```
//! use greenwave_telemetry::{MetricsEndpoint, MetricsSnapshot};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), greenwave_telemetry::Error> {
//! let endpoint = MetricsEndpoint::bind("127.0.0.1:0".parse().expect("a socket address")).await?;
//! let address = endpoint.address();
//! let serving = endpoint.serve(MetricsSnapshot::default);
//! println!("curl http://{address}/metrics");
//! drop(serving); // stops it
//! # Ok(())
//! # }
//! ```
//!
//! There are no features. An error means that the address could not be bound; once bound, requests
//! cannot make the endpoint fail.

mod endpoint;
mod error;
mod memory;
mod snapshot;

pub use endpoint::{MetricsEndpoint, MetricsServer, MetricsSource};
pub use error::Error;
pub use memory::memory_usage;
pub use snapshot::{CacheMetrics, MemoryMetrics, MetricsSnapshot, ParallelMetrics};
