//! Tests of greenwave-retry through its public API.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod numbers;
mod retry;
