//! Tests of greenwave-retry through its public API.

#![expect(clippy::unwrap_used, reason = "test helpers may unwrap")]

mod numbers;
mod retry;
