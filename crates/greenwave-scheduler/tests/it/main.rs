//! Tests of the public API.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod callbacks;
mod control;
mod dispatcher;
mod executor;
mod faults;
mod flow;
mod graph;
#[cfg(feature = "jobserver")]
mod jobserver;
#[cfg(feature = "journal")]
mod journal;
mod locks;
mod option_ranges;
mod order;
mod random;
#[cfg(feature = "journal")]
mod resume;
mod simulation;
mod states;
mod trace;

#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
