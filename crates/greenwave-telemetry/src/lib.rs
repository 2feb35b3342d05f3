//! Live figures of a run: a [`Snapshot`], its JSON, and an [`Endpoint`] that serves it at `/metrics`.
//!
//! Whoever runs something implements [`Source`]; the endpoint asks it anew at every request, so what
//! is served is never older than the request.
//!
//! ```
//! use greenwave_telemetry::{Endpoint, Snapshot};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), greenwave_telemetry::Error> {
//! let endpoint = Endpoint::bind("127.0.0.1:0".parse().expect("a socket address")).await?;
//! let address = endpoint.address();
//! let serving = endpoint.serve(Snapshot::default);
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

pub use endpoint::{Endpoint, Serving, Source};
pub use error::Error;
pub use memory::resident;
pub use snapshot::{CacheFigures, MemoryFigures, ParallelFigures, Snapshot};
