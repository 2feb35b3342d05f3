//! Tests of greenwave through its public face.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod phase;
mod plan;
