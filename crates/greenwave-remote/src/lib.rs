//! A client of the [Remote Execution API](https://github.com/bazelbuild/remote-apis) version 2,
//! which caches and clusters for builds speak, and a cache backend in its action cache.
//!
//! [`Client`] is a connection to one server: results of actions by the digests of actions, and
//! blobs by their SHA-256 ([`Digest`]). [`ActionCacheBackend`] stores the records of
//! [`greenwave_cache`] there, so that machines share them.
//!
//! ```
//! use bytes::Bytes;
//! use greenwave_remote::{ActionResult, Client, ClientOptions, Digest, Error, OutputFile};
//!
//! async fn share(action: Digest, output: Bytes) -> Result<(), Error> {
//!     let client = Client::new("grpc://cache.example.com:9092", ClientOptions::default())?;
//!     let digest = Digest::of(&output);
//!     client.upload(&[output]).await?;
//!     let file = OutputFile { path: "report.txt".to_owned(), digest, content: None };
//!     let result = ActionResult { output_files: vec![file], ..ActionResult::default() };
//!     client.update_action_result(&action, &result).await
//! }
//! ```
//!
//! # Trust
//!
//! Every blob is compared with its digest. A wrong one counts as missing, with one warning. A
//! digest does not prove who stored a result: seal the records
//! ([`Tier::secrets`](greenwave_cache::Tier::secrets)) if others can write to the server.
//!
//! # Errors
//!
//! [`Error`] names the server and the operation. A caller that can do without the server continues:
//! after a failure, calls fail immediately for some time ([`Error::Unavailable`]).
//!
//! # Executors
//!
//! An [`Executor`] runs commands in trees of files: [`LocalExecutor`] on this machine,
//! [`RemoteExecutor`] on a server, or one of yours.
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `conformance` | no | the module `conformance`: tests that every executor must pass | none |
//!
//! The crate compiles tonic and the generated messages of the protocol; no build needs
//! protoc.

mod address;
mod backend;
mod breaker;
mod capabilities;
mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
mod digest;
mod error;
mod execution;
mod executor;
mod local;
mod options;
mod token;
mod tree;

pub use backend::ActionCacheBackend;
pub use capabilities::ServerCapabilities;
pub use client::Client;
pub use client::actions::{ActionResult, OutputFile};
pub use digest::Digest;
pub use error::{Error, Failure};
pub use execution::RemoteExecutor;
pub use executor::{Action, ActionOutput, Event, Events, Executor, ExecutorExt, Outcome};
pub use local::LocalExecutor;
pub use options::ClientOptions;
pub use token::{Credentials, Token};
pub use tree::{Entry, Tree};
