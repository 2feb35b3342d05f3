//! Tests of greenwave-scheduler through its public face.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod dispatcher;
mod executor;
mod graph;
#[cfg(feature = "journal")]
mod journal;
mod process;
