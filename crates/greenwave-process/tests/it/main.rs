//! Tests of greenwave-process through its public interface.

#![expect(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod child;
mod option_ranges;
mod spawn;
mod supervisor;
