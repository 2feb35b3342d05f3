//! Tests of the public API.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod custom_harness;
mod git_project;
mod option_ranges;
mod phase;
mod plan;
