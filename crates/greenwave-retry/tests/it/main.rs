//! Tests of greenwave-retry through its public API.

#![expect(clippy::unwrap_used, reason = "test helpers may unwrap")]

mod option_ranges;
mod retry;
