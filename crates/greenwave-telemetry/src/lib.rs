//! Serves live metrics of a run as JSON and to Prometheus: a [`MetricsEndpoint`] answers `GET
//! /metrics` with a [`MetricsSnapshot`].
//!
//! Implement [`MetricsSource`], or pass a closure. It is called on every request, so the metrics
//! are never older than the request.
//!
//! ```
//! use greenwave_telemetry::{MetricsEndpoint, MetricsSnapshot};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), greenwave_telemetry::Error> {
//! let endpoint = MetricsEndpoint::bind("127.0.0.1:0".parse().expect("a socket address")).await?;
//! let address = endpoint.address();
//! let server = endpoint.serve(MetricsSnapshot::default);
//! println!("curl http://{address}/metrics");
//! drop(server); // stops the server
//! # Ok(())
//! # }
//! ```
//!
//! A snapshot may have further metrics for Prometheus: each [`MetricFamily`] is a counter, a gauge
//! or a [`Histogram`] of durations.
//!
//! With a [`Dashboard`], the server also has a page that shows the events of an [`EventFeed`] live.
//!
//! # Errors
//!
//! An [`Error`] means that the address could not be bound. A bound endpoint does not fail on
//! requests.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod dashboard;
mod endpoint;
mod error;
mod event_stream;
mod exposition;
mod family;
mod feed;
mod histogram;
mod limits;
mod memory;
mod negotiation;
mod origin;
mod routes;
mod snapshot;
mod source;

pub use dashboard::Dashboard;
pub use endpoint::{MetricsEndpoint, MetricsServer};
pub use error::Error;
pub use family::{Labels, MetricFamily};
pub use feed::EventFeed;
pub use histogram::{DURATION_BOUNDS, Histogram, HistogramSnapshot};
pub use memory::memory_usage;
pub use snapshot::{CacheMetrics, MemoryMetrics, MetricsSnapshot, ParallelMetrics};
pub use source::MetricsSource;
