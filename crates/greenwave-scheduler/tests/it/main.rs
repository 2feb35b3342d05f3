//! Tests of greenwave-scheduler through its public face.

mod dispatcher;
mod executor;
mod graph;
#[cfg(feature = "journal")]
mod journal;
mod process;
